"""What helps with a card, row by row of the field's own rules, and what staff are told.

The rows are written here once more, in the order of the table of the domain's design page, and
not taken from the code.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from cardsession.core import policy
from cardsession.core.facts import (
    CardFacts,
    CardState,
    Certificate,
    PinFacts,
    Remedy,
    Revocation,
    Standing,
    Trust,
)
from cardsession.core.remedies import (
    CONTACT_LIMIT,
    NHS,
    OTHERS,
    TEXT_LIMIT,
    Finding,
    Situation,
    findings,
    remedies,
    remedy_text,
    situation_of,
)
from cardsession.core.tries import (
    Blocked,
    Known,
    NoSuchPin,
    NotSet,
    PinStatus,
    Unknown,
    Verified,
)

STATUSES: tuple[PinStatus, ...] = (
    Known(3),
    Known(2),
    Known(1),
    Verified(),
    Blocked(),
    NotSet(),
    NoSuchPin(),
    Unknown(),
)
NHS_CARD = Situation(user=Known(3), nhs=True, days_left=400)
OTHER_CARD = Situation(user=Known(3), days_left=400)
UNLOCK = "self-unlock lsa-or-sponsor ra-in-person"
CONTACTS = {
    Remedy.RA_IN_PERSON: "RA desk, 01632 960123",
    Remedy.LSA_OR_SPONSOR: "Sam at the counter",
}
SUMMER = 1_781_956_800
"""20 June 2026."""

ROWS: list[tuple[str, Situation, str]] = [
    ("nothing is wrong", NHS_CARD, ""),
    ("locked, not expired", replace(NHS_CARD, user=Blocked()), UNLOCK),
    (
        "issued locked, as far as we know",
        replace(NHS_CARD, user=Blocked(), issued_locked=True),
        UNLOCK,
    ),
    ("issued locked, the card says so", replace(NHS_CARD, user=NotSet()), UNLOCK),
    (
        "locked and due for renewal",
        replace(NHS_CARD, user=Blocked(), renewal_due=True, days_left=40),
        f"{UNLOCK} renew",
    ),
    ("expired", replace(NHS_CARD, expired=True), "ra-in-person"),
    ("expired and locked", replace(NHS_CARD, expired=True, user=Blocked()), "ra-in-person"),
    ("expired and due", replace(NHS_CARD, expired=True, renewal_due=True), "ra-in-person"),
    ("retired series", replace(NHS_CARD, retired=True), "replace-card"),
    ("retired and locked", replace(NHS_CARD, retired=True, user=Blocked()), "replace-card"),
    ("retired and due", replace(NHS_CARD, retired=True, renewal_due=True), "replace-card"),
    ("retired and expired", replace(NHS_CARD, retired=True, expired=True), "replace-card"),
    (
        "retired, blank and temporary",
        replace(NHS_CARD, retired=True, temporary=True, state=CardState.BLANK),
        "replace-card",
    ),
    (
        "retired, and no profile reads it",
        Situation(state=CardState.UNKNOWN, retired=True),
        "replace-card",
    ),
    ("broken", Situation(state=CardState.MUTE), "replace-card"),
    ("inside 90 days of expiry", replace(NHS_CARD, renewal_due=True, days_left=89), "renew"),
    ("the same at the last try", replace(NHS_CARD, renewal_due=True, user=Known(1)), "renew"),
    ("lost or stolen", replace(NHS_CARD, revoked=True), "ra-in-person"),
    ("stolen, then locked", replace(NHS_CARD, revoked=True, user=Blocked()), "ra-in-person"),
    ("stolen, of a retired series", replace(NHS_CARD, revoked=True, retired=True), "ra-in-person"),
    (
        "a blank temporary card",
        replace(NHS_CARD, temporary=True, state=CardState.BLANK, user=Unknown()),
        "activate-temporary-card ra-in-person",
    ),
    (
        "the same: that it is the NHS's nothing on it can prove",
        Situation(temporary=True, state=CardState.BLANK),
        "activate-temporary-card ra-in-person",
    ),
    ("an active temporary card", replace(NHS_CARD, temporary=True), ""),
    ("a temporary card, locked", Situation(temporary=True, user=Blocked()), UNLOCK),
    ("a blank card", replace(NHS_CARD, state=CardState.BLANK), "ra-in-person"),
    ("the last try", replace(NHS_CARD, user=Known(1)), ""),
    ("verified", replace(NHS_CARD, user=Verified()), ""),
    ("the card did not say", replace(NHS_CARD, user=Unknown()), ""),
    # an NHS card's PUK is the national service's: a site cannot enable it into a remedy
    ("NHS, UnblockPin enabled", replace(NHS_CARD, user=Blocked(), unblock=True), UNLOCK),
    # other cards
    ("other: nothing is wrong", OTHER_CARD, ""),
    ("other: locked", replace(OTHER_CARD, user=Blocked()), "contact-issuer"),
    (
        "other: locked, UnblockPin enabled",
        replace(OTHER_CARD, user=Blocked(), unblock=True),
        "unblock contact-issuer",
    ),
    (
        "other: locked and due",
        replace(OTHER_CARD, user=Blocked(), unblock=True, renewal_due=True),
        "unblock contact-issuer",
    ),
    ("other: UnblockPin enabled, not locked", replace(OTHER_CARD, unblock=True), ""),
    ("other: never set", replace(OTHER_CARD, user=NotSet(), unblock=True), "contact-issuer"),
    ("other: due", replace(OTHER_CARD, renewal_due=True), "contact-issuer"),
    ("other: expired", replace(OTHER_CARD, expired=True), "contact-issuer"),
    (
        "other: expired and locked",
        replace(OTHER_CARD, expired=True, user=Blocked(), unblock=True),
        "contact-issuer",
    ),
    ("other: revoked", replace(OTHER_CARD, revoked=True), "contact-issuer"),
    ("other: blank", replace(OTHER_CARD, state=CardState.BLANK), "contact-issuer"),
    ("other: the last try", replace(OTHER_CARD, user=Known(1)), ""),
    # not ours
    ("no profile reads it", Situation(state=CardState.UNKNOWN, user=Blocked()), ""),
    ("not read yet", replace(NHS_CARD, state=CardState.PROBING, expired=True, retired=True), ""),
]
BY_NAME = {name: situation for name, situation, _ in ROWS}


@pytest.mark.parametrize(
    ("situation", "expected"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_every_row_of_the_table(situation: Situation, expected: str) -> None:
    assert remedies(situation) == tuple(Remedy(word) for word in expected.split())


def everything() -> list[Situation]:
    """Each combination of what decides."""
    flags = ("issued_locked", "expired", "renewal_due", "retired", "revoked", "temporary")
    flags += ("nhs", "unblock")
    return [
        Situation(state=state, user=status, **dict(zip(flags, values, strict=True)))
        for state, status in product(CardState, STATUSES)
        for values in product((False, True), repeat=len(flags))
    ]


def text_of(situation: Situation, contacts: dict[Remedy, str] | None = None) -> str:
    return remedy_text(remedies(situation), situation, contacts or {})


def test_what_holds_of_every_situation() -> None:
    self_help = {Remedy.SELF_UNLOCK, Remedy.LSA_OR_SPONSOR, Remedy.RENEW, Remedy.UNBLOCK}
    for each in everything():
        found = remedies(each)
        assert len(set(found)) == len(found)
        national = each.nhs or each.temporary
        if national:
            assert not {Remedy.UNBLOCK, Remedy.CONTACT_ISSUER} & set(found), each
        elif found != (Remedy.REPLACE_CARD,):
            assert set(found) <= {Remedy.UNBLOCK, Remedy.CONTACT_ISSUER}, each
        if each.expired or each.retired or each.revoked or each.state is not CardState.READY:
            assert not self_help & set(found), each
        if Remedy.REPLACE_CARD in found:
            assert found == (Remedy.REPLACE_CARD,), each
        if Remedy.UNBLOCK in found:
            assert each.unblock and each.user == Blocked()
        assert bool(findings(each)) is bool(text_of(each)), each
        assert not found or text_of(each)


def test_every_finding_has_a_row_in_both_tables_and_occurs() -> None:
    assert set(NHS) == set(Finding)
    assert set(OTHERS) == set(Finding) - {Finding.BLANK_TEMPORARY}, "a temporary card is the NHS's"
    assert {finding for each in everything() for finding in findings(each)} == set(Finding)
    assert {remedy for each in everything() for remedy in remedies(each)} == set(Remedy)


# the text


def test_a_text_is_never_too_long_for_a_counter() -> None:
    contacts = dict.fromkeys(Remedy, "W" * CONTACT_LIMIT)
    texts = [text_of(replace(each, days_left=9999), contacts) for each in everything()]
    longest = max(map(len, texts))
    assert longest <= TEXT_LIMIT == 1000
    assert longest > 600, "contacts are in it"


def test_a_blocked_card_names_every_way_out_in_order_with_whom_to_ask() -> None:
    text = text_of(BY_NAME["locked, not expired"], CONTACTS)
    assert text == (
        "Your Smartcard is blocked. Unlock it yourself with the self-service unlock; for this"
        " your profile must hold an email address, a mobile number or a photo. If that is not"
        " possible, ask a Local Smartcard Administrator or Sponsor to unlock it (Sam at the"
        " counter). If that is not possible, see your Registration Authority in person (RA desk,"
        " 01632 960123)."
    )


def test_a_card_blocked_by_nobody_here_may_have_been_issued_locked() -> None:
    words = "may have been issued locked"
    assert words in text_of(BY_NAME["issued locked, as far as we know"])
    assert words not in text_of(BY_NAME["locked, not expired"])
    assert words not in text_of(replace(NHS_CARD, user=Blocked(), issued_locked=True, expired=True))
    assert "no passcode yet" in text_of(BY_NAME["issued locked, the card says so"])


def test_renewal_comes_after_unlocking_not_instead() -> None:
    text = text_of(BY_NAME["locked and due for renewal"])
    assert text.startswith("Your Smartcard is blocked. Your Smartcard expires in 40 days.")
    assert text.endswith("Once it is unlocked, renew it yourself before it expires.")


@pytest.mark.parametrize(
    ("days", "words"),
    [(0, "expires within a day."), (1, "expires in 1 day."), (2, "expires in 2 days.")],
)
def test_the_days_left_are_told(days: int, words: str) -> None:
    assert words in text_of(replace(NHS_CARD, renewal_due=True, days_left=days))


def test_a_retired_card_can_be_neither_renewed_nor_unlocked() -> None:
    text = text_of(BY_NAME["retired and locked"])
    assert "neither renewed nor unlocked" in text
    assert "Ask your Registration Authority for a new Smartcard." in text
    assert "blocked" not in text


def test_the_last_try_is_told_although_there_is_nothing_to_mend() -> None:
    text = text_of(BY_NAME["the last try"])
    assert text == ("You have 1 remaining try. One more wrong passcode blocks your Smartcard.")
    assert text_of(BY_NAME["other: the last try"]) == text
    both = text_of(BY_NAME["the same at the last try"])
    assert both.startswith(text) and both.endswith("Renew it yourself before it expires.")


def test_a_mute_card_is_turned_round_before_it_is_called_broken() -> None:
    text = text_of(BY_NAME["broken"])
    assert text.index("turn it round") < text.index("broken") < text.index("new Smartcard")


def test_nothing_is_said_where_nothing_is_wrong_or_known() -> None:
    for name in ("nothing is wrong", "other: nothing is wrong", "no profile reads it", "verified"):
        assert text_of(BY_NAME[name], CONTACTS) == ""


@pytest.mark.parametrize("line", ["", "   ", "W" * (CONTACT_LIMIT + 1)])
def test_no_contact_line_or_one_that_is_too_long_leaves_the_sentence(line: str) -> None:
    situation = BY_NAME["expired"]
    assert text_of(situation, {Remedy.RA_IN_PERSON: line}) == text_of(situation)
    assert text_of(situation).endswith("in person.")


def test_a_contact_line_is_made_safe() -> None:
    text = text_of(BY_NAME["expired"], {Remedy.RA_IN_PERSON: "a\0b\x1b[2J"})
    assert text.isprintable()


# from a card's facts


def card(**changed: object) -> CardFacts:
    """A good card of the NHS's."""
    good = CardFacts(
        1,
        "r",
        b"",
        0,
        0,
        profile="piv",
        series="9",
        state=CardState.READY,
        certificates={"authentication": Certificate("authentication", b"", not_after=SUMMER)},
        days_left=400,
        pins=PinFacts({"user": Known(3)}),
        nhs=True,
    )
    return replace(good, **changed)  # type: ignore[arg-type]


def seen(card: CardFacts, *unblock: str) -> Situation:
    return situation_of(
        card, retired_series=policy.RETIRED_SERIES, unblock_profiles=frozenset(unblock)
    )


def test_a_good_card_is_in_the_good_situation() -> None:
    assert seen(card()) == NHS_CARD


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"state": CardState.MUTE}, {"state": CardState.MUTE}),
        ({"nhs": False}, {"nhs": False}),
        ({"series": "3"}, {"retired": True}),
        ({"series": "unknown"}, {}),
        ({"temporary": True}, {"temporary": True}),
        ({"renewal_due": True, "days_left": 3}, {"renewal_due": True, "days_left": 3}),
        ({"days_left": 0}, {"days_left": 0}),
        # expired, whatever else was found against its certificate
        ({"days_left": -1}, {"expired": True, "days_left": -1}),
        (
            {"days_left": -1, "standing": Standing(Trust.UNTRUSTED)},
            {"expired": True, "days_left": -1},
        ),
        ({"standing": Standing(Trust.EXPIRED)}, {"expired": True}),
        ({"standing": Standing(Trust.REVOKED)}, {"revoked": True}),
        ({"standing": Standing(revocation=Revocation.REVOKED)}, {"revoked": True}),
        ({"standing": Standing(Trust.UNTRUSTED)}, {}),
        ({"standing": Standing(revocation=Revocation.GOOD)}, {}),
        (
            {"pins": PinFacts({"user": Blocked()}, issued_locked=True)},
            {"user": Blocked(), "issued_locked": True},
        ),
        # only the primary passcode counts
        ({"pins": PinFacts({"user": Known(2), "signature": Blocked()})}, {"user": Known(2)}),
        ({"pins": PinFacts()}, {"user": Unknown()}),
    ],
)
def test_what_of_a_card_decides(changed: dict[str, object], expected: dict[str, object]) -> None:
    assert seen(card(**changed)) == replace(NHS_CARD, **expected)  # type: ignore[arg-type]


def test_a_puk_helps_where_the_site_enables_it_and_it_is_not_blocked_itself() -> None:
    assert seen(card(), "piv").unblock
    assert not seen(card(), "pkcs15").unblock
    assert not seen(card()).unblock
    pins = {"user": Blocked(), "puk": Unknown()}
    assert seen(card(pins=PinFacts(pins)), "piv").unblock
    assert not seen(card(pins=PinFacts({**pins, "puk": Blocked()})), "piv").unblock

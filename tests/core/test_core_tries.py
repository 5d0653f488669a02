"""All 65,536 status words as an answer to a question and to a submission; when a try may go.

What each means is written here once more, with its source, and not taken from the code:
ISO/IEC 7816-4:2020 clause 5.6 (tables 5 to 7) for 63CX, 6983, 6984, 6985, 6A80, 6A86, 6A88;
NIST SP 800-73-4 part 2 clause 3.2.1 for the empty VERIFY; gematik gemSpec_COS (GET PIN STATUS)
for 62C1 and 62C7; TCOS's NullPIN for 6985.
"""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardsession.adapters.ledger import MemoryLedger
from cardsession.core.apdu import SW
from cardsession.core.facts import CardFacts, PinFacts
from cardsession.core.tries import (
    Blocked,
    Consent,
    Judged,
    Known,
    NoSuchPin,
    NotSet,
    Outcome,
    PinStatus,
    Source,
    Unknown,
    Verified,
    judge_verify,
    left,
    may_spend,
    read_query,
)
from cardsession.core.update import counted, judged, stale

ALL = range(0x10000)
BEFORE: list[PinStatus] = [*map(Known, range(1, 16)), Blocked(), Unknown(), NotSet(), Verified()]
NOT_SET = {0x62C1, 0x62C7, 0x6985}
ABSENT = {0x6A86, 0x6A88}


def test_a_question_is_read_the_one_way_for_every_status_word() -> None:
    for value in ALL:
        status = read_query(SW(value))
        text = f"{value:04X}"
        if text == "9000":
            assert status == Verified(), "verified: the count cannot be known, it is not 0"
        elif text.startswith("63C") and text != "63C0":
            assert status == Known(int(text[3], 16))
        elif text in {"63C0", "6983"}:
            assert status == Blocked()
        elif value in NOT_SET:
            assert status == NotSet()
        elif value in ABSENT:
            assert status == NoSuchPin()
        else:
            assert status == Unknown(SW(value)), text


def test_only_fifteen_status_words_of_a_question_give_a_number_above_zero() -> None:
    numbers = {value: left(read_query(SW(value))) for value in ALL}
    told = {value: number for value, number in numbers.items() if number is not None}
    assert told == {0x63C0 + count: count for count in range(16)} | {0x6983: 0}


@pytest.mark.parametrize("low", [0x00, 0x01, 0x02, 0x03, 0x0F, 0xB3, 0xD3, 0xF3])
def test_a_63_without_a_c_holds_no_count(low: int) -> None:
    """Only old cards put a count there: 6300 is 'no information given'."""
    word = SW(0x6300 | low)
    assert read_query(word) == Unknown(word)
    assert left(judge_verify(word, Known(3)).status) is None


@pytest.mark.parametrize("uncounted", [False, True])
@pytest.mark.parametrize("before", BEFORE, ids=str)
def test_every_answer_to_a_submission_is_judged(before: PinStatus, *, uncounted: bool) -> None:
    for value in ALL:
        verdict = judge_verify(SW(value), before, format_uncounted=uncounted)
        text = f"{value:04X}"
        assert verdict.sent
        assert (verdict.outcome is Outcome.VERIFIED) == (text == "9000"), text
        number = left(verdict.status)
        if text.startswith("63C"):
            assert number == int(text[3], 16)
            blocked = Outcome.NOW_BLOCKED if text == "63C0" else Outcome.INCORRECT
            assert verdict.outcome is blocked
        elif text == "6983":
            assert number == 0
            was = Outcome.NOW_BLOCKED if isinstance(before, Known) else Outcome.WAS_BLOCKED
            assert verdict.outcome is was
        elif text == "6300":
            assert (verdict.outcome, number) == (Outcome.INCORRECT, None)
        elif text == "6A80" and uncounted:
            assert (verdict.outcome, verdict.status) == (Outcome.BAD_FORMAT, before)
        elif text != "9000":
            assert verdict.outcome is Outcome.UNCERTAIN, text
            assert verdict.status == Unknown(SW(value)), "a number would be a guess"


def test_nothing_is_shown_for_a_pin_that_is_not_set_or_not_known() -> None:
    """0 on the bus is 'blocked'; a PIN that was never set is not, and its count is not told."""
    for status in (NotSet(), Unknown(), Unknown(SW(0x6F00)), Verified(), NoSuchPin()):
        assert left(status) is None
    assert left(Blocked()) == 0


CONSENTS = [
    Consent(spend_last_try=last, accept_unknown=unknown)
    for last, unknown in product((False, True), repeat=2)
]


@pytest.mark.parametrize("consent", CONSENTS, ids=str)
@pytest.mark.parametrize("lowest", [None, *range(16)])
def test_when_a_try_may_be_spent(consent: Consent, lowest: int | None) -> None:
    for count in range(1, 16):
        refusal = may_spend(Known(count), consent, lowest)
        allowed = count >= 2 or consent.spend_last_try
        assert (refusal is None) == allowed, count
        if refusal:
            assert refusal == Judged(Outcome.REFUSED_LAST_TRY, Known(count), sent=False)
    for status in (Blocked(), NotSet()):
        assert may_spend(status, consent, lowest) == Judged(Outcome.WAS_BLOCKED, status, sent=False)
    with pytest.raises(ValueError):
        may_spend(NoSuchPin(), consent, lowest)


UNKNOWN_RULE = [
    # lowest seen, spend-last-try, accept-unknown: what becomes of it
    (None, False, False, Outcome.REFUSED_UNKNOWN),
    (None, True, False, Outcome.REFUSED_UNKNOWN),
    (None, False, True, None),
    (None, True, True, None),
    (0, False, False, Outcome.REFUSED_LAST_TRY),
    (0, True, False, Outcome.REFUSED_LAST_TRY),
    (0, False, True, Outcome.REFUSED_LAST_TRY),
    (0, True, True, None),
    (1, False, False, Outcome.REFUSED_LAST_TRY),
    (1, True, False, None),
    (1, False, True, Outcome.REFUSED_LAST_TRY),
    (1, True, True, None),
    (2, False, False, None),
    (2, True, True, None),
    (15, False, False, None),
]


@pytest.mark.parametrize(("lowest", "last", "unknown", "expected"), UNKNOWN_RULE)
@pytest.mark.parametrize("before", [Unknown(), Unknown(SW(0x6D00)), Verified()], ids=str)
def test_unknown_is_not_two(
    before: PinStatus, lowest: int | None, expected: Outcome | None, *, last: bool, unknown: bool
) -> None:
    refusal = may_spend(before, Consent(last, unknown), lowest)
    if expected is None:
        assert refusal is None
    else:
        assert refusal == Judged(expected, before, sent=False)


# the ledger, in memory


@given(st.lists(st.integers(0, 15), min_size=1))
def test_the_ledger_keeps_the_lowest_count_until_a_success(counts: list[int]) -> None:
    ledger = MemoryLedger()
    for count in counts:
        ledger.settle("A", 0x80, Known(count) if count else Blocked())
    ledger.settle("A", 0x80, Unknown())
    ledger.settle("A", 0x80, NotSet())
    assert ledger.lowest("A", 0x80) == min(counts)
    assert ledger.lowest("B", 0x80) is None
    assert ledger.lowest("A", 0x00) is None
    ledger.settle("A", 0x80, Verified())
    assert ledger.lowest("A", 0x80) is None


def test_an_attempt_is_in_flight_until_its_outcome_is_known() -> None:
    ledger = MemoryLedger()
    ledger.begin("A", 0x80, "somebody")
    assert ledger.in_flight("A")
    assert not ledger.in_flight("B")
    ledger.settle("A", 0x80, Unknown())
    assert ledger.in_flight("A"), "an outcome that is not known settles nothing"
    ledger.settle("A", 0x80, Known(2))
    assert not ledger.in_flight("A")


# what is shown of it

CARD = CardFacts(1, "r", b"", 0, 0, pins=PinFacts({"user": Known(3)}, Source.CARD, 5))


def test_a_count_is_shown_with_where_it_came_from() -> None:
    sent = judged(CARD, "user", Judged(Outcome.INCORRECT, Known(2)), 9)
    assert sent.pins == PinFacts({"user": Known(2)}, Source.LAST_VERIFY, 9)
    refused = judged(CARD, "user", Judged(Outcome.REFUSED_LAST_TRY, Known(1), sent=False), 9)
    assert refused.pins == PinFacts({"user": Known(1)}, Source.CARD, 9)


def test_an_unknown_count_has_no_source_that_would_vouch_for_it() -> None:
    lost = judged(CARD, "user", Judged(Outcome.UNCERTAIN, Unknown()), 9)
    assert lost.pins.source is Source.STALE
    refused = judged(CARD, "user", Judged(Outcome.REFUSED_UNKNOWN, Unknown(), sent=False), 9)
    assert refused.pins.source is Source.NONE
    assert counted(CARD, {"user": Unknown(SW(0x6D00))}, 9).pins.source is Source.NONE


def test_a_submission_that_never_came_to_the_card_changes_nothing() -> None:
    assert judged(CARD, "user", Judged(Outcome.BAD_FORMAT, Unknown(), sent=False), 9) is CARD


def test_stale_takes_the_number_away_and_keeps_when_it_was_read() -> None:
    assert stale(CARD).pins == PinFacts({"user": Unknown()}, Source.STALE, 5)
    assert counted(CARD, None, 9) == stale(CARD)


def test_a_pin_that_the_card_does_not_have_is_not_shown() -> None:
    assert counted(CARD, {"user": NoSuchPin()}, 9).pins.status == {}

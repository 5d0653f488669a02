"""All 65,536 status words as an answer to a question and to a submission; when a try may go.

What each means is written here once more, with its source, and not taken from the code:
ISO/IEC 7816-4:2020 clause 5.6 (tables 5 to 7) for 63CX, 6983, 6984, 6985, 6A80, 6A86, 6A88;
NIST SP 800-73-4 part 2 clause 3.2.1 for the empty VERIFY, and 3.2.1 to 3.2.3 for 6A80 that leaves
the counter alone; gematik gemSpec_COS (GET PIN STATUS)
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
    Act,
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
    judge,
    left,
    may_spend,
    read_back,
    read_query,
)
from cardsession.core.update import counted, judged, stale

ALL = range(0x10000)
WORDS = [SW(value) for value in ALL]
BEFORE: list[PinStatus] = [Known(1), Known(15), Blocked(), Unknown(), NotSet(), Verified()]
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
    assert left(judge(word, Known(3)).status) is None


TAKEN = {
    Act.VERIFY: Outcome.VERIFIED,
    Act.CHANGE: Outcome.CHANGED,
    Act.UNBLOCK: Outcome.UNBLOCKED,
}
REFUSED = {
    Act.VERIFY: Outcome.BAD_FORMAT,
    Act.CHANGE: Outcome.BAD_NEW_PIN,
    Act.UNBLOCK: Outcome.BAD_NEW_PIN,
}


def telling(before: PinStatus, act: Act, *, uncounted: bool) -> dict[str, Judged]:
    """The status words that say something, and what they say."""
    was = Outcome.NOW_BLOCKED if isinstance(before, Known) else Outcome.WAS_BLOCKED
    rows = {
        "9000": Judged(TAKEN[act], Verified()),
        "63C0": Judged(Outcome.NOW_BLOCKED, Blocked()),
        "6983": Judged(was, Blocked()),
    }
    rows |= {f"63C{count:X}": Judged(Outcome.INCORRECT, Known(count)) for count in range(1, 16)}
    rows |= {
        f"630{low:X}": Judged(Outcome.INCORRECT, Unknown(SW(0x6300 | low))) for low in range(16)
    }
    return rows | ({"6A80": Judged(REFUSED[act], before)} if uncounted else {})


@pytest.mark.parametrize("act", Act)
@pytest.mark.parametrize("uncounted", [False, True])
@pytest.mark.parametrize("before", BEFORE, ids=str)
def test_every_answer_to_a_submission_is_judged(
    before: PinStatus, act: Act, *, uncounted: bool
) -> None:
    rows = {int(text, 16): row for text, row in telling(before, act, uncounted=uncounted).items()}
    for word in WORDS:
        verdict = judge(word, before, act, format_uncounted=uncounted)
        row = rows.get(word)
        if row is None:  # a number would be a guess
            row = Judged(Outcome.UNCERTAIN, Unknown(word))
        assert verdict == row, word


def test_without_an_act_it_is_a_verify() -> None:
    assert judge(SW(0x9000), Known(3)) == judge(SW(0x9000), Known(3), Act.VERIFY)


# a count that was asked for afterwards

FORM = {0x6A80, 0x6700, 0x6A87}


@pytest.mark.parametrize("act", Act)
@pytest.mark.parametrize(
    ("before", "now", "unmoved"),
    [
        (Known(3), Known(3), True),
        (Known(3), Known(2), False),
        (Known(3), Known(4), False),
        (Known(15), Known(15), False),  # the nibble holds no more: it may have been sixteen
        (Known(1), Blocked(), False),
        (Unknown(), Known(2), False),
        (Blocked(), Blocked(), False),
    ],
)
def test_a_count_that_is_read_back_for_every_answer(
    before: PinStatus, now: PinStatus, act: Act, *, unmoved: bool
) -> None:
    for value in WORDS:
        judged = judge(value, before, act)
        if not isinstance(judged.status, Unknown):
            continue  # it told its count
        verdict = read_back(judged, act, before, now)
        assert (verdict.status, verdict.read_back, verdict.sent) == (now, True, True)
        if value & 0xFFF0 == 0x6300:
            lost = isinstance(now, Blocked)
            assert verdict.outcome is (Outcome.NOW_BLOCKED if lost else Outcome.INCORRECT)
        elif unmoved and (value in FORM or (value == 0x6985 and act is not Act.VERIFY)):
            assert verdict.outcome is REFUSED[act], value
        else:
            assert verdict.outcome is Outcome.UNCERTAIN, value


def test_a_lost_answer_is_not_about_the_form_wherever_the_counter_stands() -> None:
    lost = Judged(Outcome.UNCERTAIN, Unknown())
    verdict = read_back(lost, Act.VERIFY, Known(3), Known(3))
    assert verdict == Judged(Outcome.UNCERTAIN, Known(3), read_back=True)


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
    assert ledger.past("A").in_flight
    assert not ledger.past("B").in_flight
    ledger.settle("A", 0x80, Unknown())
    assert ledger.past("A").in_flight, "an outcome that is not known settles nothing"
    ledger.settle("A", 0x80, Known(2))
    assert not ledger.past("A").in_flight


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

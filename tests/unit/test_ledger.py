"""The ledger: what may be believed of a counter when the card does not tell.

Each test is about both ledgers: in memory, and on a disk.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from cardsession.adapters.ledger import FileLedger, MemoryLedger
from cardsession.adapters.ledger.entry import MOST_ATTEMPTS
from cardsession.core.tries import Blocked, Known, NotSet, Unknown, Verified
from cardsession.ports import Past

CARD, PIN, PUK = "A1", 0x80, 0x81


@pytest.fixture(params=["memory", "disk"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MemoryLedger]:
    usec = itertools.count(1000).__next__
    if request.param == "memory":
        yield MemoryLedger(usec)
        return
    durable = FileLedger(tmp_path, usec)
    yield durable
    durable.close()


def test_nothing_is_known_of_a_card_that_was_never_seen(ledger: MemoryLedger) -> None:
    assert ledger.lowest(CARD, PIN) is None
    assert ledger.past(CARD) == Past()


def test_the_lowest_count_read_stays_until_a_success(ledger: MemoryLedger) -> None:
    for count in (Known(3), Known(1), Known(3)):
        ledger.note(CARD, PIN, count)
    assert ledger.lowest(CARD, PIN) == 1
    ledger.begin(CARD, PIN, "a test")
    ledger.settle(CARD, PIN, Verified())
    assert ledger.lowest(CARD, PIN) is None


def test_an_attempt_without_an_outcome_is_a_try_gone(ledger: MemoryLedger) -> None:
    ledger.note(CARD, PIN, Known(2))
    ledger.begin(CARD, PIN, "a test")
    ledger.settle(CARD, PIN, Unknown())
    assert ledger.lowest(CARD, PIN) == 1
    assert ledger.past(CARD).in_flight


def test_a_try_that_did_not_count_is_given_back(ledger: MemoryLedger) -> None:
    ledger.note(CARD, PIN, Known(3))
    ledger.begin(CARD, PIN, "a test")
    ledger.settle(CARD, PIN, Known(3))
    assert ledger.lowest(CARD, PIN) == 3
    assert not ledger.past(CARD).in_flight


def test_a_withdrawn_attempt_leaves_an_earlier_one_on_record(ledger: MemoryLedger) -> None:
    ledger.note(CARD, PIN, Known(3))
    ledger.begin(CARD, PIN, "lost")
    ledger.begin(CARD, PIN, "withdrawn")
    assert ledger.lowest(CARD, PIN) == 1
    ledger.withdraw(CARD, PIN)
    assert ledger.lowest(CARD, PIN) == 2
    assert ledger.past(CARD).in_flight
    ledger.withdraw(CARD, PIN)
    assert ledger.lowest(CARD, PIN) == 3
    assert ledger.past(CARD) == Past()
    ledger.withdraw(CARD, PIN)
    assert ledger.lowest(CARD, PIN) == 3


def test_blocked_is_none_left(ledger: MemoryLedger) -> None:
    ledger.begin(CARD, PIN, "a test")
    ledger.settle(CARD, PIN, Blocked())
    assert ledger.lowest(CARD, PIN) == 0


def test_cards_and_pins_are_kept_apart(ledger: MemoryLedger) -> None:
    ledger.note(CARD, PIN, Known(1))
    ledger.begin(CARD, PIN, "a test")
    assert ledger.lowest(CARD, 0x00) is None
    assert ledger.lowest("B2", PIN) is None
    assert ledger.past("B2") == Past()


def test_cards_that_cannot_be_told_apart_have_no_entry(ledger: MemoryLedger) -> None:
    ledger.note("", PIN, Known(3))
    ledger.begin("", PIN, "a test")
    assert ledger.past("") == Past()
    ledger.settle("", PIN, Known(2), PIN)
    ledger.withdraw("", PIN)
    assert ledger.lowest("", PIN) is None
    assert ledger.past("") == Past()


def test_a_count_read_again_ends_an_attempt_that_was_lost(ledger: MemoryLedger) -> None:
    """The reader was pulled during VERIFY; at the next insertion the card tells."""
    ledger.note(CARD, PIN, Known(3))
    ledger.begin(CARD, PIN, "lost")
    ledger.note(CARD, PIN, Known(3))
    assert ledger.past(CARD) == Past(in_flight=False, tried=True)
    assert ledger.lowest(CARD, PIN) == 3
    ledger.begin(CARD, PIN, "again")
    assert ledger.past(CARD).in_flight
    assert ledger.lowest(CARD, PIN) == 2
    ledger.withdraw(CARD, PIN)
    assert ledger.past(CARD) == Past(in_flight=False, tried=True)
    assert ledger.lowest(CARD, PIN) == 3


def test_a_count_of_another_pin_ends_nothing(ledger: MemoryLedger) -> None:
    ledger.begin(CARD, PUK, "lost")
    ledger.note(CARD, PIN, Known(3))
    assert ledger.past(CARD).in_flight


@pytest.mark.parametrize("silent", [Verified(), Unknown(), NotSet()], ids=str)
def test_an_answer_that_is_no_count_ends_nothing(
    ledger: MemoryLedger, silent: Verified | Unknown | NotSet
) -> None:
    """9000 to the question may be a rival's doing; it says nothing of our attempt."""
    ledger.note(CARD, PIN, Known(3))
    ledger.begin(CARD, PIN, "a test")
    ledger.note(CARD, PIN, silent)
    assert ledger.past(CARD).in_flight
    assert ledger.lowest(CARD, PIN) == 2


@pytest.mark.parametrize(
    ("status", "lowest"), [(Known(2), 2), (Blocked(), 0), (Verified(), None), (Unknown(), 2)]
)
def test_a_count_read_back_before_the_outcome(
    ledger: MemoryLedger, status: Known | Blocked | Verified | Unknown, lowest: int | None
) -> None:
    ledger.note(CARD, PIN, Known(3))
    ledger.begin(CARD, PIN, "a test")
    ledger.note(CARD, PIN, Known(2))
    assert ledger.past(CARD) == Past(in_flight=False, tried=True)
    assert ledger.lowest(CARD, PIN) == 2
    ledger.settle(CARD, PIN, status)
    assert ledger.past(CARD) == Past(in_flight=False, tried=True)
    assert ledger.lowest(CARD, PIN) == lowest
    ledger.withdraw(CARD, PIN)
    assert ledger.past(CARD).tried, "a settled attempt was withdrawn"


def test_an_attempt_is_withdrawn_after_a_count_was_read(ledger: MemoryLedger) -> None:
    """As if there had been nothing but the count."""
    ledger.note(CARD, PIN, Known(3))
    ledger.begin(CARD, PIN, "a test")
    ledger.note(CARD, PIN, Known(2))
    ledger.withdraw(CARD, PIN)
    assert ledger.past(CARD) == Past()
    assert ledger.lowest(CARD, PIN) == 2


def test_tried_is_for_ever(ledger: MemoryLedger) -> None:
    assert not ledger.past(CARD).tried
    ledger.begin(CARD, PIN, "a test")
    assert ledger.past(CARD).tried
    ledger.settle(CARD, PIN, Verified())
    ledger.begin(CARD, PIN, "a test")
    ledger.withdraw(CARD, PIN)
    assert ledger.past(CARD) == Past(tried=True)


def test_a_new_passcode_has_a_new_counter(ledger: MemoryLedger) -> None:
    """CHANGE: the old count says nothing any more; one that was read since does."""
    ledger.note(CARD, PIN, Known(1))
    ledger.begin(CARD, PIN, "a test")
    ledger.settle(CARD, PIN, Known(3), PIN)
    assert ledger.lowest(CARD, PIN) == 3
    past = ledger.past(CARD)
    assert past.changed_usec > 0 and past.tried and not past.in_flight
    ledger.begin(CARD, PIN, "a test")
    ledger.settle(CARD, PIN, Verified(), PIN)
    assert ledger.lowest(CARD, PIN) is None
    assert ledger.past(CARD).changed_usec > past.changed_usec


def test_a_passcode_that_the_puk_made_has_a_new_counter(ledger: MemoryLedger) -> None:
    """RESET RETRY COUNTER: the PUK's counter was judged, the PIN's begins anew."""
    ledger.note(CARD, PIN, Blocked())
    ledger.begin(CARD, PIN, "lost")
    ledger.note(CARD, PUK, Known(9))
    ledger.begin(CARD, PUK, "a test")
    ledger.settle(CARD, PUK, Known(10), PIN)
    assert ledger.lowest(CARD, PIN) is None
    assert ledger.lowest(CARD, PUK) == 9
    past = ledger.past(CARD)
    assert past.changed_usec > 0 and not past.in_flight


def test_a_card_that_never_tells_fills_no_memory(ledger: MemoryLedger) -> None:
    for _ in range(3 * MOST_ATTEMPTS):
        ledger.begin(CARD, PIN, "a test")
        ledger.settle(CARD, PIN, Unknown())
    assert len(ledger._everything()[CARD, PIN].attempts) == MOST_ATTEMPTS
    ledger.note(CARD, PIN, Known(2))
    assert not ledger.past(CARD).in_flight
    assert ledger.lowest(CARD, PIN) == 2


def test_cards_beyond_the_bound_push_out_the_one_not_seen_for_longest(
    ledger: MemoryLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cardsession.adapters.ledger.memory.MOST_CARDS", 3)
    for identity in ("A", "B", "C", "A", "D"):
        ledger.note(identity, PIN, Known(3))
        ledger.begin(identity, PIN, "a test")
    assert [ledger.past(identity).tried for identity in "ABCD"] == [True, False, True, True]


def test_who_asked_is_text_that_nobody_obeys(ledger: MemoryLedger) -> None:
    ledger.begin(CARD, PIN, ":1.7\x1b[2J\n" + "x" * 500)
    (attempt,) = ledger._everything()[CARD, PIN].attempts
    assert attempt.asked_by.isprintable()
    assert len(attempt.asked_by) <= 128


def test_a_change_of_the_puk_is_none_of_the_passcode(ledger: MemoryLedger) -> None:
    ledger.begin(CARD, 0x81, "a test")
    ledger.settle(CARD, 0x81, Unknown(), 0x81)
    assert ledger.past(CARD).changed_usec > 0
    assert ledger.past(CARD, 0x81).changed_usec > 0
    assert ledger.past(CARD, PIN).changed_usec == 0

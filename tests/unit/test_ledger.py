"""The ledger: what may be believed of a counter when the card does not tell."""

from __future__ import annotations

import pytest

from cardsession.adapters.ledger import MemoryLedger
from cardsession.core.tries import Blocked, Known, Unknown, Verified

CARD, PIN = "A1", 0x80


@pytest.fixture
def ledger() -> MemoryLedger:
    return MemoryLedger()


def test_nothing_is_known_of_a_card_that_was_never_seen(ledger: MemoryLedger) -> None:
    assert ledger.lowest(CARD, PIN) is None


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
    assert ledger.in_flight(CARD)


def test_a_try_that_did_not_count_is_given_back(ledger: MemoryLedger) -> None:
    ledger.note(CARD, PIN, Known(3))
    ledger.begin(CARD, PIN, "a test")
    ledger.settle(CARD, PIN, Known(3))
    assert ledger.lowest(CARD, PIN) == 3
    assert not ledger.in_flight(CARD)


def test_a_withdrawn_attempt_leaves_an_earlier_one_on_record(ledger: MemoryLedger) -> None:
    ledger.note(CARD, PIN, Known(3))
    ledger.begin(CARD, PIN, "lost")
    ledger.begin(CARD, PIN, "withdrawn")
    assert ledger.lowest(CARD, PIN) == 1
    ledger.withdraw(CARD, PIN)
    assert ledger.lowest(CARD, PIN) == 2
    assert ledger.in_flight(CARD)


def test_blocked_is_none_left(ledger: MemoryLedger) -> None:
    ledger.begin(CARD, PIN, "a test")
    ledger.settle(CARD, PIN, Blocked())
    assert ledger.lowest(CARD, PIN) == 0


def test_cards_and_pins_are_kept_apart(ledger: MemoryLedger) -> None:
    ledger.note(CARD, PIN, Known(1))
    assert ledger.lowest(CARD, 0x00) is None
    assert ledger.lowest("B2", PIN) is None


def test_cards_that_cannot_be_told_apart_have_no_entry(ledger: MemoryLedger) -> None:
    ledger.note("", PIN, Known(3))
    ledger.begin("", PIN, "a test")
    ledger.settle("", PIN, Known(2))
    assert ledger.lowest("", PIN) is None

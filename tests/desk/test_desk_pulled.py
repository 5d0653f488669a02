"""A card pulled at every exchange, and what is late about one card when another lies there."""

from __future__ import annotations

import asyncio

import pytest

from cardsession.core.facts import CardState
from cardsession.core.states import State
from cardsession.core.tries import Known
from cardsession.desk import RECONCILE_SECONDS
from cardsession.virtual.options import Slot
from fakes.channel import removed
from fakes.counter import (
    CANARY,
    WRONG,
    Counter,
    assert_empty,
    make_card,
    outcome,
    settle,
)

# a card pulled at every exchange


async def exchanges_of_a_probe() -> int:
    counter = Counter()
    await counter.ready(make_card(slots=tuple(Slot)))
    return counter.channel.exchanges


async def exchanges_of_a_verify(text: str) -> int:
    counter = Counter()
    await counter.ready(make_card())
    session = await counter.open()
    before = counter.channel.exchanges
    await counter.verify(session, text)
    return counter.channel.exchanges - before


def pull_at(counter: Counter, at: int, *, noticed: bool, answered: bool) -> None:
    """The card goes at the exchange `at` from now; `answered`: it did what it was told before."""
    pump = counter.channel.pump
    first = len(pump.apdus)

    def pull(number: int) -> None:
        if number - first == at:
            counter.pull(noticed=noticed)
            raise removed()

    if answered:
        pump.after = lambda number, _, __: pull(number)
    else:
        pump.before = lambda number, _: pull(number)


@pytest.mark.parametrize("answered", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("noticed", [False, True], ids=["worker-first", "watch-first"])
async def test_a_card_pulled_at_every_exchange_of_probe_and_certificates(
    *, noticed: bool, answered: bool
) -> None:
    total = await exchanges_of_a_probe()
    assert total >= 8
    for at in range(1, total + 1):
        counter = Counter()
        card = make_card(slots=tuple(Slot))
        pull_at(counter, at, noticed=noticed, answered=answered)
        counter.insert(card)
        await settle()
        assert_empty(counter)
        counter.list()  # the watch agrees, late or once more
        await settle()
        assert_empty(counter)
        assert len(counter.publisher.told("card-gone")) == 1
        counter.insert(card)
        await settle()
        assert counter.state is State.READY


@pytest.mark.parametrize("answered", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("noticed", [False, True], ids=["worker-first", "watch-first"])
@pytest.mark.parametrize("text", [CANARY, WRONG], ids=["right", "wrong"])
async def test_a_card_pulled_at_every_exchange_of_a_verify(
    text: str, *, noticed: bool, answered: bool
) -> None:
    total = await exchanges_of_a_verify(text)
    assert total >= 4
    for at in range(1, total + 1):
        counter = Counter()
        card = await counter.ready(make_card())
        session = await counter.open()
        pull_at(counter, at, noticed=noticed, answered=answered)
        assert await outcome(counter.verify(session, text)) == "CardRemoved"
        await settle()
        assert_empty(counter)
        counter.list()
        await settle()
        assert_empty(counter)
        assert counter.publisher.reasons() == ["card-removed"]
        lines = [line.what for line in counter.publisher.lines]
        assert lines.count("card-gone") == 1
        assert len(counter.channel.pump.verifies) <= 1
        assert not card.pins.satisfied


async def test_a_card_pulled_while_a_session_opens() -> None:
    for at in (1, 2, 3):
        counter = Counter()
        await counter.ready()
        pull_at(counter, at, noticed=False, answered=False)
        assert await outcome(counter.open()) == "CardRemoved"
        assert_empty(counter)
        assert counter.publisher.reasons() == []


async def test_a_worker_that_was_wrong_about_a_removal_finds_the_card_again() -> None:
    """The status wait never agreed: after a second it is looked at anew."""
    counter = Counter()
    card = await counter.ready()
    session = await counter.open()
    counter.channel.pump.before = lambda _, __: (_ for _ in ()).throw(removed())
    assert await outcome(counter.verify(session)) == "CardRemoved"
    assert counter.state is State.EMPTY
    counter.channel.pump.before = lambda _, __: None
    counter.clock.advance(1.5)
    await settle()
    assert counter.state is State.READY
    assert counter.publisher.card.number == 2
    assert card.book.wrong() == 0


async def test_a_card_that_is_changed_quicker_than_the_service_looks_is_read_soon() -> None:
    """However often: the status wait never says that it was away."""
    counter = Counter()
    await counter.ready()
    for _ in range(6):
        session = await counter.open()
        counter.channel.pump.before = lambda _, __: (_ for _ in ()).throw(removed())
        assert await outcome(counter.verify(session)) == "CardRemoved"
        counter.channel.pump.before = lambda _, __: None
        counter.clock.advance(RECONCILE_SECONDS[1])
        await settle()
        assert counter.state is State.READY


async def test_a_card_that_contradicts_itself_is_asked_less_and_less_often() -> None:
    counter = Counter()
    await counter.ready()
    session = await counter.open()
    counter.channel.pump.before = lambda _, __: (_ for _ in ()).throw(removed())
    assert await outcome(counter.verify(session)) == "CardRemoved"
    asked = []
    for seconds in RECONCILE_SECONDS:
        before = len(counter.channel.pump.apdus)
        counter.clock.advance(seconds - 0.01)
        await settle()
        assert len(counter.channel.pump.apdus) == before, "before its time"
        counter.clock.advance(0.02)
        await settle()
        asked.append(len(counter.channel.pump.apdus) - before)
    assert asked == [1] * len(RECONCILE_SECONDS)


# another card, another generation


async def test_late_answers_of_an_old_card_never_touch_the_new_one() -> None:
    counter = Counter()
    old, new = make_card(holder="111111111111"), make_card(holder="222222222222", tries=1)
    counter.channel.paused = True
    counter.insert(old)
    await settle()
    counter.pull()
    counter.insert(new)
    counter.channel.chip = old
    counter.channel.work()  # the old card's probe comes home now
    counter.channel.chip = new
    await settle()
    assert counter.publisher.card.holder is None
    assert counter.publisher.card.state is CardState.PROBING
    counter.channel.resume()
    await settle()
    assert counter.publisher.card.holder is not None
    assert counter.publisher.card.holder.common_name == "222222222222"
    assert counter.publisher.card.pins.status["user"] == Known(1)


async def test_a_verify_for_the_old_card_is_not_sent_to_the_new_one() -> None:
    counter = Counter()
    await counter.ready()
    session = await counter.open()
    counter.channel.paused = True
    asked = asyncio.ensure_future(outcome(counter.verify(session)))
    await settle()
    counter.pull()
    other = make_card()
    counter.insert(other)
    assert await asked == "CardRemoved"
    counter.channel.resume()
    await settle()
    assert counter.channel.pump.verifies == []
    assert counter.state is State.READY
    assert counter.publisher.card.pins.status["user"] == Known(3)


async def test_a_swap_that_only_the_card_tells_is_found_before_the_passcode_goes() -> None:
    counter = Counter()
    await counter.ready()
    session = await counter.open()
    other = make_card()
    counter.channel.chip = other
    assert await outcome(counter.verify(session)) == "CardRemoved"
    assert counter.channel.pump.verifies == []
    assert counter.publisher.reasons() == ["card-removed"]
    counter.clock.advance(1.5)
    await settle()
    assert counter.publisher.card.serial == other.identity.guid.hex().upper()

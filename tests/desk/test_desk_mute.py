"""Cards that do not answer when they come: one attempt to wake them, then their reader says so."""

from __future__ import annotations

import pytest

from cardsession.config import Config, SessionConfig
from cardsession.core.errors import Problem
from cardsession.core.facts import CardState, EndReason, ReaderFacts, ReaderState
from cardsession.core.policy import Removal
from cardsession.core.reports import SlotReport, came_to_life
from cardsession.core.states import Event, State
from fakes.counter import ATR, Counter, make_card, outcome, settle
from fakes.pcscd import Slot
from fakes.specimens import Specimen
from fakes.world import READERS, World

MUTE = SlotReport("r", present=True, mute=True, counter=5)
ALIVE = SlotReport("r", present=True, counter=5, atr=b"\x3b")


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        (MUTE, ALIVE, True),
        (ALIVE, MUTE, False),
        (MUTE, SlotReport("r", present=True, counter=5), False),  # without power, for a moment
        (MUTE, SlotReport("r", present=True, counter=7, atr=b"\x3b"), False),  # another one
        (MUTE, SlotReport("r", counter=6), False),
        (SlotReport("r", counter=4), ALIVE, False),
    ],
)
def test_a_card_comes_to_life_when_it_tells_its_atr(
    before: SlotReport, now: SlotReport, told: bool
) -> None:
    assert came_to_life(before, now) is told


# the worker: power is taken and given once


def mute_card(world: World, *, wakes: bool) -> Slot[Specimen]:
    """A card is put in the wrong way round."""
    slot = world.pcscd.slots[READERS[0]]
    slot.wakes = wakes
    world.pcscd.insert(slot, world.cards[0], mute=True)
    world.do(world.notice)
    return slot


def first(world: World) -> ReaderFacts:
    """What is shown of its reader."""
    return next(each for each in world.publisher.readers if each.name == READERS[0])


def test_a_mute_card_is_given_power_once() -> None:
    with World(("piv",)) as world:
        slot = mute_card(world, wakes=False)
        assert slot.powered == 1
        reader = first(world)
        assert reader.state is ReaderState.MUTE
        assert "orientation" in reader.last_error
        assert world.publisher.card.state is CardState.MUTE
        world.wait(3_600)
        world.do(world.notice)
        assert slot.powered == 1, "and never again, of itself"
        world.pcscd.pull(slot)
        world.do(world.notice)
        assert world.publisher.cards == []


def test_a_card_that_wakes_is_read() -> None:
    with World(("piv",)) as world:
        slot = mute_card(world, wakes=True)
        assert slot.powered == 1
        world.do(world.notice)
        card = world.publisher.card
        assert card.state is CardState.READY
        assert card.atr == world.cards[0].atr, "as it told it in the end"
        assert first(world).last_error == ""
        assert slot.powered == 1


def test_a_rival_that_has_the_reader_keeps_us_from_waking_it() -> None:
    with World(("piv",)) as world:
        slot = world.pcscd.slots[READERS[0]]
        world.pcscd.insert(slot, world.cards[0])
        world.do(world.notice)
        assert world.publisher.card.state is CardState.READY
        world.rival.keep(READERS[0], "exclusive")
        slot.mute = True
        world.do(lambda: world.desks._desks[READERS[0]].post(Event.RETRY))
        assert slot.powered == 0


# the desk: when it is asked, and when not


async def test_a_mute_card_is_asked_once_and_no_more() -> None:
    counter = Counter()
    counter.channel.mute = True
    counter.report(present=True, mute=True, counter=1)
    await settle()
    assert counter.state is State.MUTE
    for exclusive in (True, False):
        counter.report(exclusive=exclusive)
    counter.clock.advance(600)
    await settle()
    assert counter.state is State.MUTE
    assert counter.publisher.reader.insert_count == 1


async def test_a_card_that_falls_mute_while_it_is_read_is_told_by_that() -> None:
    counter = Counter()
    counter.channel.paused = True
    counter.insert(make_card())
    counter.report(mute=True, atr=b"")
    assert counter.state is State.PROBING
    counter.channel.resume()
    await settle()
    assert counter.state is State.READY, "it answered all the same"


async def test_a_mute_card_that_somebody_wakes_is_another_card() -> None:
    counter = Counter()
    counter.channel.mute = True
    counter.report(present=True, mute=True, counter=1)
    await settle()
    silent = counter.publisher.card.number
    counter.channel.mute, counter.channel.chip = False, make_card()
    counter.report(mute=False, atr=ATR)
    await settle()
    card = counter.publisher.card
    assert (card.state, card.atr) == (CardState.READY, ATR)
    assert card.number != silent
    counter.report(mute=True, atr=b"")  # off and on: this one does as it likes
    counter.report(mute=False, atr=ATR)
    await settle()
    assert counter.publisher.card.number == card.number, "once is enough"


async def test_a_session_does_not_wait_for_ever_for_a_card_that_is_mute() -> None:
    counter = Counter()
    counter.channel.mute = True
    counter.report(present=True, mute=True, counter=1)
    waiting = counter.open(wait=5.0)
    assert await outcome(waiting) == Problem.CARD_MUTE


@pytest.mark.parametrize("removal", [Removal.LOCK, Removal.KEEP])
async def test_a_session_gets_its_card_back_that_was_mute_at_first(removal: Removal) -> None:
    counter = Counter(Config(session=SessionConfig(removal=removal, grace_seconds=3_600)))
    card, _ = await counter.active()
    counter.pull()
    await settle()
    counter.channel.mute = True
    counter.report(present=True, mute=True, counter=9)
    await settle()
    assert counter.publisher.reader.state is ReaderState.MUTE
    counter.channel.mute, counter.channel.chip = False, card
    counter.report(mute=False, atr=ATR)
    await settle()
    assert counter.publisher.session.card == counter.publisher.card.number
    assert EndReason.CARD_MUTE not in counter.publisher.reasons()

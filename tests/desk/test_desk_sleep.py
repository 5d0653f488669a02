"""Sleep: every session ends, every authority is dropped, nothing is shown; then all begins anew."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from cardsession import desks
from cardsession.core.errors import Failure, Problem
from cardsession.core.facts import Backend, EndReason, ReaderState, SessionState
from cardsession.core.policy import Removal
from cardsession.core.reports import SlotReport
from cardsession.core.seats import UsbReader
from cardsession.core.states import State
from cardsession.core.tries import Known, Outcome, Source
from cardsession.driverless import DRIVER_SECONDS
from cardsession.ports import OpenRequest, Verdict
from fakes.channel import is_verify_with_data
from fakes.counter import (
    COLLEAGUE,
    DISPENSER,
    READER,
    WRONG,
    Counter,
    make_card,
    outcome,
    read,
    settle,
)
from fakes.scenes import SCENES, Scene

SECOND_READER = "Fake Reader 01 00"
OPEN = OpenRequest()
GONE_BEFORE = {State.CLOSING: "closed", State.RELEASING: "closed", State.STUCK: None}
"""Why the session of such a seat ended, if not because of the sleep."""
SESSIONLESS = {State.EMPTY, State.PROBING, State.ELSEWHERE, State.MUTE, State.READY, State.OPENING}


def test_no_state_is_left_out() -> None:
    assert {state for state, _, _ in SCENES} == set(State) - {State.GONE}


@pytest.mark.parametrize("hung", [False, True], ids=["answers", "hung"])
@pytest.mark.parametrize(("state", "removal", "arrange"), SCENES)
async def test_whatever_is_going_on_ends(
    state: State,
    removal: Removal,
    arrange: Callable[[Scene], Awaitable[None]],
    monkeypatch: pytest.MonkeyPatch,
    *,
    hung: bool,
) -> None:
    """The reader answers again as the sleep begins, or it never does."""
    monkeypatch.setattr(desks, "SUSPEND_SECONDS", 0.1 if hung else 20.0)
    scene = Scene(removal)
    counter = scene.counter
    await arrange(scene)
    assert counter.state is state
    channel, shown = counter.channel, counter.publisher.cards
    sent = len(channel.pump.verifies)
    channel.paused = channel.paused or hung
    suspending = asyncio.ensure_future(counter.desks.suspend())
    await settle()
    if not hung:
        channel.resume()
    async with asyncio.timeout(60):
        await suspending
        answers = await asyncio.gather(*scene.waiting)  # nobody waits any more
    assert counter.publisher.objects == {}
    assert counter.desks.readers() == counter.desks.sessions() == []
    assert counter.publisher.told("backend")[-1].facts is Backend.STARTING
    reason = None if state in SESSIONLESS else GONE_BEFORE.get(state, "suspend")
    ended = [each for each in counter.publisher.reasons() if each != "card-mute"]
    assert ended == ([reason] if reason else [])
    gone = [(line.facts.number, line.detail) for line in counter.publisher.told("card-gone")]
    assert [(each.number, "suspend") for each in shown] == gone[len(gone) - len(shown) :]
    assert channel.closed
    assert not scene.card.pins.satisfied
    assert len(channel.pump.verifies) == sent, "a secret that was not sent is not sent any more"
    if state is State.OPENING:
        assert answers == ["Suspended"]
    await _all_begins_anew(scene, [each.number for each in shown])


async def _all_begins_anew(scene: Scene, before: list[int]) -> None:
    counter = scene.counter
    counter.list()
    await settle()
    assert counter.publisher.objects == {}, "nobody knows while the machine sleeps"
    counter.desks.resume()
    counter._slots[READER] = SlotReport(READER)
    counter.list()
    await counter.ready(make_card())
    assert counter.publisher.told("backend")[-1].facts is Backend.OK
    card = counter.publisher.card
    assert card.number not in before
    assert card.pins.status["user"] == Known(3)
    assert card.pins.source is Source.CARD
    session = await counter.open()
    assert (await counter.verify(session)).outcome is Outcome.VERIFIED
    assert counter.publisher.session.state is SessionState.ACTIVE


# passcodes


async def test_a_passcode_that_was_sent_is_judged() -> None:
    for text, expected in ((WRONG, Verdict(Outcome.INCORRECT, 2)), (None, None)):
        counter = Counter()
        card = await counter.ready()
        session = await counter.open()
        sleeping: list[asyncio.Future[None]] = []

        def sleep(_: int, apdu: bytes, counter: Counter = counter, s: Any = sleeping) -> None:
            if is_verify_with_data(apdu) and not s:
                s.append(asyncio.ensure_future(counter.desks.suspend()))

        counter.channel.pump.before = sleep
        verdict = await (counter.verify(session, text) if text else counter.verify(session))
        await sleeping[0]
        assert verdict == (expected or Verdict(Outcome.VERIFIED, None))
        assert counter.publisher.reasons() == ["suspend"]
        assert not card.pins.satisfied
        assert card.book.wrong() == (1 if text else 0)


async def test_a_passcode_that_was_not_sent_is_not_sent_when_the_reader_answers_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(desks, "SUSPEND_SECONDS", 0.1)
    counter = Counter()
    card = await counter.ready()
    session = await counter.open()
    channel = counter.channel
    channel.paused = True
    asked = asyncio.ensure_future(outcome(counter.verify(session, WRONG)))
    await settle()
    await counter.desks.suspend()
    assert await asked == Verdict(Outcome.CANCELLED, None)
    counter.desks.resume()
    channel.resume()
    await settle()
    assert channel.pump.verifies == []
    assert card.book.wrong() == 0


# several readers, callers who wait


async def test_a_hung_reader_keeps_no_other_session_from_ending(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counter = Counter(readers=(READER, SECOND_READER))
    counter.insert(make_card(holder="1"))
    counter.insert(make_card(holder="2"), SECOND_READER)
    await settle()
    one, two = [each.number for each in counter.publisher.cards]
    for card, caller in ((one, DISPENSER), (two, COLLEAGUE)):
        session = await counter.desks.open_session(card, caller, OPEN)
        await counter.submit(session, read(), caller)
    counter.channel.paused = True
    monkeypatch.setattr(desks, "SUSPEND_SECONDS", 20.0)
    sleeping = asyncio.ensure_future(counter.desks.suspend())
    await settle()
    assert counter.publisher.reasons() == ["suspend"]
    assert not sleeping.done()
    counter.channel.resume()
    await sleeping
    assert counter.publisher.reasons() == ["suspend", "suspend"]


@pytest.mark.parametrize("state", ["probing", "active"])
async def test_whoever_waits_for_a_card_is_answered(state: str) -> None:
    counter = Counter()
    if state == "active":
        await counter.active()
        await settle()
        ending = asyncio.ensure_future(counter.desks.end(1, EndReason.CLOSED))
    else:
        ending = asyncio.ensure_future(asyncio.sleep(0))
        counter.insert(make_card())
    counter.channel.paused = True
    await asyncio.sleep(0)
    waiting = asyncio.ensure_future(outcome(counter.open(COLLEAGUE, wait=10.0)))
    await settle()
    assert not waiting.done()
    sleeping = asyncio.ensure_future(counter.desks.suspend())
    await settle()
    assert await waiting == "Suspended"
    counter.channel.resume()
    await asyncio.gather(sleeping, ending)
    assert len(counter.publisher.reasons()) == (state == "active")


async def test_calls_while_asleep() -> None:
    counter = Counter()
    _, session = await counter.active()
    card = counter.publisher.card.number
    await counter.desks.suspend()
    assert await outcome(counter.desks.open_session(card, DISPENSER, OPEN)) == "Suspended"
    with pytest.raises(Failure) as refused:
        counter.desks.card(card)
    assert refused.value.problem is Problem.SUSPENDED
    with pytest.raises(Failure) as over:
        counter.desks.session(session)
    assert (over.value.problem, over.value.text) == (Problem.SESSION_ENDED, "suspend")
    await counter.desks.end(session, EndReason.CLOSED)
    counter.desks.caller_gone(DISPENSER.name)
    counter.desks.trouble("the disk is full")
    assert counter.desks.overdue is None
    counter.desks.resume()
    assert await outcome(counter.desks.open_session(card, DISPENSER, OPEN)) == "CardRemoved"
    counter.list()
    assert counter.publisher.reader.last_error == "the disk is full"


async def test_calls_while_the_sessions_still_end() -> None:
    counter = Counter()
    _, session = await counter.active()
    card = counter.publisher.card.number
    counter.channel.paused = True
    sleeping = asyncio.ensure_future(counter.desks.suspend())
    await settle()
    assert await outcome(counter.desks.open_session(card, COLLEAGUE, OPEN)) == "Suspended"
    assert await outcome(counter.verify(session)) == "SessionEnded"
    counter.channel.resume()
    await sleeping
    assert counter.channel.pump.verifies == [counter.channel.pump.verifies[0]]


# readers that have no desk


async def test_a_reader_that_was_about_to_have_a_place_gets_it_afterwards() -> None:
    counter = Counter(readers=())
    usb = UsbReader("/sys/1", "1-1", bus=1, device=2, model="Something else")
    counter.desks.usb((usb,))
    counter._slots[READER] = SlotReport(READER)
    counter.list()
    assert counter.publisher.readers == [], "it may yet be joined with another"
    channel = counter.channel
    await counter.desks.suspend()
    assert channel.closed
    counter.clock.advance(DRIVER_SECONDS + 1)
    await settle()
    assert counter.publisher.readers == []
    counter.desks.resume()
    counter.list()
    counter.clock.advance(2)
    await settle()
    assert [each.name for each in counter.publisher.readers] == [READER]


async def test_udev_goes_on_and_is_shown_afterwards() -> None:
    counter = Counter(readers=())
    usb = UsbReader("/sys/1", "1-1", bus=1, device=2, model="A reader")
    other = UsbReader("/sys/2", "1-2", bus=1, device=3, model="A reader")
    counter.desks.usb((usb,))
    counter.clock.advance(DRIVER_SECONDS + 1)
    assert [each.state for each in counter.publisher.readers] == [ReaderState.NO_DRIVER]
    await counter.desks.suspend()
    assert counter.publisher.objects == {}
    counter.desks.usb((other,))
    counter.clock.advance(DRIVER_SECONDS + 1)
    assert counter.publisher.objects == {}
    counter.desks.resume()
    counter.list()
    counter.clock.advance(DRIVER_SECONDS + 1)
    assert [each.port_path for each in counter.publisher.readers] == ["1-2"]


# again and again


async def test_a_sleep_that_is_announced_twice() -> None:
    counter = Counter()
    await counter.active()
    await asyncio.gather(counter.desks.suspend(), counter.desks.suspend())
    assert counter.publisher.reasons() == ["suspend"]
    await counter.desks.suspend()
    counter.desks.resume()
    counter.desks.resume()
    counter.list()
    assert [each.name for each in counter.publisher.readers] == [READER]


async def test_a_sleep_that_is_cut_short_leaves_nothing_shown() -> None:
    counter = Counter()
    await counter.active()
    channel = counter.channel
    channel.paused = True
    sleeping = asyncio.ensure_future(counter.desks.suspend())
    await settle()
    sleeping.cancel()
    await asyncio.wait([sleeping])
    await settle()
    assert counter.publisher.objects == {}
    assert counter.publisher.reasons() == ["suspend"]
    assert channel.closed


async def test_stopping_in_the_midst_of_a_sleep() -> None:
    for asleep in (True, False):
        counter = Counter()
        card, _ = await counter.active()
        sleeping = asyncio.ensure_future(counter.desks.suspend())
        if asleep:
            await sleeping
        else:
            await asyncio.sleep(0)
        async with asyncio.timeout(20):
            await asyncio.gather(counter.desks.close(), sleeping)
        assert counter.publisher.objects == {}
        assert counter.publisher.reasons() == ["suspend"]
        assert not card.pins.satisfied

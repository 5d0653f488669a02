"""Readers: two at a time, going, hanging; and the end of everything."""

from __future__ import annotations

import asyncio

import pytest

from cardsession.config import Config, ReadersConfig
from cardsession.core.errors import Failure, Problem
from cardsession.core.facts import Backend, EndReason, ReaderState, SessionState
from cardsession.core.states import State
from cardsession.core.tries import Known, Outcome, Source
from cardsession.ports import OpenRequest, Verdict
from fakes.channel import is_verify_with_data
from fakes.counter import (
    COLLEAGUE,
    DISPENSER,
    READER,
    Counter,
    assert_empty,
    make_card,
    outcome,
    settle,
)

# two readers, a reader that goes, a service that goes


async def test_two_cards_are_two_states() -> None:
    second = "Fake Reader 01 00"
    counter = Counter(readers=(READER, second))
    counter.insert(make_card(holder="1"))
    counter.insert(make_card(holder="2"), second)
    await settle()
    one, two = sorted(counter.publisher.cards, key=lambda card: card.number)
    first = await counter.desks.open_session(one.number, DISPENSER, OpenRequest())
    other = await counter.desks.open_session(two.number, COLLEAGUE, OpenRequest())
    await counter.verify(first)
    counter.pull(second)
    await settle()
    assert counter.publisher.session.number == first
    assert counter.publisher.session.state is SessionState.ACTIVE
    assert counter.publisher.reasons() == ["card-removed"]
    assert await outcome(counter.desks.lock(other, COLLEAGUE)) == "SessionEnded"


async def test_a_reader_that_goes_takes_everything_along_and_is_not_seen_again() -> None:
    counter = Counter()
    _, session = await counter.active()
    channel = counter.channel
    counter.channel.paused = True
    asked = asyncio.ensure_future(outcome(counter.verify(session)))
    await settle()
    counter.unplug()
    assert await asked == "ReaderRemoved"
    await settle()
    assert counter.publisher.objects == {}
    assert counter.publisher.reasons() == ["reader-removed"]
    assert channel.closed
    counter.clock.advance(100)
    await settle()
    assert counter.publisher.objects == {}


async def test_a_late_surprise_from_a_reader_that_went_shows_no_ghost() -> None:
    counter = Counter()
    counter.channel.paused = True
    counter.insert(make_card())
    channel, desk = counter.channel, counter.desk

    def broken(*_: object) -> None:
        raise RuntimeError("our bug")

    channel.pump.before = broken
    await settle()
    counter.unplug()
    channel.paused = False
    channel.work()
    await settle()
    assert counter.publisher.objects == {}
    assert desk.state is State.GONE


async def test_a_card_service_that_goes_ends_every_session_for_that_reason() -> None:
    counter = Counter()
    _, session = await counter.active()
    counter.channel.paused = True
    asked = asyncio.ensure_future(outcome(counter.verify(session)))
    await settle()
    counter.list(Backend.PCSCD_DOWN)
    assert await asked == "BackendUnavailable"
    assert counter.publisher.reasons() == ["backend-lost"]
    assert counter.publisher.objects == {}
    assert counter.publisher.told("backend")[-1].facts is Backend.PCSCD_DOWN


async def test_stopping_ends_sessions_and_drops_authorities() -> None:
    counter = Counter()
    card, _ = await counter.active()
    await counter.desks.close()
    assert counter.publisher.reasons() == ["daemon-stopping"]
    assert not card.pins.satisfied
    assert counter.publisher.objects == {}


async def test_an_end_is_told_with_its_reason_to_whoever_asks_after() -> None:
    for reason in (EndReason.CLOSED, EndReason.LIFETIME_CLOSED, EndReason.FORCED):
        counter = Counter()
        card, session = await counter.active()
        await counter.desks.end(session, reason)
        assert counter.publisher.reasons() == [str(reason)]
        assert not card.pins.satisfied
        with pytest.raises(Failure) as error:
            await counter.verify(session)
        assert (error.value.problem, error.value.text) == (Problem.SESSION_ENDED, str(reason))
        await counter.desks.end(session, EndReason.CLOSED)  # no error
        assert counter.state is State.READY


async def test_two_ends_at_once_are_both_answered_and_the_first_reason_stays() -> None:
    counter = Counter()
    _, session = await counter.active()
    counter.channel.paused = True
    first = asyncio.ensure_future(counter.desks.end(session, EndReason.CLOSED))
    await settle()
    second = asyncio.ensure_future(counter.desks.end(session, EndReason.FORCED))
    await settle()
    counter.channel.resume()
    async with asyncio.timeout(10):
        await asyncio.gather(first, second)
    assert counter.publisher.reasons() == ["closed"]


async def test_the_first_reason_stays_even_if_the_reader_hangs_over_the_end() -> None:
    counter = Counter()
    _, session = await counter.active()
    counter.channel.paused = True
    end = asyncio.ensure_future(counter.desks.end(session, EndReason.CLOSED))
    await settle()
    counter.clock.advance(11)
    async with asyncio.timeout(10):
        await end
    assert counter.state is State.STUCK
    assert counter.publisher.reasons() == ["closed"]


# stuck


async def test_a_reader_that_hangs_is_published_and_stalls_no_other() -> None:
    second = "Fake Reader 01 00"
    counter = Counter(Config(readers=ReadersConfig(stuck_seconds=10.0)), (READER, second))
    counter.channel.paused = True
    counter.insert(make_card())
    counter.insert(make_card(), second)
    await settle()
    counter.clock.advance(9.9)
    assert counter.state is State.PROBING
    counter.clock.advance(0.2)
    stuck, fine = counter.publisher.readers
    assert (stuck.state, fine.state) == (ReaderState.STUCK, ReaderState.READY)
    assert stuck.last_error
    counter.channel.resume()
    await settle()
    assert counter.state is State.READY
    assert {reader.state for reader in counter.publisher.readers} == {ReaderState.READY}


async def test_a_reader_that_hangs_in_a_submission_ends_the_session_and_shows_no_count() -> None:
    counter = Counter()
    card = await counter.ready()
    session = await counter.open()
    asked = asyncio.ensure_future(outcome(counter.verify(session)))

    def hang(_: int, apdu: bytes) -> None:
        if is_verify_with_data(apdu):
            counter.clock.advance(11)  # the worker hangs, the loop goes on

    counter.channel.pump.before = hang
    assert await asked == Verdict(Outcome.UNCERTAIN, None)
    assert counter.publisher.reasons() == ["card-mute"]
    stale = [
        line.facts.pins
        for line in counter.publisher.told("show")
        if hasattr(line.facts, "pins") and line.facts.pins.source is Source.STALE
    ]
    assert stale, "a try may be gone: no number while nobody knows"
    await settle()
    assert counter.state is State.READY, "it answered after all"
    assert not card.pins.satisfied, "and left nobody verified"
    assert not counter.channel.holding
    assert counter.publisher.card.pins.status["user"] == Known(3)


async def test_a_card_that_goes_while_the_reader_hangs() -> None:
    counter = Counter()
    counter.channel.paused = True
    counter.insert(make_card())
    await settle()
    counter.clock.advance(11)
    counter.pull()
    assert counter.publisher.cards == []
    assert counter.publisher.reader.state is ReaderState.STUCK
    counter.channel.resume()
    await settle()
    assert_empty(counter)


async def test_a_stuck_reader_s_card_that_is_called_mute_stays_one_card() -> None:
    counter = Counter()
    counter.channel.paused = True
    counter.insert(make_card())
    await settle()
    counter.clock.advance(11)
    number = counter.publisher.card.number
    counter.report(mute=True)
    assert counter.publisher.card.number == number
    counter.pull()
    assert counter.publisher.cards == []


async def test_a_reader_that_hung_over_an_old_card_is_called_stuck_for_the_next_one_too() -> None:
    counter = Counter()
    counter.channel.paused = True
    counter.insert(make_card())
    await settle()
    counter.pull()
    counter.clock.advance(11)
    assert counter.state is State.EMPTY
    counter.insert(make_card())
    await settle()
    counter.clock.advance(11)
    assert counter.publisher.reader.state is ReaderState.STUCK
    counter.channel.resume()
    await settle()
    assert counter.state is State.READY


async def test_a_stuck_reader_answers_calls_at_once() -> None:
    counter = Counter()
    counter.channel.paused = True
    counter.insert(make_card())
    await settle()
    counter.clock.advance(11)
    assert await outcome(counter.open(wait=5.0)) == "ReaderStuck"

"""Time as an event: what ends by itself, and what may put that off."""

from __future__ import annotations

import asyncio

import pytest

from cardsession.config import Config, SessionConfig
from cardsession.core.facts import SessionState
from cardsession.core.states import State
from cardsession.core.tries import Known, Outcome
from fakes.channel import is_verify_with_data
from fakes.clock import SECOND
from fakes.counter import DISPENSER, WRONG, Counter, make_card, outcome, settle

LIMITS = Config(session=SessionConfig(idle_seconds=300, max_age_seconds=1000))


async def test_a_secret_that_cannot_be_sent_in_five_seconds_is_withdrawn_for_good() -> None:
    counter = Counter()
    card = await counter.ready()
    session = await counter.open()
    counter.channel.paused = True
    asked = asyncio.ensure_future(outcome(counter.verify(session, WRONG)))
    await settle()
    counter.clock.advance(4.9)
    await settle()
    assert not asked.done()
    counter.clock.advance(0.2)
    assert await asked == "InUseElsewhere"
    counter.channel.resume()
    await settle()
    assert counter.channel.pump.verifies == []
    assert card.book.wrong() == 0
    assert counter.state is State.UNVERIFIED
    assert counter.publisher.card.pins.status["user"] == Known(3)
    assert (await counter.verify(session)).outcome is Outcome.VERIFIED


async def test_the_five_seconds_do_not_cut_off_what_was_sent() -> None:
    counter = Counter()
    await counter.ready()
    session = await counter.open()

    def slow(_: int, apdu: bytes) -> None:
        if is_verify_with_data(apdu):
            counter.clock.advance(6)

    counter.channel.pump.before = slow
    assert (await counter.verify(session)).outcome is Outcome.VERIFIED
    assert counter.state is State.ACTIVE


@pytest.mark.parametrize("busy", [False, True])
async def test_an_unverified_session_ends_after_sixty_seconds_whatever_is_called(
    *, busy: bool
) -> None:
    counter = Counter()
    await counter.ready(make_card(tries_limit=15))
    session = await counter.open()
    expires = counter.publisher.session.expires_usec
    assert expires == counter.clock.usec() + 60 * SECOND
    for _ in range(11):
        counter.clock.advance(5)
        if busy:
            await counter.verify(session, WRONG)
            await counter.desks.query(session, DISPENSER, "user")
    assert counter.state is State.UNVERIFIED
    assert counter.publisher.session.expires_usec == expires
    counter.clock.advance(5)
    await settle()
    assert counter.publisher.reasons() == ["idle-timeout"]
    assert counter.state is State.READY


async def test_an_active_session_ends_when_idle_and_keep_alive_puts_that_off() -> None:
    counter = Counter(LIMITS)
    card, session = await counter.active()
    assert counter.publisher.session.expires_usec == counter.clock.usec() + 300 * SECOND
    counter.clock.advance(299)
    await counter.desks.keep_alive(session, DISPENSER)
    counter.clock.advance(299)
    await settle()
    assert counter.state is State.ACTIVE
    counter.clock.advance(2)
    await settle()
    assert counter.publisher.reasons() == ["idle-timeout"]
    assert not card.pins.satisfied


async def test_what_is_no_activity_does_not_put_the_idle_limit_off() -> None:
    counter = Counter(LIMITS)
    _, session = await counter.active()
    counter.clock.advance(290)
    await counter.desks.query(session, DISPENSER, "user")
    await outcome(counter.verify(session, "1" * 9))
    await outcome(counter.open())
    counter.clock.advance(11)
    await settle()
    assert counter.publisher.reasons() == ["idle-timeout"]


async def test_nothing_puts_the_greatest_age_off() -> None:
    counter = Counter(LIMITS)
    _, session = await counter.active()
    opened = counter.publisher.session.opened_usec
    for _ in range(9):
        counter.clock.advance(100)
        await counter.desks.keep_alive(session, DISPENSER)
        assert counter.publisher.session.expires_usec <= opened + 1000 * SECOND
    counter.clock.advance(99)
    await settle()
    assert counter.state is State.ACTIVE
    counter.clock.advance(1.5)
    await settle()
    assert counter.publisher.reasons() == ["max-age"]


async def test_a_caller_may_shorten_the_idle_limit_and_not_lengthen_it() -> None:
    for asked, given in ((100.0, 100), (None, 300), (10_000.0, 300)):
        counter = Counter(LIMITS)
        await counter.ready()
        session = await counter.open(idle=asked)
        await counter.verify(session)
        counter.clock.advance(given - 1)
        await settle()
        assert counter.state is State.ACTIVE
        counter.clock.advance(2)
        await settle()
        assert counter.publisher.reasons() == ["idle-timeout"]


async def test_a_locked_session_ends_when_the_lock_expires() -> None:
    counter = Counter(LIMITS)
    _, session = await counter.active()
    counter.clock.advance(200)
    await counter.desks.lock(session, DISPENSER)
    counter.clock.advance(299)
    await settle()
    assert counter.publisher.session.state is SessionState.LOCKED
    counter.clock.advance(2)
    await settle()
    assert counter.publisher.reasons() == ["lock-expired"]


async def test_a_failed_submission_while_active_starts_the_sixty_seconds() -> None:
    counter = Counter(LIMITS)
    _, session = await counter.active()
    await counter.verify(session, WRONG)
    assert counter.publisher.session.expires_usec == counter.clock.usec() + 60 * SECOND
    counter.clock.advance(61)
    await settle()
    assert counter.publisher.reasons() == ["idle-timeout"]


async def test_a_limit_that_falls_into_a_submission_withdraws_it() -> None:
    counter = Counter()
    await counter.ready()
    session = await counter.open()
    counter.clock.advance(58)
    counter.channel.paused = True
    asked = asyncio.ensure_future(outcome(counter.verify(session)))
    await settle()
    counter.clock.advance(3)
    assert (await asked).outcome is Outcome.CANCELLED
    counter.channel.resume()
    await settle()
    assert counter.channel.pump.verifies == []
    assert counter.publisher.reasons() == ["idle-timeout"]


async def test_no_timer_outlives_its_session() -> None:
    counter = Counter(LIMITS)
    before = len(counter.clock.pending)
    await counter.active()
    counter.pull()
    await settle()
    assert len(counter.clock.pending) == before
    await counter.ready()
    ready = len(counter.clock.pending)
    session = await counter.open()
    await counter.verify(session)
    counter.desks.caller_gone(DISPENSER.name)
    await settle()
    assert len(counter.clock.pending) == ready


async def test_an_idle_card_wakes_nobody_but_once_an_hour_and_asks_the_card_nothing() -> None:
    counter = Counter()
    await counter.ready()
    exchanges, lines = counter.channel.exchanges, len(counter.publisher.lines)
    woken = 0
    while counter.clock.passed < 3 * 86_400:
        (timer,) = counter.clock.pending
        counter.clock.advance(timer.at - counter.clock.passed)
        await settle()
        woken += 1
    assert woken <= 3 * 25
    assert counter.channel.exchanges == exchanges
    assert len(counter.publisher.lines) - lines <= 4

"""Callers: who may, who is too many, who left; how a session comes to be."""

from __future__ import annotations

import asyncio

import pytest

from cardsession.core.errors import Failure, Problem
from cardsession.core.facts import SessionState
from cardsession.core.secret import BadFormat, Secret
from cardsession.core.states import State
from cardsession.core.tries import Known, Outcome
from cardsession.ports import OpenRequest, Verdict
from cardsession.virtual.pins import PIN
from fakes.channel import is_verify_with_data
from fakes.counter import (
    CANARY,
    COLLEAGUE,
    DISPENSER,
    STRANGER,
    WRONG,
    Counter,
    make_card,
    outcome,
    read,
    secret,
    settle,
)

# callers


async def test_a_double_click_is_not_a_second_try() -> None:
    counter = Counter()
    card = await counter.ready()
    session = await counter.open()
    first = asyncio.ensure_future(outcome(counter.verify(session, WRONG)))
    second = asyncio.ensure_future(outcome(counter.verify(session, WRONG)))
    assert await second == "Busy"
    assert await first == Verdict(Outcome.INCORRECT, 2)
    assert len(counter.channel.pump.verifies) == card.book.wrong() == 1


async def test_a_double_click_is_busy_even_while_the_first_pipe_is_empty() -> None:
    counter = Counter()
    await counter.ready()
    session = await counter.open()
    pipe: asyncio.Future[Secret] = asyncio.get_running_loop().create_future()

    async def slowly() -> Secret:
        return await pipe

    first = asyncio.ensure_future(outcome(counter.submit(session, slowly)))
    await settle()
    for call in (
        counter.verify(session),
        counter.desks.query(session, DISPENSER, "user"),
        counter.desks.lock(session, DISPENSER),
        counter.desks.keep_alive(session, DISPENSER),
    ):
        assert await outcome(call) == "Busy"
    pipe.set_result(secret())
    assert await first == Verdict(Outcome.VERIFIED, None)
    assert len(counter.channel.pump.verifies) == 1


@pytest.mark.parametrize("active", [False, True], ids=["unverified", "active"])
async def test_a_secret_that_is_none_changes_nothing(*, active: bool) -> None:
    counter = Counter()
    await counter.ready()
    session = await counter.open()
    if active:
        await counter.verify(session)
    before, exchanges = counter.state, counter.channel.exchanges

    async def invalid() -> Secret:
        raise Failure(Problem.SECRET_INVALID, "a directory")

    async def empty() -> Secret:
        raise BadFormat

    assert await outcome(counter.submit(session, invalid)) == "SecretInvalid"
    assert counter.state is before
    assert await counter.submit(session, empty) == Verdict(Outcome.BAD_FORMAT, None)
    assert await counter.submit(session, read(CANARY + "1")) == Verdict(Outcome.BAD_FORMAT, None)
    assert await outcome(counter.submit(session, read(), label="third")) == "NoSuchPin"
    assert await outcome(counter.submit(session, read(), label="puk")) == "NotSupported"
    assert counter.state is before
    assert counter.channel.exchanges == exchanges, "not a word was said to the card"
    assert counter.channel.holding == active
    assert counter.publisher.reader.last_error == ""


async def test_a_stranger_is_refused_and_his_secret_is_never_read() -> None:
    counter = Counter()
    await counter.ready()
    session = await counter.open()

    async def never() -> Secret:
        raise AssertionError("a stranger's secret was read")

    assert await outcome(counter.submit(session, never, caller=COLLEAGUE)) == "NotOwner"
    assert await outcome(counter.desks.lock(session, STRANGER)) == "NotOwner"
    assert await outcome(counter.desks.query(session, STRANGER, "user")) == "NotOwner"
    assert await outcome(counter.desks.keep_alive(session, STRANGER)) == "NotOwner"
    assert counter.publisher.session.state is SessionState.UNVERIFIED


async def test_one_session_per_card() -> None:
    counter = Counter()
    await counter.ready()
    await counter.open()
    assert await outcome(counter.open(COLLEAGUE)) == "Busy"
    assert await outcome(counter.open(COLLEAGUE, wait=20.0)) == "Busy"


async def test_an_owner_who_leaves_takes_his_session_along() -> None:
    counter = Counter()
    card, _ = await counter.active()
    counter.desks.caller_gone(STRANGER.name)
    await settle()
    assert counter.state is State.ACTIVE
    counter.desks.caller_gone(DISPENSER.name)
    await settle()
    assert counter.publisher.reasons() == ["owner-vanished"]
    assert counter.state is State.READY
    assert not card.pins.satisfied, "the authority went with the session"
    assert not counter.channel.holding
    assert counter.publisher.card.pins.status["user"] == Known(3)


async def test_an_owner_who_leaves_before_his_secret_is_sent_spends_nothing() -> None:
    counter = Counter()
    card = await counter.ready()
    session = await counter.open()
    counter.channel.paused = True
    asked = asyncio.ensure_future(outcome(counter.verify(session, WRONG)))
    await settle()
    counter.desks.caller_gone(DISPENSER.name)
    assert counter.publisher.session.state is SessionState.ENDED
    assert (await asked).outcome is Outcome.CANCELLED
    counter.channel.resume()
    await settle()
    assert counter.channel.pump.verifies == []
    assert card.book.wrong() == 0
    assert counter.publisher.reasons() == ["owner-vanished"]
    assert counter.state is State.READY


async def test_an_owner_who_leaves_while_the_pipe_is_read_spends_nothing() -> None:
    counter = Counter()
    await counter.ready()
    session = await counter.open()
    pipe: asyncio.Future[Secret] = asyncio.get_running_loop().create_future()

    async def slowly() -> Secret:
        return await pipe

    asked = asyncio.ensure_future(outcome(counter.submit(session, slowly)))
    await settle()
    counter.desks.caller_gone(DISPENSER.name)
    held = secret()
    pipe.set_result(held)
    assert (await asked).outcome is Outcome.CANCELLED
    await settle()
    assert held.wiped
    assert counter.channel.pump.verifies == []
    assert counter.publisher.reasons() == ["owner-vanished"]
    assert counter.state is State.READY


@pytest.mark.parametrize("text", [CANARY, WRONG], ids=["right", "wrong"])
async def test_an_owner_who_leaves_while_the_card_judges_is_judged_and_released(text: str) -> None:
    counter = Counter()
    card = await counter.ready()
    session = await counter.open()

    def leave(_: int, apdu: bytes) -> None:
        if is_verify_with_data(apdu):
            counter.desks.caller_gone(DISPENSER.name)

    counter.channel.pump.before = leave
    await outcome(counter.verify(session, text))
    await settle()
    assert len(counter.channel.pump.verifies) == 1
    assert counter.publisher.reasons() == ["owner-vanished"]
    left = 3 if text == CANARY else 2
    assert counter.publisher.card.pins.status["user"] == Known(left)
    assert card.pins.reference(PIN).left == left
    assert not card.pins.satisfied
    assert counter.state is State.READY


async def test_a_call_that_is_cancelled_is_a_caller_who_left() -> None:
    """Its handler is gone: the secret must not be sent for nobody."""
    counter = Counter()
    await counter.ready()
    session = await counter.open()
    counter.channel.paused = True
    asked = asyncio.ensure_future(counter.verify(session))
    await settle()
    asked.cancel()
    await settle()
    counter.channel.resume()
    await settle()
    assert counter.channel.pump.verifies == []
    assert counter.state is State.UNVERIFIED, "no fault of the reader"


async def test_an_owner_who_leaves_while_his_session_opens_gets_none() -> None:
    counter = Counter()
    await counter.ready()
    counter.channel.paused = True
    asked = asyncio.ensure_future(outcome(counter.open()))
    await settle()
    counter.desks.caller_gone(DISPENSER.name)
    counter.channel.resume()
    await settle()
    await asked
    assert counter.publisher.reasons() == ["owner-vanished"]
    assert counter.state is State.READY


async def test_one_who_left_while_opening_failed_harms_nobody_after_him() -> None:
    counter = Counter()
    await counter.ready()
    counter.channel.paused = True
    asked = asyncio.ensure_future(outcome(counter.open()))
    await settle()
    counter.desks.caller_gone(DISPENSER.name)
    counter.pull()
    assert await asked == "CardRemoved"
    counter.channel.resume()
    await counter.ready()
    await counter.open(COLLEAGUE)
    await settle()
    assert counter.publisher.session.state is SessionState.UNVERIFIED
    assert counter.publisher.reasons() == []


# opening


async def test_a_card_left_verified_by_somebody_else_is_not_when_the_session_exists() -> None:
    counter = Counter()
    card = await counter.ready()
    card.process(bytes.fromhex("00A404000BA000000308000010000100"))
    card.process(b"\x00\x20\x00\x80\x08" + CANARY.encode())
    assert card.pins.satisfied
    await counter.open()
    assert not card.pins.satisfied
    assert counter.publisher.card.pins.status["user"] == Known(3)


async def test_the_count_is_read_anew_when_a_session_opens() -> None:
    counter = Counter()
    card = await counter.ready()
    card.pins.reference(PIN).left = 2  # a rival's wrong try, which wakes nobody
    assert counter.publisher.card.pins.status["user"] == Known(3)
    counter.clock.advance(5)
    await counter.open()
    assert counter.publisher.card.pins.status["user"] == Known(2)
    assert counter.publisher.card.pins.read_usec == counter.clock.usec()


async def test_who_waits_for_a_card_being_read_gets_it() -> None:
    counter = Counter()
    counter.channel.paused = True
    counter.insert(make_card())
    assert await outcome(counter.open()) == "Busy", "who does not wish to wait is told at once"
    asked = asyncio.ensure_future(counter.open(wait=5.0))
    await settle()
    assert not asked.done()
    counter.channel.resume()
    await settle()
    assert await asked == counter.publisher.session.number


async def test_who_waits_too_long_is_told_and_forgotten() -> None:
    counter = Counter()
    counter.channel.paused = True
    counter.insert(make_card())
    asked = asyncio.ensure_future(outcome(counter.open(wait=5.0)))
    await settle()
    counter.clock.advance(4.9)
    await settle()
    assert not asked.done()
    counter.clock.advance(0.2)
    assert await asked == "Timeout"
    counter.channel.resume()
    await settle()
    assert counter.publisher.sessions == []


@pytest.mark.parametrize("how", ["pulled", "left"])
async def test_who_waits_for_a_card_that_goes_or_leaves_is_answered(how: str) -> None:
    counter = Counter()
    counter.channel.paused = True
    counter.insert(make_card())
    asked = asyncio.ensure_future(outcome(counter.open(wait=5.0)))
    await settle()
    if how == "pulled":
        counter.pull()
        assert await asked == "CardRemoved"
    else:
        counter.desks.caller_gone(DISPENSER.name)
        assert await asked == "NotAuthorized"
    counter.channel.resume()
    await settle()
    assert counter.publisher.sessions == []


async def test_a_session_is_taken_over_by_the_same_user_only() -> None:
    counter = Counter()
    card, first = await counter.active()
    assert await outcome(counter.open(STRANGER, replace=True)) == "Busy"
    second = await counter.open(COLLEAGUE, replace=True)
    assert counter.publisher.reasons() == ["forced"]
    assert counter.publisher.session.number == second != first
    assert not card.pins.satisfied
    with pytest.raises(Failure, match="forced"):
        await counter.verify(first)


async def test_a_take_over_in_the_middle_of_a_submission_withdraws_it() -> None:
    counter = Counter()
    await counter.ready()
    first = await counter.open()
    counter.channel.paused = True
    asked = asyncio.ensure_future(outcome(counter.verify(first)))
    await settle()
    over = asyncio.ensure_future(counter.open(COLLEAGUE, replace=True))
    await settle()
    assert (await asked).outcome is Outcome.CANCELLED
    counter.channel.resume()
    second = await over
    assert counter.channel.pump.verifies == []
    assert counter.publisher.session.number == second


async def test_opening_a_card_that_is_not_there() -> None:
    counter = Counter()
    await counter.ready()
    number = counter.publisher.card.number
    counter.pull()
    asked = counter.desks.open_session(number, DISPENSER, OpenRequest())
    assert await outcome(asked) == "CardRemoved"

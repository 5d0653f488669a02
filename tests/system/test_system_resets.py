"""Another program resets our card, or keeps it, in each state of a session; no secret is ever sent
twice, and nobody waits without an end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio

from cardsession.stack import Bus, Card, Daemon, Pcscd
from system.crash import submissions
from system.rival import Rival
from system.subscriber import Subscriber

RIGHT, WRONG = b"73194682", b"11112222"
SIGNING = ("authentication", "ecdsa-sha256", bytes(32), {})
DONE = "00000000"
BOUND = 8.0
"""Seconds: what we wait for a rival, and what a busy machine adds."""


@pytest.fixture
def rival(pcscd: Pcscd) -> Iterator[Rival]:
    with Rival() as process:
        yield process


@pytest_asyncio.fixture
async def shared(bus: Bus, daemons: Callable[..., Daemon]) -> AsyncIterator[Subscriber]:
    """A daemon that shares the cards of its active sessions."""
    daemons(configuration='[session]\nhold = "shared"\n')
    async with await Subscriber.open(bus.address) as subscriber:
        await subscriber.until("two readers", lambda: len(subscriber.all("Reader")) == 2)
        yield subscriber


def reset(rival: Rival) -> None:
    """It connects, and lets go with a reset."""
    assert rival.say("shared") == DONE
    assert rival.say("reset") == DONE


async def active(seen: Subscriber, card: Card) -> str:
    """A session with a verified passcode."""
    card.insert()
    path, _ = await seen.card_in_state("ready")
    session = await seen.open_session(path)
    assert await seen.verify(session, RIGHT) == ("verified", -1)
    return session


def state(seen: Subscriber, session: str) -> str:
    """Of the session."""
    return str(seen.all("Session")[session]["State"])


def verified(card: Card) -> bool:
    """Whether the card says so."""
    return bool(card.status()["references"]["80"]["verified"])


async def refused_in_time(seen: Subscriber, *call: Any, **more: Any) -> str:
    """The error's name; it comes within bounded time."""
    start = time.monotonic()
    name = await seen.refused(*call, **more)
    assert time.monotonic() - start < BOUND
    return name


async def test_a_reset_of_an_unverified_session_s_card_costs_nothing(
    seen: Subscriber, card: Card, rival: Rival
) -> None:
    card.insert()
    path, facts = await seen.card_in_state("ready")
    session = await seen.open_session(path)
    reset(rival)
    assert await seen.verify(session, WRONG) == ("incorrect", 2)
    reset(rival)
    assert await seen.verify(session, RIGHT) == ("verified", -1)
    assert submissions(card.status()) == 2, "one each"
    assert "user" not in facts["PinTries"]


async def test_nobody_can_reset_a_card_that_is_held(
    seen: Subscriber, card: Card, rival: Rival
) -> None:
    session = await active(seen, card)
    for how in ("shared", "exclusive"):
        assert rival.say(how) == "8010000B"
    await seen.call(session, "Session", "Sign", "ssaya{sv}", SIGNING)
    assert state(seen, session) == "active"


async def test_a_reset_takes_the_authority_of_a_session_that_shares_its_card(
    shared: Subscriber, card: Card, rival: Rival
) -> None:
    """It shows at the next call: reconnected, selected again, and nobody is verified."""
    session = await active(shared, card)
    reset(rival)
    assert state(shared, session) == "active", "no sign of it comes to the status wait"
    call = (session, "Session", "Sign", "ssaya{sv}", SIGNING)
    assert await refused_in_time(shared, *call) == "NotVerified"
    await shared.until("it is told", lambda: state(shared, session) == "unverified")
    assert not verified(card)
    assert submissions(card.status()) == 1
    assert await shared.verify(session, RIGHT) == ("verified", -1)
    await shared.call(*call)
    assert submissions(card.status()) == 2


async def test_a_passcode_is_sent_once_whatever_a_reset_did_to_the_session(
    shared: Subscriber, card: Card, rival: Rival
) -> None:
    session = await active(shared, card)
    reset(rival)
    outcome = await asyncio.gather(shared.verify(session, RIGHT), return_exceptions=True)
    assert submissions(card.status()) in {1, 2}, outcome
    assert card.status()["wrong"] == 0
    left = shared.all("Session").get(session)
    assert (left is not None and left["State"] == "active") == verified(card)


async def test_a_reset_of_a_locked_session_s_card(
    shared: Subscriber, card: Card, rival: Rival
) -> None:
    session = await active(shared, card)
    await shared.call(session, "Session", "Lock")
    reset(rival)
    assert await shared.verify(session, RIGHT) == ("verified", -1)
    assert submissions(card.status()) == 2


async def test_a_passcode_that_a_rival_verified_opens_nothing_here(
    seen: Subscriber, card: Card, rival: Rival, canary: str
) -> None:
    card.insert()
    path, facts = await seen.card_in_state("ready")
    session = await seen.open_session(path)
    assert rival.say("shared") == DONE
    assert rival.say(f"verify {canary}") == "9000"
    call = (session, "Session", "Sign", "ssaya{sv}", SIGNING)
    assert await seen.refused(*call) == "NotVerified"
    assert state(seen, session) == "unverified"
    told, _ = await seen.call(session, "Session", "QueryPin", "s", ("user",))
    assert told != "verified"
    assert not verified(card), "it was asked, and nobody is left verified"
    rival.say("free")
    assert await seen.verify(session, WRONG) == ("incorrect", 2)
    assert facts["PinTries"] == {"user": 2}


async def test_a_passcode_that_a_rival_verified_before_ours_does_not_spoil_the_count(
    seen: Subscriber, card: Card, rival: Rival, canary: str
) -> None:
    card.insert()
    path, _ = await seen.card_in_state("ready")
    session = await seen.open_session(path)
    assert rival.say("shared") == DONE
    assert rival.say("verify 99999999") == "63c2"
    assert rival.say(f"verify {canary}") == "9000"
    rival.say("free")
    assert await seen.verify(session, WRONG) == ("incorrect", 2)
    assert card.status()["wrong"] == 2


@pytest.mark.slow
async def test_a_use_waits_for_a_transaction_for_a_bounded_time(
    shared: Subscriber, card: Card, rival: Rival
) -> None:
    session = await active(shared, card)
    assert rival.say("hold") == DONE
    call = (session, "Session", "Sign", "ssaya{sv}", SIGNING)
    assert await refused_in_time(shared, *call) == "InUseElsewhere"
    assert state(shared, session) == "active"
    rival.say("free")
    await shared.call(*call)
    assert submissions(card.status()) == 1


@pytest.mark.slow
async def test_a_session_ends_though_a_rival_keeps_its_card(
    shared: Subscriber, card: Card, rival: Rival
) -> None:
    session = await active(shared, card)
    assert rival.say("hold") == DONE
    start = time.monotonic()
    await shared.call(session, "Session", "Close")
    assert time.monotonic() - start < BOUND
    assert shared.all("Session") == {}
    rival.say("free")
    await shared.until("its authority is gone", lambda: not verified(card))


@pytest.mark.slow
async def test_a_card_that_is_held_when_a_session_is_asked_for(
    seen: Subscriber, card: Card, rival: Rival
) -> None:
    card.insert()
    path, _ = await seen.card_in_state("ready")
    assert rival.say("hold") == DONE
    call = (path, "Card", "OpenSession", "sa{sv}", ("", {}))
    assert await refused_in_time(seen, *call) == "InUseElsewhere"
    assert seen.all("Session") == {}
    rival.say("free")

    deadline = time.monotonic() + 20
    while not seen.all("Session"):  # our thread may still be on its way out of the card service
        assert time.monotonic() < deadline
        await asyncio.gather(seen.open_session(path), return_exceptions=True)

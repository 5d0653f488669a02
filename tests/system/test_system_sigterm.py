"""SIGTERM at any moment: told on the bus, no card left unlocked whose reader answers, and the
process gone within 3 s, whatever hangs."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from cardsession.bus.connection import Variant
from cardsession.stack import Card, Daemon, Pcscd
from system.rival import Rival
from system.subscriber import Subscriber

STOP_SECONDS = 3.0
RIGHT, WRONG = b"73194682", b"11112222"
STOPPING = ["daemon-stopping"]
OBJECTS = ("Reader", "Card", "Session")
Call = asyncio.Future[Any] | None


async def idle(_seen: Subscriber, _card: Card) -> Call:
    """No card."""
    return None


async def inserted(seen: Subscriber, card: Card) -> Call:
    """A card that was read, and nobody who wants it."""
    card.insert()
    await seen.card_in_state("ready")
    return None


async def probing(seen: Subscriber, card: Card) -> Call:
    """A card that is being read."""
    card.tell("slow", ms=100)
    card.insert()
    await seen.card_in_state("probing")
    return None


async def opening(seen: Subscriber, card: Card) -> Call:
    """Somebody waits for a card that is being read."""
    await probing(seen, card)
    path, _ = seen.card() or ("", None)
    waits = (path, "Card", "OpenSession", "sa{sv}", ("", {"wait-usec": Variant("t", 15_000_000)}))
    return asyncio.ensure_future(seen.call(*waits))


async def unverified(seen: Subscriber, card: Card) -> Call:
    """A session."""
    await inserted(seen, card)
    path, _ = seen.card() or ("", None)
    await seen.open_session(path)
    return None


async def verifying(seen: Subscriber, card: Card) -> Call:
    """The card is at the passcode, and takes its time."""
    await unverified(seen, card)
    card.tell("slow", ms=100)
    call = asyncio.ensure_future(seen.verify(session(seen), RIGHT))
    await seen.until("verifying", lambda: state(seen) == "verifying")
    return call


async def active(seen: Subscriber, card: Card) -> Call:
    """Verified."""
    await unverified(seen, card)
    assert await seen.verify(session(seen), RIGHT) == ("verified", -1)
    return None


async def ending(seen: Subscriber, card: Card) -> Call:
    """Its owner closes it, and the card takes its time."""
    await active(seen, card)
    card.tell("slow", ms=100)
    call = asyncio.ensure_future(seen.call(session(seen), "Session", "Close"))
    await seen.until("ending", lambda: state(seen) == "ended")
    return call


def session(seen: Subscriber) -> str:
    """The session with the card in the first reader."""
    path, _ = seen.card() or ("", None)
    (found,) = (key for key, each in seen.all("Session").items() if each["Card"] == path)
    return found


def state(seen: Subscriber) -> str:
    """Its state."""
    return str(seen.all("Session")[session(seen)]["State"])


@dataclass(frozen=True)
class Moment:
    """How to come there, and why its session ends."""

    reach: Callable[[Subscriber, Card], Awaitable[Call]]
    reasons: list[str]


MOMENTS = {
    "idle": Moment(idle, []),
    "inserted": Moment(inserted, []),
    "probing": Moment(probing, []),
    "opening": Moment(opening, []),
    "unverified": Moment(unverified, STOPPING),
    "verifying": Moment(verifying, STOPPING),
    "active": Moment(active, STOPPING),
    "ending": Moment(ending, ["closed"]),
}


@pytest.fixture
def rival(pcscd: Pcscd) -> Iterator[Rival]:
    with Rival() as process:
        yield process


async def stopped(daemon: Daemon, seen: Subscriber, call: Call) -> None:
    """SIGTERM, and everything that follows."""
    start = time.monotonic()
    daemon.signal(signal.SIGTERM)
    await seen.until("the end", lambda: daemon.returncode is not None, seconds=30)
    took = time.monotonic() - start
    assert daemon.returncode == 0
    assert took < STOP_SECONDS
    if call is not None:  # answered, or its connection's other end is gone
        await asyncio.wait_for(asyncio.gather(call, return_exceptions=True), 5)
    await seen.until("nothing is left on the bus", lambda: not any(map(seen.all, OBJECTS)))
    assert daemon.notify.all("STOPPING") == ["1"]
    assert "Traceback" not in daemon.log()
    assert "never retrieved" not in daemon.log()


def ended(seen: Subscriber) -> list[str]:
    """Why sessions ended."""
    return [each.body[0] for _, each in seen.signals if each.member == "Ended"]


def locked_again(card: Card) -> bool:
    """Whether nobody is verified on the card."""
    return not any(each.get("verified") for each in card.status()["references"].values())


@pytest.mark.parametrize("name", MOMENTS)
async def test_at_any_moment(daemon: Daemon, seen: Subscriber, card: Card, name: str) -> None:
    moment = MOMENTS[name]
    call = await moment.reach(seen, card)
    await stopped(daemon, seen, call)
    assert ended(seen) == moment.reasons
    assert locked_again(card)
    assert card.status()["wrong"] == 0


async def hung_probing(seen: Subscriber, card: Card) -> Call:
    """It does not answer when it is read."""
    card.tell("silent-at", n=3)
    card.insert()
    await seen.until("it is silent", lambda: card.status()["silent"])
    return None


async def hung_verifying(seen: Subscriber, card: Card) -> Call:
    """It does not answer to a passcode."""
    await unverified(seen, card)
    card.tell("silent-at", n=1, ins="20", with_data=True, stage="after")
    call = asyncio.ensure_future(seen.verify(session(seen), RIGHT))
    await seen.until("it is silent", lambda: card.status()["silent"])
    return call


async def hung_active(seen: Subscriber, card: Card) -> Call:
    """It will not answer when its authority is dropped."""
    await active(seen, card)
    card.tell("silent-at", n=card.status()["exchanges"] + 1)
    return None


async def hung_ending(seen: Subscriber, card: Card) -> Call:
    """It does not answer while its authority is dropped."""
    await hung_active(seen, card)
    call = asyncio.ensure_future(seen.call(session(seen), "Session", "Close"))
    await seen.until("it is silent", lambda: card.status()["silent"])
    return call


HUNG = {
    "probing": Moment(hung_probing, []),
    "verifying": Moment(hung_verifying, STOPPING),
    "active": Moment(hung_active, STOPPING),
    "ending": Moment(hung_ending, ["closed"]),
}


@pytest.mark.parametrize("name", HUNG)
async def test_with_a_reader_that_hangs_the_other_is_left_locked(
    daemon: Daemon, seen: Subscriber, cards: Callable[..., Card], name: str
) -> None:
    hung, other = cards(), cards(slot=1)
    other.insert()
    path, _ = await seen.card_in_state("ready", slot=1)
    unlocked = await seen.open_session(path)
    assert await seen.verify(unlocked, RIGHT) == ("verified", -1)
    moment = HUNG[name]
    await stopped(daemon, seen, await moment.reach(seen, hung))
    assert sorted(ended(seen)) == sorted(STOPPING + moment.reasons)
    assert locked_again(other)
    hung.tell("speak")
    # the card service resets the card of a client that is gone, as soon as the card answers
    await seen.until("it is locked", lambda: locked_again(hung))


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL], ids=["hung", "dead"])
@pytest.mark.parametrize("name", ["idle", "unverified", "verifying", "active", "ending"])
async def test_with_a_card_service_that_hangs_or_is_dead(  # noqa: PLR0913, PLR0917 - fixtures
    pcscd: Pcscd, daemon: Daemon, seen: Subscriber, card: Card, name: str, number: signal.Signals
) -> None:
    moment = MOMENTS[name]
    call = await moment.reach(seen, card)
    pcscd.signal(number)
    try:
        await stopped(daemon, seen, call)
        assert len(ended(seen)) == len(moment.reasons)
        assert {*ended(seen)} <= {*moment.reasons, "backend-lost"}, "whatever came first"
    finally:
        if number == signal.SIGSTOP:
            pcscd.signal(signal.SIGCONT)
        else:
            pcscd.kill()
            pcscd.start()
    # a service that goes on resets the card of a client that is gone; one that is dead, no card
    if number == signal.SIGSTOP:
        await seen.until("it is locked", lambda: locked_again(card))


async def test_while_a_rival_holds_the_card(
    daemon: Daemon, seen: Subscriber, card: Card, rival: Rival
) -> None:
    await unverified(seen, card)
    assert rival.say("hold") == "00000000"
    await stopped(daemon, seen, None)
    assert ended(seen) == STOPPING
    rival.say("free")
    assert locked_again(card)

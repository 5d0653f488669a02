"""A session never outlives the connection that opened it, whatever else that connection did."""

from __future__ import annotations

import asyncio
import contextlib
import os

import pytest

from cardsession.bus.connection import BusError, Variant
from cardsession.stack import Bus, Card, Daemon
from system.subscriber import ROOT, Subscriber

OPEN = ("Card", "OpenSession", "sa{sv}", ("", {}))


async def nobody_is_left(seen: Subscriber, card: Card) -> None:
    await seen.until("the session ended", lambda: not seen.all("Session"))
    assert card.status()["references"]["80"]["verified"] is False


async def test_taken_over_by_its_own_connection(
    bus: Bus, seen: Subscriber, card: Card, canary: str
) -> None:
    card.insert()
    path, _ = await seen.card_in_state("ready")
    async with await Subscriber.open(bus.address) as owner:
        await owner.open_session(path)
        session = await owner.open_session(path, replace=Variant("b", True))
        assert await owner.verify(session, canary.encode()) == ("verified", -1)
    await nobody_is_left(seen, card)


async def test_a_second_call_that_fails_takes_nothing_from_the_first(
    bus: Bus, seen: Subscriber, card: Card, canary: str
) -> None:
    card.tell("slow", ms=60)
    card.insert()
    path, _ = await seen.card_in_state("probing")
    async with await Subscriber.open(bus.address) as owner:
        waiting = asyncio.create_task(owner.open_session(path, wait_usec=Variant("t", 15_000_000)))
        for _ in range(10):
            assert await owner.refused("/org/cardsession1/card/999", *OPEN) == "CardRemoved"
        assert await owner.refused(path, *OPEN) == "Busy"
        session = await waiting
        assert await owner.verify(session, canary.encode()) == ("verified", -1)
    await nobody_is_left(seen, card)


@pytest.mark.slow
async def test_leaving_while_it_is_opened(bus: Bus, seen: Subscriber, card: Card) -> None:
    card.insert()
    path, _ = await seen.card_in_state("ready")
    for number in range(60):
        owner = await Subscriber.open(bus.address)
        opening = asyncio.create_task(owner.open_session(path))
        await asyncio.sleep(number % 20 * 0.0005)
        await owner.connection.close()
        with contextlib.suppress(Exception):
            await opening

        async def free() -> bool:
            with contextlib.suppress(BusError):
                session = await seen.open_session(path, wait_usec=Variant("t", 5_000_000))
                await seen.call(session, "Session", "Close")
                return True
            return False

        for _ in range(200):
            if await free():
                break
            await asyncio.sleep(0.01)
        else:
            pytest.fail(f"round {number}: the card stays busy: {seen.all('Session')}")


async def test_lifetimes_are_bounded(daemon: Daemon, seen: Subscriber, card: Card) -> None:
    card.insert()
    path, _ = await seen.card_in_state("ready")
    session = await seen.open_session(path)
    taken = []
    with pytest.raises(BusError, match="LimitsExceeded"):
        for _ in range(100):
            reply = await seen.connection.call(
                "org.cardsession1", session, "org.cardsession1.Session", "TakeLifetime"
            )
            taken.extend(reply.fds)
    assert len(taken) == 8
    for descriptor in taken:
        os.close(descriptor)
    await seen.until("the session ended", lambda: not seen.all("Session"))
    assert daemon.returncode is None


async def test_absurd_numbers_in_paths(seen: Subscriber) -> None:
    endless = "/org/cardsession1/card/" + "9" * 5000
    assert await seen.refused(endless, "Card", "ListCertificates") == "UnknownObject"
    why = ("/org/cardsession1/session/" + "9" * 5000, "")
    assert await seen.refused(ROOT, "Diagnostics", "EndSession", "os", why) == "InvalidArgs"

"""Sixteen readers at the real card service, as many as it has: our own driver gives them to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from cardsession.stack import Bus, Daemon
from cardsession.virtual.card import VirtualCard
from fakes.cards import make_card
from system.ifd import Slot
from system.subscriber import Subscriber, converged
from system.usb import Counter

COUNT = 16
ROUNDS = 6
SUBSCRIBERS = 10
PATIENCE = 60.0
_cards: list[VirtualCard] = []


def cards() -> list[VirtualCard]:
    """One for each reader, made once."""
    if not _cards:
        _cards.extend(make_card(holder=str(number)) for number in range(COUNT))
    return _cards


@pytest.fixture
def slots(counters: Callable[..., Counter]) -> list[Slot]:
    """All of them."""
    return counters(COUNT).slots


@pytest_asyncio.fixture
async def everybody(
    bus: Bus, slots: list[Slot], daemons: Callable[..., Daemon]
) -> AsyncIterator[list[Subscriber]]:
    """Subscribers of a daemon with these readers."""
    del slots
    daemons()
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(await Subscriber.open(bus.address))
            for _ in range(SUBSCRIBERS)
        ]


def states(seen: Subscriber) -> list[str]:
    """Of the cards that are there."""
    return sorted(each["State"] for each in seen.all("Card").values())


@pytest.mark.slow
async def test_sixteen_cards_at_once_come_and_go(
    slots: list[Slot], everybody: list[Subscriber]
) -> None:
    """Bursts: all of them in, all of them out; some turned round meanwhile. (A status wait takes
    sixteen names: with the pseudo-reader that tells of new ones, these were one too many, and the
    card service was called down, again and again.)"""
    first = everybody[0]
    await first.until("sixteen readers", lambda: len(first.all("Reader")) == COUNT, PATIENCE)
    for number in range(ROUNDS):
        for slot, card in zip(slots, cards(), strict=True):
            slot.insert(card)
        await first.until("all are read", lambda: states(first) == ["ready"] * COUNT, PATIENCE)
        await converged(everybody)
        for slot in slots[number % 4 :: 4]:
            await asyncio.to_thread(slot.turn)
            await asyncio.to_thread(slot.turn)
        for slot in slots:
            slot.pull()
        await first.until("all are gone", lambda: not first.all("Card"), PATIENCE)
        await converged(everybody)
    told = {
        member: [
            str(each.body[0])
            for _, each in first.signals
            if each.member == member and "/card/" in str(each.body[0])
        ]
        for member in ("InterfacesAdded", "InterfacesRemoved")
    }
    came = told["InterfacesAdded"]
    assert len(came) == len(set(came)) >= COUNT * ROUNDS
    assert sorted(came) == sorted(told["InterfacesRemoved"])
    assert len(first.all("Reader")) == COUNT

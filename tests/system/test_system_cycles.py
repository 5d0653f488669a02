"""Two hundred cards come and go at the real card service: each is told once when it comes and once
when it goes, and the daemon holds no more after them than before."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from cardsession.stack import Bus, Card, Daemon
from fakes.cards import make_card
from system.subscriber import NAME, ROOT, Subscriber
from system.usb import Bed

CYCLES, WARM = 100, 12
"""In each of two readers, at the same time."""
SESSION_EVERY = 10
MOST_MIB = 4
"""Growth of resident memory over 176 cycles that is none: the allocator's own."""
PLUGS, PLUGS_WARM = 60, 10
PATIENCE = 60.0
"""pcscd looks every 400 ms; a machine with others on it takes longer."""


def held(daemon: Daemon) -> dict[str, int]:
    """What the daemon's process holds: descriptors, threads, and MiB."""
    proc = Path(f"/proc/{daemon.pid}")
    return {
        "descriptors": len(os.listdir(proc / "fd")),  # noqa: PTH208 - counted
        "threads": len(os.listdir(proc / "task")),  # noqa: PTH208
        "MiB": daemon.resident_bytes() >> 20,
    }


def told(seen: Subscriber, start: int = 0) -> dict[str, Counter[str]]:
    """How often each card's coming and going was told since then, by its path."""
    found: dict[str, Counter[str]] = {"InterfacesAdded": Counter(), "InterfacesRemoved": Counter()}
    for _, signal in seen.signals[start:]:
        if signal.path == ROOT and signal.member in found and "/card/" in signal.body[0]:
            found[signal.member][signal.body[0]] += 1
    return found


async def cycle(seen: Subscriber, card: Card, slot: int, *, session: bool, pin: str) -> None:
    """In, read, used now and then, out."""
    await asyncio.to_thread(card.insert)
    ready = lambda: (found := seen.card(slot)) and found[1]["State"] == "ready"  # noqa: E731
    await seen.until("the card is read", ready, PATIENCE)
    found = seen.card(slot)
    assert found is not None
    if session:
        path = await seen.open_session(found[0])
        assert (await seen.verify(path, pin.encode(), accept_unknown=True))[0] == "verified"
    await asyncio.to_thread(card.remove)
    await seen.until("the card is gone", lambda: seen.card(slot) is None, PATIENCE)
    await seen.until("so is its session", lambda: not _sessions(seen, found[0]), PATIENCE)


def _sessions(seen: Subscriber, card: str) -> list[str]:
    return [path for path, each in seen.all("Session").items() if each["Card"] == card]


async def cycles(seen: Subscriber, card: Card, slot: int, numbers: range, pin: str) -> None:
    """Some of them."""
    for number in numbers:
        await cycle(seen, card, slot, session=number % SESSION_EVERY == 0, pin=pin)


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_two_hundred_cards_leave_nothing(
    daemon: Daemon,
    seen: Subscriber,
    cards: Callable[..., Card],
    canary: str,
    record_property: Callable[[str, object], None],
) -> None:
    both = [cards(0), cards(1, options=["--family", "pkcs15"])]

    async def run(numbers: range) -> None:
        async with asyncio.TaskGroup() as group:
            for slot, card in enumerate(both):
                group.create_task(cycles(seen, card, slot, numbers, canary))

    await run(range(1, WARM + 1))
    before = held(daemon)
    await run(range(WARM + 1, CYCLES + 1))
    await seen.until("descriptors are let go", lambda: _same(held(daemon), before))
    after = held(daemon)
    record_property("held by the daemon after 24 and after 200 cycles", (before, after))
    assert after["MiB"] - before["MiB"] <= MOST_MIB
    came, went = told(seen).values()
    assert came == went
    assert len(came) == 2 * CYCLES
    assert set(came.values()) == {1}
    ended = [signal.body[0] for _, signal in seen.signals if signal.member == "Ended"]
    assert ended == ["card-removed"] * (2 * CYCLES // SESSION_EVERY)
    assert set(seen.objects) - {ROOT} == set(seen.all("Reader")), "something is left"
    assert (await seen.call(ROOT, f"{NAME}.Manager", "ListSessions"))[0] == []
    for card in both:
        assert card.status()["wrong"] == 0


def _same(now: dict[str, int], before: dict[str, int]) -> bool:
    return all(now[each] <= before[each] for each in ("descriptors", "threads"))


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_readers_that_are_pulled_leave_nothing(
    bed: Bed,
    bed_daemon: Callable[..., Daemon],
    bus: Bus,
    record_property: Callable[[str, object], None],
) -> None:
    """With their card in, each second time; into the same port, under the same path."""
    daemon = bed_daemon()
    card = make_card()
    async with await Subscriber.open(bus.address) as seen:
        paths = set()
        before: dict[str, int] = {}
        for number in range(PLUGS):
            if number == PLUGS_WARM:
                await seen.until("nothing is left", lambda: not seen.all("Reader"), PATIENCE)
                before = held(daemon)
            reader = await asyncio.to_thread(bed.plug, "1-4")
            await seen.until("the reader is told", lambda: seen.all("Reader"), PATIENCE)
            paths |= set(seen.all("Reader"))
            if number % 2:
                reader.slot.insert(card)
                ready = lambda: [each["State"] for each in seen.all("Card").values()] == ["ready"]  # noqa: E731
                await seen.until("the card is read", ready, PATIENCE)
            await asyncio.to_thread(bed.unplug, "1-4")
            await seen.until("all is gone", lambda: set(seen.objects) <= {ROOT}, PATIENCE)
        await seen.until("descriptors are let go", lambda: _same(held(daemon), before))
        after = held(daemon)
        record_property("held by the daemon, before and after", (before, after))
        assert after["MiB"] - before["MiB"] <= MOST_MIB
        assert len(paths) == 1, "another path for the same port"
        came, went = told(seen).values()
        assert came == went
        assert len(came) == PLUGS // 2
        assert set(came.values()) == {1}
        readers = [each.body[0] for _, each in seen.signals if each.member == "InterfacesAdded"]
        assert sum("/reader/" in path for path in readers) == PLUGS

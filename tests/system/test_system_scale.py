"""Fifty subscribers on a real bus: each knows what is there, at the end of every burst, and one
that never reads costs the others nothing."""

from __future__ import annotations

import asyncio
import os
import random
import resource
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from cardsession.bus.connection import Connection
from cardsession.stack import Bus, Card, Child, Daemon
from cardsession.virtual.card import VirtualCard
from fakes.cards import make_card
from fakes.crowd import Crowd, settle
from fakes.process import logged
from system.subscriber import NAME, ROOT, Subscriber, converged, plain

SUBSCRIBERS = 50
READERS = [f"Some Reader {number:02X} 00" for number in range(16)]
PATIENCE = 60.0
MIB = 1 << 20
MOST_CHANGES = 4
"""Of one object in one burst."""
MOST_OUTGOING = MIB
"""Bytes that the bus keeps for one connection, set low: the system bus keeps 127 MiB."""
LIMITS = f"""<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><limit name="max_outgoing_bytes">{MOST_OUTGOING}</limit></busconfig>
"""
_cards: list[VirtualCard] = []


def cards_in_memory() -> list[VirtualCard]:
    """One for each reader, made once."""
    if not _cards:
        _cards.extend(make_card(holder=str(number)) for number in range(len(READERS)))
    return _cards


@pytest.fixture(autouse=True)
def many_descriptors() -> Iterator[None]:
    """Fifty connections of this process, and as many of the bus."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest_asyncio.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """What is closed after the test."""
    async with AsyncExitStack() as stack:
        yield stack


async def crowd_on(address: str, stack: AsyncExitStack) -> tuple[Crowd, Connection]:
    """The daemon's rooms with sixteen readers in memory, on a bus."""
    stack.enter_context(logged(deque(maxlen=4)))  # type: ignore[arg-type]
    connection = await stack.enter_async_context(await Connection.open(address))
    crowd = Crowd(connection)
    await crowd.start()
    for name in READERS:
        crowd.plug(name)
    await settle()
    stack.push_async_callback(crowd.desks.close)
    return crowd, connection


async def subscribers(address: str, stack: AsyncExitStack) -> list[Subscriber]:
    """All of them."""
    return [
        await stack.enter_async_context(await Subscriber.open(address)) for _ in range(SUBSCRIBERS)
    ]


async def truth(seen: Subscriber) -> dict[str, object]:
    """What somebody who asks is told."""
    managed = await seen.call(ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects")
    return dict(plain(managed[0]))


def resident(child: Child) -> int:
    """Bytes of a process."""
    pages = int(Path(f"/proc/{child.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def changes(seen: Subscriber, start: int) -> Counter[str]:
    """Signals of each object since then."""
    return Counter(
        str(signal.path) for _, signal in seen.signals[start:]
        if signal.member == "PropertiesChanged"
    )  # fmt: skip


@pytest.mark.slow
async def test_fifty_subscribers_and_sixteen_readers(bus: Bus, stack: AsyncExitStack) -> None:
    """Bursts of insertions, removals, plugging and pulling; told once, and by all understood."""
    crowd, connection = await crowd_on(bus.address, stack)
    everybody = await subscribers(bus.address, stack)
    await converged(everybody)
    chance = random.Random(4)  # noqa: S311
    for number in range(12):
        start = len(everybody[0].signals)
        chosen = chance.sample(READERS, chance.randint(8, 16))
        crowd.insert((name, cards_in_memory()[READERS.index(name)]) for name in chosen)
        await settle(chance.choice([0, 3, 200]))
        await converged(everybody)
        assert max(changes(everybody[0], start).values()) <= MOST_CHANGES
        if number % 3 == 2:
            crowd.unplug(*chosen)
            for name in chosen:
                crowd.plug(name)
        else:
            crowd.pull(*chosen)
        await converged(everybody)
        assert {len(each.all("Reader")) for each in everybody} == {len(READERS)}
        assert not everybody[-1].all("Card")
    assert len({len(each.signals) for each in everybody}) == 1, "everybody heard the same"
    assert connection.queued_bytes == 0


@pytest.mark.slow
async def test_a_subscriber_that_never_reads(
    rundir: Path,
    begin: Callable[[Child], Child],
    stack: AsyncExitStack,
    record_property: Callable[[str, object], None],
) -> None:
    """The bus keeps so much for it, and no more: what is above it does not get. It is not told so;
    it has to list anew when it reads again. Nobody else waits for it."""
    limits = rundir / "limits.conf"
    limits.write_text(LIMITS)
    bus = Bus(rundir, open_to=os.getuid(), policies=(limits,))
    begin(bus)
    crowd, connection = await crowd_on(bus.address, stack)
    slow = await stack.enter_async_context(await Subscriber.open(bus.address))
    asyncio.get_running_loop().remove_reader(slow.connection._stream._sock)
    everybody = [
        await stack.enter_async_context(await Subscriber.open(bus.address)) for _ in range(3)
    ]
    before, most = resident(bus), 0
    sent = 0
    while sent < 2 * MOST_OUTGOING:
        start = len(everybody[0].signals)
        crowd.insert(zip(READERS, cards_in_memory(), strict=True))
        await settle(3)
        most = max(most, connection.queued_bytes)
        await settle()
        crowd.pull(*READERS)
        await settle(3)
        most = max(most, connection.queued_bytes)
        await converged(everybody)
        sent += sum(len(repr(each.body)) for _, each in everybody[0].signals[start:]) // 2
    grown = resident(bus) - before
    record_property("bytes that the bus grew by, and most that waited with us", (grown, most))
    assert grown < 8 * MOST_OUTGOING
    assert most < MIB
    assert connection.queued_bytes == 0
    asyncio.get_running_loop().add_reader(
        slow.connection._stream._sock, slow.connection._stream._readable
    )
    await slow.until("it reads again", lambda: slow.signals or slow.connection.closed.done())
    if not slow.connection.closed.done():
        slow.objects = await truth(slow)  # type: ignore[assignment]
        heard = len(slow.signals)
        assert heard < len(everybody[0].signals), "it was given less than the others"
        crowd.insert([(READERS[0], cards_in_memory()[0])])
        await settle()
        await converged([*everybody, slow])


@pytest.mark.slow
async def test_fifty_subscribers_of_the_daemon(
    bus: Bus, daemon: Daemon, cards: Callable[..., Card], stack: AsyncExitStack
) -> None:
    """The daemon's own process, real readers; its memory does not depend on who listens."""
    everybody = await subscribers(bus.address, stack)
    first = everybody[0]
    await first.until("two readers", lambda: len(first.all("Reader")) == 2)
    both = [cards(0), cards(1)]
    sizes = []
    for _ in range(4):
        await asyncio.gather(*(asyncio.to_thread(card.insert) for card in both))
        for slot in (0, 1):
            await first.card_in_state("ready", slot)
        await converged(everybody)
        await asyncio.gather(*(asyncio.to_thread(card.remove) for card in both))
        for slot in (0, 1):
            await first.no_card(slot)
        await converged(everybody)
        sizes.append(daemon.resident_bytes())
    assert sizes[-1] - sizes[0] < 4 * MIB
    assert len({len(each.signals) for each in everybody}) == 1, "everybody heard the same"
    assert (await first.call(ROOT, f"{NAME}.Manager", "ListReaders"))[0]

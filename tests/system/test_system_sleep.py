"""The machine sleeps: the whole daemon over real pcscd and a real bus, with a mock of logind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from cardsession.bus.connection import Connection
from cardsession.stack import Bus, Card, Child, Daemon
from system.logind import MANAGER, PATH, Logind, announce, inhibitors
from system.rival import Rival
from system.subscriber import ROOT, Subscriber, plain

FREE = "63c3"
DELAY_MAX_SECONDS = 5.0
"""InhibitDelayMaxSec: then the machine sleeps, whoever is not ready."""


@pytest.fixture
def logind(bus: Bus, begin: Callable[[Child], Child], rundir: Path) -> Child:
    """A logind on the daemon's bus."""
    return begin(Logind(rundir, bus))


@pytest_asyncio.fixture
async def other(bus: Bus) -> AsyncIterator[Connection]:
    """Somebody else's connection."""
    async with await Connection.open(bus.address) as connection:
        yield connection


async def held(connection: Connection, number: int, seconds: float = 20.0) -> float:
    """Wait until so many inhibitors are held; how long that took."""
    begun = time.monotonic()
    async with asyncio.timeout(seconds):
        while len(await inhibitors(connection)) != number:  # noqa: ASYNC110 - it is asked
            await asyncio.sleep(0.005)
    return time.monotonic() - begun


def ended(seen: Subscriber) -> list[tuple[str, str]]:
    """Sessions that ended, and why."""
    return [(each.path, each.body[0]) for _, each in seen.signals if each.member == "Ended"]


async def asleep(seen: Subscriber) -> None:
    """Nothing is shown of readers and cards."""
    await seen.until("nothing is shown", lambda: not seen.objects.keys() - {ROOT})
    listed = await seen.call(ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects")
    assert not plain(listed[0]).keys() - {ROOT}
    get = (ROOT, "org.freedesktop.DBus.Properties", "Get", "ss")
    (backend,) = await seen.call(*get, ("org.cardsession1.Manager", "Backend"))
    assert backend.value == "starting"


async def active(seen: Subscriber, secret: str, slot: int = 0) -> tuple[str, str]:
    """A card that is in becomes an active session: both paths."""
    path, _ = await seen.card_in_state("ready", slot)
    session = await seen.open_session(path)
    assert await seen.verify(session, secret.encode()) == ("verified", -1)
    return path, session


async def test_a_sleep_ends_everything_and_the_morning_begins_anew(
    logind: Child, seen: Subscriber, card: Card, canary: str, other: Connection
) -> None:
    await held(other, 1)
    ((what, who, _, mode, *_),) = await inhibitors(other)
    assert (what, who, mode) == ("sleep", "cardsessiond", "delay")
    card.insert()
    path, session = await active(seen, canary)
    assert card.status()["references"]["80"]["verified"] is True

    await announce(other, sleep=True)
    assert await held(other, 0, DELAY_MAX_SECONDS) < DELAY_MAX_SECONDS
    assert ended(seen) == [(session, "suspend")], "the bus knew before the machine may sleep"
    await asleep(seen)
    assert card.status()["references"]["80"]["verified"] is False
    with Rival() as rival:
        assert rival.say("shared") == "00000000"
        assert rival.say("state") == FREE
        assert await seen.refused(path, "Card", "OpenSession", "sa{sv}", ("", {})) == "Suspended"
        assert await seen.refused(session, "Session", "KeepAlive") == "SessionEnded"
        assert rival.say("verify 00000000") == "63c2"  # somebody does not sleep
        rival.say("free")
    assert not seen.objects.keys() - {ROOT}

    await announce(other, sleep=False)
    again, facts = await seen.card_in_state("ready")
    assert again != path
    assert facts["PinTries"] == {"user": 2}, "counted anew"
    assert facts["PinTriesSource"] == "card"
    assert len(seen.all("Reader")) == 2
    await held(other, 1)
    await active(seen, canary)
    assert ended(seen) == [(session, "suspend")]


async def test_nobody_else_can_announce_a_sleep(  # noqa: PLR0913, PLR0917 - fixtures
    logind: Child, seen: Subscriber, daemon: Daemon, card: Card, canary: str, other: Connection
) -> None:
    await held(other, 1)
    card.insert()
    _, session = await active(seen, canary)
    found = await other.call(
        "org.freedesktop.DBus", "/", "org.freedesktop.DBus", "GetNameOwner", "s",
        ("org.cardsession1",),
    )  # fmt: skip
    for destination in (None, found.body[0]):
        for sleep in (True, False):
            other.emit(PATH, MANAGER, "PrepareForSleep", "b", (sleep,), destination)
    manager = "org.cardsession1.Manager"
    await other.call("org.cardsession1", ROOT, manager, "ListReaders")  # it has come in by then
    await seen.call(session, "Session", "KeepAlive")
    assert seen.all("Session")[session]["State"] == "active"
    assert ended(seen) == []
    assert "sleep.announced" not in daemon.log()
    await held(other, 1)


async def test_a_passcode_under_way_is_judged_first(
    logind: Child, seen: Subscriber, card: Card, other: Connection
) -> None:
    await held(other, 1)
    card.insert()
    path, _ = await seen.card_in_state("ready")
    session = await seen.open_session(path)
    exchanges = card.status()["exchanges"]
    card.tell("slow", ms=200)
    verifying = asyncio.ensure_future(seen.verify(session, b"00000000"))
    await seen.until("it is under way", lambda: card.status()["exchanges"] > exchanges + 1)
    await announce(other, sleep=True)
    answer = await verifying
    await held(other, 0, DELAY_MAX_SECONDS)
    wrong = card.status()["wrong"]
    assert answer == (("incorrect", 2) if wrong else ("cancelled", -1))
    assert ended(seen) == [(session, "suspend")]
    await asleep(seen)
    card.tell("slow", ms=0)
    await announce(other, sleep=False)
    _, facts = await seen.card_in_state("ready")
    assert facts["PinTries"] == {"user": 3 - wrong}
    assert card.status()["wrong"] == wrong


async def test_a_hung_reader_holds_up_neither_the_sleep_nor_the_others(
    logind: Child, seen: Subscriber, cards: Callable[..., Card], canary: str, other: Connection
) -> None:
    await held(other, 1)
    hung, fine = cards(0), cards(1)
    hung.insert()
    fine.insert()
    _, first = await active(seen, canary, 0)
    _, second = await active(seen, canary, 1)
    hung.tell("silent-at", n=hung.status()["exchanges"] + 1)
    await announce(other, sleep=True)
    assert await held(other, 0, DELAY_MAX_SECONDS) < DELAY_MAX_SECONDS
    assert sorted(ended(seen)) == sorted([(first, "suspend"), (second, "suspend")])
    await asleep(seen)
    assert fine.status()["references"]["80"]["verified"] is False
    hung.tell("speak")
    await announce(other, sleep=False)
    for slot in (0, 1):
        _, facts = await seen.card_in_state("ready", slot)
        assert facts["PinTries"] == {"user": 3}
    assert hung.status()["references"]["80"]["verified"] is False


async def test_logind_restarts_while_the_machine_should_sleep(  # noqa: PLR0913, PLR0917 - fixtures
    logind: Child,
    bus: Bus,
    begin: Callable[[Child], Child],
    rundir: Path,
    seen: Subscriber,
    card: Card,
    other: Connection,
) -> None:
    await held(other, 1)
    card.insert()
    await seen.card_in_state("ready")
    await announce(other, sleep=True)
    await held(other, 0, DELAY_MAX_SECONDS)
    await asleep(seen)
    logind.kill()
    await seen.card_in_state("ready")
    begin(Logind(rundir, bus, "second logind"))
    await held(other, 1)
    assert ended(seen) == []


async def test_without_logind_everything_else_works(
    seen: Subscriber, daemon: Daemon, card: Card, canary: str
) -> None:
    card.insert()
    await active(seen, canary)
    assert daemon.log().count("sleep.undelayed") == 1
    assert daemon.log().count("ServiceUnknown") == 1


async def test_stopping_in_its_sleep(
    logind: Child, seen: Subscriber, daemon: Daemon, card: Card, other: Connection
) -> None:
    await held(other, 1)
    card.insert()
    await seen.card_in_state("ready")
    await announce(other, sleep=True)
    await asleep(seen)
    assert await asyncio.to_thread(daemon.stop) == 0
    assert await inhibitors(other) == []

"""Sleep over a real dbus-daemon: the delay inhibitor, who may announce a sleep, who comes back."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog

from cardsession.bus import logind as module
from cardsession.bus.connection import Answer, BusError, Call, Connection, Refusal
from cardsession.bus.contract import ErrorName
from cardsession.bus.logind import LOGIND, MANAGER, PATH

from .fakelogind import FakeLogind, Machine, announce
from .util import CANARY, Bus, Connect, Until, close_and_wait, open_fds


@pytest.fixture
async def machine(connect: Connect) -> Machine:
    """Not begun."""
    return Machine(await connect())


@pytest.fixture
async def logind(connect: Connect) -> FakeLogind:
    """There before the machine listens."""
    return await FakeLogind.start(await connect())


@asynccontextmanager
async def delayed(machine: Machine, logind: FakeLogind, until: Until) -> AsyncIterator[None]:
    """The machine follows, and its inhibitor is held."""
    async with machine.sleep:
        await until(lambda: logind.held == 1 and machine.sleep._inhibitor is not None)
        yield


async def heard_nothing(machine: Machine, *others: Connection) -> None:
    """Whatever the others sent before now has arrived, and nothing came of it."""
    for other in others:
        await other.call(machine.connection.unique_name, "/", None, "Ping")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert machine.heard == []


async def test_what_is_asked_of_logind(machine: Machine, logind: FakeLogind, until: Until) -> None:
    async with delayed(machine, logind, until):
        ((what, who, why, mode),) = logind.asked
        assert (what, who, mode) == ("sleep", "cardsessiond", "delay")
        assert why
    await until(lambda: logind.held == 0)


async def test_a_sleep_waits_until_everything_is_done(
    machine: Machine, logind: FakeLogind, until: Until
) -> None:
    go = asyncio.Event()
    machine.hold = go.wait  # type: ignore[assignment]
    async with delayed(machine, logind, until):
        before = open_fds()
        logind.tell(sleep=True)
        await until(lambda: machine.heard == ["suspend"])
        assert logind.held == 1
        go.set()
        await until(lambda: logind.held == 0)
        assert machine.heard == ["suspend", "suspended"]
        assert len(logind.asked) == 1
        logind.tell(sleep=False)
        await until(lambda: logind.held == 1)
        assert machine.heard == ["suspend", "suspended", "resume"]
        assert open_fds() == before + 1  # of the double: the pipe that it never closes


async def test_many_sleeps_leak_nothing(machine: Machine, logind: FakeLogind, until: Until) -> None:
    async with delayed(machine, logind, until):
        before = open_fds() - 1
        for round_ in range(2, 22):
            logind.tell(sleep=True)
            logind.tell(sleep=False)
            await until(lambda round_=round_: len(logind.asked) == round_ and logind.held == 1)
        assert machine.heard == ["suspend", "suspended", "resume"] * 20
        assert open_fds() - len(logind._pipes) == before


async def test_announcements_that_come_at_once_are_taken_in_turns(
    machine: Machine, logind: FakeLogind, until: Until
) -> None:
    async with delayed(machine, logind, until):
        for sleep in (True, True, False, True):
            logind.tell(sleep=sleep)
        once = ["suspend", "suspended"]
        await until(lambda: machine.heard == [*once, *once, "resume", *once])
        await until(lambda: logind.held == 0)


async def test_a_sleep_that_nobody_told_us_of_in_time_counts(
    machine: Machine, logind: FakeLogind, until: Until
) -> None:
    async with delayed(machine, logind, until):
        logind.tell(sleep=False)
        await until(lambda: machine.heard == ["suspend", "suspended", "resume"])
        await until(lambda: logind.held == 1)


# -- what goes wrong with us


async def test_what_is_not_done_in_time_holds_nothing_up(
    machine: Machine, logind: FakeLogind, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SUSPEND_SECONDS", 0.2)
    machine.hold = asyncio.Event().wait  # type: ignore[assignment]
    async with delayed(machine, logind, until):
        with structlog.testing.capture_logs() as logs:
            logind.tell(sleep=True)
            await until(lambda: logind.held == 0)
        assert [each["event"] for each in logs] == ["sleep.announced", "sleep.late"]
        assert machine.heard == ["suspend"]
        logind.tell(sleep=False)
        await until(lambda: logind.held == 1)
        assert machine.heard == ["suspend", "resume"]


def test_it_is_less_than_logind_waits() -> None:
    """InhibitDelayMaxSec is 5 s, logind.conf(5)."""
    assert module.SUSPEND_SECONDS <= 4.0


async def test_our_own_bug_costs_neither_the_sleep_nor_the_next_one(
    machine: Machine, logind: FakeLogind, until: Until
) -> None:
    async def fail() -> None:
        raise RuntimeError("our bug")

    def fail_too() -> None:
        raise RuntimeError("our bug as well")

    machine.hold = fail
    machine.sleep._on_resume = fail_too
    async with delayed(machine, logind, until):
        with structlog.testing.capture_logs() as logs:
            logind.tell(sleep=True)
            await until(lambda: logind.held == 0)
            logind.tell(sleep=False)
            await until(lambda: logind.held == 1)
        assert [each["event"] for each in logs].count("sleep.failed") == 2


async def test_the_end_in_the_midst_of_it(
    machine: Machine, logind: FakeLogind, until: Until
) -> None:
    machine.hold = asyncio.Event().wait  # type: ignore[assignment]
    async with delayed(machine, logind, until):
        logind.tell(sleep=True)
        await until(lambda: machine.heard == ["suspend"])
    await until(lambda: logind.held == 0)
    logind.tell(sleep=False)
    await logind.connection.call(machine.connection.unique_name, "/", None, "Ping")
    assert machine.heard == ["suspend"]
    assert machine.connection._listeners._subscriptions == []


# -- what goes wrong with logind


async def test_without_logind_nothing_happens_and_it_is_said_once(
    machine: Machine, connect: Connect, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    with structlog.testing.capture_logs() as logs:
        async with machine.sleep:
            await until(lambda: bool(logs))
            other = await connect()
            await other.call(machine.connection.unique_name, "/", None, "Ping")
            assert [(each["event"], each["why"]) for each in logs] == [
                ("sleep.undelayed", ErrorName.SERVICE_UNKNOWN)
            ]
            assert not machine.sleep._retry, "who comes is heard of"
            logind = await FakeLogind.start(await connect())
            await until(lambda: logind.held == 1)
            await until(lambda: logs[-1]["event"] == "sleep.watched")
            logind.tell(sleep=True)
            await until(lambda: logind.held == 0)


async def test_a_logind_that_restarts_is_asked_again(
    machine: Machine, logind: FakeLogind, connect: Connect, until: Until
) -> None:
    async with delayed(machine, logind, until):
        before = open_fds() - 2
        for _ in range(5):
            await logind.stop()
            logind = await FakeLogind.start(await connect())
            await until(lambda logind=logind: logind.held == 1)
        assert machine.heard == []
        # the other side's part of it, which is of this process too, is closed in its own time
        await until(lambda: open_fds() - 2 == before)


async def test_a_sleep_is_over_with_the_logind_that_announced_it(
    machine: Machine, logind: FakeLogind, connect: Connect, until: Until
) -> None:
    async with delayed(machine, logind, until):
        logind.tell(sleep=True)
        await until(lambda: logind.held == 0)
        await logind.stop()
        await until(lambda: machine.heard == ["suspend", "suspended", "resume"])
        logind = await FakeLogind.start(await connect())
        await until(lambda: logind.held == 1)
        assert machine.heard == ["suspend", "suspended", "resume"]


async def test_a_logind_that_refuses_is_asked_again(
    machine: Machine, connect: Connect, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it does while a sleep is under way already."""
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.02)
    logind = await FakeLogind.start(await connect())
    refused = []

    async def refuse(call: Call) -> Answer:
        refused.append(call)
        raise Refusal(f"{LOGIND}.OperationInProgress", "already")

    logind.connection.serve(refuse)
    with structlog.testing.capture_logs() as logs:
        async with machine.sleep:
            await until(lambda: len(refused) > 3)
            said = [each for each in logs if each["event"] == "sleep.undelayed"]
            assert len(said) == 1
            logind.connection.serve(logind.answer)
            await until(lambda: logind.held == 1)
            assert not machine.sleep._retry, "nothing is left to be asked for"


async def test_a_logind_that_does_not_answer(
    machine: Machine, connect: Connect, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CALL_SECONDS", 0.05)
    logind = await FakeLogind.start(await connect())
    go = asyncio.Event()

    async def slow(call: Call) -> Answer:
        await go.wait()
        return await logind.answer(call)

    logind.connection.serve(slow)
    async with machine.sleep:
        await until(lambda: machine.sleep._retry)
        logind.tell(sleep=True)
        await until(lambda: machine.heard == ["suspend", "suspended"])
        go.set()
        await until(lambda: len(logind.asked) == 1)
        await until(lambda: logind.held == 0)  # too late: the descriptor is nobody's
        logind.tell(sleep=False)
        await until(lambda: logind.held == 1)


@pytest.mark.parametrize(
    ("signature", "body", "fds"),
    [("s", (CANARY,), 0), ("", (), 1), ("hh", (0, 1), 2), ("h", (7,), 1), ("u", (0,), 1)],
)
async def test_answers_that_are_none_leak_nothing(  # noqa: PLR0913, PLR0917 - fixtures
    machine: Machine,
    connect: Connect,
    until: Until,
    signature: str,
    body: tuple[Any, ...],
    fds: int,
) -> None:
    logind = await FakeLogind.start(await connect())
    asked: list[Call] = []

    async def answer(call: Call) -> Answer:
        asked.append(call)
        made = tuple(os.open("/dev/null", os.O_RDONLY) for _ in range(fds))
        return Answer(signature, body, made)

    logind.connection.serve(answer)
    before = open_fds()
    async with machine.sleep:
        await until(lambda: machine.sleep._told == "sleep.undelayed")
        assert len(asked) == 1
        await until(lambda: open_fds() == before)
        logind.tell(sleep=True)
        await until(lambda: machine.heard == ["suspend", "suspended"])


async def test_a_bus_that_goes_is_the_daemons_affair(bus_process: Bus, until: Until) -> None:
    address, process = bus_process
    before = open_fds()
    logind = await FakeLogind.start(await Connection.open(address))
    machine = Machine(await Connection.open(address))
    go = asyncio.Event()
    machine.hold = go.wait  # type: ignore[assignment]
    async with machine.sleep:
        await until(lambda: logind.held == 1)
        logind.tell(sleep=True)
        logind.tell(sleep=False)
        await until(lambda: machine.heard == ["suspend"])
        await logind.connection.call(machine.connection.unique_name, "/", None, "Ping")
        process.send_signal(signal.SIGKILL)
        await machine.connection.closed
        go.set()
        await until(machine.sleep._task.done)
        assert machine.sleep._task.exception() is None
        assert machine.heard == ["suspend", "suspended", "resume"]
    await logind.stop()
    await machine.connection.close()
    assert open_fds() == before


async def test_a_bus_that_lets_us_not_listen(
    machine: Machine, logind: FakeLogind, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What we do not hear of is not delayed either."""

    async def refuse(*_: Any, **__: Any) -> None:
        raise BusError(ErrorName.LIMITS_EXCEEDED)

    monkeypatch.setattr(machine.connection, "subscribe", refuse)
    with structlog.testing.capture_logs() as logs:
        async with machine.sleep:
            await until(machine.sleep._task.done)
    assert [each["event"] for each in logs] == ["sleep.unwatched"]
    assert logind.asked == []


# -- who may say it


async def test_only_logind_may_announce_a_sleep(
    machine: Machine, logind: FakeLogind, connect: Connect, until: Until
) -> None:
    stranger = await connect()
    async with delayed(machine, logind, until):
        announce(stranger, sleep=True)
        announce(stranger, sleep=True, to=machine.connection)
        announce(stranger, sleep=False, to=machine.connection)
        await heard_nothing(machine, stranger)
        assert logind.held == 1
        logind.tell(sleep=True, to=machine.connection)
        await until(lambda: machine.heard == ["suspend", "suspended"])
        announce(stranger, sleep=False, to=machine.connection)
        await stranger.call(machine.connection.unique_name, "/", None, "Ping")
        assert machine.heard == ["suspend", "suspended"]


async def test_nobody_takes_its_place_while_it_is_away(
    machine: Machine, logind: FakeLogind, connect: Connect, until: Until
) -> None:
    stranger = await connect()
    async with delayed(machine, logind, until):
        left = logind.connection
        await close_and_wait(left, stranger)
        announce(stranger, sleep=True, to=machine.connection)
        await heard_nothing(machine, stranger)
        await logind.stop()


@pytest.mark.parametrize(
    ("path", "interface", "member", "signature", "body"),
    [
        (PATH, MANAGER, "PrepareForSleep", "s", ("true",)),
        (PATH, MANAGER, "PrepareForSleep", "", ()),
        (PATH, MANAGER, "PrepareForSleep", "bb", (True, True)),
        (PATH, MANAGER, "PrepareForShutdown", "b", (True,)),
        (PATH, "org.example.Manager", "PrepareForSleep", "b", (True,)),
        ("/elsewhere", MANAGER, "PrepareForSleep", "b", (True,)),
    ],
)
async def test_what_is_no_announcement(  # noqa: PLR0913, PLR0917 - fixtures
    machine: Machine,
    logind: FakeLogind,
    until: Until,
    path: str,
    interface: str,
    member: str,
    signature: str,
    body: tuple[Any, ...],
) -> None:
    async with delayed(machine, logind, until):
        logind.connection.emit(path, interface, member, signature, body)
        await heard_nothing(machine, logind.connection)

"""What reaches the service manager's socket, and that nothing of it can hurt us."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cardsession.adapters.systemd import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """A service manager's socket and the name that NOTIFY_SOCKET gives it."""
    name = str(tmp_path / "notify")
    if request.param == "abstract":
        name = f"@cardsession-test-{os.getpid()}-{tmp_path.name}"
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as listener:
        listener.bind("\0" + name[1:] if name[0] == "@" else name)
        listener.settimeout(10)
        yield name, listener


def heard(listener: socket.socket) -> dict[str, str]:
    """The assignments of the next datagram."""
    lines = listener.recv(4096).decode().split("\n")
    return dict(line.split("=", 1) for line in lines)


def test_the_life_of_a_service(manager: tuple[str, socket.socket]) -> None:
    """Ready with a status, another status, stopping."""
    name, listener = manager
    notifier = Notifier(name)
    notifier.ready("2 readers")
    assert heard(listener) == {"READY": "1", "STATUS": "2 readers"}
    notifier.status("1 session")
    assert heard(listener) == {"STATUS": "1 session"}
    notifier.stopping()
    assert heard(listener) == {"STOPPING": "1"}


def test_a_status_is_one_line(manager: tuple[str, socket.socket]) -> None:
    """A reader's name with a newline does not become an assignment of its own."""
    name, listener = manager
    Notifier(name).status("reader\nMAINPID=1\x1b[2J " + "x" * 1000)
    got = heard(listener)
    assert set(got) == {"STATUS"}
    assert got["STATUS"].startswith("reader MAINPID=1 [2J xx")
    assert len(got["STATUS"]) == 200


def test_the_environment_is_taken_not_inherited() -> None:
    """Our children cannot speak for us."""
    environ = {
        "NOTIFY_SOCKET": "/run/x",
        "WATCHDOG_USEC": "30000000",
        "WATCHDOG_PID": str(os.getpid()),
        "HOME": "/",
    }
    notifier = Notifier.from_environment(environ)
    assert environ == {"HOME": "/"}
    assert notifier.enabled
    assert notifier.interval == 10


@pytest.mark.parametrize(
    ("period", "pid", "interval"),
    [
        ("3000000", "", 1.0),
        ("3000000", "1", 0.0),
        ("3000000", "x", 0.0),
        ("0", "", 0.0),
        ("-5", "", 0.0),
        ("", "", 0.0),
        ("3e6", "", 0.0),
        ("٣", "", 0.0),
        ("9" * 5000, "", 0.0),
    ],
)
def test_only_our_own_watchdog(period: str, pid: str, interval: float) -> None:
    """A third of the time, if it is meant for us and is one."""
    environ = {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": period, "WATCHDOG_PID": pid}
    assert Notifier.from_environment(environ).interval == interval


async def test_pings_only_while_there_is_progress(manager: tuple[str, socket.socket]) -> None:
    """No progress, no ping; a question that fails is no progress; and then it goes on."""
    name, listener = manager
    listener.setblocking(False)
    asked = asyncio.Event()
    answer: bool | Exception = True

    def progress() -> bool:
        asked.set()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def pinged() -> bool:
        asked.clear()
        await asyncio.wait_for(asked.wait(), 10)
        await asyncio.sleep(0)  # its datagram leaves in the same turn
        try:
            return listener.recv(100) == b"WATCHDOG=1"
        except BlockingIOError:
            return False

    task = asyncio.create_task(Notifier(name, 0.03).watchdog(progress))
    assert await pinged()
    answer = False
    assert not await pinged()
    answer = RuntimeError("a worker's bug")
    assert not await pinged()
    answer = True
    assert await pinged()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_without_systemd_nothing_happens() -> None:
    """No variable, no socket, no wake-up: the watchdog's task is over at once."""
    notifier = Notifier.from_environment({})
    assert not notifier.enabled
    notifier.ready("x")
    notifier.stopping()
    await asyncio.wait_for(notifier.watchdog(lambda: True), 10)
    without_socket = Notifier.from_environment({"WATCHDOG_USEC": "3000000"})
    await asyncio.wait_for(without_socket.watchdog(lambda: True), 10)


@pytest.mark.parametrize(
    "name", ["", "/", "@", "relative", "vsock:2:1234", "/nowhere/at/all", "/" + "x" * 200, "/a\0b"]
)
def test_an_ear_that_is_not_there(name: str) -> None:
    """Never an error of ours."""
    notifier = Notifier(name)
    notifier.ready("x")
    notifier.status("\ud800")
    notifier.stopping()


async def test_a_full_ear_is_tried_again(tmp_path: Path) -> None:
    """READY is not lost when the manager is slow, and what it hears then is the latest."""
    name = str(tmp_path / "notify")
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as listener:
        listener.bind(name)
        listener.setblocking(False)
        notifier = Notifier(name)
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as noise:
            noise.setblocking(False)
            with pytest.raises(BlockingIOError):
                while True:
                    noise.sendto(b"noise", name)
        notifier.ready("starting")
        notifier.status("2 readers")
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(10):
            while (got := await loop.sock_recv(listener, 4096)) == b"noise":
                pass
        assert set(got.decode().split("\n")) == {"READY=1", "STATUS=2 readers"}

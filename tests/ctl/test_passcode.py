"""Asking for a passcode: nothing is shown, nothing is kept, nothing behind it is taken."""

from __future__ import annotations

import asyncio
import os
import pty
import termios
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cardsession.ctl import passcode
from cardsession.ctl.passcode import NoTerminal, TooLong, ask, read_line

CANARY = b"73194682"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Both ends; the test may close the writing one."""
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)


@pytest.mark.parametrize(
    ("given", "got"),
    [
        (CANARY + b"\n", CANARY),
        (CANARY, CANARY),
        (b"\n", b""),
        (b"", b""),
        (CANARY + b"\n\n", CANARY),
        (b" 7 \r\n", b" 7 \r"),
        (b"7" * 64 + b"\n", b"7" * 64),
        (b"7" * 64, b"7" * 64),
    ],
)
async def test_one_line(pipe: tuple[int, int], given: bytes, got: bytes) -> None:
    """Without its newline and with everything else: the daemon judges what a passcode may be."""
    reader, writer = pipe
    os.write(writer, given)
    os.close(writer)
    assert await read_line(reader) == got


async def test_what_follows_is_not_taken(pipe: tuple[int, int]) -> None:
    """`{ cardsessionctl verify --stdin; other; } < both` works."""
    reader, writer = pipe
    os.write(writer, CANARY + b"\nthe next line\n")
    os.close(writer)
    await read_line(reader)
    assert os.read(reader, 100) == b"the next line\n"


async def test_too_long(pipe: tuple[int, int]) -> None:
    """65 are refused, without waiting for the end."""
    reader, writer = pipe
    os.write(writer, b"7" * 65)
    with pytest.raises(TooLong):
        await asyncio.wait_for(read_line(reader), 10)
    os.close(writer)


async def test_from_a_file(tmp_path: Path) -> None:
    """Redirected from a file, which no event loop watches."""
    path = tmp_path / "passcode"
    path.write_bytes(CANARY + b"\n")
    fd = os.open(path, os.O_RDONLY)
    assert await read_line(fd) == CANARY
    os.close(fd)


async def test_interrupted_reading_leaves_nothing(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The memory that was read into is wiped when somebody gives up halfway."""
    views: list[memoryview] = []
    original = passcode._next

    async def spied(fd: int, byte: memoryview) -> int:
        views.append(memoryview(byte.obj))
        return await original(fd, byte)

    monkeypatch.setattr(passcode, "_next", spied)
    reader, writer = pipe
    os.write(writer, CANARY)
    reading = asyncio.create_task(read_line(reader))
    await until(lambda: len(views) > len(CANARY))
    assert bytes(views[0]).startswith(CANARY)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert not any(views[0])
    os.close(writer)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for it, ten seconds at most."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.005)


class Terminal:
    """Somebody at a terminal."""

    def __init__(self) -> None:
        self.master, slave = pty.openpty()
        self.name = os.ttyname(slave)
        self.slave = slave
        self.shown = b""
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while True:
            try:
                self.shown += os.read(self.master, 1000)
            except OSError:
                return

    def echoes(self) -> bool:
        """Whether what is typed is shown."""
        return bool(termios.tcgetattr(self.slave)[3] & termios.ECHO)

    def close(self) -> None:
        """Hang up."""
        os.close(self.slave)
        self._thread.join(10)
        os.close(self.master)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    """A terminal of our own."""
    made = Terminal()
    yield made
    made.close()


async def test_nothing_is_echoed(terminal: Terminal) -> None:
    """The prompt, a new line, and in between nothing; afterwards the terminal is as it was."""
    os.write(terminal.master, b"typed too early\n")
    await until(lambda: b"early" in terminal.shown)  # the terminal has it
    asking = asyncio.create_task(ask("Passcode: ", terminal.name))
    await until(lambda: b"Passcode: " in terminal.shown)
    assert not terminal.echoes()
    os.write(terminal.master, b"73x\x7f194682\n")  # with a correction
    assert await asyncio.wait_for(asking, 10) == CANARY
    await until(lambda: terminal.shown.endswith(b"Passcode: \r\n"))
    assert CANARY not in terminal.shown
    assert terminal.echoes()


async def test_given_up(terminal: Terminal) -> None:
    """Cancelled while waiting: the terminal echoes again."""
    asking = asyncio.create_task(ask("Passcode: ", terminal.name))
    await until(lambda: b"Passcode: " in terminal.shown)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert terminal.echoes()


async def test_end_of_input_at_the_terminal(terminal: Terminal) -> None:
    """Control-D on an empty line is an empty passcode, which the daemon refuses."""
    asking = asyncio.create_task(ask("Passcode: ", terminal.name))
    await until(lambda: b"Passcode: " in terminal.shown)
    os.write(terminal.master, b"\x04")
    assert await asyncio.wait_for(asking, 10) == b""


@pytest.mark.parametrize("name", ["/dev/null", "/nowhere"])
async def test_nobody_to_ask(name: str) -> None:
    """A cron job has no terminal."""
    with pytest.raises(NoTerminal):
        await ask("Passcode: ", name)

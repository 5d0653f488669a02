"""A passcode from a person or a pipe, never as a text: read into memory that is wiped after use.

`getpass` and `input` make strings, which nobody can wipe; so the terminal is asked here. Reading
waits in the event loop, not in a call: the card may be pulled while somebody thinks.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import termios
from collections.abc import Iterator
from typing import Final

LIMIT: Final = 64
"""Bytes of the longest passcode (bus contract, "Secrets")."""

_LFLAGS: Final = 3
"""Where termios keeps the local modes."""


class NoTerminal(Exception):
    """There is nobody to ask."""


class TooLong(Exception):
    """More than any card takes."""


async def ask(prompt: str, terminal: str = "/dev/tty") -> bytearray:
    """What is typed up to Enter, without echo; the caller wipes it. Raises NoTerminal, TooLong."""
    try:
        fd = os.open(terminal, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        raise NoTerminal from None
    try:
        with _without_echo(fd):
            os.write(fd, prompt.encode())
            try:
                return await read_line(fd)
            finally:
                os.write(fd, b"\n")
    finally:
        os.close(fd)


async def read_line(fd: int) -> bytearray:
    """Up to a newline, which is not part of it, or to the end; nothing behind it is read.

    The caller wipes it. Raises TooLong.
    """
    line = bytearray(LIMIT + 1)
    count = 0
    try:
        with memoryview(line) as view:
            # One byte at a time: what follows the line belongs to whoever reads next.
            while await _next(fd, view[count : count + 1]) and line[count] != ord("\n"):
                count += 1
                if count > LIMIT:
                    raise TooLong
        return line[:count]
    finally:
        line[:] = bytes(len(line))


async def _next(fd: int, byte: memoryview) -> int:
    """Read one byte; 0 at the end."""
    await _readable(fd)
    return os.readv(fd, [byte])


async def _readable(fd: int) -> None:
    """Until a read does not wait; a file never does, and epoll does not take one."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    try:
        loop.add_reader(fd, lambda: None if ready.done() else ready.set_result(None))
    except PermissionError:
        return
    try:
        await ready
    finally:
        loop.remove_reader(fd)


@contextlib.contextmanager
def _without_echo(fd: int) -> Iterator[None]:
    """The terminal shows nothing; what was typed before the question is thrown away."""
    try:
        before = termios.tcgetattr(fd)
    except termios.error:
        raise NoTerminal from None
    silent = [*before]
    silent[_LFLAGS] &= ~(termios.ECHO | termios.ECHONL)
    termios.tcsetattr(fd, termios.TCSAFLUSH, silent)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSAFLUSH, before)

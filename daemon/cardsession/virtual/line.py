"""What the lines to a reader have in common, whatever their protocol: they come back."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from abc import ABC, abstractmethod
from enum import StrEnum
from typing import Final, Protocol

_BACK_OFF_FIRST: Final = 0.05
_BACK_OFF_LONGEST: Final = 1.0


class Power(StrEnum):
    """What a reader does to a card between exchanges."""

    OFF = "off"
    ON = "on"
    RESET = "reset"


class Pulled(Exception):
    """The card was pulled during an exchange: it is gone, and answers nothing."""


class Device(Protocol):
    """What is at the card's end of the line."""

    @property
    def atr(self) -> bytes:
        """The answer to reset."""

    def power(self, word: Power) -> None:
        """Power off, power on or reset."""

    async def exchange(self, raw: bytes) -> bytes:
        """Answer one command APDU; Pulled if the card goes away instead."""


class Line(Protocol):
    """One card's line to a reader, as the seat handles it."""

    @property
    def connected(self) -> bool:
        """Is the card in a reader now?"""

    def start(self) -> None:
        """Insert: begin to connect, and go on trying."""

    async def stop(self) -> None:
        """Remove. Safe to call twice."""

    async def wait_connected(self, seconds: float) -> bool:
        """Wait for a reader, at most so long; was there one?"""


class Reconnecting(ABC):
    """A line that connects again when the reader goes away; a pulled card's does not."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._task: asyncio.Task[None] | None = None
        self._connected = asyncio.Event()

    @property
    def connected(self) -> bool:
        """Is the card in a reader now?"""
        return self._connected.is_set()

    def start(self) -> None:
        """Insert: begin to connect, and go on trying."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="line")

    async def stop(self) -> None:
        """Remove. Safe to call twice."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def wait_connected(self, seconds: float) -> bool:
        """Wait for a reader, at most so long; was there one?"""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._connected.wait(), seconds)
        return self.connected

    async def _run(self) -> None:
        pause = _BACK_OFF_FIRST
        while True:
            try:
                if await self._connection():
                    pause = _BACK_OFF_FIRST
            except Pulled:
                return
            finally:
                self._connected.clear()
                # A reader that lets go takes the power with it.
                self._device.power(Power.OFF)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _BACK_OFF_LONGEST)

    @abstractmethod
    async def _connection(self) -> bool:
        """Connect and serve until the reader closes; did it say anything in that time?

        What goes wrong with the line ends in False or True, not in an exception. Pulled passes,
        and cancelling is removal: what the reader must be told then is told before it passes.
        """


async def receive_some(line: socket.socket, most: int) -> bytes:
    """What the reader has sent, at most so many bytes; EOFError when it has closed."""
    if line.family == socket.AF_INET:
        # The kernel falls back to delayed acknowledgements by itself, and readers write a
        # length and what it is of apart: without this each exchange takes 45 ms, not 0.1 ms.
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
    part = await asyncio.get_running_loop().sock_recv(line, most)
    if not part:
        raise EOFError("the reader closed the line")
    return part

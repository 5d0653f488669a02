"""The line to QEMU's emulated USB reader (`usb-ccid` with `ccid-card-passthru`).

QEMU listens on the character device, the card connects. Init is said by both; the card adds its
reader, then its ATR is insertion and CardRemove removal; APDUs go to and fro. QEMU says Init by
itself only where its device appears, and answers every other: an Init that was not asked for is a
reader plugged in anew. It answers the other requests with an Error message, whose code may be
success.

What QEMU 7.2 does not do, and what follows:

- It tells the card nothing of power and reset: its reader answers a reset by itself, with the ATR
  that it was told. So **a reset in the guest leaves a verified card verified**, and only what ends
  that by a command (PIV's VERIFY with P1 FF) does. The remedy is a capture of the USB traffic,
  from which power and reset are read (`Capture`).
- It offers T=0 only, and the guest's driver refuses a card that does not speak it.
- It does not take a closed connection for removal: the guest goes on to see a card that is silent.
  So the card says CardRemove before it closes, and once more when it comes back, since it may have
  died without. Nor does it say that its device was unplugged; it says Init when it is back.
- It tells the guest that there is a card, not that there was none for a moment. A card that comes
  right after another would be taken for the same one; there is a pause between the two.
- It does not take an answer for late. After a silence that outlasts the guest's driver (23 s with
  the ATR of our T=0 cards) every answer comes one command late, until the card is removed.
- It takes no frame longer than 64 KiB, header and all, and what is left of a half one it takes for
  the beginning of the next connection's; both block it until its device is unplugged.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cardsession.virtual.capture import Capture
from cardsession.virtual.line import Device, Power, Pulled, Reconnecting
from cardsession.virtual.vscard_wire import (
    GENERAL_ERROR,
    INIT_BODY,
    NO_READER,
    SUCCESS,
    Address,
    Frames,
    Kind,
    LineError,
    Message,
)

_NAME: Final = b"cardsession-virtual"
_FOLLOW_SECONDS: Final = 0.1

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds that a guest is given to see something.

    `empty`: the reader between two cards. `failed`: a command that a pulled card did not answer;
    CardRemove has QEMU drop what the guest has not fetched, and its driver would wait on.
    `farewell`: QEMU itself, to take the removal.
    """

    empty: float = 1.0
    failed: float = 0.5
    farewell: float = 1.0


class Link(Reconnecting):
    """One card's connection to an emulated reader.

    It is connected when the reader has taken the ATR. `capture`, if there is one, tells of power.
    """

    def __init__(
        self, address: Address, capture: Capture | None, pace: Pace, device: Device
    ) -> None:
        super().__init__(device)
        self.address = address
        self._capture = capture
        self._pace = pace
        self._reader = NO_READER
        self._in = False
        self._owed = False
        # When the reader became empty, on the loop's clock; None: it may have a card in it.
        self._emptied: float | None = None

    async def _connection(self) -> bool:
        heard = False
        with self.address.socket() as line:
            frames = Frames(line)
            self._in = self._owed = False
            follower = asyncio.create_task(self._follow(), name="capture")
            try:
                await asyncio.get_running_loop().sock_connect(line, self.address.target)
                await frames.send(Kind.INIT, NO_READER, INIT_BODY)
                while True:
                    await self._answer(frames, await frames.receive())
                    heard = True
            except (Pulled, asyncio.CancelledError):
                await self._withdraw(frames)
                raise
            except LineError as error:
                _log.warning("%s: %s", self.address, error)
                return False
            except (OSError, EOFError):
                return heard
            finally:
                follower.cancel()

    async def _answer(self, frames: Frames, message: Message) -> None:
        match message.kind:
            case Kind.INIT:
                message.check_init()
                await self._add_reader(frames)
            case Kind.ERROR:
                await self._settle(frames, message)
            case Kind.APDU:
                await self._exchange(frames, message)
            case Kind.FLUSH:
                # One thing after another: whatever was asked before it is answered.
                await frames.send(Kind.FLUSH_COMPLETE, message.reader)
            case _:
                _log.info("%s: message of type %d ignored", self.address, message.kind)

    async def _add_reader(self, frames: Frames) -> None:
        """Begin; or begin again, in a reader that was plugged in anew."""
        self._in = False
        self._connected.clear()
        self._device.power(Power.OFF)
        if self._capture is not None:
            self._capture.rewind()
        frames.asked.clear()
        await frames.ask(Kind.READER_ADD, NO_READER, _NAME)

    async def _settle(self, frames: Frames, message: Message) -> None:
        """One request was answered: what comes after it."""
        request, code = frames.settled(), message.code
        if code != SUCCESS:
            _log.warning("%s: refused (%d): %s", self.address, code, request)
        if request is Kind.READER_ADD:
            if code != SUCCESS:
                raise LineError("a place for a reader was expected")
            self._reader = message.reader
            if self._emptied is None:
                await frames.ask(Kind.CARD_REMOVE, self._reader)
            else:
                await self._put_in(frames, self._emptied)
        elif request is Kind.CARD_REMOVE:
            await self._put_in(frames, asyncio.get_running_loop().time())
        elif request is Kind.ATR and code == SUCCESS:
            self._connected.set()

    async def _put_in(self, frames: Frames, emptied: float) -> None:
        self._emptied = emptied
        await asyncio.sleep(emptied + self._pace.empty - asyncio.get_running_loop().time())
        self._emptied, self._in = None, True
        self._read_capture()
        self._device.power(Power.ON)
        await frames.ask(Kind.ATR, self._reader, self._device.atr)

    async def _exchange(self, frames: Frames, message: Message) -> None:
        if not self._in:
            # Meant for a card that died here. The guest's driver would wait for its answer.
            await self._fail(frames)
            return
        self._read_capture()
        self._owed = True
        answer = await self._device.exchange(message.body)
        self._owed = False
        await frames.send(Kind.APDU, message.reader, answer)

    async def _fail(self, frames: Frames) -> None:
        """Have the reader fail a command. It is no answer to the guest, and not answered here."""
        await frames.send(Kind.ERROR, self._reader, GENERAL_ERROR)

    async def _withdraw(self, frames: Frames) -> None:
        """Tell the reader that the card is out, and wait for it to have heard."""
        if not self._in:
            return
        # Not asyncio.timeout: in a task that is cancelled, as this one is, it cancels once more.
        with contextlib.suppress(TimeoutError, OSError, EOFError, LineError):
            if self._owed:
                await self._fail(frames)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._hear(frames, lambda: False), self._pace.failed)
            await frames.ask(Kind.CARD_REMOVE, self._reader)
            heard = self._hear(frames, lambda: not frames.asked)
            await asyncio.wait_for(heard, self._pace.farewell)
            self._emptied = asyncio.get_running_loop().time()

    async def _hear(self, frames: Frames, enough: Callable[[], bool]) -> None:
        """Take answers, and fail commands: the card is as good as out."""
        while not enough():
            message = await frames.receive()
            if message.kind == Kind.ERROR:
                frames.settled()
            elif message.kind == Kind.APDU:
                await self._fail(frames)

    async def _follow(self) -> None:
        """Read the capture every now and then, so that what the card says of itself is true."""
        while self._capture is not None:
            await asyncio.sleep(_FOLLOW_SECONDS)
            self._read_capture()

    def _read_capture(self) -> None:
        # Before each command, too: QEMU has written of a reset before it passes the command on.
        for word in self._capture.words() if self._capture is not None else ():
            if self._in:
                self._device.power(word)

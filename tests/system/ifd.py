"""Readers that a test holds in its hands: the other end of tests/ifd/handler.c.

`Readers` listens on the socket to which our driver inside pcscd connects; each `Slot` answers the
calls of its reader in threads of its own, and a test puts cards in and makes faults:

    slot.insert(card)                    # anything with atr, reset(), process(raw)
    slot.insert(card, warm=other_atr)    # another ATR after a reset than after power on
    slot.insert(card, mute=True)         # the wrong way round: there, and silent
    slot.turn()                          # taken out, turned round, put in again
    slot.pull()                          # pcscd hears of it at once, as from a real reader
    slot.swap(card)                      # within one look of pcscd: it sees a card all the time
    slot.hang() / slot.wait_hung() / slot.release()    # no answer to an APDU until then
    slot.garble = lambda raw: b""        # what comes back instead of the card's answer
    slot.failing.add(Call.POWER)         # the driver's call fails
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol, Self

from cardsession.stack.processes import wait_until
from system.driver import (
    GET_FEATURES,
    LONGEST,
    NUMBER,
    SOCKET_VARIABLE,
    Call,
    Code,
    Feature,
    Power,
    Tag,
    driver,
)

__all__ = ["Call", "Feature", "Make", "Power", "Readers", "Scripted", "Slot", "driver"]

COMMON_ATR: Final = bytes.fromhex("3B951381B1FE551F434944454D4F10")


class Chip(Protocol):
    """What is on a card: a `VirtualCard`, or a test's own."""

    @property
    def atr(self) -> bytes:
        """The answer to power on."""

    def reset(self) -> None:
        """Power on, off, or reset."""

    def process(self, raw: bytes) -> bytes:
        """Answer one command APDU."""


@dataclass
class Scripted:
    """A card that is one function from command to response."""

    answer: Callable[[bytes], bytes] = lambda _: b"\x6a\x82"
    atr: bytes = COMMON_ATR

    def reset(self) -> None:
        """It has no state."""

    def process(self, raw: bytes) -> bytes:
        """The function's answer."""
        return self.answer(raw)


@dataclass(frozen=True)
class Make:
    """What a reader says it is; a word that is empty is one it does not know."""

    vendor: str = "Cardsession"
    type: str = ""
    serial: str = ""
    channel_id: int | None = None
    features: tuple[Feature, ...] = ()
    slots: int = 1
    together: int = 16
    """Readers that one copy of the driver can manage (TAG_IFD_SIMULTANEOUS_ACCESS)."""
    events: bool = True
    """Tells pcscd at once of a card that comes or goes; else pcscd looks every 400 ms."""

    def attributes(self) -> dict[int, bytes]:
        """Values by tag."""
        values = {
            Tag.THREAD_SAFE: b"\x01",
            Tag.SLOT_THREAD_SAFE: b"\x01",
            Tag.SLOTS_NUMBER: bytes([self.slots]),
            Tag.SIMULTANEOUS_ACCESS: bytes([self.together]),
            Tag.VENDOR_NAME: self.vendor.encode(),
            Tag.VENDOR_IFD_TYPE: self.type.encode(),
            Tag.VENDOR_IFD_SERIAL_NO: self.serial.encode(),
        }
        if self.channel_id is not None:
            values[Tag.CHANNEL_ID] = self.channel_id.to_bytes(NUMBER, "little")
        return {tag: value for tag, value in values.items() if value} | self._polling()

    def _polling(self) -> dict[int, bytes]:
        """The driver puts its own functions there."""
        if not self.events:
            return {}
        return {Tag.POLLING_THREAD_WITH_TIMEOUT: b"", Tag.STOP_POLLING_THREAD: b""}

    def feature_list(self) -> bytes:
        """The answer to CM_IOCTL_GET_FEATURE_REQUEST: tag, length, control code (big-endian)."""
        codes = ((each, (0x42000000 + 3500 + each).to_bytes(4, "big")) for each in self.features)
        return b"".join(bytes([tag, 4]) + code for tag, code in codes)


@dataclass
class Slot:
    """One slot of a reader, and what is in it. Calls of pcscd come in on threads of ours."""

    make: Make = field(default_factory=Make)
    chip: Chip | None = None
    warm: bytes | None = None
    """The ATR after a reset, where it is another."""
    mute: bool = False
    garble: Callable[[bytes], bytes | None] | None = None
    """Told each command; what it returns is answered in place of the card, None: the card."""
    failing: set[Call] = field(default_factory=set)
    """Calls that the driver answers with an error."""
    powered: list[Power] = field(default_factory=list)
    """What was done with the power, in order."""
    commands: int = 0
    """APDUs that reached the driver."""
    seen_empty: bool = False
    """Whether pcscd saw no card when it looked last."""

    def __post_init__(self) -> None:
        self._gate = threading.Condition()
        self._hang_at: Callable[[bytes], bool] | None = None
        self._hung = 0
        self._gone = False
        self._on = False
        """Whether the chip has power."""
        self._was_out = False
        """Whether it lost its power by being pulled, and pcscd was not told yet."""
        self._lines: set[socket.socket] = set()
        self._events: set[socket.socket] = set()

    # the test's side

    def insert(self, chip: Chip, *, mute: bool = False, warm: bytes | None = None) -> None:
        """Put a card in, in place of the one that is in."""
        self._change(chip, mute=mute, warm=warm)
        self._tell()

    def pull(self) -> None:
        """Take the card out. A command that hangs ends in an error."""
        self._change(None)
        self._tell()

    def swap(
        self, chip: Chip, *, mute: bool = False, warm: bytes | None = None, told: bool = True
    ) -> None:
        """Pull, and insert another card before pcscd looks. As libccid does, it is told once that
        the reader was empty, for the card has lost its power. Not `told`: it hears of it only
        when it looks by itself."""
        with self._gate:
            self._change(None)
            self._change(chip, mute=mute, warm=warm)
        for _ in range(2 if told else 0):
            self._tell()

    def _change(self, chip: Chip | None, *, mute: bool = False, warm: bytes | None = None) -> None:
        with self._gate:
            self._was_out |= self._on
            self._on = False
            self.chip, self.mute, self.warm = chip, mute, warm
            self._gate.notify_all()

    def turn(self) -> None:
        """Take the card out long enough to be noticed, and put it in the other way round."""
        chip, mute = self.chip, self.mute
        if chip is None:
            raise ValueError("there is no card to turn")
        self.seen_empty = False
        self.pull()
        wait_until("pcscd sees the empty reader", lambda: self.seen_empty)
        self.insert(chip, mute=not mute)

    def hang(self, when: Callable[[bytes], bool] = lambda _: True) -> None:
        """From now on commands (those for which `when` holds) are not answered."""
        with self._gate:
            self._hang_at = when

    def release(self) -> None:
        """The card answers again, the command that hangs first."""
        with self._gate:
            self._hang_at = None
            self._gate.notify_all()

    @property
    def hung(self) -> bool:
        """Whether a command waits for its answer."""
        return self._hung > 0

    def wait_hung(self) -> None:
        """Wait until a command waits. StackError if none comes."""
        wait_until("a command hangs", lambda: self.hung)

    def vanish(self) -> None:
        """The reader is torn out: every call on it fails from now on."""
        with self._gate:
            self._gone = True
            self._gate.notify_all()
            lines = self._lines | self._events
        for line in lines:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)

    @property
    def opened(self) -> bool:
        """Whether pcscd has a channel to it."""
        return bool(self._lines)

    def _tell(self) -> None:
        with self._gate:
            lines = list(self._events)
        for line in lines:
            with contextlib.suppress(OSError):
                line.send(b"!", socket.MSG_DONTWAIT)

    # the driver's side

    def serve(self, line: socket.socket, *, events: bool) -> None:
        """Answer one connection until it ends."""
        lines = self._events if events else self._lines
        with self._gate:
            lines.add(line)
            if events:  # a card that came while the line was made
                line.send(b"!")
        try:
            while not self._gone and (packet := line.recv(LONGEST)):
                line.send(self._answer(packet))
        finally:
            with self._gate:
                lines.discard(line)

    def _answer(self, packet: bytes) -> bytes:
        call, rest = Call(chr(packet[0])), packet[1:]
        if call in self.failing:
            return _reply(Code.COMMUNICATION_ERROR)
        match call:
            case Call.TRANSMIT:
                return self._transmit(rest)
            case Call.PRESENCE:
                return self._presence()
            case Call.GET:
                return self._get(_number(rest))
            case Call.POWER:
                return self._power(Power(_number(rest)))
            case Call.CONTROL:
                return self._control(_number(rest))
            case Call.PROTOCOL:
                return _reply(Code.SUCCESS)
            case _:
                return _reply(Code.ERROR_NOT_SUPPORTED)

    def _presence(self) -> bytes:
        with self._gate:
            was_out, self._was_out = self._was_out, False
            self.seen_empty = self.chip is None or was_out
            return _reply(Code.ICC_NOT_PRESENT if self.seen_empty else Code.ICC_PRESENT)

    def _get(self, tag: int) -> bytes:
        values = self.make.attributes()
        if self.chip is not None and not self.mute:
            values |= {Tag.ATR: self.chip.atr, Tag.ATR_STRING: self.chip.atr}
        return _reply(Code.SUCCESS, values[tag]) if tag in values else _reply(Code.ERROR_TAG)

    def _power(self, action: Power) -> bytes:
        with self._gate:
            chip, mute, warm = self.chip, self.mute, self.warm
            self._on = chip is not None and not mute and action is not Power.DOWN
        self.powered.append(action)
        if chip is None:
            return _reply(Code.ICC_NOT_PRESENT)
        if action is Power.DOWN:
            chip.reset()
            return _reply(Code.SUCCESS)
        if mute:
            return _reply(Code.ERROR_POWER_ACTION)
        chip.reset()
        return _reply(Code.SUCCESS, warm if warm and action is Power.RESET else chip.atr)

    def _transmit(self, raw: bytes) -> bytes:
        self.commands += 1
        with self._gate:
            chip = self.chip
            if self._holds(raw):
                self._hung += 1
                self._gate.wait_for(lambda: self._ends(chip, raw))
                self._hung -= 1
            if self._gone or chip is None or self.chip is not chip or not self._on:
                return _reply(Code.COMMUNICATION_ERROR)
        instead = None if self.garble is None else self.garble(raw)
        return _reply(Code.SUCCESS, chip.process(raw) if instead is None else instead)

    def _ends(self, chip: Chip | None, raw: bytes) -> bool:
        return self._gone or self.chip is not chip or not self._holds(raw)

    def _holds(self, raw: bytes) -> bool:
        return self._hang_at is not None and self._hang_at(raw)

    def _control(self, code: int) -> bytes:
        if code != GET_FEATURES:
            return _reply(Code.ERROR_NOT_SUPPORTED)
        return _reply(Code.SUCCESS, self.make.feature_list())


class Readers:
    """Every reader that pcscd may open, by its device name. A context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.slots: dict[tuple[str, int], Slot] = {}
        """By device name and slot; a device that is not here cannot be opened."""
        self._line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    @property
    def environment(self) -> dict[str, str]:
        """What pcscd needs in its environment for our driver to find us."""
        return {SOCKET_VARIABLE: str(self.path)}

    def __enter__(self) -> Self:
        self._line.bind(str(self.path))
        self._line.listen(64)
        threading.Thread(target=self._accept, name="readers", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._line.shutdown(socket.SHUT_RDWR)
        self._line.close()
        for slot in self.slots.values():
            slot.vanish()

    def add(self, device: str, make: Make | None = None) -> list[Slot]:
        """A reader with that device name can be opened from now on; its slots."""
        make = make or Make()
        slots = [Slot(make) for _ in range(make.slots)]
        self.slots.update({(device, number): slot for number, slot in enumerate(slots)})
        return slots

    def remove(self, device: str) -> None:
        """It is torn out."""
        for key in [each for each in self.slots if each[0] == device]:
            self.slots.pop(key).vanish()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                line, _ = self._line.accept()
                threading.Thread(target=self._serve, args=(line,), daemon=True).start()

    def _serve(self, line: socket.socket) -> None:
        """pcscd may go at any moment."""
        with line, contextlib.suppress(OSError):
            hello = line.recv(LONGEST)
            if len(hello) <= NUMBER:
                return
            slot = self.slots.get((hello[1 + NUMBER :].decode(), _number(hello[1:])))
            events = hello[0] == ord(Call.EVENTS)
            refused = slot is None or Call.OPEN in slot.failing
            if not events:
                line.send(_reply(Code.COMMUNICATION_ERROR if refused else Code.SUCCESS))
            if slot is not None and not refused:
                slot.serve(line, events=events)


def _reply(code: Code, data: bytes = b"") -> bytes:
    return code.to_bytes(NUMBER, "little") + data


def _number(raw: bytes) -> int:
    return int.from_bytes(raw[:NUMBER], "little")

"""Commands, responses and status words of ISO/IEC 7816-4, and what a command costs on the wire.

A `Command` is what a dialogue means; `exchange` turns it into the APDUs that PC/SC carries:
command chaining, GET RESPONSE after 61XX, one repetition after 6CXX. The wire carries bytes
and knows nothing of dialogues; dialogues know nothing of the wire.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from .errors import Malformed
from .secret import wipe

SHORT_LC = 255
"""Data bytes of one short command (ISO/IEC 7816-4 clause 5.2)."""
SHORT_LE = 256
"""Bytes asked for by Le = 00."""
EXTENDED_LC = 65535
"""Data bytes of one extended command."""
EXTENDED_LE = 65536
"""Bytes asked for by Le = 0000, extended."""
CHAIN_BIT = 0x10
"""CLA bit of every command of a chain but the last (clause 5.3.3)."""
STATUS_BYTES = 2
SUCCESS = 0x9000
BYTES_WAITING = 0x61
"""SW1: SW2 more bytes are to be fetched by GET RESPONSE (clause 5.6)."""
WRONG_LE = 0x6C
"""SW1: SW2 is the Le to ask with."""
RESPONSE_LIMIT = 64 * 1024
"""More than any object we read: an endless 61XX stops here."""
RESPONSE_PARTS = 512
"""Or here, if it brings a byte at a time: a card's transaction is short."""


class SW(int):
    """A status word, two bytes; prints as the four digits that technicians know."""

    def __repr__(self) -> str:
        return f"{self:04X}"

    __str__ = __repr__

    @property
    def sw1(self) -> int:
        """The class of the answer."""
        return self >> 8

    @property
    def sw2(self) -> int:
        """Its detail: bytes waiting, tries left, the right Le."""
        return self & 0xFF

    @property
    def ok(self) -> bool:
        """9000, and nothing else."""
        return self == SUCCESS


class Response(NamedTuple):
    """What a card answered to a whole command: all of its data, and the last status word."""

    data: bytes
    sw: SW


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a dialogue, before the wire.

    `ne` is the number of bytes wanted (None: none, 256: as many as a short answer holds).
    `effect` marks a command whose repetition would change the card once more (VERIFY, CHANGE
    REFERENCE DATA, RESET RETRY COUNTER): it is sent once, whatever the card answers.
    `enough` bytes of an answer need not be followed by the rest that is waiting (0: all of it).
    `extended`: the card says that it takes extended length fields; whether they are used is for
    the wire to say, which knows the reader.
    """

    cla: int
    ins: int
    p1: int
    p2: int
    data: bytes | bytearray = field(default=b"", repr=False)
    ne: int | None = None
    effect: bool = False
    enough: int = 0
    extended: bool = False

    @property
    def fits_short(self) -> bool:
        """Whether short length fields say it all."""
        return len(self.data) <= SHORT_LC and (self.ne or 0) <= SHORT_LE

    @property
    def header(self) -> str:
        """What may be logged: CLA INS P1 P2 and the length, never the data."""
        return f"{self.cla:02X} {self.ins:02X} {self.p1:02X} {self.p2:02X} Lc={len(self.data)}"

    def wire(self, start: int = 0, *, more: bool = False, t0: bool = False) -> bytearray:
        """One short APDU with the data from `start` on; case 1 is four bytes (ISO/IEC 7816-3
        clause 12.1.2). With `more`, it carries 255 of them and is not the last of its chain.
        Over T=0 a command with data has no Le: the card says what is waiting (clause 12.2)."""
        stop = start + SHORT_LC if more else len(self.data)
        if stop - start > SHORT_LC:
            raise ValueError(f"{stop - start} data bytes do not fit a short command")
        apdu = bytearray((self.cla | (CHAIN_BIT if more else 0), self.ins, self.p1, self.p2))
        if stop > start:
            apdu.append(stop - start)
            with memoryview(self.data)[start:stop] as body:  # a slice would be a copy to wipe
                apdu += body
        if self.ne is not None and not more and not (t0 and stop > start):
            apdu.append(self.ne & 0xFF if self.ne <= SHORT_LE else 0)
        return apdu

    def wire_extended(self) -> bytearray:
        """One APDU with extended length fields (ISO/IEC 7816-3 clause 12.1.3)."""
        size = len(self.data)
        if size > EXTENDED_LC:
            raise ValueError(f"{size} data bytes do not fit an extended command")
        apdu = bytearray((self.cla, self.ins, self.p1, self.p2, 0))
        if size:
            apdu += size.to_bytes(2, "big")
            with memoryview(self.data) as body:
                apdu += body
        if self.ne is not None:
            apdu += (self.ne & 0xFFFF if self.ne <= EXTENDED_LE else 0).to_bytes(2, "big")
        return apdu


Wire = Generator[bytearray, bytes, Response]
"""Yields the APDUs to transmit, is sent what came back: data and two bytes of status."""


def exchange(command: Command, *, t0: bool = False, extended: bool = False) -> Wire:
    """All the APDUs of one command, in order, as the protocol T=0 or T=1 wants them.

    `extended`: the reader carries extended length fields. They are used where the card takes
    them, too, and short ones do not do; else there is chaining, and GET RESPONSE. (T=0 has no
    extended length fields without envelopes, ISO/IEC 7816-3 clause 12.2.)

    The buffers that carried a command with an effect (a secret, perhaps) are wiped once they
    were transmitted. Raises `Malformed` for an answer that no conforming card gives.
    """
    long = extended and command.extended and not t0 and not command.fits_short
    if long:
        data, sw = yield from _once(command.wire_extended())
    else:
        data, sw = yield from _chained(command, t0)
    if command.effect or command.ne is None:
        return Response(data, sw)  # a question without Le stays one: with Le it is another command
    if sw.sw1 == WRONG_LE:
        again = replace(command, ne=sw.sw2 or SHORT_LE)
        last = again.wire(_last_part(again), t0=t0) if not long or again.fits_short else None
        data, sw = yield from _once(last or again.wire_extended())
    return (yield from _collected(command, data, sw))


_VALID_SW1 = frozenset({*range(0x61, 0x70), *range(0x90, 0xA0)})
"""ISO/IEC 7816-4 clause 5.6: 61XX to 6FXX and 9XXX."""


def split(raw: bytes) -> Response:
    """Data and status word of a raw answer; fewer than two bytes is no answer at all, and neither
    are two that no card may give."""
    if len(raw) < STATUS_BYTES:
        raise Malformed(f"an answer of {len(raw)} bytes has no status word")
    if raw[-2] not in _VALID_SW1:
        raise Malformed("an answer without a status word that a card may give")
    return Response(raw[:-2], SW(int.from_bytes(raw[-2:], "big")))


def _once(apdu: bytearray) -> Generator[bytearray, bytes, Response]:
    try:
        return split((yield apdu))
    finally:
        wipe(apdu)


def _last_part(command: Command) -> int:
    """Where the data of a chain's last command begin."""
    return max((len(command.data) - 1) // SHORT_LC * SHORT_LC, 0)


def _chained(command: Command, t0: bool) -> Generator[bytearray, bytes, Response]:
    """Command chaining (clause 5.3.3): any answer but 9000 ends it, and is the answer."""
    for start in range(0, _last_part(command), SHORT_LC):
        part = yield from _once(command.wire(start, more=True))
        if not part.sw.ok:
            return part
    return (yield from _once(command.wire(_last_part(command), t0=t0)))


def _collected(command: Command, data: bytes, sw: SW) -> Wire:
    """GET RESPONSE while bytes are waiting (clause 11.8.1), in the command's own class."""
    answer = bytearray(data)
    parts = 0
    while sw.sw1 == BYTES_WAITING and not 0 < command.enough <= len(answer):
        more = Command(command.cla & ~CHAIN_BIT, 0xC0, 0, 0, ne=sw.sw2 or SHORT_LE)
        data, sw = yield from _once(more.wire())
        if sw.sw1 == BYTES_WAITING and not data:
            raise Malformed("61XX without a byte of data: the answer would never end")
        answer += data
        parts += 1
        if len(answer) > RESPONSE_LIMIT or parts > RESPONSE_PARTS:
            raise Malformed(f"an answer of more than {RESPONSE_LIMIT} bytes or {parts - 1} parts")
    return Response(bytes(answer), sw)

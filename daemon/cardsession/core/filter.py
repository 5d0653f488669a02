"""`Transmit`: which APDUs of a caller reach the card (bus contract, "Session").

An APDU is parsed strictly (ISO/IEC 7816-3 clause 12.1), because what we take for data another
parser could take for a command; then its class and instruction are looked up in a list of what
is allowed. It goes out as it came, once: a chain is the caller's to finish, and waiting bytes
(61XX) or the right Le (6CXX) are the caller's to ask for, as GET RESPONSE is on the list.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from .apdu import EXTENDED_LC, EXTENDED_LE, SHORT_LE
from .errors import Failure, Problem

CLASSES = frozenset({0x00, 0x10})
"""Interindustry class on the basic channel without secure messaging, the last command of a chain
or another (ISO/IEC 7816-4 clause 5.4.1). FF is left out with the rest: to PC/SC such an APDU is
for the reader."""

ALLOWED = frozenset(
    {
        0xA4,  # SELECT
        *range(0xB0, 0xB4),  # READ BINARY, READ RECORD
        0xC0,  # GET RESPONSE
        *(0xCA, 0xCB),  # GET DATA
        0x84,  # GET CHALLENGE
        0x87,  # GENERAL AUTHENTICATE
        0x88,  # INTERNAL AUTHENTICATE
        0x2A,  # PERFORM SECURITY OPERATION
        0x22,  # MANAGE SECURITY ENVIRONMENT
    }
)
"""Instructions of the contract."""

NEVER = frozenset(
    {
        0x14,  # PERFORM USER OPERATION (part 7): presents a user's password
        *(0x20, 0x21),  # VERIFY
        *(0x24, 0x25),  # CHANGE REFERENCE DATA
        *(0x26, 0x27),  # DISABLE VERIFICATION REQUIREMENT
        *(0x28, 0x29),  # ENABLE VERIFICATION REQUIREMENT
        *(0x2C, 0x2D),  # RESET RETRY COUNTER
        *(0x2E, 0x2F),  # PERFORM BIOMETRIC OPERATION (part 11)
        *(0x82, 0x83),  # EXTERNAL AUTHENTICATE: its keys have counters too
        *(0xC2, 0xC3),  # ENVELOPE: carries any other command
        *range(0x60, 0x70),  # no instructions: T=0 takes them for procedure bytes
        *range(0x90, 0xA0),
    }
)
"""Instructions that no site can add: they spend a try, change a passcode or its use, hide
another command, or are none. Odd codes too: to old cards the lowest bit says nothing."""

_HEADER = 4
_SHORT_AT = 5
"""Where the data of a short command begin."""
_EXTENDED_AT = 7
LONGEST = _EXTENDED_AT + EXTENDED_LC + 2
"""Bytes of the longest extended command."""


@dataclass(frozen=True, slots=True)
class RawApdu:
    """A caller's APDU whose lengths agree: `nc` data bytes, `ne` expected (None: none)."""

    raw: bytes = field(repr=False)
    nc: int = 0
    ne: int | None = None
    extended: bool = False

    @property
    def cla(self) -> int:
        """Class byte."""
        return self.raw[0]

    @property
    def ins(self) -> int:
        """Instruction byte."""
        return self.raw[1]

    @property
    def header(self) -> str:
        """What may be logged: CLA INS P1 P2 and the length, never the data."""
        return f"{self.raw[:_HEADER].hex(' ').upper()} Lc={self.nc}"

    def wire(self, *, t0: bool = False) -> bytes:
        """The one transmission: the bytes as they came.

        T=0 knows neither Le after data (clause 12.2.5: the card says what is waiting) nor
        extended lengths: the rest of such an APDU could reach the card as another command.
        Failure: `InvalidApdu`.
        """
        if not t0:
            return self.raw
        if self.extended:
            raise _invalid("a short APDU was expected: this card speaks T=0")
        return self.raw[: _SHORT_AT + self.nc] if self.nc else self.raw


def check(raw: bytes, extra: Collection[int] = ()) -> RawApdu:
    """The APDU, if its lengths agree and it is allowed; `extra`: what the site adds.

    Failure: `InvalidApdu`, `ApduFiltered`; no text repeats what the APDU carries.
    """
    apdu = parse(raw)
    if apdu.cla not in CLASSES:
        raise Failure(Problem.APDU_FILTERED, "class 00 or 10 was expected")
    if apdu.ins in NEVER:
        raise Failure(Problem.APDU_FILTERED, f"instruction {apdu.ins:02X} is never let through")
    if apdu.ins not in ALLOWED and apdu.ins not in extra:
        raise Failure(Problem.APDU_FILTERED, f"instruction {apdu.ins:02X} is not allowed here")
    return apdu


def parse(raw: bytes) -> RawApdu:
    """A command APDU of case 1, 2S, 3S, 4S, 2E, 3E or 4E (ISO/IEC 7816-3 table 12).

    Failure: `InvalidApdu`, naming the lengths that were expected.
    """
    size = len(raw)
    if not _HEADER <= size <= LONGEST:
        raise _invalid(f"{_HEADER} to {LONGEST} bytes were expected, there are {size}")
    if size == _HEADER:
        return RawApdu(raw)
    if size == _SHORT_AT:
        return RawApdu(raw, ne=raw[_HEADER] or SHORT_LE)
    return _extended(raw) if raw[_HEADER] == 0 else _short(raw)


def _short(raw: bytes) -> RawApdu:
    nc = raw[_HEADER]
    match len(raw) - _SHORT_AT - nc:
        case 0:
            return RawApdu(raw, nc)
        case 1:
            return RawApdu(raw, nc, raw[-1] or SHORT_LE)
    raise _uneven(raw, nc, _SHORT_AT + nc, _SHORT_AT + nc + 1)


def _extended(raw: bytes) -> RawApdu:
    if len(raw) < _EXTENDED_AT:
        raise _invalid("two more bytes of length were expected after 00")
    length = int.from_bytes(raw[_SHORT_AT:_EXTENDED_AT], "big")
    match len(raw) - _EXTENDED_AT, length:
        case 0, ne:
            return RawApdu(raw, ne=ne or EXTENDED_LE, extended=True)
        case _, 0:
            raise _invalid("an extended Lc of at least 1 was expected before data")
        case rest, nc if rest == nc:
            return RawApdu(raw, nc, extended=True)
        case rest, nc if rest == nc + 2:
            ne = int.from_bytes(raw[-2:], "big") or EXTENDED_LE
            return RawApdu(raw, nc, ne, extended=True)
    raise _uneven(raw, length, _EXTENDED_AT + length, _EXTENDED_AT + length + 2)


def _uneven(raw: bytes, nc: int, without_le: int, with_le: int) -> Failure:
    return _invalid(
        f"with Lc {nc}, {without_le} or {with_le} bytes were expected, there are {len(raw)}"
    )


def _invalid(text: str) -> Failure:
    return Failure(Problem.INVALID_APDU, text)

"""A passcode in memory: wiped after use, shown by nothing.

Python may copy `bytes` anywhere; a `bytearray` stays where it is until we overwrite it. So a
secret is read into one, encoded into one, and both are wiped.
"""

from __future__ import annotations

from enum import IntEnum
from types import TracebackType


class Coding(IntEnum):
    """How a card wants a passcode's characters (ISO/IEC 7816-15 clause 8.9.2, PasswordType)."""

    BCD = 0
    """Two digits a byte."""
    ASCII = 1
    UTF8 = 2
    """The same here: a passcode has no byte outside 20 to 7E."""
    HALF_NIBBLE_BCD = 3
    """A digit a byte, in its lower half; the upper half is F."""
    ISO9564_1 = 4
    """A PIN block of format 2 (ISO 9564-1): 2, the length, up to twelve digits, F."""

    @property
    def digits_only(self) -> bool:
        """Whether nothing but digits can be said in it."""
        return self not in (Coding.ASCII, Coding.UTF8)

    def characters(self, length: int) -> int:
        """How many of them `length` bytes hold."""
        match self:
            case Coding.BCD:
                return 2 * length
            case Coding.ISO9564_1:
                return _BLOCK_DIGITS if length >= _BLOCK else 0
            case _:
                return length


_BLOCK, _BLOCK_DIGITS, _BLOCK_FORMAT = 8, 12, 0x20
_FILL = 0xFF
_NIBBLE = 0x0F


class BadFormat(Exception):
    """Empty, or a byte outside 20 to 7E: the outcome is `bad-format`, no card is given it."""


class Secret:
    """1 to 64 bytes that no `repr`, `str`, `format`, pickle or exception shows."""

    __slots__ = ("_value",)

    def __init__(self, value: bytearray) -> None:
        """Take over `value`: the caller keeps no copy."""
        self._value = value

    def __len__(self) -> int:
        return len(self._value)

    def __repr__(self) -> str:
        return "<secret>"

    def __reduce__(self) -> str:
        raise TypeError("a secret is not serialised")

    def __enter__(self) -> Secret:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.wipe()

    @property
    def wiped(self) -> bool:
        """Whether there is nothing left to send."""
        return not self._value

    @property
    def digits_only(self) -> bool:
        """Whether every byte is an ASCII digit: all that the format rule has to know of it."""
        return all(0x30 <= byte <= 0x39 for byte in self._value)  # noqa: PLR2004 - "0" to "9"

    def fits(self, length: int, coding: Coding = Coding.ASCII) -> bool:
        """Whether `length` bytes of that coding can say it."""
        digits = all(0x30 <= byte <= 0x39 for byte in self._value)  # noqa: PLR2004 - "0" to "9"
        return 0 < len(self._value) <= coding.characters(length) and (
            digits or not coding.digits_only
        )

    def formed(self, length: int, pad: int | None, coding: Coding = Coding.ASCII) -> bytearray:
        """The reference data of a command: `length` bytes filled with `pad`, or, without one,
        the secret as long as it is. The caller wipes it."""
        if not self.fits(length, coding):
            raise ValueError(f"a secret that {length} bytes hold was expected")
        size, fill = length, _FILL if pad is None else pad
        if coding is Coding.ISO9564_1:
            size, fill = _BLOCK, _FILL
        elif pad is None:
            size = len(self._value)
            size = (size + 1) // 2 if coding is Coding.BCD else size
        data = bytearray([fill]) * size
        if coding is Coding.BCD:
            self._pack(data, 0)
        elif coding is Coding.ISO9564_1:
            data[0] = _BLOCK_FORMAT | len(self._value)
            self._pack(data, 1)
        elif coding is Coding.HALF_NIBBLE_BCD:
            for at in range(len(self._value)):
                data[at] = 0xF0 | self._value[at] & _NIBBLE
        else:
            data[: len(self._value)] = self._value
        return data

    def _pack(self, data: bytearray, start: int) -> None:
        """Two digits a byte, the first one in the upper half; a half that is left keeps its
        filling."""
        for at in range(len(self._value)):
            place, shift = start + at // 2, 0 if at % 2 else 4
            kept = data[place] & ~(_NIBBLE << shift)
            data[place] = kept | (self._value[at] & _NIBBLE) << shift

    def wipe(self) -> None:
        """Overwrite, then forget."""
        wipe(self._value)


def wipe(buffer: bytearray) -> None:
    """Overwrite `buffer` in place, then empty it."""
    buffer[:] = bytes(len(buffer))
    buffer.clear()

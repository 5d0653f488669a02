"""PINs as a PKCS#15 card stores and receives them (PKCS#15 v1.1 clause 6.8.2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from cardsession.virtual.pkcs15.options import Padding, PinType, Pkcs15Options

_PAD: Final = {Padding.FF: 0xFF, Padding.ZERO: 0x00}
_FORMAT_2: Final = 0x2
_ISO9564_SIZE: Final = 8
_ISO9564_DIGITS: Final = range(4, 13)
_TEN: Final = 10
_FILLED: Final = 0xF


@dataclass(frozen=True, slots=True)
class Format:
    """How one card writes its PINs. Lengths in characters; `stored` in bytes."""

    kind: PinType
    minimum: int
    maximum: int
    stored: int
    pad: int | None

    @classmethod
    def of(cls, options: Pkcs15Options) -> Format:
        """The format that the options describe."""
        return cls(
            options.pin_type,
            options.minimum_length,
            options.maximum_length,
            options.stored_length,
            _PAD.get(options.padding),
        )

    def encode(self, text: str) -> bytes:
        """A PIN as VERIFY carries it. ValueError (which does not quote it) if it fits not."""
        if not self.minimum <= len(text) <= self.maximum:
            raise ValueError(f"PINs here have {self.minimum} to {self.maximum} characters")
        if self.kind is not PinType.UTF8 and not (text.isascii() and text.isdigit()):
            raise ValueError("PINs here have digits only")
        raw = self._written(text)
        if len(raw) > self.stored:
            raise ValueError(f"PINs here have at most {self.stored} bytes")
        return raw if self.pad is None else raw.ljust(self.stored, bytes([self.pad]))

    def _written(self, text: str) -> bytes:
        match self.kind:
            case PinType.ASCII_NUMERIC | PinType.UTF8:
                return text.encode("utf-8", "replace")
            case PinType.BCD:
                # "If an odd number of digits, a padding nibble": half of padChar.
                filler = (0xFF if self.pad is None else self.pad) & 0xF
                return bytes.fromhex(text + (f"{filler:X}" if len(text) % 2 else ""))
            case PinType.HALF_NIBBLE_BCD:
                return bytes(0xF0 | int(digit) for digit in text)
        return bytes.fromhex(f"{_FORMAT_2:X}{len(text):X}{text}".ljust(2 * _ISO9564_SIZE, "F"))

    def sizes(self) -> range:
        """The lengths in bytes that a value on the wire may have."""
        if self.kind is PinType.ISO9564_1:
            return range(_ISO9564_SIZE, _ISO9564_SIZE + 1)
        if self.pad is not None:
            return range(self.stored, self.stored + 1)
        if self.kind is PinType.BCD:
            return range((self.minimum + 1) // 2, min(self.stored, (self.maximum + 1) // 2) + 1)
        return range(self.minimum, self.stored + 1)

    def digits_only(self, value: bytes) -> bool:
        """Does a value of a right length consist of enough digits, and padding after them?"""
        if self.kind is PinType.UTF8:
            return self._utf8(value)
        if self.kind is PinType.ISO9564_1:
            count, nibbles = value[0] & 0xF, list(_nibbles(value[1:]))
            right = value[0] >> 4 == _FORMAT_2 and count in _ISO9564_DIGITS
            body, rest = nibbles[:count], nibbles[count:]
            return right and all(n < _TEN for n in body) and set(rest) <= {_FILLED}
        return any(self._are_digits(body) for body in self._bodies(value) if self._enough(body))

    def _utf8(self, value: bytes) -> bool:
        body = value if self.pad is None else value.rstrip(bytes([self.pad]))
        try:
            return self.minimum <= len(body.decode()) <= self.maximum
        except UnicodeDecodeError:
            return False

    def _bodies(self, value: bytes) -> Iterator[bytes]:
        """What may be left when the padding goes: a BCD 0 may look like padding itself."""
        yield value
        while self.pad is not None and value.endswith(bytes([self.pad])):
            value = value[:-1]
            yield value

    def _enough(self, body: bytes) -> bool:
        most = 2 * len(body) if self.kind is PinType.BCD else len(body)
        return self.minimum <= most and len(body) <= self.maximum

    def _are_digits(self, body: bytes) -> bool:
        match self.kind:
            case PinType.BCD:
                nibbles = list(_nibbles(body))
                filler = (0xFF if self.pad is None else self.pad) & 0xF
                if nibbles and nibbles[-1] == filler:
                    nibbles.pop()
                return len(nibbles) >= self.minimum and all(n < _TEN for n in nibbles)
            case PinType.HALF_NIBBLE_BCD:
                return all(byte >> 4 == _FILLED and byte & 0xF < _TEN for byte in body)
        return body.isdigit()


def _nibbles(value: bytes) -> Iterator[int]:
    for byte in value:
        yield byte >> 4
        yield byte & 0xF

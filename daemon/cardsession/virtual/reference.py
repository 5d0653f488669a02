"""Reference data on the card: a value, its retry counter, its security status (clause 9.3.3)."""

from __future__ import annotations

import hmac
from typing import Final

SIZE: Final = 8
_PAD: Final = 0xFF
_SHORTEST_PIN: Final = 6


def padded(text: str) -> bytes:
    """A PIN or PUK as it goes over the wire: ASCII, filled with FF to eight bytes."""
    if not text.isascii() or not 0 < len(text) <= SIZE:
        # Checked first: the codec's own exception would quote what it was given.
        raise ValueError(f"reference data has 1 to {SIZE} ASCII characters")
    return text.encode("ascii").ljust(SIZE, bytes([_PAD]))


def looks_like_pin(value: bytes) -> bool:
    """SP 800-73-4 part 2 clause 2.4.3: six to eight ASCII digits, the rest FF."""
    digits = value.rstrip(bytes([_PAD]))
    return len(value) == SIZE and len(digits) >= _SHORTEST_PIN and digits.isdigit()


class Reference:
    """One PIN or PUK. `verified` is the security status; the value is shown nowhere."""

    def __init__(self, value: bytes, limit: int, left: int | None = None) -> None:
        self._value = value
        self.limit = limit
        self.left = limit if left is None else left
        self.verified = False

    def __repr__(self) -> str:
        return f"Reference(left={self.left}, limit={self.limit}, verified={self.verified})"

    @property
    def size(self) -> int:
        """How many bytes its value has."""
        return len(self._value)

    @property
    def blocked(self) -> bool:
        """Is the counter at zero?"""
        return self.left == 0

    def compare(self, value: bytes) -> bool:
        """One try. Right: the counter is refilled; wrong: one less, and no longer verified."""
        if hmac.compare_digest(value, self._value):
            self.left, self.verified = self.limit, True
            return True
        self.left, self.verified = self.left - 1, False
        return False

    def replace(self, value: bytes) -> None:
        """Set a new value and refill the counter; the security status is the caller's matter."""
        self._value, self.left = value, self.limit

"""A passcode in memory: wiped after use, shown by nothing.

Python may copy `bytes` anywhere; a `bytearray` stays where it is until we overwrite it. So a
secret is read into one, encoded into one, and both are wiped.
"""

from __future__ import annotations

from types import TracebackType


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

    def padded(self, length: int, pad: int) -> bytearray:
        """The reference data of a command, `length` bytes filled with `pad`; the caller wipes."""
        if self.wiped or len(self._value) > length:
            raise ValueError(f"a secret of 1 to {length} bytes was expected")
        data = bytearray([pad]) * length
        data[: len(self._value)] = self._value
        return data

    def wipe(self) -> None:
        """Overwrite, then forget."""
        wipe(self._value)


def wipe(buffer: bytearray) -> None:
    """Overwrite `buffer` in place, then empty it."""
    buffer[:] = bytes(len(buffer))
    buffer.clear()

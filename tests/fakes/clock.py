"""Time that passes when a test says so (see `cardsession.ports.Clock`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

SECOND = 1_000_000
NOON = 1_765_368_000 * SECOND
"""Microseconds: some day in December 2025, noon UTC."""


@dataclass(order=True)
class FakeTimer:
    """One timer; the earliest goes off first, of two at once the one that was set first."""

    at: float
    order: int
    call: Callable[[], None] = field(compare=False)
    cancelled: bool = field(default=False, compare=False)

    def cancel(self) -> None:
        """Call it off."""
        self.cancelled = True


class FakeClock:
    """Stands still until `advance`."""

    def __init__(self, start_usec: int = NOON) -> None:
        self.passed = 0.0
        self._start = start_usec
        self._timers: list[FakeTimer] = []
        self._order = 0

    def usec(self) -> int:
        """Microseconds since 1970."""
        return self._start + round(self.passed * SECOND)

    def monotonic_usec(self) -> int:
        """Microseconds since this clock was made."""
        return round(self.passed * SECOND)

    def later(self, seconds: float, call: Callable[[], None]) -> FakeTimer:
        """Call once `seconds` have passed."""
        self._order += 1
        timer = FakeTimer(self.passed + seconds, self._order, call)
        self._timers.append(timer)
        return timer

    def advance(self, seconds: float) -> None:
        """Let time pass; what is due goes off in its order, what that sets as well."""
        end = self.passed + seconds
        while due := [each for each in self.pending if each.at <= end]:
            timer = min(due)
            self._timers.remove(timer)
            self.passed = max(self.passed, timer.at)
            timer.call()
        self.passed = end

    @property
    def pending(self) -> list[FakeTimer]:
        """Timers that are still set."""
        self._timers = [each for each in self._timers if not each.cancelled]
        return list(self._timers)

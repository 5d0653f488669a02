"""Time from the kernel and the loop (see `Clock`)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class LoopClock:
    """The running loop's time."""

    def usec(self) -> int:
        """Microseconds since 1970."""
        return time.time_ns() // 1000

    def monotonic_usec(self) -> int:
        """Microseconds of CLOCK_MONOTONIC."""
        return time.monotonic_ns() // 1000

    def later(self, seconds: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        """Call on the loop after so many seconds."""
        return asyncio.get_running_loop().call_later(seconds, call)

"""Lifetimes: a descriptor in a caller's hand, whose end is its session's end too.

The caller gets the reading end of a pipe; when the last copy of it is closed, ours reports an
error condition. So nothing that a caller does with it can make us read anything.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable


class Lifetimes:
    """Our ends, by session number."""

    def __init__(self, over: Callable[[int], None]) -> None:
        self._over = over
        self._ends: dict[int, list[int]] = {}

    def count(self, session: int) -> int:
        """How many a session has."""
        return len(self._ends.get(session, ()))

    def take(self, session: int) -> int:
        """A new lifetime of the session; the descriptor is the caller's to keep."""
        theirs, ours = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._ends.setdefault(session, []).append(ours)
        asyncio.get_running_loop().add_reader(ours, self._closed, session)
        return theirs

    def drop(self, session: int) -> None:
        """The session is over: whoever holds a lifetime sees its end."""
        for end in self._ends.pop(session, ()):
            asyncio.get_running_loop().remove_reader(end)
            os.close(end)

    def _closed(self, session: int) -> None:
        self.drop(session)
        self._over(session)

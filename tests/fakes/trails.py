"""Trails in a directory, one after the other, on a clock that a test sets."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cardsession.adapters.trail import AuditTrail, entries

DAY = 86_400_000_000
NOON = 20_513 * DAY + DAY // 2
"""2026-03-01T12:00:00Z."""
TODAY = "audit-2026-03-01.jsonl"


class Trails:
    """A directory, its trail of the moment, and what staff were told."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.now = NOON
        self.said: list[str] = []
        self.made: list[AuditTrail] = []

    def open(self, retention_days: int = 0, *, strict: bool = True) -> AuditTrail:
        self.close()
        usec, report = (lambda: self.now), self.said.append
        trail = AuditTrail(self.directory, usec, retention_days, report, strict=strict)
        self.made.append(trail)
        return trail

    def close(self) -> None:
        for trail in self.made[-1:]:
            trail.close()

    def read(self, since_usec: int = 0, **match: str | int) -> list[dict[str, Any]]:
        return list(entries(self.directory, since_usec, **match))

    def events(self) -> list[str]:
        return [entry["event"] for entry in self.read()]

    def names(self) -> list[str]:
        return sorted(path.name for path in self.directory.iterdir())


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.002)

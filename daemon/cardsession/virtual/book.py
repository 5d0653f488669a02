"""The card's book: what it was sent, counted. It holds command headers and never data."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Final

_HEADERS_KEPT: Final = 4096
_HEADER: Final = 4


class Kind(StrEnum):
    """The commands that carry reference data, ISO/IEC 7816-4 clauses 11.6.6, 11.6.7, 11.6.10."""

    VERIFY = "verify"
    CHANGE = "change-reference-data"
    RESET = "reset-retry-counter"


class Outcome(StrEnum):
    """What became of one command.

    Only `WRONG` took a try away; `REFUSED` was turned down before any comparison,
    `BLOCKED` met a counter at zero, `STATUS` and `DEAUTHENTICATED` carried no data.
    """

    RIGHT = "right"
    WRONG = "wrong"
    BLOCKED = "blocked"
    REFUSED = "refused"
    STATUS = "status"
    DEAUTHENTICATED = "deauthenticated"


@dataclass(slots=True)
class Tally:
    """Commands of one kind on one reference, by outcome. `total` counts them all."""

    total: int = 0
    right: int = 0
    wrong: int = 0
    blocked: int = 0
    refused: int = 0
    status: int = 0
    deauthenticated: int = 0


class Book:
    """Tallies over the card's life (or since `clear`), exchanges and headers since insertion."""

    def __init__(self) -> None:
        self._tallies: dict[tuple[Kind, int], Tally] = {}
        self._headers: deque[str] = deque(maxlen=_HEADERS_KEPT)
        self.exchanges = 0
        self.insertions = 0

    def judged(self, kind: Kind, reference: int, outcome: Outcome) -> None:
        """Count one VERIFY, CHANGE REFERENCE DATA or RESET RETRY COUNTER.

        The reference is the one whose value was compared: RESET RETRY COUNTER counts on the PUK.
        """
        tally = self._tallies.setdefault((kind, reference), Tally())
        tally.total += 1
        setattr(tally, outcome.value, getattr(tally, outcome.value) + 1)

    def inserted(self) -> None:
        """A new insertion begins."""
        self.insertions += 1
        self.exchanges = 0
        self._headers.clear()

    def exchanged(self, raw: bytes) -> int:
        """Note that a command arrived; its number since insertion, from 1."""
        self.exchanges += 1
        self._headers.append(raw[:_HEADER].hex())
        return self.exchanges

    def clear(self) -> None:
        """Forget the tallies and headers; exchanges go on being numbered since insertion."""
        self._tallies.clear()
        self._headers.clear()

    def tally(self, kind: Kind, reference: int) -> Tally:
        """The tally of one kind on one reference; zeros if there was none."""
        return self._tallies.get((kind, reference), Tally())

    def wrong(self, reference: int | None = None) -> int:
        """Tries taken away by wrong values of `reference`, or of all."""
        return sum(
            tally.wrong for (_, at), tally in self._tallies.items() if reference in (None, at)
        )

    def as_dict(self) -> dict[str, object]:
        """The book as JSON can carry it: {"counts": {"80": {"verify": {...}}}, ...}."""
        counts: dict[str, dict[str, dict[str, int]]] = {}
        for (kind, reference), tally in self._tallies.items():
            counts.setdefault(f"{reference:02X}", {})[kind.value] = asdict(tally)
        return {
            "counts": counts,
            "wrong": self.wrong(),
            "exchanges": self.exchanges,
            "insertions": self.insertions,
            "headers": list(self._headers),
        }

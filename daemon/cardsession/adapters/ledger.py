"""The ledger in memory: attempts in flight and the lowest counts seen, for one run."""

from __future__ import annotations

import threading

from cardsession.core.tries import PinStatus, Unknown, Verified, left


class MemoryLedger:
    """See `Ledger`. Worker threads share it, hence the lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flying: dict[tuple[str, int], str] = {}
        self._lowest: dict[tuple[str, int], int] = {}

    def begin(self, identity: str, reference: int, owner: str) -> None:
        """A try is about to be spent."""
        with self._lock:
            self._flying[identity, reference] = owner

    def withdraw(self, identity: str, reference: int) -> None:
        """It was not spent after all."""
        with self._lock:
            self._flying.pop((identity, reference), None)

    def settle(self, identity: str, reference: int, status: PinStatus) -> None:
        """Its outcome is known; a success forgets what was seen before it."""
        key = (identity, reference)
        with self._lock:
            if not isinstance(status, Unknown):
                self._flying.pop(key, None)
            if isinstance(status, Verified):
                self._lowest.pop(key, None)
                return
            count = left(status)
            if count is not None:
                self._lowest[key] = min(count, self._lowest.get(key, count))

    def in_flight(self, identity: str) -> bool:
        """Whether a try of this card was never settled."""
        with self._lock:
            return any(key[0] == identity for key in self._flying)

    def lowest(self, identity: str, reference: int) -> int | None:
        """The lowest count seen since a success."""
        with self._lock:
            return self._lowest.get((identity, reference))

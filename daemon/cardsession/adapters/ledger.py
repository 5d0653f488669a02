"""The ledger in memory: attempts in flight and the lowest counts seen, for one run."""

from __future__ import annotations

import threading

from cardsession.core.tries import PinStatus, Verified, left

Key = tuple[str, int]


class MemoryLedger:
    """See `Ledger`. Worker threads share it, hence the lock.

    A card that cannot be told from others (identity "") has no entry: what is known of one of
    them says nothing of the next.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flying: dict[Key, list[int | None]] = {}
        """Attempts without an outcome, each with the lowest count that was known before it."""
        self._lowest: dict[Key, int] = {}

    def note(self, identity: str, reference: int, status: PinStatus) -> None:
        """The card told its counter."""
        count = left(status)
        if identity and count is not None:
            with self._lock:
                key = (identity, reference)
                self._lowest[key] = min(count, self._lowest.get(key, count))

    def begin(self, identity: str, reference: int, owner: str) -> None:
        """A try is about to be spent: it counts as gone until its outcome says otherwise."""
        if not identity:
            return
        with self._lock:
            key = (identity, reference)
            lowest = self._lowest.get(key)
            self._flying.setdefault(key, []).append(lowest)
            if lowest is not None:
                self._lowest[key] = max(0, lowest - 1)

    def withdraw(self, identity: str, reference: int) -> None:
        """The attempt that began last was not sent after all."""
        with self._lock:
            key = (identity, reference)
            attempts = self._flying.get(key)
            if attempts:
                self._restore(key, attempts.pop())

    def settle(self, identity: str, reference: int, status: PinStatus) -> None:
        """The outcome is known; a success forgets what was seen before it."""
        key = (identity, reference)
        count = left(status)
        with self._lock:
            if isinstance(status, Verified):
                self._flying.pop(key, None)
                self._lowest.pop(key, None)
            elif count is not None and identity:
                attempts = self._flying.pop(key, [])
                if attempts:
                    self._restore(key, attempts[0])
                self._lowest[key] = min(count, self._lowest.get(key, count))

    def in_flight(self, identity: str) -> bool:
        """Whether a try of this card was never settled."""
        with self._lock:
            return any(key[0] == identity and attempts for key, attempts in self._flying.items())

    def lowest(self, identity: str, reference: int) -> int | None:
        """The lowest count seen since a success."""
        with self._lock:
            return self._lowest.get((identity, reference))

    def _restore(self, key: Key, lowest: int | None) -> None:
        if lowest is None:
            self._lowest.pop(key, None)
        else:
            self._lowest[key] = lowest

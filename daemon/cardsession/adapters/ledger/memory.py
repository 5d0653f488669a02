"""The ledger in memory: attempts in flight and the lowest counts seen, for one run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from cardsession.core.text import clean
from cardsession.core.tries import PinStatus, Verified, left
from cardsession.ports import Past

from .entry import Entry, Key, strictest

MOST_CARDS = 4096
"""More cards than any counter sees; then the one that was not touched for longest is forgotten."""

_NEW = Entry()


def now_usec() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000


class MemoryLedger:
    """See `Ledger`. Worker threads share it, hence the lock.

    A card that cannot be told from others (identity "") has no entry: what is known of one of
    them says nothing of the next.
    """

    def __init__(self, usec: Callable[[], int] = now_usec) -> None:
        self._usec = usec
        self._lock = threading.Lock()
        self._cards: dict[str, dict[int, Entry]] = {}
        """By identity and reference; the card that was touched last is the last."""

    def note(self, identity: str, reference: int, status: PinStatus) -> None:
        """The card told its counter: no attempt of before is in flight any more."""
        count = left(status)
        if count is not None:
            with self._access():
                self._put((identity, reference), self._get(identity, reference).told(count))

    def begin(self, identity: str, reference: int, asked_by: str) -> None:
        """A try is about to be spent: it counts as gone until its outcome says otherwise."""
        with self._access():
            entry = self._get(identity, reference).begun(self._usec(), clean(asked_by))
            self._put((identity, reference), entry, attempt=True)

    def withdraw(self, identity: str, reference: int) -> None:
        """The attempt that began last was not sent after all."""
        with self._access():
            self._put((identity, reference), self._get(identity, reference).withdrawn())

    def settle(
        self, identity: str, reference: int, status: PinStatus, changed: int | None = None
    ) -> None:
        """The outcome is known; a success forgets what was seen before it, and so does a new
        passcode for the PIN that has it."""
        with self._access():
            if changed is not None:
                entry = self._get(identity, changed).forgotten()
                self._put((identity, changed), replace(entry, changed_usec=self._usec()))
            entry = self._get(identity, reference)
            count = left(status)
            if isinstance(status, Verified):
                entry = entry.forgotten()
            elif count is not None:
                entry = entry.told(count)
            self._put((identity, reference), entry.over())

    def past(self, identity: str, reference: int | None = None) -> Past:
        """What is remembered of a card; of the last change, that of one PIN, or of any."""
        with self._access():
            entries = self._cards.get(identity, {})
            changes = [
                entry.changed_usec for at, entry in entries.items() if reference in (None, at)
            ]
            return Past(
                in_flight=any(entry.in_flight for entry in entries.values()),
                tried=any(entry.tried for entry in entries.values()),
                changed_usec=max(changes, default=0),
            )

    def lowest(self, identity: str, reference: int) -> int | None:
        """The lowest count seen since a success."""
        with self._access():
            return self._get(identity, reference).lowest

    # for a ledger that keeps its entries elsewhere as well

    @contextmanager
    def _access(self) -> Iterator[None]:
        """Every question and every event is inside one."""
        with self._lock:
            yield

    def _changed(self, key: Key, urgent: bool) -> None:
        """An entry is another one now; called inside the lock. `urgent`: forgetting it in a
        power cut would make the guard laxer."""

    def _entries(self, keys: Iterable[Key]) -> dict[Key, Entry]:
        """These entries as they are now."""
        with self._lock:
            return {key: self._get(*key) for key in keys}

    def _everything(self) -> dict[Key, Entry]:
        """All entries, the card that was touched last at the end."""
        with self._lock:
            return {
                (identity, reference): entry
                for identity, entries in self._cards.items()
                for reference, entry in entries.items()
            }

    def _merge(self, found: Mapping[Key, Entry]) -> None:
        """Take over what was remembered elsewhere: the stricter of two memories."""
        with self._lock:
            mine, self._cards = self._cards, {}
            for key, entry in found.items():
                self._keep(key, entry)
            for identity, entries in mine.items():
                for reference, entry in entries.items():
                    other = self._cards.get(identity, {}).get(reference)
                    kept = entry if other is None else strictest(other, entry)
                    self._keep((identity, reference), kept)

    def _get(self, identity: str, reference: int) -> Entry:
        return self._cards.get(identity, {}).get(reference, _NEW)

    def _put(self, key: Key, entry: Entry, *, attempt: bool = False) -> None:
        before = self._get(*key)
        if key[0] and entry != before:
            self._keep(key, entry)
            self._changed(key, urgent=attempt or entry.sank(before))

    def _keep(self, key: Key, entry: Entry) -> None:
        identity, reference = key
        entries = self._cards.pop(identity, {})
        entries[reference] = entry
        self._cards[identity] = entries
        if len(self._cards) > MOST_CARDS:
            del self._cards[next(iter(self._cards))]

"""The trail's thread: entries wait in a bounded queue until they are on the disk.

Nothing here blocks whoever records, and nothing raises. What the disk does not take, or the queue
does not hold, is lost and counted; the next entry that is written is `trail.gap` with `lost`, the
number of entries that may be missing before it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from structlog import get_logger

from .fields import line, slips
from .files import Files

log = get_logger(__name__)

MOST_QUEUED: Final = 2000
"""Entries that wait for the disk: far more than a busy counter makes in an hour."""
SLOW_SECONDS: Final = 10.0
"""A disk that takes longer for what it was given does not keep up."""
RETRY_SECONDS: Final = 30.0
"""How often a disk that failed is tried if nothing happens that is worth an entry."""
CLOSE_SECONDS: Final = 2.0

FAILS: Final = "The audit trail is not written: {}"
SLOW: Final = "The audit trail is not written: the disk does not keep up"

_Entry = tuple[int, bytes] | int
"""When and what; or so many entries that were lost."""


class AuditTrail:
    """See `cardsession.ports.Trail`. The only writer of its directory."""

    def __init__(
        self,
        directory: Path,
        usec: Callable[[], int],
        retention_days: int,
        report: Callable[[str], None] = lambda text: None,
        *,
        strict: bool = False,
    ) -> None:
        """`retention_days`: files of days before that are removed; 0 keeps all. `report` is told
        what staff should know, and "" when it is over, from whatever thread notices: it must not
        wait for anything. `strict`: a field that may be a secret is a `ValueError`; for tests."""
        self._usec = usec
        self._strict = strict
        self._files = Files(directory, retention_days)
        self._report = report
        self.lost = 0
        """Entries lost since the start."""
        self._wake = threading.Condition()
        self._queue: deque[_Entry] = deque()
        self._missing = 0
        """Entries that the disk did not take, and the trail does not say so yet."""
        self._busy_since = 0.0
        self._saying = threading.Lock()
        self._said = ""
        self._closing = False
        self._thread: threading.Thread | None = None

    def record(self, event: str, **fields: str | int) -> None:
        """One entry, now. Texts are cleaned and bounded as everything that comes from outside
        (`core.text.clean`); for what is masked see `fields`."""
        for name in slips(fields):
            if self._strict:
                raise ValueError(f"no field of an audit trail, or no value of one: {name}")
            log.error("trail.masked", entry=event, field=name)
        try:
            usec = self._usec()
            self._put((usec, line(usec, event, fields)))
        except Exception:
            log.exception("trail.fault", entry=event)
            self._put(1)

    def close(self) -> None:
        """Write what waits, within a deadline; what comes later is lost."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        if self._thread is not None:
            self._thread.join(CLOSE_SECONDS)
            if self._thread.is_alive():
                log.warning("trail.abandoned", entries=len(self._queue))

    # on the caller's thread

    def _put(self, entry: _Entry) -> None:
        with self._wake:
            full = len(self._queue) >= MOST_QUEUED
            if full or self._closing or isinstance(entry, int):
                self.lost += 1
                entry = 1
            if self._closing:
                return
            self._append(entry)
            self._start()
            slow = self._busy_since and time.monotonic() - self._busy_since > SLOW_SECONDS
        if slow or full:
            self._say(SLOW, wait=False)

    def _append(self, entry: _Entry) -> None:
        """A gap beside a gap is one."""
        last = self._queue[-1] if self._queue else None
        if isinstance(entry, int) and isinstance(last, int):
            self._queue[-1] = last + entry
        else:
            self._queue.append(entry)

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="trail", daemon=True)
            self._thread.start()
        self._wake.notify_all()

    # on the trail's thread

    def _work(self) -> None:
        done = False
        while not done:
            with self._wake:
                patience = RETRY_SECONDS if self._missing else None
                self._wake.wait_for(lambda: self._queue or self._closing, patience)
                batch, self._queue = self._queue, deque()
                self._busy_since = time.monotonic()
            trouble = self._write(batch)
            with self._wake:
                self._busy_since = 0.0
                done = self._closing and not self._queue
            self._say(trouble)
        self._files.close()

    def _write(self, batch: deque[_Entry]) -> str:
        """The gap before them, then the entries; what staff should know, or ""."""
        if self._missing:
            batch.appendleft(self._missing)
        waiting = deque(batch)
        try:
            while waiting:
                self._files.append(*self._spelt(waiting[0]))
                waiting.popleft()
            waiting = batch  # until they are synced, none of them is safe
            self._files.sync()
        except OSError as error:
            text = error.strerror or type(error).__name__
        except Exception:
            log.exception("trail.fault")
            text = "a fault of the program"
        else:
            self._missing = 0
            return self._files.notice
        self._files.close()
        missing = sum(each if isinstance(each, int) else 1 for each in waiting)
        with self._wake:
            self.lost += sum(not isinstance(each, int) for each in waiting)
        self._missing = missing
        return FAILS.format(text)

    def _spelt(self, entry: _Entry) -> tuple[int, bytes]:
        if not isinstance(entry, int):
            return entry
        usec = self._usec()
        return usec, line(usec, "trail.gap", {"lost": entry})

    def _say(self, text: str, *, wait: bool = True) -> None:
        """Log and report what changed since it was last said; whoever records never waits."""
        if not self._saying.acquire(blocking=wait):
            return
        try:
            if text == self._said:
                return
            self._said = text
            if text:
                log.warning("trail.trouble", trouble=text)
            else:
                log.info("trail.recovered")
            self._report(text)
        except Exception:
            log.exception("trail.fault")
        finally:
            self._saying.release()

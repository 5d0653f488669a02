"""The ledger on the disk: what was in flight when the power went is in flight afterwards.

A file of lines that is appended to, and rewritten now and then (`lines`, `store`), rather than
SQLite, which was measured on the same disk: as fast (0.31 ms for a line and its fdatasync, 0.43
with the way to the thread and back; SQLite 0.31 ms with a write-ahead log, 1.2 ms without), but
1.5 MiB more of resident memory, and no checksum: a flipped bit in a page is believed, and here
that could be a try too many.

**What is promised.** When `begin` returns, the attempt has been through fdatasync(2), in a file
whose name has been through fsync(2) of its directory. So has whatever lowers a count. The rest
(an outcome, a withdrawal) has been through write(2): it outlives this process, and if a power
cut takes it, the ledger is stricter than it was, never laxer.

**What if not.** Entries live in memory, and the disk has a copy: a disk that is full, read-only,
missing or in another process's hands costs durability, and nothing else. Every further change
tries again, with a fresh copy of all entries. A disk that does not answer is waited for once,
`PATIENCE` seconds (a passcode is worth five); until it answers nobody waits for it any more, and
the guard goes on with what is in memory. If even the first reading hangs, nothing is known of
any card (`may_spend` refuses what it cannot count unless the site or the caller accepts that),
and what is read later is added to what was learnt meanwhile, the stricter of both.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from structlog import get_logger

from .entry import Key
from .memory import MemoryLedger
from .store import Store

log = get_logger(__name__)

PATIENCE = 2.0
"""Seconds that a change waits for the disk."""
CLOSE_SECONDS = 2.0

_HANGS = "Passcode attempts are not recorded: the disk does not answer"
_FAILS = "Passcode attempts are not recorded: {}"
_LOCKED = "Passcode attempts are not recorded: another process keeps the record"
_DAMAGED = "The record of passcode attempts was damaged: a new one was begun, the old one is {}"


class FileLedger(MemoryLedger):
    """See `Ledger`: as `MemoryLedger`, and every entry in the file `ledger` of a directory.

    A thread of its own does all reading and writing; it starts with the first call, which waits
    until the file is read. Later questions are answered from memory.
    """

    def __init__(
        self,
        directory: Path,
        usec: Callable[[], int],
        report: Callable[[str], None] = lambda text: None,
    ) -> None:
        """`report` is told what staff should know, and "" when it is over: from whatever thread
        notices, never from the caller's loop, and it must not call the ledger."""
        super().__init__(usec)
        self._store = Store(directory)
        self._report = report
        self._wake = threading.Condition()
        self._waiting: dict[Key, bool] = {}
        """Entries that are to be written, and whether they are urgent."""
        self._asked = self._done = 0
        """Changes so far, and how many of them the disk has, or has refused. Reading is one."""
        self._loaded = False
        self._hangs = False
        self._trouble = self._said = ""
        self._saying = threading.Lock()
        self._closing = False
        self._thread: threading.Thread | None = None

    def close(self) -> None:
        """Write what waits, let the file go. What comes later is kept in memory only."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        if self._thread is not None:
            self._thread.join(CLOSE_SECONDS)
            if self._thread.is_alive():
                log.warning("ledger.abandoned", waiting=len(self._waiting))

    # on whatever thread

    @contextmanager
    def _access(self) -> Iterator[None]:
        """In memory first; then wait until the disk has it, too."""
        self._start()
        with super()._access():
            before = self._asked
            yield
            ticket = self._asked if self._asked != before else 0
        self._wait(ticket)

    def _start(self) -> None:
        with self._wake:
            if self._thread is None and not self._closing:
                self._asked += 1
                self._thread = threading.Thread(target=self._work, name="ledger", daemon=True)
                self._thread.start()
        self._wait(1)

    def _changed(self, key: Key, urgent: bool) -> None:
        with self._wake:
            if not self._closing:
                self._waiting[key] = self._waiting.get(key, False) or urgent
                self._asked += 1
                self._wake.notify_all()

    def _wait(self, ticket: int) -> None:
        """Until so many changes are done; not for ever, and not for a disk that hangs."""
        with self._wake:
            if self._hangs or self._wake.wait_for(lambda: self._is_done(ticket), PATIENCE):
                return
            self._hangs = True
            self._wake.notify_all()
        self._say()

    def _is_done(self, ticket: int) -> bool:
        return self._done >= ticket or self._hangs or self._thread is None

    # on the ledger's thread

    def _work(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._asked > self._done or self._closing)
                if self._asked == self._done:
                    break
                ticket, waiting, self._waiting = self._asked, self._waiting, {}
            trouble = self._write(waiting)
            with self._wake:
                self._trouble, self._hangs = trouble, False
            self._say()
            with self._wake:
                self._done = ticket
                self._wake.notify_all()
        self._store.close()

    def _write(self, waiting: dict[Key, bool]) -> str:
        """Bring the file up to date; what staff should know, or ""."""
        try:
            # what is true now, not what was true when it was asked for: a line never takes
            # back what a rewritten file already says
            if not self._store.ready:
                return self._open()
            if self._store.grown:
                with suppress(OSError):  # no room for two of them: it grows on
                    self._store.rewrite(self._everything())
            if waiting:
                self._store.append(self._entries(waiting), sync=any(waiting.values()))
            return ""
        except BlockingIOError:
            return _LOCKED
        except OSError as error:
            return _FAILS.format(error.strerror or type(error).__name__)
        except Exception:
            log.exception("ledger.fault")
            return _FAILS.format("a fault of the program")

    def _open(self) -> str:
        """Read what is there unless we wrote it, and begin a file that holds it all."""
        damaged = ""
        if not self._store.held:
            self._store.enter()
            try:
                damaged = self._take()
            except OSError:
                self._store.close()  # what was not read is not overwritten: next time, anew
                raise
        self._store.rewrite(self._everything())
        return _DAMAGED.format(damaged) if damaged else ""

    def _take(self) -> str:
        """Have the directory, and what was remembered there; the name of a damaged file."""
        try:
            self._store.lock()
        except BlockingIOError:
            if not self._loaded:
                # another process's, but true of the same cards; once is enough: what it says
                # of attempts that were settled here would come back each time
                self._merge(self._store.read().entries)
                self._loaded = True
            raise
        found = self._store.read()
        self._merge(found.entries)
        self._loaded = True
        if not found.damage:
            return ""
        name = self._store.set_aside()
        log.warning("ledger.damaged", damage=found.damage, kept=len(found.entries), file=name)
        return name

    def _say(self) -> None:
        """Log and report what changed since it was last said."""
        with self._saying:
            with self._wake:
                text = _HANGS if self._hangs else self._trouble
            if text == self._said:
                return
            self._said = text
            try:
                if text:
                    log.warning("ledger.trouble", trouble=text)
                else:
                    log.info("ledger.recovered")
                self._report(text)
            except Exception:
                log.exception("ledger.fault")

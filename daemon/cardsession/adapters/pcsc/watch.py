"""Readers and cards as pcscd tells them: one thread, woken by changes, no polling."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from enum import Enum, auto

from smartcard import scard

from cardsession.core.errors import Failure
from cardsession.core.facts import Backend
from cardsession.core.reports import Listing, SlotReport

from .codes import REFUSED, check, establish, failure

SOCKET = "/run/pcscd/pcscd.comm"
NOTIFICATION = "\\\\?PnP?\\Notification"
"""The pseudo-reader that changes when a reader comes or goes (PC/SC part 5)."""
SETTLE_MSEC = 2000
"""How long after a change the readers are listed once more: pcscd before 2.3 loses what
happens between two waits, and changes come in flocks."""
FOREVER_MSEC = 0x7FFFFFFF
BACKOFF = (0.1, 0.25, 0.5, 1.0)
"""Seconds between attempts to reach a card service that is down; the last repeats."""
CLOSE_SECONDS = 1.0
_NOTHING_TOLD = frozenset({0x80100009, 0x80100017, 0x80100002})
"""A name vanished, which fails the whole call, or the wait was cancelled."""


class Wait(Enum):
    """How a status wait ended."""

    TOLD = auto()
    TIMED_OUT = auto()
    LIST_AGAIN = auto()
    """A name vanished, which fails the whole call, or the wait was cancelled."""


States = dict[str, tuple[int, bytes]]
"""Each reader's state and ATR."""


class PcscWatch:
    """Readers and cards as pcscd tells them (see `ReaderWatch`): one thread, no polling."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._report: Callable[[Listing], None] = lambda _: None
        self._context: int | None = None
        self._stop = threading.Event()
        self._again = threading.Event()
        self._last: Listing | None = None
        self._thread = threading.Thread(target=self._work, name="pcsc watch", daemon=True)

    def start(self, report: Callable[[Listing], None]) -> None:
        """Begin; the first listing follows at once."""
        self._report = report
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread that sees cards come and go still runs."""
        return self._thread.is_alive()

    def look_again(self) -> None:
        """Wake the wait. A cancel that comes before the wait begins is lost, so the flag stays."""
        self._again.set()
        context = self._context
        if context is not None:
            scard.SCardCancel(context)

    async def close(self) -> None:
        """Cancel until the thread answers."""
        self._stop.set()
        deadline = self._loop.time() + CLOSE_SECONDS
        while self._thread.is_alive() and self._loop.time() < deadline:
            self.look_again()
            await asyncio.sleep(0.01)

    def _work(self) -> None:
        attempt = 0
        while not self._stop.is_set():
            try:
                self._context = establish()
                self._follow()
            except Failure as error:
                # a service that was there a moment ago may be back at once
                attempt = 0 if self._last and self._last.backend is Backend.OK else attempt + 1
                self._say(Listing(_backend_state(error)))
                self._stop.wait(BACKOFF[min(attempt, len(BACKOFF) - 1)])
            finally:
                self._drop()

    def _drop(self) -> None:
        context, self._context = self._context, None
        if context is not None:
            scard.SCardReleaseContext(context)

    def _follow(self) -> None:
        """List, tell, wait, tell; any error of the service ends this epoch.

        What the wait itself reports is told at once, before the readers are listed anew. After
        a change the first wait is short, so that what was lost between two waits is found.
        """
        known: dict[str, int] = {}
        settled = False
        while not self._stop.is_set():
            self._again.clear()
            names = self._names()
            known = {name: known.get(name, scard.SCARD_STATE_UNAWARE) for name in names}
            if self._wait(known, 0) is Wait.LIST_AGAIN or self._again.is_set():
                continue
            settled = self._wait(known, FOREVER_MSEC if settled else SETTLE_MSEC) is Wait.TIMED_OUT

    def _wait(self, known: dict[str, int], msec: int) -> Wait:
        """One status wait; what it tells is handed on, and `known` is brought up to date."""
        woke, states = self._status(known, msec)
        if woke is Wait.TOLD:
            known.update({name: state for name, (state, _) in states.items()})
            slots = tuple(_slot(name, state, atr) for name, (state, atr) in states.items())
            self._say(Listing(Backend.OK, slots))
        return woke

    def _names(self) -> list[str]:
        code, names = scard.SCardListReaders(self._context, [])
        if code in (scard.SCARD_E_NO_READERS_AVAILABLE, scard.SCARD_E_UNKNOWN_READER):
            return []
        check(code)
        return list(names)

    def _status(self, known: dict[str, int], msec: int) -> tuple[Wait, States]:
        asked = list(known.items())
        if msec:
            asked.append((NOTIFICATION, scard.SCARD_STATE_UNAWARE))
        elif not asked:
            return Wait.TOLD, {}
        code, answers = scard.SCardGetStatusChange(self._context, msec, asked)
        if code == scard.SCARD_E_TIMEOUT and msec:
            return Wait.TIMED_OUT, {}
        if code in _NOTHING_TOLD:
            return Wait.LIST_AGAIN, {}
        if code not in (scard.SCARD_S_SUCCESS, scard.SCARD_E_TIMEOUT):
            raise failure(code)
        return Wait.TOLD, {
            name: (state, bytes(atr)) for name, state, atr in answers if name in known
        }

    def _say(self, listing: Listing) -> None:
        if listing != self._last:
            self._last = listing
            self._loop.call_soon_threadsafe(self._report, listing)


def _slot(name: str, state: int, atr: bytes) -> SlotReport:
    present = bool(state & scard.SCARD_STATE_PRESENT)
    return SlotReport(
        name=name,
        present=present,
        mute=bool(state & scard.SCARD_STATE_MUTE),
        exclusive=bool(state & scard.SCARD_STATE_EXCLUSIVE),
        counter=state >> 16 & 0xFFFF,
        atr=atr if present else b"",
    )


def _backend_state(error: Failure) -> Backend:
    """A refused socket answers as a dead one does: connecting to it tells them apart."""
    if error.text == REFUSED:
        return Backend.DENIED
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.settimeout(CLOSE_SECONDS)
            probe.connect(SOCKET)
        except PermissionError:
            return Backend.DENIED
        except OSError:
            pass
    return Backend.PCSCD_DOWN

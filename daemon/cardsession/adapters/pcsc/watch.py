"""Readers and cards as pcscd tells them: one thread, woken by changes, no polling."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from enum import Enum, auto

from smartcard import scard
from structlog import get_logger

from cardsession.core.errors import Failure
from cardsession.core.facts import Backend
from cardsession.core.reports import Listing, SlotReport

from .codes import check, establish, failure
from .service import state_of

log = get_logger(__name__)

NOTIFICATION = "\\\\?PnP?\\Notification"
"""The pseudo-reader that changes when a reader comes or goes (PC/SC part 5)."""
SETTLE_MSEC = 2000
"""How long after a change the readers are listed once more: pcscd before 2.3 loses what
happens between two waits, and changes come in flocks."""
FOREVER_MSEC = 0x7FFFFFFF
BACKOFF = (0.1, 0.25, 0.5, 0.75)
"""Seconds between attempts to reach a card service that is down; the last repeats. It leaves
time for the rest of the two seconds in which all is shown again."""
STEADY_SECONDS = 10.0
"""A service that stayed for so long may be back at once when it goes; one that went sooner is
asked less and less often."""
ANSWER_SECONDS = 2.0
"""So long may a service take until its readers are listed, before it is called down. Its silence
is waited out: whatever it says in the end counts."""
CLOSE_SECONDS = 1.0
NUDGE_SECONDS = 0.05
"""Pause before a wait that was cancelled, perhaps before it began, is cancelled once more."""
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
    """Readers and cards as pcscd tells them (see `ReaderWatch`): one thread, no polling.

    No call of PC/SC is made on the loop: each may wait without limit for a service that hangs,
    the cancelling of another one too, and while one thread of a process waits for a context the
    library keeps all others waiting.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._report: Callable[[Listing], None] = lambda _: None
        self._context: int | None = None
        self._stop = threading.Event()
        self._again = threading.Event()
        self._anew = threading.Event()
        self._life = 0
        """Which life of the service is told of; `restart` begins another one."""
        self._last: Listing | None = None
        self._silence: asyncio.TimerHandle | None = None
        self._thread = threading.Thread(target=self._work, name="pcsc watch", daemon=True)
        self._canceller: threading.Thread | None = None

    # on the loop

    def start(self, report: Callable[[Listing], None]) -> None:
        """Begin; the first listing follows at once, or within `ANSWER_SECONDS`."""
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
        if context is None or (self._canceller and self._canceller.is_alive()):
            return
        self._canceller = threading.Thread(
            target=scard.SCardCancel, args=(context,), name="pcsc cancel", daemon=True
        )
        self._canceller.start()

    def restart(self) -> None:
        """Begin anew, with another context: the next listing is reported even if nothing changed,
        and nothing that was seen before now is."""
        self._life += 1
        self._last = None
        self._anew.set()
        self._nudge()

    def _nudge(self) -> None:
        if self._anew.is_set() and self.alive and not self._stop.is_set():
            self.look_again()
            self._loop.call_later(NUDGE_SECONDS, self._nudge)

    async def close(self) -> None:
        """Cancel until the thread answers, or give it up after a deadline. Nothing is reported
        from now on."""
        self._stop.set()
        self._hear()
        deadline = self._loop.time() + CLOSE_SECONDS
        while self._thread.is_alive() and self._loop.time() < deadline:
            self.look_again()
            await asyncio.sleep(0.01)
        if self._thread.is_alive():
            log.warning("watch.abandoned")

    def _listen(self) -> None:
        """The service is being asked: it is down if it has not answered in time."""
        self._hear()
        if not self._stop.is_set():
            down = (self._life, Listing(Backend.PCSCD_DOWN))
            self._silence = self._loop.call_later(ANSWER_SECONDS, self._tell, *down)

    def _hear(self) -> None:
        if self._silence is not None:
            self._silence.cancel()

    def _tell(self, life: int, listing: Listing) -> None:
        if life != self._life or self._stop.is_set():
            return
        self._hear()
        if listing == self._last:
            return
        if self._last is None or listing.backend is not self._last.backend:
            log.info("backend", state=str(listing.backend))
        self._last = listing
        self._report(listing)

    # on the thread

    def _work(self) -> None:
        attempt, backend = 0, Backend.STARTING
        while not self._stop.is_set():
            self._anew.clear()
            life, begun = self._life, time.monotonic()
            self._on_loop(self._listen)
            ended = self._live(life, backend)
            if ended is None:
                continue
            backend = ended
            self._say(life, Listing(backend))
            if time.monotonic() - begun >= STEADY_SECONDS:
                attempt = 0
            self._stop.wait(pause(attempt))
            attempt += 1

    def _live(self, life: int, before: Backend) -> Backend | None:
        """One life of the service, as far as we see it; why it is over, or None if we ended it."""
        try:
            self._context = establish()
        except Failure as error:
            return state_of(error, before)
        try:
            self._follow(life)
        except Failure as error:
            log.info("backend.lost", text=error.text)
            return Backend.PCSCD_DOWN  # the next attempt may say more
        finally:
            self._drop()
        return None

    def _drop(self) -> None:
        context, self._context = self._context, None
        if context is not None:
            scard.SCardReleaseContext(context)

    def _follow(self, life: int) -> None:
        """List, tell, wait, tell; any error of the service ends this epoch.

        What the wait itself reports is told at once, before the readers are listed anew. After
        a change the first wait is short, so that what was lost between two waits is found.
        """
        known: dict[str, int] = {}
        settled = False
        while not (self._stop.is_set() or self._anew.is_set()):
            self._again.clear()
            names = self._names()
            known = {name: known.get(name, scard.SCARD_STATE_UNAWARE) for name in names}
            if self._wait(life, known, 0) is Wait.LIST_AGAIN or self._again.is_set():
                continue
            msec = FOREVER_MSEC if settled else SETTLE_MSEC
            settled = self._wait(life, known, msec) is Wait.TIMED_OUT

    def _wait(self, life: int, known: dict[str, int], msec: int) -> Wait:
        """One status wait; what it tells is handed on, and `known` is brought up to date."""
        woke, states = self._status(known, msec)
        if woke is Wait.TOLD:
            known.update({name: state for name, (state, _) in states.items()})
            slots = tuple(_slot(name, state, atr) for name, (state, atr) in states.items())
            self._say(life, Listing(Backend.OK, slots))
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
        if code == scard.SCARD_E_INVALID_PARAMETER and msec and known:
            # One wait takes sixteen names, and there cannot be more readers: none that could come
            # goes untold, and one that goes is told by its own name.
            code, answers = scard.SCardGetStatusChange(self._context, msec, asked[:-1])
        if code == scard.SCARD_E_TIMEOUT and msec:
            return Wait.TIMED_OUT, {}
        if code in _NOTHING_TOLD:
            return Wait.LIST_AGAIN, {}
        if code not in (scard.SCARD_S_SUCCESS, scard.SCARD_E_TIMEOUT):
            raise failure(code)
        return Wait.TOLD, {
            name: (state, bytes(atr)) for name, state, atr in answers if name in known
        }

    def _say(self, life: int, listing: Listing) -> None:
        self._on_loop(self._tell, life, listing)

    def _on_loop(self, call: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # we were given up, and the loop is no more
            self._loop.call_soon_threadsafe(call, *arguments)


def pause(attempt: int) -> float:
    """Seconds to wait after so many attempts that failed before this one."""
    return BACKOFF[min(attempt, len(BACKOFF) - 1)]


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

"""PC/SC: one thread that waits for status changes, one thread for each reader's card.

The only importer of `smartcard.scard`. Return codes become `Failure`s here and travel no
further. Contexts are never shared between threads: a transmit on a context with a pending
status wait would wait for it.
"""

from __future__ import annotations

import asyncio
import os
import queue
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from enum import Enum, auto
from typing import TypeVar

from smartcard import scard
from structlog import get_logger

from cardsession.core.apdu import STATUS_BYTES, Command, exchange
from cardsession.core.dialogue import Answer, Attempt, LowestSeen, Reset, Settle, Step, run
from cardsession.core.errors import Failure, Problem
from cardsession.core.facts import Backend
from cardsession.core.reports import Listing, SlotReport
from cardsession.ports import Disposition, Ledger, Talk

R = TypeVar("R")
T = TypeVar("T")
log = get_logger(__name__)

SOCKET = "/run/pcscd/pcscd.comm"
NOTIFICATION = "\\\\?PnP?\\Notification"
"""The pseudo-reader that changes when a reader comes or goes (PC/SC part 5)."""
SETTLE_MSEC = 2000
"""How long after a change the readers are listed once more: pcscd before 2.3 loses what
happens between two waits, and changes come in flocks."""
FOREVER_MSEC = 0x7FFFFFFF
BACKOFF = (0.1, 0.25, 0.5, 1.0)
"""Seconds between attempts to reach a card service that is down; the last repeats."""
RIVAL_PAUSE = 0.02
NOTICED_MSEC = 1000
"""pcscd looks for a removed card every 400 ms."""
CLOSE_SECONDS = 1.0


class Wait(Enum):
    """How a status wait ended."""

    TOLD = auto()
    TIMED_OUT = auto()
    LIST_AGAIN = auto()
    """A name vanished, which fails the whole call, or the wait was cancelled."""


States = dict[str, tuple[int, bytes]]
"""Each reader's state and ATR."""

_REFUSED = "the card service refuses us"
_NOTHING_TOLD = frozenset({0x80100009, 0x80100017, 0x80100002})
_GONE = frozenset({0x8010000C, 0x80100069, 0x80100016, 0x80100003})
_BACKEND = frozenset({0x80100013, 0x8010001D, 0x8010001E, 0x80100014})
_PROBLEMS: dict[int, tuple[Problem, str]] = {
    0x8010000B: (Problem.IN_USE_ELSEWHERE, "another program holds the card"),
    0x80100068: (Problem.CARD_RESET, "another program reset the card"),
    0x80100066: (Problem.CARD_MUTE, "the card does not answer"),
    0x80100067: (Problem.CARD_MUTE, "the card has no power"),
    0x80100065: (Problem.CARD_MUTE, "the card's answer to reset is not supported"),
    0x8010000F: (Problem.CARD_MUTE, "the card and the reader share no protocol"),
    0x80100009: (Problem.READER_REMOVED, "the reader is gone"),
    0x80100017: (Problem.READER_REMOVED, "the reader is gone"),
    0x8010006A: (Problem.BACKEND_UNAVAILABLE, _REFUSED),
    0x8010002F: (Problem.CARD_RESET, "the exchange with the card was lost"),
}
_DISPOSITIONS = {
    Disposition.LEAVE: scard.SCARD_LEAVE_CARD,
    Disposition.RESET: scard.SCARD_RESET_CARD,
}


def failure(code: int) -> Failure:
    """A PC/SC return code as one of ours."""
    code &= 0xFFFFFFFF
    if code in _GONE:
        return Failure(Problem.CARD_REMOVED, "the card was removed")
    if code in _BACKEND:
        return Failure(Problem.BACKEND_UNAVAILABLE, "the card service is not there")
    problem, text = _PROBLEMS.get(code, (Problem.CARD_RESET, f"PC/SC error {code:08X}"))
    return Failure(problem, text)


def _check(code: int) -> None:
    if code != scard.SCARD_S_SUCCESS:
        raise failure(code)


def _establish() -> int:
    # Without this, Connect and Transmit wait without limit for a rival's transaction.
    os.environ.setdefault("PCSCLITE_NO_BLOCKING", "1")
    code, context = scard.SCardEstablishContext(scard.SCARD_SCOPE_SYSTEM)
    _check(code)
    return int(context)


class PcscChannel:
    """One reader's card (see `Channel`): a worker thread, its context, at most one handle."""

    def __init__(self, reader: str, ledger: Ledger) -> None:
        self._reader = reader
        self._ledger = ledger
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._context: int | None = None
        self._card: int | None = None
        self._protocol = 0
        self._exclusive = False
        self.exchanges = 0
        self._thread = threading.Thread(target=self._work, name=f"card {reader}", daemon=True)
        self._thread.start()

    # on the loop

    @property
    def holding(self) -> bool:
        """Whether a handle is kept from the last conversation."""
        return self._card is not None

    def converse(self, talk: Talk[T]) -> asyncio.Future[T]:
        """Queue the talk; its result, or its `Failure`, comes home on the loop."""
        return self._submit(lambda: self._hold_talk(talk))

    def converse_then(self, talk: Talk[T], work: Callable[[T], R]) -> asyncio.Future[R]:
        """Queue the talk, and work on its result once the card is let go."""
        return self._submit(lambda: work(self._hold_talk(talk)))

    def let_go(self) -> None:
        """Queue the end of a held handle."""
        self._jobs.put(lambda: self._disconnect(Disposition.RESET))

    async def close(self) -> None:
        """End the thread once its jobs are done, or give it up after a deadline."""
        self._jobs.put(None)
        deadline = self._loop.time() + CLOSE_SECONDS
        # a thread's end is no event of the loop: it is polled for, in this short time
        while self._thread.is_alive() and self._loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        if self._thread.is_alive():
            log.warning("reader.abandoned", reader=self._reader)

    def _submit(self, work: Callable[[], T]) -> asyncio.Future[T]:
        done: Future[T] = Future()

        def job() -> None:
            try:
                done.set_result(work())
            except BaseException as error:  # carried to whoever awaits it
                done.set_exception(error)

        self._jobs.put(job)
        return asyncio.wrap_future(done, loop=self._loop)

    # on the worker thread

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
        self._disconnect(Disposition.RESET)
        self._release_context()

    def _hold_talk(self, talk: Talk[T]) -> T:
        disposition = talk.failed
        try:
            self._connect(talk)
            result = self._transaction(talk)
            disposition = talk.settled(result)
            return result
        except Failure as error:
            if error.problem is Problem.BACKEND_UNAVAILABLE:
                self._forget()
            raise
        finally:
            if disposition is not Disposition.HOLD:
                self._disconnect(disposition)

    def _transaction(self, talk: Talk[T]) -> T:
        deadline = time.monotonic() + talk.patience
        self._patiently(lambda: scard.SCardBeginTransaction(self._card), deadline)
        try:
            return run(talk.dialogue(), lambda step: self._step(step, talk))
        finally:
            if self._card is not None:
                scard.SCardEndTransaction(self._card, scard.SCARD_LEAVE_CARD)

    def _step(self, step: Step, talk: Talk[T]) -> Answer:
        match step:
            case Command():
                wire = exchange(step)
                return run(wire, self._transmit)
            case Attempt(identity, reference):
                self._ledger.begin(identity, reference, self._reader)
                talk.permit.claim()
            case Settle(identity, reference, status):
                self._ledger.settle(identity, reference, status)
            case LowestSeen(identity, reference):
                return self._ledger.lowest(identity, reference)
            case Reset():
                self._reset(talk)
        return None

    def _transmit(self, apdu: bytearray) -> bytes:
        self.exchanges += 1
        numbers = list(apdu)
        try:
            code, answer = scard.SCardTransmit(self._card, self._protocol, numbers)
        finally:
            numbers[:] = [0] * len(numbers)
        _check(code)
        if len(answer) < STATUS_BYTES:
            self._doubt()
        return bytes(answer)

    def _doubt(self) -> None:
        """An answer without a status word: most often the card was pulled and the service has
        not noticed yet. Returns if the card is still in, after waiting long enough to know."""
        asked = [(self._reader, scard.SCARD_STATE_UNAWARE)]
        for msec in (0, NOTICED_MSEC):
            code, answers = scard.SCardGetStatusChange(self._context, msec, asked)
            if code not in (scard.SCARD_S_SUCCESS, scard.SCARD_E_TIMEOUT):
                raise failure(code)
            asked = [(name, state) for name, state, _ in answers]
            if code == scard.SCARD_S_SUCCESS and not asked[0][1] & scard.SCARD_STATE_PRESENT:
                raise failure(scard.SCARD_W_REMOVED_CARD)

    def _connect(self, talk: Talk[T]) -> None:
        if self._card is not None:
            return
        if self._context is None:
            self._context = _establish()
        mode = scard.SCARD_SHARE_EXCLUSIVE if talk.exclusive else scard.SCARD_SHARE_SHARED
        self._exclusive = talk.exclusive
        deadline = time.monotonic() + talk.patience

        def connect() -> int:
            code, card, protocol = scard.SCardConnect(
                self._context, self._reader, mode, scard.SCARD_PROTOCOL_ANY
            )
            if code == scard.SCARD_S_SUCCESS:
                self._card, self._protocol = card, protocol
            return int(code)

        self._patiently(connect, deadline)

    def _reset(self, talk: Talk[T]) -> None:
        """Reset inside the talk: the handle is made anew, the transaction begun again."""
        scard.SCardEndTransaction(self._card, scard.SCARD_LEAVE_CARD)
        self._disconnect(Disposition.RESET)
        self._connect(talk)
        deadline = time.monotonic() + talk.patience
        self._patiently(lambda: scard.SCardBeginTransaction(self._card), deadline)

    def _patiently(self, call: Callable[[], int], deadline: float) -> None:
        """Repeat what a rival's transaction or handle refuses, until the deadline.

        A rival's reset shows here once: the handle is reconnected and the call made again,
        which is safe, for nothing was said to the card yet.
        """
        while True:
            code = call() & 0xFFFFFFFF
            if code == scard.SCARD_W_RESET_CARD and self._card is not None:
                code = self._reconnect()
            elif code == scard.SCARD_S_SUCCESS:
                return
            if code not in (scard.SCARD_S_SUCCESS, scard.SCARD_E_SHARING_VIOLATION):
                raise failure(code)
            if time.monotonic() >= deadline:
                raise failure(scard.SCARD_E_SHARING_VIOLATION)
            time.sleep(RIVAL_PAUSE)

    def _reconnect(self) -> int:
        mode = scard.SCARD_SHARE_EXCLUSIVE if self._exclusive else scard.SCARD_SHARE_SHARED
        code, self._protocol = scard.SCardReconnect(
            self._card, mode, scard.SCARD_PROTOCOL_ANY, scard.SCARD_LEAVE_CARD
        )
        return int(code) & 0xFFFFFFFF

    def _disconnect(self, disposition: Disposition) -> None:
        card, self._card = self._card, None
        if card is not None:
            scard.SCardDisconnect(card, _DISPOSITIONS[disposition])

    def _forget(self) -> None:
        self._card = None
        self._release_context()

    def _release_context(self) -> None:
        context, self._context = self._context, None
        if context is not None:
            scard.SCardReleaseContext(context)


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
                self._context = _establish()
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
        _check(code)
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
    if error.text == _REFUSED:
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

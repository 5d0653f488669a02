"""One reader's card: a worker thread, its context, at most one handle."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from smartcard import scard
from structlog import get_logger

from cardsession.core.apdu import STATUS_BYTES, Command, exchange, split
from cardsession.core.dialogue import (
    Answer,
    Attempt,
    LowestSeen,
    Noted,
    Reset,
    Settle,
    Step,
    Verbatim,
    run,
)
from cardsession.core.errors import Failure, Problem
from cardsession.core.seats import Attributes
from cardsession.ports import Disposition, Ledger, Talk

from .codes import check, establish, failure
from .features import attributes, carries_extended

R = TypeVar("R")
T = TypeVar("T")
log = get_logger(__name__)

RIVAL_PAUSE = 0.02
"""Seconds between attempts to have a card that a rival holds."""
NOTICED_MSEC = 1000
"""pcscd looks for a removed card every 400 ms."""
EARLY = 0.1
"""Seconds before a secret's time is over at which we stop waiting: so the session is at rest
again when its caller hears that the card could not be had."""
CLOSE_SECONDS = 0.7
"""With the farewell of the sessions before it, this leaves a second of the three in which the
daemon ends."""

_DISPOSITIONS = {
    Disposition.LEAVE: scard.SCARD_LEAVE_CARD,
    Disposition.RESET: scard.SCARD_RESET_CARD,
}


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
        self._carries_extended: bool | None = None
        self._deadline = 0.0
        self.exchanges = 0
        self.waiting = False
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

    def aside(self, work: Callable[[], R]) -> asyncio.Future[R]:
        """Queue work that needs no card."""
        return self._submit(work)

    def attributes(self) -> asyncio.Future[Attributes]:
        """Queue the question what the reader is."""
        return self._submit(self._ask_reader)

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
            if not done.set_running_or_notify_cancel():
                return  # nobody waits for it any more
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

    def _ask_reader(self) -> Attributes:
        """Over a handle of its own, which needs no card and no power; over ours if it is held."""
        if self._card is not None:
            return attributes(self._card)
        if self._context is None:
            self._context = establish()
        self.waiting = True
        try:
            code, card, _ = scard.SCardConnect(
                self._context, self._reader, scard.SCARD_SHARE_DIRECT, 0
            )
            check(code & 0xFFFFFFFF)
        except Failure as error:
            if error.problem is Problem.BACKEND_UNAVAILABLE:
                self._forget()
            raise
        finally:
            self.waiting = False
        try:
            return attributes(card)
        finally:
            scard.SCardDisconnect(card, scard.SCARD_LEAVE_CARD)

    def _hold_talk(self, talk: Talk[T]) -> T:
        disposition = talk.failed
        patience = talk.permit.seconds_left - EARLY if talk.permit else talk.patience
        self._deadline = time.monotonic() + patience
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
            self.waiting = False

    def _transaction(self, talk: Talk[T]) -> T:
        self._patiently(self._begin_transaction)
        try:
            return run(talk.dialogue(), lambda step: self._step(step, talk))
        finally:
            if self._card is not None:
                scard.SCardEndTransaction(self._card, scard.SCARD_LEAVE_CARD)

    def _step(self, step: Step, talk: Talk[T]) -> Answer:
        match step:
            case Command():
                t0 = self._protocol == scard.SCARD_PROTOCOL_T0
                wire = exchange(step, t0=t0, extended=self._extended(step))
                return run(wire, self._transmit)
            case Verbatim(apdu):
                t0 = self._protocol == scard.SCARD_PROTOCOL_T0
                return split(self._transmit(bytearray(apdu.wire(t0=t0))))
            case Attempt(identity, reference):
                self._begin(identity, reference, talk)
            case Noted(identity, reference, status):
                self._ledger.note(identity, reference, status)
            case Settle(identity, reference, status, changed):
                self._ledger.settle(identity, reference, status, changed)
            case LowestSeen(identity, reference):
                return self._ledger.lowest(identity, reference)
            case Reset():
                self._reset(talk)
        return None

    def _extended(self, command: Command) -> bool:
        """Whether the reader carries extended length fields: asked once, and only if needed."""
        if command.fits_short or not command.extended or self._card is None:
            return False
        if self._carries_extended is None:
            self._carries_extended = carries_extended(self._card)
        return self._carries_extended

    def _begin(self, identity: str, reference: int, talk: Talk[T]) -> None:
        """Recorded first, claimed last: whatever is claimed is on record."""
        if talk.permit is None:
            raise Failure(Problem.INTERNAL, "a try was to be spent that nobody asked for")
        self._ledger.begin(identity, reference, talk.asked_by)
        try:
            talk.permit.claim()
        except Failure:
            self._ledger.withdraw(identity, reference)
            raise

    def _transmit(self, apdu: bytearray) -> bytes:
        self.exchanges += 1
        self.waiting = False
        numbers = list(apdu)
        try:
            code, answer = scard.SCardTransmit(self._card, self._protocol, numbers)
        finally:
            numbers[:] = [0] * len(numbers)
        if code & 0xFFFFFFFF == scard.SCARD_E_PROTO_MISMATCH & 0xFFFFFFFF:
            # The handle has a protocol and the card has none: another program's reset is under way.
            raise failure(scard.SCARD_W_RESET_CARD)
        check(code)
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
            self._context = establish()
        mode = scard.SCARD_SHARE_EXCLUSIVE if talk.exclusive else scard.SCARD_SHARE_SHARED
        self._exclusive = talk.exclusive

        def connect() -> int:
            code, card, protocol = scard.SCardConnect(
                self._context, self._reader, mode, scard.SCARD_PROTOCOL_ANY
            )
            if code == scard.SCARD_S_SUCCESS:
                self._card, self._protocol = card, protocol
            return int(code)

        try:
            self._patiently(connect)
        except Failure as error:
            if error.problem is not Problem.CARD_MUTE:
                raise
            self._wake()
            self._patiently(connect)

    def _wake(self) -> None:
        """Once, a mute card loses its power and gets it again, over a handle that needs no card.
        Whether that helped, the next connection says."""
        code, card, _ = scard.SCardConnect(self._context, self._reader, scard.SCARD_SHARE_DIRECT, 0)
        check(code)
        self.waiting = False  # from here on it is the reader who takes its time
        scard.SCardReconnect(card, scard.SCARD_SHARE_DIRECT, 0, scard.SCARD_UNPOWER_CARD)
        scard.SCardDisconnect(card, scard.SCARD_LEAVE_CARD)

    def _reset(self, talk: Talk[T]) -> None:
        """Reset inside the talk: the handle is made anew, the transaction begun again."""
        scard.SCardEndTransaction(self._card, scard.SCARD_LEAVE_CARD)
        self._disconnect(Disposition.RESET)
        self._connect(talk)
        self._patiently(self._begin_transaction)

    def _begin_transaction(self) -> int:
        """pcsc-lite's BeginTransaction waits for a rival's by itself, and without limit: so it is
        called when there is none, as far as the status tells."""
        code = int(scard.SCardStatus(self._card)[0])
        if code == scard.SCARD_S_SUCCESS:
            code = int(scard.SCardBeginTransaction(self._card))
        return code

    def _patiently(self, call: Callable[[], int]) -> None:
        """Repeat what a rival's transaction or handle refuses, until the talk's time is over.

        (Connect itself waits for a rival's transaction without limit, whatever
        PCSCLITE_NO_BLOCKING says, and so does BeginTransaction: `waiting` tells the loop so.)

        A rival's reset shows here once: the handle is reconnected and the call made again,
        which is safe, for nothing was said to the card yet.
        """
        self.waiting = True
        while True:
            code = call() & 0xFFFFFFFF
            if code == scard.SCARD_W_RESET_CARD and self._card is not None:
                code = self._reconnect()
            elif code == scard.SCARD_S_SUCCESS:
                return
            if code not in (scard.SCARD_S_SUCCESS, scard.SCARD_E_SHARING_VIOLATION):
                raise failure(code)
            if time.monotonic() >= self._deadline:
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
        if card is None:
            return
        self.waiting = True  # a reset waits for a rival's transaction
        if disposition is Disposition.RESET and self._was_removed(card):
            # There may be another card by now: pcscd would power it before noticing that it
            # came, and never notice that it went.
            disposition = Disposition.LEAVE
        code = scard.SCardDisconnect(card, _DISPOSITIONS[disposition])
        if code != scard.SCARD_S_SUCCESS:
            log.info("card.let.go", reader=self._reader, text=failure(code).text)
        self.waiting = False

    @staticmethod
    def _was_removed(card: int) -> bool:
        """Whether the card service knows that this handle's card is gone."""
        code = scard.SCardBeginTransaction(card)
        if code == scard.SCARD_S_SUCCESS:
            scard.SCardEndTransaction(card, scard.SCARD_LEAVE_CARD)
        return bool(code == scard.SCARD_W_REMOVED_CARD)

    def _forget(self) -> None:
        self._card = None
        self._release_context()

    def _release_context(self) -> None:
        context, self._context = self._context, None
        if context is not None:
            scard.SCardReleaseContext(context)

"""A reader's worker without thread or reader: dialogues over a card that is a function.

Conversations queue up and are held one a turn of the loop, or one by one when a test says so.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from cardsession.adapters.ledger import MemoryLedger
from cardsession.core.apdu import Command, exchange, split
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
from cardsession.ports import Disposition, Ledger, Permit, Talk

R = TypeVar("R")
T = TypeVar("T")


class Chip(Protocol):
    """A card as bytes: `cardsession.virtual.card.VirtualCard` is one."""

    def process(self, raw: bytes) -> bytes:
        """Answer one APDU."""

    def reset(self) -> None:
        """Lose power."""


def removed() -> Failure:
    """What a worker says of a card that was pulled."""
    return Failure(Problem.CARD_REMOVED, "the card was removed")


def is_verify_with_data(apdu: bytes) -> bool:
    """Whether an APDU can cost a try: VERIFY with a data field."""
    return len(apdu) > 5 and apdu[1] == 0x20


class Pump:
    """Holds dialogues with a chip: every APDU is noted, and passes the test's hooks.

    `before` sees each APDU and may raise, answer in the card's place, or do what a rival does.
    `after` sees the APDU and the answer, and may raise: the card did it, the answer is lost.
    """

    def __init__(self, chip: Chip | None = None, ledger: Ledger | None = None) -> None:
        self.chip = chip
        self.ledger: Ledger = ledger or MemoryLedger()
        self.apdus: list[bytes] = []
        self.steps: list[Step] = []
        self.before: Callable[[int, bytes], bytes | None] = lambda _, __: None
        self.after: Callable[[int, bytes, bytes], bytes | None] = lambda _, __, ___: None

    @property
    def verifies(self) -> list[bytes]:
        """Every VERIFY that carried data."""
        return [each for each in self.apdus if is_verify_with_data(each)]

    def hold(self, dialogue: Any, permit: Permit | None = None) -> Any:
        """Hold a dialogue to its end."""
        return run(dialogue, lambda step: self._step(step, permit or Permit()))

    def _step(self, step: Step, permit: Permit) -> Answer:
        self.steps.append(step)
        match step:
            case Command():
                return run(exchange(step), self._transmit)
            case Attempt(identity, reference):
                permit.claim()
                self.ledger.begin(identity, reference, "a test")
            case Noted(identity, reference, status):
                self.ledger.note(identity, reference, status)
            case Settle(identity, reference, status, changed):
                self.ledger.settle(identity, reference, status, changed)
            case Verbatim(apdu):
                return split(self._transmit(bytearray(apdu.wire())))
            case LowestSeen(identity, reference):
                return self.ledger.lowest(identity, reference)
            case Reset():
                if self.chip is None:
                    raise removed()
                self.chip.reset()
        return None

    def _transmit(self, apdu: bytearray) -> bytes:
        raw = bytes(apdu)
        self.apdus.append(raw)
        number = len(self.apdus)
        answer = self.before(number, raw)
        if answer is None:
            if self.chip is None:
                raise removed()
            answer = self.chip.process(raw)
        instead = self.after(number, raw, answer)
        return answer if instead is None else instead


class FakeChannel:
    """See `cardsession.ports.Channel`. `paused`: conversations wait for `work`."""

    def __init__(self, ledger: Ledger | None = None) -> None:
        self.pump = Pump(None, ledger)
        self.holding = False
        self.waiting = False
        self.elsewhere = False
        """Another program holds the card."""
        self.mute = False
        """The card does not answer, whatever was done about it."""
        self.paused = False
        self.closed = False
        self.exclusive: list[bool] = []
        """How each connection to the card was made."""
        self.says: Attributes | Failure = Attributes()
        """What the reader says of itself."""
        self.asked = 0
        self._jobs: deque[Callable[[], None]] = deque()

    @property
    def exchanges(self) -> int:
        """APDUs so far."""
        return len(self.pump.apdus)

    @property
    def chip(self) -> Chip | None:
        """The card that is in."""
        return self.pump.chip

    @chip.setter
    def chip(self, chip: Chip | None) -> None:
        self.pump.chip = chip

    @property
    def queued(self) -> int:
        """Jobs that were not begun."""
        return len(self._jobs)

    def converse(self, talk: Talk[T]) -> asyncio.Future[T]:
        """Queue a talk."""
        return self._submit(lambda: self._hold(talk))

    def converse_then(self, talk: Talk[T], work: Callable[[T], R]) -> asyncio.Future[R]:
        """Queue a talk, and work on its result."""
        return self._submit(lambda: work(self._hold(talk)))

    def aside(self, work: Callable[[], R]) -> asyncio.Future[R]:
        """Queue work that needs no card."""
        return self._submit(work)

    def attributes(self) -> asyncio.Future[Attributes]:
        """What the reader says, at once."""
        done: asyncio.Future[Attributes] = asyncio.get_running_loop().create_future()
        self.asked += 1
        if isinstance(self.says, Failure):
            done.set_exception(self.says)
        else:
            done.set_result(self.says)
        return done

    def let_go(self) -> None:
        """Queue the end of the handle."""
        self._queue(lambda: self._disconnect(Disposition.RESET))

    async def close(self) -> None:
        """Do what waits, and end."""
        while self._jobs and not self.paused:
            self.work()
        self._disconnect(Disposition.RESET)
        self.closed = True

    def work(self) -> None:
        """Do the next job, if there is one."""
        if self._jobs:
            self._jobs.popleft()()

    def resume(self) -> None:
        """Whatever hung hangs no more."""
        self.paused = False
        for _ in self._jobs:
            asyncio.get_running_loop().call_soon(self._turn)

    def _submit(self, work: Callable[[], T]) -> asyncio.Future[T]:
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def job() -> None:
            try:
                value = work()
            except Exception as error:  # carried home, as the thread does
                if not done.done():
                    done.set_exception(error)
            else:
                if not done.done():
                    done.set_result(value)

        self._queue(job)
        return done

    def _queue(self, job: Callable[[], None]) -> None:
        assert not self.closed, "nobody works here any more"
        self._jobs.append(job)
        asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        if not self.paused:
            self.work()

    def _hold(self, talk: Talk[T]) -> T:
        disposition = talk.failed
        try:
            self._connect(exclusive=talk.exclusive)
            result: T = self.pump.hold(talk.dialogue(), talk.permit)
            disposition = talk.settled(result)
            return result
        finally:
            if disposition is Disposition.HOLD:
                self.holding = True
            else:
                self._disconnect(disposition)

    def _connect(self, *, exclusive: bool) -> None:
        if self.holding:
            return
        if self.elsewhere:
            raise Failure(Problem.IN_USE_ELSEWHERE, "another program holds the card")
        if self.mute:
            raise Failure(Problem.CARD_MUTE, "the card does not answer")
        if self.chip is None:
            raise removed()
        self.exclusive.append(exclusive)

    def _disconnect(self, disposition: Disposition) -> None:
        self.holding = False
        if disposition is Disposition.RESET and self.chip is not None:
            self.chip.reset()

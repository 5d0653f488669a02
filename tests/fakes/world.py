"""A counter in a pharmacy, whole: the daemon's real rooms and its real PC/SC channel over a card
service, cards, readers, callers, a rival and a clock in memory. Everything in it passes a witness.

The reader's thread is no thread here: its jobs are done one by one, when the world says so, and
whatever the loop can do meanwhile (a timer, a removal, a caller that leaves) is done in the midst
of a job, where the thread would be at the card.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from cardsession import ports
from cardsession.adapters.ledger import FileLedger, MemoryLedger, durable, lines
from cardsession.adapters.pcsc import channel as pcsc
from cardsession.adapters.pcsc import codes, features
from cardsession.asks import Ask, SubmitAsk
from cardsession.cards import families
from cardsession.config import Config
from cardsession.core.errors import Failure
from cardsession.core.facts import Backend
from cardsession.core.reports import Listing
from cardsession.desks import Keepers
from cardsession.ports import Caller, Permit, Verdict
from fakes.clock import FakeClock
from fakes.keepers import FakeJudge, FakeTrail
from fakes.line import Crash, Line
from fakes.pcscd import FakePcscd
from fakes.process import Loop, NoThread, WatchedDesks, WatchedPublisher, Worker, logged
from fakes.rival import Rival
from fakes.specimens import DECLARED, RECIPES, Specimen
from fakes.witness import Submission, Witness

READERS = ("Reader 0", "Reader 1")
FAMILIES = families((DECLARED,))


class World:
    """See the module. Use it in a `with` block; `do` and what is built on it settle by
    themselves."""

    def __init__(
        self, names: tuple[str, ...], config: Config | None = None, *, on_disk: bool = False
    ) -> None:
        self.config = config or Config()
        self.clock = FakeClock()
        self.loop = Loop()
        self.loop.clock = self.clock
        self.loop.set_exception_handler(self._fell)
        self.cards = [Specimen(RECIPES[each], self.clock.usec) for each in names]
        self.witness = Witness(self.cards)
        self.witness.accept_unknown = self.config.session.accept_unknown
        self.pcscd: FakePcscd[Specimen] = FakePcscd(READERS)
        self.line = Line(self)
        self.rival = Rival(self.pcscd, self.clock)
        self.pcscd.exchange = self.line.exchange
        self.pcscd.begun = lambda slot: self.witness.begun(slot.name)
        self.pcscd.ended = lambda slot: self.witness.ended(slot.name, slot.chip)
        self.pcscd.gap = self.rival.gap
        self.pcscd.told = lambda: self.loop.call_soon(self.list)
        self.crashed = False
        """Whether the daemon's process died in the midst of what it does."""
        self.unplugged: dict[str, Specimen | None] = {}
        self.callers = [Caller(":1.100", 1000), Caller(":1.200", 1000), Caller(":1.300", 1001)]
        self.events: list[dict[str, Any]] = []
        self.answers: list[Any] = []
        self.trail = FakeTrail()
        self.judge = FakeJudge()
        self._told = [0, 0, 0]
        self._working: Worker | None = None
        self._directory = Path(tempfile.mkdtemp()) if on_disk else None
        self._stack = ExitStack()
        self._life = 0

    def __enter__(self) -> World:
        for what, name, value in (
            (pcsc, "scard", self.pcscd),
            (codes, "scard", self.pcscd),
            (features, "scard", self.pcscd),
            (pcsc, "threading", SimpleNamespace(Thread=NoThread)),
            (pcsc, "time", SimpleNamespace(monotonic=self._now, sleep=self.clock.advance)),
            (ports, "time", SimpleNamespace(monotonic=self._now)),
            (pcsc, "RIVAL_PAUSE", 0.5),
            (durable, "PATIENCE", 60.0),  # the disk is real, and so is its time
        ):
            self._stack.enter_context(mock.patch.object(what, name, value))
        self._stack.enter_context(logged(self.events))
        self.ledger = self._new_ledger()
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._cancel()
        self.loop.close()
        self._close_ledger()
        self._stack.close()
        if self._directory:
            shutil.rmtree(self._directory)

    def _now(self) -> float:
        return self.clock.passed

    def _fell(self, _: Any, context: dict[str, Any]) -> None:
        """Something that nobody awaited raised."""
        error = context.get("exception")
        self.witness.demand(isinstance(error, Crash | None), f"{context['message']}: {error!r}")

    # the daemon

    def _new_ledger(self) -> MemoryLedger:
        if self._directory is None:
            return MemoryLedger(self.clock.usec)
        directory = self._directory / str(self._life)
        directory.mkdir(exist_ok=True)
        return FileLedger(directory, self.clock.usec)

    def _close_ledger(self) -> None:
        if isinstance(self.ledger, FileLedger):
            self.ledger.close()

    def _start(self) -> None:
        self.workers: list[Worker] = []
        self.publisher = WatchedPublisher(self.witness)
        self._told[0] = 0
        self._asked: list[asyncio.Task[Any]] = []
        self.witness.new_life()
        keepers = Keepers(FAMILIES, self.ledger, self.judge, self.trail)
        self.desks = WatchedDesks(
            self.config, self.clock, self.publisher, self._new_worker, keepers
        )
        self.desks.seen = self._seen
        self.do(self.list)

    def _new_worker(self, reader: str) -> Worker:
        self.workers.append(Worker(reader, self.ledger))
        return self.workers[-1]

    def restart(self) -> None:
        """The daemon is told to stop, and is started again."""
        for worker in self.workers:
            worker.hung = False
        if self._ends(self.desks.close(), "the daemon does not stop"):
            self._begin_anew()

    def sleep(self) -> None:
        """The machine sleeps, and is awake again."""
        if self._ends(self.desks.suspend(), "the machine does not come to sleep"):
            self.do(self.list)
            self.witness.demand(not self.publisher.objects, "something is shown in its sleep")
            self.desks.resume()
            self.do(self.list)

    def _ends(self, work: Coroutine[Any, Any, None], otherwise: str) -> bool:
        """Everything comes to an end: nobody waits, nothing is shown. False if the process died
        over it, and another one runs."""
        life = self.witness.life
        ending = self.loop.create_task(work)
        for _ in range(200):
            if ending.done():
                break
            self.wait(0.05)
        if self.witness.life != life:
            return False
        self.witness.demand(ending.done(), otherwise)
        waits = [each for each in self._asked if not each.done()]
        self.witness.demand(not waits, "somebody waits for ever")
        self.witness.demand(not self.publisher.objects, "something is shown after the end")
        return True

    def _begin_anew(self) -> None:
        """The process is gone, and another one starts."""
        self._cancel()
        self.pcscd.kill_us()
        for timer in self.clock.pending:
            timer.cancel()
        if self._directory is not None:
            before = self._directory / str(self._life)
            self._life += 1
            shutil.copytree(before, self._directory / str(self._life))
        self._close_ledger()
        if self._directory is not None:
            self.ledger = self._new_ledger()
        self._start()

    def _cancel(self) -> None:
        self.loop.run_until_complete(self._begun())
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))

    async def _begun(self) -> None:
        """What was never begun cannot be called off quietly."""
        await asyncio.sleep(0)
        while not self.loop.idle:  # noqa: ASYNC110 - it is polled for, no event tells of it
            await asyncio.sleep(0)

    # time, and turns

    def do(self, work: Callable[[], Any]) -> None:
        """Do it, and whatever follows without time going by."""
        self.loop.run_until_complete(self._do(work))
        if self.crashed:
            self.crashed = False
            self._begin_anew()

    async def _do(self, work: Callable[[], Any]) -> None:
        work()
        await self._turn()
        while not self.crashed and (self._work() or not self.loop.idle):
            await self._turn()

    async def _turn(self) -> None:
        """What is due on the loop; then whoever listens on the bus is told."""
        await asyncio.sleep(0)
        self.publisher.flush()

    def _work(self) -> bool:
        """Let every reader's thread do one thing."""
        worked = False
        for worker in list(self.workers):
            if self._can_work(worker) and not self.crashed:
                self._working = worker
                worked = worker.turn() or worked
                self._working = None
        return worked

    def _can_work(self, worker: Worker) -> bool:
        """A rival's transaction keeps a thread in the card service that connects."""
        slot = self.pcscd.slots.get(worker.reader)
        kept = slot and slot.holder and not slot.holder.ours and not worker.holding
        if kept and worker.busy:
            worker.waiting = True
        return not (worker.hung or kept)

    def wait(self, seconds: float) -> None:
        """Time goes by, from one timer to the next."""
        end = self.clock.passed + seconds
        while self.clock.passed < end:
            next_ = min((each.at for each in self.clock.pending), default=end)
            step = min(max(next_, self.clock.passed + 0.01), end) - self.clock.passed
            self.do(lambda step=step: self.clock.advance(step))
            if self.clock.passed + 1e-6 >= end:
                break

    def ask(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A caller asks; the answer goes into `answers`."""

        async def asked() -> Any:
            try:
                answer = await work
            except Failure as failure:
                answer = str(failure.problem)
            self.answers.append(answer)
            return answer

        tasks: list[asyncio.Task[Any]] = []
        self.do(lambda: tasks.append(self.loop.create_task(asked())))
        self._asked = [each for each in (*self._asked, *tasks) if not each.done()]
        return tasks[0]

    # the status wait

    def list(self) -> None:
        """Tell the desks what the service lists."""
        slots = tuple(slot.report() for slot in self.pcscd.slots.values())
        backend = Backend.PCSCD_DOWN if self.pcscd.down else Backend.OK
        self.desks.listing(Listing(backend, () if self.pcscd.down else slots))

    def notice(self) -> None:
        """The service looks at every reader, and the status wait tells."""
        for slot in self.pcscd.slots.values():
            self.pcscd.notice(slot)
        self.list()

    # what people submit

    def submit(self, submission: Submission) -> Coroutine[Any, Any, Verdict]:
        """VerifyPin and its like, as a call to be made."""
        submission.life = self.witness.life
        self.witness.submissions.append(submission)

        async def submitted() -> Verdict:
            verdict = await self.desks.submit(
                submission.session, submission.caller, submission.request
            )
            self.witness.verdict(submission, verdict.left)
            return verdict

        return submitted()

    def _seen(self, ask: Ask[Any]) -> None:
        self.witness.silent(repr(ask))
        if isinstance(ask, SubmitAsk):
            for each in self.witness.submissions:
                if each.request is ask.request:
                    self.witness.asked(each, ask)

    def leave(self, which: int) -> None:
        """A caller's connection ends; another one begins under a new name."""
        caller = self.callers[which]
        self.witness.gone.add(caller.name)
        number = int(caller.name.rpartition(".")[2]) + 1
        self.callers[which] = replace(caller, name=f":1.{number}")
        self.desks.caller_gone(caller.name)

    async def gathered(self, calls: list[asyncio.Task[Any]]) -> list[Any]:
        """Their answers, or the names of their problems."""
        done = await asyncio.gather(*calls, return_exceptions=True)
        return [str(each.problem) if isinstance(each, Failure) else each for each in done]

    @property
    def permit(self) -> Permit | None:
        """Of the conversation that is under way."""
        return self._working.permit if self._working else None

    def on_record(self) -> bool:
        """Whether an attempt is in flight, on the disk if there is one."""
        if self._directory is None:
            return any(each.in_flight for each in self.ledger._everything().values())
        raw = (self._directory / str(self._life) / "ledger").read_bytes()
        return any(each.in_flight for each in lines.read(raw).entries.values())

    def unsettled(self, reader: str) -> bool:
        """Whether something is under way at a reader, or cannot be."""
        kept = any(each.busy and each.reader == reader for each in self.workers)
        return kept or self.pcscd.down or reader in self.unplugged

    # what was told

    def news(self) -> Iterator[str]:
        """Everything that was published, recorded and logged since it was asked last."""
        told = (self.publisher.lines, self.trail.entries, self.events)
        for at, entries in enumerate(told):
            yield from (repr(entry) for entry in entries[self._told[at] :])
            self._told[at] = len(entries)

"""The daemon's process: its event loop on the world's time, its readers' threads without threads,
and its rooms, watched."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import structlog

from cardsession import ports
from cardsession.adapters.pcsc import channel as pcsc
from cardsession.asks import Ask
from cardsession.core.errors import TEXTS, Problem
from cardsession.core.facts import CardFacts, SessionFacts
from cardsession.core.secret import BadFormat, Secret
from cardsession.core.states import Event
from cardsession.desks import Desks
from cardsession.ports import Permit, Talk
from fakes.clock import FakeClock
from fakes.publisher import FakePublisher, key
from fakes.witness import Witness


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose time is the world's."""

    clock: FakeClock

    def time(self) -> float:
        """Seconds."""
        return self.clock.passed

    @property
    def idle(self) -> bool:
        """Whether nothing is left to be done but what waits for time."""
        return not self._ready  # type: ignore[attr-defined]


class NoThread:
    """A thread that somebody else does the work of."""

    def __init__(self, **_: Any) -> None:
        self.alive = True

    def start(self) -> None:
        """Nothing."""

    def is_alive(self) -> bool:
        """Until its last job is done."""
        return self.alive


class Worker(pcsc.PcscChannel):
    """The real channel; its jobs are done when the world says so."""

    def __init__(self, reader: str, ledger: Any) -> None:
        super().__init__(reader, ledger)
        self.reader = reader
        self.hung = False
        """Its thread does not get on."""
        self.permit: Permit | None = None

    @property
    def alive(self) -> bool:
        """Whether its thread works."""
        return self._thread.is_alive()

    def turn(self) -> bool:
        """Do the next job, if there is one."""
        try:
            job = self._jobs.get_nowait()
        except queue.Empty:
            return False
        if job is not None:
            job()
        else:
            self._disconnect(ports.Disposition.RESET)
            self._release_context()
            self._thread.alive = False  # type: ignore[attr-defined]
        return True

    @property
    def busy(self) -> bool:
        """Whether there is something to be done."""
        return not self._jobs.empty()

    def _hold_talk(self, talk: Talk[Any]) -> Any:
        self.permit = talk.permit
        try:
            return super()._hold_talk(talk)
        finally:
            self.permit = None


class WatchedDesks(Desks):
    """The real desks; every ask is seen as it is put."""

    seen: Callable[[Ask[Any]], None]

    async def _asked(self, session: int, event: Event, ask: Ask[Any]) -> Any:
        self.seen(ask)
        return await super()._asked(session, event, ask)


class WatchedPublisher(FakePublisher):
    """Shows every record to the witness as well."""

    def __init__(self, witness: Witness) -> None:
        super().__init__()
        self._witness = witness
        self._changed: dict[Any, Any] = {}

    def show(self, facts: Any) -> None:
        """Note it."""
        super().show(facts)
        self._changed[key(facts)] = facts

    def withdraw(self, facts: Any) -> None:
        """Note it."""
        super().withdraw(facts)
        self._changed.pop(key(facts), None)

    def flush(self) -> None:
        """What changed in this turn of the loop is told now: the latest state wins."""
        changed = list(self._changed.values())
        self._changed.clear()
        for facts in changed:
            if isinstance(facts, CardFacts):
                self._witness.shows_card(facts)
            elif isinstance(facts, SessionFacts):
                self._witness.shows_session(facts, self.objects.get(("card", facts.card or 0)))
            else:
                self._witness.demand(facts.last_error != TEXTS[Problem.INTERNAL], "a bug of ours")


@contextmanager
def logged(events: list[dict[str, Any]]) -> Iterator[None]:
    """Every event that is logged, as it is before any redaction."""
    before = structlog.get_config()

    def capture(_: Any, __: str, event: Any) -> Any:
        events.append(dict(event))
        raise structlog.DropEvent

    structlog.configure(processors=[capture], cache_logger_on_first_use=False)
    try:
        yield
    finally:
        structlog.configure(**before)


def reading(text: str) -> Callable[[], Coroutine[Any, Any, Secret]]:
    """A descriptor with a passcode in it; an empty one is of bad format."""

    async def read() -> Secret:
        if not text:
            raise BadFormat
        return Secret(bytearray(text.encode()))

    return read

"""Running the handler for each incoming call: bounded, answered exactly once.

Whatever a handler raises, its caller learns an error name and a fixed text, never an exception's
words; our log gets the exception's type and place once a minute at most, so that a caller who
knows how to provoke it cannot fill the disk.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import structlog

from .contract import PEER, ErrorName
from .frames import close_fds
from .model import Answer, Call, Handler, Refusal

MAX_CALLS = 64
"""Calls of one sender that may be under way at a time."""
MAX_FDS = 16
"""Descriptors that one sender's calls under way may hold; the contract's take two at most."""
INTERNAL_TEXT = "internal error, see the log of the service"
_QUIET_SECONDS = 60.0
_MACHINE_ID = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))

_log = structlog.get_logger(__name__)


class Replier(Protocol):
    """What sends the replies; neither is called for a call that wants none."""

    def answer(self, call: Call, answer: Answer) -> None:
        """Queue a reply. Raises ValueError, having sent nothing, if it cannot be put into bytes;
        the answer's descriptors are taken in either case."""

    def error(self, call: Call, name: str, text: str) -> None:
        """Queue an error. Raises ValueError for an invalid name."""


class FailureLog:
    """Unexpected exceptions: a full entry once a minute for each place in the code."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next: dict[tuple[str, str, int], float] = {}
        self._unsaid: Counter[tuple[str, str, int]] = Counter()

    def report(self, event: str, error: BaseException, **facts: str | None) -> None:
        """Log type and place, without the exception's text or local variables: both may hold
        what the caller sent."""
        frames = traceback.extract_tb(error.__traceback__)
        where = (frames[-1].filename, frames[-1].lineno or 0) if frames else ("", 0)
        place = (type(error).__name__, *where)
        now = self._clock()
        if now < self._next.get(place, now):
            self._unsaid[place] += 1
            return
        self._next[place] = now + _QUIET_SECONDS
        trace = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
        unsaid = self._unsaid.pop(place, 0)
        _log.error(event, exception_type=place[0], traceback=trace, unsaid=unsaid, **facts)


class Dispatcher:
    """One task for each call. `before_reply` runs right before any reply or error is queued."""

    def __init__(self, replier: Replier, failures: FailureLog) -> None:
        self.handler: Handler | None = None
        self.before_reply: Callable[[], None] = lambda: None
        self._replier = replier
        self._failures = failures
        self._tasks: set[asyncio.Task[None]] = set()
        self._calls: Counter[str] = Counter()
        self._fds: Counter[str] = Counter()

    @property
    def running(self) -> int:
        """Calls under way."""
        return len(self._tasks)

    def dispatch(self, call: Call) -> None:
        """Answer a call, now or by a task. Owns the call's descriptors from here on."""
        if "h" not in call.signature:
            call.close_fds()  # nobody can take them, so nobody needs to hold them
        fds = call.fd_count
        if self._calls[call.sender] >= MAX_CALLS or self._fds[call.sender] + fds > MAX_FDS:
            self.refuse(call, ErrorName.LIMITS_EXCEEDED, "too many calls at a time")
            return
        self._calls[call.sender] += 1
        self._fds[call.sender] += fds
        task = asyncio.get_running_loop().create_task(self._run(call))
        self._tasks.add(task)
        # By callback, so that a task cancelled before its first step is accounted for as well.
        task.add_done_callback(lambda done: self._finished(done, call, fds))

    def refuse(self, call: Call, name: str, text: str) -> None:
        """Answer with an error, close the descriptors. One line in the log, at debug."""
        call.close_fds()
        _log.debug("call.refused", error=name, member=call.member, sender=call.sender)
        if call.wants_reply:
            self._flush()
            try:
                self._replier.error(call, name, text)
            except ValueError as error:
                self._failures.report("call.failed", error, member=call.member)
                self._replier.error(call, ErrorName.INTERNAL, INTERNAL_TEXT)

    def cancel(self) -> list[asyncio.Task[None]]:
        """Cancel all calls under way but the one that asks; returns the tasks, to be awaited."""
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        return tasks

    def _finished(self, task: asyncio.Task[None], call: Call, fds: int) -> None:
        call.close_fds()
        self._tasks.discard(task)
        for counter, amount in ((self._calls, 1), (self._fds, fds)):
            counter[call.sender] -= amount
            if counter[call.sender] <= 0:
                del counter[call.sender]
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failures.report("call.failed", error, member=call.member)

    async def _run(self, call: Call) -> None:
        try:
            answer = await self._handle(call)
        except Refusal as refusal:
            self.refuse(call, refusal.name, refusal.text)
        except asyncio.CancelledError as error:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            self._fail(call, error)  # something the handler waited for was cancelled, not it
        except Exception as error:
            self._fail(call, error)
        else:
            self._succeed(call, answer)

    async def _handle(self, call: Call) -> Answer:
        if (builtin := _peer(call)) is not None:
            return builtin
        if self.handler is None:
            raise Refusal(ErrorName.UNKNOWN_METHOD, "no such method")
        return await self.handler(call)

    def _succeed(self, call: Call, answer: Answer) -> None:
        call.close_fds()
        if not call.wants_reply:
            close_fds(answer.fds)
            return
        self._flush()
        try:
            self._replier.answer(call, answer)
        except ValueError as error:
            self._fail(call, error)

    def _fail(self, call: Call, error: BaseException) -> None:
        self._failures.report(
            "call.failed", error, interface=call.interface, member=call.member, sender=call.sender
        )
        self.refuse(call, ErrorName.INTERNAL, INTERNAL_TEXT)

    def _flush(self) -> None:
        try:
            self.before_reply()
        except Exception as error:
            self._failures.report("publish.failed", error)


def _peer(call: Call) -> Answer | None:
    """The answer of org.freedesktop.DBus.Peer, which every connection has at every path."""
    if call.interface not in {None, PEER}:
        return None
    match call.member:
        case "Ping":
            return Answer()
        case "GetMachineId":
            return Answer("s", (_machine_id(),))
        case _ if call.interface == PEER:
            raise Refusal(ErrorName.UNKNOWN_METHOD, "no such method")
        case _:
            return None


def _machine_id() -> str:
    for file in _MACHINE_ID:
        with suppress(OSError, ValueError):
            text = file.read_text("ascii").strip()
            if len(bytes.fromhex(text)) == 16:  # noqa: PLR2004 (machine-id(5))
                return text
    raise Refusal(ErrorName.FAILED, "this machine has no id")

"""Sleep, as logind announces it, and the delay that it grants us before the machine sleeps.

A delay inhibitor is a descriptor: while it is open, and for InhibitDelayMaxSec at most (5 s unless
the site says otherwise), logind waits between PrepareForSleep(true) and the sleep itself. Without
logind everything else works; a logind that comes, or comes again, is found.

Source: org.freedesktop.login1(5), systemd-inhibit(1).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Self

import structlog

from .connection import BusError, BusGone, Connection, Reply, Signal, Subscription
from .contract import ErrorName
from .frames import close_fds
from .matching import DRIVER

LOGIND = "org.freedesktop.login1"
MANAGER = f"{LOGIND}.Manager"
PATH = "/org/freedesktop/login1"
WHO, WHY = "cardsessiond", "smartcard sessions are ended before the machine sleeps"
SUSPEND_SECONDS = 4.0
"""From the announcement to the end of the inhibitor, whatever is done by then."""
CALL_SECONDS = 2.0
RETRY_SECONDS = 60.0
"""Before a logind that refused the inhibitor, or did not answer, is asked again."""
_ABSENT = frozenset({ErrorName.SERVICE_UNKNOWN, ErrorName.NAME_HAS_NO_OWNER})

log = structlog.get_logger(__name__)


class Sleep:
    """Calls `suspend` before the machine sleeps and `resume` when it is awake again, in turns.

    An async context manager: from entering it on the announcements are followed, in the
    background, so that a logind that is slow keeps nobody waiting. Nothing here raises.
    """

    def __init__(
        self,
        connection: Connection,
        suspend: Callable[[], Awaitable[None]],
        resume: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._on_suspend = suspend
        self._on_resume = resume
        self._happened: asyncio.Queue[Callable[[], Awaitable[None]]] = asyncio.Queue()
        self._subscriptions: list[Subscription] = []
        self._inhibitor: int | None = None
        self._asleep = False
        self._retry = False
        self._told = ""

    async def __aenter__(self) -> Self:
        self._task = asyncio.get_running_loop().create_task(self._follow())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        for each in self._subscriptions:
            await each.close()
        self._let_go()

    # what happens, in its order

    async def _follow(self) -> None:
        """One thing after the other, until cancelled or the bus is gone."""
        with suppress(BusGone):
            try:
                await self._listen()
            except BusError as error:
                self._tell("sleep.unwatched", error.name)
                return  # to delay what we do not hear of would only cost time
            await self._inhibit()
            while True:
                happened = await self._next()
                await happened()

    async def _listen(self) -> None:
        """Only what the owner of logind's name says counts: the connection compares senders."""
        listen, subscriptions = self._connection.subscribe, self._subscriptions
        announced = await listen(
            self._announced, sender=LOGIND, interface=MANAGER, member="PrepareForSleep", path=PATH
        )
        subscriptions.append(announced)
        changes = await listen(
            self._changed_hands,
            sender=DRIVER, interface=DRIVER, member="NameOwnerChanged", arg0=LOGIND,
        )  # fmt: skip
        subscriptions.append(changes)

    async def _next(self) -> Callable[[], Awaitable[None]]:
        """What happened next; after a while, that the inhibitor is asked for again."""
        try:
            async with asyncio.timeout(RETRY_SECONDS if self._retry else None):
                return await self._happened.get()
        except TimeoutError:
            return self._inhibit

    def _announced(self, signal: Signal) -> None:
        if signal.signature != "b":
            return
        now = asyncio.get_running_loop().time()
        sleep = partial(self._suspend, now + SUSPEND_SECONDS)
        self._happened.put_nowait(sleep if signal.body[0] else self._woken)

    def _changed_hands(self, _: Signal) -> None:
        self._happened.put_nowait(self._logind_changed)

    async def _suspend(self, deadline: float) -> None:
        """`deadline` is the loop's time at which the machine is let go to sleep."""
        self._asleep = True
        log.info("sleep.announced")
        try:
            async with asyncio.timeout_at(deadline):
                await self._on_suspend()
        except TimeoutError:
            log.warning("sleep.late", seconds=SUSPEND_SECONDS)
        except Exception as error:  # our bug: the machine sleeps all the same
            log.error("sleep.failed", exc_info=error)
        finally:
            self._let_go()

    async def _woken(self) -> None:
        """Awake again; the next sleep is delayed, too."""
        if not self._asleep:
            # it slept, or was about to, before we listened: what was then is over as well
            await self._suspend(asyncio.get_running_loop().time() + SUSPEND_SECONDS)
        await self._resume()

    async def _logind_changed(self) -> None:
        """It went, or came: what it had announced counts as over, its inhibitor with it."""
        self._let_go()
        if self._asleep:
            await self._resume()
        else:
            await self._inhibit()

    async def _resume(self) -> None:
        self._asleep = False
        log.info("sleep.over")
        try:
            self._on_resume()
        except Exception as error:  # our bug, which must not keep us from the next sleep
            log.error("sleep.failed", exc_info=error)
        await self._inhibit()

    # the inhibitor

    async def _inhibit(self) -> None:
        """Have logind wait for us, if it does not yet."""
        if self._inhibitor is not None or self._asleep:
            return
        self._retry = False
        try:
            reply = await self._connection.call(
                LOGIND, PATH, MANAGER, "Inhibit", "ssss", ("sleep", WHO, WHY, "delay"),
                timeout=CALL_SECONDS,
            )  # fmt: skip
        except BusError as error:
            self._retry = error.name not in _ABSENT
            self._tell("sleep.undelayed", error.name)
        else:
            self._inhibitor = _descriptor(reply)
            self._tell("sleep.watched" if self._inhibitor is not None else "sleep.undelayed")

    def _let_go(self) -> None:
        """The machine may sleep, as far as we are concerned."""
        inhibitor, self._inhibitor = self._inhibitor, None
        if inhibitor is not None:
            close_fds((inhibitor,))

    def _tell(self, event: str, why: str = "") -> None:
        """Into the log, once for as long as it stays so."""
        if self._told != event + why:
            self._told = event + why
            log.info(event, why=why)


def _descriptor(reply: Reply) -> int | None:
    """The reply's only descriptor; None, and none left open, if it has not that form."""
    if reply.signature == "h" and reply.body == (0,) and len(reply.fds) == 1:
        return reply.fds[0]
    close_fds(reply.fds)
    return None

"""Who listens to which signals of a connection, and the delivery to them, in order.

The bus knows of a subscription before `add` returns. A failing callback costs nobody else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from .frames import Frame
from .matching import DRIVER, Match, Owners, is_well_known
from .model import Body, Signal
from .serving import FailureLog
from .wire import decode

_log = structlog.get_logger(__name__)


class Subscription:
    """Interest in some signals, until closed."""

    def __init__(
        self, match: Match, callback: Callable[[Signal], None], on_close: Callable[[Any], None]
    ) -> None:
        self.match = match
        self.callback = callback
        self._on_close = on_close

    async def close(self) -> None:
        """No callback from now on; the match rule is removed. Never fails, may be repeated."""
        self._on_close(self)


class Listeners:
    """The subscriptions of one connection.

    `ask` is a method call to the bus driver: (member, signature, body) -> the reply's body.
    `forget` has it remove a match rule, without waiting.
    """

    def __init__(
        self,
        ask: Callable[[str, str, Body], Awaitable[Body]],
        forget: Callable[[str], None],
        failures: FailureLog,
    ) -> None:
        self._ask = ask
        self._forget = forget
        self._failures = failures
        self._owners = Owners(ask)
        self._subscriptions: list[Subscription] = []

    async def add(self, match: Match, callback: Callable[[Signal], None]) -> Subscription:
        """Begin to listen. Raises what `ask` does, with nothing left behind."""
        subscription = Subscription(match, callback, self._remove)
        self._subscriptions.append(subscription)
        try:
            if match.sender is not None and is_well_known(match.sender):
                await self._owners.follow(match.sender)
            await self._ask("AddMatch", "s", (match.rule,))
        except BaseException:
            self._remove(subscription)
            raise
        return subscription

    def hear(self, frame: Frame, order: int) -> None:
        """A signal came: everybody who wants it gets it. One that only the bus driver may send
        and another did is dropped, as is one that cannot be read."""
        header = frame.header
        if frame.raw is None or (header.interface == DRIVER and header.sender != DRIVER):
            _log.debug("signal.dropped", sender=header.sender, member=header.member)
            return
        if not self._subscriptions:
            return
        try:
            body = decode(frame.raw)
        except ValueError:
            _log.debug("signal.malformed", sender=header.sender, member=header.member)
            return
        signal = Signal(
            header.sender or "", header.path or "/", header.interface or "", header.member or "",
            header.signature, body, order,
        )  # fmt: skip
        if signal.sender == DRIVER and signal.member == "NameOwnerChanged":
            self._owners.update(signal)
        for each in tuple(self._subscriptions):
            if each.match.wants(signal, self._owners.resolve(each.match.sender)):
                self._deliver(each, signal)

    def _deliver(self, subscription: Subscription, signal: Signal) -> None:
        try:
            subscription.callback(signal)
        except Exception as error:
            self._failures.report("signal.failed", error, member=signal.member)

    def _remove(self, subscription: Subscription) -> None:
        if subscription not in self._subscriptions:
            return
        self._subscriptions.remove(subscription)
        self._forget(subscription.match.rule)
        sender = subscription.match.sender
        if sender is not None and is_well_known(sender):
            self._forget(self._owners.unfollow(sender))

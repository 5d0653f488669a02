"""A bus connection that leads nowhere: calls are dispatched as the real one does, and whatever
leaves is put into bytes as there, and is a list."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cardsession.bus.frames import Kind
from cardsession.bus.model import Answer, Call, Credentials, Handler, Signal
from cardsession.bus.serving import Dispatcher, FailureLog
from cardsession.bus.wire import encode


@dataclass(frozen=True)
class Sent:
    """One message: a signal's path and member, or a reply's serial and error name."""

    what: str
    path: str
    body: tuple[Any, ...]


class _Subscription:
    async def close(self) -> None:
        """Nothing was subscribed."""


class FakeConnection:
    """See `cardsession.bus.connection.Connection`."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.owned: list[str] = []
        self.watching: dict[str, Callable[[Any], None]] = {}
        self.who = Credentials(1000, None, ())
        """Everybody."""
        self.given: list[int] = []
        """Descriptors that left with replies: the callers', which is the test."""
        self._dispatcher = Dispatcher(self, FailureLog())
        self._serial = 0

    # as the service uses it

    def serve(self, handler: Handler, before_reply: Callable[[], None]) -> None:
        """Answer calls."""
        self._dispatcher.handler = handler
        self._dispatcher.before_reply = before_reply

    async def own_name(self, name: str) -> None:
        """Note that it is ours."""
        self.owned.append(name)

    async def subscribe(self, handler: Callable[[Any], None], **rule: Any) -> _Subscription:
        """Remember who asked for what."""
        self.watching[rule["arg0"]] = handler
        return _Subscription()

    async def round_trip(self, seconds: float) -> None:
        """Nothing is on its way."""

    async def credentials(self, name: str) -> Credentials:
        """The same for everybody."""
        return self.who

    def emit(self, path: str, interface: str, member: str, signature: str, body: Any) -> None:
        """A signal."""
        encode(Kind.SIGNAL, 1, signature, body, path=path, interface=interface, member=member)
        self.sent.append(Sent(member, path, tuple(body)))

    # as the dispatcher uses it

    def answer(self, call: Call, answer: Answer) -> None:
        """A reply."""
        self.given += answer.fds
        encode(Kind.RETURN, 1, answer.signature, answer.body, fds=len(answer.fds), reply_serial=1)
        self.sent.append(Sent(f"reply to {call.member}", call.path, answer.body))

    def error(self, call: Call, name: str, text: str) -> None:
        """An error."""
        self.sent.append(Sent(f"{name.rsplit('.', 1)[1]} to {call.member}", call.path, (text,)))

    # as a test uses it

    def call(  # noqa: PLR0913 - a message has this many parts
        self,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        *body: Any,
        fds: tuple[int, ...] = (),
        sender: str = ":1.7",
    ) -> None:
        """A call arrives."""
        self._serial += 1
        call = Call(
            sender, path, interface, member, signature, tuple(body), fds, serial=self._serial
        )
        self._dispatcher.dispatch(call)

    def leaves(self, name: str) -> None:
        """A connection leaves the bus."""
        driver = "org.freedesktop.DBus"
        body = (name, name, "")
        self.watching[name](
            Signal(driver, "/org/freedesktop/DBus", driver, "NameOwnerChanged", "sss", body)
        )

    def cancel(self) -> list[asyncio.Task[None]]:
        """The connection ends, and every call under way with it."""
        return self._dispatcher.cancel()

    def replies(self) -> list[Sent]:
        """Replies and errors, in their order."""
        return [each for each in self.sent if " to " in each.what]

    @property
    def order(self) -> list[str]:
        """What left, in its order, without properties."""
        return [each.what for each in self.sent if each.what != "PropertiesChanged"]

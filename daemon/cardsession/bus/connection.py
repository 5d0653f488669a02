"""A connection to the message bus, for the daemon and its clients alike.

Calls, signals, names and credentials over the frames of stream.py and the values of wire.py; what
runs the handlers is serving.py, who listens to signals is in listening.py. dbus-next's own
MessageBus is not used: nearly every fault of it lies in reading, writing and dispatching (EAGAIN
ends it, end-of-file makes it spin, a call after a disconnect waits for ever, stray descriptors are
kept, nothing is bounded, an exception's text goes to the caller), and that part is smaller owned
than mended from outside.
"""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Self

import structlog

from .contract import ErrorName
from .frames import Flag, Frame, Header, Kind, close_fds
from .listening import Listeners, Subscription
from .matching import DRIVER, Match, is_well_known
from .model import (
    Answer,
    Body,
    BusError,
    BusGone,
    Call,
    Credentials,
    Handler,
    NameTaken,
    Refusal,
    Reply,
    Signal,
)
from .serving import Dispatcher, FailureLog
from .stream import Stream, system_bus_address
from .wire import Variant, decode, encode, is_bus_name, printable

__all__ = [
    "Answer",
    "Body",
    "BusError",
    "BusGone",
    "Call",
    "Connection",
    "Credentials",
    "Handler",
    "NameTaken",
    "Refusal",
    "Reply",
    "Signal",
    "Subscription",
    "Variant",
]

_DRIVER_PATH = "/org/freedesktop/DBus"
_OPEN_SECONDS = 10.0
_FAREWELL_SECONDS = 2.0
_DO_NOT_QUEUE = 4
_OWNED = frozenset({1, 4})
"""Replies to RequestName: PRIMARY_OWNER, ALREADY_OWNER ("org.freedesktop.DBus.RequestName")."""

_log = structlog.get_logger(__name__)


class Connection:
    """One connection. `closed` is done when it has ended, for whatever reason."""

    def __init__(self, stream: Stream) -> None:
        """Use `open`."""
        self.unique_name = ""
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stream = stream
        self._serials = count(1)
        self._received = 0
        self._pending: dict[int, tuple[str, asyncio.Future[Reply]]] = {}
        self._failures = FailureLog()
        self._listeners = Listeners(self._ask_driver, self._remove_match, self._failures)
        self._dispatcher = Dispatcher(self, self._failures)
        stream.start(self._on_frame, self._on_gone)

    @classmethod
    async def open(cls, address: str | None = None) -> Connection:
        """Connect to the bus at `address`, by default the system bus. Raises BusGone."""
        try:
            async with asyncio.timeout(_OPEN_SECONDS):
                stream = await Stream.open(address or system_bus_address())
                try:
                    connection = cls(stream)
                    (connection.unique_name,) = await connection._ask_driver("Hello")
                except BaseException:
                    stream.end("not opened")
                    raise
                return connection
        except (TimeoutError, BusError) as error:
            raise BusGone("the bus does not answer") from error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    @property
    def queued_messages(self) -> int:
        """Messages that the bus has not taken yet."""
        return self._stream.queued_messages

    @property
    def queued_bytes(self) -> int:
        """Their size."""
        return self._stream.queued_bytes

    @property
    def calls_running(self) -> int:
        """Incoming calls that are not answered yet."""
        return self._dispatcher.running

    def serve(self, handler: Handler, before_reply: Callable[[], None] = lambda: None) -> None:
        """Have every incoming call but those of Peer answered by `handler`, each in a task.

        `before_reply` is called right before each reply or error is queued: what it emits comes
        before the reply. A Refusal becomes that error; anything else `Internal`.
        """
        self._dispatcher.handler = handler
        self._dispatcher.before_reply = before_reply

    def emit(  # noqa: PLR0913, PLR0917 (a message has this many parts)
        self, path: str, interface: str, member: str, signature: str = "", body: Body = (),
        destination: str | None = None,
    ) -> None:  # fmt: skip
        """Queue a signal; nothing happens if the connection has ended. Raises ValueError."""
        data = encode(
            Kind.SIGNAL, self._serial(), signature, body,
            path=path, interface=interface, member=member, destination=destination,
        )  # fmt: skip
        self._stream.send(data)

    async def call(  # noqa: PLR0913, PLR0917 (a message has this many parts)
        self, destination: str, path: str, interface: str | None, member: str,
        signature: str = "", body: Body = (), fds: tuple[int, ...] = (), timeout: float = 25.0,  # noqa: ASYNC109
    ) -> Reply:  # fmt: skip
        """Call a method. `fds` are duplicated, so they stay the caller's own.

        Raises BusError (an error reply, or NoReply after `timeout` seconds), BusGone, ValueError
        (nothing was sent).
        """
        if self._stream.ended:
            raise BusGone(self._stream.ended)
        serial = self._serial()
        data = encode(
            Kind.CALL, serial, signature, body, fds=len(fds),
            destination=destination, path=path, interface=interface, member=member,
        )  # fmt: skip
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._pending[serial] = (destination, future)
        try:
            self._stream.send(data, _duplicates(fds))
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError:
            _discard(future)
            raise BusError(ErrorName.NO_REPLY, f"no reply in {timeout:g} s") from None
        except asyncio.CancelledError:
            _discard(future)
            raise
        finally:
            self._pending.pop(serial, None)

    async def subscribe(  # noqa: PLR0913 (a rule has this many parts)
        self, callback: Callable[[Signal], None], *, sender: str | None = None,
        interface: str | None = None, member: str | None = None, path: str | None = None,
        path_namespace: str | None = None, arg0: str | None = None,
    ) -> Subscription:  # fmt: skip
        """Have `callback` called for each such signal, in order; the bus knows when this returns.

        A `sender` is checked against each signal, a well-known name by its owner at that moment.
        Raises BusError, BusGone, ValueError.
        """
        match = Match(sender, interface, member, path, path_namespace, arg0)
        return await self._listeners.add(match, callback)

    async def own_name(self, name: str) -> None:
        """Become the primary owner of a name. Raises NameTaken; BusError if it is not allowed."""
        (result,) = await self._ask_driver("RequestName", "su", (name, _DO_NOT_QUEUE))
        if result not in _OWNED:
            raise NameTaken(name)

    async def round_trip(self, seconds: float) -> None:
        """A question to the bus itself, and its answer, if it comes in time.

        Not Peer.Ping: the system bus refuses that one, and writes so into the journal each time.
        """
        with suppress(BusError, BusGone):
            await self.call(DRIVER, _DRIVER_PATH, DRIVER, "GetId", timeout=seconds)

    async def credentials(self, unique_name: str) -> Credentials:
        """Who is behind a unique name. Raises BusError if it has left."""
        (found,) = await self._ask_driver("GetConnectionCredentials", "s", (unique_name,))
        values = {key: variant.value for key, variant in found.items()}
        if "UnixUserID" not in values:
            raise BusError(ErrorName.FAILED, "the bus does not know the user")
        groups = values.get("UnixGroupIDs")
        return Credentials(
            uid=values["UnixUserID"],
            pid=values.get("ProcessID"),
            groups=None if groups is None else tuple(groups),
        )

    async def drain(self) -> None:
        """Wait until everything queued was written, or nothing more can be."""
        await self._stream.drain()

    async def close(self) -> None:
        """Cancel the calls under way, give what is queued two seconds to leave, disconnect."""
        if tasks := self._dispatcher.cancel():
            await asyncio.wait(tasks, timeout=_FAREWELL_SECONDS)
        try:
            async with asyncio.timeout(_FAREWELL_SECONDS):
                await self._stream.drain()
        except TimeoutError:
            _log.warning("bus.undelivered", messages=self.queued_messages)
        finally:
            self._stream.end("closed")

    # -- outgoing (answer and error are the Dispatcher's Replier)

    def answer(self, call: Call, answer: Answer) -> None:
        """Queue a reply; its descriptors are taken. Raises ValueError, nothing sent."""
        try:
            data = encode(
                Kind.RETURN, self._serial(), answer.signature, answer.body,
                fds=len(answer.fds), destination=call.sender, reply_serial=call.serial,
            )  # fmt: skip
        except ValueError:
            close_fds(answer.fds)
            raise
        self._stream.send(data, answer.fds)

    def error(self, call: Call, name: str, text: str) -> None:
        """Queue an error reply. Raises ValueError for an invalid name."""
        data = encode(
            Kind.ERROR, self._serial(), "s", (printable(text),),
            destination=call.sender, reply_serial=call.serial, error_name=str(name),
        )  # fmt: skip
        self._stream.send(data)

    def _serial(self) -> int:
        return next(self._serials) % 0xFFFFFFFF + 1

    async def _ask_driver(self, member: str, signature: str = "", body: Body = ()) -> Body:
        return (await self.call(DRIVER, _DRIVER_PATH, DRIVER, member, signature, body)).body

    def _remove_match(self, rule: str) -> None:
        """Without waiting: no reply is asked for, and an unknown rule is no matter."""
        data = encode(
            Kind.CALL, self._serial(), "s", (rule,),
            flags=Flag.NO_REPLY_EXPECTED, destination=DRIVER, path=_DRIVER_PATH,
            interface=DRIVER, member="RemoveMatch",
        )  # fmt: skip
        self._stream.send(data)

    # -- incoming

    def _on_gone(self, reason: str) -> None:
        for _, future in self._pending.values():
            if not future.done():
                future.set_exception(BusGone(reason))
        self._dispatcher.cancel()
        if not self.closed.done():
            self.closed.set_result(None)

    def _on_frame(self, frame: Frame) -> None:
        """One message; a fault in handling it costs nothing but that message."""
        self._received += 1
        try:
            match frame.header.kind:
                case Kind.CALL:
                    self._on_call(frame)
                case Kind.RETURN | Kind.ERROR:
                    self._on_reply(frame)
                case Kind.SIGNAL:
                    close_fds(frame.fds)
                    self._listeners.hear(frame, self._received)
                case _:
                    close_fds(frame.fds)
        except Exception as error:
            close_fds(frame.fds)
            self._failures.report("message.failed", error, member=frame.header.member)

    def _on_call(self, frame: Frame) -> None:
        header, raw = frame.header, frame.raw
        if not is_bus_name(header.sender or ""):  # which the bus itself writes: nobody to answer
            close_fds(frame.fds)
            return
        call = Call(
            header.sender or "", header.path or "/", header.interface, header.member or "",
            header.signature, lambda: decode(raw or b""), frame.fds,
            serial=header.serial, wants_reply=header.wants_reply,
        )  # fmt: skip
        if raw is None:
            self._dispatcher.refuse(call, ErrorName.LIMITS_EXCEEDED, "too long a message")
        else:
            self._dispatcher.dispatch(call)

    def _on_reply(self, frame: Frame) -> None:
        header = frame.header
        destination, future = self._pending.get(header.reply_serial, ("", None))
        # The bus itself answers for whoever cannot: gone, not there, not allowed.
        from_there = is_well_known(destination) or header.sender in {destination, DRIVER}
        if future is None or future.done() or not from_there:
            close_fds(frame.fds)
            return
        try:
            future.set_result(_reply(header, frame, self._received))
        except BusError as error:
            close_fds(frame.fds)
            future.set_exception(error)


def _reply(header: Header, frame: Frame, order: int) -> Reply:
    """A reply's contents. Raises BusError for an error, or one that cannot be read."""
    if frame.raw is None:
        raise BusError(ErrorName.LIMITS_EXCEEDED, "too long a reply")
    try:
        body = decode(frame.raw)
    except ValueError:
        raise BusError(ErrorName.INCONSISTENT_MESSAGE, "malformed reply") from None
    if header.kind == Kind.ERROR:
        text = body[0] if body and isinstance(body[0], str) else ""
        raise BusError(header.error_name or ErrorName.FAILED, text)
    return Reply(header.signature, body, frame.fds, order)


def _duplicates(fds: tuple[int, ...]) -> tuple[int, ...]:
    made: list[int] = []
    try:
        made.extend(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 0) for fd in fds)
    except BaseException:
        close_fds(made)
        raise
    return tuple(made)


def _discard(future: asyncio.Future[Reply]) -> None:
    """A reply that came too late for its caller: its descriptors are nobody's."""
    if future.done() and not future.cancelled() and future.exception() is None:
        close_fds(future.result().fds)

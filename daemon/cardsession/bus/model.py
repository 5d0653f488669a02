"""What passes over a connection: records, and the errors that a user of it meets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from .contract import ErrorName
from .frames import close_fds

Body = tuple[Any, ...]


class BusError(Exception):
    """An error reply to a call of ours, or no reply in time."""

    def __init__(self, name: str, text: str = "") -> None:
        super().__init__(f"{name}: {text}" if text else name)
        self.name = name
        self.text = text


class BusGone(Exception):
    """There is no connection: never made (the text says why), or lost."""


class NameTaken(Exception):
    """The well-known name has another owner."""


class Refusal(Exception):
    """Raised by a handler: the caller gets exactly this error name and text."""

    def __init__(self, name: str, text: str = "") -> None:
        super().__init__(f"{name}: {text}" if text else name)
        self.name = name
        self.text = text


@dataclass(frozen=True, slots=True)
class Answer:
    """A handler's reply. `h` values in the body are indices into `fds`, which the connection
    closes once they are sent (or cannot be)."""

    signature: str = ""
    body: Body = ()
    fds: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a call of ours; its descriptors belong to whoever receives it."""

    signature: str
    body: Body
    fds: tuple[int, ...] = ()
    order: int = 0


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal as received; `sender` is a unique name (or the bus driver's).

    `order` counts all messages received, replies too: whoever awaits a reply goes on some time
    after signals behind it were delivered, and can tell by it which those are.
    """

    sender: str
    path: str
    interface: str
    member: str
    signature: str
    body: Body
    order: int = 0


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who is behind a unique name, as the bus took it from the socket. `groups` is None if the
    bus does not say (before dbus 1.13)."""

    uid: int
    pid: int | None
    groups: tuple[int, ...] | None = None


class Call:
    """An incoming method call.

    `interface` is None if the caller named none. The body is parsed when it is first asked for,
    so that a handler which refuses the signature never pays for the contents.
    """

    __slots__ = (
        "_body", "_fds", "interface", "member", "path", "sender", "serial", "signature",
        "wants_reply",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913, PLR0917 (a message has this many parts)
        self,
        sender: str,
        path: str,
        interface: str | None,
        member: str,
        signature: str = "",
        body: Body | Callable[[], Body] = (),
        fds: tuple[int, ...] = (),
        *,
        serial: int = 1,
        wants_reply: bool = True,
    ) -> None:
        self.sender = sender
        self.path = path
        self.interface = interface
        self.member = member
        self.signature = signature
        self.serial = serial
        self.wants_reply = wants_reply
        self._body = body
        self._fds: dict[int, int] = dict(enumerate(fds))

    def __repr__(self) -> str:
        return f"<Call {self.interface}.{self.member} on {self.path} from {self.sender}>"

    @property
    def body(self) -> Body:
        """The arguments. Raises Refusal (InvalidArgs) if they cannot be read."""
        if callable(self._body):
            try:
                self._body = self._body()
            except ValueError as error:
                raise Refusal(ErrorName.INVALID_ARGS, "malformed body") from error
        return self._body

    @property
    def fd_count(self) -> int:
        """How many descriptors are still to be taken."""
        return len(self._fds)

    def take_fd(self, index: int) -> int:
        """The descriptor an `h` argument names; the caller of this owns it from now on.

        Raises Refusal (InvalidArgs) if there is none, or it was taken already.
        """
        try:
            return self._fds.pop(index)
        except KeyError:
            raise Refusal(ErrorName.INVALID_ARGS, "no such descriptor") from None

    def close_fds(self) -> None:
        """Close what nobody took."""
        close_fds(self._fds.values())
        self._fds.clear()


Handler = Callable[[Call], Awaitable[Answer]]

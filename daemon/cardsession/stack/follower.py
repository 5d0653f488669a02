"""What a subscriber knows: messages taken in order, properties folded into objects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from cardsession.stack.monitor import Message, Monitor
from cardsession.stack.processes import StackError

NAME: Final = "org.cardsession1"
ROOT: Final = "/org/cardsession1"
CARD: Final = f"{NAME}.Card"
READER: Final = f"{NAME}.Reader"
SESSION: Final = f"{NAME}.Session"
_BUS: Final = "org.freedesktop.DBus"
_OBJECTS: Final = f"{_BUS}.ObjectManager"
_PROPERTIES: Final = f"{_BUS}.Properties"
STEP_SECONDS: Final = 30.0


@dataclass(slots=True)
class Follower:
    """Walks along a monitor's messages, each once.

    `objects` is path → interface → property → value as told so far; `owner` the unique name that
    owns NAME, "" before. A signal of ours from anybody else is an error: StackError.
    """

    monitor: Monitor
    owner: str = ""
    objects: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    position: int = -1
    hopeless: Callable[[], str] = str
    """Why nothing more can come (a part has ended); "" while it can."""

    def until(
        self, what: str, wanted: Callable[[Message], bool], seconds: float = STEP_SECONDS
    ) -> tuple[Message, list[Message]]:
        """Take messages until one is `wanted`; that one, and those passed on the way to it.

        `wanted` is asked after the message was folded in. StackError if it does not come.
        """
        passed: list[Message] = []

        def take(message: Message) -> bool:
            self.position = message.number
            self._fold(message)
            if wanted(message):
                return True
            passed.append(message)
            return False

        found = self.monitor.find(
            what, take, after=self.position, seconds=seconds, hopeless=self.hopeless
        )
        return found, passed

    def property(self, path: str, interface: str, name: str) -> Any:
        """A property as last told; None if never."""
        return self.objects.get(path, {}).get(interface, {}).get(name)

    def _fold(self, message: Message) -> None:
        if message.type != "signal":
            return
        if message.name == f"{_BUS}.NameOwnerChanged" and message.body[0] == NAME:
            self.owner = message.body[2]
        if message.sender == _BUS or not message.path.startswith(ROOT):
            return
        if not self.owner or message.sender != self.owner:
            raise StackError(f"{message.name} from {message.sender}, who does not own {NAME}")
        self._fold_ours(message)

    def _fold_ours(self, message: Message) -> None:
        if message.name == f"{_OBJECTS}.InterfacesAdded":
            path, interfaces = message.body
            self.objects.setdefault(path, {}).update(interfaces)
        elif message.name == f"{_OBJECTS}.InterfacesRemoved":
            path, gone = message.body
            left = {k: v for k, v in self.objects.pop(path, {}).items() if k not in gone}
            if left:
                self.objects[path] = left
        elif message.name == f"{_PROPERTIES}.PropertiesChanged":
            interface, changed, invalidated = message.body
            known = self.objects.setdefault(message.path, {}).setdefault(interface, {})
            known.update(changed)
            for name in invalidated:
                known.pop(name, None)


def added(interface: str) -> Callable[[Message], bool]:
    """An object with `interface` appears."""
    return lambda m: m.name == f"{_OBJECTS}.InterfacesAdded" and interface in m.body[1]


def removed(path: str, interface: str) -> Callable[[Message], bool]:
    """`interface` of the object at `path` disappears."""
    return lambda m: (
        m.name == f"{_OBJECTS}.InterfacesRemoved" and m.body[0] == path and interface in m.body[1]
    )


def changed(message: Message, path: str, interface: str, name: str) -> Any:
    """The new value of a property if `message` is the signal of its change, else None."""
    if message.name != f"{_PROPERTIES}.PropertiesChanged" or message.path != path:
        return None
    return message.body[1].get(name) if message.body[0] == interface else None


def call(interface: str, member: str) -> Callable[[Message], bool]:
    """A method call to us."""
    return lambda m: m.type == "method_call" and m.name == f"{interface}.{member}"


def reply_to(request: Message) -> Callable[[Message], bool]:
    """The answer to `request`, a return or an error."""
    return lambda m: (
        m.type in ("method_return", "error", "method_error")
        and m.destination == request.sender
        and m.reply_cookie == request.cookie
    )

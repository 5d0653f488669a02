"""Which signals are wanted: match rules, and who owns the names that they speak of.

A match rule only asks the bus to send more. Anybody may also send us a signal directly, so every
signal is checked here again; for a well-known name that takes knowing its owner at that moment.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields

from .model import BusError, Signal

DRIVER = "org.freedesktop.DBus"
"""The bus itself: its name and its interface."""


@dataclass(frozen=True, slots=True)
class Match:
    """A match rule for signals ("Match Rules"); None is anything."""

    sender: str | None = None
    interface: str | None = None
    member: str | None = None
    path: str | None = None
    path_namespace: str | None = None
    arg0: str | None = None

    @property
    def rule(self) -> str:
        """The rule as AddMatch wants it."""
        keys = ((field.name, getattr(self, field.name)) for field in fields(self))
        pairs = (f",{key}={_quoted(value)}" for key, value in keys if value is not None)
        return "type='signal'" + "".join(pairs)

    def wants(self, signal: Signal, sender: str | None) -> bool:
        """Does the signal match? `sender` is the unique name that our sender stands for now."""
        return (
            (self.sender is None or signal.sender == sender)
            and self.interface in {None, signal.interface}
            and self.member in {None, signal.member}
            and self.path in {None, signal.path}
            and self._in_namespace(signal.path)
            and (self.arg0 is None or (signal.signature[:1] == "s" and signal.body[0] == self.arg0))
        )

    def _in_namespace(self, path: str) -> bool:
        if self.path_namespace in {None, "/", path}:
            return True
        return path.startswith(f"{self.path_namespace}/")


def _quoted(value: str) -> str:
    escaped = value.replace("'", "'\\''")
    return f"'{escaped}'"


def is_well_known(name: str) -> bool:
    """Is it a name whose owner can change?"""
    return not name.startswith(":") and name != DRIVER


def owner_match(name: str) -> Match:
    """The rule for changes of a name's owner."""
    return Match(sender=DRIVER, interface=DRIVER, member="NameOwnerChanged", path=None, arg0=name)


class Owners:
    """The owners of the well-known names that somebody listens to.

    `ask` is a method call to the bus driver: (member, signature, body) -> the reply's body.
    """

    def __init__(
        self, ask: Callable[[str, str, tuple[str, ...]], Awaitable[tuple[str, ...]]]
    ) -> None:
        self._ask = ask
        self._users: dict[str, int] = {}
        self._owners: dict[str, str | None] = {}

    def resolve(self, name: str | None) -> str | None:
        """The unique name behind a sender in a rule; None if there is none."""
        if name is None or not is_well_known(name):
            return name
        return self._owners.get(name)

    def update(self, signal: Signal) -> None:
        """Take note of a NameOwnerChanged from the bus driver."""
        name, _, new = signal.body
        if name in self._users:
            self._owners[name] = new or None

    async def follow(self, name: str) -> None:
        """Start to know a name's owner; balanced by unfollow, even if it raises."""
        self._users[name] = self._users.get(name, 0) + 1
        await self._ask("AddMatch", "s", (owner_match(name).rule,))
        try:
            (owner,) = await self._ask("GetNameOwner", "s", (name,))
        except BusError:
            return
        # A change heard of since then is newer than this answer.
        self._owners.setdefault(name, owner)

    def unfollow(self, name: str) -> str:
        """Balance one follow; returns the rule that is to be removed."""
        self._users[name] -= 1
        if not self._users[name]:
            del self._users[name]
            self._owners.pop(name, None)
        return owner_match(name).rule

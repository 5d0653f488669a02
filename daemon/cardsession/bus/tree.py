"""The object tree: what each object's properties are now, and the signals that say so.

Getters read snapshots and cannot fail. Signals leave in the order of what happened, property
changes of one object coalesced to its latest state; none leaves before `open`, for a signal that
is sent before the name is ours escapes the receive policy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from . import contract
from .connection import Variant
from .contract import Emits

Values = Mapping[str, Any]
Emit = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal that waits for its turn."""

    path: str
    interface: str
    member: str
    body: tuple[Any, ...]
    farewell: bool = False
    """Whether it must not overtake the reply to a call that ended with what it tells."""


@dataclass(frozen=True, slots=True)
class Added:
    """An object that is not announced yet."""

    path: str


@dataclass(slots=True)
class Changed:
    """Properties of one object that changed since they were last told."""

    path: str
    interface: str
    names: dict[str, None]


class Tree:
    """Objects by path, each with one interface of the contract beside the standard ones."""

    def __init__(self, emit: Emit, later: Callable[[Callable[[], None]], object]) -> None:
        self._emit = emit
        self._later = later
        self._objects: dict[str, dict[str, dict[str, Any]]] = {}
        self._waiting: list[Signal | Added | Changed] = []
        self._scheduled = False
        self._open = False

    def open(self) -> None:
        """From here on signals leave; what is there already is found by listing."""
        self._waiting.clear()
        self._open = True

    # objects

    def put(self, path: str, interface: str, values: Values) -> None:
        """Show an object, or what changed of it."""
        known = self._objects.get(path, {}).get(interface)
        if known is None:
            self._objects.setdefault(path, {})[interface] = dict(values)
            self._queue(Added(path))
            return
        changed = {name: None for name, value in values.items() if known[name] != value}
        known.update(values)
        told = {name: None for name in changed if _told(interface, name)}
        if told:
            self._queue_change(path, interface, told)

    def remove(self, path: str) -> None:
        """Take an object away; what waits to be told of it is told as it was, in its place."""
        self._waiting = [
            self._as_signal(entry)
            if not isinstance(entry, Signal) and entry.path == path
            else entry
            for entry in self._waiting
        ]
        interfaces = list(self._objects.pop(path, ()))
        if interfaces:
            body = (path, [*interfaces, *contract.STANDARD])
            self._signal_from_root("InterfacesRemoved", body, farewell=True)

    def signal(
        self, path: str, interface: str, member: str, body: tuple[Any, ...], *, farewell: bool
    ) -> None:
        """Send a signal of the contract in its turn."""
        self._queue(Signal(path, interface, member, body, farewell))

    def interfaces(self, path: str) -> list[str]:
        """An object's interfaces, its own first; empty if there is no such object."""
        own = list(self._objects.get(path, ()))
        if not own:
            return []
        standard = list(contract.STANDARD)
        return [*own, *standard, *([contract.OBJECT_MANAGER] if path == contract.ROOT else [])]

    def children(self, path: str) -> list[str]:
        """Names of the nodes below a path."""
        prefix = path.rstrip("/") + "/"
        below = (known[len(prefix) :] for known in self._objects if known.startswith(prefix))
        return sorted({rest.split("/", 1)[0] for rest in below})

    def properties(self, path: str, interface: str) -> dict[str, Variant] | None:
        """All properties of one interface; None if the object does not have it."""
        values = self._objects.get(path, {}).get(interface)
        return None if values is None else _variants(interface, values, values)

    def managed(self) -> dict[str, dict[str, dict[str, Variant]]]:
        """Every object below the root, as GetManagedObjects tells it."""
        return {path: self._all(path) for path in self._objects if path != contract.ROOT}

    # signals

    def flush(self) -> None:
        """Everything that waits, in order."""
        self._scheduled = False
        while self._waiting:
            self._send(self._waiting.pop(0))

    def flush_before_reply(self) -> None:
        """What a reply may depend on. Farewells wait: the caller is answered first."""
        while self._waiting:
            first = self._waiting[0]
            if isinstance(first, Signal) and first.farewell:
                return
            self._send(self._waiting.pop(0))

    def _turn(self) -> None:
        """Whoever a farewell concerns was woken in the same turn of the loop: he replies first."""
        self.flush_before_reply()
        if self._waiting:
            self._later(self.flush)
        else:
            self._scheduled = False

    def _queue(self, entry: Signal | Added | Changed) -> None:
        if not self._open:
            return
        self._waiting.append(entry)
        if not self._scheduled:
            self._scheduled = True
            self._later(self._turn)

    def _queue_change(self, path: str, interface: str, names: dict[str, None]) -> None:
        for entry in self._waiting:
            if isinstance(entry, Added) and entry.path == path:
                return  # its announcement will carry the latest values
            if isinstance(entry, Changed) and (entry.path, entry.interface) == (path, interface):
                entry.names.update(names)
                return
        self._queue(Changed(path, interface, names))

    def _send(self, entry: Signal | Added | Changed) -> None:
        match entry:
            case Signal():
                found = contract.interface(entry.interface).signals[entry.member]
                self._emit(entry.path, entry.interface, entry.member, found.signature, entry.body)
            case Added() | Changed():
                self._send(self._as_signal(entry))

    def _as_signal(self, entry: Added | Changed) -> Signal:
        """What waits, with the values of now."""
        path = entry.path
        if isinstance(entry, Added):
            body: tuple[Any, ...] = (path, self._all(path))
            return Signal(contract.ROOT, contract.OBJECT_MANAGER, "InterfacesAdded", body)
        values = self._objects[path][entry.interface]
        body = (entry.interface, _variants(entry.interface, values, entry.names), [])
        return Signal(path, contract.PROPERTIES, "PropertiesChanged", body)

    def _signal_from_root(self, member: str, body: tuple[Any, ...], *, farewell: bool) -> None:
        self.signal(contract.ROOT, contract.OBJECT_MANAGER, member, body, farewell=farewell)

    def _all(self, path: str) -> dict[str, dict[str, Variant]]:
        own = {
            interface: _variants(interface, values, values)
            for interface, values in self._objects[path].items()
        }
        return own | {name: {} for name in contract.STANDARD}


def _variants(interface: str, values: Values, names: Iterable[str]) -> dict[str, Variant]:
    properties = contract.interface(interface).properties
    return {name: Variant(properties[name].signature, values[name]) for name in names}


def _told(interface: str, name: str) -> bool:
    return contract.interface(interface).properties[name].emits is Emits.TRUE

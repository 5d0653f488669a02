"""The service's objects, kept live, and sessions of one's own."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import replace
from typing import Any, Self, TypeVar
from weakref import WeakSet

from cardsession.bus import contract
from cardsession.bus.connection import BusError, BusGone, Connection, Reply, Signal, Variant

from . import records
from .diagnostics import Diagnostics
from .errors import BusLost, BusRefused, CardSessionError, ServiceAbsent, typed
from .records import CardInfo, Certificate, Event, Info, Permission, ReaderInfo, SessionInfo
from .service import Service
from .session import Session

_DRIVER = "org.freedesktop.DBus"
_MAX_EVENTS = 4096
_MAX_ENDS = 256
_SERVICE_GONE = "service-gone"
_BUS_LOST = "bus-lost"
_UNKNOWN = "unknown"

_Kind = TypeVar("_Kind", records.ManagerInfo, ReaderInfo, CardInfo, SessionInfo)


class Events(AsyncIterator[Event]):
    """What happens from now on, until the client is closed. Raises BusLost if the bus is."""

    def __init__(self) -> None:
        self._waiting: deque[Event] = deque()
        self._some = asyncio.Event()
        self._end: BaseException | None = None

    def put(self, event: Event) -> None:
        """Told by the client."""
        if len(self._waiting) >= _MAX_EVENTS:
            self._waiting.clear()
            event = records.Lost()
        self._waiting.append(event)
        self._some.set()

    def finish(self, end: BaseException) -> None:
        """Told by the client: nothing more comes."""
        self._end = self._end or end
        self._some.set()

    async def __anext__(self) -> Event:
        while not self._waiting:
            if self._end is not None:
                raise self._end
            self._some.clear()
            await self._some.wait()
        return self._waiting.popleft()


class CardSessionClient:
    """One connection to the service. Sessions opened here end with it."""

    def __init__(self, connection: Connection) -> None:
        """Use `open`."""
        self._connection = connection
        self._service = Service(connection)
        self.diagnostics = Diagnostics(self._service)
        self._objects: dict[str, Info] = {}
        self._present = False
        self._early: list[Signal] | None = []
        """Signals that wait for the listing on which they build; None when there is one."""
        self._listing: asyncio.Task[None] | None = None
        self._owner_order = 0
        self._events: WeakSet[Events] = WeakSet()
        self._sessions: dict[str, Session] = {}
        self._ends: OrderedDict[str, str] = OrderedDict()
        connection.closed.add_done_callback(self._on_closed)

    @classmethod
    async def open(cls, address: str | None = None, *, require: bool = True) -> Self:
        """Connect and list the objects. Raises BusRefused, ServiceAbsent, CardSessionError.

        Without `require` an absent service is waited for: its coming is the event ServiceBack.
        """
        try:
            connection = await Connection.open(address)
        except BusGone as error:
            raise BusRefused(str(error)) from None
        client = cls(connection)
        try:
            await client._follow(require)
        except BaseException:
            await connection.close()
            raise
        return client

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Disconnect; open sessions end."""
        for events in self._events:
            events.finish(StopAsyncIteration())
        if self._listing is not None:
            self._listing.cancel()
        await self._connection.close()

    # -- what there is

    @property
    def unique_name(self) -> str:
        """This client's name on the bus, which its sessions have as their owner."""
        return self._connection.unique_name

    @property
    def present(self) -> bool:
        """Is the service there, and listed?"""
        return self._present

    @property
    def manager(self) -> records.ManagerInfo | None:
        """The service itself; None while it is absent."""
        found = self._objects.get(contract.ROOT)
        return found if isinstance(found, records.ManagerInfo) else None

    def readers(self) -> tuple[ReaderInfo, ...]:
        """The readers now."""
        return self._all(ReaderInfo)

    def cards(self) -> tuple[CardInfo, ...]:
        """The cards now."""
        return self._all(CardInfo)

    def sessions(self) -> tuple[SessionInfo, ...]:
        """The sessions now, other programs' too."""
        return self._all(SessionInfo)

    def get(self, path: str) -> Info | None:
        """The object at a path."""
        return self._objects.get(path)

    def events(self) -> Events:
        """What happens after this call. Any number may be iterated at a time."""
        events = Events()
        self._events.add(events)
        if self._connection.closed.done():
            events.finish(BusLost("disconnected"))
        return events

    async def refresh(self, path: str) -> Info | None:
        """Read an object's properties anew, those whose changes are not signalled included."""
        info = self._objects.get(path)
        if info is None:
            return None
        interface = _interface(info)
        reply = await self._service.call(path, contract.PROPERTIES, "GetAll", interface)
        self._update(path, interface, reply.body[0])
        return self._objects.get(path)

    # -- what one does

    async def open_session(  # noqa: PLR0913 (options, by keyword)
        self,
        card: str,
        purpose: str,
        *,
        wait_usec: int | None = None,
        idle_usec: int | None = None,
        used_by: str | None = None,
        replace: bool = False,
    ) -> Session:
        """Open a session on a card (its path). Raises Busy, UsedByRequired, ..."""
        asked = {
            "wait-usec": None if wait_usec is None else Variant("t", wait_usec),
            "idle-usec": None if idle_usec is None else Variant("t", idle_usec),
            "used-by": None if used_by is None else Variant("s", used_by),
            "replace": Variant("b", True) if replace else None,
        }
        options = {name: value for name, value in asked.items() if value is not None}
        reply = await self._service.call(card, contract.CARD, "OpenSession", purpose, options)
        session = Session(self._service, reply.body[0], self._session)
        if session.path in self._ends:  # it ended before we came to know of it
            session.finish(self._ends[session.path])
        elif self._connection.closed.done():
            session.finish(_BUS_LOST)
        else:
            self._sessions[session.path] = session
        return session

    async def list_certificates(self, card: str) -> tuple[Certificate, ...]:
        """The certificates on a card."""
        reply = await self._service.call(card, contract.CARD, "ListCertificates")
        return tuple(Certificate(*each) for each in reply.body[0])

    async def get_certificate(self, card: str, slot: str) -> bytes:
        """A certificate, DER."""
        reply = await self._service.call(card, contract.CARD, "GetCertificate", slot)
        return bytes(reply.body[0])

    async def check_function(self, function: str, session: str = contract.NO_OBJECT) -> Permission:
        """May this client use an EPS function now?"""
        reply = await self._service.call(
            contract.ROOT, contract.MANAGER, "CheckFunction", function, session
        )
        return Permission(*reply.body)

    # -- keeping live

    async def _follow(self, require: bool) -> None:
        """Subscribe, then list: what happens in between waits in `_early`."""
        try:
            await self._connection.subscribe(
                self._on_owner, sender=_DRIVER, interface=_DRIVER, member="NameOwnerChanged",
                arg0=contract.BUS_NAME,
            )  # fmt: skip
            await self._connection.subscribe(
                self._on_signal, sender=contract.BUS_NAME, path_namespace=contract.ROOT
            )
        except BusGone as error:
            raise BusLost(str(error)) from None
        except BusError as error:
            raise typed(error) from None
        with nullcontext() if require else suppress(ServiceAbsent):
            await self._list()
        if self._listing is not None:  # the service came, or changed, while we asked
            await asyncio.wait([self._listing])
        if require and not self._present:
            raise ServiceAbsent("the service has just gone")

    async def _list(self) -> None:
        """The objects, and the manager: it is where they are listed, not among them."""
        call = self._service.call
        manager = await call(contract.ROOT, contract.PROPERTIES, "GetAll", contract.MANAGER)
        listing = await call(contract.ROOT, contract.OBJECT_MANAGER, "GetManagedObjects")
        self._take(manager, listing)

    def _take(self, manager: Reply, listing: Reply) -> None:
        if self._early is None or manager.order < self._owner_order:
            return  # there is a listing, or this one is of a service that has gone since
        was_absent, self._present = not self._present, True
        if was_absent:
            self._tell(records.ServiceBack())
        self._objects.clear()
        self._add(contract.ROOT, {contract.MANAGER: manager.body[0]})
        for path, interfaces in listing.body[0].items():
            self._add(path, interfaces)
        early, self._early = self._early or [], None
        for signal in early:
            its_own = signal.path == contract.ROOT and signal.interface == contract.PROPERTIES
            if signal.order > (manager if its_own else listing).order:
                self._on_signal(signal)  # the others are in the listing already

    def _on_owner(self, signal: Signal) -> None:
        _, old, new = signal.body
        self._owner_order = signal.order
        if self._listing is not None:
            self._listing.cancel()
            self._listing = None
        if old:
            self._vanish(_SERVICE_GONE)
            self._tell(records.ServiceGone())
        if new:
            self._early = []
            self._listing = asyncio.get_running_loop().create_task(self._list_again())

    async def _list_again(self) -> None:
        with suppress(CardSessionError):  # gone again: its next coming will be heard
            await self._list()

    def _on_signal(self, signal: Signal) -> None:
        if self._early is not None:
            if len(self._early) < _MAX_EVENTS:
                self._early.append(signal)
            return
        match (signal.interface, signal.member):
            case (contract.OBJECT_MANAGER, "InterfacesAdded"):
                self._add(*signal.body)
            case (contract.OBJECT_MANAGER, "InterfacesRemoved"):
                self._remove(*signal.body)
            case (contract.PROPERTIES, "PropertiesChanged"):
                interface, changed, _ = signal.body
                self._update(signal.path, interface, changed)
            case (contract.SESSION, "Ended"):
                reason, detail = signal.body
                self._end_session(signal.path, reason)
                self._tell(records.Ended(signal.path, reason, records.plain(detail)))
            case (contract.MANAGER, "CardReady"):
                self._tell(records.CardReady(*signal.body))
            case (contract.MANAGER, "CardGone"):
                self._tell(records.CardGone(*signal.body))
            case (contract.DIAGNOSTICS, "Exchange"):
                self._tell(records.Exchange(*signal.body))

    def _add(self, path: str, interfaces: Mapping[str, Mapping[str, Any]]) -> None:
        for name, properties in interfaces.items():
            if kind := records.KINDS.get(name):
                info = kind(path, **records.values(kind, properties))
                self._objects[path] = info
                self._tell(records.Added(info))

    def _remove(self, path: str, interfaces: list[str]) -> None:
        info = self._objects.get(path)
        if info is not None and _interface(info) in interfaces:
            del self._objects[path]
            self._end_session(path, _UNKNOWN)
            self._tell(records.Removed(info))

    def _update(self, path: str, interface: str, changed: Mapping[str, Any]) -> None:
        info = self._objects.get(path)
        if info is None or _interface(info) != interface:
            return
        found = records.values(type(info), changed)
        names = frozenset(name for name, value in found.items() if getattr(info, name) != value)
        if names:
            self._objects[path] = replace(info, **found)
            self._tell(records.Changed(self._objects[path], names))

    def _end_session(self, path: str, reason: str) -> None:
        """Remember why, for a session of ours whose opening is still to be told to us."""
        if path.startswith(f"{contract.SESSIONS}/"):
            self._ends.setdefault(path, reason)
            if len(self._ends) > _MAX_ENDS:
                self._ends.popitem(last=False)
        if (session := self._sessions.pop(path, None)) is not None:
            session.finish(reason)

    def _vanish(self, reason: str) -> None:
        self._present = False
        self._early = []
        self._objects.clear()
        self._ends.clear()  # a new service counts its sessions from the beginning
        for session in self._sessions.values():
            session.finish(reason)
        self._sessions.clear()

    def _on_closed(self, _: object) -> None:
        self._vanish(_BUS_LOST)
        for events in self._events:
            events.finish(BusLost("disconnected"))

    def _tell(self, event: Event) -> None:
        for events in tuple(self._events):
            events.put(event)

    def _session(self, path: str) -> SessionInfo | None:
        found = self._objects.get(path)
        return found if isinstance(found, SessionInfo) else None

    def _all(self, kind: type[_Kind]) -> tuple[_Kind, ...]:
        return tuple(info for info in self._objects.values() if isinstance(info, kind))


def _interface(info: Info) -> str:
    return next(name for name, kind in records.KINDS.items() if isinstance(info, kind))

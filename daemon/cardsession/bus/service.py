"""The contract, served: what the desks show as objects, what callers ask as requests.

A call is dispatched by (interface, member) of the XML; a method of the contract that is not
built yet answers `NotSupported`.
"""

from __future__ import annotations

import asyncio
import grp
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from structlog import get_logger

from cardsession.core import policy
from cardsession.core.errors import Failure, Problem
from cardsession.core.facts import Backend, CardFacts, EndReason, SessionFacts, SessionState
from cardsession.core.text import clean
from cardsession.core.tries import left
from cardsession.ports import Caller, Requests

from . import arguments, contract, values
from .connection import Answer, Call, Connection, Refusal, Variant
from .contract import ErrorName
from .lifetimes import Lifetimes
from .owners import Owners
from .secrets import Source
from .standard import Standard
from .tree import Tree

log = get_logger(__name__)

Method = Callable[[Call, str], Awaitable[tuple[Any, ...]]]
MAX_LIFETIMES = 8
"""Descriptors are what a daemon runs out of first."""
_DIGITS = 18
ADMINISTRATORS = "cardsession-admin"


class Service:
    """The object tree on the bus (a `Publisher`), and the methods of its objects."""

    def __init__(self, connection: Connection, version: str, limits: tuple[int, int]) -> None:
        """`limits`: idle and total seconds of a session, as the Manager publishes them."""
        self._connection = connection
        self._requests: Requests
        self._spend_last_try = "caller"
        self._tree = Tree(connection.emit, asyncio.get_running_loop().call_soon)
        self._standard = Standard(self._tree)
        self._owners = Owners(connection, self._caller_gone)
        self._lifetimes = Lifetimes(self._lifetime_closed)
        self._chores: set[asyncio.Task[None]] = set()
        self._tree.put(contract.ROOT, contract.MANAGER, _manager(version, limits))
        self._tree.put(contract.ROOT, contract.DIAGNOSTICS, {})
        self._methods: dict[tuple[str, str], Method] = {
            (contract.MANAGER, "ListReaders"): self._list_readers,
            (contract.MANAGER, "ListSessions"): self._list_sessions,
            (contract.MANAGER, "CheckFunction"): self._check_function,
            (contract.CARD, "OpenSession"): self._open_session,
            (contract.CARD, "ListCertificates"): self._list_certificates,
            (contract.CARD, "GetCertificate"): self._get_certificate,
            (contract.SESSION, "VerifyPin"): self._verify_pin,
            (contract.SESSION, "QueryPin"): self._query_pin,
            (contract.SESSION, "TakeLifetime"): self._take_lifetime,
            (contract.SESSION, "KeepAlive"): self._keep_alive,
            (contract.SESSION, "Lock"): self._lock,
            (contract.SESSION, "Close"): self._close,
            (contract.DIAGNOSTICS, "EndSession"): self._end_session,
        }

    async def start(self, requests: Requests, *, spend_last_try: str) -> None:
        """Answer calls, own the name, and only then let signals out.

        `spend_last_try`: who may consent to it (`caller`, `admin`, `never`).
        """
        self._requests = requests
        self._spend_last_try = spend_last_try
        self._connection.serve(self._handle, self._tree.flush_before_reply)
        await self._connection.own_name(contract.BUS_NAME)
        self._tree.open()

    # a Publisher

    def show(self, facts: values.Facts) -> None:
        """Announce an object, or what changed of it."""
        interface, properties = values.describe(facts)
        self._tree.put(values.path_of(facts), interface, properties)

    def withdraw(self, facts: values.Facts) -> None:
        """Take an object away."""
        self._tree.remove(values.path_of(facts))

    def ended(self, session: SessionFacts, detail: Mapping[str, Any]) -> None:
        """Tell that a session is over."""
        self._lifetimes.drop(session.number)
        told = {key: Variant("s", str(value)) for key, value in detail.items()}
        path, body = values.path_of(session), (session.end_reason, told)
        self._tree.signal(path, contract.SESSION, "Ended", body, farewell=True)
        self._chore(self._owners.release(session.owner))

    def card_ready(self, card: CardFacts) -> None:
        """Tell that a card is read."""
        body = (values.path_of(card), values.reader_path(card.reader_id))
        self._tree.signal(contract.ROOT, contract.MANAGER, "CardReady", body, farewell=False)

    def card_gone(self, card: CardFacts, reason: str) -> None:
        """Tell that a card is not there any more."""
        body = (values.path_of(card), values.reader_path(card.reader_id), reason)
        self._tree.signal(contract.ROOT, contract.MANAGER, "CardGone", body, farewell=True)

    def backend(self, state: Backend) -> None:
        """The card service's state."""
        self._tree.put(contract.ROOT, contract.MANAGER, {"Backend": str(state)})

    # dispatch

    async def _handle(self, call: Call) -> Answer:
        interface = self._interface_of(call)
        method = contract.interface(interface).methods.get(call.member)
        if method is None:
            raise Refusal(ErrorName.UNKNOWN_METHOD, f"{interface} has no such method")
        if call.signature != method.in_signature:
            text = f"{call.member}: signature {method.in_signature!r} was expected"
            raise Refusal(ErrorName.INVALID_ARGS, text)
        if interface in contract.STANDARD or interface == contract.OBJECT_MANAGER:
            return Answer(method.out_signature, self._standard.answer(interface, call))
        run = self._methods.get((interface, call.member))
        try:
            if run is None:
                raise Failure(Problem.NOT_SUPPORTED, f"{call.member} is not built yet")
            return await self._run(run, call, method.out_signature)
        except Failure as failure:
            raise _refusal(failure) from None

    def _interface_of(self, call: Call) -> str:
        """The call's interface, or the only one of the object that has such a method."""
        has = self._tree.interfaces(call.path) or self._interfaces_once_at(call.path)
        if call.interface is None:
            found = contract.interfaces_with_method(call.member, has)
            if not found or contract.DIAGNOSTICS in found:
                raise Refusal(ErrorName.UNKNOWN_METHOD, "no such method")
            return found[0]
        if call.interface not in has:
            missing = self._tree.interfaces(call.path)
            name = ErrorName.UNKNOWN_INTERFACE if missing else ErrorName.UNKNOWN_OBJECT
            raise Refusal(name, "there is no such object, or it has no such interface")
        return call.interface

    def _interfaces_once_at(self, path: str) -> list[str]:
        """What an object that is gone had: its calls answer with the reason, not with a shrug."""
        parent, _, number = path.rpartition("/")
        known = number.isascii() and number.isdigit() and len(number) <= _DIGITS
        once = known and parent in _NUMBERED
        return [_NUMBERED[parent]] if once else [contract.INTROSPECTABLE]

    async def _run(self, run: Method, call: Call, signature: str) -> Answer:
        body = await run(call, call.path.rsplit("/", 1)[1])
        if signature == "h":
            return Answer("h", (0,), fds=(body[0],))
        return Answer(signature, body)

    # Manager

    async def _list_readers(self, _: Call, __: str) -> tuple[Any, ...]:
        return ([values.path_of(reader) for reader in self._requests.readers()],)

    async def _list_sessions(self, _: Call, __: str) -> tuple[Any, ...]:
        rows = [
            [values.path_of(each), each.owner, each.owner_uid, each.reader_id]
            for each in self._requests.sessions()
        ]
        return (rows,)

    async def _check_function(self, call: Call, _: str) -> tuple[Any, ...]:
        function, path = call.body
        if function in policy.FREE_FUNCTIONS:
            return True, ""
        if function not in policy.CARD_FUNCTIONS:
            raise Failure(Problem.NO_SUCH_FUNCTION, "an EPS function was expected")
        asked = [
            session
            for session in self._requests.sessions()
            if path in (contract.NO_OBJECT, values.path_of(session))
        ]
        mine = [session for session in asked if session.owner == call.sender]
        if any(session.state is SessionState.ACTIVE for session in mine):
            return True, ""
        if mine:
            return False, f"session-{mine[0].state}"
        return False, "not-owner" if asked and path != contract.NO_OBJECT else "no-session"

    # Card

    async def _open_session(self, call: Call, number: str) -> tuple[Any, ...]:
        purpose, options = call.body
        request = arguments.open_request(purpose, options)
        known = await self._owners.hold(call.sender)  # the session's from here on: see `ended`
        try:
            caller = Caller(call.sender, known.uid)
            session = await self._requests.open_session(int(number), caller, request)
        except BaseException:
            await self._owners.release(call.sender)
            raise
        if self._owners.left(call.sender):
            self._requests.caller_gone(call.sender)  # between two turns of the loop
        return (f"{contract.SESSIONS}/{session}",)

    async def _list_certificates(self, _: Call, number: str) -> tuple[Any, ...]:
        found = self._requests.card(int(number)).certificates
        rows = [
            [slot, each.subject, each.not_before, each.not_after]
            for slot, each in sorted(found.items())
        ]
        return (rows,)

    async def _get_certificate(self, call: Call, number: str) -> tuple[Any, ...]:
        slot = arguments.label(call.body[0])
        found = self._requests.card(int(number)).certificates.get(slot)
        if found is None:
            raise Failure(Problem.NO_SUCH_SLOT, "the card has no certificate in that slot")
        return (found.der,)

    # Session

    async def _verify_pin(self, call: Call, number: str) -> tuple[Any, ...]:
        label, index, options = call.body
        consent = arguments.consent(options)
        caller = self._caller(call, number)
        if consent.spend_last_try and not await self._may_spend_last_try(call.sender):
            raise Failure(Problem.NOT_AUTHORIZED, "spend-last-try is not granted to this caller")
        label = arguments.label(label)
        source = Source(call.take_fd(index))
        try:
            verdict = await self._requests.verify(int(number), caller, label, source.read, consent)
        finally:
            source.close()
        return str(verdict.outcome), _count(verdict.left)

    async def _query_pin(self, call: Call, number: str) -> tuple[Any, ...]:
        label = arguments.label(call.body[0])
        status = await self._requests.query(int(number), self._caller(call, number), label)
        return values.pin_state(status), _count(left(status))

    async def _take_lifetime(self, call: Call, number: str) -> tuple[Any, ...]:
        self._caller(call, number)
        if self._lifetimes.count(int(number)) >= MAX_LIFETIMES:
            text = f"a session has at most {MAX_LIFETIMES} lifetimes"
            raise Refusal(ErrorName.LIMITS_EXCEEDED, text)
        return (self._lifetimes.take(int(number)),)

    async def _keep_alive(self, call: Call, number: str) -> tuple[Any, ...]:
        await self._requests.keep_alive(int(number), self._caller(call, number))
        return ()

    async def _lock(self, call: Call, number: str) -> tuple[Any, ...]:
        await self._requests.lock(int(number), self._caller(call, number))
        return ()

    async def _close(self, call: Call, number: str) -> tuple[Any, ...]:
        self._caller(call, number)
        await self._requests.end(int(number), EndReason.CLOSED)
        self._tree.flush()  # whoever closed it finds it gone
        return ()

    def _caller(self, call: Call, number: str) -> Caller:
        """The owner of the session, or a refusal."""
        session = self._requests.session(int(number))
        if session.owner != call.sender:
            raise Failure(Problem.NOT_OWNER, "the session belongs to another connection")
        return Caller(session.owner, session.owner_uid)

    async def _may_spend_last_try(self, sender: str) -> bool:
        if self._spend_last_try != "admin":
            return self._spend_last_try == "caller"
        return await self._administers(sender)

    # Diagnostics

    async def _end_session(self, call: Call, _: str) -> tuple[Any, ...]:
        path, why = call.body
        if not await self._administers(call.sender):
            raise Failure(Problem.NOT_AUTHORIZED, f"only group {ADMINISTRATORS} may do this")
        parent, _, number = path.rpartition("/")
        if parent != contract.SESSIONS or not number.isdigit() or len(number) > _DIGITS:
            raise Failure(Problem.INVALID_ARGS, "session: a session's object path was expected")
        self._requests.session(int(number))
        log.info("session.forced", session=int(number), why=clean(why), sender=call.sender)
        await self._requests.end(int(number), EndReason.FORCED)
        self._tree.flush()
        return ()

    async def _administers(self, sender: str) -> bool:
        """Checked here too: a bus policy is a file that somebody may edit."""
        known = await self._owners.credentials(sender)
        groups = known.groups or ()
        return known.uid in (0, os.getuid()) or _administrators() in groups

    # those who left

    def _caller_gone(self, name: str) -> None:
        self._requests.caller_gone(name)

    def _lifetime_closed(self, session: int) -> None:
        self._chore(self._requests.end(session, EndReason.LIFETIME_CLOSED))

    def _chore(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)


_NUMBERED = {
    contract.CARDS: contract.CARD,
    contract.SESSIONS: contract.SESSION,
}


def _count(count: int | None) -> int:
    return -1 if count is None else count


def _administrators() -> int | None:
    try:
        return grp.getgrnam(ADMINISTRATORS).gr_gid
    except KeyError:
        return None


def _refusal(failure: Failure) -> Refusal:
    if failure.problem is Problem.INVALID_ARGS:
        return Refusal(ErrorName.INVALID_ARGS, failure.text)
    return Refusal(f"{contract.BUS_NAME}.Error.{failure.problem}", failure.text)


def _manager(version: str, limits: tuple[int, int]) -> dict[str, Any]:
    idle, age = limits
    return {
        "Version": version,
        "ApiLevel": contract.API_LEVEL,
        "Backend": str(Backend.STARTING),
        "Hotplug": "pcsc-only",
        "RemovalPolicy": "end",
        "IdleUSec": idle * 1_000_000,
        "MaxAgeUSec": age * 1_000_000,
    }

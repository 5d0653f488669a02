"""The contract, served: what the desks show as objects, what callers ask as requests.

A call is dispatched by (interface, member) of the XML to the module of its interface; a method of
the contract that is not built yet answers `NotSupported`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any

from cardsession.core.errors import Failure, Problem
from cardsession.core.facts import Backend, CardFacts, EndReason, Hotplug, SessionFacts
from cardsession.ports import Requests

from . import contract, values
from .calls import Method, Methods, number_of
from .card_calls import CardCalls
from .connection import Answer, Call, Connection, Refusal, Variant
from .contract import ErrorName
from .diagnostics_calls import DiagnosticsCalls
from .lifetimes import Lifetimes
from .manager_calls import ManagerCalls
from .owners import Owners
from .rights import Rights
from .session_calls import SessionCalls
from .standard import Standard
from .tree import Tree

FENCE_SECONDS = 0.2


class Service:
    """The object tree on the bus (a `Publisher`), and the dispatch of calls to its objects."""

    def __init__(self, connection: Connection, constants: values.Constants) -> None:
        self._connection = connection
        self._requests: Requests
        self._methods: Mapping[str, Methods] = {}
        self._tree = Tree(connection.emit, asyncio.get_running_loop().call_soon)
        self._standard = Standard(self._tree)
        self._owners = Owners(connection, self._caller_gone)
        self._lifetimes = Lifetimes(self._lifetime_closed)
        self._chores: set[asyncio.Task[None]] = set()
        self._tree.put(contract.ROOT, contract.MANAGER, values.manager(constants))
        self._tree.put(contract.ROOT, contract.DIAGNOSTICS, {})

    async def start(self, requests: Requests, *, spend_last_try: str) -> None:
        """Answer calls, own the name, and only then let signals out.

        `spend_last_try`: who may consent to it (`caller`, `admin`, `never`).
        """
        self._requests = requests
        rights, flush = Rights(self._owners, spend_last_try), self._tree.flush
        self._methods = {
            contract.MANAGER: ManagerCalls(requests).methods(),
            contract.CARD: CardCalls(requests, self._owners).methods(),
            contract.SESSION: SessionCalls(requests, rights, self._lifetimes, flush).methods(),
            contract.DIAGNOSTICS: DiagnosticsCalls(requests, rights, flush).methods(),
        }
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

    def hotplug(self, state: Hotplug) -> None:
        """How readers are seen to come and go."""
        self._tree.put(contract.ROOT, contract.MANAGER, {"Hotplug": str(state)})

    async def fence(self) -> None:
        """A question to the bus itself: calls that it took before come before its answer."""
        await self._connection.round_trip(FENCE_SECONDS)

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
        run = self._methods.get(interface, {}).get(call.member)
        try:
            if run is None:
                raise Failure(Problem.NOT_SUPPORTED, f"{call.member} is not built yet")
            return await _run(run, call, method.out_signature)
        except Failure as failure:
            raise _refusal(failure) from None

    def _interface_of(self, call: Call) -> str:
        """The call's interface, or the only one of the object that has such a method."""
        has = self._tree.interfaces(call.path) or _interfaces_once_at(call.path)
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

    # those who left

    def _caller_gone(self, name: str) -> None:
        self._requests.caller_gone(name)

    def _lifetime_closed(self, session: int) -> None:
        self._chore(self._requests.end(session, EndReason.LIFETIME_CLOSED))

    def _chore(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)


_NUMBERED = {
    contract.CARDS: contract.CARD,
    contract.SESSIONS: contract.SESSION,
}


def _interfaces_once_at(path: str) -> list[str]:
    """What an object that is gone had: its calls answer with the reason, not with a shrug."""
    for parent, interface in _NUMBERED.items():
        if number_of(path, parent) is not None:
            return [interface]
    return [contract.INTROSPECTABLE]


async def _run(run: Method, call: Call, signature: str) -> Answer:
    body = await run(call)
    if signature == "h":
        return Answer("h", (0,), fds=(body[0],))
    return Answer(signature, body)


def _refusal(failure: Failure) -> Refusal:
    if failure.problem is Problem.INVALID_ARGS:
        return Refusal(ErrorName.INVALID_ARGS, failure.text)
    return Refusal(f"{contract.BUS_NAME}.Error.{failure.problem}", failure.text)

"""The methods of a Session: its owner's only, which is the first thing asked of each call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from cardsession.core.errors import Failure, Problem
from cardsession.core.facts import EndReason
from cardsession.core.tries import Act, Outcome, left
from cardsession.ports import Caller, PinRequest, Requests, Verdict

from . import arguments, contract, values
from .calls import Methods, count, number_of
from .contract import ErrorName
from .lifetimes import Lifetimes
from .model import Body, Call, Refusal
from .rights import Rights
from .secrets import Sources

MAX_LIFETIMES = 8
"""Descriptors are what a daemon runs out of first."""


class SessionCalls:
    """PINs, signatures, APDUs, and the session's own life."""

    def __init__(
        self, requests: Requests, rights: Rights, lifetimes: Lifetimes, flush: Callable[[], None]
    ) -> None:
        """`flush`: send every signal that waits."""
        self._requests = requests
        self._rights = rights
        self._lifetimes = lifetimes
        self._flush = flush

    def methods(self) -> Methods:
        """By member."""
        return {
            "VerifyPin": self._verify_pin,
            "QueryPin": self._query_pin,
            "ChangePin": self._change_pin,
            "UnblockPin": self._unblock_pin,
            "Sign": self._sign,
            "SignWithPin": self._sign_with_pin,
            "Transmit": self._transmit,
            "SetContext": self._set_context,
            "TakeLifetime": self._take_lifetime,
            "KeepAlive": self._keep_alive,
            "Lock": self._lock,
            "Close": self._close,
        }

    # PINs

    async def _verify_pin(self, call: Call) -> Body:
        caller = self._owner(call)
        label, secret, options = call.body
        request = arguments.pin_request(Act.VERIFY, label, options)
        return _told(await self._submit(call, caller, request, secret))

    async def _change_pin(self, call: Call) -> Body:
        caller = self._owner(call)
        label, old, new, options = call.body
        request = arguments.pin_request(Act.CHANGE, label, options)
        return _told(await self._submit(call, caller, request, old, new))

    async def _unblock_pin(self, call: Call) -> Body:
        caller = self._owner(call)
        label, puk, new, options = call.body
        request = arguments.pin_request(Act.UNBLOCK, label, options)
        return _told(await self._submit(call, caller, request, puk, new))

    async def _sign_with_pin(self, call: Call) -> Body:
        caller = self._owner(call)
        slot, algorithm, digest, secret, options = call.body
        request = replace(
            arguments.pin_request(Act.VERIFY, "", options),
            signing=arguments.sign_request(slot, algorithm, digest),
        )
        verdict = await self._submit(call, caller, request, secret)
        verified = verdict.outcome is Outcome.VERIFIED
        return *_told(verdict), verdict.signature if verified else b""

    async def _submit(
        self, call: Call, caller: Caller, request: PinRequest, *secrets: int
    ) -> Verdict:
        """One submission of secrets by their places among the call's descriptors."""
        if request.consent.spend_last_try:
            await self._may_spend_last_try(caller)
        if len(set(secrets)) < len(secrets):
            text = "a descriptor of its own was expected for each secret"
            raise Failure(Problem.SECRET_INVALID, text)
        with Sources() as sources:
            for place in secrets:
                sources.add(call.take_fd(place))
            ready = replace(request, reads=sources.reads)
            return await self._requests.submit(_number(call), caller, ready)

    async def _may_spend_last_try(self, caller: Caller) -> None:
        if not await self._rights.may_spend_last_try(caller.name):
            raise Failure(Problem.NOT_AUTHORIZED, "spend-last-try is not granted to this caller")

    async def _query_pin(self, call: Call) -> Body:
        caller = self._owner(call)
        label = arguments.label(call.body[0])
        status = await self._requests.query(_number(call), caller, label)
        return values.pin_state(status), count(left(status))

    # what an active session is for

    async def _sign(self, call: Call) -> Body:
        caller = self._owner(call)
        slot, algorithm, digest, options = call.body
        arguments.no_options(options)
        request = arguments.sign_request(slot, algorithm, digest)
        return (await self._requests.sign(_number(call), caller, request),)

    async def _transmit(self, call: Call) -> Body:
        caller = self._owner(call)
        apdu, options = call.body
        arguments.no_options(options)
        return await self._requests.transmit(_number(call), caller, apdu)

    async def _set_context(self, call: Call) -> Body:
        caller = self._owner(call)
        await self._requests.set_context(_number(call), caller, call.body[0])
        return ()

    # its life

    async def _take_lifetime(self, call: Call) -> Body:
        self._owner(call)
        number = _number(call)
        if self._lifetimes.count(number) >= MAX_LIFETIMES:
            text = f"a session has at most {MAX_LIFETIMES} lifetimes"
            raise Refusal(ErrorName.LIMITS_EXCEEDED, text)
        return (self._lifetimes.take(number),)

    async def _keep_alive(self, call: Call) -> Body:
        await self._requests.keep_alive(_number(call), self._owner(call))
        return ()

    async def _lock(self, call: Call) -> Body:
        await self._requests.lock(_number(call), self._owner(call))
        return ()

    async def _close(self, call: Call) -> Body:
        self._owner(call)
        await self._requests.end(_number(call), EndReason.CLOSED)
        self._flush()  # whoever closed it finds it gone
        return ()

    def _owner(self, call: Call) -> Caller:
        """The owner of the session, or a refusal."""
        session = self._requests.session(_number(call))
        if session.owner != call.sender:
            raise Failure(Problem.NOT_OWNER, "the session belongs to another connection")
        return Caller(session.owner, session.owner_uid)


def _number(call: Call) -> int:
    number = number_of(call.path, contract.SESSIONS)
    if number is None:
        raise Failure(Problem.SESSION_ENDED, "there is no such session")
    return number


def _told(verdict: Verdict) -> tuple[str, int]:
    return str(verdict.outcome), count(verdict.left)

"""The methods of a Card."""

from __future__ import annotations

from cardsession.core.errors import Failure, Problem
from cardsession.ports import Caller, Requests

from . import arguments, contract
from .calls import Methods, number_of
from .model import Body, Call
from .owners import Owners


class CardCalls:
    """A session on it, and its certificates."""

    def __init__(self, requests: Requests, owners: Owners) -> None:
        self._requests = requests
        self._owners = owners

    def methods(self) -> Methods:
        """By member."""
        return {
            "OpenSession": self._open_session,
            "ListCertificates": self._list_certificates,
            "GetCertificate": self._get_certificate,
        }

    async def _open_session(self, call: Call) -> Body:
        purpose, options = call.body
        request = arguments.open_request(purpose, options)
        known = await self._owners.hold(call.sender)  # the session's until it has ended
        try:
            caller = Caller(call.sender, known.uid)
            session = await self._requests.open_session(_number(call), caller, request)
        except BaseException:
            await self._owners.release(call.sender)
            raise
        if self._owners.left(call.sender):
            self._requests.caller_gone(call.sender)  # between two turns of the loop
        return (f"{contract.SESSIONS}/{session}",)

    async def _list_certificates(self, call: Call) -> Body:
        found = self._requests.card(_number(call)).certificates
        rows = [
            [slot, each.subject, each.not_before, each.not_after]
            for slot, each in sorted(found.items())
        ]
        return (rows,)

    async def _get_certificate(self, call: Call) -> Body:
        slot = arguments.label(call.body[0])
        found = self._requests.card(_number(call)).certificates.get(slot)
        if found is None:
            raise Failure(Problem.NO_SUCH_SLOT, "the card has no certificate in that slot")
        return (found.der,)


def _number(call: Call) -> int:
    number = number_of(call.path, contract.CARDS)
    if number is None:
        raise Failure(Problem.CARD_REMOVED, "the card is not in any reader")
    return number

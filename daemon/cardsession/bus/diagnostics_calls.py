"""The methods of Diagnostics, as far as they are built: technicians only."""

from __future__ import annotations

from collections.abc import Callable

from structlog import get_logger

from cardsession.core.errors import Failure, Problem
from cardsession.core.facts import EndReason
from cardsession.core.text import clean
from cardsession.ports import Requests

from . import contract
from .calls import Methods, number_of
from .model import Body, Call
from .rights import ADMINISTRATORS, Rights

log = get_logger(__name__)


class DiagnosticsCalls:
    """Interventions."""

    def __init__(self, requests: Requests, rights: Rights, flush: Callable[[], None]) -> None:
        """`flush`: send every signal that waits."""
        self._requests = requests
        self._rights = rights
        self._flush = flush

    def methods(self) -> Methods:
        """By member."""
        return {"EndSession": self._end_session}

    async def _end_session(self, call: Call) -> Body:
        path, why = call.body
        if not await self._rights.administers(call.sender):
            raise Failure(Problem.NOT_AUTHORIZED, f"only group {ADMINISTRATORS} may do this")
        number = number_of(path, contract.SESSIONS)
        if number is None:
            raise Failure(Problem.INVALID_ARGS, "session: a session's object path was expected")
        self._requests.session(number)
        log.info("session.forced", session=number, why=clean(why), sender=call.sender)
        await self._requests.end(number, EndReason.FORCED)
        self._flush()
        return ()

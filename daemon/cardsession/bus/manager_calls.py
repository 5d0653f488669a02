"""The methods of the Manager."""

from __future__ import annotations

from cardsession.core import policy
from cardsession.ports import Requests

from . import contract, values
from .calls import Methods, number_of
from .model import Body, Call

_NO_SESSION = 0
"""A number that no session has."""


class ManagerCalls:
    """What is there, and what may be done with it."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    def methods(self) -> Methods:
        """By member."""
        return {
            "ListReaders": self._list_readers,
            "ListSessions": self._list_sessions,
            "CheckFunction": self._check_function,
        }

    async def _list_readers(self, _: Call) -> Body:
        return ([values.path_of(reader) for reader in self._requests.readers()],)

    async def _list_sessions(self, _: Call) -> Body:
        rows = [
            [values.path_of(each), each.owner, each.owner_uid, each.reader_id]
            for each in self._requests.sessions()
        ]
        return (rows,)

    async def _check_function(self, call: Call) -> Body:
        function, path = call.body
        number = number_of(path, contract.SESSIONS) or _NO_SESSION
        meant = None if path == contract.NO_OBJECT else number
        return policy.check_function(function, self._requests.sessions(), call.sender, meant)

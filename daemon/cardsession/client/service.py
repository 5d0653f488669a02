"""Calls to the service: signatures from the contract, errors as exceptions, secrets as pipes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from cardsession.bus import contract
from cardsession.bus.connection import BusError, BusGone, Connection, Reply
from cardsession.bus.contract import ErrorName

from .errors import BusLost, ServiceError, typed

MAX_SECRET = 64
"""Longest secret in bytes, by the contract."""
_PATIENCE = 60.0
"""Seconds: longer than the service takes for anything, a wait for a card included."""


class Service:
    """The service as something to call."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def call(
        self, path: str, interface: str, member: str, *args: Any, fds: tuple[int, ...] = ()
    ) -> Reply:
        """Call a method of the contract. Raises CardSessionError; ValueError for unfit arguments.

        Descriptors in the reply belong to the caller.
        """
        method = contract.method(interface, member)
        try:
            reply = await self._connection.call(
                contract.BUS_NAME, path, interface, member, method.in_signature, args, fds,
                _PATIENCE,
            )  # fmt: skip
        except BusError as error:
            raise typed(error) from None
        except BusGone as error:
            raise BusLost(str(error)) from None
        if reply.signature != method.out_signature:
            close(reply.fds)
            raise ServiceError(ErrorName.INCONSISTENT_MESSAGE, "unexpected reply")
        return reply


def close(fds: tuple[int, ...]) -> None:
    """Close descriptors."""
    for fd in fds:
        with suppress(OSError):
            os.close(fd)


@contextmanager
def secret_pipes(*secrets: bytes | bytearray) -> Iterator[tuple[int, ...]]:
    """Descriptors from which each secret can be read once, up to end-of-file.

    A pipe, because what is read from it is nowhere any more; written straight from the caller's
    buffer, so that there is no copy to wipe. Raises TypeError, ValueError, never with the secret.
    """
    for secret in secrets:
        if not isinstance(secret, bytes | bytearray):
            raise TypeError("a secret is bytes or a bytearray, which can be wiped")
        if len(secret) > MAX_SECRET:
            raise ValueError("a secret has at most 64 bytes")
    readable: list[int] = []
    try:
        for secret in secrets:
            source, sink = os.pipe()
            readable.append(source)
            try:
                os.write(sink, secret)
            finally:
                os.close(sink)
        yield tuple(readable)
    finally:
        close(tuple(readable))

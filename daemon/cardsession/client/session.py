"""A session of one's own: the PIN, the key, the end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Self

from cardsession.bus import contract
from cardsession.bus.connection import Reply, Variant

from .errors import CardSessionError
from .records import PinStatus, SessionInfo, Signed, Transmitted, Verdict, tries
from .service import Service, secret_pipes


class Session:
    """A session that this client opened. As a context manager it is closed at the end.

    Each method raises CardSessionError: SessionEnded once it is over. Secrets are bytes or, better,
    a bytearray, which the caller wipes afterwards; no copy of it is kept here.
    """

    def __init__(
        self, service: Service, path: str, look: Callable[[str], SessionInfo | None]
    ) -> None:
        self.path = path
        self._service = service
        self._look = look
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        if not self._ended.done():
            with suppress(CardSessionError):  # over already, one way or another
                await self.close()

    @property
    def info(self) -> SessionInfo | None:
        """The session's properties as last heard; None once it is removed."""
        return self._look(self.path)

    @property
    def ended(self) -> Awaitable[str]:
        """Done with the reason when the session has ended: the contract's, or `service-gone`,
        `bus-lost`."""
        return asyncio.shield(self._ended)

    @property
    def end_reason(self) -> str | None:
        """The reason, None while it goes on."""
        return self._ended.result() if self._ended.done() else None

    def finish(self, reason: str) -> None:
        """Told by the client that the session has ended."""
        if not self._ended.done():
            self._ended.set_result(reason)

    async def verify_pin(
        self,
        secret: bytes | bytearray,
        pin: str = "user",
        *,
        spend_last_try: bool = False,
        accept_unknown: bool = False,
    ) -> Verdict:
        """Verify a PIN: at most one try is spent."""
        options = _options(spend_last_try, accept_unknown)
        with secret_pipes(secret) as fds:
            return _verdict(await self._call("VerifyPin", pin, 0, options, fds=fds))

    async def query_pin(self, pin: str = "user") -> PinStatus:
        """A PIN's state and tries left; asking costs nothing."""
        state, left = (await self._call("QueryPin", pin)).body
        return PinStatus(state, tries(left))

    async def change_pin(
        self,
        old: bytes | bytearray,
        new: bytes | bytearray,
        pin: str = "user",
        *,
        spend_last_try: bool = False,
        accept_unknown: bool = False,
    ) -> Verdict:
        """Change a PIN; the tries left are those of the old one."""
        options = _options(spend_last_try, accept_unknown)
        with secret_pipes(old, new) as fds:
            return _verdict(await self._call("ChangePin", pin, 0, 1, options, fds=fds))

    async def unblock_pin(
        self,
        puk: bytes | bytearray,
        new: bytes | bytearray,
        pin: str = "user",
        *,
        spend_last_try: bool = False,
        accept_unknown: bool = False,
    ) -> Verdict:
        """Set a new PIN by the PUK; the tries left are the PUK's."""
        options = _options(spend_last_try, accept_unknown)
        with secret_pipes(puk, new) as fds:
            return _verdict(await self._call("UnblockPin", pin, 0, 1, options, fds=fds))

    async def sign(self, slot: str, algorithm: str, digest: bytes) -> bytes:
        """Sign a digest."""
        (signature,) = (await self._call("Sign", slot, algorithm, digest, {})).body
        return bytes(signature)

    async def sign_with_pin(  # noqa: PLR0913 (options, by keyword)
        self,
        slot: str,
        algorithm: str,
        digest: bytes,
        secret: bytes | bytearray,
        *,
        spend_last_try: bool = False,
        accept_unknown: bool = False,
    ) -> Signed:
        """Sign a digest with a key that wants the PIN each time."""
        options = _options(spend_last_try, accept_unknown)
        with secret_pipes(secret) as fds:
            reply = await self._call("SignWithPin", slot, algorithm, digest, 0, options, fds=fds)
        outcome, left, signature = reply.body
        return Signed(outcome, tries(left), signature)

    async def transmit(self, apdu: bytes) -> Transmitted:
        """Send an APDU that the service's allow-list admits."""
        data, sw = (await self._call("Transmit", apdu, {})).body
        return Transmitted(data, sw)

    async def set_context(self, context: dict[str, str]) -> None:
        """Attach facts learnt elsewhere."""
        await self._call("SetContext", context)

    async def take_lifetime(self) -> int:
        """A descriptor, now the caller's, whose end is the session's end too."""
        reply = await self._call("TakeLifetime")
        return reply.fds[reply.body[0]]

    async def keep_alive(self) -> None:
        """Count as active."""
        await self._call("KeepAlive")

    async def lock(self) -> None:
        """Drop every authority, keep the session."""
        await self._call("Lock")

    async def close(self) -> None:
        """End the session."""
        await self._call("Close")

    async def _call(self, member: str, *args: Any, fds: tuple[int, ...] = ()) -> Reply:
        return await self._service.call(self.path, contract.SESSION, member, *args, fds=fds)


def _options(spend_last_try: bool, accept_unknown: bool) -> dict[str, Variant]:
    """Only what was asked for: an option that is absent cannot be misread."""
    asked = {"spend-last-try": spend_last_try, "accept-unknown": accept_unknown}
    return {name: Variant("b", True) for name, wanted in asked.items() if wanted}


def _verdict(reply: Reply) -> Verdict:
    outcome, left = reply.body
    return Verdict(outcome, tries(left))

"""The technicians' interface."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

from cardsession.bus import contract
from cardsession.bus.connection import Variant

from .records import plain
from .service import Service


class Diagnostics:
    """Reports and interventions. Each method raises CardSessionError: NotAuthorized or BusRefused
    for a user who is no technician."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def report(self) -> dict[str, Any]:
        """A support bundle."""
        return await self._one("GetReport")

    async def metrics(self) -> dict[str, Any]:
        """Counters and times."""
        return await self._one("GetMetrics")

    async def history(self, **filters: str | int) -> list[dict[str, Any]]:
        """What happened, oldest first; filters by name with `-` for `_`."""
        chosen = {
            name.replace("_", "-"): Variant("s" if isinstance(value, str) else "x", value)
            for name, value in filters.items()
        }
        reply = await self._service.call(contract.ROOT, contract.DIAGNOSTICS, "GetHistory", chosen)
        return await asyncio.to_thread(_json_lines, reply.fds[reply.body[0]])

    async def rescan(self) -> None:
        """List the readers and read the cards anew."""
        await self._do("Rescan")

    async def end_session(self, session: str, why: str) -> None:
        """End anybody's session."""
        await self._do("EndSession", session, why)

    async def set_log_level(self, level: str) -> None:
        """`debug`, `info`, `warning`, `error`."""
        await self._do("SetLogLevel", level)

    async def set_trace(self, enabled: bool) -> None:
        """Have an Exchange event for each exchange with a card, or stop."""
        await self._do("SetTrace", enabled)

    async def _do(self, member: str, *args: Any) -> None:
        await self._service.call(contract.ROOT, contract.DIAGNOSTICS, member, *args)

    async def _one(self, member: str) -> dict[str, Any]:
        reply = await self._service.call(contract.ROOT, contract.DIAGNOSTICS, member)
        found: dict[str, Any] = plain(reply.body[0])
        return found


def _json_lines(fd: int) -> list[dict[str, Any]]:
    with os.fdopen(fd, encoding="utf-8", errors="replace") as lines:
        return [json.loads(line) for line in lines if line.strip()]

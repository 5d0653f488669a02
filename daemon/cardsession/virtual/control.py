"""The control socket: one JSON object a line in, one JSON object a line out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from pathlib import Path
from typing import Self

from cardsession.virtual.commands import Commands, Refused


class ControlServer:
    """A stream socket at `path` that only this user may open. An async context manager."""

    def __init__(self, path: Path, commands: Commands) -> None:
        self.path = path
        self._commands = commands
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        """Listen. OSError if another card listens there, or the place cannot be written."""
        _clear_stale(self.path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            listener.bind(str(self.path))
        except OSError:
            listener.close()
            raise
        finally:
            os.umask(before)
        self._server = await asyncio.start_unix_server(self._serve, sock=listener)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(json.dumps(await self._answer(line)).encode() + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError):
            # The client went away, or sent a line longer than the stream takes.
            return
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> dict[str, object]:
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):  # the latter: nested a thousand deep
            return {"ok": False, "error": "one JSON object a line was expected"}
        if not isinstance(request, dict):
            return {"ok": False, "error": "a JSON object was expected"}
        try:
            return {"ok": True, **await self._commands.run(request)}
        except Refused as refused:
            return {"ok": False, "error": str(refused)}


def _clear_stale(path: Path) -> None:
    """Remove a socket that nobody listens on. OSError if somebody does."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
            return
    raise OSError(f"another card listens at {path}")

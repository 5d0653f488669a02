"""The socket to the bus: address, authentication, reading frames, writing messages.

Bytes and descriptors only; what a message means is connection.py's business. dbus-next's own
reader and writer are not used: they end the connection at EAGAIN, spin at end-of-file, lose the
number of descriptors of a message and cannot bound anything.
"""

from __future__ import annotations

import array
import asyncio
import errno
import os
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote

import structlog

from .frames import Frame, Splitter, WireError, close_fds
from .model import BusGone

_SYSTEM_BUS = "unix:path=/var/run/dbus/system_bus_socket"
_READ = 64 * 1024
_READS_PER_TURN = 4
_MESSAGES_PER_TURN = 64
"""Bounds on one turn of the loop, in and out, so that a flood leaves time for everything else."""
_MAX_QUEUED = 64 * 1024 * 1024
"""Bytes waiting to be sent before the bus is held to be hung."""
_MAX_AUTH_LINE = 4096
_SCM_MAX_FD = 253
"""Most descriptors in one sendmsg (unix(7))."""
_ANCILLARY = socket.CMSG_SPACE(_SCM_MAX_FD * array.array("i").itemsize)
_WHY = {
    errno.ENOENT: "no such socket",
    errno.ECONNREFUSED: "connection refused",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
}

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Outgoing:
    """A message on its way; its descriptors go with its first byte."""

    data: memoryview
    fds: tuple[int, ...]


def system_bus_address() -> str:
    """The system bus's address: DBUS_SYSTEM_BUS_ADDRESS, or the specified default."""
    return os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or _SYSTEM_BUS


def socket_names(address: str) -> list[str]:
    """The Unix socket names in a bus address, in the order to try; abstract ones start with NUL.

    Raises BusGone if there is none ("Server Addresses": other transports are not for us).
    """
    names = []
    for entry in address.split(";"):
        transport, _, rest = entry.partition(":")
        pairs = (pair.partition("=") for pair in rest.split(","))
        options = {key: unquote(value) for key, _, value in pairs}
        if transport == "unix" and "path" in options:
            names.append(options["path"])
        elif transport == "unix" and "abstract" in options:
            names.append("\0" + options["abstract"])
    if not names:
        raise BusGone("no usable address")
    return names


class Stream:
    """One authenticated connection. `on_gone` is called exactly once, with the reason."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._splitter = Splitter()
        self._queue: deque[_Outgoing] = deque()
        self._idle = asyncio.Event()
        self._idle.set()
        self._on_frame: Callable[[Frame], None] = lambda frame: close_fds(frame.fds)
        self._on_gone: Callable[[str], None] = lambda reason: None
        self.queued_bytes = 0
        self.ended: str | None = None

    @classmethod
    async def open(cls, address: str) -> Stream:
        """Connect and authenticate. Raises BusGone; the caller sets the deadline."""
        why = BusGone("no usable address")
        for name in socket_names(address):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.setblocking(False)
                await asyncio.get_running_loop().sock_connect(sock, name)
                await _authenticate(sock)
                return cls(sock)
            except OSError as error:
                sock.close()
                why = BusGone(_WHY.get(error.errno or 0, "cannot connect"))
            except BusGone as error:
                sock.close()
                why = error
            except BaseException:
                sock.close()
                raise
        raise why

    def start(self, on_frame: Callable[[Frame], None], on_gone: Callable[[str], None]) -> None:
        """Begin to read; `on_frame` owns each frame's descriptors."""
        self._on_frame = on_frame
        self._on_gone = on_gone
        self._loop.add_reader(self._sock, self._readable)

    @property
    def queued_messages(self) -> int:
        """Messages not wholly written yet."""
        return len(self._queue)

    def send(self, data: bytes, fds: tuple[int, ...] = ()) -> None:
        """Queue a message; its descriptors are ours from now on and closed in any case."""
        if self.ended is not None:
            close_fds(fds)
            return
        if not self._queue:
            self._idle.clear()
            self._loop.add_writer(self._sock, self._writable)
        self._queue.append(_Outgoing(memoryview(data), fds))
        self.queued_bytes += len(data)
        if self.queued_bytes > _MAX_QUEUED:
            self.end("the bus does not read")

    async def drain(self) -> None:
        """Wait until all is written, or nothing more can be."""
        await self._idle.wait()

    def end(self, reason: str) -> None:
        """Close the socket and all descriptors in either direction. The first reason stays."""
        if self.ended is not None:
            return
        self.ended = reason
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        self._splitter.close()
        for outgoing in self._queue:
            close_fds(outgoing.fds)
        self._queue.clear()
        self.queued_bytes = 0
        self._idle.set()
        self._on_gone(reason)

    # -- reading

    def _readable(self) -> None:
        for _ in range(_READS_PER_TURN):
            try:
                data, ancillary, flags, _ = self._sock.recvmsg(
                    _READ, _ANCILLARY, socket.MSG_CMSG_CLOEXEC
                )
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                self.end("disconnected")
                return
            self._splitter.feed(data, _descriptors(ancillary))
            if not data or flags & socket.MSG_CTRUNC:
                # Lost descriptors cannot be told from those that came: never hand out a wrong one.
                self.end("disconnected" if not data else "descriptors were lost")
                return
            if len(data) < _READ:
                break
        self._pump()

    def _pump(self) -> None:
        """Hand out what was read, a bounded number at a time, before anything more is read."""
        for _ in range(_MESSAGES_PER_TURN):
            if self.ended is not None:
                return
            try:
                frame = self._splitter.next()
            except WireError as error:
                _log.error("bus.protocol", problem=str(error))
                self.end("protocol error")
                return
            if frame is None:
                self._loop.add_reader(self._sock, self._readable)
                return
            self._on_frame(frame)
        if self.ended is None:
            self._loop.remove_reader(self._sock)
            self._loop.call_soon(self._pump)

    # -- writing

    def _writable(self) -> None:
        try:
            for _ in range(_MESSAGES_PER_TURN):
                if not self._write_one():
                    return
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.end("disconnected")

    def _write_one(self) -> bool:
        """Write what the socket takes of the first message; False when nothing is left."""
        if self._queue:
            first = self._queue[0]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", first.fds))]
            sent = self._sock.sendmsg([first.data], rights if first.fds else [])
            close_fds(first.fds)
            first.fds = ()
            first.data = first.data[sent:]
            self.queued_bytes -= sent
            if not first.data:
                self._queue.popleft()
        if not self._queue:
            self._loop.remove_writer(self._sock)
            self._idle.set()
        return bool(self._queue)


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(found)


async def _authenticate(sock: socket.socket) -> None:
    """EXTERNAL as our effective user, descriptors agreed ("Authentication Protocol")."""
    loop = asyncio.get_running_loop()
    user = str(os.geteuid()).encode().hex()
    await loop.sock_sendall(sock, f"\0AUTH EXTERNAL {user}\r\n".encode())
    if not (await _auth_line(sock)).startswith(b"OK "):
        raise BusGone("authentication refused")
    await loop.sock_sendall(sock, b"NEGOTIATE_UNIX_FD\r\n")
    if await _auth_line(sock) != b"AGREE_UNIX_FD":
        raise BusGone("the bus passes no descriptors")
    await loop.sock_sendall(sock, b"BEGIN\r\n")


async def _auth_line(sock: socket.socket) -> bytes:
    """One line. The bus speaks only when spoken to here, so nothing is read past its end."""
    line = b""
    while not line.endswith(b"\r\n"):
        piece = await asyncio.get_running_loop().sock_recv(sock, _MAX_AUTH_LINE)
        line += piece
        if not piece or len(line) > _MAX_AUTH_LINE:
            raise BusGone("disconnected during authentication")
    return line[:-2]

"""A passcode from a descriptor: whose end we hold, how it is read without waiting for anybody.

The descriptor came over the bus, so it is somebody else's in every way: it may never be written,
never end, hold ten megabytes, or be a directory. Its *open file description* is shared with the
sender: setting O_NONBLOCK on ours would set it on theirs, and leaving it blocking means that a
plain `read` after `poll` hangs the loop when a second reader takes the bytes in between. Opening
a pipe anew through /proc/self/fd would give a description of our own, but a pipe belongs to who
made it (mode 0600) and the daemon is another user: refused. So each kind is read by the one call
that promises not to wait for that call only: `splice` with SPLICE_F_NONBLOCK, `recv` with
MSG_DONTWAIT, `pread` of a memfd, which is memory.

What a descriptor is, is asked without touching a file system (`fstat` of a file on a dead network
or FUSE mount waits for its server): F_GETPIPE_SZ, SO_TYPE and F_GET_SEALS answer for pipes,
sockets and memory files alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from cardsession.core.errors import Failure, Problem
from cardsession.core.secret import BadFormat, Secret, wipe

LIMIT: Final = 64
"""Bytes of the longest secret (bus contract, "Secrets")."""
DEADLINE: Final = 1.0
"""Seconds until end-of-file."""

_FIRST, _LAST = 0x20, 0x7E
_F_GET_SEALS: Final = 1034  # fcntl.F_GET_SEALS, which the fcntl module of Python 3.11 lacks
_O_PATH: Final = os.O_PATH


async def read_secret(fd: int, *, limit: int = LIMIT, deadline: float = DEADLINE) -> Secret:
    """Everything up to end-of-file, 1 to `limit` printable ASCII bytes; `fd` is closed in any case.

    Raises Failure(SECRET_INVALID) for a descriptor of another kind, more than `limit` bytes, or no
    end-of-file within `deadline` seconds; BadFormat if it is empty or has a byte outside 20 to 7E.
    No exception holds what was read.
    """
    # One byte more than allowed is enough to know that there is too much.
    buffer = bytearray(limit + 1)
    try:
        length = await _fill(fd, memoryview(buffer), deadline)
        return _checked(buffer, length)
    finally:
        # In place, not `clear`: a traceback under way may still hold views of it.
        buffer[:] = bytes(len(buffer))
        # It may not have been open at all, which was said already.
        with contextlib.suppress(OSError):
            os.close(fd)


_MEMFD = "/memfd:"


class Source:
    """A descriptor that came with a call: read at most once, closed in any case."""

    def __init__(self, fd: int) -> None:
        """Owns `fd` from here on."""
        self._fd: int | None = fd

    async def read(self) -> Secret:
        """See `read_secret`."""
        fd, self._fd = self._fd, None
        if fd is None:
            raise _invalid("the secret was read already")
        return await read_secret(fd)

    def close(self) -> None:
        """Nobody wanted to read it."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


class Sources:
    """The descriptors of one call, as a context: none is left open behind it.

    Whoever asks for one secret has all of them read at the same time, so that the deadline is one
    for the call. A secret that was handed out is its taker's to wipe (a worker may be sending it
    while the call ends); one that was read and never handed out is wiped here.
    """

    def __init__(self) -> None:
        self._sources: list[Source] = []
        self._reading: list[asyncio.Task[Secret]] = []
        self._handed_out: set[int] = set()
        self._places: set[str] = set()
        self._over = False

    def add(self, fd: int) -> None:
        """Own one more descriptor. Failure: `SecretInvalid`, if it leads to the same place as
        another one: two readers of one pipe would have parts of a secret each, and spend a try."""
        self._sources.append(Source(fd))
        # readlink, for `fstat` would ask the file system, which may never answer
        place = str(Path(f"/proc/self/fd/{fd}").readlink())
        if place in self._places and not place.startswith(_MEMFD):  # two of these may share a name
            raise _invalid("two descriptors of one pipe or socket were passed")
        self._places.add(place)

    @property
    def reads(self) -> tuple[Callable[[], Awaitable[Secret]], ...]:
        """What reads each secret, once, in the order in which they were added."""
        return tuple(functools.partial(self._read, at) for at in range(len(self._sources)))

    async def _read(self, at: int) -> Secret:
        """See `read_secret`."""
        if at in self._handed_out:
            raise _invalid("the secret was read already")
        if not self._reading and not self._over:
            loop = asyncio.get_running_loop()
            self._reading = [loop.create_task(source.read()) for source in self._sources]
        if self._reading:
            # Not awaited itself: its end with the call is a failure here, no cancellation.
            await asyncio.wait([self._reading[at]])
        if self._over:
            raise _invalid("the call of the secret is over")
        secret = self._reading[at].result()
        self._handed_out.add(at)
        return secret

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Waits for nothing, or what is told of the session's end overtakes the call's reply: a
        descriptor that is being read is closed by its reader, when the loop turns next."""
        self._over = True
        for source in self._sources:
            source.close()
        for at, task in enumerate(self._reading):
            if at not in self._handed_out:
                task.cancel()
                task.add_done_callback(_discard)


def _discard(task: asyncio.Task[Secret]) -> None:
    """Whatever was read is wiped, and what went wrong is no matter any more."""
    if not task.cancelled() and task.exception() is None:
        task.result().wipe()


async def _fill(fd: int, buffer: memoryview, deadline: float) -> int:
    """Read until the end or until `buffer` is full; the number of bytes."""
    try:
        async with asyncio.timeout(deadline):
            return await _read(fd, buffer)
    except TimeoutError:
        raise _invalid(f"the secret did not end within {deadline:g} s") from None
    except (OSError, ValueError):
        raise _invalid("the descriptor of the secret cannot be read") from None


def _checked(buffer: bytearray, length: int) -> Secret:
    """A secret of its own from the first `length` bytes; the buffer stays the caller's to wipe."""
    if length == len(buffer):
        raise _invalid(f"the secret is longer than {length - 1} bytes")
    if not length:
        raise BadFormat("the secret is empty")
    value = buffer[:length]
    if not all(_FIRST <= byte <= _LAST for byte in value):
        wipe(value)
        raise BadFormat("the secret has bytes outside 20 to 7E")
    return Secret(value)


def _invalid(text: str) -> Failure:
    """What the contract calls SecretInvalid."""
    return Failure(Problem.SECRET_INVALID, text)


async def _read(fd: int, buffer: memoryview) -> int:
    """By what the descriptor is; OSError or Failure if it is nothing we take."""
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    if flags & _O_PATH or flags & os.O_ACCMODE == os.O_WRONLY:
        raise _invalid("the descriptor of the secret is not open for reading")
    if _is_pipe(fd):
        return await _read_pipe(fd, buffer)
    if _is_memfd(fd):
        return _read_memfd(fd, buffer)
    return await _read_socket(fd, buffer)


def _is_pipe(fd: int) -> bool:
    """A pipe or a FIFO: nothing else has a pipe's size."""
    try:
        return fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ) > 0
    except OSError:
        return False


def _is_memfd(fd: int) -> bool:
    """Memory without a name in any file system.

    Seals are known to shared memory only, thus `fstat` cannot wait; a file on a tmpfs has them
    too, but not the device number of the kernel's own mount, where every memfd lives. (The name
    under /proc/self/fd proves nothing: a file may be called "memfd:".)
    """
    try:
        fcntl.fcntl(fd, _F_GET_SEALS)
    except OSError:
        return False
    return os.fstat(fd).st_dev == _memfd_device()


@functools.cache
def _memfd_device() -> int:
    """The device number of the kernel's mount for memory files."""
    sample = os.memfd_create("cardsession-sample")
    try:
        return os.fstat(sample).st_dev
    finally:
        os.close(sample)


def _read_memfd(fd: int, buffer: memoryview) -> int:
    """From 0, whatever the offset: it is shared with the sender, who has just written."""
    count = 0
    while count < len(buffer) and (got := os.preadv(fd, [buffer[count:]], count)):
        count += got
    return count


async def _read_pipe(fd: int, buffer: memoryview) -> int:
    """Through a pipe of our own: `splice` moves the pages, and waits for nobody if told so."""
    ours, inlet = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def receive(rest: memoryview) -> int:
        moved = os.splice(fd, inlet, len(rest), flags=os.SPLICE_F_NONBLOCK)
        count = 0
        while count < moved:  # a pipe in packet mode gives one packet at a time
            count += os.readv(ours, [rest[count:moved]])
        return moved

    try:
        return await _receive_all(fd, buffer, receive)
    finally:
        os.close(ours)
        os.close(inlet)


async def _read_socket(fd: int, buffer: memoryview) -> int:
    """From a connected local stream socket; the descriptors that may come along are not taken."""
    try:
        stream = socket.socket(fileno=fd)
    except OSError:
        raise _invalid("the secret is neither in a pipe, a stream socket nor a memfd") from None
    try:
        if (stream.family, stream.type) != (socket.AF_UNIX, socket.SOCK_STREAM):
            raise _invalid("the socket of the secret is not a local stream socket")
        return await _receive_all(
            fd, buffer, lambda rest: stream.recv_into(rest, 0, socket.MSG_DONTWAIT)
        )
    finally:
        stream.detach()


async def _receive_all(fd: int, buffer: memoryview, receive: Callable[[memoryview], int]) -> int:
    """Call `receive` whenever there is something, until it returns 0 or `buffer` is full."""
    count = 0
    while count < len(buffer):
        await _readable(fd)
        # Readiness is a hint: a second reader may have been faster.
        with contextlib.suppress(BlockingIOError):
            got = receive(buffer[count:])
            if not got:
                break
            count += got
    return count


async def _readable(fd: int) -> None:
    """Until there are bytes or the end.

    The watch is taken off here, before `fd` is closed: epoll watches the open file description,
    which lives on with the sender.
    """
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_reader(fd, lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_reader(fd)

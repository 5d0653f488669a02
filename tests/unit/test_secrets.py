"""A passcode from every kind of descriptor: taken, refused, closed, and the loop never waits."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import select
import socket
import threading
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from cardsession.bus import secrets
from cardsession.bus.secrets import read_secret
from cardsession.core.errors import Failure, Problem
from cardsession.core.secret import BadFormat, Secret

CANARY = b"73194682"


def value(secret: Secret) -> bytes:
    """What would go to the card."""
    return bytes(secret.formed(len(secret), 0xFF))


def written_pipe(content: bytes) -> int:
    """The read end of a pipe that holds `content`, its writer gone."""
    reader, writer = os.pipe()
    os.write(writer, content)
    os.close(writer)
    return reader


def written_socket(content: bytes) -> int:
    """One end of a stream socket, the other gone after `content`."""
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(content)
    return ours.detach()


def written_memfd(content: bytes) -> int:
    """A memfd as a caller leaves it: sealed, the offset at the end."""
    fd = os.memfd_create("secret", os.MFD_ALLOW_SEALING)
    os.write(fd, content)
    fcntl.fcntl(fd, 1033, 0x000F)  # F_ADD_SEALS: seal, shrink, grow, write
    return fd


def bare_memfd(content: bytes) -> int:
    """A memfd without seals."""
    fd = os.memfd_create("secret")
    os.write(fd, content)
    return fd


SOURCES = (written_pipe, written_socket, written_memfd, bare_memfd)
sources = pytest.mark.parametrize("source", SOURCES)
Source = Callable[[bytes], int]


def is_open(fd: int) -> bool:
    """Whether the number stands for a descriptor of this process."""
    try:
        fcntl.fcntl(fd, fcntl.F_GETFD)
    except OSError:
        return False
    return True


def is_watched(fd: int) -> bool:
    """Whether the loop still looks at it: the sender's end of it lives on, and would wake us."""
    return asyncio.get_running_loop().remove_reader(fd)


def open_count() -> int:
    """Descriptors of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture(autouse=True)
async def nothing_left_open() -> AsyncIterator[None]:
    """Each test gives back every descriptor, those of the reading itself included."""
    secrets._memfd_device()
    before = open_count()
    yield
    assert open_count() == before


async def refused(fd: int, *, deadline: float = 1.0) -> str:
    """The refusal of that descriptor, which is closed afterwards and shows nothing of it."""
    with pytest.raises(Failure) as caught:
        await read_secret(fd, deadline=deadline)
    assert caught.value.problem is Problem.SECRET_INVALID
    assert not is_open(fd)
    assert fd < 0 or not is_watched(fd)
    assert CANARY.decode() not in "".join(traceback.format_exception(caught.value))
    return caught.value.text


@sources
@pytest.mark.parametrize("content", [CANARY, b"1", b" ~" * 32], ids=["usual", "one", "limit"])
async def test_taken(source: Source, content: bytes) -> None:
    """1 to 64 bytes of 20 to 7E, byte for byte."""
    fd = source(content)
    secret = await read_secret(fd)
    assert value(secret) == content
    assert CANARY.decode() not in f"{secret!r} {secret}"
    assert not is_open(fd)
    assert not is_watched(fd)


@sources
@pytest.mark.parametrize(
    "content", [b"", b"7319\n", b"\x00", b"7319\x7f", b"73194682\xff", b"\x1f"]
)
async def test_bad_format(source: Source, content: bytes) -> None:
    """Empty, or anything a keyboard's passcode does not have: its own outcome."""
    fd = source(content)
    with pytest.raises(BadFormat) as caught:
        await read_secret(fd)
    assert not is_open(fd)
    assert CANARY.decode() not in "".join(traceback.format_exception(caught.value))


@sources
@pytest.mark.parametrize("length", [65, 4096])
async def test_too_long(source: Source, length: int) -> None:
    """One byte too many is enough, printable or not."""
    assert "longer than 64" in await refused(source((CANARY * 600)[:length]))


async def test_ten_megabytes_are_not_read() -> None:
    """Not of a memfd, and not of a pipe whose writer does not stop."""
    fd = bare_memfd(b"7" * 10_000_000)
    copy = os.dup(fd)
    assert "longer" in await refused(fd)
    os.close(copy)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    sent = os.write(writer, b"7" * 65536)
    copy = os.dup(reader)
    assert "longer" in await refused(reader)
    left = os.read(copy, sent)
    assert len(left) >= sent - 65
    os.close(copy)
    os.close(writer)


@contextlib.contextmanager
def silent_pipe() -> Iterator[int]:
    """Never written, never closed, in blocking mode."""
    reader, writer = os.pipe()
    try:
        yield reader
    finally:
        os.close(writer)


@contextlib.contextmanager
def silent_socket() -> Iterator[int]:
    """The same as a socket."""
    ours, theirs = socket.socketpair()
    with theirs:
        yield ours.detach()


@contextlib.contextmanager
def half_a_secret() -> Iterator[int]:
    """Written, but not ended: whether it is all is anybody's guess."""
    reader, writer = os.pipe()
    os.write(writer, CANARY)
    try:
        yield reader
    finally:
        os.close(writer)


@contextlib.contextmanager
def own_writer(tmp_path: Path) -> Iterator[int]:
    """A FIFO open for both: it is its own writer and never ends."""
    os.mkfifo(tmp_path / "fifo")
    yield os.open(tmp_path / "fifo", os.O_RDWR)


async def ticks_while(work: Awaitable[object]) -> int:
    """How often the loop came round while `work` was done."""
    count = 0

    async def tick() -> None:
        nonlocal count
        while True:
            await asyncio.sleep(0.005)
            count += 1

    ticker = asyncio.create_task(tick())
    try:
        await asyncio.wait_for(asyncio.ensure_future(work), 20)
    finally:
        ticker.cancel()
    return count


@pytest.mark.parametrize("kind", ["pipe", "socket", "half", "fifo"])
async def test_no_end_within_the_deadline(kind: str, tmp_path: Path) -> None:
    """Refused after the deadline, and the loop went on meanwhile."""
    kinds: dict[str, Callable[[], contextlib.AbstractContextManager[int]]] = {
        "pipe": silent_pipe,
        "socket": silent_socket,
        "half": half_a_secret,
        "fifo": lambda: own_writer(tmp_path),
    }
    with kinds[kind]() as fd:

        async def work() -> None:
            assert "did not end within 0.3 s" in await refused(fd, deadline=0.3)

        # 60 are possible; a loop that was blocked has none.
        assert await ticks_while(work()) >= 3


async def test_a_slow_writer_in_pieces() -> None:
    """Byte by byte, over a pipe and over a socket, each piece seen before the next."""
    ours, theirs = socket.socketpair()
    reader, writer = os.pipe()
    for fd, sink in ((reader, writer), (ours.detach(), theirs.detach())):
        watched = os.dup(fd)
        reading = asyncio.create_task(read_secret(fd))
        for byte in CANARY:
            os.write(sink, bytes([byte]))
            await drained(watched)
        assert not reading.done()
        os.close(sink)
        assert value(await reading) == CANARY
        os.close(watched)


async def drained(fd: int) -> None:
    """Until nothing is left to read at `fd`."""
    deadline = time.monotonic() + 10
    while select.select([fd], [], [], 0)[0]:
        assert time.monotonic() < deadline
        await asyncio.sleep(0)


async def test_packets_and_small_pieces_at_once() -> None:
    """A pipe in packet mode, filled with one packet a digit: each read gives one."""
    reader, writer = os.pipe2(os.O_DIRECT | os.O_NONBLOCK)
    for byte in CANARY * 2:
        os.write(writer, bytes([byte]))
    os.close(writer)
    assert value(await read_secret(reader)) == CANARY * 2


@pytest.mark.parametrize("kind", ["pipe", "socket"])
async def test_a_second_reader_that_is_faster(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readable by poll, empty by the time we read, in blocking mode: this must not hang."""
    original = secrets._readable
    calls = 0

    async def hasty(fd: int) -> None:
        nonlocal calls
        calls += 1
        if calls > 3:
            await original(fd)
        await asyncio.sleep(0)

    monkeypatch.setattr(secrets, "_readable", hasty)
    ours, theirs = socket.socketpair()
    reader, writer = os.pipe() if kind == "pipe" else (ours.fileno(), theirs.fileno())
    # Should it hang all the same, this wakes it: too much, and so another refusal.
    rescue = threading.Timer(10, os.write, (writer, b"7" * 65))
    rescue.start()
    try:
        assert "did not end" in await refused(os.dup(reader), deadline=0.2)
    finally:
        rescue.cancel()
        rescue.join()
    assert calls == 4
    for fd in {reader, writer, ours.detach(), theirs.detach()}:
        os.close(fd)


@pytest.mark.parametrize("source", [written_pipe, written_socket])
async def test_the_senders_flags_stay(source: Source) -> None:
    """The open file description is shared: it blocks for the sender as it did before."""
    fd = source(CANARY)
    copy = os.dup(fd)
    assert os.get_blocking(copy)
    assert value(await read_secret(fd)) == CANARY
    assert os.get_blocking(copy)
    os.close(copy)


async def test_the_offset_of_a_memfd_stays() -> None:
    """Read from 0, wherever the sender left it, and it stays there."""
    fd = bare_memfd(CANARY)
    os.lseek(fd, 3, os.SEEK_SET)
    copy = os.dup(fd)
    assert value(await read_secret(fd)) == CANARY
    assert os.lseek(copy, 0, os.SEEK_CUR) == 3
    os.close(copy)


def a_file(tmp_path: Path) -> int:
    path = tmp_path / "memfd:secret"
    path.write_bytes(CANARY)
    fd = os.open(path, os.O_RDONLY)
    path.unlink()
    return fd


def a_file_in_shared_memory(_: Path) -> int:
    fd = os.open("/dev/shm", os.O_RDWR | os.O_TMPFILE, 0o600)  # noqa: S108
    os.write(fd, CANARY)
    return fd


def a_socket(family: int, kind: int) -> Callable[[Path], int]:
    return lambda _: socket.socket(family, kind).detach()


def a_listener(tmp_path: Path) -> int:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    return listener.detach()


def a_datagram_pair(_: Path) -> int:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    theirs.send(CANARY)
    theirs.close()
    return ours.detach()


def a_terminal(_: Path) -> int:
    master, slave = pty.openpty()
    os.write(master, CANARY + b"\n")
    os.close(master)
    return slave


def a_write_end(_: Path) -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def a_write_only_memfd(_: Path) -> int:
    fd = bare_memfd(CANARY)
    again = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY)
    os.close(fd)
    return again


def a_path_only_fifo(tmp_path: Path) -> int:
    os.mkfifo(tmp_path / "fifo")
    return os.open(tmp_path / "fifo", os.O_PATH)


KINDS: dict[str, Callable[[Path], int]] = {
    "directory": lambda tmp_path: os.open(tmp_path, os.O_RDONLY),
    "file": a_file,
    "tmpfs": a_file_in_shared_memory,
    "null": lambda _: os.open("/dev/null", os.O_RDONLY),
    "zero": lambda _: os.open("/dev/zero", os.O_RDONLY),
    "terminal": a_terminal,
    "proc": lambda _: os.open("/proc/self/status", os.O_RDONLY),
    "datagram": a_datagram_pair,
    "seqpacket": a_socket(socket.AF_UNIX, socket.SOCK_SEQPACKET),
    "udp": a_socket(socket.AF_INET, socket.SOCK_DGRAM),
    "tcp": a_socket(socket.AF_INET, socket.SOCK_STREAM),
    "netlink": a_socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "unconnected": a_socket(socket.AF_UNIX, socket.SOCK_STREAM),
    "listener": a_listener,
    "eventfd": lambda _: os.eventfd(5),
    "epoll": lambda _: select.epoll().fileno(),
    "pidfd": lambda _: os.pidfd_open(os.getpid()),
    "write-end": a_write_end,
    "write-only": a_write_only_memfd,
    "path-only": a_path_only_fifo,
    "path-only-memfd": lambda _: os.open("/proc/self", os.O_PATH),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_every_other_kind_is_refused(kind: str, tmp_path: Path) -> None:
    """Whatever is readable about it."""
    if kind == "epoll":
        poller = select.epoll()
        await refused(os.dup(poller.fileno()))
        poller.close()
        return
    await refused(KINDS[kind](tmp_path), deadline=0.3)


async def test_a_number_that_is_no_descriptor() -> None:
    """Refused too, and nothing else is closed in its place."""
    reader, writer = os.pipe()
    os.close(reader)
    os.close(writer)
    assert await refused(reader)
    with pytest.raises(Failure):
        await read_secret(-1)


async def test_a_cancelled_reading_closes_and_wipes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller left the bus while its secret was on the way."""
    buffers: list[memoryview] = []
    original = secrets._fill

    async def spied(fd: int, buffer: memoryview, deadline: float) -> int:
        buffers.append(buffer)
        return await original(fd, buffer, deadline)

    monkeypatch.setattr(secrets, "_fill", spied)
    with half_a_secret() as fd:
        watched = os.dup(fd)
        reading = asyncio.create_task(read_secret(fd))
        await asyncio.sleep(0)
        await drained(watched)
        os.close(watched)
        assert bytes(buffers[0]).startswith(CANARY)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert not is_open(fd)
    assert not any(buffers[0])


@pytest.mark.parametrize("content", [CANARY, CANARY + b"\n", CANARY * 9])
async def test_the_buffer_is_wiped(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """Taken, badly formed or too long: what was read into is overwritten."""
    buffers: list[memoryview] = []
    original = secrets._fill

    async def spied(fd: int, buffer: memoryview, deadline: float) -> int:
        buffers.append(buffer)
        return await original(fd, buffer, deadline)

    monkeypatch.setattr(secrets, "_fill", spied)
    with contextlib.suppress(Failure, BadFormat):
        await read_secret(written_pipe(content))
    assert len(buffers[0]) == 65
    assert not any(buffers[0])


async def test_many_at_once() -> None:
    """A hundred secrets under way do not mix."""

    def write(fd: int, content: bytes) -> None:
        os.write(fd, content)
        os.close(fd)

    pipes = [os.pipe() for _ in range(100)]
    readings = [asyncio.create_task(read_secret(reader, deadline=10)) for reader, _ in pipes]
    await asyncio.sleep(0)
    threads = [
        threading.Thread(target=write, args=(writer, b"%08d" % at))
        for at, (_, writer) in enumerate(pipes)
    ]
    for thread in threads:
        thread.start()
    got = [value(secret) for secret in await asyncio.gather(*readings)]
    for thread in threads:
        thread.join()
    assert got == [b"%08d" % at for at in range(100)]


@sources
async def test_the_descriptor_of_another_user(source: Source) -> None:
    """The daemon is not who made the pipe, and may not open it anew; root steps down to show it."""
    fd = source(CANARY)
    secrets._memfd_device.cache_clear()
    uid = os.geteuid()
    os.seteuid(uid or 65534)
    try:
        if source is written_pipe and uid == 0:
            with pytest.raises(PermissionError):
                os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
        assert value(await read_secret(fd)) == CANARY
    finally:
        os.seteuid(uid)

"""The socket: refusal, authentication, writing later, ending once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog

from cardsession.bus.connection import Answer, BusGone, Call, Connection
from cardsession.bus.frames import Kind
from cardsession.bus.stream import socket_names
from cardsession.bus.wire import decode, encode

from .fakebus import authenticate, fake_bus, hello, read_message, stamp
from .util import Until, open_fds


async def test_no_such_socket(tmp_path: Path) -> None:
    before = open_fds()
    with pytest.raises(BusGone, match="no such socket"):
        await Connection.open(f"unix:path={tmp_path}/none")
    assert open_fds() == before


async def test_a_dead_socket_refuses(tmp_path: Path) -> None:
    async def nothing(*_: object) -> None: ...

    async with fake_bus(tmp_path, nothing) as address:
        pass
    with pytest.raises(BusGone, match="refused"):
        await Connection.open(address)


@pytest.mark.parametrize("address", ["", "tcp:host=localhost,port=1", "nonsense", "unix:"])
async def test_unusable_addresses(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address or "unix:")
    with pytest.raises(BusGone, match="no usable address"):
        await Connection.open(address)


def test_addresses() -> None:
    address = "tcp:host=h;unix:path=/a%20b,guid=12;unix:abstract=x"
    assert socket_names(address) == ["/a b", "\0x"]


async def test_the_next_address_is_tried(tmp_path: Path, bus: str) -> None:
    async with await Connection.open(f"unix:path={tmp_path}/none;{bus}") as connection:
        assert connection.unique_name.startswith(":")


@pytest.mark.parametrize("said", [b"", b"OK 12", b"OK 1234\r\n", b"OK 1234\r\nAGREE_UNIX_FD\r\n"])
async def test_end_of_file_during_authentication(tmp_path: Path, said: bytes) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(said)
        writer.close()

    before = open_fds()
    async with fake_bus(tmp_path, script) as address, asyncio.timeout(20):
        with pytest.raises(BusGone):
            await Connection.open(address)
    assert open_fds() <= before + 1  # the loop's own, made at its first use


async def test_authentication_refused(tmp_path: Path) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"REJECTED EXTERNAL\r\n")
        await writer.drain()

    async with fake_bus(tmp_path, script) as address:
        with pytest.raises(BusGone, match="authentication refused"):
            await Connection.open(address)


async def test_a_silent_bus_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cardsession.bus.connection._OPEN_SECONDS", 0.1)

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await authenticate(reader, writer)
        await reader.read()

    async with fake_bus(tmp_path, script) as address:
        with pytest.raises(BusGone, match="does not answer"):
            await Connection.open(address)


async def test_signals_wait_for_a_slow_reader(tmp_path: Path, until: Until) -> None:
    """5,000 signals in one turn: nothing is lost, nothing is out of order, nothing spins."""
    go = asyncio.Event()
    got: list[int] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hello(reader, writer)
        await go.wait()
        while len(got) < 5000:
            got.append(_number((await read_message(reader)).raw))
        await reader.read()

    async with fake_bus(tmp_path, script) as address, await Connection.open(address) as connection:
        for number in range(5000):
            connection.emit("/a", "a.b", "Count", "us", (number, "x" * 200))
        assert connection.queued_messages == 5000
        assert connection.queued_bytes > 5000 * 200
        await until(lambda: 0 < connection.queued_messages < 5000)
        # The test's bus buffers some; wait until really nothing moves, then watch the CPU.
        await _still(lambda: connection.queued_messages)
        assert connection.queued_messages > 0
        spent = time.process_time()
        await asyncio.sleep(1.0)
        assert time.process_time() - spent < 0.5
        go.set()
        async with asyncio.timeout(60):
            await connection.drain()
        assert (connection.queued_messages, connection.queued_bytes) == (0, 0)
        await until(lambda: len(got) == 5000)
        spent = time.process_time()
        await asyncio.sleep(1.0)
        assert time.process_time() - spent < 0.5, "nothing to write, and still it wakes"
    assert got == list(range(5000))


async def test_a_hung_bus_ends_the_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cardsession.bus.stream._MAX_QUEUED", 1_000_000)

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hello(reader, writer)
        await asyncio.sleep(60)

    async with fake_bus(tmp_path, script) as address, await Connection.open(address) as connection:
        for _ in range(3):
            connection.emit("/a", "a.b", "Big", "ay", (bytes(500_000),))
        assert connection.closed.done()
        assert connection.queued_bytes == 0
        with pytest.raises(BusGone, match="does not read"):
            await connection.call("a.b", "/", "a.b", "Do")


@pytest.mark.parametrize(
    "noise", [bytes(64), b"l\x02\0\x01" + b"\xff" * 12, b"X" * 16], ids=["zero", "huge", "order"]
)
async def test_noise_from_the_bus_ends_the_connection_loudly(tmp_path: Path, noise: bytes) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hello(reader, writer)
        writer.write(noise)
        writer.write(bytes(1024))
        await writer.drain()
        if noise[:1] == b"l":
            writer.close()
        await reader.read()

    with structlog.testing.capture_logs() as logs:
        async with fake_bus(tmp_path, script) as address, asyncio.timeout(20):
            await (await Connection.open(address)).closed
    if noise[:1] != b"l":
        assert [entry["event"] for entry in logs] == ["bus.protocol"]


async def test_an_unreadable_body_costs_that_message_only(tmp_path: Path, until: Until) -> None:
    """The bus checks bodies; should one slip through, its caller gets an error, we go on."""
    answers: list[str | None] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hello(reader, writer)
        good = encode(Kind.CALL, 5, "s", ("some text",), path="/", member="Read")
        writer.write(stamp(good.replace(b"some text", b"some \xff\xff\xfft"), ":1.9"))
        writer.write(stamp(good, ":1.9"))
        while len(answers) < 2:
            answers.append((await read_message(reader)).header.error_name)
        await reader.read()

    async with fake_bus(tmp_path, script) as address, await Connection.open(address) as connection:
        connection.serve(_reads_its_body)
        await until(lambda: len(answers) == 2)
        assert not connection.closed.done()
    assert answers == ["org.freedesktop.DBus.Error.InvalidArgs", None]


async def _reads_its_body(call: Call) -> Answer:
    assert call.body == ("some text",)
    return Answer()


async def _still(value: Callable[[], int]) -> None:
    """Wait until a value has not moved for a while."""
    async with asyncio.timeout(20):
        last = -1
        while last != (last := value()):  # noqa: ASYNC110 (it must not move)
            await asyncio.sleep(0.3)


def _number(raw: bytes | None) -> int:
    assert raw is not None
    return int(decode(raw)[0])

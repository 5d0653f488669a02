"""Bytes on the wire of the bus, from a bus that breaks the protocol or passes on what is broken."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from contextlib import ExitStack, suppress
from functools import cache
from typing import Any

from hypothesis import strategies as st

from bus.fakebus import stamp
from cardsession.bus import contract
from cardsession.bus.connection import Answer, Call, Connection, Variant
from cardsession.bus.frames import Flag, Kind, Splitter, WireError, close_fds, scan_header
from cardsession.bus.matching import DRIVER
from cardsession.bus.model import BusError, BusGone, Reply
from cardsession.bus.stream import Stream, _authenticate, socket_names
from cardsession.bus.wire import decode, encode, printable
from fuzz.cases import fuzz, quiet
from fuzz.mutations import SOME, changed, mutants, noise


@cache
def messages() -> tuple[bytes, ...]:
    """True ones, of every kind, with the sender that the bus puts there."""
    return tuple(stamp(each, ":1.9") for each in _unstamped())


def _unstamped() -> tuple[bytes, ...]:
    where = {"path": "/org/cardsession1", "interface": "a.b", "member": "Do"}
    options = {"wait-usec": Variant("t", 5), "used-by": Variant("s", "me")}
    nested = Variant("v", Variant("a(sv)", [["a", Variant("au", [1, 2, 3])]]))
    return (
        encode(Kind.CALL, 7, "", (), destination="c.d", **where),
        encode(Kind.CALL, 8, "sa{sv}", ("x", options), destination=":1.5", **where),
        encode(Kind.CALL, 9, "sha{sv}", ("user", 0, {}), fds=1, destination=":1.5", **where),
        encode(Kind.SIGNAL, 10, "v", (nested,), **where),
        encode(Kind.SIGNAL, 11, "sss", (":1.7", ":1.7", ""), path="/org/freedesktop/DBus",
               interface=DRIVER, member="NameOwnerChanged"),
        encode(Kind.RETURN, 12, "s", (":1.9",), reply_serial=1, destination=":1.5"),
        encode(Kind.RETURN, 13, "h", (0,), fds=1, reply_serial=2),
        encode(Kind.ERROR, 14, "s", ("no",), reply_serial=1, error_name="a.b.C"),
        encode(Kind.CALL, 15, "ay", (bytes(400),), flags=Flag.NO_REPLY_EXPECTED,
               destination="c.d", **where),
    )  # fmt: skip


def deep(kind: bytes, times: int) -> bytes:
    """A header field that nobody knows, of variants in variants (or structures in structures)."""
    if kind == b"v":
        value = b"\x01v\0" * times + b"\x01y\0\x01"
    else:
        times = min(times, 120)
        value = bytes([2 * times + 1]) + b"(" * times + b"y" + b")" * times + b"\0" + bytes(20)
    fields = b"\xc8" + value
    head = struct.pack("<BBBBIII", 0x6C, 4, 0, 1, 0, 5, len(fields)) + fields
    return head + bytes(-len(head) % 8)


MESSAGES = st.integers(0, 8).map(lambda at: messages()[at])
BROKEN = st.builds(changed, MESSAGES, SOME | st.just([]))
DEEP = st.builds(deep, st.sampled_from([b"v", b"("]), st.integers(1, 20_000))
BYTES = st.lists(BROKEN, min_size=1, max_size=4).map(b"".join) | noise() | DEEP


@fuzz(900, BYTES, st.integers(1, 400))
def test_frames(raw: bytes, piece: int) -> None:
    """Frames in order, or an end: never another exception, never more than was sent."""
    splitter = Splitter()
    given = 0
    try:
        for at in range(0, len(raw), piece):
            splitter.feed(raw[at : at + piece])
            while (frame := splitter.next()) is not None:
                given += len(frame.raw or b"")
                if frame.raw is not None:
                    with suppress(ValueError):
                        decode(frame.raw)
                assert frame.fds == ()
    except WireError as error:
        quiet(error)
    assert given <= len(raw)
    splitter.close()


@fuzz(500, BYTES)
def test_header(raw: bytes) -> None:
    with suppress(WireError):
        if len(raw) >= 16:
            scan_header(raw)


@fuzz(500, BROKEN | DEEP)
def test_body(raw: bytes) -> None:
    with suppress(ValueError):
        assert isinstance(decode(raw), tuple)


async def _served(pieces: list[tuple[bytes, int]]) -> None:
    """A connection whose bus sends these, with so many descriptors each; then it is gone."""
    theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.setblocking(False)
    connection = Connection(Stream(ours))
    connection.unique_name = ":1.5"
    waiting = asyncio.ensure_future(connection.call(":1.9", "/a", "a.b", "Do"))
    heard: list[Any] = []
    listening = asyncio.ensure_future(connection.subscribe(heard.append))

    async def handler(call: Call) -> Answer:
        return Answer(call.signature, call.body) if "h" not in call.signature else Answer()

    connection.serve(handler)
    with ExitStack() as stack:
        stack.callback(theirs.close)
        for data, count in pieces:
            fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(count)]
            if connection.closed.done():
                close_fds(fds)
                break
            with suppress(OSError):
                socket.send_fds(theirs, [data], fds)
            close_fds(fds)
            for _ in range(3):
                await asyncio.sleep(0)
    async with asyncio.timeout(20):
        await connection.closed
        said = await asyncio.gather(waiting, listening, return_exceptions=True)
    for reply in said:
        if isinstance(reply, BaseException):
            assert isinstance(reply, BusError | BusGone), repr(reply)
        elif isinstance(reply, Reply):
            close_fds(reply.fds)
    await connection.close()


@fuzz(500, st.lists(st.tuples(BROKEN | DEEP | noise(60), st.integers(0, 3)), max_size=5))
def test_a_bus_that_breaks_the_protocol(pieces: list[tuple[bytes, int]]) -> None:
    """The connection goes on or ends; nobody waits for ever, no descriptor is kept, and the loop's
    own handler of exceptions hears of nothing."""
    fell: list[dict[str, Any]] = []
    with asyncio.Runner() as runner:
        runner.get_loop().set_exception_handler(lambda _, context: fell.append(context))
        runner.run(_served(pieces))
    assert not fell, fell


async def _open(lines: list[bytes]) -> None:
    theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.setblocking(False)
    theirs.setblocking(False)
    with theirs, ours:
        for each in lines:
            theirs.send(each)
        theirs.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(20):
            with suppress(BusGone, OSError):
                await _authenticate(ours)


@fuzz(200, st.lists(mutants(b"OK 1234\r\n", b"AGREE_UNIX_FD\r\n", b"REJECTED EXTERNAL\r\n", b"\r\n",
                            b"x" * 5000) | noise(20), max_size=4))  # fmt: skip
def test_authentication(lines: list[bytes]) -> None:
    asyncio.run(_open([each for each in lines if each]))


ADDRESSES = mutants(
    b"unix:path=/run/dbus/system_bus_socket", b"unix:abstract=/tmp/x,guid=00;tcp:host=localhost",
    b"unix:path=%2frun%zz;;unix:", b"autolaunch:",
).map(lambda raw: raw.decode("utf-8", "replace"))  # fmt: skip


@fuzz(300, ADDRESSES)
def test_address(text: str) -> None:
    with suppress(BusGone):
        assert all(isinstance(each, str) for each in socket_names(text))


@fuzz(300, st.text(max_size=80) | noise(80).map(lambda raw: raw.decode("latin-1")))
def test_labels_and_texts(text: str) -> None:
    label = contract.escape_label(text.encode("utf-8", "replace").decode())
    assert contract.unescape_label(label) == text.encode("utf-8", "replace").decode()
    with suppress(ValueError):
        contract.unescape_label(text)
    encode(Kind.ERROR, 1, "s", (printable(text),), reply_serial=1, error_name="a.b")

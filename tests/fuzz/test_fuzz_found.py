"""What fuzzing found, one test for each, so that it is not found twice."""

from __future__ import annotations

import asyncio
import socket
import struct
from pathlib import Path
from typing import Any

import pytest

from cardsession.bus.connection import Connection
from cardsession.bus.frames import Kind, Splitter, WireError
from cardsession.bus.stream import Stream
from cardsession.bus.wire import encode
from cardsession.virtual.control import ControlServer
from fakes.process import logged
from fuzz.test_fuzz_wire import deep


@pytest.mark.parametrize("kind", [b"v", b"("])
def test_a_header_of_ten_thousand_nested_values_ends_the_connection(kind: bytes) -> None:
    """It was a RecursionError, which nobody caught: the connection neither went on nor ended."""
    splitter = Splitter()
    splitter.feed(deep(kind, 10_000))
    with pytest.raises(WireError, match="nested"):
        splitter.next()


def test_nested_no_deeper_than_the_protocol_allows_is_a_header() -> None:
    splitter = Splitter()
    splitter.feed(deep(b"v", 60))
    frame = splitter.next()
    assert frame is not None and frame.header.serial == 5


@pytest.mark.parametrize(("body", "fields"), [(0, (1 << 26) + 1), (1 << 27, 8), (0xFFFFFFFF, 0)])
def test_a_message_that_claims_more_than_the_protocol_allows_ends_the_connection(
    body: int, fields: int
) -> None:
    """It was waited for, and kept: four gigabytes of header."""
    splitter = Splitter()
    splitter.feed(struct.pack("<BBBBIII", 0x6C, 4, 0, 1, body, 5, fields))
    with pytest.raises(WireError, match="longer than the protocol"):
        splitter.next()


async def test_a_call_without_a_sender_is_nobody_s_and_no_fault() -> None:
    """It was answered to nobody, which failed twice, each time with a report of a bug of ours."""
    events: list[dict[str, Any]] = []
    theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.setblocking(False)
    with logged(events), theirs:
        connection = Connection(Stream(ours))
        theirs.send(encode(Kind.CALL, 7, "", (), path="/a", interface="a.b", member="Do"))
        theirs.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(20):
            await connection.closed
        await asyncio.sleep(0)
        await connection.close()
    assert [each["event"] for each in events] == []


class _Nobody:
    async def run(self, request: dict[str, Any]) -> dict[str, object]:
        raise AssertionError(f"nobody is asked: {request}")


def test_a_control_line_nested_too_deeply_is_refused() -> None:
    """It was a RecursionError: the client was left without an answer."""
    server = ControlServer(Path("none"), _Nobody())  # type: ignore[arg-type]
    answer = asyncio.run(server._answer(b"[" * 5000))
    assert answer == {"ok": False, "error": "one JSON object a line was expected"}

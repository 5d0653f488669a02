"""Cutting the wire into messages: whatever the pieces, the same messages come out."""

from __future__ import annotations

import os
import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardsession.bus.frames import (
    MAX_BODY,
    MAX_HEADER,
    Flag,
    Frame,
    Kind,
    Splitter,
    WireError,
    close_fds,
    scan_header,
)
from cardsession.bus.wire import Variant, decode, encode


def message(member: str = "Do", signature: str = "", body: tuple[object, ...] = ()) -> bytes:
    return encode(
        Kind.CALL, 7, signature, body, path="/a", interface="a.b", member=member,
        destination="c.d", flags=Flag.NO_REPLY_EXPECTED,
    )  # fmt: skip


def junk(size: int, kind: Kind = Kind.SIGNAL, destination: str = "c.d") -> bytes:
    """A message whose body is an array of many short strings, made without marshalling it."""
    head = encode(
        kind, 9, "as", ([],), path="/a", interface="a.b", member="Junk", destination=destination
    )
    strings = (b"\x01\0\0\0a\0\0\0" * (size // 8))[:-2]
    body = struct.pack("<I", len(strings)) + strings
    return head[:4] + struct.pack("<I", len(body)) + head[8:-4] + body


def frames(splitter: Splitter) -> list[Frame]:
    found = []
    while (frame := splitter.next()) is not None:
        found.append(frame)
    return found


@given(st.lists(st.text(max_size=30), max_size=8), st.integers(1, 64))
def test_any_cut_gives_the_same_messages(texts: list[str], size: int) -> None:
    bodies = [(text.replace("\0", ""), index) for index, text in enumerate(texts)]
    wire = b"".join(message(signature="su", body=body) for body in bodies)
    splitter = Splitter()
    found = []
    for at in range(0, len(wire), size):
        splitter.feed(wire[at : at + size])
        found += frames(splitter)
    assert [decode(frame.raw or b"") for frame in found] == bodies


def test_header() -> None:
    (frame,) = _split(message("Member", "s", ("x",)))
    header = frame.header
    assert (header.kind, header.serial, header.path, header.interface) == (
        Kind.CALL, 7, "/a", "a.b",
    )  # fmt: skip
    assert (header.member, header.signature, header.fds) == ("Member", "s", 0)
    assert not header.wants_reply


@given(st.binary(max_size=200))
def test_noise_is_a_wire_error_or_nothing(noise: bytes) -> None:
    splitter = Splitter()
    splitter.feed(noise)
    with suppress(WireError):
        frames(splitter)


@given(st.binary(max_size=80), st.integers(0, 79), st.integers(0, 255))
def test_a_spoilt_header_is_a_wire_error_or_a_header(tail: bytes, at: int, value: int) -> None:
    wire = bytearray(message())
    wire[at] = value
    with suppress(WireError):
        scan_header(bytes(wire) + tail)


@pytest.mark.parametrize(
    "value",
    [
        Variant("(ya{s(xv)}g)", [1, {"k": [2, Variant("as", ["a", "b"])]}, "a(ii)"]),
        Variant("aai", [[1, 2], [3]]),
        Variant("d", 1.5),
        Variant("a{sv}", {}),
        Variant("v", Variant("a(nq)", [[1, 2]])),
    ],
)
def test_unknown_header_fields_are_skipped(value: Variant) -> None:
    # The fields array of a header, read as a body, is a(yv): the marshaller makes it.
    fields = [[200, value], [3, Variant("s", "After")], [201, value], [9, Variant("u", 0)]]
    array = _body(encode(Kind.SIGNAL, 1, "a(yv)", (fields,), path="/", interface="a.b", member="M"))
    length = struct.unpack("<I", array[:4])[0]
    # In a body the array's elements start at 8, in a header at 16: the same alignment.
    wire = b"l\x04\0\x01" + struct.pack("<III", 0, 1, length) + array[8:]
    wire += bytes(-len(wire) % 8)
    (frame,) = _split(wire)
    assert frame.header.member == "After"


@pytest.mark.parametrize("kind", [Kind.CALL, Kind.SIGNAL])
def test_a_long_body_is_thrown_away_unparsed_and_unheld(kind: Kind) -> None:
    splitter = Splitter()
    wire = junk(8 * MAX_BODY, kind) + message("After")
    found = []
    for at in range(0, len(wire), 65536):
        splitter.feed(wire[at : at + 65536])
        found += frames(splitter)
        assert len(splitter._bytes) <= 65536
    assert [(frame.header.member, frame.raw is None) for frame in found] == [
        ("Junk", True),
        ("After", False),
    ]


def test_a_long_header_is_scanned_and_thrown_away() -> None:
    long = encode(
        Kind.SIGNAL, 1, "s", ("x",), path="/a" * MAX_HEADER, interface="a.b", member="Long"
    )
    found = _split(long + message("After"))
    assert [(frame.header.member, frame.raw is None) for frame in found] == [
        ("Long", True),
        ("After", False),
    ]


def test_descriptors_go_to_the_message_that_counts_them() -> None:
    def with_fds(member: str, fds: int) -> bytes:
        return encode(Kind.SIGNAL, 1, "", (), fds=fds, path="/", interface="a.b", member=member)

    splitter = Splitter()
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(4)]
    wire = with_fds("One", 1) + with_fds("None", 0) + with_fds("Two", 2)
    splitter.feed(wire[:30], fds[:1])
    assert splitter.next() is None
    splitter.feed(wire[30:], fds[1:])
    found = frames(splitter)
    assert [frame.fds for frame in found] == [(fds[0],), (), (fds[1], fds[2])]
    splitter.close()
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fds[3])
    close_fds(fds[:3])


def test_missing_descriptors_are_a_wire_error() -> None:
    splitter = Splitter()
    splitter.feed(encode(Kind.SIGNAL, 1, "", (), fds=1, path="/", interface="a.b", member="M"))
    with pytest.raises(WireError):
        splitter.next()


def _split(wire: bytes) -> list[Frame]:
    splitter = Splitter()
    splitter.feed(wire)
    return frames(splitter)


def _body(wire: bytes) -> bytes:
    header = struct.unpack("<I", wire[12:16])[0]
    return wire[16 + header + -header % 8 :]

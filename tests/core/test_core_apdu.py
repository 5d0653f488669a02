"""What one command costs on the wire: ISO/IEC 7816-4 clauses 5.2, 5.3 and 11.8.1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardsession.core.apdu import (
    RESPONSE_LIMIT,
    RESPONSE_PARTS,
    SW,
    Command,
    Response,
    exchange,
    split,
)
from cardsession.core.errors import Malformed


def pump(
    command: Command, card: Callable[[bytes], bytes], *, t0: bool = False
) -> tuple[Response, list[bytes]]:
    """The answer, and every APDU that it took."""
    sent: list[bytes] = []
    wire = exchange(command, t0=t0)
    try:
        apdu = next(wire)
        while True:
            sent.append(bytes(apdu))
            apdu = wire.send(card(sent[-1]))
    except StopIteration as end:
        return end.value, sent


def script(*answers: str) -> Callable[[bytes], bytes]:
    """A card that answers these, one after the other, and no more."""
    left = list(answers)
    return lambda _: bytes.fromhex(left.pop(0))


def test_case_1_is_four_bytes() -> None:
    _, sent = pump(Command(0x00, 0x20, 0x00, 0x80), script("63C3"))
    assert sent == [bytes.fromhex("00200080")]


@pytest.mark.parametrize(
    ("data", "ne", "apdu"),
    [
        ("", 1, "00CB3FFF01"),
        ("", 255, "00CB3FFFFF"),
        ("", 256, "00CB3FFF00"),
        ("5C017E", None, "00CB3FFF035C017E"),
        ("5C017E", 256, "00CB3FFF035C017E00"),
        ("AA" * 255, 256, "00CB3FFFFF" + "AA" * 255 + "00"),
    ],
)
def test_cases_2_to_4(data: str, ne: int | None, apdu: str) -> None:
    _, sent = pump(Command(0x00, 0xCB, 0x3F, 0xFF, bytes.fromhex(data), ne), script("9000"))
    assert sent == [bytes.fromhex(apdu)]


def test_more_bytes_than_a_short_command_holds_are_no_single_apdu() -> None:
    with pytest.raises(ValueError):
        Command(0, 0xCB, 0, 0, bytes(256)).wire()


def test_get_response_collects_what_waits() -> None:
    answer, sent = pump(
        Command(0x00, 0xCB, 0x3F, 0xFF, b"\x7e", 256),
        script("01026100", "03" * 256 + "6102", "04059000"),
    )
    assert answer == (b"\x01\x02" + b"\x03" * 256 + b"\x04\x05", 0x9000)
    assert [each.hex() for each in sent[1:]] == ["00c0000000", "00c0000002"], "6100 is 256"


@pytest.mark.parametrize(
    ("cla", "asking"), [(0x00, 0x00), (0x80, 0x80), (0x01, 0x01), (0x90, 0x80)]
)
def test_get_response_keeps_the_class_less_the_chaining_bit(cla: int, asking: int) -> None:
    _, sent = pump(Command(cla, 0xCB, 0, 0, ne=256), script("6105", "01020304059000"))
    assert sent[1] == bytes((asking, 0xC0, 0, 0, 5))


def test_data_beside_an_error_after_get_response_is_given_with_the_error() -> None:
    answer, _ = pump(Command(0, 0xCB, 0, 0, ne=256), script("AA6101", "BB6282"))
    assert answer == (b"\xaa\xbb", 0x6282)


@pytest.mark.parametrize("part", ["", "00", "00" * 100, "00" * 256])
def test_an_endless_answer_ends(part: str) -> None:
    calls = 0

    def endless(_: bytes) -> bytes:
        nonlocal calls
        calls += 1
        return bytes.fromhex(part + "6100")

    with pytest.raises(Malformed):
        pump(Command(0, 0xCB, 0, 0, ne=256), endless)
    assert calls <= RESPONSE_PARTS + 2
    assert calls * (len(part) // 2) <= RESPONSE_LIMIT + 512


def test_what_is_just_not_too_long_is_taken() -> None:
    left = RESPONSE_LIMIT

    def card(_: bytes) -> bytes:
        nonlocal left
        left -= 256
        return bytes(256) + (b"\x61\x00" if left else b"\x90\x00")

    answer, _ = pump(Command(0, 0xCB, 0, 0, ne=256), card)
    assert len(answer.data) == RESPONSE_LIMIT


def test_the_right_le_is_tried_once() -> None:
    command = Command(0x00, 0xCB, 0x3F, 0xFF, b"\x5c\x01\x7e", 256)
    answer, sent = pump(command, script("6C02", "01029000"))
    assert answer == (b"\x01\x02", 0x9000)
    assert sent[1] == bytes.fromhex("00CB3FFF035C017E02")
    again, sent = pump(command, script("6C02", "6C03"))
    assert (again.sw, len(sent)) == (0x6C03, 2)


@pytest.mark.parametrize("sw", ["6C03", "6C00", "6103", "6100"])
def test_a_question_without_le_is_never_asked_with_one(sw: str) -> None:
    """An empty VERIFY repeated with Le is, in T=0, a VERIFY with Lc: it could cost a try."""
    answer, sent = pump(Command(0x00, 0x20, 0x00, 0x80), script(sw))
    assert (f"{answer.sw}", sent) == (sw, [bytes.fromhex("00200080")])


def test_the_right_le_may_be_256_and_bring_more() -> None:
    answer, sent = pump(Command(0, 0xCB, 0, 0, ne=1), script("6C00", "AA6101", "BB9000"))
    assert answer.data == b"\xaa\xbb"
    assert sent[1][-1] == 0x00


@pytest.mark.parametrize("sw", ["6C08", "6C00", "6110", "6100", "9000", "63C2", "6F00", "6800"])
def test_a_command_with_an_effect_is_sent_once_whatever_is_answered(sw: str) -> None:
    command = Command(0x00, 0x20, 0x00, 0x80, bytearray(8), effect=True)
    answer, sent = pump(command, script(sw))
    assert (len(sent), f"{answer.sw}") == (1, sw)


@pytest.mark.parametrize(
    ("size", "parts"),
    [(0, [0]), (1, [1]), (255, [255]), (256, [255, 1]), (510, [255, 255]), (511, [255, 255, 1])],
)
def test_long_data_are_chained(size: int, parts: list[int]) -> None:
    data = bytes(each % 251 for each in range(size))
    answer, sent = pump(Command(0x00, 0x87, 0x07, 0x9A, data, 256), lambda _: b"\x90\x00")
    assert answer.sw.ok
    assert [each[0] for each in sent] == [0x10] * (len(parts) - 1) + [0x00]
    bodies = [each[5:] if each[0] == 0x10 else each[5:-1] for each in sent]
    assert [len(each) for each in bodies] == parts
    assert b"".join(bodies) == data
    assert all(len(each) == 5 + each[4] for each in sent[:-1]), "no Le but in the last"


def test_an_error_ends_the_chain_and_is_the_answer() -> None:
    answer, sent = pump(Command(0, 0x87, 0, 0, bytes(600), 256), script("9000", "6883"))
    assert (answer.sw, len(sent)) == (0x6883, 2)


def test_the_right_le_of_a_chain_repeats_its_last_command_alone() -> None:
    data = bytes(255) + b"\x01\x02"
    _, sent = pump(Command(0, 0x87, 0, 0, data, 256), script("9000", "6C04", "9000"))
    assert sent[2] == bytes.fromhex("0087000002010204")


@pytest.mark.parametrize("raw", [b"", b"\x90"])
def test_fewer_than_two_bytes_are_no_answer(raw: bytes) -> None:
    with pytest.raises(Malformed):
        split(raw)
    with pytest.raises(Malformed):
        pump(Command(0, 0xCB, 0, 0, ne=256), lambda _: raw)


def test_what_carried_a_secret_is_wiped_whether_it_was_answered_or_not() -> None:
    for end in ("answered", "closed", "thrown"):
        wire = exchange(Command(0x00, 0x20, 0x00, 0x80, bytearray(b"73194682"), effect=True))
        apdu = next(wire)
        assert b"73194682" in apdu
        if end == "answered":
            with pytest.raises(StopIteration):
                wire.send(b"\x90\x00")
        elif end == "closed":
            wire.close()
        else:
            with pytest.raises(Malformed):
                wire.throw(Malformed("nothing came back"))
        assert apdu == b"", end


def test_the_data_of_a_command_are_free_to_be_wiped_after_it() -> None:
    """No view or copy of the secret's buffer outlives the exchange."""
    data = bytearray(b"73194682" * 40)
    wire = exchange(Command(0x00, 0x24, 0x00, 0x80, data, effect=True))
    next(wire)
    data[:] = bytes(len(data))
    data.clear()  # BufferError if somebody still held a view
    wire.close()


def test_a_command_and_a_status_word_print_no_data() -> None:
    command = Command(0x00, 0x20, 0x00, 0x80, bytearray(b"73194682"), effect=True)
    assert "73194682" not in repr(command) + command.header
    assert command.header == "00 20 00 80 Lc=8"
    assert (repr(SW(0x63C2)), str(SW(0x6A)), f"{SW(0x9000)}") == ("63C2", "006A", "9000")


COMMANDS = st.builds(
    Command,
    cla=st.sampled_from([0x00, 0x10, 0x80]),
    ins=st.integers(0, 255),
    p1=st.integers(0, 255),
    p2=st.integers(0, 255),
    data=st.binary(max_size=600),
    ne=st.none() | st.integers(1, 256),
    effect=st.booleans(),
)
NOISE = st.binary(max_size=300) | st.builds(
    lambda data, sw: data + sw,
    st.binary(max_size=258),
    st.sampled_from([b"\x90\x00", b"\x61\x00", b"\x61\x05", b"\x6c\x05", b"\x6c\x00", b"\x63\xc1"]),
)


@given(COMMANDS, st.lists(NOISE, max_size=20), NOISE)
def test_noise_ends_and_raises_nothing_but_malformed(
    command: Command, answers: list[bytes], last: bytes
) -> None:
    count = 0

    def card(_: bytes) -> bytes:
        nonlocal count
        count += 1
        return answers.pop(0) if answers else last

    try:
        answer, _ = pump(command, card)
    except Malformed:
        pass
    else:
        assert len(answer.data) <= RESPONSE_LIMIT
    parts = max(1, -(-len(command.data) // 255))
    assert count <= parts + (0 if command.effect else 2 + RESPONSE_PARTS)


def test_over_t0_a_command_with_data_has_no_le() -> None:
    """The card says what is waiting, and is asked for it (ISO/IEC 7816-3 clause 12.2)."""
    command = Command(0x00, 0xCB, 0x3F, 0xFF, bytes.fromhex("5C017E"), 256)
    answer, sent = pump(command, script("6102", "AABB9000"), t0=True)
    assert answer == (b"\xaa\xbb", 0x9000)
    assert sent == [bytes.fromhex("00CB3FFF035C017E"), bytes.fromhex("00C0000002")]


def test_enough_of_an_answer_is_not_followed_by_the_rest() -> None:
    head = Command(0x00, 0xCB, 0x3F, 0xFF, b"\x5c", 256, enough=1)
    answer, sent = pump(head, script("AA" * 256 + "6180"))
    assert (len(answer.data), answer.sw, len(sent)) == (256, 0x6180, 1)
    answer, sent = pump(head, script("6102", "AABB6105"))
    assert (answer.data, len(sent)) == (b"\xaa\xbb", 2)


@pytest.mark.parametrize(
    ("size", "ne", "apdu"),
    [
        (0, 257, "00CB3FFF000101"),
        (0, 65536, "00CB3FFF000000"),
        (0, 99999, "00CB3FFF000000"),
        (256, None, "00CB3FFF000100" + "AA" * 256),
        (256, 256, "00CB3FFF000100" + "AA" * 256 + "0100"),
        (1, 300, "00CB3FFF000001AA012C"),
        (512, 512, "00CB3FFF000200" + "AA" * 512 + "0200"),
        # what short fields say is said by them
        (255, 256, "00CB3FFFFF" + "AA" * 255 + "00"),
        (0, 256, "00CB3FFF00"),
        (0, None, "00CB3FFF"),
    ],
)
def test_extended_length_fields(size: int, ne: int | None, apdu: str) -> None:
    command = Command(0x00, 0xCB, 0x3F, 0xFF, b"\xaa" * size, ne, extended=True)
    sent: list[bytes] = []
    answer = run_wire(exchange(command, extended=True), sent, script("9000"))
    assert (answer.sw, sent) == (0x9000, [bytes.fromhex(apdu)])


@pytest.mark.parametrize(
    ("card", "reader", "t0"), [(True, False, False), (False, True, False), (True, True, True)]
)
def test_chaining_where_the_card_the_reader_or_the_protocol_does_not_take_them(
    *, card: bool, reader: bool, t0: bool
) -> None:
    command = Command(0x00, 0x2A, 0x9E, 0x9A, b"\xaa" * 300, 512, extended=card)
    sent: list[bytes] = []
    wire = exchange(command, t0=t0, extended=reader)
    run_wire(wire, sent, script("9000", "9000"))
    assert [each[0] for each in sent] == [0x10, 0x00]
    assert all(len(each) <= 261 for each in sent)


def test_an_extended_answer_in_parts_and_a_right_le() -> None:
    sent: list[bytes] = []
    command = Command(0x00, 0xB0, 0, 0, b"", 600, extended=True)
    answer = run_wire(
        exchange(command, extended=True), sent, script("AA" * 10 + "6105", "BB" * 5 + "9000")
    )
    assert answer.data == b"\xaa" * 10 + b"\xbb" * 5
    assert sent[1] == bytes.fromhex("00C0000005")
    sent.clear()
    run_wire(exchange(command, extended=True), sent, script("6C10", "9000"))
    assert sent[1] == bytes.fromhex("00B0000010")
    sent.clear()
    long = Command(0x00, 0x2A, 0x9E, 0x9A, b"\xaa" * 300, 512, extended=True)
    run_wire(exchange(long, extended=True), sent, script("6C80", "9000"))
    assert sent[1] == bytes.fromhex("002A9E9A00012C") + b"\xaa" * 300 + bytes.fromhex("0080")


def test_an_extended_command_that_carried_a_secret_is_wiped_and_sent_once() -> None:
    command = Command(0, 0x24, 0, 0x80, bytearray(b"73194682" * 40), effect=True, extended=True)
    wire = exchange(command, extended=True)
    apdu = next(wire)
    assert len(apdu) == 7 + 320
    with pytest.raises(StopIteration) as end:
        wire.send(b"\x6c\x10")
    assert (apdu, end.value.value.sw) == (bytearray(), 0x6C10)


def test_more_than_an_extended_command_holds() -> None:
    with pytest.raises(ValueError):
        Command(0, 0xCB, 0, 0, bytes(65536)).wire_extended()


def run_wire(wire: Any, sent: list[bytes], card: Callable[[bytes], bytes]) -> Response:
    """The answer of an exchange; every APDU is put into `sent`."""
    try:
        apdu = next(wire)
        while True:
            sent.append(bytes(apdu))
            apdu = wire.send(card(sent[-1]))
    except StopIteration as end:
        response: Response = end.value
        return response


@pytest.mark.parametrize("sw", ["1337", "0000", "5F00", "6000", "8000", "A000", "FFFF"])
def test_a_status_word_that_no_card_may_give_is_none(sw: str) -> None:
    """ISO/IEC 7816-4 clause 5.6; read as a refusal it would make a garbled card a blank one."""
    with pytest.raises(Malformed):
        split(b"data" + bytes.fromhex(sw))

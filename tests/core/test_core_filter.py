"""Which APDUs of a caller reach the card: ISO/IEC 7816-3 clause 12.1, and an allow-list.

The seven cases and the forbidden instructions are written here once more, from the standards.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cardsession.core.apdu import Command
from cardsession.core.errors import Failure, Problem
from cardsession.core.filter import ALLOWED, LONGEST, NEVER, RawApdu, check, parse

CANARY = b"73194682"
CONTRACT = {0xA4, 0xB0, 0xB1, 0xB2, 0xB3, 0xC0, 0xCA, 0xCB, 0x84, 0x87, 0x88, 0x2A, 0x22}
SPENDS_OR_CHANGES = {0x20, 0x21, 0x24, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2C, 0x2D, 0x2E, 0x2F}
EVERY_BYTE = frozenset(range(256))
VERIFY = bytes.fromhex("0020008008") + CANARY

bytes_ = st.integers(0, 255)


def build(header: bytes, data: bytes, ne: int | None, *, extended: bool) -> bytes:
    """An APDU of ISO/IEC 7816-3 table 12; `ne` None: no Le."""
    apdu = header
    if extended:
        apdu += b"\0" if data or ne is not None else b""
        apdu += len(data).to_bytes(2, "big") + data if data else b""
        return apdu + (b"" if ne is None else (ne % 65536).to_bytes(2, "big"))
    apdu += bytes([len(data)]) + data if data else b""
    return apdu + (b"" if ne is None else bytes([ne % 256]))


def tried(step: Callable[[], RawApdu]) -> RawApdu | Problem:
    """What came of it; any exception but a `Failure` is a bug."""
    try:
        return step()
    except Failure as failure:
        return failure.problem


@pytest.mark.parametrize(
    ("apdu", "nc", "ne", "extended"),
    [
        ("00A40400", 0, None, False),  # 1
        ("00B0000001", 0, 1, False),  # 2S
        ("00B0000000", 0, 256, False),
        ("00A40400023F00", 2, None, False),  # 3S
        ("00A40400FF" + "AA" * 255, 255, None, False),
        ("00A40400023F0000", 2, 256, False),  # 4S
        ("00A40400023F00FF", 2, 255, False),
        ("00B00000000001", 0, 1, True),  # 2E
        ("00B00000000100", 0, 256, True),
        ("00B00000000000", 0, 65536, True),
        ("00A404000000023F00", 2, None, True),  # 3E
        ("00A40400000100" + "AA" * 256, 256, None, True),
        ("00A404000000023F000000", 2, 65536, True),  # 4E
        ("00A404000000023F000100", 2, 256, True),
        ("00A4040000FFFF" + "AA" * 65535 + "0000", 65535, 65536, True),
    ],
)
def test_the_seven_cases(apdu: str, nc: int, ne: int | None, extended: bool) -> None:
    raw = bytes.fromhex(apdu)
    assert parse(raw) == RawApdu(raw, nc, ne, extended)
    assert check(raw).wire() == raw


@pytest.mark.parametrize(
    ("apdu", "told"),
    [
        ("", "there are 0"),
        ("00", "4 to 65544 bytes"),
        ("00A404", "there are 3"),
        ("00A4040002AA", "with Lc 2, 7 or 8 bytes were expected, there are 6"),
        ("00A4040002AABB0000", "with Lc 2, 7 or 8 bytes were expected, there are 9"),
        ("00A40400FF" + "AA" * 254, "with Lc 255, 260 or 261"),
        ("00A404000002", "two more bytes"),
        ("00A4040000000002", "at least 1"),  # Lc 0000, then something
        ("00A404000000000000", "at least 1"),
        ("00A404000001AA", None),  # that is case 2E: Le 01AA
        ("00A4040000000200", "with Lc 2, 9 or 11 bytes were expected, there are 8"),
        ("00A404000000023F0000", "with Lc 2, 9 or 11 bytes were expected, there are 10"),
        ("00A404000000023F00000000", "there are 12"),
        (
            "00A4040000FFFF" + "AA" * 65535 + "000000",
            "4 to 65544 bytes were expected, there are 65545",
        ),
    ],
)
def test_lengths_that_do_not_agree(apdu: str, told: str | None) -> None:
    if told is None:
        assert parse(bytes.fromhex(apdu)).ne == 0x01AA
        return
    with pytest.raises(Failure) as caught:
        check(bytes.fromhex(apdu), EVERY_BYTE)
    assert caught.value.problem is Problem.INVALID_APDU
    assert told in caught.value.text


headers = st.binary(min_size=4, max_size=4)


@given(headers, st.binary(max_size=255), st.none() | st.integers(1, 256))
def test_what_is_built_short_is_parsed_the_same(header: bytes, data: bytes, ne: int | None) -> None:
    raw = build(header, data, ne, extended=False)
    assert parse(raw) == RawApdu(raw, len(data), ne)
    assert raw == Command(*header, data, ne).wire(), "as our own commands are made"


@given(headers, st.binary(max_size=700), st.none() | st.integers(1, 65536))
def test_what_is_built_extended_is_parsed_the_same(
    header: bytes, data: bytes, ne: int | None
) -> None:
    raw = build(header, data, ne, extended=True)
    assert parse(raw) == RawApdu(raw, len(data), ne, extended=bool(data) or ne is not None)


@given(headers, st.binary(max_size=40), st.none() | st.integers(1, 256), st.booleans(), st.data())
def test_a_byte_more_or_less_is_another_case_or_none(
    header: bytes, data: bytes, ne: int | None, extended: bool, draw: st.DataObject
) -> None:
    """No bytes are left over: what was parsed, built again, is what came."""
    raw = build(header, data, ne, extended=extended)
    cut = draw.draw(st.integers(0, len(raw)))
    for changed in (raw + b"\0", raw[:-1], raw[:cut] + raw[cut + 1 :]):
        found = tried(lambda raw=changed: parse(raw))
        if isinstance(found, Problem):
            assert found is Problem.INVALID_APDU
        else:
            start = 7 if found.extended else 5
            body = changed[start : start + found.nc] if found.nc else b""
            assert build(changed[:4], body, found.ne, extended=found.extended) == changed


noise = st.binary(max_size=300) | st.tuples(
    st.sampled_from([b"\x00", b"\x10", b"\x0c", b"\x80"]), bytes_, st.binary(max_size=300)
).map(lambda each: each[0] + bytes([each[1]]) + each[2])


@given(noise, st.frozensets(bytes_))
@example(VERIFY, EVERY_BYTE)
@example(b"\x10" + VERIFY[1:], EVERY_BYTE)
def test_whatever_comes_it_is_let_through_as_it_is_or_refused(
    raw: bytes, extra: frozenset[int]
) -> None:
    apdu = tried(lambda: check(raw, extra))
    if isinstance(apdu, Problem):
        assert apdu in (Problem.INVALID_APDU, Problem.APDU_FILTERED)
        return
    assert apdu.wire() == raw
    assert raw[0] in (0x00, 0x10)
    assert raw[1] in CONTRACT | extra
    assert raw[1] not in SPENDS_OR_CHANGES
    if not apdu.extended:
        assert apdu.wire(t0=True) == (raw[:-1] if apdu.nc and apdu.ne is not None else raw)


def outcome(raw: bytes, extra: frozenset[int] = frozenset()) -> Problem | None:
    found = tried(lambda: check(raw, extra))
    return found if isinstance(found, Problem) else None


def test_every_class_and_instruction() -> None:
    """All 65,536 headers: what passes is the contract's, and nothing else."""
    passed = {
        (cla, ins)
        for cla in range(256)
        for ins in range(256)
        if outcome(bytes((cla, ins, 0, 0))) is None
    }
    assert passed == {(cla, ins) for cla in (0x00, 0x10) for ins in CONTRACT}
    assert CONTRACT == ALLOWED
    assert not ALLOWED & NEVER


def test_whatever_a_site_adds_no_try_can_be_spent() -> None:
    passed = {
        (cla, ins)
        for cla in range(256)
        for ins in range(256)
        if outcome(bytes((cla, ins, 0, 0x80)), EVERY_BYTE) is None
    }
    assert {cla for cla, _ in passed} == {0x00, 0x10}
    instructions = {ins for _, ins in passed}
    assert not instructions & SPENDS_OR_CHANGES
    assert not instructions & {0x14, 0x82, 0x83}, "a user's password; keys with counters"
    assert not instructions & {0xC2, 0xC3}, "ENVELOPE carries a VERIFY as its data"
    assert not {ins for ins in instructions if ins >> 4 in (6, 9)}, "no instructions (7816-3)"
    assert {0xDB, 0x46, 0xF8, 0x86, 0x2B} <= instructions, "a site can add what does no such thing"


def test_a_site_adds_for_its_profile_only_what_it_names() -> None:
    assert outcome(bytes.fromhex("00F80000")) is Problem.APDU_FILTERED
    assert outcome(bytes.fromhex("00F80000"), frozenset({0xF8})) is None
    assert outcome(bytes.fromhex("80F80000"), frozenset({0xF8})) is Problem.APDU_FILTERED
    assert outcome(bytes.fromhex("00F90000"), frozenset({0xF8})) is Problem.APDU_FILTERED


@pytest.mark.parametrize("cla", ["01", "03", "04", "08", "0C", "1C", "40", "80", "90", "FF"])
def test_other_channels_secure_messaging_and_the_reader_s_own_class_are_filtered(cla: str) -> None:
    assert outcome(bytes.fromhex(cla + "A40400"), EVERY_BYTE) is Problem.APDU_FILTERED


@pytest.mark.parametrize("extended", [False, True])
@pytest.mark.parametrize("ins", sorted(SPENDS_OR_CHANGES))
def test_no_length_hides_a_submission(ins: int, extended: bool) -> None:
    for cla in (0x00, 0x10):
        for data, ne in ((b"", None), (CANARY, None), (CANARY, 256), (b"", 256)):
            raw = build(bytes((cla, ins, 0, 0x80)), data, ne, extended=extended)
            assert outcome(raw, EVERY_BYTE) is Problem.APDU_FILTERED


def test_over_t0_nothing_follows_the_data() -> None:
    four = bytes.fromhex("00A40400023F0000")
    assert parse(four).wire(t0=True) == four[:-1]
    for raw in ("00A40400", "00B0000010", "00A40400023F00"):
        assert parse(bytes.fromhex(raw)).wire(t0=True) == bytes.fromhex(raw)


def test_over_t0_an_extended_apdu_is_refused_its_rest_might_be_a_command() -> None:
    smuggled = build(bytes.fromhex("00A40400"), VERIFY, None, extended=True)
    with pytest.raises(Failure) as caught:
        check(smuggled).wire(t0=True)
    assert caught.value.problem is Problem.INVALID_APDU


@pytest.mark.parametrize(
    "raw", [VERIFY, VERIFY[:-1], CANARY, b"\x00\xa4\x04\x00\x09" + CANARY, b"\x00\x9a\x00\x00"]
)
def test_neither_a_refusal_nor_a_record_repeats_what_was_sent(raw: bytes) -> None:
    with pytest.raises(Failure) as caught:
        check(raw)
    for shown in (CANARY.decode(), CANARY.hex(), CANARY.hex().upper(), CANARY.hex(" ")):
        assert shown not in str(caught.value)
        assert shown not in repr(caught.value)


def test_what_is_logged_is_the_header() -> None:
    apdu = check(b"\x00\xa4\x04\x00\x08" + CANARY)
    assert apdu.header == "00 A4 04 00 Lc=8"
    assert apdu.header == Command(0, 0xA4, 4, 0, CANARY).header
    assert (apdu.cla, apdu.ins) == (0x00, 0xA4)
    assert "7319" not in repr(apdu) and CANARY.hex() not in repr(apdu)


def test_the_longest() -> None:
    assert LONGEST == 4 + 3 + 65535 + 2

"""BER-TLV with lengths that are claims."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardsession.core import tlv
from cardsession.core.errors import Malformed

TAGS = st.sampled_from(
    [0x01, 0x1E, 0x53, 0x70, 0x7E, 0xFE, 0x5F2F, 0x7F49, 0x9F7F, 0x5FC102, 0x5FFF22]
)


@given(st.lists(st.tuples(TAGS, st.binary(max_size=700))))
def test_what_is_encoded_is_read_again(objects: list[tuple[int, bytes]]) -> None:
    data = b"".join(tlv.encode(tag, value) for tag, value in objects)
    assert list(tlv.items(data)) == objects


@pytest.mark.parametrize(
    ("size", "head"),
    [
        (0, "5300"),
        (127, "537F"),
        (128, "538180"),
        (255, "5381FF"),
        (256, "53820100"),
        (65536, "5383010000"),
    ],
)
def test_the_length_is_the_shortest(size: int, head: str) -> None:
    encoded = tlv.encode(0x53, bytes(size))
    assert encoded[: len(head) // 2].hex().upper() == head
    assert tlv.find(encoded, 0x53) == bytes(size)


def test_padding_is_skipped_and_the_first_of_a_tag_is_found() -> None:
    data = bytes.fromhex("0000 5301AA FFFF 5301BB 00")
    assert list(tlv.items(data)) == [(0x53, b"\xaa"), (0x53, b"\xbb")]
    assert tlv.find(data, 0x53) == b"\xaa"
    assert tlv.find(data, 0x54) is None
    with pytest.raises(Malformed, match="54"):
        tlv.need(data, 0x54)


@pytest.mark.parametrize(
    "data",
    [
        "53",  # no length
        "5302AA",  # more claimed than there
        "5381",  # the length is cut
        "5382FF",
        "5380AABB0000",  # indefinite
        "5384000000010A",  # a length field of four bytes
        "53FF" + "00" * 127,
        "5383FFFFFFAA",  # sixteen megabytes
        "5F",  # the tag is cut
        "5FC1",
        "5FC182",
        "5FC1828301AA",  # a tag of four bytes
        "9F8080800100",
    ],
)
def test_a_hostile_length_or_tag_is_malformed(data: str) -> None:
    with pytest.raises(Malformed):
        list(tlv.items(bytes.fromhex(data)))


@given(st.binary(max_size=400))
def test_noise_is_read_or_malformed_and_nothing_comes_from_nowhere(data: bytes) -> None:
    total = 0
    try:
        for _, value in tlv.items(data):
            assert value in data
            total += len(value)
    except Malformed:
        pass
    assert total <= len(data)

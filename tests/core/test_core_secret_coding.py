"""How a passcode is formed for a card: ISO/IEC 7816-15 PasswordType, ISO 9564-1 format 2."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardsession.core.secret import Coding, Secret


def made(text: str) -> Secret:
    return Secret(bytearray(text.encode()))


@pytest.mark.parametrize(
    ("text", "length", "pad", "coding", "formed"),
    [
        ("1234", 8, 0xFF, Coding.ASCII, "31323334FFFFFFFF"),
        ("1234", 8, None, Coding.ASCII, "31323334"),
        ("ab", 4, 0x00, Coding.UTF8, "61620000"),
        ("1234", 4, 0xFF, Coding.BCD, "1234FFFF"),
        ("12345", 4, 0xFF, Coding.BCD, "12345FFF"),
        ("12345", 4, 0x00, Coding.BCD, "12345000"),
        ("12345", 8, None, Coding.BCD, "12345F"),
        ("12345678", 4, None, Coding.BCD, "12345678"),
        ("1234", 6, 0x00, Coding.HALF_NIBBLE_BCD, "F1F2F3F40000"),
        ("1234", 6, None, Coding.HALF_NIBBLE_BCD, "F1F2F3F4"),
        ("1234", 8, None, Coding.ISO9564_1, "241234FFFFFFFFFF"),
        ("12345", 8, 0x00, Coding.ISO9564_1, "2512345FFFFFFFFF"),
        ("123456789012", 8, 0x00, Coding.ISO9564_1, "2C123456789012FF"),
    ],
)
def test_forms(text: str, length: int, pad: int | None, coding: Coding, formed: str) -> None:
    assert made(text).formed(length, pad, coding).hex().upper() == formed


@pytest.mark.parametrize(
    ("text", "length", "coding"),
    [
        ("", 8, Coding.ASCII), ("123456789", 8, Coding.ASCII), ("123456789", 4, Coding.BCD),
        ("12a4", 4, Coding.BCD), ("12 4", 8, Coding.HALF_NIBBLE_BCD),
        ("1" * 13, 8, Coding.ISO9564_1), ("1234", 7, Coding.ISO9564_1),
        ("abcd", 8, Coding.ISO9564_1),
    ],
)  # fmt: skip
def test_what_does_not_fit(text: str, length: int, coding: Coding) -> None:
    secret = made(text)
    assert not secret.fits(length, coding)
    with pytest.raises(ValueError) as caught:
        secret.formed(length, 0xFF, coding)
    assert not text or text not in str(caught.value)


@given(st.text("0123456789", min_size=1, max_size=12), st.sampled_from(list(Coding)))
def test_every_digit_is_there_once_and_the_secret_is_unchanged(text: str, coding: Coding) -> None:
    secret = made(text)
    formed = secret.formed(16, 0xFF, coding).hex().upper()
    digits = {
        Coding.BCD: formed.rstrip("F"),
        Coding.HALF_NIBBLE_BCD: formed[1::2].rstrip("F"),
        Coding.ISO9564_1: formed[2:].rstrip("F"),
    }
    plain = bytes.fromhex(formed).rstrip(b"\xff").decode("latin-1")
    assert digits.get(coding, plain) == text
    assert secret.formed(16, 0xFF).rstrip(b"\xff") == text.encode()

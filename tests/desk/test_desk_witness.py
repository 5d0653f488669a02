"""The witness of the property test sees a passcode, and only a passcode."""

from __future__ import annotations

import pytest

from fakes.witness import Witness


def seen(text: str) -> bool:
    witness = Witness(())
    witness.silent(text)
    return bool(witness.violations)


@pytest.mark.parametrize("passcode", ["731966", "73194682", "73191017", "731910173"])
def test_it_sees_a_passcode(passcode: str) -> None:
    apdu = b"\x00\x20\x00\x80\x08" + passcode.encode().ljust(8, b"\xff")
    tlv = b"\x53\x08" + passcode.encode()
    for text in (passcode, f"PIN {passcode}.", repr(apdu), repr(tlv), apdu.hex()):
        assert seen(text), text


@pytest.mark.parametrize(
    "text",
    ["<function read at 0x7f7319427740>", "1731946829", "73190000", "sha256 ab731946cd", "7319"],
)
def test_it_sees_nothing_else(text: str) -> None:
    assert not seen(text)

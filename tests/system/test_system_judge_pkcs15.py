"""OpenSC as an outside judge of the developer's PKCS#15 card: it reads what the card is made of.

OpenSC has no driver for the card. Its driver `default` is plain ISO/IEC 7816: it reads files
and verifies PINs, but it registers no algorithm, and OpenSC takes none from TokenInfo, so that
`pkcs15-crypt` verifies the PIN and ends "Not supported" before MSE SET.
`masktech` is the same driver with RSA registered (its own additions are for a key reference 88,
for changing PINs and for a serial number): signatures are asked through it. It has no elliptic
curve: those commands are sent by `opensc-tool`, and openssl judges the signature.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cardsession.stack import Card
from cardsession.stack.processes import wait_until
from system.opensc import Judge
from system.readers import present

SIGNATURE_PIN = "24681357"
Insert = Callable[..., Card]


@pytest.fixture
def insert(cards: Callable[..., Card]) -> Insert:
    """A PKCS#15 card that the card service sees: insert("--puk", algorithm="rsa2048")."""

    def make(*options: str, algorithm: str = "p256") -> Card:
        chosen = ["--family", "pkcs15", "--algorithm", algorithm, *options]
        card = cards(options=chosen, signature_pin=SIGNATURE_PIN)
        card.insert()
        wait_until("a card is in", lambda: present(0))
        return card

    return make


def left(card: Card) -> dict[str, int]:
    """Tries left, by reference."""
    return {at: each["left"] for at, each in card.status()["references"].items()}


def der_of(card: Card, slot: str) -> bytes:
    """A certificate as the card was made with."""
    return bytes.fromhex(card.tell("certificate", slot=slot)["der"])


async def signed_well(judge: Judge, card: Card, slot: str, signature: Path, **how: str) -> bool:
    """Does openssl verify the signature of the file `digest` with the slot's public key?"""
    (judge.directory / "certificate.der").write_bytes(der_of(card, slot))
    certificate = ("-in", "certificate.der", "-inform", "DER")
    public = await judge.openssl("x509", *certificate, "-noout", "-pubkey")
    (judge.directory / "public.pem").write_text(public)
    said = await judge.openssl(
        *("pkeyutl", "-verify", "-pubin", "-inkey", "public.pem", "-in", "digest"),
        *("-sigfile", str(signature)),
        *(part for name, value in how.items() for part in ("-pkeyopt", f"{name}:{value}")),
    )
    return "Signature Verified Successfully" in said


async def test_opensc_reads_what_the_card_is_made_of(insert: Insert, rundir: Path) -> None:
    card = insert(
        *("--signature-pin", "--pin-label", "Smartcard passcode", "--trusted-certificates"),
        *("--manufacturer", "Judged Cards", "--holder", "555000000042"),
        algorithm="rsa2048",
    )
    judge = Judge(rundir, card)
    told = await judge("pkcs15-tool", "--list-info")
    assert f"Serial number  : {card.status()['serial']}" in told
    assert "Manufacturer ID: Judged Cards" in told
    assert re.search(r"mechanism *: \[0x01\] CKM_RSA_PKCS", told)
    assert "algo_ref   : [0x02]" in told
    pins = await judge("pkcs15-tool", "--list-pins")
    assert re.findall(r"PIN \[(.*)\]", pins) == ["Smartcard passcode", "Signature PIN", "PUK"]
    assert re.findall(r"Reference *: \d+ \(0x(..)\)", pins) == ["81", "82", "83"]
    assert re.findall(r"Flags *: \[0x(..)\], ", pins)[1::2] == ["32", "32", "7A"]
    assert pins.count("Pad char       : 0xFF") == 3
    assert pins.count("min_len:4, max_len:8, stored_len:8") == 3
    keys = await judge("pkcs15-tool", "--list-keys")
    assert re.findall(r"Key ref *: \d+ \(0x(..)\)", keys) == ["91", "92"]
    assert re.findall(r"\tID *: (..)", keys) == ["45", "46"]
    assert re.findall(r"Auth ID *: (..)", keys) == ["01", "02"]
    assert re.findall(r"ModLength *: (\d+)", keys) == ["2048", "2048"]
    listed = await judge("pkcs15-tool", "--list-certificates")
    assert re.findall(r"\tID *: (..)", listed) == ["45", "46", "ca"]
    for name, slot in (("45", "9A"), ("46", "9C")):
        pem = await judge("pkcs15-tool", "--read-certificate", name)
        assert ssl.PEM_cert_to_DER_cert(pem) == der_of(card, slot)
    authority = await judge("pkcs15-tool", "--read-certificate", "ca")
    pem = card.tell("authority")["pem"]
    assert ssl.PEM_cert_to_DER_cert(authority) == ssl.PEM_cert_to_DER_cert(pem)
    assert card.status()["counts"] == {}, "nothing of this touched a PIN"


@pytest.mark.parametrize(
    "options",
    [
        ("--dir-records",),  # it takes an object file for bytes, or a path for one record of it
        ("--paths", "relative", "--slack", "40", "--slack-byte", "255"),
        ("--slack", "300", "--select-answer", "fcp", "--no-extended", "--no-chaining"),
        ("--certificates", "shared-file", "--end-of-file", "warning"),
        ("--certificates", "direct", "--short-references", "--no-tell-algorithms"),
        ("--no-ef-dir", "--select-answer", "fci", "--padding", "00", "--field-size"),
        ("--padding", "none", "--no-tell-maximum"),
    ],
    ids=" ".join,
)
async def test_opensc_reads_and_verifies_each_variant(
    insert: Insert, rundir: Path, canary: str, options: tuple[str, ...]
) -> None:
    card = insert(*options)
    judge = Judge(rundir, card)
    pem = await judge("pkcs15-tool", "--read-certificate", "46")
    assert ssl.PEM_cert_to_DER_cert(pem) == der_of(card, "9C")
    await judge("pkcs15-tool", "--verify-pin", "--auth-id", "01", "--pin", canary)
    tally = card.status()["counts"]["81"]["verify"]
    assert (tally["right"], tally["wrong"]) == (1, 0)


async def test_a_try_that_opensc_spends_is_in_the_book(
    insert: Insert, rundir: Path, canary: str
) -> None:
    card = insert("--tries-limit", "5")
    judge = Judge(rundir, card)
    verify = ("pkcs15-tool", "--verify-pin", "--auth-id", "01", "--pin")
    await judge(*verify, "11112222", fails=True)
    assert left(card) == {"81": 4, "83": 3}
    assert card.status()["wrong"] == 1
    await judge(*verify, canary)
    assert left(card) == {"81": 5, "83": 3}
    await judge(
        *("pkcs15-tool", "--change-pin", "--auth-id", "01"),
        "--pin",
        canary,
        "--new-pin",
        "24680000",
    )
    await judge(*verify, "24680000")
    await judge(
        *("pkcs15-tool", "--unblock-pin", "--auth-id", "01"),
        *("--puk", "12345678", "--new-pin", canary),
    )
    await judge(*verify, canary)
    counts = card.status()["counts"]
    assert counts["81"]["change-reference-data"]["right"] == 1
    assert counts["83"]["reset-retry-counter"]["right"] == 1
    assert card.status()["wrong"] == 1


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [("rsa2048", ()), ("rsa3072", ("--no-extended",)), ("rsa2048", ("--signature-pin",))],
)
async def test_opensc_signs_and_openssl_verifies(
    insert: Insert, rundir: Path, canary: str, algorithm: str, options: tuple[str, ...]
) -> None:
    card = insert(*options, algorithm=algorithm)
    judge = Judge(rundir, card)
    (rundir / "digest").write_bytes(bytes(range(32)))
    sign = ("pkcs15-crypt", "--sign", "--sha-256", "--pkcs1", "--input", "digest")
    second = SIGNATURE_PIN if "--signature-pin" in options else canary
    for key, slot, pin in (("45", "9A", canary), ("46", "9C", second)):
        output = ("--key", key, "--output", f"signature{key}", "--pin", pin)
        await judge(*sign, *output, driver="masktech")
        signature = rundir / f"signature{key}"
        assert await signed_well(judge, card, slot, signature, digest="sha256")
    assert card.status()["wrong"] == 0


async def test_what_the_plain_driver_lacks(insert: Insert, rundir: Path, canary: str) -> None:
    card = insert(algorithm="rsa2048")
    judge = Judge(rundir, card)
    (rundir / "digest").write_bytes(bytes(range(32)))
    sign = ("pkcs15-crypt", "--sign", "--sha-256", "--pkcs1", "--input", "digest", "--key", "45")
    said = await judge(*sign, "--output", "signature", "--pin", canary, fails=True)
    assert "Not supported" in said
    assert not [head for head in card.status()["headers"] if head.startswith("0022")]


async def test_an_elliptic_curve_signature_is_r_and_s(
    insert: Insert, rundir: Path, canary: str
) -> None:
    card = insert("--pin-type", "bcd", "--padding", "ff")
    judge = Judge(rundir, card)
    (rundir / "digest").write_bytes(bytes(range(32)))
    pin = bytes.fromhex(canary.ljust(16, "F"))
    commands = [
        "00A4040C0CA000000063504B43532D3135",
        f"0020008108{pin.hex()}",
        "002241B606800104840191",
        f"002A9E9A20{bytes(range(32)).hex()}00",
    ]
    said = await judge(
        "opensc-tool", *(part for each in commands for part in ("--send-apdu", each))
    )
    assert re.findall(r"SW1=0x(..), SW2=0x(..)", said) == [("90", "00")] * 4
    signature = _dump(said)
    assert len(signature) == 64
    (rundir / "signature").write_bytes(_as_der(signature))
    assert await signed_well(judge, card, "9A", rundir / "signature")
    assert left(card) == {"81": 3, "83": 3}


def _dump(said: str) -> bytes:
    """The bytes of the last answer, out of opensc-tool's hexadecimal dump."""
    lines = said.rsplit("SW1=0x90, SW2=0x00):", 1)[-1].splitlines()
    return b"".join(bytes.fromhex(line[:48]) for line in lines if line.strip())


def _as_der(plain: bytes) -> bytes:
    numbers: list[Any] = []
    for half in (plain[:32], plain[32:]):
        value = half.lstrip(b"\0")
        value = (b"\0" if value[0] & 0x80 else b"") + value
        numbers.append(b"\x02" + bytes([len(value)]) + value)
    body = b"".join(numbers)
    return b"\x30" + bytes([len(body)]) + body

"""Signatures of a PKCS#15 card, verified by `cryptography`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature

from cardsession.virtual.card import VirtualCard
from cardsession.virtual.options import Algorithm, Slot
from cardsession.virtual.pkcs15.options import Mechanism

Maker = Callable[..., VirtualCard]
DIGEST = hashlib.sha256(b"a prescription").digest()
INFO = bytes.fromhex("3031300D060960864801650304020105000420") + DIGEST
AUTHENTICATION, SIGNATURE = "91", "92"
SIGN = "002A9E9A"


def ask(card: VirtualCard, head: str, data: bytes = b"", le: bytes = b"") -> tuple[bytes, int]:
    """One command, in a chain where it must, and all of its answer."""
    command = bytes.fromhex(head)
    while len(data) > 255:
        link = bytes([command[0] | 0x10]) + command[1:]
        assert card.process(link + b"\xff" + data[:255]) == b"\x90\x00"
        data = data[255:]
    answer = card.process(command + (bytes([len(data)]) + data if data else b"") + le)
    content, status = answer[:-2], int.from_bytes(answer[-2:], "big")
    while status & 0xFF00 == 0x6100:
        answer = card.process(bytes([0, 0xC0, 0, 0, status & 0xFF]))
        content, status = content + answer[:-2], int.from_bytes(answer[-2:], "big")
    return content, status


def verify(card: VirtualCard, value: bytes = b"73194682", at: str = "81") -> None:
    assert ask(card, f"002000{at}", value)[1] == 0x9000


def choose(card: VirtualCard, key: str, algorithm: str = "") -> int:
    data = (f"8001{algorithm}" if algorithm else "") + f"8401{key}"
    return ask(card, "002241B6", bytes.fromhex(data))[1]


def sign(card: VirtualCard, data: bytes) -> tuple[bytes, int]:
    return ask(card, SIGN, data, b"\0")


@pytest.fixture
def make(make_pkcs15: Maker) -> Maker:
    """Cards with their application selected and the user verified."""

    def made(pkcs15: dict[str, Any] | None = None, **options: Any) -> VirtualCard:
        card = make_pkcs15(pkcs15, **options)
        assert ask(card, "00A4000C", bytes.fromhex("5015"))[1] == 0x9000
        verify(card)
        return card

    return made


def public(card: VirtualCard, slot: Slot = Slot.AUTHENTICATION) -> Any:
    return x509.load_der_x509_certificate(card.identity.certificates[slot]).public_key()


@pytest.mark.parametrize("algorithm", [Algorithm.RSA2048, Algorithm.RSA3072, Algorithm.RSA4096])
def test_rsa_with_a_digest_info(make: Maker, algorithm: Algorithm) -> None:
    card = make(algorithm=algorithm, extended=False, slots=(Slot.AUTHENTICATION,))
    assert choose(card, AUTHENTICATION, "02") == 0x9000
    signature, status = sign(card, INFO)
    assert status == 0x9000
    key = public(card)
    assert isinstance(key, rsa.RSAPublicKey)
    assert len(signature) * 8 == key.key_size
    key.verify(signature, DIGEST, padding.PKCS1v15(), Prehashed(hashes.SHA256()))
    with pytest.raises(InvalidSignature):
        key.verify(signature, DIGEST[::-1], padding.PKCS1v15(), Prehashed(hashes.SHA256()))


def test_rsa_takes_nothing_but_a_digest_info(make: Maker) -> None:
    card = make(algorithm=Algorithm.RSA2048)
    assert choose(card, AUTHENTICATION) == 0x9000, "one mechanism need not be named"
    for data in (DIGEST, INFO[1:], INFO + b"\0", b"\0" * 256):
        assert sign(card, data)[1] == 0x6A80


def test_raw_rsa_takes_a_padded_block(make: Maker) -> None:
    card = make({"mechanisms": (Mechanism.RSA_X_509,)}, algorithm=Algorithm.RSA2048)
    assert choose(card, AUTHENTICATION, "02") == 0x6A80
    assert choose(card, AUTHENTICATION, "01") == 0x9000
    assert sign(card, INFO)[1] == 0x6A80
    block = b"\x00\x01" + b"\xff" * (253 - len(INFO)) + b"\x00" + INFO
    signature, status = sign(card, block)
    assert status == 0x9000
    public(card).verify(signature, DIGEST, padding.PKCS1v15(), Prehashed(hashes.SHA256()))
    assert sign(card, b"\xff" * 256)[1] == 0x6A80
    extended = bytes.fromhex(SIGN) + b"\x00\x01\x00" + block + b"\x00\x00"
    assert card.process(extended) == signature + b"\x90\x00"


def test_a_card_that_pads_and_wraps(make: Maker) -> None:
    card = make(
        {"mechanisms": (Mechanism.SHA256_RSA_PKCS, Mechanism.RSA_PKCS)}, algorithm="rsa2048"
    )
    assert choose(card, AUTHENTICATION) == 0x6A80, "two mechanisms: which?"
    assert choose(card, AUTHENTICATION, "42") == 0x9000
    assert sign(card, INFO)[1] == 0x6A80
    signature, _ = sign(card, DIGEST)
    public(card).verify(signature, DIGEST, padding.PKCS1v15(), Prehashed(hashes.SHA256()))


@pytest.mark.parametrize(
    ("algorithm", "size", "digest"),
    [
        (Algorithm.P256, 32, hashes.SHA256()),
        (Algorithm.P384, 48, hashes.SHA384()),
        (Algorithm.P384, 48, hashes.SHA256()),
    ],
)
def test_ecdsa_is_plain(
    make: Maker, algorithm: Algorithm, size: int, digest: hashes.SHA256 | hashes.SHA384
) -> None:
    card = make(algorithm=algorithm)
    assert choose(card, AUTHENTICATION, "04") == 0x9000
    value = bytes(range(digest.digest_size))
    signature, status = sign(card, value)
    assert (len(signature), status) == (2 * size, 0x9000)
    numbers = (int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big"))
    public(card).verify(encode_dss_signature(*numbers), value, ec.ECDSA(Prehashed(digest)))


def test_ecdsa_takes_a_digest_and_no_more(make: Maker) -> None:
    card = make()
    assert choose(card, AUTHENTICATION) == 0x9000
    for data in (b"\1" * 48, b"\1" * 31, b""):
        assert sign(card, data)[1] == 0x6A80


def test_the_signature_key_wants_its_pin_each_time(make: Maker) -> None:
    card = make()
    assert choose(card, SIGNATURE) == 0x9000
    assert sign(card, DIGEST)[1] == 0x9000, "files and environment may come in between"
    assert sign(card, DIGEST)[1] == 0x6982
    assert choose(card, AUTHENTICATION) == 0x9000
    assert sign(card, DIGEST)[1] == sign(card, DIGEST)[1] == 0x9000
    relaxed = make({"consent": False})
    assert choose(relaxed, SIGNATURE) == 0x9000
    assert sign(relaxed, DIGEST)[1] == sign(relaxed, DIGEST)[1] == 0x9000


def test_a_second_pin_guards_the_signature_key_only(make: Maker) -> None:
    card = make({"signature_pin": True})
    assert choose(card, SIGNATURE) == 0x9000
    assert sign(card, DIGEST)[1] == 0x6982
    verify(card, b"24681357", "82")
    assert sign(card, DIGEST)[1] == 0x9000
    card.reset()
    ask(card, "00A4000C", bytes.fromhex("5015"))
    verify(card, b"24681357", "82")
    choose(card, AUTHENTICATION)
    assert sign(card, DIGEST)[1] == 0x6982


def test_nobody_verified_nothing_signed(make: Maker) -> None:
    card = make()
    assert sign(card, DIGEST)[1] == 0x6985, "no environment"
    choose(card, AUTHENTICATION)
    assert ask(card, "0020FF81")[1] == 0x9000
    assert sign(card, DIGEST)[1] == 0x6982


@pytest.mark.parametrize(
    ("head", "data", "status"),
    [
        ("002241B6", "840193", 0x6A88),
        ("002241B6", "800104", 0x6A80),
        ("002241B6", "830191", 0x6A80),
        ("002241B6", "8401", 0x6A80),
        ("002241B6", "8102" + "4B01" + "840191", 0x9000),
        ("002241B8", "840191", 0x6A86),
        ("002281B6", "840191", 0x6A86),
    ],
)
def test_security_environments(make: Maker, head: str, data: str, status: int) -> None:
    card = make()
    assert ask(card, head, bytes.fromhex(data))[1] == status
    assert sign(card, DIGEST)[1] == (0x9000 if status == 0x9000 else 0x6985)


def test_an_environment_is_lost_with_its_application(make: Maker) -> None:
    card = make()
    choose(card, AUTHENTICATION)
    ask(card, "00A4000C", bytes.fromhex("3F00"))
    assert choose(card, AUTHENTICATION) == 0x6A88, "the keys are in DF 5015"
    ask(card, "00A4000C", bytes.fromhex("5015"))
    assert sign(card, DIGEST)[1] == 0x6985
    choose(card, AUTHENTICATION)
    assert ask(card, "0022F301")[1] == 0x9000
    assert sign(card, DIGEST)[1] == 0x6985
    assert ask(card, "002A9EAC", DIGEST)[1] == 0x6A86

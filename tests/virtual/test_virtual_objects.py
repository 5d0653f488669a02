"""Data objects, certificates, and what the keys do."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from cardsession.virtual.card import VirtualCard
from cardsession.virtual.identity import Authority
from cardsession.virtual.objects import fascn
from cardsession.virtual.options import Slot
from cardsession.virtual.tlv import tlv, walk

RIGHT = "00200080083733313934363832"
OBJECTS = {0x9A: "5FC105", 0x9C: "5FC10A", 0x9D: "5FC10B", 0x9E: "5FC101"}
Maker = Callable[..., VirtualCard]


def ask(card: VirtualCard, command: str) -> tuple[bytes, int]:
    answer = card.process(bytes.fromhex(command))
    return answer[:-2], int.from_bytes(answer[-2:], "big")


def get(card: VirtualCard, tag: str) -> tuple[bytes, int]:
    data = tlv(0x5C, bytes.fromhex(tag)).hex()
    return ask(card, f"00CB3FFF0000{len(data) // 2:02X}{data}0000")


def authenticate(card: VirtualCard, algorithm: int, slot: int, inner: bytes) -> tuple[bytes, int]:
    data = tlv(0x7C, tlv(0x82) + inner)
    answer, sw = ask(card, f"0087{algorithm:02X}{slot:02X}00{len(data):04X}{data.hex()}0000")
    if sw != 0x9000:
        return answer, sw
    ((template, content),) = walk(answer)
    ((tag, value),) = walk(content)
    assert (template, tag) == (0x7C, 0x82)
    return value, sw


def certificate(card: VirtualCard, slot: int) -> x509.Certificate:
    ((_, content),) = walk(get(card, OBJECTS[slot])[0])
    fields = dict(walk(content))
    der = gzip.decompress(fields[0x70]) if fields[0x71] == b"\1" else fields[0x70]
    assert fields[0xFE] == b""
    return x509.load_der_x509_certificate(der)


def test_chuid_has_its_parts(card: VirtualCard) -> None:
    ((tag, content),) = walk(get(card, "5FC102")[0])
    fields = dict(walk(content))
    assert tag == 0x53
    assert list(fields) == [0x30, 0x34, 0x35, 0x3E, 0xFE]
    assert fields[0x34] == card.identity.guid
    assert len(fields[0x34]) == 16
    end = certificate(card, 0x9A).not_valid_after_utc
    assert fields[0x35].decode() == f"{end:%Y%m%d}"


def test_fascn_has_odd_parity_and_a_right_check_character() -> None:
    bits = "".join(f"{byte:08b}" for byte in fascn(123456))
    symbols = [bits[at : at + 5] for at in range(0, 200, 5)]
    assert all(symbol.count("1") % 2 for symbol in symbols)
    assert all(sum(symbol[column] == "1" for symbol in symbols) % 2 == 0 for column in range(4))
    assert [int(symbol[:4][::-1], 2) for symbol in symbols[11:17]] == [1, 2, 3, 4, 5, 6]


def test_two_cards_are_two_cards(make_card: Maker) -> None:
    assert get(make_card(), "5FC102") != get(make_card(), "5FC102")
    guid = bytes(range(16))
    assert make_card(guid=guid).identity.guid == make_card(guid=guid).identity.guid == guid


@pytest.mark.parametrize(
    ("policy", "told"),
    [("application", "4000"), ("global-too", "6010"), ("global-primary", "6020")],
)
def test_discovery_tells_the_pin_policy(make_card: Maker, policy: str, told: str) -> None:
    expected = f"7E124F0BA0000003080000100001005F2F02{told}"
    assert get(make_card(pin_policy=policy), "7E") == (bytes.fromhex(expected), 0x9000)


@pytest.mark.parametrize("tag", ["5FC10C", "5FC109", "7F61", "01", "5FC1FF"])
def test_objects_that_it_has_not(card: VirtualCard, tag: str) -> None:
    assert get(card, tag) == (b"", 0x6A82)


def test_objects_may_be_left_out_and_overridden(make_card: Maker) -> None:
    card = make_card(
        chuid=False,
        discovery=False,
        slots=(Slot.AUTHENTICATION,),
        objects={0x5FC105: b"\x53\x84noise", 0x5FC107: None, 0x5FC109: b"\x53\0"},
    )
    for tag in ("5FC102", "7E", "5FC10A", "5FC107"):
        assert get(card, tag)[1] == 0x6A82
    assert get(card, "5FC105") == (b"\x53\x84noise", 0x9000)
    assert get(card, "5FC109")[1] == 0x6982
    ask(card, RIGHT)
    assert get(card, "5FC109") == (b"\x53\0", 0x9000)


@pytest.mark.parametrize("data", ["", "025C05", "034F017E", "065C017E5C017E", "025C00"])
def test_a_bad_tag_list_is_6a80(card: VirtualCard, data: str) -> None:
    assert ask(card, "00CB3FFF" + data)[1] == 0x6A80


@pytest.mark.parametrize("compressed", [False, True])
def test_the_certificate_is_issued_by_the_authority(
    make_card: Maker, authority: Authority, compressed: bool
) -> None:
    found = certificate(make_card(compressed=compressed), 0x9A)
    found.verify_directly_issued_by(authority.certificate)
    assert found.subject.rfc4514_string() == "CN=555012345678,OU=people,O=nhs"
    assert found.issuer.rfc4514_string() == "CN=Test SubCA,OU=CA,O=nhs"
    usage = found.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert not usage.content_commitment


@pytest.mark.parametrize("days", [730, 30, -10])
def test_validity_is_as_asked(make_card: Maker, days: int) -> None:
    found = certificate(make_card(days_left=days), 0x9C)
    left = found.not_valid_after_utc - datetime.now(UTC)
    assert abs(left.total_seconds() - days * 86400) < 3600
    assert (found.not_valid_after_utc - found.not_valid_before_utc).days == 1095


@pytest.mark.parametrize(("algorithm", "number"), [("p256", 0x11), ("p384", 0x14)])
def test_a_signature_verifies_under_the_certificate(
    make_card: Maker, algorithm: str, number: int
) -> None:
    card = make_card(algorithm=algorithm)
    ask(card, RIGHT)
    digest = hashes.SHA256() if number == 0x11 else hashes.SHA384()
    hashed = hashlib.new(digest.name, b"challenge").digest()
    signature, _ = authenticate(card, number, 0x9A, tlv(0x81, hashed))
    public = certificate(card, 0x9A).public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    public.verify(signature, b"challenge", ec.ECDSA(digest))


def test_rsa_signs_a_padded_block(make_card: Maker) -> None:
    card = make_card(algorithm="rsa2048", slots=(Slot.CARD_AUTHENTICATION,))
    info = bytes.fromhex("3031300D060960864801650304020105000420")
    tail = info + hashlib.sha256(b"challenge").digest()
    block = b"\0\1" + b"\xff" * (256 - 3 - len(tail)) + b"\0" + tail
    signature, _ = authenticate(card, 0x07, 0x9E, tlv(0x81, block))
    public = certificate(card, 0x9E).public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    public.verify(signature, b"challenge", padding.PKCS1v15(), hashes.SHA256())
    assert authenticate(card, 0x07, 0x9E, tlv(0x81, block[1:])) == (b"", 0x6A80)
    assert authenticate(card, 0x07, 0x9E, tlv(0x81, b"\xff" * 256)) == (b"", 0x6A80)


def test_keys_follow_their_pin_rules(card: VirtualCard) -> None:
    challenge = tlv(0x81, bytes(32))
    for slot, sw in ((0x9A, 0x6982), (0x9C, 0x6982), (0x9D, 0x6982), (0x9E, 0x9000)):
        assert authenticate(card, 0x11, slot, challenge)[1] == sw
    ask(card, RIGHT)
    assert authenticate(card, 0x11, 0x9C, challenge)[1] == 0x9000
    assert authenticate(card, 0x11, 0x9C, challenge)[1] == 0x6982
    assert authenticate(card, 0x11, 0x9A, challenge)[1] == 0x9000
    ask(card, RIGHT)
    get(card, "7E")
    assert authenticate(card, 0x11, 0x9C, challenge)[1] == 0x6982


def test_key_agreement_finds_the_shared_secret(card: VirtualCard) -> None:
    ask(card, RIGHT)
    ours = ec.generate_private_key(ec.SECP256R1())
    numbers = ours.public_key().public_numbers()
    point = b"\4" + numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")
    theirs = certificate(card, 0x9D).public_key()
    assert isinstance(theirs, ec.EllipticCurvePublicKey)
    expected = ours.exchange(ec.ECDH(), theirs)
    assert authenticate(card, 0x11, 0x9D, tlv(0x85, point)) == (expected, 0x9000)
    assert authenticate(card, 0x11, 0x9D, tlv(0x85, b"\4"))[1] == 0x6A80


@pytest.mark.parametrize(("algorithm", "slot"), [(0x07, 0x9E), (0x11, 0x9B), (0x11, 0x00)])
def test_keys_and_algorithms_that_it_has_not(card: VirtualCard, algorithm: int, slot: int) -> None:
    assert authenticate(card, algorithm, slot, tlv(0x81, bytes(32)))[1] == 0x6A86


@pytest.mark.parametrize(
    "data", ["7C00", "7C0281", "8100", "7C048200", "7C028200", "7C0482008100", ""]
)
def test_noise_in_general_authenticate_is_6a80(card: VirtualCard, data: str) -> None:
    lc = f"{len(data) // 2:02X}" if data else ""
    assert ask(card, f"0087119E{lc}{data}")[1] == 0x6A80

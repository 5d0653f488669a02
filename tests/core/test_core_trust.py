"""Facts of a certificate, signatures by its key, and the import that must stay late."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import Encoding

from cardsession.core import trust
from cardsession.core.signing import Algorithm, fitting
from fakes import pki

DIGESTS = {
    Algorithm.RSA_SHA256: hashes.SHA256(),
    Algorithm.RSA_SHA384: hashes.SHA384(),
    Algorithm.RSA_SHA512: hashes.SHA512(),
    Algorithm.ECDSA_SHA256: hashes.SHA256(),
    Algorithm.ECDSA_SHA384: hashes.SHA384(),
}
KEYS = {"rsa": pki.rsa_key(), "ec": pki.ec_key(ec.SECP384R1())}
MESSAGE = b"a nonce"


@pytest.fixture(scope="module")
def ca() -> pki.Authority:
    return pki.root()


@pytest.mark.parametrize(
    ("key", "found"),
    [
        (pki.rsa_key(1024), ("rsa", 1024)),
        (pki.rsa_key(2048), ("rsa", 2048)),
        (pki.ec_key(ec.SECP256R1()), ("ec", 256)),
        (pki.ec_key(ec.SECP384R1()), ("ec", 384)),
        (pki.ec_key(ec.SECP521R1()), ("ec", 521)),
        (ed25519.Ed25519PrivateKey.generate(), ("", 0)),
        (dsa.generate_private_key(2048), ("", 0)),
    ],
)
def test_the_key_and_the_organisation(
    ca: pki.Authority, key: pki.Private, found: tuple[str, int]
) -> None:
    facts = trust.read("authentication", pki.der(ca.leaf(key=key)))
    assert (facts.key_type, facts.key_bits) == found
    assert facts.organisation == "nhs"
    assert facts.common_name == "555012345678"


@pytest.mark.parametrize("organisation", ["n\0hs", "nhs\x1b[2J", "nhs\u202e"])
def test_a_hostile_organisation_is_cleaned_and_is_not_the_nhs(
    ca: pki.Authority, organisation: str
) -> None:
    made = ca.issue(pki.name("1", "people", organisation), pki.ec_key())
    facts = trust.read("authentication", pki.der(made))
    assert facts.organisation not in ("", "nhs")
    assert facts.organisation.isprintable()


def test_no_organisation_is_none(ca: pki.Authority) -> None:
    made = ca.issue(pki.name("1", "people", ""), pki.ec_key())
    assert trust.read("authentication", pki.der(made)).organisation == ""


def test_a_key_that_nobody_knows_leaves_the_rest_readable(ca: pki.Authority) -> None:
    raw = pki.der(ca.leaf())
    p256 = bytes.fromhex("06082A8648CE3D030107")
    assert raw.count(p256) == 1
    facts = trust.read("authentication", raw.replace(p256, p256[:-1] + b"\x70"))
    assert (facts.key_type, facts.key_bits) == ("", 0)
    assert (facts.common_name, facts.organisation) == ("555012345678", "nhs")
    assert facts.not_after


def sign(algorithm: Algorithm, digest: bytes) -> bytes:
    """By the key of its kind."""
    key, hashed = KEYS[algorithm.key_type], utils.Prehashed(DIGESTS[algorithm])
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(digest, padding.PKCS1v15(), hashed)
    return key.sign(digest, ec.ECDSA(hashed))


@pytest.fixture(scope="module")
def holders(ca: pki.Authority) -> dict[str, bytes]:
    return {kind: pki.der(ca.leaf(key=key)) for kind, key in KEYS.items()}


@pytest.mark.parametrize("algorithm", Algorithm)
def test_a_signature_holds_for_its_key_its_digest_and_its_algorithm_only(
    holders: dict[str, bytes], algorithm: Algorithm
) -> None:
    digest = hashlib.new(algorithm.hash_name, MESSAGE).digest()
    other = hashlib.new(algorithm.hash_name, b"another nonce").digest()
    signature = sign(algorithm, digest)
    der = holders[algorithm.key_type]
    assert trust.signature_holds(der, algorithm, digest, signature)
    assert not trust.signature_holds(der, algorithm, other, signature)
    wrong = bytearray(signature)
    wrong[-1] ^= 1
    assert not trust.signature_holds(der, algorithm, digest, bytes(wrong))
    for different in set(Algorithm) - {algorithm}:
        assert not trust.signature_holds(der, different, digest, signature)
    (kind,) = set(holders) - {algorithm.key_type}
    assert not trust.signature_holds(holders[kind], algorithm, digest, signature)


@pytest.mark.parametrize("signature", [b"", b"\0", bytes(256), b"\x30\x06\x02\x01\0\x02\x01\0"])
@pytest.mark.parametrize("digest", [b"", bytes(20), bytes(32), bytes(64)])
@pytest.mark.parametrize("algorithm", [Algorithm.RSA_SHA256, Algorithm.ECDSA_SHA256])
def test_garbage_is_no_signature_and_raises_nothing(
    holders: dict[str, bytes], algorithm: Algorithm, digest: bytes, signature: bytes
) -> None:
    for der in (holders[algorithm.key_type], b"", b"\x30\x00", bytes(range(256))):
        assert not trust.signature_holds(der, algorithm, digest, signature)


def test_the_algorithm_that_fits_the_key_proves_possession(holders: dict[str, bytes]) -> None:
    for der in holders.values():
        facts = trust.read("authentication", der)
        algorithm = fitting(facts.key_type, facts.key_bits)
        digest = hashlib.new(algorithm.hash_name, MESSAGE).digest()
        assert trust.signature_holds(der, algorithm, digest, sign(algorithm, digest))


def test_cryptography_is_imported_with_the_first_certificate_and_not_before(
    ca: pki.Authority,
) -> None:
    script = """
import sys
from pathlib import Path
from cardsession.adapters.truststore import TrustStore
from cardsession.core import trust, trust_rules
store = TrustStore(Path("/nonexistent/a"), Path("/nonexistent/b"), trust_rules.TrustRules())
assert store.judge({}, 0).trust == "no-certificate", store.judge({}, 0)
assert not [name for name in sys.modules if name.startswith("cryptography")]
trust.read("authentication", bytes.fromhex(sys.argv[1]))
assert "cryptography.x509" in sys.modules
"""
    raw = ca.leaf().public_bytes(Encoding.DER).hex()
    subprocess.run([sys.executable, "-P", "-c", script, raw], check=True, timeout=60)

"""What a signature is made of before a card sees it: digests, and how RSA wants them wrapped.

RFC 8017 (PKCS #1 v2.2) clause 9.2 for RSA; an ECDSA card takes the digest as it is (FIPS 186-4
clause 6.4). Nothing is hashed here: the caller brings the digest.
"""

from __future__ import annotations

from enum import StrEnum

from .errors import Failure, Problem


class Algorithm(StrEnum):
    """`Sign`'s algorithms (bus contract, "Session")."""

    RSA_SHA256 = "rsa-pkcs1-sha256"
    RSA_SHA384 = "rsa-pkcs1-sha384"
    RSA_SHA512 = "rsa-pkcs1-sha512"
    ECDSA_SHA256 = "ecdsa-sha256"
    ECDSA_SHA384 = "ecdsa-sha384"

    @property
    def key_type(self) -> str:
        """The kind of key it needs, as `Certificate.key_type` names it."""
        return "rsa" if self.value.startswith("rsa") else "ec"

    @property
    def digest_size(self) -> int:
        """Bytes of the digest."""
        return int(self.value[-3:]) // 8

    @property
    def hash_name(self) -> str:
        """The digest's name, as hashlib has it."""
        return self.value.rpartition("-")[2]


_DIGEST_INFO = {
    32: bytes.fromhex("3031300D060960864801650304020105000420"),
    48: bytes.fromhex("3041300D060960864801650304020205000430"),
    64: bytes.fromhex("3051300D060960864801650304020305000440"),
}
"""DER of DigestInfo up to the digest, for SHA-256, SHA-384 and SHA-512 (RFC 8017 clause 9.2,
note 1), by the digest's size."""
_PADDING = 11
"""00 01, at least eight FF, 00."""


def algorithm(name: str) -> Algorithm:
    """The algorithm of that name. Failure: `UnsupportedAlgorithm`."""
    try:
        return Algorithm(name)
    except ValueError:
        raise Failure(
            Problem.UNSUPPORTED_ALGORITHM, "one of " + ", ".join(Algorithm) + " was expected"
        ) from None


def fitting(key_type: str, key_bits: int) -> Algorithm:
    """The algorithm for a proof of possession: the digest that goes with the key."""
    if key_type == "rsa":
        return Algorithm.RSA_SHA256
    if key_type == "ec":
        return Algorithm.ECDSA_SHA384 if key_bits > 256 else Algorithm.ECDSA_SHA256  # noqa: PLR2004
    raise Failure(Problem.UNSUPPORTED_ALGORITHM, "a key that is neither RSA nor on a NIST curve")


def digest_info(digest: bytes) -> bytes:
    """DER DigestInfo: what a card wants that puts the padding round it by itself."""
    return _DIGEST_INFO[len(digest)] + digest


def padded(digest: bytes, size: int) -> bytes:
    """EMSA-PKCS1-v1_5 of `size` bytes, the modulus's, for a card that only exponentiates."""
    info = digest_info(digest)
    if size < len(info) + _PADDING:
        raise Failure(Problem.UNSUPPORTED_ALGORITHM, "the key is too short for this digest")
    return b"\x00\x01" + b"\xff" * (size - len(info) - 3) + b"\x00" + info

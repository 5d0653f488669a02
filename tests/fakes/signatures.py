"""Signatures and who judges them: the openssl command line, which shares no code with us."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa


@cache
def _private(bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@dataclass
class RsaKey:
    """A key that the virtual card has none of: 1024 or 3072 bits, used as its own are."""

    bits: int
    identifier: int
    seen: list[bytes] = field(default_factory=list)

    def challenge(self, value: bytes) -> bytes:
        """A padded block, decrypted raw."""
        self.seen.append(value)
        numbers = _private(self.bits).private_numbers()
        if len(value) != self.bits // 8:
            raise ValueError("the challenge does not fit the key")
        power = pow(int.from_bytes(value, "big"), numbers.d, numbers.public_numbers.n)
        return power.to_bytes(self.bits // 8, "big")

    @property
    def pem(self) -> bytes:
        """The public key."""
        return (
            _private(self.bits)
            .public_key()
            .public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )


def public_pem(der: bytes) -> bytes:
    """The public key of a certificate."""
    command = ["openssl", "x509", "-inform", "DER", "-pubkey", "-noout"]
    return subprocess.run(command, input=der, capture_output=True, check=True, timeout=30).stdout


def openssl_accepts(  # noqa: PLR0913, PLR0917 - what a signature is verified with
    directory: Path, pem: bytes, kind: str, hash_name: str, digest: bytes, signature: bytes
) -> bool:
    """`openssl pkeyutl -verify` over a digest that was made before."""
    for name, content in (("key", pem), ("digest", digest), ("signature", signature)):
        (directory / name).write_bytes(content)
    options = []
    if kind == "rsa":
        options = ["-pkeyopt", "rsa_padding_mode:pkcs1", "-pkeyopt", f"digest:{hash_name}"]
    command = [
        *("openssl", "pkeyutl", "-verify", "-pubin", "-inkey", directory / "key"),
        *("-in", directory / "digest", "-sigfile", directory / "signature", *options),
    ]
    said = subprocess.run(command, capture_output=True, check=False, timeout=30)
    return said.returncode == 0 and b"Signature Verified Successfully" in said.stdout

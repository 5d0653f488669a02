"""What a site says of trust: its rules, its anchors and its lists, as the judgement takes them.

No cryptography in here: the configuration imports this.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509


class Legacy(StrEnum):
    """What of the past a site may admit: nothing of it holds against a forger of today."""

    SHA1 = "sha1"
    """Certificates and revocation lists that are signed with SHA-1."""
    RSA_1024 = "rsa-1024"
    """RSA keys from 1024 bits up, of a card or of an authority."""


@dataclass(frozen=True, slots=True)
class TrustRules:
    """What a certificate must be like, beyond a chain that holds."""

    required_eku: tuple[str, ...] = ()
    """Object identifiers (1.3.6.1.4.1.311.20.2.2, say); the holder's certificate names them all."""
    admitted: frozenset[Legacy] = frozenset()
    minimum_rsa_bits: int = 2048
    """Of every key of the chain, the anchor's too; `rsa-1024` makes it 1024."""


@dataclass(frozen=True, slots=True)
class Store:
    """What the site provided, each of them readable; what is wrong with one is judged later."""

    anchors: tuple[x509.Certificate, ...] = ()
    """Authorities that are believed as they are."""
    intermediates: tuple[x509.Certificate, ...] = ()
    """Authorities that need a chain themselves."""
    lists: tuple[x509.CertificateRevocationList, ...] = ()

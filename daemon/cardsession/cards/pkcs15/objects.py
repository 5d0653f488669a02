"""What the files of a PKCS#15 application say, as records: ISO/IEC 7816-15:2016 clause 8.

The names are the standard's. Everything in them is a claim of the card; texts are made safe.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

PATH_LIMIT = 16
"""Bytes of a path: eight directories deep, more than any card nests."""
ENTRIES_LIMIT = 64
"""Objects of one kind."""
IDENTIFIER_LIMIT = 255
"""Bytes of an identifier (clause 8.2)."""


class Kind(IntEnum):
    """What an entry of the object directory (EF.ODF) refers to: its tag (clause 8.3)."""

    PRIVATE_KEYS = 0
    CERTIFICATES = 4
    TRUSTED_CERTIFICATES = 5
    USEFUL_CERTIFICATES = 6
    AUTHENTICATION_OBJECTS = 8


class PinFlag(IntEnum):
    """Bits of `pinFlags` (clause 8.9.2, PasswordFlags)."""

    LOCAL = 1
    CHANGE_DISABLED = 2
    UNBLOCK_DISABLED = 3
    INITIALIZED = 4
    NEEDS_PADDING = 5
    UNBLOCKING_PIN = 6
    SO_PIN = 7
    INTEGRITY_PROTECTED = 9
    CONFIDENTIALITY_PROTECTED = 10
    RESET_RETRY_COUNTER_1 = 12
    RESET_RETRY_COUNTER_2 = 13
    MULTI_STEP = 15


class Usage(IntEnum):
    """Bits of a key's `usage` (clause 8.2.9, KeyUsageFlags)."""

    DECRYPT = 1
    SIGN = 2
    SIGN_RECOVER = 3
    UNWRAP = 5
    NON_REPUDIATION = 9


@dataclass(frozen=True, slots=True)
class Path:
    """A file, and perhaps a part of it: an offset and a length, or a record's number."""

    value: bytes
    index: int | None = None
    length: int | None = None


@dataclass(frozen=True, slots=True)
class Directories:
    """Where EF.DIR's template puts EF.ODF and EF.TokenInfo, if not at their usual places."""

    odf: Path | None = None
    token_info: Path | None = None


@dataclass(frozen=True, slots=True)
class Reference:
    """An entry of EF.ODF: a file with objects, or the objects themselves."""

    kind: Kind
    path: Path | None = None
    direct: bytes = b""


@dataclass(frozen=True, slots=True)
class AlgorithmInfo:
    """An algorithm that the card knows: `mechanism` is PKCS #11's number of it, `reference` what
    keys call it, `algorithm` what the card itself calls it (tag 80 of MSE), if it says."""

    reference: int
    mechanism: int
    signs: bool
    algorithm: int | None = None


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """EF.TokenInfo, EF.CIAInfo by its newer name (clause 8.10)."""

    serial: bytes = b""
    manufacturer: str = ""
    label: str = ""
    algorithms: tuple[AlgorithmInfo, ...] = ()


@dataclass(frozen=True, slots=True)
class AuthenticationObject:
    """A PIN (clause 8.9): lengths in characters, `stored_length` in bytes."""

    label: str
    auth_id: bytes
    """Its own identifier: what it guards names it."""
    guarded_by: bytes
    """The object that unblocks it."""
    flags: frozenset[int]
    coding: int
    min_length: int
    stored_length: int
    max_length: int | None
    reference: int
    pad: int | None
    path: Path | None


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A private key (clause 8.4)."""

    label: str
    identifier: bytes
    auth_id: bytes
    """The PIN that guards it."""
    private: bool
    user_consent: int
    """1: the PIN is wanted for each use."""
    usage: frozenset[int]
    reference: int | None
    key_type: str
    """`rsa` or `ec`."""
    bits: int
    """0: the card does not say."""
    path: Path | None
    algorithms: tuple[int, ...]
    """References of `AlgorithmInfo`."""

    @property
    def signs(self) -> bool:
        """Whether it makes signatures at all."""
        return not self.usage.isdisjoint({Usage.SIGN, Usage.SIGN_RECOVER, Usage.NON_REPUDIATION})

    @property
    def commits(self) -> bool:
        """Whether its signatures are declarations of will (contentCommitment)."""
        return Usage.NON_REPUDIATION in self.usage

    @property
    def deciphers(self) -> bool:
        """Whether it opens what was enciphered for the holder."""
        return not self.usage.isdisjoint({Usage.DECRYPT, Usage.UNWRAP})


@dataclass(frozen=True, slots=True)
class CertificateObject:
    """A certificate (clause 8.7): in a file, or right here."""

    label: str
    identifier: bytes
    """The same as its private key's."""
    authority: bool
    path: Path | None = None
    direct: bytes = field(default=b"", repr=False)

"""What a PKCS#15 card is made with, beside what every card has: data only."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Final

AID: Final = bytes.fromhex("A000000063504B43532D3135")
"""PKCS#15 v1.1 clause 6.4.1: the registered RID and "PKCS-15"."""


class Padding(StrEnum):
    """How a PIN is filled up to its stored length."""

    FF = "ff"
    ZERO = "00"
    NONE = "none"


class PinType(StrEnum):
    """PinType of PKCS#15 v1.1 clause 6.8.2; `encoding` has their numbers."""

    BCD = "bcd"
    ASCII_NUMERIC = "ascii-numeric"
    UTF8 = "utf8"
    HALF_NIBBLE_BCD = "half-nibble-bcd"
    ISO9564_1 = "iso9564-1"


class EmptyVerify(StrEnum):
    """What a VERIFY without data does to a PIN that is not verified.

    `free` 63CX (the standard's way), `untold` 6300 and free, `costs` 6300 and one try less,
    `wrong-length` 6700, `wrong-parameters` 6A86: the last two say nothing of the PIN.
    """

    FREE = "free"
    UNTOLD = "untold"
    COSTS = "costs"
    WRONG_LENGTH = "wrong-length"
    WRONG_PARAMETERS = "wrong-parameters"


class SelectAnswer(StrEnum):
    """What SELECT answers: what P2 asked for, always the one or the other, or never anything."""

    AS_ASKED = "as-asked"
    FCI = "fci"
    FCP = "fcp"
    NOTHING = "nothing"


class EndOfFile(StrEnum):
    """READ BINARY past the end: what is left and 9000, the same with 6282, or 6CXX."""

    SHORT = "short"
    WARNING = "warning"
    EXACT = "exact"


class Paths(StrEnum):
    """How the directory files name other files."""

    ABSOLUTE = "absolute"
    RELATIVE = "relative"


class CertificatePlace(StrEnum):
    """Each in a file of its own, all in one file (index and length), or in the CDF itself."""

    OWN_FILE = "own-file"
    SHARED_FILE = "shared-file"
    DIRECT = "direct"


class Mechanism(IntEnum):
    """What a key does, by its PKCS#11 number, as AlgorithmInfo carries it."""

    RSA_PKCS = 0x01
    RSA_X_509 = 0x03
    SHA256_RSA_PKCS = 0x40
    SHA384_RSA_PKCS = 0x41
    SHA512_RSA_PKCS = 0x42
    ECDSA = 0x1041


@dataclass(frozen=True, slots=True)
class Pkcs15Options:
    """One PKCS#15 card; what each field means is in `virtual.arguments`, as its help.

    References with bit 8 set are local to the application's DF. Lengths are in characters,
    but for `stored_length`, in bytes. `files` overrides elementary files by path from the MF
    ("3F0050155031"): bytes as they lie there, None for absent.
    """

    label: str = "cardsession PKCS#15 card"
    manufacturer: str = "cardsession-virtual"
    serial: bytes | None = None
    aid: bytes = AID

    pin_label: str = "User PIN"
    pin_reference: int = 0x81
    pin_type: PinType = PinType.ASCII_NUMERIC
    padding: Padding = Padding.FF
    minimum_length: int = 4
    maximum_length: int = 8
    stored_length: int = 8
    tell_maximum: bool = True
    pin_initialized: bool = True
    pin_local: bool = True
    pin_path: bool = True
    pin_change: bool = True
    short_references: bool = False
    signature_pin: bool = False
    signature_pin_label: str = "Signature PIN"
    signature_pin_reference: int = 0x82
    consent: bool = True
    puk: bool = True
    puk_label: str = "PUK"
    puk_reference: int = 0x83
    so_pin: bool = False

    empty_verify: EmptyVerify = EmptyVerify.FREE
    drops_on_select: bool = True

    ef_dir: bool = True
    dir_records: bool = False
    odf_records: bool = False
    object_records: bool = False
    paths: Paths = Paths.ABSOLUTE
    slack: int = 0
    slack_byte: int = 0x00
    direct_objects: bool = False
    private_keys_hidden: bool = False
    select_answer: SelectAnswer = SelectAnswer.AS_ASKED
    end_of_file: EndOfFile = EndOfFile.SHORT
    reads_on: bool = False

    certificates: CertificatePlace = CertificatePlace.OWN_FILE
    trusted_certificates: bool = False
    mechanisms: tuple[Mechanism, ...] = ()
    tell_algorithms: bool = True
    field_size: bool = False
    files: dict[str, bytes | None] = field(default_factory=dict)

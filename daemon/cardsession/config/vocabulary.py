"""What the keys of this daemon accept: profiles, serial numbers, paths, instructions and so on.

The limits are those of the rooms that use the values, so that what is accepted here is not left
out there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from string import ascii_lowercase, digits
from types import MappingProxyType
from typing import Final

from cardsession.core.facts import Remedy, Trust
from cardsession.core.filter import NEVER
from cardsession.core.remedies import CONTACT_LIMIT
from cardsession.core.trust_rules import Legacy

from .rules import Rule, hex_digits, kind, list_of, listed, octets, one_of, table_of, text, word

_LABEL_CHARS: Final = 128
_PATH_CHARS: Final = 1024
_SERIES_CHARS: Final = 16
_SERIAL_BYTES: Final = 64
_OID_CHARS: Final = 64
_LONGEST_ARC: Final = 10
_SECOND_ARCS: Final = 40
"""Below 0 and 1 there are as many (ITU-T X.690 clause 8.19.4)."""

PROFILE: Final = word("a profile name (a-z, 0-9, hyphen)", ascii_lowercase + digits + "-")
"""Which there are is known to the cards' room."""
PROFILES: Final = list_of('a list of card profile names, such as ["piv"]', PROFILE)

LABEL: Final = text(_LABEL_CHARS)
LABELS: Final = table_of(
    f"a table: reader's PC/SC name or id = label, 1 to {_LABEL_CHARS} printable characters each",
    LABEL,
    named=LABEL,
    keep=MappingProxyType,
)

SERIES: Final = text(_SERIES_CHARS)
RETIRED: Final = list_of('a list of card series, such as ["01", "02"]', SERIES)

TEMPORARY: Final = list_of(
    'a list of serial numbers in hexadecimal digits, such as ["00:1A:2B:3C"]',
    octets("a serial number", 1, _SERIAL_BYTES, str),
)

PATH: Final = Rule(
    'an absolute path, such as "/etc/cardsession/cards.d"',
    lambda value: (
        isinstance(value, str)
        and value.startswith("/")
        and len(value) <= _PATH_CHARS
        and value.isprintable()
    ),
    Path,
)


def _is_oid(value: object) -> bool:
    """ITU-T X.660: numbers without leading zeros, the first 0, 1 or 2; short enough for DER."""
    if not isinstance(value, str) or not value.isascii() or len(value) > _OID_CHARS:
        return False
    arcs = value.split(".")
    if len(arcs) == 1 or not all(arc.isdigit() and len(arc) <= _LONGEST_ARC for arc in arcs):
        return False
    if any(arc[0] == "0" and arc != "0" for arc in arcs):
        return False
    return arcs[0] == "2" or (arcs[0] in ("0", "1") and int(arcs[1]) < _SECOND_ARCS)


OIDS: Final = list_of(
    'a list of object identifiers, such as ["1.3.6.1.4.1.311.20.2.2"]',
    Rule('an object identifier in digits, such as "1.3.6.1.4.1.311.20.2.2"', _is_oid, str),
    keep=tuple,
)
ADMITTED: Final = list_of(f"a list of {listed(Legacy)}", one_of(Legacy))
ACCEPTED: Final = list_of(
    f"a list of at least one of {listed(Trust)}; with none, no card could be used",
    one_of(Trust),
    least=1,
)


def _contacts(given: Mapping[str, str]) -> Mapping[Remedy, str]:
    """A text for every remedy, "" where the site has none."""
    return MappingProxyType({remedy: given.get(remedy, "") for remedy in Remedy})


NO_CONTACTS: Final = _contacts({})
CONTACTS: Final = table_of(
    f"a table: remedy = 1 to {CONTACT_LIMIT} printable characters; the remedies are "
    + listed(Remedy),
    {str(remedy): text(CONTACT_LIMIT) for remedy in Remedy},
    keep=_contacts,
)

FORBIDDEN: Final[Mapping[int, str]] = {
    0x14: "PERFORM USER OPERATION",
    0x20: "VERIFY",
    0x24: "CHANGE REFERENCE DATA",
    0x26: "DISABLE VERIFICATION REQUIREMENT",
    0x28: "ENABLE VERIFICATION REQUIREMENT",
    0x2C: "RESET RETRY COUNTER",
    0x2E: "PERFORM BIOMETRIC OPERATION",
    0x82: "EXTERNAL AUTHENTICATE",
    0xC2: "ENVELOPE",
}
"""Instructions that `Transmit` never carries (`core.filter.NEVER`), by their even code; the odd
one has the same name (ISO/IEC 7816-4, 7816-7, 7816-11)."""


def octet(value: object) -> int | None:
    """One byte from two hexadecimal digits; None if it is anything else."""
    digits = hex_digits(value)
    return int(digits, 16) if digits == str(value).upper() and len(digits) == len("F8") else None


def _may_be_carried(value: object) -> bool:
    ins = octet(value)
    return ins is not None and ins not in NEVER


def _not_carried(value: object) -> str:
    """What was found in place of an instruction that may be carried: by its name, if it has one."""
    ins = octet(value)
    if ins is None:
        return kind(value)
    name = FORBIDDEN.get(ins & 0xFE)
    return f"{ins:02X}, {name}" if name else f"{ins:02X}, which is no instruction"


INSTRUCTION: Final = Rule(
    'an instruction in two hexadecimal digits, such as "F8", that spends no try, changes no'
    " passcode and hides no other",
    _may_be_carried,
    octet,
    found=_not_carried,
)


TRANSMIT: Final = table_of(
    'a table: card profile = list of instructions, such as piv = ["F8"]',
    list_of('a list of instructions in two hexadecimal digits, such as ["F8"]', INSTRUCTION),
    named=PROFILE,
    keep=MappingProxyType,
)

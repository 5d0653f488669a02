"""Certificates: whose they are and how long they last.

cryptography is imported at first use: it costs 50 ms and 9 MiB, and a counter without a card
needs neither. Call from a worker, not from the loop.
"""

from __future__ import annotations

from collections.abc import Mapping

from .facts import Certificate
from .text import clean


def read(slot: str, der: bytes) -> Certificate:
    """The facts of one certificate; what cannot be read stays unknown, and the DER is kept."""
    from cryptography import x509  # noqa: PLC0415 - late on purpose, see above
    from cryptography.x509.oid import NameOID  # noqa: PLC0415

    try:
        found = x509.load_der_x509_certificate(der)
        names = found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return Certificate(
            slot=slot,
            der=der,
            subject=clean(found.subject.rfc4514_string()),
            common_name=clean(names[0].value) if names else "",
            not_before=int(found.not_valid_before_utc.timestamp()),
            not_after=int(found.not_valid_after_utc.timestamp()),
        )
    except (ValueError, TypeError, OverflowError, x509.InvalidVersion):
        # whatever a card may hold in place of a certificate
        return Certificate(slot=slot, der=der)


def read_all(found: Mapping[str, bytes]) -> dict[str, Certificate]:
    """The same for every slot."""
    return {slot: read(slot, der) for slot, der in found.items()}

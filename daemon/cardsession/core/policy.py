"""What the site's rules make of a card's facts: data in, data out."""

from __future__ import annotations

from .facts import Certificate, Trust

DAY = 86_400
"""Seconds."""

CARD_FUNCTIONS = ("nomination", "download", "return", "dispense-notification", "claim")
"""The EPS functions that need an active session (Community Pharmacy England, "Smartcards")."""
FREE_FUNCTIONS = ("nominated-download",)
"""Automatic downloads of nominated prescriptions need none."""


def days_left(not_after: int, now: int) -> int:
    """Whole days until `not_after` (Unix seconds), negative when over; 0 where unknown."""
    return (not_after - now) // DAY if not_after else 0


def renewal_due(not_after: int, now: int, window_days: int) -> bool:
    """Whether the end of validity is known, ahead, and inside the window."""
    return bool(not_after) and now < not_after <= now + window_days * DAY


def unchecked_trust(certificate: Certificate | None, now: int) -> tuple[Trust, str]:
    """What can be said of a certificate before any chain is built, and why."""
    if certificate is None:
        return Trust.NO_CERTIFICATE, "no authentication certificate on the card"
    if not certificate.not_after:
        return Trust.NOT_CHECKED, "the certificate cannot be read"
    if now > certificate.not_after:
        return Trust.EXPIRED, "the certificate's time is over"
    if now < certificate.not_before:
        return Trust.NOT_YET_VALID, "the certificate's time has not come"
    return Trust.NOT_CHECKED, "no trust anchors are configured"

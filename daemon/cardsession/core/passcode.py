"""The rules for a new passcode, and when the one there is should be changed.

An old passcode is never judged by them: cards in use may still have four characters, or letters.
How long a passcode the card itself takes is the card's profile's affair.
"""

from __future__ import annotations

from dataclasses import dataclass

from .policy import DAY
from .secret import Secret

_USEC = 1_000_000


@dataclass(frozen=True, slots=True)
class NewPinRule:
    """What a new passcode must look like; the defaults are the NHS's since 19 July 2023."""

    min_length: int = 6
    max_length: int = 8
    digits_only: bool = True

    def admits(self, secret: Secret) -> bool:
        """Whether `secret` may become a passcode; one that was wiped may not."""
        if secret.wiped or not self.min_length <= len(secret) <= self.max_length:
            return False
        return secret.digits_only or not self.digits_only


def pin_change_due(changed_usec: int, now_usec: int, days: int) -> bool:
    """Whether the last change that is on record here is `days` old; 0 days: nobody asks.

    The card does not say when its passcode was changed: unknown (0) is not due.
    """
    return days > 0 and changed_usec > 0 and now_usec - changed_usec >= days * DAY * _USEC

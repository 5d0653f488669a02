"""Cards and passcodes for tests that need no desk."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from unittest import mock

from cardsession.core.secret import Secret
from cardsession.virtual import card
from cardsession.virtual.card import VirtualCard
from cardsession.virtual.identity import Authority, Identity, personalise
from cardsession.virtual.options import CardOptions, Secrets, Slot

CANARY = "73194682"
WRONG = "11112222"
ATR = bytes.fromhex("3B9F968131FE45")

_authority: list[Authority] = []


def made_at_midnight(options: CardOptions, authority: Authority) -> Identity:
    """Personalised in the first second of today: a certificate is judged again when it has a day
    less, and a test's clock stands at noon at whatever time of day the test is run."""
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return personalise(options, authority, midnight)


def make_card(**options: Any) -> VirtualCard:
    """A virtual PIV card with the canary passcode; one certificate unless told otherwise."""
    if not _authority:
        _authority.append(Authority.make())
    chosen = CardOptions(**{"slots": (Slot.AUTHENTICATION,), **options})
    with mock.patch.object(card, "personalise", made_at_midnight):
        return VirtualCard(chosen, Secrets(pin=CANARY, global_pin=CANARY), _authority[0])


def secret(text: str = CANARY) -> Secret:
    """A passcode as the bus hands it over."""
    return Secret(bytearray(text.encode()))

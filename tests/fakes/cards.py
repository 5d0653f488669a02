"""Cards and passcodes for tests that need no desk."""

from __future__ import annotations

from typing import Any

from cardsession.core.secret import Secret
from cardsession.virtual.card import VirtualCard
from cardsession.virtual.identity import Authority
from cardsession.virtual.options import CardOptions, Secrets, Slot

CANARY = "73194682"
WRONG = "11112222"
ATR = bytes.fromhex("3B9F968131FE45")

_authority: list[Authority] = []


def make_card(**options: Any) -> VirtualCard:
    """A virtual PIV card with the canary passcode; one certificate unless told otherwise."""
    if not _authority:
        _authority.append(Authority.make())
    chosen = CardOptions(**{"slots": (Slot.AUTHENTICATION,), **options})
    return VirtualCard(chosen, Secrets(pin=CANARY, global_pin=CANARY), _authority[0])


def secret(text: str = CANARY) -> Secret:
    """A passcode as the bus hands it over."""
    return Secret(bytearray(text.encode()))

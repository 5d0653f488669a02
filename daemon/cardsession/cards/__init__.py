"""Card families: what each declares, and its dialogues. Pure, over core only."""

from __future__ import annotations

from collections.abc import Sequence

from cardsession.core.dialogue import Dialogue

from . import unknown
from .piv import Piv
from .profile import Profile, Recognised

FAMILIES: tuple[Profile, ...] = (Piv(),)
"""Every family that we read, asked in this order."""


def recognise(families: Sequence[Profile] = FAMILIES) -> Dialogue[Recognised]:
    """The first family that knows the card."""
    for family in families:
        probe = yield from family.probe()
        if probe is not None:
            return family, probe
    return unknown.recognised()

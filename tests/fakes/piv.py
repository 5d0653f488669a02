"""Dialogues of PIV cards, held without reader or loop."""

from __future__ import annotations

from collections.abc import Callable

from cardsession.cards.piv import CERTIFICATES, Piv
from cardsession.cards.profile import Probe
from cardsession.core.apdu import Command
from cardsession.core.dialogue import Step
from cardsession.core.tries import (
    Consent,
    Judged,
)
from fakes.channel import Chip, Pump
from fakes.counter import CANARY, secret

PIV = Piv()
AUTHENTICATION = int.from_bytes(CERTIFICATES["authentication"], "big")
NONE = Consent()
ALL = Consent(spend_last_try=True, accept_unknown=True)
STRANGE = ["6C08", "6C00", "6108", "6100", "", "90", "6F00", "6D00", "6E00", "6982", "6700", "FFFF"]
"""Answers to VERIFY that tell nothing."""


def probed(chip: Chip) -> tuple[Probe, Pump]:
    """A card as its probe found it, and the pump that asked."""
    pump = Pump(chip)
    probe = pump.hold(PIV.probe())
    assert probe is not None
    return probe, pump


def submit(
    chip: Chip,
    text: str = CANARY,
    consent: Consent = NONE,
    *,
    known: Probe | None = None,
    prepare: Callable[[Pump], None] = lambda _: None,
) -> tuple[Judged, Pump]:
    """One submission after a probe of its own; the pump saw the submission only."""
    known = known or probed(chip)[0]
    pump = Pump(chip)
    prepare(pump)
    held = secret(text)
    judged = pump.hold(PIV.verify(known, known.pins["user"], held, consent))
    return judged, pump


def kinds(steps: list[Step]) -> list[str]:
    """What was done: commands by their header, the rest by name."""
    return [
        step.header[:11] if isinstance(step, Command) else type(step).__name__ for step in steps
    ]


def query_answers(sw: str) -> Callable[[Pump], None]:
    """A card that answers the question about its counter like this."""

    def prepare(pump: Pump) -> None:
        pump.before = lambda _, apdu: (
            bytes.fromhex(sw) if apdu[1:3] == b"\x20\x00" and len(apdu) == 4 else None
        )

    return prepare

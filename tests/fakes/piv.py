"""Dialogues of PIV cards, held without reader or loop."""

from __future__ import annotations

import traceback
from collections.abc import Callable

from cardsession.adapters.ledger import MemoryLedger
from cardsession.cards.piv import CERTIFICATES, Piv
from cardsession.cards.profile import Probe
from cardsession.core.apdu import Command
from cardsession.core.dialogue import Step
from cardsession.core.tries import (
    Consent,
    Judged,
    Known,
    Unknown,
)
from cardsession.virtual.card import VirtualCard
from fakes.cards import ATR, CANARY, secret
from fakes.channel import Chip, Pump

PIV = Piv()
AUTHENTICATION = int.from_bytes(CERTIFICATES["authentication"], "big")
NONE = Consent()
ALL = Consent(spend_last_try=True, accept_unknown=True)
BLIND = Consent(accept_unknown=True)
STRANGE = ["6C08", "6C00", "6108", "6100", "", "90", "6F00", "6D00", "6E00", "6982", "6700", "FFFF"]
"""Answers to VERIFY that tell nothing."""
SUBMISSIONS = (0x20, 0x24, 0x2C)
"""INS of what can carry a secret (ISO/IEC 7816-4 clause 11.5)."""
PUK = "12345678"
NEW = "24681357"
FRESH = {"user": Known(3), "puk": Unknown()}
"""The counters of a card with one PIN, as it comes."""


def probed(chip: Chip) -> tuple[Probe, Pump]:
    """A card as its probe found it, and the pump that asked."""
    pump = Pump(chip)
    probe = pump.hold(PIV.probe(ATR))
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


def change(  # noqa: PLR0913 - as it is asked for
    chip: Chip,
    old: str = CANARY,
    new: str = NEW,
    consent: Consent = NONE,
    *,
    label: str = "user",
    known: Probe | None = None,
    prepare: Callable[[Pump], None] = lambda _: None,
) -> tuple[Judged, Pump]:
    """One change of a passcode; with `label` "puk" of the PUK."""
    known = known or probed(chip)[0]
    pump = Pump(chip)
    prepare(pump)
    dialogue = PIV.change(known, known.pins[label], secret(old), secret(new), consent)
    return pump.hold(dialogue), pump


def unblock(  # noqa: PLR0913 - as it is asked for
    chip: Chip,
    puk: str = PUK,
    new: str = NEW,
    consent: Consent = BLIND,
    *,
    label: str = "user",
    known: Probe | None = None,
    prepare: Callable[[Pump], None] = lambda _: None,
    ledger: MemoryLedger | None = None,
) -> tuple[Judged, Pump]:
    """One unblocking; nobody knows a PUK's count, so that is agreed to."""
    known = known or probed(chip)[0]
    pump = Pump(chip, ledger)
    prepare(pump)
    dialogue = PIV.unblock(known, known.pins[label], secret(puk), secret(new), consent)
    return pump.hold(dialogue), pump


def kinds(steps: list[Step]) -> list[str]:
    """What was done: commands by their header, the rest by name."""
    return [
        step.header[:11] if isinstance(step, Command) else type(step).__name__ for step in steps
    ]


def carries_secret(apdu: bytes) -> bool:
    """Whether an APDU can cost a try, of a PIN or of a PUK."""
    return len(apdu) > 5 and apdu[1] in SUBMISSIONS


def sent(pump: Pump) -> list[bytes]:
    """Every APDU with a secret in it."""
    return [each for each in pump.apdus if carries_secret(each)]


def query_answers(sw: str) -> Callable[[Pump], None]:
    """A card that answers the question about its counter like this."""

    def prepare(pump: Pump) -> None:
        pump.before = lambda _, apdu: (
            bytes.fromhex(sw) if apdu[1:3] == b"\x20\x00" and len(apdu) == 4 else None
        )

    return prepare


def submission_answers(sw: str) -> Callable[[Pump], None]:
    """A card that judges what it is given, and whose answer is another one on the way."""

    def prepare(pump: Pump) -> None:
        pump.after = lambda _, apdu, __: bytes.fromhex(sw) if carries_secret(apdu) else None

    return prepare


def instead(sw: str) -> Callable[[Pump], None]:
    """A card that answers a submission like this and compares nothing."""

    def prepare(pump: Pump) -> None:
        pump.before = lambda _, apdu: bytes.fromhex(sw) if carries_secret(apdu) else None

    return prepare


def rival_verified(card: VirtualCard, reference: int = 0x80) -> None:
    """Another program left a PIN verified; the book forgets that it did."""
    card.process(bytes.fromhex("00A404000BA000000308000010000100"))
    answer = card.process(bytes([0x00, 0x20, 0x00, reference, 0x08]) + CANARY.encode())
    assert answer == b"\x90\x00"
    card.book.clear()


def plainly(card: VirtualCard, reference: int = 0x80) -> str:
    """What the card itself says of a PIN: a status word."""
    return card.process(bytes([0x00, 0x20, 0x00, reference])).hex().upper()


def all_of(error: BaseException) -> str:
    """All that an exception would show, were it logged with everything that led to it."""
    return "".join(traceback.format_exception(error)) + repr(vars(error))

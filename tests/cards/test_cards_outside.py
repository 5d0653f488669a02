"""PIV cards that nobody here wrote: what others' applets do their own way, scripted.

Seen on PivApplet 0.9.0 and OpenFIPS201 1.10, run in a Java Card simulator.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from cardsession.cards.profile import Probe, Request
from cardsession.core import tlv
from cardsession.core.signing import Algorithm
from cardsession.core.tries import Outcome
from cardsession.virtual.card import VirtualCard
from cardsession.virtual.objects import Tag
from cardsession.virtual.options import Slot
from fakes.cards import CANARY, make_card, secret
from fakes.channel import Pump
from fakes.piv import NONE, PIV, kinds, probed, submit
from fakes.signatures import openssl_accepts, public_pem

SLOTS = {"authentication": Slot.AUTHENTICATION, "card-authentication": Slot.CARD_AUTHENTICATION}
DIGEST = hashlib.sha256(b"a prescription").digest()
SIGNED = {slot: Request(slot, Algorithm.ECDSA_SHA256, DIGEST, 256) for slot in SLOTS}


def verified(card: VirtualCard) -> Probe:
    known = probed(card)[0]
    assert submit(card, known=known)[0].outcome is Outcome.VERIFIED
    return known


def accepted(card: VirtualCard, request: Request, signature: bytes, at: Path) -> bool:
    pem = public_pem(card.identity.certificates[SLOTS[request.slot]])
    return openssl_accepts(at, pem, "ecdsa", "sha256", request.digest, signature)


def test_an_applet_that_forgets_its_pin_when_it_is_selected_again(tmp_path: Path) -> None:
    """Java Cards deselect an applet first, and it forgets (PivApplet 0.9.0, also OpenSC's
    card-piv.c of several cards); the standard would have them keep it."""
    card = make_card()
    known, request = verified(card), SIGNED["authentication"]
    signature = forgetful(card).hold(PIV.sign(known, request, fresh=False))
    assert accepted(card, request, signature, tmp_path)


def test_another_application_was_selected_since(tmp_path: Path) -> None:
    card = make_card(slots=tuple(Slot))
    known, request = probed(card)[0], SIGNED["card-authentication"]
    pump = Pump(card)
    pump.before = lambda number, _: b"\x6d\x00" if number == 1 else None
    signature = pump.hold(PIV.sign(known, request, fresh=False))
    assert accepted(card, request, signature, tmp_path)
    assert kinds(pump.steps)[:3] == ["00 CB 3F FF", "00 A4 04 00", "00 CB 3F FF"]


def forgetful(card: VirtualCard) -> Pump:
    """SELECT ends every authority."""
    pump = Pump(card)

    def forget(_: int, apdu: bytes) -> None:
        if apdu[1] == 0xA4:
            card.reset()

    pump.before = forget
    return pump


@pytest.mark.parametrize("fresh", [True, False])
def test_a_card_that_refuses_to_sign_while_an_answer_waits(tmp_path: Path, *, fresh: bool) -> None:
    """OpenFIPS201 1.10: ChainBuffer.processIncomingAPDU answers 6985 until a SELECT, or another
    answer in its place, made it forget; every CHUID with an issuer's signature is long enough."""
    signed = tlv.encode(0x34, bytes(range(16))) + tlv.encode(0x3E, bytes(2000))
    card = make_card(objects={Tag.CHUID: tlv.encode(0x53, signed)})
    known, request = probed(card)[0], SIGNED["authentication"]
    pump = waiting_noticed(card)
    held = secret(CANARY)
    judged = pump.hold(PIV.verify(known, known.pins["user"], held, NONE))
    assert judged.outcome is Outcome.VERIFIED
    signature = pump.hold(PIV.sign(known, request, fresh=fresh))
    assert accepted(card, request, signature, tmp_path)


def waiting_noticed(card: VirtualCard) -> Pump:
    """A pump that answers GENERAL AUTHENTICATE as such a card does."""
    pump = Pump(card)
    waits = False

    def refuse(_: int, apdu: bytes) -> bytes | None:
        return b"\x69\x85" if waits and apdu[1] == 0x87 else None

    def notice(_: int, apdu: bytes, answer: bytes) -> None:
        nonlocal waits
        if answer[-2] == 0x61:
            waits = True
        elif apdu[1] in {0xA4, 0xC0} or len(answer) > 2:
            waits = False

    pump.before, pump.after = refuse, notice
    return pump

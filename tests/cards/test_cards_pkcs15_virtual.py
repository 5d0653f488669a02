"""The reader against the project's virtual PKCS#15 card, which was written without it: every way
in which that card can keep its files, from the probe to a new passcode."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cardsession.cards import families, recognise
from cardsession.cards.declaration import Declaration
from cardsession.cards.profile import Probe, Profile, Request
from cardsession.core import trust
from cardsession.core.signing import Algorithm as Signing
from cardsession.core.tries import Consent, Known, Outcome, Unknown
from cardsession.virtual.card import VirtualCard
from cardsession.virtual.identity import Authority
from cardsession.virtual.options import Algorithm, CardOptions, Family, Secrets, Slot
from cardsession.virtual.pkcs15.options import (
    CertificatePlace,
    EmptyVerify,
    EndOfFile,
    Mechanism,
    Padding,
    Paths,
    PinType,
    Pkcs15Options,
    SelectAnswer,
)
from fakes.cards import secret
from fakes.channel import Pump

FREE = Declaration(profile="pkcs15", asking_is_free=True, source="the card's own options")
LEAVE = Consent(accept_unknown=True)
SIGNING = {
    Algorithm.RSA2048: (Signing.RSA_SHA256, 2048),
    Algorithm.P256: (Signing.ECDSA_SHA256, 256),
    Algorithm.P384: (Signing.ECDSA_SHA384, 384),
}
RSA = ((), (Mechanism.RSA_PKCS,), (Mechanism.RSA_X_509,),
       (Mechanism.SHA256_RSA_PKCS, Mechanism.RSA_X_509))  # fmt: skip
SWITCHES = (
    "tell_maximum", "pin_local", "pin_path", "short_references", "signature_pin", "consent", "puk",
    "so_pin", "drops_on_select", "ef_dir", "dir_records", "odf_records", "object_records",
    "direct_objects", "reads_on", "trusted_certificates", "field_size", "private_keys_hidden",
)  # fmt: skip
_authority: list[Authority] = []


@st.composite
def cards(draw: st.DrawFn) -> tuple[Algorithm, Pkcs15Options]:
    """Some card that a reader can make sense of, whatever it keeps to itself."""
    algorithm = draw(st.sampled_from(list(SIGNING)))
    chosen: dict[str, Any] = {name: draw(st.booleans()) for name in SWITCHES}
    chosen["mechanisms"] = draw(st.sampled_from(RSA if algorithm is Algorithm.RSA2048 else ((),)))
    if len(chosen["mechanisms"]) < 2 and Mechanism.RSA_X_509 not in chosen["mechanisms"]:
        chosen["tell_algorithms"] = draw(st.booleans())
    chosen["pin_type"] = draw(st.sampled_from(PinType))
    chosen["stored_length"] = 4 if chosen["pin_type"] is PinType.BCD else 8
    for name, kind in (
        ("padding", Padding), ("paths", Paths), ("select_answer", SelectAnswer),
        ("end_of_file", EndOfFile), ("certificates", CertificatePlace),
    ):  # fmt: skip
        chosen[name] = draw(st.sampled_from(list(kind)))
    chosen["slack"] = draw(st.sampled_from([0, 3, 300]))
    chosen["slack_byte"] = draw(st.sampled_from([0x00, 0xFF]))
    chosen["empty_verify"] = draw(st.sampled_from([EmptyVerify.FREE, EmptyVerify.COSTS]))
    return algorithm, Pkcs15Options(**chosen)


class Counter:
    """One card, its family and what was found."""

    def __init__(self, algorithm: Algorithm, options: Pkcs15Options) -> None:
        if not _authority:
            _authority.append(Authority.make())
        free = options.empty_verify is EmptyVerify.FREE
        made = CardOptions(family=Family.PKCS15, algorithm=algorithm, pkcs15=options)
        self.card = VirtualCard(made, Secrets(), _authority[0])
        known = families((FREE,) if free else ())
        family, self.probe = self.say(recognise(known, self.card.atr))
        assert family is not None and family.name == "pkcs15"
        self.family: Profile = family

    def say(self, dialogue: Any) -> Any:
        return Pump(self.card).hold(dialogue)

    def verify(self, text: str) -> Outcome:
        pin = self.probe.pins["user"]
        judged = self.say(self.family.verify(self.probe, pin, secret(text), LEAVE))
        outcome: Outcome = judged.outcome
        return outcome

    def holds(self, wanted: Request, signature: bytes) -> bool:
        slot = {"authentication": Slot.AUTHENTICATION, "signature": Slot.SIGNATURE}[wanted.slot]
        der = self.card.identity.certificates[slot]
        return trust.signature_holds(der, wanted.algorithm, wanted.digest, signature)


def labels(options: Pkcs15Options) -> set[str]:
    said = {"signature": options.signature_pin, "puk": options.puk}
    return {"user", *(label for label, there in said.items() if there)}


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cards())
@example((Algorithm.P256, Pkcs15Options()))
def test_every_way_to_keep_a_card(made: tuple[Algorithm, Pkcs15Options]) -> None:
    algorithm, options = made
    counter = Counter(algorithm, options)
    family, probe, say = counter.family, counter.probe, counter.say
    ders = counter.card.identity.certificates
    assert probe.certificates == {"authentication": ders[Slot.AUTHENTICATION]}
    assert say(family.certificates(probe))["signature"] == ders[Slot.SIGNATURE]
    assert labels(options) <= set(probe.pins)
    free = options.empty_verify is EmptyVerify.FREE
    assert say(family.question(probe))["user"] == (Known(3) if free else Unknown())
    assert counter.verify("111111") is Outcome.INCORRECT
    assert counter.verify("123456") is Outcome.VERIFIED
    signing_round(counter, algorithm, "246810" if options.signature_pin else "123456")
    passcodes(family, counter.probe, counter, puk=options.puk)


def signing_round(counter: Counter, algorithm: Algorithm, signature_pin: str) -> None:
    family, probe, say = counter.family, counter.probe, counter.say
    chosen, bits = SIGNING[algorithm]
    digest = hashlib.new(chosen.hash_name, b"a prescription").digest()
    wanted = Request("authentication", chosen, digest, bits)
    for fresh in (True, True, False):
        assert counter.holds(wanted, say(family.sign(probe, wanted, fresh=fresh)))
    wanted = replace(wanted, slot="signature")
    held = secret(signature_pin)
    judged, signature = say(family.sign_with_pin(probe, wanted, held, LEAVE))
    assert judged.outcome is Outcome.VERIFIED
    assert counter.holds(wanted, signature)


def passcodes(family: Profile, probe: Probe, counter: Counter, *, puk: bool) -> None:
    pin = probe.pins["user"]
    changing = family.change(probe, pin, secret("123456"), secret("654321"), LEAVE)
    assert counter.say(changing).outcome is Outcome.CHANGED
    assert counter.verify("654321") is Outcome.VERIFIED
    if puk:
        unblocking = family.unblock(probe, pin, secret("12345678"), secret("987654"), LEAVE)
        assert counter.say(unblocking).outcome is Outcome.UNBLOCKED
        assert counter.verify("987654") is Outcome.VERIFIED

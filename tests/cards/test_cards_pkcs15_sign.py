"""Signatures of PKCS#15 cards, judged by the openssl command line."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from cardsession.cards.declaration import Declaration
from cardsession.cards.pkcs15 import NAME, Pkcs15
from cardsession.cards.profile import Probe, Request
from cardsession.core.apdu import exchange
from cardsession.core.dialogue import run
from cardsession.core.errors import Failure, Malformed, Problem
from cardsession.core.signing import Algorithm
from cardsession.core.tries import Consent, Judged, Outcome
from fakes.cards import CANARY, WRONG, secret
from fakes.channel import Pump
from fakes.pkcs15 import CardKey, CardPin, FakeCard, standard_card
from fakes.pkcs15_files import (
    APP,
    ATR,
    COMMITS,
    SIGN,
    certificate,
    certificate_entry,
    key_entry,
    pin_entry,
    private_key,
    public_pem,
    token_entry,
)
from fakes.signatures import openssl_accepts

FREE = Declaration(profile=NAME, asking_is_free=True, source="the tests' own card")
FAMILY = Pkcs15((FREE,))
DIGEST = hashlib.sha256(b"a prescription").digest()
ALGORITHMS = {"rsa2048": Algorithm.RSA_SHA256, "rsa4096": Algorithm.RSA_SHA256,
              "p256": Algorithm.ECDSA_SHA256, "p384": Algorithm.ECDSA_SHA384}  # fmt: skip


def request(kind: str, slot: str = "authentication", algorithm: Algorithm | None = None) -> Request:
    chosen = algorithm or ALGORITHMS[kind]
    digest = hashlib.new(chosen.hash_name, b"a prescription").digest()
    return Request(slot, chosen, digest, int(kind.lstrip("rsap")))


def verified(card: FakeCard, family: Pkcs15 = FAMILY, atr: bytes = ATR) -> Probe:
    probe: Probe = Pump(card).hold(family.probe(atr))
    judged = Pump(card).hold(
        family.verify(probe, probe.pins["user"], secret(), Consent(False, True))
    )
    assert judged.outcome is Outcome.VERIFIED
    return probe


def accepted(
    directory: Path, kind: str, wanted: Request, signature: bytes, number: int = 0
) -> bool:
    return openssl_accepts(
        directory, public_pem(kind, number), "rsa" if kind[0] == "r" else "ec",
        wanted.algorithm.hash_name, wanted.digest, signature,
    )  # fmt: skip


@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("kind", ["rsa2048", "p256", "p384"])
def test_a_signature(kind: str, tmp_path: Path, *, fresh: bool) -> None:
    card = standard_card(kind)
    probe, pump, wanted = verified(card), Pump(card), request(kind)
    signature = pump.hold(FAMILY.sign(probe, wanted, fresh=fresh))
    assert accepted(tmp_path, kind, wanted, signature)
    assert pump.verifies == []


@pytest.mark.parametrize("algorithm", [each for each in Algorithm if each.key_type == "rsa"])
def test_every_digest_of_rsa(algorithm: Algorithm, tmp_path: Path) -> None:
    card = standard_card()
    wanted = request("rsa2048", algorithm=algorithm)
    signature = Pump(card).hold(FAMILY.sign(verified(card), wanted, fresh=True))
    assert accepted(tmp_path, "rsa2048", wanted, signature)


def test_an_ecdsa_card_that_answers_der(tmp_path: Path) -> None:
    card = standard_card("p256", keys={1: CardKey(private_key("p256"), form="digest", plain=False)})
    wanted = request("p256")
    signature = Pump(card).hold(FAMILY.sign(verified(card), wanted, fresh=True))
    assert accepted(tmp_path, "p256", wanted, signature)


@pytest.mark.parametrize(
    ("mechanisms", "form", "own"),
    [
        (((1, 0x01, 0x11),), "info", 0x11),
        (((1, 0x03, 0x12),), "raw", 0x12),
        (((7, 0x03, 0x12), (8, 0x01, 0x02), (9, 0x40, 0x42)), "info", 0x02),
        (((1, 0x01, None),), "info", None),
    ],
)
@pytest.mark.parametrize("linked", [True, False])
def test_the_mechanism_is_the_card_s(
    mechanisms: tuple[Any, ...], form: str, own: int | None, tmp_path: Path, *, linked: bool
) -> None:
    references = tuple(each[0] for each in mechanisms) if linked else ()
    card = standard_card(
        files={
            APP + "5032": token_entry(algorithms=mechanisms),
            APP + "4402": key_entry(algorithms=references),
        },
        keys={1: CardKey(private_key("rsa2048"), form=form, algorithm=own)},
    )
    wanted = request("rsa2048")
    signature = Pump(card).hold(FAMILY.sign(verified(card), wanted, fresh=True))
    assert accepted(tmp_path, "rsa2048", wanted, signature)


def test_a_mechanism_by_declaration(tmp_path: Path) -> None:
    says = Declaration(profile=NAME, mechanisms={"rsa-pkcs1": 0x11}, source="x")
    family = Pkcs15((FREE, says))
    card = standard_card(keys={1: CardKey(private_key("rsa2048"), algorithm=0x11)})
    wanted = request("rsa2048")
    signature = Pump(card).hold(family.sign(verified(card, family), wanted, fresh=True))
    assert accepted(tmp_path, "rsa2048", wanted, signature)


def test_a_card_that_only_hashes_by_itself_is_not_used() -> None:
    card = standard_card(files={APP + "5032": token_entry(algorithms=((1, 0x40, 0x42),))})
    probe, pump = verified(card), Pump(card)
    with pytest.raises(Failure) as caught:
        pump.hold(FAMILY.sign(probe, request("rsa2048"), fresh=True))
    assert (caught.value.problem, pump.apdus) == (Problem.UNSUPPORTED_ALGORITHM, [])


@pytest.mark.parametrize("file", [b"\x40\x01", b""], ids=["its file named", "not named"])
def test_a_key_with_a_file_of_its_own(file: bytes, tmp_path: Path) -> None:
    card = standard_card(
        files={APP + "4402": key_entry(where=APP + "4001"), APP + "4001": b"no reading"},
        keys={1: CardKey(private_key("rsa2048"), file=file)},
    )
    wanted = request("rsa2048")
    signature = Pump(card).hold(FAMILY.sign(verified(card), wanted, fresh=True))
    assert accepted(tmp_path, "rsa2048", wanted, signature)


def test_the_only_key_of_its_file_whatever_its_directory_calls_it(tmp_path: Path) -> None:
    """MyEID and OsEID 4.5 take tag 84 only with 00 (6A81), and want the file; the directory that
    OpenSC's pkcs15-init writes numbers the keys."""
    card = standard_card(
        files={APP + "4402": key_entry(where=APP + "4B01"), APP + "4B01": b"no reading"},
        keys={0: CardKey(private_key("rsa2048"), file=b"\x4b\x01")},
    )
    probe, wanted = verified(card), request("rsa2048")
    pump = Pump(card)
    signature = pump.hold(FAMILY.sign(probe, wanted, fresh=True))
    assert accepted(tmp_path, "rsa2048", wanted, signature)
    templates = [apdu[5:].hex() for apdu in pump.apdus if apdu[1] == 0x22]
    assert templates == ["81024b01840101", "81024b01840100"]


def test_a_key_without_a_reference(tmp_path: Path) -> None:
    card = standard_card(
        files={APP + "4402": key_entry(reference=None)}, keys={-1: CardKey(private_key("rsa2048"))}
    )
    wanted = request("rsa2048")
    signature = Pump(card).hold(FAMILY.sign(verified(card), wanted, fresh=True))
    assert accepted(tmp_path, "rsa2048", wanted, signature)


# ATR with historical bytes: card capabilities, third byte 40 (extended length) or 80 (chaining)
EXTENDED = bytes.fromhex("3B058073000040")
CHAINING = bytes.fromhex("3B058073000080")


@pytest.mark.parametrize(
    ("atr", "reader", "longest"),
    [(EXTENDED, True, 521), (EXTENDED, False, 260), (CHAINING, True, 260)],
)
def test_rsa_4096_padded_by_us(atr: bytes, longest: int, tmp_path: Path, *, reader: bool) -> None:
    card = standard_card(
        "rsa4096",
        files={APP + "5032": token_entry(algorithms=((1, 3, 0x12),))},
        keys={1: CardKey(private_key("rsa4096"), form="raw", algorithm=0x12)},
    )
    probe, wanted = verified(card, atr=atr), request("rsa4096")
    lengths: list[int] = []

    def transmit(apdu: bytearray) -> bytes:
        lengths.append(len(apdu))
        return card.process(bytes(apdu))

    def say(command: Any) -> Any:
        return run(exchange(command, extended=reader), transmit)

    signature = run(FAMILY.sign(probe, wanted, fresh=True), say)
    assert accepted(tmp_path, "rsa4096", wanted, signature)
    assert max(lengths) == longest


@pytest.mark.parametrize("slot", ["signature", "encryption", "", "authentication-2"])
def test_no_such_slot(slot: str) -> None:
    card = standard_card()
    probe, pump = verified(card), Pump(card)
    for dialogue in (
        FAMILY.sign(probe, request("rsa2048", slot), fresh=True),
        FAMILY.sign_with_pin(probe, request("rsa2048", slot), secret(), Consent()),
    ):
        with pytest.raises(Failure) as caught:
            pump.hold(dialogue)
        assert (caught.value.problem, pump.apdus) == (Problem.NO_SUCH_SLOT, [])


@pytest.mark.parametrize(
    ("at", "sw", "problem"),
    [
        (0x22, "6A88", Problem.NO_SUCH_SLOT), (0x22, "6982", Problem.NOT_VERIFIED),
        (0x22, "6985", Problem.NOT_VERIFIED), (0x22, "6A80", Problem.UNSUPPORTED_ALGORITHM),
        (0x2A, "6982", Problem.NOT_VERIFIED), (0x2A, "6985", Problem.NOT_VERIFIED),
        (0x2A, "6A80", Problem.UNSUPPORTED_ALGORITHM), (0x2A, "6F00", Problem.NOT_SUPPORTED),
        (0x2A, "6D00", Problem.UNSUPPORTED_ALGORITHM),
    ],
)  # fmt: skip
def test_a_card_s_refusal(at: int, sw: str, problem: Problem) -> None:
    card = standard_card()
    probe, pump = verified(card), Pump(card)
    pump.before = lambda _, apdu: bytes.fromhex(sw) if apdu[1] == at else None
    with pytest.raises(Failure) as caught:
        pump.hold(FAMILY.sign(probe, request("rsa2048"), fresh=True))
    assert caught.value.problem is problem


@pytest.mark.parametrize("kind", ["rsa2048", "p256"])
@pytest.mark.parametrize(
    "answer", [b"", b"\x30\x06\x02\x01\x00\x02\x01\x01", bytes(63), b"\xff" * 300]
)
def test_a_signature_that_is_none(kind: str, answer: bytes) -> None:
    card = standard_card(kind)
    probe, pump = verified(card), Pump(card)
    pump.before = lambda _, apdu: answer + b"\x90\x00" if apdu[1] == 0x2A else None
    with pytest.raises(Malformed):
        pump.hold(FAMILY.sign(probe, request(kind), fresh=True))


def test_without_a_verification() -> None:
    card = standard_card()
    probe = Pump(card).hold(FAMILY.probe(ATR))
    with pytest.raises(Failure) as caught:
        Pump(card).hold(FAMILY.sign(probe, request("rsa2048"), fresh=False))
    assert caught.value.problem is Problem.NOT_VERIFIED


def careful_card(**options: Any) -> FakeCard:
    """A second key that wants a PIN of its own each time."""
    files = {
        APP + "4401": pin_entry() + pin_entry("Signature", 2, 2),
        APP + "4402": key_entry(1, (SIGN,))
        + key_entry(2, (COMMITS,), 2, auth_id=2, consent=1, elliptic=True),
        APP + "4403": certificate_entry() + certificate_entry(2, APP + "4302"),
        APP + "4302": certificate("p256"),
    }
    pins = {1: CardPin(CANARY.encode()), 2: CardPin(b"5551234\xff")}
    keys = {
        1: CardKey(private_key("rsa2048")),
        2: CardKey(private_key("p256"), pin=2, always=True, form="digest"),
    }
    return standard_card(files=files, pins=pins, keys=keys, **options)


def signed(card: FakeCard, text: str = "5551234") -> tuple[Judged, bytes, Pump]:
    probe, pump, held = verified(card), Pump(card), secret(text)
    wanted = request("p256", "signature")
    judged, signature = pump.hold(FAMILY.sign_with_pin(probe, wanted, held, Consent()))
    assert held.wiped
    return judged, signature, pump


def test_a_key_that_wants_its_pin_each_time(tmp_path: Path) -> None:
    judged, signature, pump = signed(careful_card())
    assert judged.outcome is Outcome.VERIFIED
    assert accepted(tmp_path, "p256", request("p256"), signature)
    assert [apdu[1] for apdu in pump.apdus][-3:] == [0x20, 0x20, 0x2A], "asked, verified, signed"
    assert len(pump.verifies) == 1


def test_it_signs_not_without() -> None:
    card = careful_card()
    probe, pump = verified(card), Pump(card)
    with pytest.raises(Failure) as caught:
        pump.hold(FAMILY.sign(probe, request("p256", "signature"), fresh=True))
    assert (caught.value.problem, pump.apdus) == (Problem.NOT_VERIFIED, [])


def test_a_wrong_passcode_signs_nothing() -> None:
    judged, signature, pump = signed(careful_card(), WRONG)
    assert (judged.outcome, signature) == (Outcome.INCORRECT, b"")
    assert 0x2A not in {apdu[1] for apdu in pump.apdus}
    assert len(pump.verifies) == 1


def test_a_card_that_hears_of_a_key_only_after_its_pin(tmp_path: Path) -> None:
    card = standard_card(needs_pin_first=True)
    probe, wanted = Pump(card).hold(FAMILY.probe(ATR)), request("rsa2048")
    judged, signature = Pump(card).hold(FAMILY.sign_with_pin(probe, wanted, secret(), Consent()))
    assert judged.outcome is Outcome.VERIFIED
    assert accepted(tmp_path, "rsa2048", wanted, signature)


def test_what_a_rival_verified_is_ended_and_the_key_told_again(tmp_path: Path) -> None:
    card = careful_card()
    probe, pump = verified(card), Pump(card)
    card.pins[2].verified = True
    wanted = request("p256", "signature")
    judged, signature = pump.hold(FAMILY.sign_with_pin(probe, wanted, secret("5551234"), Consent()))
    assert judged.outcome is Outcome.VERIFIED
    assert accepted(tmp_path, "p256", wanted, signature)


def test_a_card_that_verifies_and_then_does_not_sign() -> None:
    card = careful_card()
    probe, pump = verified(card), Pump(card)
    pump.before = lambda _, apdu: b"\x6f\x00" if apdu[1] == 0x2A else None
    judged, signature = pump.hold(
        FAMILY.sign_with_pin(probe, request("p256", "signature"), secret("5551234"), Consent())
    )
    assert (judged.outcome, signature) == (Outcome.VERIFIED, b"")


def test_a_key_that_is_not_there_costs_no_try() -> None:
    card = standard_card(keys={})
    probe, pump = Pump(card).hold(FAMILY.probe(ATR)), Pump(card)
    with pytest.raises(Failure) as caught:
        pump.hold(FAMILY.sign_with_pin(probe, request("rsa2048"), secret(WRONG), Consent()))
    assert (caught.value.problem, card.spent) == (Problem.NO_SUCH_SLOT, 0)


def test_the_wrong_kind_of_key() -> None:
    card = standard_card()
    probe = verified(card)
    with pytest.raises(Failure) as caught:
        Pump(card).hold(
            FAMILY.sign(probe, request("rsa2048", algorithm=Algorithm.ECDSA_SHA256), fresh=True)
        )
    assert caught.value.problem is Problem.UNSUPPORTED_ALGORITHM

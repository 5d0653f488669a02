"""Signatures of a PIV card: right ones, as openssl sees them; and what is refused, and when.

NIST SP 800-73-4 part 2 clause 3.2.4 (GENERAL AUTHENTICATE), part 1 table 4b (keys and "PIN
always"), SP 800-78-4 table 6-2 (algorithm identifiers).
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardsession.cards.profile import Probe, Request
from cardsession.core import tlv
from cardsession.core.apdu import SW, Response
from cardsession.core.dialogue import Step, run
from cardsession.core.errors import Failure, Malformed, Problem
from cardsession.core.signing import Algorithm
from cardsession.core.tries import Blocked, Judged, Known, Outcome, Unknown, Verified
from cardsession.virtual.card import VirtualCard
from cardsession.virtual.options import Algorithm as KeyKind
from cardsession.virtual.options import PinPolicy, Slot
from fakes.cards import CANARY, WRONG, make_card, secret
from fakes.channel import Pump, is_verify_with_data
from fakes.piv import (
    ALL,
    NONE,
    PIV,
    STRANGE,
    kinds,
    plainly,
    probed,
    query_answers,
    sent,
    submission_answers,
    submit,
)
from fakes.signatures import RsaKey, openssl_accepts, public_pem

BITS = {KeyKind.RSA2048: 2048, KeyKind.P256: 256, KeyKind.P384: 384}
SLOTS = {
    "authentication": Slot.AUTHENTICATION,
    "signature": Slot.SIGNATURE,
    "card-authentication": Slot.CARD_AUTHENTICATION,
}
EC = [Algorithm.ECDSA_SHA256, Algorithm.ECDSA_SHA384]
RSA = [Algorithm.RSA_SHA256, Algorithm.RSA_SHA384, Algorithm.RSA_SHA512]
KINDS = [
    *((KeyKind.P256, each) for each in EC),
    *((KeyKind.P384, each) for each in EC),
    *((KeyKind.RSA2048, each) for each in RSA),
]


def wanted(
    slot: str = "authentication", algorithm: Algorithm = Algorithm.ECDSA_SHA256, bits: int = 256
) -> Request:
    digest = hashlib.new(algorithm.hash_name, b"a prescription").digest()
    return Request(slot, algorithm, digest, bits)


def verified(card: VirtualCard) -> Probe:
    known = probed(card)[0]
    assert submit(card, known=known)[0].outcome is Outcome.VERIFIED
    return known


def accepted(card: VirtualCard, request: Request, signature: bytes, at: Path) -> bool:
    der = card.identity.certificates[SLOTS[request.slot]]
    algorithm = request.algorithm
    return openssl_accepts(
        at, public_pem(der), algorithm.key_type, algorithm.hash_name, request.digest, signature
    )


# right ones


@pytest.mark.parametrize(("kind", "algorithm"), KINDS)
def test_a_signature_is_one_that_openssl_accepts(
    kind: KeyKind, algorithm: Algorithm, tmp_path: Path
) -> None:
    """P-256 with SHA-384 takes the digest's leftmost bits (FIPS 186-4 clause 6.4)."""
    card = make_card(algorithm=kind)
    request = wanted(algorithm=algorithm, bits=BITS[kind])
    known = verified(card)
    pump = Pump(card)
    signature = pump.hold(PIV.sign(known, request, fresh=True))
    assert accepted(card, request, signature, tmp_path)
    other = wanted(algorithm=algorithm, bits=BITS[kind])
    other = Request(other.slot, algorithm, bytes(len(other.digest)), other.key_bits)
    assert not accepted(card, other, signature, tmp_path), "openssl is not just content"
    assert {apdu[1] for apdu in pump.apdus} <= {0x87, 0xC0}, "no word but the signature's"


@pytest.mark.parametrize(("bits", "identifier"), [(1024, 0x06), (3072, 0x05)])
@pytest.mark.parametrize("algorithm", RSA)
def test_rsa_keys_of_other_sizes(
    bits: int, identifier: int, algorithm: Algorithm, tmp_path: Path
) -> None:
    card = make_card()
    key = RsaKey(bits, identifier)
    card.identity.keys[Slot.AUTHENTICATION] = key  # type: ignore[assignment]
    request = wanted(algorithm=algorithm, bits=bits)
    signature = Pump(card).hold(PIV.sign(verified(card), request, fresh=True))
    name = algorithm.hash_name
    assert openssl_accepts(tmp_path, key.pem, "rsa", name, request.digest, signature)
    assert [len(each) for each in key.seen] == [bits // 8]


@pytest.mark.parametrize(
    ("kind", "algorithm", "block"),
    [
        (KeyKind.P256, Algorithm.ECDSA_SHA256, lambda digest: digest),
        (KeyKind.P256, Algorithm.ECDSA_SHA384, lambda digest: digest[:32]),
        (KeyKind.P384, Algorithm.ECDSA_SHA256, lambda digest: bytes(16) + digest),
        (KeyKind.P384, Algorithm.ECDSA_SHA384, lambda digest: digest),
    ],
)
def test_the_command_as_it_goes_to_the_card(
    kind: KeyKind, algorithm: Algorithm, block: type[bytes]
) -> None:
    card = make_card(algorithm=kind)
    request = wanted(algorithm=algorithm, bits=BITS[kind])
    pump = Pump(card)
    pump.hold(PIV.sign(verified(card), request, fresh=True))
    size = BITS[kind] // 8
    template = bytes([0x7C, size + 4, 0x82, 0x00, 0x81, size]) + block(request.digest)
    identifier = {256: 0x11, 384: 0x14}[request.key_bits]
    head = bytes([0x00, 0x87, identifier, 0x9A, len(template)])
    assert pump.apdus[0] == head + template + b"\x00"


def test_an_rsa_block_is_chained() -> None:
    card = make_card(algorithm=KeyKind.RSA2048)
    pump = Pump(card)
    pump.hold(PIV.sign(verified(card), wanted(algorithm=RSA[0], bits=2048), fresh=True))
    heads = [apdu[:5].hex() for apdu in pump.apdus if apdu[1] == 0x87]
    assert heads == ["1087079aff", "0087079a0b"]


@pytest.mark.parametrize("slot", ["authentication", "card-authentication"])
def test_a_signature_in_another_transaction_looks_at_the_card_first(
    slot: str, tmp_path: Path
) -> None:
    card = make_card(slots=tuple(Slot))
    known = verified(card)
    pump = Pump(card)
    request = wanted(slot)
    signature = pump.hold(PIV.sign(known, request, fresh=False))
    assert accepted(card, request, signature, tmp_path)
    assert kinds(pump.steps)[0] == "00 CB 3F FF"
    other = Pump(make_card(slots=tuple(Slot)))
    with pytest.raises(Failure) as error:
        other.hold(PIV.sign(known, request, fresh=False))
    assert error.value.problem is Problem.CARD_REMOVED
    assert not [apdu for apdu in other.apdus if apdu[1] == 0x87]


def test_the_card_s_own_key_wants_no_pin() -> None:
    card = make_card(slots=tuple(Slot))
    known = probed(card)[0]
    assert Pump(card).hold(PIV.sign(known, wanted("card-authentication"), fresh=False))


def test_the_keys_as_they_are_declared() -> None:
    known = probed(make_card())[0]
    found = {slot: PIV.key(known, slot) for slot in (*SLOTS, "encryption", "nonsense")}
    told = {slot: (key.reference, key.pin, key.pin_always) for slot, key in found.items() if key}
    assert told == {
        "authentication": (0x9A, "user", False),
        "signature": (0x9C, "user", True),
        "card-authentication": (0x9E, "", False),
    }


# what is refused


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        (wanted("nonsense"), Problem.NO_SUCH_SLOT),
        (wanted(""), Problem.NO_SUCH_SLOT),
        (wanted("encryption"), Problem.UNSUPPORTED_ALGORITHM),
        (wanted(algorithm=Algorithm.RSA_SHA256, bits=256), Problem.UNSUPPORTED_ALGORITHM),
        (wanted(bits=2048), Problem.UNSUPPORTED_ALGORITHM),
        (wanted(bits=521), Problem.UNSUPPORTED_ALGORITHM),
        (wanted(bits=0), Problem.UNSUPPORTED_ALGORITHM),
        (wanted(algorithm=Algorithm.RSA_SHA256, bits=4096), Problem.UNSUPPORTED_ALGORITHM),
        (
            Request("authentication", Algorithm.RSA_SHA256, bytes(48), 2048),
            Problem.INVALID_ARGS,
        ),
        (Request("authentication", Algorithm.ECDSA_SHA256, b"", 256), Problem.INVALID_ARGS),
    ],
)
def test_what_no_card_signs_costs_not_a_word_and_no_try(
    request_: Request, problem: Problem
) -> None:
    card = make_card()
    known = probed(card)[0]
    pump = Pump(card)
    for talk in (
        PIV.sign(known, request_, fresh=True),
        PIV.sign(known, request_, fresh=False),
        PIV.sign_with_pin(known, request_, secret(), ALL),
    ):
        with pytest.raises(Failure) as error:
            pump.hold(talk)
        assert error.value.problem is problem
    assert pump.apdus == []


ANSWERS = {
    "6982": Problem.NOT_VERIFIED,
    "6A82": Problem.NO_SUCH_SLOT,
    "6A86": Problem.NO_SUCH_SLOT,
    "6A88": Problem.NO_SUCH_SLOT,
    "6700": Problem.UNSUPPORTED_ALGORITHM,
    "6A80": Problem.UNSUPPORTED_ALGORITHM,
    "6A81": Problem.UNSUPPORTED_ALGORITHM,
    "6884": Problem.UNSUPPORTED_ALGORITHM,
}


def refusal(known: Probe, value: int) -> Problem | None:
    """What becomes of a signature that is answered with nothing but this; None: malformed."""
    said: list[Step] = []

    def answer(step: Step) -> Response:
        said.append(step)
        return Response(b"", SW(value))

    try:
        run(PIV.sign(known, wanted(), fresh=True), answer)
    except Failure as failure:
        assert len(said) == 1
        return failure.problem
    except Malformed:
        return None
    raise AssertionError(f"{value:04X} brought a signature")


def test_every_status_word_of_a_signature_is_a_problem_of_its_own() -> None:
    known = probed(make_card())[0]
    for value in range(0x10000):
        text = f"{value:04X}"
        expected = None if text == "9000" else ANSWERS.get(text, Problem.NOT_SUPPORTED)
        assert refusal(known, value) is expected, text


def test_a_key_that_nobody_opened_is_not_verified() -> None:
    card = make_card(slots=tuple(Slot))
    known = probed(card)[0]
    for slot in ("authentication", "signature"):
        with pytest.raises(Failure) as error:
            Pump(card).hold(PIV.sign(known, wanted(slot), fresh=False))
        assert error.value.problem is Problem.NOT_VERIFIED


def test_the_signature_key_wants_the_pin_each_time() -> None:
    card = make_card(slots=tuple(Slot))
    known = verified(card)
    assert Pump(card).hold(PIV.sign(known, wanted("signature"), fresh=True))
    with pytest.raises(Failure) as error:
        Pump(card).hold(PIV.sign(known, wanted("signature"), fresh=True))
    assert error.value.problem is Problem.NOT_VERIFIED


@pytest.mark.parametrize("slot", ["signature", "card-authentication"])
def test_a_slot_without_a_key_is_none(slot: str) -> None:
    card = make_card()
    with pytest.raises(Failure) as error:
        Pump(card).hold(PIV.sign(verified(card), wanted(slot), fresh=True))
    assert error.value.problem is Problem.NO_SUCH_SLOT


# what is no signature


def der(*numbers: bytes) -> bytes:
    return tlv.encode(0x30, b"".join(tlv.encode(0x02, each) for each in numbers))


GOOD = der(b"\x01" * 32, b"\x02" * 32)


def in_template(signature: bytes) -> bytes:
    return tlv.encode(0x7C, tlv.encode(0x82, signature))


def answered(answer: bytes, request: Request) -> bytes:
    pump = Pump()
    pump.before = lambda _, __: answer + b"\x90\x00"
    known = Probe("piv")
    signature: bytes = pump.hold(PIV.sign(known, request, fresh=True))
    return signature


@pytest.mark.parametrize(
    "signature",
    [GOOD, der(b"\x01", b"\x7f"), der(b"\x00\xff" * 1 + b"\x80" * 31, b"\x00\x80")],
    ids=["long", "small numbers", "with the sign's zero"],
)
def test_an_ecdsa_signature_is_two_positive_numbers_in_der(signature: bytes) -> None:
    assert answered(in_template(signature), wanted()) == signature


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        GOOD,
        tlv.encode(0x82, GOOD),
        tlv.encode(0x7C, b""),
        tlv.encode(0x7C, tlv.encode(0x81, GOOD)),
        tlv.encode(0x7D, tlv.encode(0x82, GOOD)),
        in_template(GOOD) + b"\x00",
        b"\x00" + in_template(GOOD),
        in_template(GOOD) + in_template(GOOD),
        in_template(GOOD)[:-1],
        tlv.encode(0x7C, tlv.encode(0x82, GOOD) + b"\xff"),
        tlv.encode(0x7C, tlv.encode(0x82, GOOD) * 2),
        tlv.encode(0x7C, tlv.encode(0x82, b"") + tlv.encode(0x82, GOOD)),
        in_template(b""),
        in_template(b"\x01" * 64),
        in_template(GOOD + b"\x00"),
        in_template(tlv.encode(0x31, GOOD[2:])),
        in_template(der(b"\x01")),
        in_template(der(b"\x01", b"\x02", b"\x03")),
        in_template(der(b"\x01", b"")),
        in_template(der(b"\x01", b"\x00")),
        in_template(der(b"\x01", b"\x80")),
        in_template(der(b"\x01", b"\x00\x01")),
        in_template(der(b"\x01", b"\x00" + b"\xff" * 33)),
        in_template(tlv.encode(0x30, b"\x02\x01\x01\x03\x01\x01")),
        in_template(tlv.encode(0x30, b"\x02\x81\x01\x01\x02\x01\x01")),
        in_template(tlv.encode(0x30, b"\x02\x01\x01\x00\x02\x01\x01")),
    ],
    ids=lambda answer: answer.hex()[:24] or "nothing",
)
def test_any_other_answer_is_malformed(answer: bytes) -> None:
    with pytest.raises(Malformed):
        answered(answer, wanted())


@pytest.mark.parametrize("size", [0, 255, 257])
def test_an_rsa_signature_is_as_long_as_the_modulus(size: int) -> None:
    request = wanted(algorithm=Algorithm.RSA_SHA256, bits=2048)
    with pytest.raises(Malformed):
        answered(in_template(bytes(size)), request)
    assert answered(in_template(b"\x55" * 256), request) == b"\x55" * 256


def test_a_length_field_may_have_leading_zeros() -> None:
    long = b"\x7c\x82\x00" + bytes([len(GOOD) + 2]) + tlv.encode(0x82, GOOD)
    assert answered(long, wanted()) == GOOD


@given(st.binary(max_size=80) | st.binary(max_size=72).map(in_template))
def test_noise_is_malformed_or_a_signature_that_is_der(answer: bytes) -> None:
    try:
        signature = answered(answer, wanted())
    except Malformed:
        return
    assert answer.endswith(signature)
    assert signature[0] == 0x30


# with the PIN


@pytest.mark.parametrize("slot", list(SLOTS))
@pytest.mark.parametrize("kind", [KeyKind.P256, KeyKind.RSA2048])
@pytest.mark.parametrize("policy", [PinPolicy.APPLICATION, PinPolicy.GLOBAL_PRIMARY])
def test_a_pin_and_the_one_signature_that_it_opens(
    slot: str, kind: KeyKind, policy: PinPolicy, tmp_path: Path
) -> None:
    card = make_card(algorithm=kind, slots=tuple(Slot), pin_policy=policy)
    known = probed(card)[0]
    algorithm = RSA[0] if kind is KeyKind.RSA2048 else EC[0]
    request = wanted(slot, algorithm, BITS[kind])
    pump = Pump(card)
    judged, signature = pump.hold(PIV.sign_with_pin(known, request, secret(), NONE))
    assert judged == Judged(Outcome.VERIFIED, Verified())
    assert accepted(card, request, signature, tmp_path)
    at = next(index for index, apdu in enumerate(pump.apdus) if is_verify_with_data(apdu))
    rest = [apdu[1] for apdu in pump.apdus[at + 1 :]]
    assert rest[0] == 0x87, "any other command would close the signature key again"
    assert set(rest) <= {0x87, 0xC0}


@pytest.mark.parametrize(
    ("tries", "text", "outcome", "status"),
    [
        (3, WRONG, Outcome.INCORRECT, Known(2)),
        (1, CANARY, Outcome.REFUSED_LAST_TRY, Known(1)),
        (0, CANARY, Outcome.WAS_BLOCKED, Blocked()),
        (3, CANARY + "1", Outcome.BAD_FORMAT, Unknown()),
        (3, "abcdef", Outcome.BAD_FORMAT, Known(3)),
    ],
)
def test_a_pin_that_was_not_verified_brings_no_signature(
    tries: int, text: str, outcome: Outcome, status: object
) -> None:
    card = make_card(tries=tries, slots=tuple(Slot))
    known = probed(card)[0]
    pump = Pump(card)
    judged, signature = pump.hold(PIV.sign_with_pin(known, wanted("signature"), secret(text), NONE))
    assert (judged.outcome, judged.status, signature) == (outcome, status, b"")
    assert not [apdu for apdu in pump.apdus if apdu[1] == 0x87]


@pytest.mark.parametrize("answer", STRANGE)
def test_an_answer_that_is_none_brings_no_signature(answer: str) -> None:
    card = make_card(slots=tuple(Slot))
    known = probed(card)[0]
    pump = Pump(card)
    submission_answers(answer)(pump)
    judged, signature = pump.hold(PIV.sign_with_pin(known, wanted("signature"), secret(), NONE))
    assert judged.outcome is not Outcome.VERIFIED
    assert signature == b""
    assert len(sent(pump)) == 1
    assert not [apdu for apdu in pump.apdus if apdu[1] == 0x87]
    assert plainly(card) == "63C3"


@pytest.mark.parametrize("answer", ["6982", "6A86", "6F00", "9000", "", "7C0082009000"])
def test_a_judgement_is_not_lost_with_the_signature(answer: str) -> None:
    card = make_card(slots=tuple(Slot))
    known = probed(card)[0]
    pump = Pump(card)
    pump.before = lambda _, apdu: bytes.fromhex(answer) if apdu[1] == 0x87 else None
    said = pump.hold(PIV.sign_with_pin(known, wanted("signature"), secret(), NONE))
    assert said == (Judged(Outcome.VERIFIED, Verified()), b"")
    assert len(sent(pump)) == 1


def test_an_unknown_count_is_not_two_for_a_signature_either() -> None:
    card = make_card()
    known = probed(card)[0]
    pump = Pump(card)
    query_answers("6F00")(pump)
    judged, _ = pump.hold(PIV.sign_with_pin(known, wanted(), secret(), NONE))
    assert judged.outcome is Outcome.REFUSED_UNKNOWN
    assert sent(pump) == []


def test_a_card_without_a_pin_is_given_none() -> None:
    with pytest.raises(Failure) as error:
        Pump().hold(PIV.sign_with_pin(Probe("piv"), wanted(), secret(), ALL))
    assert error.value.problem is Problem.NO_SUCH_PIN

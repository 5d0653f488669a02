"""PIV dialogues over the virtual card and over scripts. No reader, no loop."""

from __future__ import annotations

import contextlib
import gzip
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cardsession.cards import piv, recognise
from cardsession.cards.piv import CERTIFICATES, Piv, inflate
from cardsession.cards.profile import Probe
from cardsession.core import tlv
from cardsession.core.apdu import Command
from cardsession.core.dialogue import Attempt, LowestSeen, Reset, Settle, Step
from cardsession.core.errors import Failure, Malformed, Problem
from cardsession.core.secret import Secret
from cardsession.core.tries import (
    Blocked,
    Consent,
    Judged,
    Known,
    NotSet,
    Outcome,
    Unknown,
    Verified,
)
from cardsession.virtual.book import Kind
from cardsession.virtual.card import VirtualCard
from cardsession.virtual.objects import Tag
from cardsession.virtual.options import Algorithm, PinPolicy, Slot
from cardsession.virtual.pins import PIN
from fakes.channel import Chip, Pump, is_verify_with_data, removed
from fakes.counter import CANARY, WRONG, make_card, secret

PIV = Piv()
AUTHENTICATION = int.from_bytes(CERTIFICATES["authentication"], "big")
NONE = Consent()
ALL = Consent(spend_last_try=True, accept_unknown=True)


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


# the probe


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("algorithm", [Algorithm.P256, Algorithm.P384, Algorithm.RSA2048])
def test_a_probe_costs_four_exchanges_and_the_certificate(
    algorithm: Algorithm, *, compressed: bool
) -> None:
    card = make_card(algorithm=algorithm, compressed=compressed)
    probe, pump = probed(card)
    size = len(card.applet.objects[AUTHENTICATION])
    assert len(pump.apdus) <= 4 + -(-size // 256)
    assert probe.certificates == {"authentication": card.identity.certificates[Slot.AUTHENTICATION]}
    assert probe.identity == card.identity.guid.hex().upper()
    assert probe.tries == {"user": Known(3)}


@pytest.mark.parametrize("size", [250, 256, 257, 511, 512, 513, 1024, 1500])
def test_the_probe_s_cost_at_the_edges_of_an_answer(size: int) -> None:
    card = make_card()
    filler = b"\x70\x82" + (size - 8).to_bytes(2, "big") + bytes(size - 8)
    envelope = b"\x53\x82" + len(filler).to_bytes(2, "big") + filler
    assert len(envelope) == size
    card.applet.objects[AUTHENTICATION] = envelope
    _, pump = probed(card)
    assert len(pump.apdus) <= 4 + -(-size // 256)


def test_a_probe_sends_no_secret_changes_nothing_and_asks_the_counter_once() -> None:
    card = make_card(tries=2)
    _, pump = probed(card)
    assert pump.verifies == []
    assert card.pins.reference(PIN).left == 2
    tally = card.book.tally(Kind.VERIFY, PIN)
    assert (tally.total, tally.status) == (1, 1)
    assert not [step for step in pump.steps if not isinstance(step, Command)]


@pytest.mark.parametrize(
    ("left", "status"), [(0, Blocked()), (1, Known(1)), (2, Known(2)), (3, Known(3))]
)
def test_the_counter_is_the_card_s(left: int, status: object) -> None:
    probe, _ = probed(make_card(tries=left))
    assert probe.tries == {"user": status}


def test_fifteen_is_as_far_as_the_nibble_goes() -> None:
    assert probed(make_card(tries_limit=15))[0].tries == {"user": Known(15)}


@pytest.mark.parametrize(
    ("policy", "reference"),
    [(PinPolicy.APPLICATION, 0x80), (PinPolicy.GLOBAL_TOO, 0x80), (PinPolicy.GLOBAL_PRIMARY, 0x00)],
)
def test_the_discovery_object_says_which_pin_is_primary(policy: PinPolicy, reference: int) -> None:
    card = make_card(pin_policy=policy)
    probe, pump = probed(card)
    assert probe.pins["user"].reference == reference
    asked = {apdu[3] for apdu in pump.apdus if apdu[1] == 0x20}
    assert asked == {reference}, "the global PIN is asked only where discovery says it is primary"
    judged, pump = submit(card, known=probe)
    assert judged.outcome is Outcome.VERIFIED
    assert [apdu[3] for apdu in pump.verifies] == [reference]


@pytest.mark.parametrize(
    "discovery",
    [
        None,
        b"",
        bytes.fromhex("7E"),
        bytes.fromhex("7E025F2F"),
        bytes.fromhex("7E045F2F0160"),
        bytes.fromhex("7E055F2F020020"),  # says that it is primary, not that it exists
        bytes.fromhex("53055F2F026020"),  # another envelope
        bytes(300),
    ],
    ids=lambda value: "absent" if value is None else value.hex()[:16] or "empty",
)
def test_without_a_discovery_object_that_makes_sense_the_application_pin_is_primary(
    discovery: bytes | None,
) -> None:
    probe, _ = probed(make_card(objects={0x7E: discovery}))
    assert probe.pins["user"].reference == 0x80


def test_no_chuid_is_no_identity() -> None:
    assert probed(make_card(chuid=False))[0].identity == ""


@pytest.mark.parametrize(
    ("content", "identity"),
    [
        (tlv.encode(0x34, bytes(range(16))) + tlv.encode(0x30, b"\xd4" * 25), bytes(range(16))),
        (tlv.encode(0x34, bytes(16)) + tlv.encode(0x30, b"\xd4" * 25), b"\xd4" * 25),
        (tlv.encode(0x30, b"\xd4" * 25), b"\xd4" * 25),
        (tlv.encode(0x34, bytes(16)), b""),
        (b"\x34\x7f", b""),
        (b"", b""),
        (tlv.encode(0x34, b"\x01" * 900), b"\x01" * 32),
    ],
)
def test_identity_is_the_guid_else_the_fascn(content: bytes, identity: bytes) -> None:
    card = make_card(objects={Tag.CHUID: tlv.encode(0x53, content)})
    assert probed(card)[0].identity == identity.hex().upper()


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        tlv.encode(0x53, b""),
        b"\x53\x82\xff\xff\x00",
        tlv.encode(0x53, b"\x70\x7f"),
        tlv.encode(0x53, tlv.encode(0x70, b"")),
        tlv.encode(0x53, tlv.encode(0x71, b"\x00")),
        tlv.encode(0x53, tlv.encode(0x70, b"no gzip") + tlv.encode(0x71, b"\x01")),
        tlv.encode(0x53, tlv.encode(0x70, gzip.compress(bytes(900))[:-9]) + tlv.encode(0x71, b"\x01")),
        tlv.encode(0x53, tlv.encode(0x70, gzip.compress(bytes(10**7), 9)) + tlv.encode(0x71, b"\x01")),
        tlv.encode(0x54, b"\x70\x01\x30"),
    ],
    ids=[
        "absent", "no bytes", "empty", "an absurd length", "cut", "no certificate", "only CertInfo",
        "not gzip", "gzip cut short", "a gzip bomb", "another envelope",
    ],
)  # fmt: skip
def test_a_certificate_that_is_none_leaves_a_blank_card(content: bytes | None) -> None:
    probe, _ = probed(make_card(objects={AUTHENTICATION: content}))
    assert probe.certificates == {}
    assert probe.tries == {"user": Known(3)}


def test_inflating_stops_at_sixteen_kibibytes() -> None:
    assert inflate(gzip.compress(bytes(16 * 1024))) == bytes(16 * 1024)
    for bad in (bytes(16 * 1024 + 1), bytes(10**7)):
        with pytest.raises(Malformed):
            inflate(gzip.compress(bad))
    with pytest.raises(Malformed):
        inflate(b"")


def test_a_bomb_is_stopped_while_inflating() -> None:
    bomb = gzip.compress(bytes(10**7), 9)
    tracemalloc.start()
    try:
        with pytest.raises(Malformed):
            inflate(bomb)
        assert tracemalloc.get_traced_memory()[1] < 10**6
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=300))
def test_inflating_noise_is_malformed_or_small(packed: bytes) -> None:
    with contextlib.suppress(Malformed):
        assert len(inflate(packed)) <= 16 * 1024


def test_the_other_certificates_are_read_later_and_all_of_them() -> None:
    card = make_card(slots=tuple(Slot), compressed=True)
    probe, pump = probed(card)
    found = pump.hold(PIV.certificates(probe))
    ders = card.identity.certificates
    assert found == {
        "signature": ders[Slot.SIGNATURE],
        "encryption": ders[Slot.KEY_MANAGEMENT],
        "card-authentication": ders[Slot.CARD_AUTHENTICATION],
    }


@pytest.mark.parametrize("sw", ["6A82", "6A81", "6D00", "6E00", "6F00", "6999", "6283"])
def test_a_card_without_the_application_is_left_alone(sw: str) -> None:
    pump = Pump()
    pump.before = lambda _, __: bytes.fromhex(sw)
    family, found = pump.hold(recognise())
    assert (family, found.profile) == (None, "unknown")
    assert [apdu[1] for apdu in pump.apdus] == [0xA4], "nothing but SELECT was said to it"


@pytest.mark.parametrize("sw", ["6A80", "6A88"])
def test_a_card_without_the_reference_has_no_pin(sw: str) -> None:
    card = make_card()
    pump = Pump(card)
    pump.before = lambda _, apdu: bytes.fromhex(sw) if apdu[1] == 0x20 else None
    probe = pump.hold(PIV.probe())
    assert probe is not None
    assert (probe.pins, probe.tries) == ({}, {})


@settings(max_examples=150)
@given(st.lists(st.binary(max_size=64), max_size=12), st.binary(max_size=8))
def test_noise_is_recognised_as_something_or_malformed(answers: list[bytes], rest: bytes) -> None:
    pump = Pump()
    pump.before = lambda number, _: answers[number - 1] if number <= len(answers) else rest
    try:
        _, found = pump.hold(recognise())
    except Malformed:
        return
    assert pump.verifies == []
    assert set(found.tries) <= {"user"}


def test_a_card_pulled_at_any_exchange_of_the_probe_says_so() -> None:
    card = make_card()
    total = len(probed(card)[1].apdus)
    for at in range(1, total + 1):
        pump = Pump(card)
        pump.before = pulling(at)
        with pytest.raises(Failure) as error:
            pump.hold(PIV.probe())
        assert error.value.problem is Problem.CARD_REMOVED


def pulling(at: int) -> Callable[[int, bytes], None]:
    """The card goes at this exchange."""

    def hook(number: int, _: bytes) -> None:
        if number >= at:
            raise removed()

    return hook


# one submission


def test_a_right_passcode_is_sent_once_between_attempt_and_settle() -> None:
    card = make_card(tries=2)
    judged, pump = submit(card)
    assert judged == Judged(Outcome.VERIFIED, Verified())
    steps = kinds(pump.steps)
    at = steps.index("Attempt")
    assert steps[at:] == ["Attempt", "00 20 00 80", "Settle"]
    assert steps[:at] == ["00 A4 04 00", "00 CB 3F FF", "00 20 00 80", "LowestSeen"]
    assert pump.verifies == [b"\x00\x20\x00\x80\x08" + CANARY.encode()]
    assert not pump.ledger.in_flight(probed(card)[0].identity)


def test_a_wrong_passcode_costs_one_try_and_says_how_many_are_left() -> None:
    card = make_card()
    judged, pump = submit(card, WRONG)
    assert judged == Judged(Outcome.INCORRECT, Known(2))
    assert (card.book.wrong(PIN), len(pump.verifies)) == (1, 1)
    assert pump.ledger.lowest(card.identity.guid.hex().upper(), 0x80) == 2


def test_a_short_passcode_is_padded_with_ff() -> None:
    _, pump = submit(make_card(), "123456")
    assert pump.verifies[0][5:] == b"123456\xff\xff"


def test_one_that_is_too_long_is_not_cut_and_not_sent() -> None:
    card = make_card()
    judged, pump = submit(card, CANARY + "1")
    assert (judged.outcome, judged.sent) == (Outcome.BAD_FORMAT, False)
    assert pump.apdus == []


def test_a_format_that_the_card_refuses_uncounted_leaves_the_count() -> None:
    card = make_card()
    judged, pump = submit(card, "abcdef")
    assert judged == Judged(Outcome.BAD_FORMAT, Known(3))
    assert len(pump.verifies) == 1
    assert card.pins.reference(PIN).left == 3


def test_a_format_that_the_card_counts_is_incorrect() -> None:
    judged, _ = submit(make_card(format_costs_a_try=True), "abcdef")
    assert judged == Judged(Outcome.INCORRECT, Known(2))


def test_the_last_try_is_kept_back_without_consent() -> None:
    card = make_card(tries=1)
    judged, pump = submit(card)
    assert judged == Judged(Outcome.REFUSED_LAST_TRY, Known(1), sent=False)
    assert pump.verifies == []
    assert "Attempt" not in kinds(pump.steps)


def test_the_last_try_with_consent_blocks_or_verifies() -> None:
    spend = Consent(spend_last_try=True)
    judged, pump = submit(make_card(tries=1), WRONG, spend)
    assert judged == Judged(Outcome.NOW_BLOCKED, Blocked())
    assert len(pump.verifies) == 1
    judged, _ = submit(make_card(tries=1), CANARY, spend)
    assert judged.outcome is Outcome.VERIFIED


def test_a_blocked_pin_is_not_tried_whatever_the_caller_agrees_to() -> None:
    card = make_card(tries=0)
    judged, pump = submit(card, CANARY, ALL)
    assert judged == Judged(Outcome.WAS_BLOCKED, Blocked(), sent=False)
    assert pump.verifies == []


def query_answers(sw: str) -> Callable[[Pump], None]:
    """A card that answers the question about its counter like this."""

    def prepare(pump: Pump) -> None:
        pump.before = lambda _, apdu: (
            bytes.fromhex(sw) if apdu[1:3] == b"\x20\x00" and len(apdu) == 4 else None
        )

    return prepare


@pytest.mark.parametrize("sw", ["6982", "6D00", "6700", "6F00", "6300", "6C03", "6103"])
def test_an_unknown_count_is_not_two(sw: str) -> None:
    card = make_card()
    judged, pump = submit(card, CANARY, Consent(spend_last_try=True), prepare=query_answers(sw))
    assert judged.outcome is Outcome.REFUSED_UNKNOWN
    assert pump.verifies == []
    judged, pump = submit(card, CANARY, Consent(accept_unknown=True), prepare=query_answers(sw))
    assert judged.outcome is Outcome.VERIFIED
    assert len(pump.verifies) == 1


@pytest.mark.parametrize("sw", ["62C1", "62C7", "6985"])
def test_a_pin_that_is_not_set_is_not_tried(sw: str) -> None:
    judged, pump = submit(make_card(), CANARY, ALL, prepare=query_answers(sw))
    assert judged == Judged(Outcome.WAS_BLOCKED, NotSet(), sent=False)
    assert pump.verifies == []


@pytest.mark.parametrize("sw", ["6A80", "6A88", "6A86"])
def test_a_pin_that_went_is_not_tried(sw: str) -> None:
    card = make_card()
    pump = Pump(card)
    known = probed(card)[0]
    query_answers(sw)(pump)
    with pytest.raises(Failure) as error:
        pump.hold(PIV.verify(known, known.pins["user"], secret(), ALL))
    assert error.value.problem is Problem.NO_SUCH_PIN
    assert pump.verifies == []


@pytest.mark.parametrize(("lowest", "sent"), [(0, 0), (1, 0), (2, 1), (3, 1)])
def test_where_the_card_does_not_tell_the_lowest_count_ever_seen_guards(
    lowest: int, sent: int
) -> None:
    card = make_card()
    known = probed(card)[0]

    def prepare(pump: Pump) -> None:
        query_answers("6982")(pump)
        pump.ledger.settle(known.identity, 0x80, Known(lowest) if lowest else Blocked())

    judged, pump = submit(card, CANARY, Consent(accept_unknown=True), prepare=prepare)
    assert len(pump.verifies) == sent
    assert (judged.outcome is Outcome.REFUSED_LAST_TRY) == (not sent)


def rival_verified(card: VirtualCard) -> None:
    """Another program left the PIN verified; after a wrong try, so that the count matters."""
    card.process(bytes.fromhex("00A404000BA000000308000010000100"))
    answer = card.process(b"\x00\x20\x00\x80\x08" + CANARY.encode())
    assert answer == b"\x90\x00"
    card.book.clear()


def test_a_pin_that_a_rival_left_verified_is_deauthenticated_and_asked_again() -> None:
    card = make_card()
    known = probed(card)[0]
    rival_verified(card)
    judged, pump = submit(card, WRONG, known=known)
    assert judged == Judged(Outcome.INCORRECT, Known(2))
    asked = [apdu.hex() for apdu in pump.apdus if apdu[1] == 0x20 and len(apdu) == 4]
    assert asked == ["00200080", "0020ff80", "00200080"]
    assert Reset() not in pump.steps


def test_the_guard_is_not_blinded_by_a_rival_s_verified_pin() -> None:
    card = make_card()
    known = probed(card)[0]
    rival_verified(card)
    card.pins.reference(PIN).left = 1
    judged, pump = submit(card, WRONG, known=known)
    assert judged == Judged(Outcome.REFUSED_LAST_TRY, Known(1), sent=False)
    assert pump.verifies == []


def test_a_card_that_cannot_deauthenticate_is_reset_and_identified_again() -> None:
    card = make_card(deauthentication=False)
    known = probed(card)[0]
    rival_verified(card)
    judged, pump = submit(card, known=known)
    assert judged.outcome is Outcome.VERIFIED
    steps = kinds(pump.steps)
    reset = steps.index("Reset")
    assert steps[reset + 1 : reset + 4] == ["00 A4 04 00", "00 CB 3F FF", "00 20 00 80"]


def test_a_card_swapped_during_that_reset_is_not_given_the_passcode() -> None:
    card, other = make_card(deauthentication=False), make_card()
    known = probed(card)[0]
    rival_verified(card)
    pump = Pump(card)

    def swap(_: int, apdu: bytes) -> None:
        if apdu[1:3] == b"\x20\xff":
            pump.chip = Swapping(card, other)

    pump.before = swap
    with pytest.raises(Failure) as error:
        pump.hold(PIV.verify(known, known.pins["user"], secret(), ALL))
    assert error.value.problem is Problem.CARD_REMOVED
    assert pump.verifies == []
    assert other.book.wrong() == 0


class Swapping:
    """One card until it loses power, another one after that."""

    def __init__(self, first: VirtualCard, second: VirtualCard) -> None:
        self._now, self._next = first, second

    def process(self, raw: bytes) -> bytes:
        """As the card that lies there."""
        return self._now.process(raw)

    def reset(self) -> None:
        """The other one comes."""
        self._now = self._next


def test_a_card_that_stays_verified_whatever_is_done_counts_as_unknown() -> None:
    judged, pump = submit(make_card(), CANARY, NONE, prepare=query_answers("9000"))
    assert judged.outcome is Outcome.REFUSED_UNKNOWN
    assert pump.verifies == []


@pytest.mark.parametrize("talk", ["verify", "question", "certificates"])
def test_another_card_in_the_reader_is_said_nothing_more(talk: str) -> None:
    known = probed(make_card())[0]
    other = make_card()
    pump = Pump(other)
    dialogues: dict[str, Callable[[], Any]] = {
        "verify": lambda: PIV.verify(known, known.pins["user"], secret(), ALL),
        "question": lambda: PIV.question(known),
        "certificates": lambda: PIV.certificates(known),
    }
    with pytest.raises(Failure) as error:
        pump.hold(dialogues[talk]())
    assert error.value.problem is Problem.CARD_REMOVED
    assert [apdu[1] for apdu in pump.apdus] == [0xA4, 0xCB]
    assert other.book.tally(Kind.VERIFY, PIN).total == 0


def test_a_card_that_lost_its_application_is_given_nothing() -> None:
    known = probed(make_card())[0]
    pump = Pump()
    pump.before = lambda _, __: b"\x6a\x82"
    with pytest.raises(Failure) as error:
        pump.hold(PIV.verify(known, known.pins["user"], secret(), ALL))
    assert error.value.problem is Problem.CARD_RESET


STRANGE = ["6C08", "6C00", "6108", "6100", "", "90", "6F00", "6D00", "6E00", "6982", "6700", "FFFF"]


@pytest.mark.parametrize("answer", STRANGE)
@pytest.mark.parametrize("text", [CANARY, WRONG], ids=["right", "wrong"])
def test_a_strange_answer_to_verify_never_brings_a_second_one(answer: str, text: str) -> None:
    """The card judged the passcode; what it answers is lost on the way."""
    card = make_card()

    def prepare(pump: Pump) -> None:
        pump.after = lambda _, apdu, __: (
            bytes.fromhex(answer) if is_verify_with_data(apdu) else None
        )

    judged, pump = submit(card, text, ALL, prepare=prepare)
    assert len(pump.verifies) == 1
    assert judged.outcome is Outcome.UNCERTAIN
    assert judged.sent
    # the count is read back, and nobody is left verified: a count of our own would be a guess
    assert judged.status == Known(card.pins.reference(PIN).left)
    assert not card.pins.satisfied


def test_an_uncertain_outcome_without_a_count_stays_in_flight() -> None:
    card = make_card()
    known = probed(card)[0]
    pump = Pump(card)
    sent = False

    def dumb(_: int, apdu: bytes) -> bytes | None:
        nonlocal sent
        sent = sent or is_verify_with_data(apdu)
        return b"" if sent else None

    pump.before = dumb
    with pytest.raises(Malformed):
        pump.hold(PIV.verify(known, known.pins["user"], secret(), NONE))
    assert len(pump.verifies) == 1
    assert pump.ledger.in_flight(known.identity)


def test_a_withdrawn_attempt_is_not_sent() -> None:
    card = make_card()
    known = probed(card)[0]
    dialogue = PIV.verify(known, known.pins["user"], secret(), NONE)
    pump = Pump(card)
    withdrawn = Failure(Problem.IN_USE_ELSEWHERE, "withdrawn")

    def answer(step: Step) -> Any:
        if isinstance(step, Attempt):
            raise withdrawn
        return pump._step(step, None)  # type: ignore[arg-type]

    from cardsession.core.dialogue import run  # noqa: PLC0415

    with pytest.raises(Failure) as error:
        run(dialogue, answer)
    assert error.value is withdrawn
    assert pump.verifies == []


def test_a_secret_is_wiped_by_the_submission_that_sent_it() -> None:
    card = make_card()
    known = probed(card)[0]
    for pulled in (False, True):
        buffer = bytearray(CANARY.encode())
        pump = Pump(card)
        if pulled:
            pump.before = lambda _, apdu: (
                (_ for _ in ()).throw(removed()) if is_verify_with_data(apdu) else None
            )
        try:
            pump.hold(PIV.verify(known, known.pins["user"], Secret(buffer), NONE))
        except Failure:
            assert pulled
        assert buffer == b""


@pytest.mark.parametrize("policy", [PinPolicy.APPLICATION, PinPolicy.GLOBAL_PRIMARY])
def test_a_release_ends_the_authority_and_counts(policy: PinPolicy) -> None:
    card = make_card(pin_policy=policy)
    known = probed(card)[0]
    submit(card, known=known)
    assert card.pins.satisfied
    assert Pump(card).hold(PIV.release(known)) == {"user": Known(3)}
    assert not card.pins.satisfied


def test_where_only_a_reset_ends_it_a_release_says_so() -> None:
    card = make_card(deauthentication=False)
    known = probed(card)[0]
    submit(card, known=known)
    assert Pump(card).hold(PIV.release(known)) is None


def test_a_question_leaves_nobody_verified_and_brings_the_count() -> None:
    card = make_card()
    known = probed(card)[0]
    rival_verified(card)
    card.pins.reference(PIN).left = 2
    assert Pump(card).hold(PIV.question(known)) == {"user": Known(2)}
    assert not card.pins.satisfied


# whatever the card, the caller and the wire do

ANSWERS = st.none() | st.sampled_from(
    [bytes.fromhex(each) for each in [*STRANGE, "9000", "63C1", "63C0"]]
)


@st.composite
def cards(draw: st.DrawFn) -> VirtualCard:
    """Some PIV card."""
    return make_card(
        tries=draw(st.integers(0, 3)),
        pin_policy=draw(st.sampled_from(PinPolicy)),
        chuid=draw(st.booleans()),
        discovery=draw(st.booleans()),
        deauthentication=draw(st.booleans()),
        pin_digits_only=draw(st.booleans()),
        format_costs_a_try=draw(st.booleans()),
        selected_by_default=draw(st.booleans()),
    )


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    cards(),
    st.sampled_from([CANARY, WRONG, "1", "abcdefgh"]),
    st.builds(Consent, st.booleans(), st.booleans()),
    st.dictionaries(st.integers(1, 12), ANSWERS, max_size=3),
    st.booleans(),
)
def test_at_most_one_verify_and_never_the_last_try_without_consent(
    card: VirtualCard, text: str, consent: Consent, lies: dict[int, bytes | None], rival: bool
) -> None:
    known = probed(card)[0]
    pin = known.pins["user"]
    reference = card.pins.reference(pin.reference)
    if rival and reference.left:
        reference.verified = True
    before, wrong = reference.left, card.book.wrong()
    pump = Pump(card)
    pump.after = lambda number, _, __: lies.get(number)
    try:
        judged = pump.hold(PIV.verify(known, pin, secret(text), consent))
    except (Failure, Malformed):
        judged = None
    assert len(pump.verifies) <= 1
    assert card.book.wrong() - wrong <= len(pump.verifies)
    if judged and not judged.sent:
        assert pump.verifies == []
    if judged and judged.outcome is Outcome.VERIFIED:
        assert len(pump.verifies) == 1
    names = kinds(pump.steps)
    if pump.verifies:
        at = next(
            index
            for index, step in enumerate(pump.steps)
            if isinstance(step, Command) and step.effect
        )
        assert names[at - 1] == "Attempt"
        told = bool(set(lies) & set(range(1, len(pump.apdus) + 1)))
        if before <= 1 and not told:
            assert consent.spend_last_try, "the last try went without consent"
    assert names.count("Attempt") == len(pump.verifies)
    assert names.count("Settle") <= names.count("Attempt")
    asked = [step for step in pump.steps if isinstance(step, LowestSeen | Settle | Attempt)]
    assert all(step.identity == known.identity for step in asked)


def test_unknown_status_is_published_as_such_not_as_a_number() -> None:
    pump = Pump(make_card())
    query_answers("6982")(pump)
    probe = pump.hold(PIV.probe())
    assert probe is not None
    assert isinstance(probe.tries["user"], Unknown)
    assert probe.profile == piv.NAME

"""What a probe of a PIV card costs and finds, over the virtual card."""

from __future__ import annotations

import contextlib
import gzip
import tracemalloc
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cardsession.cards import Families, recognise
from cardsession.cards.piv import inflate
from cardsession.core import tlv
from cardsession.core.apdu import Command
from cardsession.core.errors import Failure, Malformed, Problem
from cardsession.core.tries import (
    Blocked,
    Known,
    Outcome,
    Unknown,
)
from cardsession.virtual.book import Kind
from cardsession.virtual.objects import Tag
from cardsession.virtual.options import Algorithm, PinPolicy, Slot
from cardsession.virtual.pins import PIN
from fakes.cards import ATR, CANARY, make_card
from fakes.channel import Pump, removed
from fakes.piv import AUTHENTICATION, FRESH, PIV, probed, submit


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
    assert probe.tries == FRESH


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
    assert probe.tries == {**FRESH, "user": status}


def test_fifteen_is_as_far_as_the_nibble_goes() -> None:
    assert probed(make_card(tries_limit=15))[0].tries == {**FRESH, "user": Known(15)}


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
    assert list(probe.pins) == ["user", "puk"], "what discovery does not speak of is not there"


@pytest.mark.parametrize(
    ("policy", "labels"),
    [
        (PinPolicy.APPLICATION, {"user": 0x80, "puk": 0x81}),
        (PinPolicy.GLOBAL_TOO, {"user": 0x80, "global": 0x00, "puk": 0x81}),
        (PinPolicy.GLOBAL_PRIMARY, {"user": 0x00, "application": 0x80, "puk": 0x81}),
    ],
)
def test_the_pins_by_their_labels(policy: PinPolicy, labels: dict[str, int]) -> None:
    probe, _ = probed(make_card(pin_policy=policy))
    assert {label: pin.reference for label, pin in probe.pins.items()} == labels
    assert all(pin.label == label for label, pin in probe.pins.items())
    grants = {label for label, pin in probe.pins.items() if pin.grants}
    assert (
        grants
        == set(labels) - {"puk"}
        == {label for label, pin in probe.pins.items() if pin.verifiable and pin.asking_is_free}
    )
    assert all((pin.stored_length, pin.pad) == (8, 0xFF) for pin in probe.pins.values())
    assert probe.tries == dict.fromkeys(labels, Unknown()) | {"user": Known(3)}
    assert probe.others == ()


def test_without_a_chuid_the_certificate_tells_cards_apart() -> None:
    first, second = (probed(make_card(chuid=False))[0] for _ in range(2))
    assert first.serial == second.serial == ""
    assert first.identity != second.identity
    assert first.identity.startswith("sha256:")


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
    assert probed(card)[0].serial == identity.hex().upper()


def packed(content: bytes) -> bytes:
    """A certificate object that says it is compressed."""
    return tlv.encode(0x53, tlv.encode(0x70, content) + tlv.encode(0x71, b"\x01"))


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
        packed(b"no gzip"),
        packed(gzip.compress(bytes(900))[:-9]),
        packed(gzip.compress(bytes(10**7), 9)),
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
    assert probe.tries == FRESH


def test_a_certificate_that_is_not_shown_here_makes_no_blank_card() -> None:
    """SP 800-73-4 part 1 table 2: over the contactless interface only key 9E's is shown."""
    tag = Tag.AUTHENTICATION.to_bytes(3, "big")
    shown, hidden, absent = Pump(make_card()), Pump(make_card()), Pump(make_card(slots=()))
    hidden.before = lambda _, apdu: b"\x69\x82" if tag in apdu else None
    for pump, withheld in ((shown, False), (hidden, True), (absent, False)):
        assert pump.hold(PIV.probe(ATR)).withheld == withheld
        assert bool(pump.hold(PIV.probe(ATR)).certificates) == (pump is shown)


@pytest.mark.parametrize("sw", ["6F00", "6400", "6581"])
def test_a_failure_is_not_taken_for_a_card_without_a_discovery_object(sw: str) -> None:
    card = make_card(pin_policy=PinPolicy.GLOBAL_PRIMARY)
    for times, reference in ((1, 0x00), (2, 0x80)):
        pump = Pump(card)
        failing = iter([bytes.fromhex(sw)] * times)

        def before(_: int, apdu: bytes, failing: Iterator[bytes] = failing) -> bytes | None:
            return next(failing, None) if apdu[:1] + apdu[4:7] == b"\x00\x03\x5c\x01" else None

        pump.before = before
        assert pump.hold(PIV.probe(ATR)).pins["user"].reference == reference


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
    family, found = pump.hold(recognise(Families((PIV,), ()), ATR))
    assert (family, found.profile) == (None, "unknown")
    assert [apdu[1] for apdu in pump.apdus] == [0xA4], "nothing but SELECT was said to it"


@pytest.mark.parametrize("sw", ["6A86", "6A88"])
def test_a_card_without_the_reference_has_no_pin(sw: str) -> None:
    card = make_card()
    pump = Pump(card)
    pump.before = lambda _, apdu: bytes.fromhex(sw) if apdu[1] == 0x20 else None
    probe = pump.hold(PIV.probe(ATR))
    assert probe is not None
    assert (probe.pins, probe.tries) == ({}, {})


@settings(max_examples=150)
@given(st.lists(st.binary(max_size=64), max_size=12), st.binary(max_size=8))
def test_noise_is_recognised_as_something_or_malformed(answers: list[bytes], rest: bytes) -> None:
    pump = Pump()
    pump.before = lambda number, _: answers[number - 1] if number <= len(answers) else rest
    try:
        _, found = pump.hold(recognise(Families((PIV,), ()), ATR))
    except Malformed:
        return
    assert pump.verifies == []
    assert set(found.tries) <= {"user", "global", "application", "puk"}


def test_a_card_pulled_at_any_exchange_of_the_probe_says_so() -> None:
    card = make_card()
    total = len(probed(card)[1].apdus)
    for at in range(1, total + 1):
        pump = Pump(card)
        pump.before = pulling(at)
        with pytest.raises(Failure) as error:
            pump.hold(PIV.probe(ATR))
        assert error.value.problem is Problem.CARD_REMOVED


def pulling(at: int) -> Callable[[int, bytes], None]:
    """The card goes at this exchange."""

    def hook(number: int, _: bytes) -> None:
        if number >= at:
            raise removed()

    return hook


def test_a_chuid_with_its_signature_is_read_by_its_head() -> None:
    """An issuer's signature fills kilobytes; the identifier stands before it."""
    guid = bytes(range(16))
    signed = tlv.encode(0x34, guid) + tlv.encode(0x3E, bytes(2000))
    card = make_card(objects={Tag.CHUID: tlv.encode(0x53, signed)})
    probe, pump = probed(card)
    assert probe.serial == guid.hex().upper()
    size = len(card.applet.objects[AUTHENTICATION])
    assert len(pump.apdus) <= 4 + -(-size // 256)


def test_the_other_pin_left_verified_by_a_rival_is_ended_too() -> None:
    card = make_card(pin_policy=PinPolicy.GLOBAL_TOO)
    probe, _ = probed(card)
    assert list(probe.pins) == ["user", "global", "puk"]
    secret = CANARY.encode()
    assert card.process(b"\x00\x20\x00\x00\x08" + secret) == b"\x90\x00"
    assert card.process(bytes.fromhex("00200000")) == b"\x90\x00"
    Pump(card).hold(PIV.question(probe))
    assert card.process(bytes.fromhex("00200000")) == bytes.fromhex("63C3")
    assert card.process(b"\x00\x20\x00\x00\x08" + secret) == b"\x90\x00"
    Pump(card).hold(PIV.release(probe))
    assert card.process(bytes.fromhex("00200000")) == bytes.fromhex("63C3")


def test_two_cards_without_a_chuid_are_not_taken_for_each_other() -> None:
    known, _ = probed(make_card(chuid=False))
    other = make_card(chuid=False)
    with pytest.raises(Failure) as error:
        submit(other, known=known)
    assert error.value.problem is Problem.CARD_REMOVED
    assert other.book.wrong() == 0

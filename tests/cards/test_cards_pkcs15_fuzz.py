"""PKCS#15 dialogues, whatever the card's files say and whatever it answers."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cardsession.cards.declaration import Declaration
from cardsession.cards.pkcs15 import NAME, Pkcs15, asn1, schema
from cardsession.cards.pkcs15.files import EXCHANGES_LIMIT
from cardsession.cards.pkcs15.objects import ENTRIES_LIMIT
from cardsession.cards.profile import Probe, Request
from cardsession.core.dialogue import Attempt
from cardsession.core.errors import Failure, Malformed
from cardsession.core.signing import Algorithm
from cardsession.core.tries import Consent, Known
from fakes.cards import CANARY, secret
from fakes.channel import Pump
from fakes.pkcs15 import CardPin, FakeCard, standard_card
from fakes.pkcs15_files import (
    APP,
    ATR,
    certificate_entry,
    key_entry,
    octets,
    odf,
    path,
    pin_entry,
    seq,
    standard_files,
    text,
    tlv,
    token_entry,
)

FREE = Declaration(profile=NAME, asking_is_free=True, source="the tests' own card")
SETTINGS = settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
FILES = sorted(standard_files("p256"))
PARSERS: list[Callable[[bytes], Any]] = [
    asn1.directories, asn1.references, asn1.token_info, asn1.authentication_objects,
    asn1.private_keys, asn1.certificates, asn1.is_ecdsa_signature,
]  # fmt: skip
SECRETS = {0x20, 0x24, 0x2C}


def everything(family: Pkcs15, probe: Probe, consent: Consent) -> list[Any]:
    """Every dialogue of a probe, to be held one after the other."""
    wanted = Request("authentication", Algorithm.ECDSA_SHA256, bytes(32), 256)
    dialogues: list[Any] = [family.certificates(probe), family.question(probe)]
    for pin in probe.pins.values():
        dialogues += [
            family.verify(probe, pin, secret(), consent),
            family.change(probe, pin, secret(), secret(), consent),
            family.unblock(probe, pin, secret(), secret(), consent),
        ]
    dialogues += [
        family.sign(probe, wanted, fresh=True),
        family.sign(probe, wanted, fresh=False),
        family.sign_with_pin(probe, wanted, secret(), consent),
        family.release(probe),
    ]
    return dialogues


def survived(card: Any, *, free: bool = True, consent: Consent = Consent()) -> None:  # noqa: B008
    """Nothing but our own errors, few commands, one secret a submission, none without leave."""
    family = Pkcs15((FREE,) if free else ())
    pump = Pump(card)
    try:
        probe = pump.hold(family.probe(ATR))
    except Malformed:
        return
    finally:
        assert not [apdu for apdu in pump.apdus if apdu[1] in SECRETS and len(apdu) > 5]
        assert len(pump.apdus) < 2 * EXCHANGES_LIMIT
    if probe is None:
        return
    for dialogue in everything(family, probe, consent):
        pump = Pump(card)
        with contextlib.suppress(Failure, Malformed):
            pump.hold(dialogue)
        sent = [apdu for apdu in pump.apdus if apdu[1] in SECRETS and len(apdu) > 5]
        assert len(sent) <= 1
        assert sum(isinstance(step, Attempt) for step in pump.steps) == len(sent)
        if not free:
            assert not [apdu for apdu in pump.apdus if apdu[1] == 0x20 and len(apdu) == 4]
            assert consent.accept_unknown or not sent


@SETTINGS
@given(st.dictionaries(st.sampled_from(FILES), st.binary(max_size=200)), st.booleans())
def test_noise_in_any_file(files: dict[str, bytes], free: bool) -> None:
    survived(standard_card("p256", files=files), free=free)


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, bytes]:
    """Valid files with a few bytes changed, removed, or put in."""
    files = dict(standard_files("p256"))
    for name in draw(st.lists(st.sampled_from(FILES), min_size=1, max_size=4)):
        content = bytearray(files[name])
        for _ in range(draw(st.integers(1, 3))):
            at = draw(st.integers(0, max(len(content) - 1, 0)))
            match draw(st.integers(0, 3)):
                case 0:
                    content[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
                case 1:
                    del content[at : at + draw(st.integers(1, 8))]
                case 2:
                    content[at:at] = draw(st.binary(max_size=8))
                case _:
                    content[at : at + 1] = bytes([content[at] ^ 0x80 if content else 0])
        files[name] = bytes(content)
    return files


@SETTINGS
@given(mutated(), st.booleans(), st.builds(Consent, st.booleans(), st.booleans()))
def test_valid_files_with_a_few_bytes_changed(
    files: dict[str, bytes],
    free: bool,
    consent: Consent,
) -> None:
    survived(standard_card("p256", files=files), free=free, consent=consent)


@SETTINGS
@given(
    st.dictionaries(
        st.integers(1, 60),
        st.sampled_from(
            ["9000", "6100", "6101", "6C00", "6C10", "6282", "6283", "6300", "63C0", "63C1", "6700",
             "6982", "6983", "6985", "6A80", "6A82", "6A86", "6A88", "6B00", "6D00", "6E00", "6F00",
             "0000", "00", "FFFF", "309000", "30809000", "6F009000", "6281", "6981"]
        ),
        min_size=1,
        max_size=8,
    ),
    st.booleans(),
    st.builds(Consent, st.booleans(), st.booleans()),
)  # fmt: skip
def test_hostile_answers_among_honest_ones(
    lies: dict[int, str],
    free: bool,
    consent: Consent,
) -> None:
    class Liar:
        def __init__(self, honest: FakeCard) -> None:
            self.honest, self.said = honest, 0

        def process(self, raw: bytes) -> bytes:
            self.said += 1
            lie = lies.get(self.said % 61)
            return bytes.fromhex(lie) if lie else self.honest.process(raw)

        def reset(self) -> None:
            self.honest.reset()

    survived(Liar(standard_card("p256")), free=free, consent=consent)


@SETTINGS
@given(st.lists(st.binary(max_size=40), max_size=30), st.binary(min_size=2, max_size=3))
def test_noise_as_answers(answers: list[bytes], rest: bytes) -> None:
    class Noise:
        def __init__(self) -> None:
            self.left = list(answers)

        def process(self, raw: bytes) -> bytes:
            del raw
            return self.left.pop(0) if self.left else rest

        def reset(self) -> None:
            pass

    survived(Noise())


@pytest.mark.parametrize("content", [b"", b"\x00", b"\x30", b"\xff", b"\x30\x80" * 9, b"a" * 256])
def test_a_card_that_says_yes_to_everything_comes_to_an_end(content: bytes) -> None:
    class Yes:
        def process(self, raw: bytes) -> bytes:
            del raw
            return content + b"\x90\x00"

        def reset(self) -> None:
            pass

    survived(Yes())


@pytest.mark.parametrize("parse", PARSERS)
@SETTINGS
@given(data=st.binary(max_size=300))
def test_parsers_over_noise(parse: Callable[[bytes], Any], data: bytes) -> None:
    with contextlib.suppress(Malformed):
        parse(data)


BOMBS = {
    "indefinite lengths, nested": b"\x30\x80" * 16000,
    "sequences, nested": b"\x30\x82\x7f\xff" * 8000,
    "explicit tags, nested": b"\xa1\x80" * 16000,
    "an entry that is too long": seq(octets(bytes(32000))),
    "a label of 32 KiB": seq(seq(text("x" * 32000)), seq(octets(b"1")), tlv(0xA1, seq())),
    "a number of 32 KiB": seq(seq(), seq(octets(b"1"), tlv(0x02, b"\x7f" * 32000))),
    "many entries": pin_entry() * 400,
    "many keys": key_entry() * 400,
    "many certificates": certificate_entry() * 400,
    "many files": odf(pins="4401") * 2000,
    "a long path": tlv(0xA8, path("3F00" * 40)),
    "many algorithms": token_entry(algorithms=tuple((n, 1, 1) for n in range(999))),
    "nothing but tags": b"\x1f\xff\xff\xff" * 8000,
    "an object identifier without end": seq(tlv(0x06, b"\xff" * 30000)),
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("parse", PARSERS)
def test_files_made_to_harm(parse: Callable[[bytes], Any], name: str) -> None:
    tracemalloc.start()
    try:
        with contextlib.suppress(Malformed):
            found = parse(BOMBS[name])
            assert not isinstance(found, list) or len(found) <= ENTRIES_LIMIT
        assert tracemalloc.get_traced_memory()[1] < 5 * 10**6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("file", FILES)
def test_a_card_with_such_a_file(file: str, name: str) -> None:
    card = standard_card("p256", files={file: BOMBS[name]})
    survived(card)


def test_a_hundred_files_are_not_all_read() -> None:
    entries = b"".join(certificate_entry(n, APP + f"{n:04X}", label=f"c{n}") for n in range(60))
    files = {APP + f"{n:04X}": b"\x30\x03\x02\x01\x01" for n in range(60)}
    card = standard_card("p256", files={APP + "4403": entries, **files})
    family = Pkcs15()
    probe = Pump(card).hold(family.probe(ATR))
    pump = Pump(card)
    found = pump.hold(family.certificates(probe))
    assert len(found) <= 32
    assert len(pump.apdus) <= EXCHANGES_LIMIT


@SETTINGS
@given(
    st.integers(0, 3),
    st.sampled_from([CANARY, "11112222", "1", "abcdefgh"]),
    st.builds(Consent, st.booleans(), st.booleans()),
    st.booleans(),
)
def test_the_last_try_is_never_spent_unasked(
    left: int,
    typed: str,
    consent: Consent,
    rival: bool,
) -> None:
    card = standard_card("p256", pins={1: CardPin(CANARY.encode(), left, verified=rival)})
    family = Pkcs15((FREE,))
    probe = Pump(card).hold(family.probe(ATR))
    pump = Pump(card)
    with contextlib.suppress(Failure):
        judged = pump.hold(family.verify(probe, probe.pins["user"], secret(typed), consent))
        assert judged.sent == bool(pump.verifies)
    assert len(pump.verifies) <= 1
    if left <= 1 and pump.verifies:
        assert consent.spend_last_try and left
    assert card.spent <= len(pump.verifies)


def test_every_status_word_as_the_answer_to_a_passcode_and_to_the_question() -> None:
    card = standard_card("p256")
    family = Pkcs15((FREE,))
    probe = Pump(card).hold(family.probe(ATR))
    for sw in range(0x6000, 0xA000, 7):
        for asked in (True, False):
            card.pins[1].left = 3
            pump = Pump(card)
            pump.before = lambda _, apdu, sw=sw, asked=asked: (  # type: ignore[misc]
                sw.to_bytes(2, "big") if apdu[1] == 0x20 and (len(apdu) == 4) == asked else None
            )
            with contextlib.suppress(Failure, Malformed):
                pump.hold(family.verify(probe, probe.pins["user"], secret(), Consent()))
            assert len(pump.verifies) <= 1
            if asked and sw & 0xFFF0 != 0x63C0:
                assert pump.verifies == [], f"{sw:04X} is no count"
    assert Known(3) == probe.tries["user"]


@pytest.mark.parametrize("error", [KeyError, RecursionError, AttributeError, MemoryError])
def test_whatever_the_parser_raises_is_the_card_s_fault(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def load(self, der: bytes, *, strict: bool) -> None:
            del der, strict
            raise error("a fault of the parser")

    for name in ("TOKEN_INFO", "PIN", "KEY", "CERTIFICATE"):
        monkeypatch.setattr(asn1, name, Broken())
    with pytest.raises(Malformed):
        schema.parsed(Broken(), b"")
    probe = Pump(standard_card("p256")).hold(Pkcs15().probe(ATR))
    assert (probe.serial, probe.pins, probe.certificates) == ("", {}, {})


def test_the_parser_is_not_there_until_such_a_card_is() -> None:
    code = (
        "import sys; from cardsession.cards import families, recognise; from cardsession.core.apdu"
        " import Response, SW; d = recognise(families(), b''); next(d)\n"
        "try:\n while True: d.send(Response(b'', SW(0x6A82)))\n"
        "except StopIteration: pass\n"
        "assert not {'asn1crypto', 'cryptography'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True, timeout=60)

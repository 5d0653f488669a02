"""Every dialogue of both families, from the probe to the end, with a card that lies."""

from __future__ import annotations

from typing import Any

from hypothesis import event
from hypothesis import strategies as st

from cardsession.adapters.ledger import MemoryLedger
from cardsession.cards import families, recognise
from cardsession.cards.profile import Probe, Profile, Request
from cardsession.core import trust
from cardsession.core.apdu import RESPONSE_PARTS, Command
from cardsession.core.dialogue import Attempt, Settle
from cardsession.core.errors import Failure, Malformed
from cardsession.core.signing import Algorithm
from cardsession.core.tries import Consent, Judged
from fakes.cards import CANARY, WRONG, secret
from fakes.channel import Pump
from fakes.piv import NEW, PUK, sent
from fuzz.cases import fuzz, quiet, silent
from fuzz.hostile import COUNTS_QUESTIONS, FREE, KINDS, PLANS, Hostile, Plan, make
from fuzz.mutations import SOME, TREES, Edit, changed, noise

MOST_COMMANDS = 900
"""Of one dialogue: reading a PKCS#15 card stops after 400 (`files.EXCHANGES_LIMIT`) of each kind of
reading; the answers to GET RESPONSE are counted apart."""
MOST_APDUS = MOST_COMMANDS + 8 * RESPONSE_PARTS
CONSENTS = st.builds(Consent, st.booleans(), st.booleans())
TEXTS = st.sampled_from([CANARY, CANARY, WRONG, PUK, "1", "abcdefgh"])
ACTS = ("certificates", "question", "verify", "change", "unblock", "sign", "sign_with_pin",
        "release")  # fmt: skip
SLOTS = ("authentication", "signature", "encryption", "card-authentication", "none")


def dialogue(  # noqa: PLR0913, PLR0917 - what all of them need together
    family: Profile, act: str, probe: Probe, text: str, consent: Consent, number: int
) -> Any:
    """One of a family's, if the card has what it needs."""
    pins = list(probe.pins.values())
    algorithm = list(Algorithm)[number % len(Algorithm)]
    request = Request(SLOTS[number % len(SLOTS)], algorithm, bytes(algorithm.digest_size), 2048)
    if act in {"verify", "change", "unblock"} and not pins:
        return None
    pin = pins[number % len(pins)] if pins else None
    match act:
        case "verify":
            return family.verify(probe, pin, secret(text), consent)  # type: ignore[arg-type]
        case "change" | "unblock":
            say = getattr(family, act)
            return say(probe, pin, secret(text), secret(NEW), consent)
        case "sign":
            return family.sign(probe, request, fresh=bool(number & 1))
        case "sign_with_pin":
            return family.sign_with_pin(probe, request, secret(text), consent)
        case _:
            return getattr(family, act)(probe)


def held(pump: Pump, talk: Any) -> Any:
    """A dialogue, and what holds for each."""
    said: Any = None
    try:
        said = pump.hold(talk)
    except (Failure, Malformed) as error:
        quiet(error)
        event(type(error).__name__)
    spent = sent(pump)
    attempts = sum(isinstance(step, Attempt) for step in pump.steps)
    assert len(spent) == attempts <= 1, "a second secret"
    assert sum(isinstance(step, Settle) for step in pump.steps) <= attempts
    assert len(pump.apdus) <= MOST_APDUS
    assert sum(each[1] != 0xC0 for each in pump.apdus) <= MOST_COMMANDS
    for step in pump.steps:
        assert not (isinstance(step, Command) and step.effect and step.data), "wiped"
    judged = said[0] if isinstance(said, tuple) else said
    if isinstance(judged, Judged):
        assert judged.sent == bool(spent)
    silent(repr(said))
    return said


@fuzz(
    700, KINDS, PLANS, st.booleans(),
    st.lists(st.tuples(st.sampled_from(ACTS), TEXTS, CONSENTS, st.integers(0, 9)), max_size=4),
)  # fmt: skip
def test_a_card_that_lies(
    kind: tuple[str, int], plan: Plan, free: bool, acts: list[tuple[str, str, Consent, int]]
) -> None:
    """A wrong passcode costs one try at most, whatever the card says of it."""
    honest = make(kind)
    free = free and kind != COUNTS_QUESTIONS
    card, ledger = Hostile(honest, plan), MemoryLedger()
    found = held(Pump(card, ledger), recognise(families((FREE,) if free else ()), honest.atr))
    assert honest.book.wrong() == 0, "a question cost a try"
    if found is None or found[0] is None:
        return
    family, probe = found
    trust.read_all(probe.certificates)
    for act, text, consent, number in acts:
        before = honest.book.wrong()
        talk = dialogue(family, act, probe, text, consent, number)
        pump = Pump(card, ledger)
        if talk is not None:
            held(pump, talk)
            assert honest.book.wrong() - before <= len(sent(pump))


@fuzz(
    300,
    KINDS,
    st.lists(TREES, max_size=8),
    st.lists(noise(40), max_size=3),
    st.booleans(),
    st.lists(st.tuples(st.sampled_from(ACTS), TEXTS, CONSENTS, st.integers(0, 9)), max_size=2),
)
def test_a_card_of_well_formed_nonsense(
    kind: tuple[str, int], trees: list[bytes], rest: list[bytes], selects: bool, acts: list[Any]
) -> None:  # fmt: skip
    """Its answers are objects within objects, and say nothing that belongs there."""
    honest = make(kind)

    class Speaker:
        """Says its trees one after the other, then what is left, for ever."""

        said = 0

        def process(self, raw: bytes) -> bytes:
            self.said += 1
            if selects and raw[1] == 0xA4:
                return honest.process(raw)
            if self.said <= len(trees):
                return trees[self.said - 1] + b"\x90\x00"
            return rest[self.said % len(rest)] if rest else b"\x6a\x82"

        def reset(self) -> None:
            honest.reset()

    card, ledger = Speaker(), MemoryLedger()
    found = held(Pump(card, ledger), recognise(families((FREE,)), honest.atr))
    if found is None or found[0] is None:
        return
    for act, text, consent, number in acts:
        talk = dialogue(found[0], act, found[1], text, consent, number)
        if talk is not None:
            held(Pump(card, ledger), talk)


@fuzz(400, KINDS, st.dictionaries(st.integers(0, 30), SOME, min_size=1, max_size=3))
def test_an_object_on_the_card_is_changed(
    kind: tuple[str, int], edits: dict[int, list[Edit]]
) -> None:
    """What the card has, not what it says: the lengths and status words of its answers are true."""
    honest = make(kind)
    contents: dict[bytes, bytes] = {}

    class Altered:
        """Each different question is answered with the same change each time."""

        def process(self, raw: bytes) -> bytes:
            answer = honest.process(raw)
            if raw[1] not in {0xB0, 0xB2, 0xCB}:
                return answer
            if raw not in contents:
                change = edits.get(len(contents), [])
                data = changed(answer[:-2], change)
                contents[raw] = data[:256] + answer[-2:]
            return contents[raw]

        def reset(self) -> None:
            honest.reset()

    card = Altered()
    found = held(Pump(card), recognise(families((FREE,)), honest.atr))
    if found is None or found[0] is None:
        return
    trust.read_all(found[1].certificates)
    for act in ("certificates", "question", "verify", "release"):
        talk = dialogue(found[0], act, found[1], CANARY, Consent(), 0)
        if talk is not None:
            held(Pump(card), talk)

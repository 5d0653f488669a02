"""PIV dialogues, whatever the card, the caller and the wire do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from cardsession.cards import piv
from cardsession.cards.profile import Probe, Request
from cardsession.core.apdu import Command
from cardsession.core.dialogue import Attempt, LowestSeen, Settle
from cardsession.core.errors import Failure, Malformed
from cardsession.core.signing import Algorithm
from cardsession.core.tries import (
    Consent,
    Judged,
    Outcome,
    Unknown,
)
from cardsession.virtual.card import VirtualCard
from cardsession.virtual.options import PinPolicy, Slot
from fakes.cards import ATR, CANARY, WRONG, make_card, secret
from fakes.channel import Pump
from fakes.piv import NEW, PIV, PUK, STRANGE, all_of, kinds, probed, query_answers, sent

WORDS = [bytes.fromhex(each) for each in [*STRANGE, "9000", "63C1", "63C0", "6A80", "6A88"]]
ANSWERS = st.none() | st.sampled_from(WORDS) | st.binary(max_size=40)
CONSENTS = st.builds(Consent, st.booleans(), st.booleans())
SLOTS = ["authentication", "signature", "card-authentication", "encryption", "nonsense"]
SLOW = [HealthCheck.too_slow]


@st.composite
def cards(draw: st.DrawFn) -> VirtualCard:
    """Some PIV card."""
    return make_card(
        tries=draw(st.integers(0, 3)),
        puk_limit=draw(st.integers(1, 3)),
        pin_policy=draw(st.sampled_from(PinPolicy)),
        chuid=draw(st.booleans()),
        discovery=draw(st.booleans()),
        deauthentication=draw(st.booleans()),
        pin_digits_only=draw(st.booleans()),
        format_costs_a_try=draw(st.booleans()),
        selected_by_default=draw(st.booleans()),
        slots=draw(st.sampled_from([(Slot.AUTHENTICATION,), tuple(Slot)])),
    )


@st.composite
def talks(draw: st.DrawFn) -> tuple[str, Callable[[Probe], Any]]:
    """Some dialogue of a card that was probed, by its name."""
    text = draw(st.sampled_from([CANARY, PUK, WRONG, "abcdefgh", "1"]))
    new = draw(st.sampled_from([NEW, CANARY, "abcdefgh", NEW, "1" * 9]))
    consent = draw(CONSENTS)
    at = draw(st.integers(0, 2))
    request = Request(
        draw(st.sampled_from(SLOTS)), Algorithm.ECDSA_SHA256, bytes(32), draw(st.just(256))
    )
    fresh = draw(st.booleans())

    def pin(known: Probe) -> Any:
        return [*known.pins.values()][at % len(known.pins)]

    offered: dict[str, Callable[[Probe], Any]] = {
        "verify": lambda known: PIV.verify(known, pin(known), secret(text), consent),
        "change": lambda known: PIV.change(known, pin(known), secret(text), secret(new), consent),
        "unblock": lambda known: PIV.unblock(known, pin(known), secret(text), secret(new), consent),
        "sign": lambda known: PIV.sign(known, request, fresh=fresh),
        "sign_with_pin": lambda known: PIV.sign_with_pin(known, request, secret(text), consent),
        "question": PIV.question,
        "release": PIV.release,
        "certificates": PIV.certificates,
    }
    name = draw(st.sampled_from(sorted(offered)))
    return name, offered[name]


def judgement(said: Any) -> Judged | None:
    """The judgement in what a dialogue brought home, if it is one of a submission."""
    if isinstance(said, tuple):
        said = said[0]
    return said if isinstance(said, Judged) else None


def check(pump: Pump, name: str, said: Any) -> None:
    """What holds for every dialogue, whatever happened."""
    spent = sent(pump)
    assert len(spent) <= 1, "a second secret"
    assert spent == [] or name in {"verify", "change", "unblock", "sign_with_pin"}
    names = kinds(pump.steps)
    assert names.count("Attempt") == len(spent)
    assert names.count("Settle") <= names.count("Attempt")
    for index, step in enumerate(pump.steps):
        if isinstance(step, Command) and step.effect:
            assert names[index - 1] == "Attempt"
            assert step.data == b"", "wiped"
    judged = judgement(said)
    if judged:
        assert judged.sent == bool(spent)
        assert judged.sent or judged.outcome not in {
            Outcome.VERIFIED, Outcome.CHANGED, Outcome.UNBLOCKED, Outcome.INCORRECT,
            Outcome.NOW_BLOCKED, Outcome.UNCERTAIN,
        }  # fmt: skip
    event(f"{name}: {judged.outcome if judged else type(said).__name__}")


def keeps_quiet(error: BaseException) -> None:
    """No exception shows a secret, in any spelling."""
    shown = all_of(error)
    for each in (CANARY, WRONG, PUK, NEW):
        assert each not in shown
        assert each.encode().hex() not in shown.lower()


@settings(max_examples=300, suppress_health_check=SLOW, deadline=None)
@given(
    cards(),
    st.sampled_from([CANARY, WRONG, "1", "abcdefgh"]),
    CONSENTS,
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
    said: Any = None
    try:
        said = pump.hold(PIV.verify(known, pin, secret(text), consent))
    except (Failure, Malformed) as error:
        keeps_quiet(error)
    check(pump, "verify", said)
    assert len(pump.verifies) == len(sent(pump))
    assert card.book.wrong() - wrong <= len(pump.verifies)
    told = bool(set(lies) & set(range(1, len(pump.apdus) + 1)))
    if pump.verifies and before <= 1 and not told:
        assert consent.spend_last_try, "the last try went without consent"
    asked = [step for step in pump.steps if isinstance(step, LowestSeen | Settle | Attempt)]
    assert all(step.identity == known.identity for step in asked)


@settings(max_examples=400, suppress_health_check=SLOW, deadline=None)
@given(
    cards(),
    talks(),
    st.dictionaries(st.integers(1, 14), ANSWERS, max_size=3),
    st.sets(st.sampled_from([0x00, 0x80])),
)
def test_every_dialogue_over_a_card_whose_answers_are_lies(
    card: VirtualCard,
    talk: tuple[str, Callable[[Probe], Any]],
    lies: dict[int, bytes | None],
    rival: set[int],
) -> None:
    known = probed(card)[0]
    for pin in known.pins.values():
        if pin.reference in rival and card.pins.reference(pin.reference).left:
            card.pins.reference(pin.reference).verified = True
    left = {pin.reference: card.pins.reference(pin.reference).left for pin in known.pins.values()}
    pump = Pump(card)
    pump.after = lambda number, _, __: lies.get(number)
    name, dialogue = talk
    said: Any = None
    try:
        said = pump.hold(dialogue(known))
    except (Failure, Malformed) as error:
        keeps_quiet(error)
    check(pump, name, said)
    gone = sum(max(0, was - card.pins.reference(at).left) for at, was in left.items())
    assert gone <= len(sent(pump))


@settings(max_examples=400, suppress_health_check=SLOW, deadline=None)
@given(talks(), st.lists(ANSWERS, max_size=8), ANSWERS, st.booleans())
def test_every_dialogue_over_a_card_that_is_noise(
    talk: tuple[str, Callable[[Probe], Any]],
    answers: list[bytes | None],
    rest: bytes | None,
    known_by_name: bool,
) -> None:
    """`known_by_name`: the card is the one that was meant, and only its PINs and keys are noise."""
    card = make_card(pin_policy=PinPolicy.GLOBAL_TOO)
    known = probed(card)[0]
    pump = Pump(card)
    left = iter(answers)

    def noise(_: int, apdu: bytes) -> bytes | None:
        if known_by_name and apdu[1] in {0xA4, 0xCB}:
            return None
        return next(left, rest)

    pump.before = noise
    name, dialogue = talk
    said: Any = None
    try:
        said = pump.hold(dialogue(known))
    except (Failure, Malformed) as error:
        keeps_quiet(error)
    check(pump, name, said)


def test_unknown_status_is_published_as_such_not_as_a_number() -> None:
    pump = Pump(make_card())
    query_answers("6982")(pump)
    probe = pump.hold(PIV.probe(ATR))
    assert probe is not None
    assert isinstance(probe.tries["user"], Unknown)
    assert probe.profile == piv.NAME

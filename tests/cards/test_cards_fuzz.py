"""PIV dialogues, whatever the card, the caller and the wire do."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cardsession.cards import piv
from cardsession.core.apdu import Command
from cardsession.core.dialogue import Attempt, LowestSeen, Settle
from cardsession.core.errors import Failure, Malformed
from cardsession.core.tries import (
    Consent,
    Outcome,
    Unknown,
)
from cardsession.virtual.card import VirtualCard
from cardsession.virtual.options import PinPolicy
from fakes.channel import Pump
from fakes.counter import CANARY, WRONG, make_card, secret
from fakes.piv import PIV, STRANGE, kinds, probed, query_answers

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

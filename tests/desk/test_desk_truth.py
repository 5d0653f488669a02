"""What the property test found, each as the shortest story that shows it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from cardsession.config import Config, PinConfig
from cardsession.core.facts import SessionState
from cardsession.core.tries import Act, Consent, Known, Outcome, Source, Unknown
from cardsession.ports import Caller, OpenRequest, PinRequest
from fakes.process import reading
from fakes.specimens import PASSCODES, Specimen
from fakes.world import READERS, World

CONFIG = Config(pin=PinConfig(unblock=frozenset({"piv"})))
WRONG = "73190001"
LIE = {"user": Known(2)}
BOTH = Consent(spend_last_try=True, accept_unknown=True)


def card_in(world: World) -> Specimen:
    """The only card is put in, and read."""
    world.pcscd.insert(world.pcscd.slots[READERS[0]], world.cards[0])
    world.do(world.notice)
    return world.cards[0]


def session(world: World) -> tuple[int, Caller]:
    """A session with it."""
    owner = world.callers[0]
    asked = world.desks.open_session(world.publisher.card.number, owner, OpenRequest())
    return world.ask(asked).result(), owner


def submit(world: World, act: Act, label: str, *texts: str, consent: Consent = BOTH) -> Outcome:
    """One submission of the only session's owner."""
    facts = world.publisher.session
    request = PinRequest(act, label, tuple(reading(text) for text in texts), consent)
    owner = Caller(facts.owner, facts.owner_uid)
    outcome: Outcome = world.ask(world.desks.submit(facts.number, owner, request)).result().outcome
    return outcome


@pytest.fixture
def piv() -> Iterator[World]:
    with World(("piv",), CONFIG) as world:
        card_in(world)
        yield world


@pytest.fixture
def two_pins() -> Iterator[World]:
    with World(("piv with global PIN",), CONFIG) as world:
        card_in(world)
        yield world


# the time of a count


@pytest.mark.parametrize("gaps", range(6))
def test_a_probes_count_has_the_time_when_the_card_told_it(gaps: int) -> None:
    with World(("piv",)) as world:
        world.rival.wait("tries", gaps, reset=False)
        card = card_in(world)
        assert_true(world, card)


@pytest.mark.parametrize("gaps", range(5))
def test_a_questions_count_has_the_time_when_the_card_told_it(piv: World, gaps: int) -> None:
    piv.rival.wait("tries", gaps, reset=False)
    session(piv)
    assert_true(piv, piv.cards[0])


@pytest.mark.parametrize("gaps", range(5))
def test_a_judgements_count_has_the_time_when_the_card_told_it(piv: World, gaps: int) -> None:
    session(piv)
    piv.rival.wait("tries", gaps, reset=False)
    submit(piv, Act.VERIFY, "user", WRONG)
    assert_true(piv, piv.cards[0])


def assert_true(world: World, card: Specimen) -> None:
    """What is shown is what the card had then; the rival may have come since."""
    pins = world.publisher.card.pins
    status = pins.status["user"]
    assert isinstance(status, Known)
    assert status.left in card.had(0x80, pins.read_usec)


# all numbers are of one time


def test_another_pins_number_does_not_get_this_submissions_time(two_pins: World) -> None:
    session(two_pins)
    assert two_pins.publisher.card.pins.status["global"] == Known(3)
    slot = two_pins.pcscd.slots[READERS[0]]
    two_pins.do(lambda: two_pins.rival.act(slot, "tries another", reset=False))
    assert submit(two_pins, Act.VERIFY, "user", WRONG) is Outcome.INCORRECT
    pins = two_pins.publisher.card.pins
    assert (pins.status["user"], pins.source) == (Known(2), Source.LAST_VERIFY)
    assert pins.status["global"] in (Unknown(), Known(2)), "three was true, and is not any more"


def test_a_puk_that_nobody_can_ask_about_takes_no_number_its_source(piv: World) -> None:
    session(piv)
    before = piv.publisher.card.pins
    refused = submit(piv, Act.UNBLOCK, "user", WRONG, PASSCODES[1], consent=Consent())
    assert refused is Outcome.REFUSED_UNKNOWN
    after = piv.publisher.card.pins
    assert (after.status["user"], after.status["puk"]) == (Known(3), Unknown())
    assert (after.source, after.read_usec) == (Source.CARD, before.read_usec)


# what a session vouches for


def test_a_session_is_locked_and_vouched_for_never_at_once(piv: World) -> None:
    number, owner = session(piv)
    submit(piv, Act.VERIFY, "user", PASSCODES[0])
    assert piv.publisher.session.possession_proved
    piv.workers[0].hung = True  # the card's authority is being dropped, and that takes a while
    piv.ask(piv.desks.lock(number, owner))
    shown = piv.publisher.session
    assert shown.state is SessionState.LOCKED
    assert (shown.holder_id, shown.possession_proved, shown.holder_verified) == ("", False, False)


def test_the_witness_sees_a_wrong_number_and_a_holder_without_proof(piv: World) -> None:
    session(piv)
    card, facts = piv.publisher.card, piv.publisher.session
    assert piv.witness.violations == []
    piv.do(lambda: piv.publisher.show(replace(card, pins=replace(card.pins, status=LIE))))
    assert len(piv.witness.violations) == 1
    piv.do(lambda: piv.publisher.show(replace(facts, possession_proved=True)))
    assert len(piv.witness.violations) > 1


# whose secret it is


@pytest.mark.parametrize("other", ["piv", "piv without CHUID"])
def test_a_card_that_nothing_tells_apart_gives_no_other_card_its_secret(other: str) -> None:
    with World(("piv without anything", other)) as world:
        card_in(world)
        session(world)
        slot = world.pcscd.slots[READERS[0]]
        world.pcscd.pull(slot)
        world.pcscd.insert(slot, world.cards[1])  # and nobody has noticed
        asked = world.desks.submit(
            world.publisher.session.number,
            world.callers[0],
            PinRequest(Act.VERIFY, "user", (reading(WRONG),), BOTH),
        )
        assert world.ask(asked).result() == "CardRemoved"
        assert world.cards[1].left(0x80) == 3

"""PKCS#15 cards at the counter: the same rules, whether or not the card may be asked."""

from __future__ import annotations

import hashlib

import pytest

from cardsession.cards import families
from cardsession.cards.declaration import Declaration
from cardsession.core import trust
from cardsession.core.facts import CardState
from cardsession.core.signing import Algorithm
from cardsession.core.states import State
from cardsession.core.tries import Known, Outcome, Source, Unknown, Verified
from cardsession.ports import Past, SignRequest, Verdict
from cardsession.virtual.book import Kind
from cardsession.virtual.card import VirtualCard
from cardsession.virtual.options import Algorithm as KeyKind
from cardsession.virtual.options import Family, Slot
from cardsession.virtual.pkcs15.options import EmptyVerify, Pkcs15Options
from fakes.counter import CANARY, DISPENSER, WRONG, Counter, make_card, settle

FREE = Declaration(
    source="this test", manufacturer="cardsession-virtual", asking_is_free=True, series="9"
)
PIN = 0x81


def make(**options: object) -> VirtualCard:
    """A PKCS#15 card; asking it costs a try."""
    card = Pkcs15Options(**{"empty_verify": EmptyVerify.COSTS, **options})
    slots = (Slot.AUTHENTICATION, Slot.SIGNATURE)
    return make_card(family=Family.PKCS15, pkcs15=card, algorithm=KeyKind.RSA2048, slots=slots)


def counter_of(*declarations: Declaration) -> Counter:
    """A counter of a site that declares this of its cards."""
    return Counter(families=families(declarations))


async def test_a_card_that_may_be_asked_shows_its_tries_before_the_first_one() -> None:
    counter = counter_of(FREE)
    card = await counter.ready(make(empty_verify=EmptyVerify.FREE))
    shown = counter.publisher.card
    assert (shown.profile, shown.state, shown.series) == ("pkcs15", CardState.READY, "9")
    assert shown.pins.status["user"] == Known(3)
    assert shown.pins.source is Source.CARD
    session = await counter.open()
    assert await counter.verify(session, WRONG) == Verdict(Outcome.INCORRECT, 2)
    assert (await counter.verify(session)).outcome is Outcome.VERIFIED
    assert counter.publisher.session.possession_proved
    await counter.desks.lock(session, DISPENSER)
    assert counter.publisher.card.pins.status["user"] == Known(3)
    assert counter.publisher.card.pins.most["user"] == 3
    assert card.book.tally(Kind.VERIFY, PIN).wrong == 1


async def test_a_card_that_may_not_be_asked_is_not() -> None:
    counter = counter_of()
    card = await counter.ready(make())
    shown = counter.publisher
    assert isinstance(shown.card.pins.status["user"], Unknown)
    assert shown.card.pins.source is Source.NONE
    session = await counter.open()
    assert await counter.verify(session, WRONG) == Verdict(Outcome.REFUSED_UNKNOWN, None)
    assert card.pins.reference(PIN).left == 3, "neither asked nor tried"
    first = await counter.verify(session, WRONG, accept_unknown=True)
    assert first == Verdict(Outcome.INCORRECT, 2)
    assert shown.card.pins.source is Source.LAST_VERIFY
    assert await counter.verify(session, WRONG) == Verdict(Outcome.INCORRECT, 1), "two were left"
    assert await counter.verify(session, WRONG) == Verdict(Outcome.REFUSED_LAST_TRY, None)
    assert card.pins.reference(PIN).left == 1
    counter.desks.caller_gone(DISPENSER.name)
    await settle()
    # what it told stands, as of when it told it, until the card goes
    assert shown.card.pins.status["user"] == Known(1)
    assert shown.card.pins.source is Source.LAST_VERIFY
    counter.pull()
    await counter.ready(card)
    assert isinstance(shown.card.pins.status["user"], Unknown), "never carried to an insertion"
    session = await counter.open()
    refused = await counter.verify(session, accept_unknown=True)
    assert refused.outcome is Outcome.REFUSED_LAST_TRY, "but it guards"
    verdict = await counter.verify(session, spend_last_try=True)
    assert verdict.outcome is Outcome.VERIFIED
    assert shown.card.pins.status["user"] == Verified()
    assert card.pins.reference(PIN).left == 3


async def test_a_lost_answer_is_stale_over_a_reinsertion() -> None:
    counter = counter_of()
    card = await counter.ready(make())
    session = await counter.open()
    counter.channel.pump.after = lambda _, apdu, __: (
        b"" if apdu[1] == 0x20 and len(apdu) > 5 else None
    )
    verdict = await counter.verify(session, WRONG, accept_unknown=True)
    assert verdict == Verdict(Outcome.UNCERTAIN, None)
    assert counter.publisher.card.pins.source is Source.STALE
    counter.channel.pump.after = lambda _, __, ___: None
    counter.pull()
    await counter.ready(card)
    assert counter.publisher.card.pins.source is Source.STALE
    identity = counter.desk._effects._card.known.identity
    assert counter.ledger.past(identity) == Past(in_flight=True, tried=True)
    session = await counter.open()
    assert counter.publisher.card.pins.source is Source.STALE
    assert (await counter.verify(session, accept_unknown=True)).outcome is Outcome.VERIFIED
    assert counter.publisher.card.pins.source is Source.LAST_VERIFY


@pytest.mark.parametrize("declared", [(), (FREE,)])
async def test_signatures_of_the_session_and_of_a_pin_of_its_own(
    declared: tuple[Declaration, ...],
) -> None:
    counter = counter_of(*declared)
    empty = EmptyVerify.FREE if declared else EmptyVerify.COSTS
    card = make(signature_pin=True, empty_verify=empty)
    await counter.ready(card)
    session = await counter.open()
    assert (await counter.verify(session, accept_unknown=True)).outcome is Outcome.VERIFIED
    assert counter.publisher.session.possession_proved
    digest = hashlib.sha384(b"a prescription").digest()
    wanted = SignRequest("authentication", Algorithm.RSA_SHA384, digest)
    signature = await counter.desks.sign(session, DISPENSER, wanted)
    certificates = counter.publisher.card.certificates
    der = certificates["authentication"].der
    assert trust.signature_holds(der, Algorithm.RSA_SHA384, digest, signature)
    assert counter.state is State.ACTIVE
    assert "signature" in certificates


async def test_the_next_program_finds_nobody_verified() -> None:
    counter = counter_of()
    card = await counter.ready(make())
    session = await counter.open()
    await counter.verify(session, accept_unknown=True)
    assert card.pins.verified(PIN)
    counter.desks.caller_gone(DISPENSER.name)
    await settle()
    assert not card.pins.verified(PIN)
    assert not counter.channel.holding
    assert CANARY not in repr(counter.publisher.lines)

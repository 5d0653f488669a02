"""What a removed card does to its session: the site's policy, and no other card's luck."""

from __future__ import annotations

import pytest

from cardsession.config import Config, SessionConfig
from cardsession.core.facts import EndReason, ReaderState, SessionState
from cardsession.core.policy import Removal
from cardsession.core.signing import Algorithm
from cardsession.core.states import State
from cardsession.core.tries import Outcome
from cardsession.ports import SignRequest
from cardsession.virtual.card import VirtualCard
from fakes.counter import (
    COLLEAGUE,
    DISPENSER,
    WRONG,
    Counter,
    make_card,
    outcome,
    settle,
)

GRACE = 600
SIGNATURE = SignRequest("authentication", Algorithm.ECDSA_SHA256, bytes(32))


def counter_that(removal: Removal) -> Counter:
    """A counter of a site with this policy."""
    return Counter(Config(session=SessionConfig(removal=removal, grace_seconds=GRACE)))


async def away(removal: Removal) -> tuple[Counter, VirtualCard, int]:
    """An active session whose card was taken out."""
    counter = counter_that(removal)
    card, session = await counter.active()
    counter.pull()
    await settle()
    return counter, card, session


async def test_without_a_policy_the_session_ends() -> None:
    counter, _, _ = await away(Removal.END)
    assert counter.publisher.reasons() == [EndReason.CARD_REMOVED]


@pytest.mark.parametrize("removal", [Removal.LOCK, Removal.KEEP])
async def test_the_session_stays_without_its_card_and_vouches_for_nothing(
    removal: Removal,
) -> None:
    counter, _, session = await away(removal)
    shown = counter.publisher.session
    assert shown.number == session
    assert shown.card is None
    assert not (shown.possession_proved or shown.holder_verified or shown.verified_usec)
    locked = removal is Removal.LOCK
    assert shown.state is (SessionState.LOCKED if locked else SessionState.ACTIVE)
    assert (shown.holder_id == "") is locked
    assert counter.publisher.cards == []
    assert counter.publisher.reader.state is ReaderState.EMPTY
    assert not counter.channel.holding
    for asked in (
        counter.verify(session),
        counter.desks.sign(session, DISPENSER, SIGNATURE),
        counter.desks.transmit(session, DISPENSER, bytes.fromhex("00A40000")),
        counter.desks.query(session, DISPENSER, "user"),
        counter.desks.keep_alive(session, DISPENSER),
        counter.desks.lock(session, DISPENSER),
    ):
        assert await outcome(asked) == "NoCard"


@pytest.mark.parametrize(
    ("removal", "back"), [(Removal.LOCK, State.LOCKED), (Removal.KEEP, State.KEPT)]
)
async def test_the_same_card_signs_again_only_after_its_passcode(
    removal: Removal, back: State
) -> None:
    counter, card, session = await away(removal)
    before = len(counter.publisher.told("card-ready"))
    counter.insert(card)
    await settle()
    assert counter.state is back
    shown = counter.publisher.session
    assert shown.card == counter.publisher.card.number
    assert counter.publisher.card.session == session
    assert len(counter.publisher.told("card-ready")) == before + 1
    assert await outcome(counter.desks.sign(session, DISPENSER, SIGNATURE)) == "NotVerified"
    assert (await counter.verify(session, WRONG)).outcome is Outcome.INCORRECT
    assert counter.state is back
    assert (await counter.verify(session)).outcome is Outcome.VERIFIED
    assert counter.state is State.ACTIVE
    assert counter.publisher.session.possession_proved
    assert await counter.desks.sign(session, DISPENSER, SIGNATURE)
    counter.clock.advance(GRACE + 1)
    await settle()
    assert counter.state is State.ACTIVE, "the grace is over with the passcode"


@pytest.mark.parametrize("removal", [Removal.LOCK, Removal.KEEP])
async def test_another_card_ends_the_session_before_anything_else(removal: Removal) -> None:
    counter, _, _ = await away(removal)
    await counter.ready(make_card(guid=bytes.fromhex("00112233445566778899aabbccddeeff")))
    assert counter.publisher.reasons() == [EndReason.CARD_REPLACED]
    assert counter.publisher.sessions == []
    assert counter.publisher.card.session is None
    assert counter.state is State.READY


@pytest.mark.parametrize("removal", [Removal.LOCK, Removal.KEEP])
async def test_a_copied_number_without_the_certificate_is_another_card(removal: Removal) -> None:
    counter, card, _ = await away(removal)
    twin = make_card(guid=card.identity.guid)
    await counter.ready(twin)
    assert counter.publisher.reasons() == [EndReason.CARD_REPLACED]


@pytest.mark.parametrize("removal", [Removal.LOCK, Removal.KEEP])
async def test_the_wait_is_over_after_its_grace(removal: Removal) -> None:
    counter, card, _ = await away(removal)
    counter.clock.advance(GRACE - 1)
    counter.insert(card)
    await settle()
    assert counter.publisher.reasons() == []
    counter.clock.advance(2)
    await settle()
    assert counter.publisher.reasons() == [EndReason.LOCK_EXPIRED]


@pytest.mark.parametrize("removal", [Removal.LOCK, Removal.KEEP])
async def test_pulling_again_and_again_wins_no_time(removal: Removal) -> None:
    counter, card, _ = await away(removal)
    for _ in range(4):
        counter.clock.advance(GRACE / 4)
        counter.insert(card)
        await settle()
        counter.pull()
        await settle()
    counter.clock.advance(1)
    await settle()
    assert counter.publisher.reasons() == [EndReason.LOCK_EXPIRED]


@pytest.mark.parametrize("removal", [Removal.LOCK, Removal.KEEP])
async def test_the_reader_is_reserved_and_the_owner_may_leave(removal: Removal) -> None:
    counter, card, _ = await away(removal)
    counter.insert(card)
    await settle()
    assert await outcome(counter.open(COLLEAGUE)) == "Busy"
    counter.pull()
    await settle()
    counter.desks.caller_gone(DISPENSER.name)
    await settle()
    assert counter.publisher.reasons() == [EndReason.OWNER_VANISHED]
    assert counter.state is State.EMPTY


@pytest.mark.parametrize("removal", [Removal.LOCK, Removal.KEEP])
async def test_a_session_without_a_passcode_yet_has_nothing_to_keep(removal: Removal) -> None:
    counter = counter_that(removal)
    await counter.ready()
    await counter.open()
    counter.pull()
    await settle()
    assert counter.publisher.reasons() == [EndReason.CARD_REMOVED]


@pytest.mark.parametrize("removal", [Removal.LOCK, Removal.KEEP])
async def test_an_unplugged_reader_ends_a_waiting_session(removal: Removal) -> None:
    counter, _, _ = await away(removal)
    counter.unplug()
    await settle()
    assert counter.publisher.reasons() == [EndReason.READER_REMOVED]
    assert counter.publisher.readers == []


async def test_a_kept_session_is_idle_like_any_other() -> None:
    config = Config(
        session=SessionConfig(removal=Removal.KEEP, grace_seconds=3_600, idle_seconds=60)
    )
    counter = Counter(config)
    await counter.active()
    counter.pull()
    await settle()
    counter.clock.advance(61)
    await settle()
    assert counter.publisher.reasons() == [EndReason.IDLE_TIMEOUT]


async def test_a_card_upside_down_is_waited_for() -> None:
    counter, card, _ = await away(Removal.LOCK)
    counter.channel.mute = True
    counter.report(present=True, mute=True, counter=9)
    await settle()
    assert counter.publisher.reader.state is ReaderState.MUTE
    assert counter.publisher.reasons() == []
    counter.channel.mute = False
    counter.report(present=False, mute=False, counter=10)
    await settle()
    counter.insert(card)
    await settle()
    assert counter.state is State.LOCKED

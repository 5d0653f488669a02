"""Answers that are lost, rivals, mute cards, and bugs of our own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cardsession.core.errors import Failure, Problem
from cardsession.core.facts import CardState, ReaderState, SessionState, Trust
from cardsession.core.tries import Known, Outcome, Source, Unknown
from cardsession.ports import OpenRequest, Verdict
from cardsession.virtual.book import Kind
from cardsession.virtual.pins import PIN
from fakes.channel import is_verify_with_data
from fakes.counter import (
    CANARY,
    DISPENSER,
    READER,
    WRONG,
    Counter,
    assert_empty,
    make_card,
    outcome,
    settle,
)

# what is lost on the way


@pytest.mark.parametrize("answer", ["", "6F00", "6C08", "6108"])
@pytest.mark.parametrize("text", [CANARY, WRONG], ids=["right", "wrong"])
async def test_a_strange_answer_is_uncertain_and_leaves_nobody_verified(
    answer: str, text: str
) -> None:
    counter = Counter()
    card = await counter.ready()
    session = await counter.open()
    counter.channel.pump.after = lambda _, apdu, __: (
        bytes.fromhex(answer) if is_verify_with_data(apdu) else None
    )
    verdict = await counter.verify(session, text)
    assert verdict.outcome is Outcome.UNCERTAIN
    assert len(counter.channel.pump.verifies) == 1
    assert not card.pins.satisfied
    assert counter.publisher.session.state is SessionState.UNVERIFIED
    assert counter.publisher.card.pins.status["user"] == Known(card.pins.reference(PIN).left)
    assert verdict.left == card.pins.reference(PIN).left


async def test_a_verify_that_a_rival_s_reset_cut_off_is_uncertain_and_stale() -> None:
    counter = Counter()
    card = await counter.ready()
    session = await counter.open()

    def cut(_: int, apdu: bytes, __: bytes) -> None:
        if is_verify_with_data(apdu):
            raise Failure(Problem.CARD_RESET, "another program reset the card")

    counter.channel.pump.after = cut
    assert await counter.verify(session, WRONG) == Verdict(Outcome.UNCERTAIN, None)
    assert counter.publisher.card.pins.source is Source.STALE
    assert isinstance(counter.publisher.card.pins.status["user"], Unknown)
    assert counter.ledger.past(card.identity.guid.hex().upper()).in_flight
    counter.channel.pump.after = lambda _, __, ___: None
    assert await counter.desks.query(session, DISPENSER, "user") == Known(2)
    assert counter.publisher.card.pins.source is Source.CARD


async def test_an_answer_that_was_lost_may_have_been_yes_the_card_is_reset() -> None:
    """Nobody is left verified, be it the way to the card that failed, or what it says."""
    for lost in ("no answer", "no sense"):
        counter = Counter()
        card = await counter.ready()
        session = await counter.open()
        sent = False

        def lose(_: int, apdu: bytes, __: bytes, lost: str = lost) -> bytes | None:
            nonlocal sent
            sent = sent or is_verify_with_data(apdu)
            if sent and lost == "no answer":
                raise Failure(Problem.CARD_RESET, "the exchange with the card was lost")
            return b"\x6f\x00" if sent else None

        counter.channel.pump.after = lose
        assert await counter.verify(session) == Verdict(Outcome.UNCERTAIN, None)
        assert card.book.tally(Kind.VERIFY, PIN).right == 1
        assert not card.pins.satisfied
        assert not counter.channel.holding
        assert counter.publisher.card.pins.source is Source.STALE


async def test_a_reset_before_the_secret_went_is_told_as_that() -> None:
    counter = Counter()
    card = await counter.ready()
    session = await counter.open()

    def cut(_: int, __: bytes) -> None:
        raise Failure(Problem.CARD_RESET, "another program reset the card")

    counter.channel.pump.before = cut
    assert await outcome(counter.verify(session)) == "CardReset"
    assert counter.publisher.card.pins.status["user"] == Known(3), "no try can be gone"
    assert card.book.tally(Kind.VERIFY, PIN).right == 0


async def test_a_probe_is_replayed_once_after_a_rival_s_reset() -> None:
    counter = Counter()
    resets = [3]

    def cut(number: int, _: bytes) -> None:
        if number in resets:
            raise Failure(Problem.CARD_RESET, "another program reset the card")

    counter.channel.pump.before = cut
    await counter.ready()
    assert counter.publisher.card.state is CardState.READY
    counter.pull()
    resets[:] = range(1000)
    await counter.ready()
    assert counter.publisher.card.state is CardState.UNKNOWN


async def test_a_card_in_use_elsewhere_is_asked_for_again() -> None:
    counter = Counter()
    counter.channel.elsewhere = True
    counter.insert(make_card())
    await settle()
    assert counter.publisher.reader.state is ReaderState.IN_USE_ELSEWHERE
    assert await outcome(counter.open()) == "InUseElsewhere"
    counter.clock.advance(1.0)
    await settle()
    assert counter.publisher.reader.state is ReaderState.IN_USE_ELSEWHERE
    counter.channel.elsewhere = False
    counter.clock.advance(2.0)
    await settle()
    assert counter.publisher.reader.state is ReaderState.READY


async def test_a_rival_who_lets_go_is_noticed_at_once() -> None:
    counter = Counter()
    counter.channel.elsewhere = True
    counter.insert(make_card())
    counter.report(exclusive=True)
    await settle()
    counter.channel.elsewhere = False
    counter.report(exclusive=False)
    await settle()
    assert counter.publisher.reader.state is ReaderState.READY
    counter.clock.advance(60)
    await settle()
    assert counter.publisher.reader.state is ReaderState.READY


async def test_a_verify_whose_card_is_held_elsewhere_is_refused_and_the_session_stays() -> None:
    counter = Counter()
    await counter.ready()
    session = await counter.open()
    counter.channel.elsewhere = True
    assert await outcome(counter.verify(session)) == "InUseElsewhere"
    assert counter.publisher.session.state is SessionState.UNVERIFIED
    assert counter.publisher.card.pins.status["user"] == Known(3)


async def test_a_mute_card() -> None:
    counter = Counter()
    counter.channel.mute = True
    counter.report(present=True, mute=True, counter=1)
    assert counter.publisher.reader.state is ReaderState.PROBING, "it is asked, once"
    await settle()
    assert counter.publisher.reader.state is ReaderState.MUTE
    assert counter.publisher.card.state is CardState.MUTE
    assert "orientation" in counter.publisher.reader.last_error
    assert await outcome(counter.open()) == "CardMute"
    counter.report(present=False, mute=False, counter=2)
    assert_empty(counter)


async def test_a_passcode_is_in_nothing_that_is_shown() -> None:
    counter = Counter()
    _, session = await counter.active()
    await counter.verify(session, WRONG)
    await outcome(counter.verify(session, CANARY + "9"))
    counter.desks.caller_gone(DISPENSER.name)
    await settle()
    told: list[Any] = [(line.what, line.facts, line.detail) for line in counter.publisher.lines]
    assert CANARY not in repr(told)
    assert WRONG not in repr(told)


# our own bugs


@pytest.mark.parametrize("where", ["dialogue", "effect", "table"])
async def test_our_bug_faults_one_reader_and_no_other(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = "Fake Reader 01 00"
    counter = Counter(readers=(READER, second))
    counter.insert(make_card())
    counter.insert(make_card(), second)
    await settle()
    one = min(card.number for card in counter.publisher.cards)
    session = await counter.desks.open_session(one, DISPENSER, OpenRequest())

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("our bug")

    if where == "dialogue":
        counter.channel.pump.before = broken
    elif where == "effect":
        monkeypatch.setattr(counter.desk._effects, "do", broken)
    else:
        monkeypatch.setattr("cardsession.desk.step", broken)
    assert await outcome(counter.verify(session)) == "Internal"
    monkeypatch.undo()
    await settle()
    by_name = {reader.name: reader.state for reader in counter.publisher.readers}
    assert by_name == {READER: ReaderState.STUCK, second: ReaderState.READY}
    assert counter.publisher.sessions == []
    assert counter.publisher.reasons() == ["forced"]
    assert not counter.channel.holding


async def test_time_alone_ages_a_card() -> None:
    counter = Counter()
    clock = counter.clock
    card = make_card(valid_days=400, days_left=3)
    # the virtual card's certificate counts from the real day: let ours be that day
    end = card.identity.expires.timestamp()
    clock._start = int((end - 2.5 * 86_400) * 1_000_000)
    await counter.ready(card)
    assert (counter.publisher.card.days_left, counter.publisher.card.renewal_due) == (2, True)
    for _ in range(24):
        clock.advance(3_600)
        await settle()
    assert counter.publisher.card.days_left == 1
    for _ in range(48):
        clock.advance(3_600)
        await settle()
    assert counter.publisher.card.standing.trust is Trust.EXPIRED
    assert not counter.publisher.card.renewal_due
    counter.pull()
    assert clock.pending == [], "no timer is left for a card that went"


async def test_replacing_the_reader_under_the_same_name_is_a_new_desk() -> None:
    counter = Counter()
    await counter.active()
    slot = counter._slots[READER]
    counter.unplug()
    await settle()
    counter._slots[READER] = replace(slot, present=False, counter=0, atr=b"")
    counter.list()
    await settle()
    assert counter.publisher.reader.state is ReaderState.EMPTY
    assert counter.publisher.reader.insert_count == 0
    await counter.ready()
    assert counter.publisher.card.number == 2

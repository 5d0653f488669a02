"""One reader from insertion to removal, as a subscriber and the callers see it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from cardsession.config import Config, Hold, ReadersConfig, SessionConfig
from cardsession.core.errors import Failure, Problem
from cardsession.core.facts import Backend, CardState, EndReason, ReaderState, SessionState, Trust
from cardsession.core.secret import BadFormat, Secret
from cardsession.core.session import State
from cardsession.core.tries import Blocked, Known, Outcome, Source, Unknown, Verified
from cardsession.ports import OpenRequest, Verdict
from cardsession.virtual.book import Kind
from cardsession.virtual.options import Slot
from cardsession.virtual.pins import PIN
from fakes.channel import is_verify_with_data, removed
from fakes.counter import (
    ATR,
    CANARY,
    COLLEAGUE,
    DISPENSER,
    READER,
    STRANGER,
    WRONG,
    Counter,
    make_card,
    outcome,
    read,
    secret,
    settle,
)


async def test_the_whole_story() -> None:
    counter = Counter()
    shown = counter.publisher
    assert shown.reader.state is ReaderState.EMPTY
    assert shown.told("backend")[-1].facts is Backend.OK

    card = make_card(holder="555012345678", tries=3, slots=tuple(Slot))
    counter.insert(card)
    assert shown.card.state is CardState.PROBING
    assert (shown.card.atr, shown.reader.card) == (ATR, shown.card.number)
    assert shown.reader.state is ReaderState.PROBING
    await settle()
    assert (shown.card.state, shown.card.profile) == (CardState.READY, "piv")
    assert shown.card.holder is not None
    assert shown.card.holder.common_name == "555012345678"
    assert set(shown.card.certificates) == {
        "authentication", "signature", "encryption", "card-authentication",
    }  # fmt: skip
    assert shown.card.pins.status == {"user": Known(3)}
    assert shown.card.pins.source is Source.CARD
    assert len(shown.told("card-ready")) == 1
    assert shown.reader.state is ReaderState.READY

    session = await counter.open(purpose="dispensing")
    assert shown.session.state is SessionState.UNVERIFIED
    assert (shown.session.owner, shown.session.holder_id) == (DISPENSER.name, "")
    assert shown.card.session == session

    assert await counter.verify(session, WRONG) == Verdict(Outcome.INCORRECT, 2)
    assert shown.card.pins.status == {"user": Known(2)}
    assert shown.card.pins.source is Source.LAST_VERIFY
    assert shown.session.state is SessionState.UNVERIFIED
    assert not counter.channel.holding

    assert await counter.verify(session) == Verdict(Outcome.VERIFIED, None)
    assert shown.session.state is SessionState.ACTIVE
    assert shown.session.holder_id == "555012345678"
    assert shown.card.pins.status == {"user": Verified()}
    assert counter.channel.holding, "nobody else may use a card that we unlocked"
    assert counter.channel.exclusive[-1], "held alone, as configured"

    counter.pull()
    await settle()
    assert shown.reasons() == ["card-removed"]
    assert (shown.cards, shown.sessions) == ([], [])
    assert (shown.reader.state, shown.reader.card) == (ReaderState.EMPTY, None)
    assert await outcome(counter.verify(session)) == "SessionEnded"
    with pytest.raises(Failure, match="card-removed"):
        await counter.verify(session)

    counter.insert(card)
    await settle()
    assert shown.card.number == 2, "the same card again is another object"
    assert shown.card.pins.status == {"user": Known(3)}
    assert shown.reader.insert_count == 2


async def test_order_for_a_card_pulled_from_an_active_session() -> None:
    counter = Counter()
    await counter.active()
    counter.publisher.lines.clear()
    counter.pull()
    told = [
        (line.what, type(line.facts).__name__.removesuffix("Facts"))
        for line in counter.publisher.lines
        if line.what not in {"show", "backend"}
    ]
    assert told == [
        ("ended", "Session"), ("withdraw", "Session"), ("card-gone", "Card"), ("withdraw", "Card"),
    ]  # fmt: skip
    ended = counter.publisher.told("ended")[0].facts
    assert (ended.state, ended.holder_id) == (SessionState.ENDED, "")


@pytest.mark.parametrize("text", [CANARY, WRONG], ids=["right", "wrong"])
async def test_the_count_is_published_before_the_reply(text: str) -> None:
    counter = Counter()
    await counter.ready()
    session = await counter.open()
    counter.publisher.lines.clear()
    verdict = await counter.verify(session, text)
    lines = counter.publisher.lines
    reply = next(at for at, line in enumerate(lines) if line.what == "reply")
    told = [line.facts for line in lines[:reply] if line.what == "show"]
    cards = [each for each in told if hasattr(each, "pins")]
    left = {"user": Known(2) if text == WRONG else Verified()}
    assert cards[-1].pins.status == left
    assert verdict.left == (2 if text == WRONG else None)
    assert not [line for line in lines[reply:] if line.what == "show" and line.facts in cards]


async def test_a_blocked_pin_ends_the_session_after_the_reply_s_count() -> None:
    counter = Counter()
    card = await counter.ready(make_card(tries=1))
    assert counter.publisher.card.pins.status == {"user": Known(1)}
    session = await counter.open()
    assert await counter.verify(session, WRONG) == Verdict(Outcome.REFUSED_LAST_TRY, 1)
    assert card.book.wrong() == 0
    verdict = await counter.verify(session, WRONG, spend_last_try=True)
    assert verdict == Verdict(Outcome.NOW_BLOCKED, 0)
    await settle()
    assert counter.publisher.reasons() == ["pin-blocked"]
    assert counter.publisher.card.pins.status == {"user": Blocked()}
    session = await counter.open()
    assert await counter.verify(session, spend_last_try=True) == Verdict(Outcome.WAS_BLOCKED, 0)
    assert card.book.wrong() == 1


async def test_an_unknown_count_is_shown_as_none() -> None:
    counter = Counter()
    counter.channel.pump.before = lambda _, apdu: (
        b"\x69\x82" if apdu[1:3] == b"\x20\x00" and len(apdu) == 4 else None
    )
    card = await counter.ready()
    assert isinstance(counter.publisher.card.pins.status["user"], Unknown)
    assert counter.publisher.card.pins.source is Source.NONE
    session = await counter.open()
    assert await counter.verify(session) == Verdict(Outcome.REFUSED_UNKNOWN, None)
    assert card.book.tally(Kind.VERIFY, PIN).right == 0
    verdict = await counter.verify(session, accept_unknown=True)
    assert verdict == Verdict(Outcome.VERIFIED, None)


async def test_a_card_that_nobody_reads_is_announced_and_left_alone() -> None:
    class Stranger:
        def __init__(self) -> None:
            self.heard: list[bytes] = []

        def process(self, raw: bytes) -> bytes:
            self.heard.append(raw)
            return b"\x6a\x82"

        def reset(self) -> None: ...

    counter, card = Counter(), Stranger()
    await counter.ready(card)
    assert counter.publisher.card.state is CardState.UNKNOWN
    assert (counter.publisher.card.profile, counter.publisher.card.atr) == ("unknown", ATR)
    assert [raw[1] for raw in card.heard] == [0xA4]
    assert await outcome(counter.open()) == "NotSupported"
    assert len(card.heard) == 1
    assert counter.publisher.told("card-ready") == []


async def test_a_blank_card() -> None:
    counter = Counter()
    await counter.ready(make_card(slots=()))
    assert counter.publisher.card.state is CardState.BLANK
    assert counter.publisher.card.trust is Trust.NO_CERTIFICATE


async def test_a_card_whose_certificate_would_break_a_parser_is_ready_all_the_same() -> None:
    card = make_card()
    tag = 0x5FC105
    broken = card.applet.objects[tag].replace(
        bytes.fromhex("A003020102"), bytes.fromhex("A003020109")
    )
    assert broken != card.applet.objects[tag]
    card.applet.objects[tag] = broken
    counter = Counter()
    await counter.ready(card)
    assert counter.publisher.card.state is CardState.READY
    assert counter.publisher.card.holder is not None
    assert counter.publisher.card.holder.common_name == ""
    assert counter.publisher.reader.last_error == ""


async def test_noise_for_a_card_is_unknown_and_the_reader_lives() -> None:
    counter = Counter()
    counter.channel.pump.before = lambda _, __: b"\x90"
    await counter.ready()
    assert counter.publisher.card.state is CardState.UNKNOWN
    counter.pull()
    counter.channel.pump.before = lambda _, __: None
    await counter.ready()
    assert counter.publisher.card.state is CardState.READY


# a card pulled at every exchange


async def exchanges_of_a_probe() -> int:
    counter = Counter()
    await counter.ready(make_card(slots=tuple(Slot)))
    return counter.channel.exchanges


async def exchanges_of_a_verify(text: str) -> int:
    counter = Counter()
    await counter.ready(make_card())
    session = await counter.open()
    before = counter.channel.exchanges
    await counter.verify(session, text)
    return counter.channel.exchanges - before


def pull_at(counter: Counter, at: int, *, noticed: bool, answered: bool) -> None:
    """The card goes at the exchange `at` from now; `answered`: it did what it was told before."""
    pump = counter.channel.pump
    first = len(pump.apdus)

    def pull(number: int) -> None:
        if number - first == at:
            counter.pull(noticed=noticed)
            raise removed()

    if answered:
        pump.after = lambda number, _, __: pull(number)
    else:
        pump.before = lambda number, _: pull(number)


def assert_empty(counter: Counter) -> None:
    """No ghost card, no ghost session, and the reader says so."""
    assert counter.state is State.EMPTY
    assert (counter.publisher.cards, counter.publisher.sessions) == ([], [])
    assert counter.publisher.reader.state is ReaderState.EMPTY
    assert counter.publisher.reader.card is None
    assert not counter.channel.holding


@pytest.mark.parametrize("answered", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("noticed", [False, True], ids=["worker-first", "watch-first"])
async def test_a_card_pulled_at_every_exchange_of_probe_and_certificates(
    *, noticed: bool, answered: bool
) -> None:
    total = await exchanges_of_a_probe()
    assert total >= 8
    for at in range(1, total + 1):
        counter = Counter()
        card = make_card(slots=tuple(Slot))
        pull_at(counter, at, noticed=noticed, answered=answered)
        counter.insert(card)
        await settle()
        assert_empty(counter)
        counter.list()  # the watch agrees, late or once more
        await settle()
        assert_empty(counter)
        assert len(counter.publisher.told("card-gone")) == 1
        counter.insert(card)
        await settle()
        assert counter.state is State.READY


@pytest.mark.parametrize("answered", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("noticed", [False, True], ids=["worker-first", "watch-first"])
@pytest.mark.parametrize("text", [CANARY, WRONG], ids=["right", "wrong"])
async def test_a_card_pulled_at_every_exchange_of_a_verify(
    text: str, *, noticed: bool, answered: bool
) -> None:
    total = await exchanges_of_a_verify(text)
    assert total >= 4
    for at in range(1, total + 1):
        counter = Counter()
        card = await counter.ready(make_card())
        session = await counter.open()
        pull_at(counter, at, noticed=noticed, answered=answered)
        assert await outcome(counter.verify(session, text)) == "CardRemoved"
        await settle()
        assert_empty(counter)
        counter.list()
        await settle()
        assert_empty(counter)
        assert counter.publisher.reasons() == ["card-removed"]
        lines = [line.what for line in counter.publisher.lines]
        assert lines.count("card-gone") == 1
        assert len(counter.channel.pump.verifies) <= 1
        assert not card.pins.satisfied


async def test_a_card_pulled_while_a_session_opens() -> None:
    for at in (1, 2, 3):
        counter = Counter()
        await counter.ready()
        pull_at(counter, at, noticed=False, answered=False)
        assert await outcome(counter.open()) == "CardRemoved"
        assert_empty(counter)
        assert counter.publisher.reasons() == []


async def test_a_worker_that_was_wrong_about_a_removal_finds_the_card_again() -> None:
    """The status wait never agreed: after a second it is looked at anew."""
    counter = Counter()
    card = await counter.ready()
    session = await counter.open()
    counter.channel.pump.before = lambda _, __: (_ for _ in ()).throw(removed())
    assert await outcome(counter.verify(session)) == "CardRemoved"
    assert counter.state is State.EMPTY
    counter.channel.pump.before = lambda _, __: None
    counter.clock.advance(1.5)
    await settle()
    assert counter.state is State.READY
    assert counter.publisher.card.number == 2
    assert card.book.wrong() == 0


# another card, another generation


async def test_late_answers_of_an_old_card_never_touch_the_new_one() -> None:
    counter = Counter()
    old, new = make_card(holder="111111111111"), make_card(holder="222222222222", tries=1)
    counter.channel.paused = True
    counter.insert(old)
    await settle()
    counter.pull()
    counter.insert(new)
    counter.channel.chip = old
    counter.channel.work()  # the old card's probe comes home now
    counter.channel.chip = new
    await settle()
    assert counter.publisher.card.holder is None
    assert counter.publisher.card.state is CardState.PROBING
    counter.channel.resume()
    await settle()
    assert counter.publisher.card.holder is not None
    assert counter.publisher.card.holder.common_name == "222222222222"
    assert counter.publisher.card.pins.status == {"user": Known(1)}


async def test_a_verify_for_the_old_card_is_not_sent_to_the_new_one() -> None:
    counter = Counter()
    await counter.ready()
    session = await counter.open()
    counter.channel.paused = True
    asked = asyncio.ensure_future(outcome(counter.verify(session)))
    await settle()
    counter.pull()
    other = make_card()
    counter.insert(other)
    assert await asked == "CardRemoved"
    counter.channel.resume()
    await settle()
    assert counter.channel.pump.verifies == []
    assert counter.state is State.READY
    assert counter.publisher.card.pins.status == {"user": Known(3)}


async def test_a_swap_that_only_the_card_tells_is_found_before_the_passcode_goes() -> None:
    counter = Counter()
    await counter.ready()
    session = await counter.open()
    other = make_card()
    counter.channel.chip = other
    assert await outcome(counter.verify(session)) == "CardRemoved"
    assert counter.channel.pump.verifies == []
    assert counter.publisher.reasons() == ["card-removed"]
    counter.clock.advance(1.5)
    await settle()
    assert counter.publisher.card.serial == other.identity.guid.hex().upper()


# callers


async def test_a_double_click_is_not_a_second_try() -> None:
    counter = Counter()
    card = await counter.ready()
    session = await counter.open()
    first = asyncio.ensure_future(outcome(counter.verify(session, WRONG)))
    second = asyncio.ensure_future(outcome(counter.verify(session, WRONG)))
    assert await second == "Busy"
    assert await first == Verdict(Outcome.INCORRECT, 2)
    assert len(counter.channel.pump.verifies) == card.book.wrong() == 1


async def test_a_double_click_is_busy_even_while_the_first_pipe_is_empty() -> None:
    counter = Counter()
    await counter.ready()
    session = await counter.open()
    pipe: asyncio.Future[Secret] = asyncio.get_running_loop().create_future()

    async def slowly() -> Secret:
        return await pipe

    first = asyncio.ensure_future(outcome(counter.submit(session, slowly)))
    await settle()
    for call in (
        counter.verify(session),
        counter.desks.query(session, DISPENSER, "user"),
        counter.desks.lock(session, DISPENSER),
        counter.desks.keep_alive(session, DISPENSER),
    ):
        assert await outcome(call) == "Busy"
    pipe.set_result(secret())
    assert await first == Verdict(Outcome.VERIFIED, None)
    assert len(counter.channel.pump.verifies) == 1


@pytest.mark.parametrize("active", [False, True], ids=["unverified", "active"])
async def test_a_secret_that_is_none_changes_nothing(*, active: bool) -> None:
    counter = Counter()
    await counter.ready()
    session = await counter.open()
    if active:
        await counter.verify(session)
    before, exchanges = counter.state, counter.channel.exchanges

    async def invalid() -> Secret:
        raise Failure(Problem.SECRET_INVALID, "a directory")

    async def empty() -> Secret:
        raise BadFormat

    assert await outcome(counter.submit(session, invalid)) == "SecretInvalid"
    assert counter.state is before
    assert await counter.submit(session, empty) == Verdict(Outcome.BAD_FORMAT, None)
    assert await counter.submit(session, read(CANARY + "1")) == Verdict(Outcome.BAD_FORMAT, None)
    assert await outcome(counter.submit(session, read(), label="puk")) == "NoSuchPin"
    assert counter.state is before
    assert counter.channel.exchanges == exchanges, "not a word was said to the card"
    assert counter.channel.holding == active
    assert counter.publisher.reader.last_error == ""


async def test_a_stranger_is_refused_and_his_secret_is_never_read() -> None:
    counter = Counter()
    await counter.ready()
    session = await counter.open()

    async def never() -> Secret:
        raise AssertionError("a stranger's secret was read")

    assert await outcome(counter.submit(session, never, caller=COLLEAGUE)) == "NotOwner"
    assert await outcome(counter.desks.lock(session, STRANGER)) == "NotOwner"
    assert await outcome(counter.desks.query(session, STRANGER, "user")) == "NotOwner"
    assert await outcome(counter.desks.keep_alive(session, STRANGER)) == "NotOwner"
    assert counter.publisher.session.state is SessionState.UNVERIFIED


async def test_one_session_per_card() -> None:
    counter = Counter()
    await counter.ready()
    await counter.open()
    assert await outcome(counter.open(COLLEAGUE)) == "Busy"
    assert await outcome(counter.open(COLLEAGUE, wait=20.0)) == "Busy"


async def test_an_owner_who_leaves_takes_his_session_along() -> None:
    counter = Counter()
    card, _ = await counter.active()
    counter.desks.caller_gone(STRANGER.name)
    await settle()
    assert counter.state is State.ACTIVE
    counter.desks.caller_gone(DISPENSER.name)
    await settle()
    assert counter.publisher.reasons() == ["owner-vanished"]
    assert counter.state is State.READY
    assert not card.pins.satisfied, "the authority went with the session"
    assert not counter.channel.holding
    assert counter.publisher.card.pins.status == {"user": Known(3)}


async def test_an_owner_who_leaves_before_his_secret_is_sent_spends_nothing() -> None:
    counter = Counter()
    card = await counter.ready()
    session = await counter.open()
    counter.channel.paused = True
    asked = asyncio.ensure_future(outcome(counter.verify(session, WRONG)))
    await settle()
    counter.desks.caller_gone(DISPENSER.name)
    assert counter.publisher.session.state is SessionState.ENDED
    assert (await asked).outcome is Outcome.CANCELLED
    counter.channel.resume()
    await settle()
    assert counter.channel.pump.verifies == []
    assert card.book.wrong() == 0
    assert counter.publisher.reasons() == ["owner-vanished"]
    assert counter.state is State.READY


async def test_an_owner_who_leaves_while_the_pipe_is_read_spends_nothing() -> None:
    counter = Counter()
    await counter.ready()
    session = await counter.open()
    pipe: asyncio.Future[Secret] = asyncio.get_running_loop().create_future()

    async def slowly() -> Secret:
        return await pipe

    asked = asyncio.ensure_future(outcome(counter.submit(session, slowly)))
    await settle()
    counter.desks.caller_gone(DISPENSER.name)
    held = secret()
    pipe.set_result(held)
    assert (await asked).outcome is Outcome.CANCELLED
    await settle()
    assert held.wiped
    assert counter.channel.pump.verifies == []
    assert counter.publisher.reasons() == ["owner-vanished"]
    assert counter.state is State.READY


@pytest.mark.parametrize("text", [CANARY, WRONG], ids=["right", "wrong"])
async def test_an_owner_who_leaves_while_the_card_judges_is_judged_and_released(text: str) -> None:
    counter = Counter()
    card = await counter.ready()
    session = await counter.open()

    def leave(_: int, apdu: bytes) -> None:
        if is_verify_with_data(apdu):
            counter.desks.caller_gone(DISPENSER.name)

    counter.channel.pump.before = leave
    await outcome(counter.verify(session, text))
    await settle()
    assert len(counter.channel.pump.verifies) == 1
    assert counter.publisher.reasons() == ["owner-vanished"]
    left = 3 if text == CANARY else 2
    assert counter.publisher.card.pins.status == {"user": Known(left)}
    assert card.pins.reference(PIN).left == left
    assert not card.pins.satisfied
    assert counter.state is State.READY


async def test_a_call_that_is_cancelled_is_a_caller_who_left() -> None:
    """Its handler is gone: the secret must not be sent for nobody."""
    counter = Counter()
    await counter.ready()
    session = await counter.open()
    counter.channel.paused = True
    asked = asyncio.ensure_future(counter.verify(session))
    await settle()
    asked.cancel()
    await settle()
    counter.channel.resume()
    await settle()
    assert counter.channel.pump.verifies == []
    assert counter.state is State.UNVERIFIED, "no fault of the reader"


async def test_an_owner_who_leaves_while_his_session_opens_gets_none() -> None:
    counter = Counter()
    await counter.ready()
    counter.channel.paused = True
    asked = asyncio.ensure_future(outcome(counter.open()))
    await settle()
    counter.desks.caller_gone(DISPENSER.name)
    counter.channel.resume()
    await settle()
    await asked
    assert counter.publisher.reasons() == ["owner-vanished"]
    assert counter.state is State.READY


async def test_one_who_left_while_opening_failed_harms_nobody_after_him() -> None:
    counter = Counter()
    await counter.ready()
    counter.channel.paused = True
    asked = asyncio.ensure_future(outcome(counter.open()))
    await settle()
    counter.desks.caller_gone(DISPENSER.name)
    counter.pull()
    assert await asked == "CardRemoved"
    counter.channel.resume()
    await counter.ready()
    await counter.open(COLLEAGUE)
    await settle()
    assert counter.publisher.session.state is SessionState.UNVERIFIED
    assert counter.publisher.reasons() == []


# opening


async def test_a_card_left_verified_by_somebody_else_is_not_when_the_session_exists() -> None:
    counter = Counter()
    card = await counter.ready()
    card.process(bytes.fromhex("00A404000BA000000308000010000100"))
    card.process(b"\x00\x20\x00\x80\x08" + CANARY.encode())
    assert card.pins.satisfied
    await counter.open()
    assert not card.pins.satisfied
    assert counter.publisher.card.pins.status == {"user": Known(3)}


async def test_the_count_is_read_anew_when_a_session_opens() -> None:
    counter = Counter()
    card = await counter.ready()
    card.pins.reference(PIN).left = 2  # a rival's wrong try, which wakes nobody
    assert counter.publisher.card.pins.status == {"user": Known(3)}
    counter.clock.advance(5)
    await counter.open()
    assert counter.publisher.card.pins.status == {"user": Known(2)}
    assert counter.publisher.card.pins.read_usec == counter.clock.usec()


async def test_who_waits_for_a_card_being_read_gets_it() -> None:
    counter = Counter()
    counter.channel.paused = True
    counter.insert(make_card())
    assert await outcome(counter.open()) == "Busy", "who does not wish to wait is told at once"
    asked = asyncio.ensure_future(counter.open(wait=5.0))
    await settle()
    assert not asked.done()
    counter.channel.resume()
    await settle()
    assert await asked == counter.publisher.session.number


async def test_who_waits_too_long_is_told_and_forgotten() -> None:
    counter = Counter()
    counter.channel.paused = True
    counter.insert(make_card())
    asked = asyncio.ensure_future(outcome(counter.open(wait=5.0)))
    await settle()
    counter.clock.advance(4.9)
    await settle()
    assert not asked.done()
    counter.clock.advance(0.2)
    assert await asked == "Timeout"
    counter.channel.resume()
    await settle()
    assert counter.publisher.sessions == []


@pytest.mark.parametrize("how", ["pulled", "left"])
async def test_who_waits_for_a_card_that_goes_or_leaves_is_answered(how: str) -> None:
    counter = Counter()
    counter.channel.paused = True
    counter.insert(make_card())
    asked = asyncio.ensure_future(outcome(counter.open(wait=5.0)))
    await settle()
    if how == "pulled":
        counter.pull()
        assert await asked == "CardRemoved"
    else:
        counter.desks.caller_gone(DISPENSER.name)
        assert await asked == "NotAuthorized"
    counter.channel.resume()
    await settle()
    assert counter.publisher.sessions == []


async def test_a_session_is_taken_over_by_the_same_user_only() -> None:
    counter = Counter()
    card, first = await counter.active()
    assert await outcome(counter.open(STRANGER, replace=True)) == "Busy"
    second = await counter.open(COLLEAGUE, replace=True)
    assert counter.publisher.reasons() == ["forced"]
    assert counter.publisher.session.number == second != first
    assert not card.pins.satisfied
    with pytest.raises(Failure, match="forced"):
        await counter.verify(first)


async def test_a_take_over_in_the_middle_of_a_submission_withdraws_it() -> None:
    counter = Counter()
    await counter.ready()
    first = await counter.open()
    counter.channel.paused = True
    asked = asyncio.ensure_future(outcome(counter.verify(first)))
    await settle()
    over = asyncio.ensure_future(counter.open(COLLEAGUE, replace=True))
    await settle()
    assert (await asked).outcome is Outcome.CANCELLED
    counter.channel.resume()
    second = await over
    assert counter.channel.pump.verifies == []
    assert counter.publisher.session.number == second


async def test_opening_a_card_that_is_not_there() -> None:
    counter = Counter()
    await counter.ready()
    number = counter.publisher.card.number
    counter.pull()
    asked = counter.desks.open_session(number, DISPENSER, OpenRequest())
    assert await outcome(asked) == "CardRemoved"


# asking, locking, staying


async def test_a_query_asks_the_card_and_leaves_the_session() -> None:
    counter = Counter()
    card = await counter.ready()
    session = await counter.open()
    card.pins.reference(PIN).left = 1
    assert await counter.desks.query(session, DISPENSER, "user") == Known(1)
    assert counter.publisher.card.pins.status == {"user": Known(1)}
    assert counter.state is State.UNVERIFIED
    assert await outcome(counter.desks.query(session, DISPENSER, "puk")) == "NoSuchPin"


async def test_a_query_while_active_asks_nothing() -> None:
    counter = Counter()
    _, session = await counter.active()
    exchanges = counter.channel.exchanges
    assert await counter.desks.query(session, DISPENSER, "user") == Verified()
    assert counter.channel.exchanges == exchanges
    assert await outcome(counter.desks.query(session, DISPENSER, "puk")) == "NoSuchPin"


async def test_lock_and_unlock() -> None:
    counter = Counter()
    card, session = await counter.active()
    await counter.desks.lock(session, DISPENSER)
    assert counter.publisher.session.state is SessionState.LOCKED
    assert (counter.publisher.session.holder_id, counter.publisher.session.verified_usec) == ("", 0)
    assert not card.pins.satisfied
    assert not counter.channel.holding
    assert counter.publisher.card.pins.status == {"user": Known(3)}
    await counter.desks.lock(session, DISPENSER)
    assert await outcome(counter.desks.keep_alive(session, DISPENSER)) == "NotVerified"
    assert await counter.verify(session, WRONG) == Verdict(Outcome.INCORRECT, 2)
    assert counter.publisher.session.state is SessionState.LOCKED
    assert await counter.desks.query(session, DISPENSER, "user") == Known(2)
    assert counter.state is State.LOCKED
    assert await counter.verify(session) == Verdict(Outcome.VERIFIED, None)
    assert counter.publisher.session.state is SessionState.ACTIVE


async def test_a_lock_that_the_card_does_not_answer_resets_it() -> None:
    counter = Counter()
    card, session = await counter.active()
    counter.channel.pump.before = lambda _, __: b"\x6f\x00"
    await counter.desks.lock(session, DISPENSER)
    assert not card.pins.satisfied
    assert counter.publisher.session.state is SessionState.LOCKED
    assert counter.publisher.card.pins.source is Source.STALE


async def test_an_unverified_session_is_neither_locked_nor_kept_alive() -> None:
    counter = Counter()
    await counter.ready()
    session = await counter.open()
    assert await outcome(counter.desks.lock(session, DISPENSER)) == "NotVerified"
    assert await outcome(counter.desks.keep_alive(session, DISPENSER)) == "NotVerified"


@pytest.mark.parametrize("refusal", ["wrong", "last-try"])
async def test_a_failed_submission_while_active_drops_the_authority(refusal: str) -> None:
    counter = Counter()
    card, session = await counter.active()
    if refusal == "last-try":
        card.pins.reference(PIN).left = 1
    verdict = await counter.verify(session, WRONG)
    expected = Outcome.INCORRECT if refusal == "wrong" else Outcome.REFUSED_LAST_TRY
    assert verdict.outcome is expected
    assert counter.publisher.session.state is SessionState.UNVERIFIED
    assert counter.publisher.session.holder_id == ""
    assert not card.pins.satisfied
    assert not counter.channel.holding


async def test_a_shared_hold_is_as_configured() -> None:
    counter = Counter(Config(session=SessionConfig(hold=Hold.SHARED)))
    await counter.active()
    assert not any(counter.channel.exclusive)


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
    assert counter.publisher.card.pins.status == {"user": Known(card.pins.reference(PIN).left)}
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
    assert counter.ledger.in_flight(card.identity.guid.hex().upper())
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
    assert counter.publisher.card.pins.status == {"user": Known(3)}, "no try can be gone"
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
    assert counter.publisher.card.pins.status == {"user": Known(3)}


async def test_a_mute_card() -> None:
    counter = Counter()
    counter.report(present=True, mute=True, counter=1)
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


# two readers, a reader that goes, a service that goes


async def test_two_cards_are_two_states() -> None:
    second = "Fake Reader 01 00"
    counter = Counter(readers=(READER, second))
    counter.insert(make_card(holder="1"))
    counter.insert(make_card(holder="2"), second)
    await settle()
    one, two = sorted(counter.publisher.cards, key=lambda card: card.number)
    first = await counter.desks.open_session(one.number, DISPENSER, OpenRequest())
    other = await counter.desks.open_session(two.number, COLLEAGUE, OpenRequest())
    await counter.verify(first)
    counter.pull(second)
    await settle()
    assert counter.publisher.session.number == first
    assert counter.publisher.session.state is SessionState.ACTIVE
    assert counter.publisher.reasons() == ["card-removed"]
    assert await outcome(counter.desks.lock(other, COLLEAGUE)) == "SessionEnded"


async def test_a_reader_that_goes_takes_everything_along_and_is_not_seen_again() -> None:
    counter = Counter()
    _, session = await counter.active()
    channel = counter.channel
    counter.channel.paused = True
    asked = asyncio.ensure_future(outcome(counter.verify(session)))
    await settle()
    counter.unplug()
    assert await asked == "ReaderRemoved"
    await settle()
    assert counter.publisher.objects == {}
    assert counter.publisher.reasons() == ["reader-removed"]
    assert channel.closed
    counter.clock.advance(100)
    await settle()
    assert counter.publisher.objects == {}


async def test_a_late_surprise_from_a_reader_that_went_shows_no_ghost() -> None:
    counter = Counter()
    counter.channel.paused = True
    counter.insert(make_card())
    channel, desk = counter.channel, counter.desk

    def broken(*_: object) -> None:
        raise RuntimeError("our bug")

    channel.pump.before = broken
    await settle()
    counter.unplug()
    channel.paused = False
    channel.work()
    await settle()
    assert counter.publisher.objects == {}
    assert desk.state is State.GONE


async def test_a_card_service_that_goes_ends_every_session_for_that_reason() -> None:
    counter = Counter()
    _, session = await counter.active()
    counter.channel.paused = True
    asked = asyncio.ensure_future(outcome(counter.verify(session)))
    await settle()
    counter.list(Backend.PCSCD_DOWN)
    assert await asked == "BackendUnavailable"
    assert counter.publisher.reasons() == ["backend-lost"]
    assert counter.publisher.objects == {}
    assert counter.publisher.told("backend")[-1].facts is Backend.PCSCD_DOWN


async def test_stopping_ends_sessions_and_drops_authorities() -> None:
    counter = Counter()
    card, _ = await counter.active()
    await counter.desks.close()
    assert counter.publisher.reasons() == ["daemon-stopping"]
    assert not card.pins.satisfied
    assert counter.publisher.objects == {}


async def test_an_end_is_told_with_its_reason_to_whoever_asks_after() -> None:
    for reason in (EndReason.CLOSED, EndReason.LIFETIME_CLOSED, EndReason.FORCED):
        counter = Counter()
        card, session = await counter.active()
        await counter.desks.end(session, reason)
        assert counter.publisher.reasons() == [str(reason)]
        assert not card.pins.satisfied
        with pytest.raises(Failure) as error:
            await counter.verify(session)
        assert (error.value.problem, error.value.text) == (Problem.SESSION_ENDED, str(reason))
        await counter.desks.end(session, EndReason.CLOSED)  # no error
        assert counter.state is State.READY


async def test_two_ends_at_once_are_both_answered_and_the_first_reason_stays() -> None:
    counter = Counter()
    _, session = await counter.active()
    counter.channel.paused = True
    first = asyncio.ensure_future(counter.desks.end(session, EndReason.CLOSED))
    await settle()
    second = asyncio.ensure_future(counter.desks.end(session, EndReason.FORCED))
    await settle()
    counter.channel.resume()
    async with asyncio.timeout(10):
        await asyncio.gather(first, second)
    assert counter.publisher.reasons() == ["closed"]


async def test_the_first_reason_stays_even_if_the_reader_hangs_over_the_end() -> None:
    counter = Counter()
    _, session = await counter.active()
    counter.channel.paused = True
    end = asyncio.ensure_future(counter.desks.end(session, EndReason.CLOSED))
    await settle()
    counter.clock.advance(11)
    async with asyncio.timeout(10):
        await end
    assert counter.state is State.STUCK
    assert counter.publisher.reasons() == ["closed"]


# stuck


async def test_a_reader_that_hangs_is_published_and_stalls_no_other() -> None:
    second = "Fake Reader 01 00"
    counter = Counter(Config(readers=ReadersConfig(stuck_seconds=10.0)), (READER, second))
    counter.channel.paused = True
    counter.insert(make_card())
    counter.insert(make_card(), second)
    await settle()
    counter.clock.advance(9.9)
    assert counter.state is State.PROBING
    counter.clock.advance(0.2)
    stuck, fine = counter.publisher.readers
    assert (stuck.state, fine.state) == (ReaderState.STUCK, ReaderState.READY)
    assert stuck.last_error
    counter.channel.resume()
    await settle()
    assert counter.state is State.READY
    assert {reader.state for reader in counter.publisher.readers} == {ReaderState.READY}


async def test_a_reader_that_hangs_in_a_submission_ends_the_session_and_shows_no_count() -> None:
    counter = Counter()
    card = await counter.ready()
    session = await counter.open()
    asked = asyncio.ensure_future(outcome(counter.verify(session)))

    def hang(_: int, apdu: bytes) -> None:
        if is_verify_with_data(apdu):
            counter.clock.advance(11)  # the worker hangs, the loop goes on

    counter.channel.pump.before = hang
    assert await asked == Verdict(Outcome.UNCERTAIN, None)
    assert counter.publisher.reasons() == ["card-mute"]
    stale = [
        line.facts.pins
        for line in counter.publisher.told("show")
        if hasattr(line.facts, "pins") and line.facts.pins.source is Source.STALE
    ]
    assert stale, "a try may be gone: no number while nobody knows"
    await settle()
    assert counter.state is State.READY, "it answered after all"
    assert not card.pins.satisfied, "and left nobody verified"
    assert not counter.channel.holding
    assert counter.publisher.card.pins.status == {"user": Known(3)}


async def test_a_card_that_goes_while_the_reader_hangs() -> None:
    counter = Counter()
    counter.channel.paused = True
    counter.insert(make_card())
    await settle()
    counter.clock.advance(11)
    counter.pull()
    assert counter.publisher.cards == []
    assert counter.publisher.reader.state is ReaderState.STUCK
    counter.channel.resume()
    await settle()
    assert_empty(counter)


async def test_a_stuck_reader_s_card_that_is_called_mute_stays_one_card() -> None:
    counter = Counter()
    counter.channel.paused = True
    counter.insert(make_card())
    await settle()
    counter.clock.advance(11)
    number = counter.publisher.card.number
    counter.report(mute=True)
    assert counter.publisher.card.number == number
    counter.pull()
    assert counter.publisher.cards == []


async def test_a_reader_that_hung_over_an_old_card_is_called_stuck_for_the_next_one_too() -> None:
    counter = Counter()
    counter.channel.paused = True
    counter.insert(make_card())
    await settle()
    counter.pull()
    counter.clock.advance(11)
    assert counter.state is State.EMPTY
    counter.insert(make_card())
    await settle()
    counter.clock.advance(11)
    assert counter.publisher.reader.state is ReaderState.STUCK
    counter.channel.resume()
    await settle()
    assert counter.state is State.READY


async def test_a_stuck_reader_answers_calls_at_once() -> None:
    counter = Counter()
    counter.channel.paused = True
    counter.insert(make_card())
    await settle()
    counter.clock.advance(11)
    assert await outcome(counter.open(wait=5.0)) == "ReaderStuck"


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
    clock.advance(86_400)
    assert counter.publisher.card.days_left == 1
    clock.advance(2 * 86_400)
    assert counter.publisher.card.trust is Trust.EXPIRED
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

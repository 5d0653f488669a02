"""One reader from insertion to removal, as a subscriber and the callers see it."""

from __future__ import annotations

import pytest

from cardsession.config import Config, Hold, SessionConfig
from cardsession.core.errors import Failure
from cardsession.core.facts import Backend, CardState, ReaderState, SessionState, Trust
from cardsession.core.states import State
from cardsession.core.tries import Blocked, Known, Outcome, Source, Unknown, Verified
from cardsession.ports import Verdict
from cardsession.virtual.book import Kind
from cardsession.virtual.options import Slot
from cardsession.virtual.pins import PIN
from fakes.counter import (
    ATR,
    CANARY,
    DISPENSER,
    WRONG,
    Counter,
    make_card,
    outcome,
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
    assert shown.card.pins.status["user"] == Known(3)
    assert shown.card.pins.source is Source.CARD
    assert len(shown.told("card-ready")) == 1
    assert shown.reader.state is ReaderState.READY

    session = await counter.open(purpose="dispensing")
    assert shown.session.state is SessionState.UNVERIFIED
    assert (shown.session.owner, shown.session.holder_id) == (DISPENSER.name, "")
    assert shown.card.session == session

    assert await counter.verify(session, WRONG) == Verdict(Outcome.INCORRECT, 2)
    assert shown.card.pins.status["user"] == Known(2)
    assert shown.card.pins.source is Source.LAST_VERIFY
    assert shown.session.state is SessionState.UNVERIFIED
    assert not counter.channel.holding

    assert await counter.verify(session) == Verdict(Outcome.VERIFIED, None)
    assert shown.session.state is SessionState.ACTIVE
    assert shown.session.holder_id == "555012345678"
    assert shown.card.pins.status["user"] == Verified()
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
    assert shown.card.pins.status["user"] == Known(3)
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
    assert cards[-1].pins.status["user"] == (Known(2) if text == WRONG else Verified())
    assert verdict.left == (2 if text == WRONG else None)
    assert not [line for line in lines[reply:] if line.what == "show" and line.facts in cards]


async def test_a_blocked_pin_ends_the_session_after_the_reply_s_count() -> None:
    counter = Counter()
    card = await counter.ready(make_card(tries=1))
    assert counter.publisher.card.pins.status["user"] == Known(1)
    session = await counter.open()
    assert await counter.verify(session, WRONG) == Verdict(Outcome.REFUSED_LAST_TRY, 1)
    assert card.book.wrong() == 0
    verdict = await counter.verify(session, WRONG, spend_last_try=True)
    assert verdict == Verdict(Outcome.NOW_BLOCKED, 0)
    await settle()
    assert counter.publisher.reasons() == ["pin-blocked"]
    assert counter.publisher.card.pins.status["user"] == Blocked()
    session = await counter.open()
    assert await counter.verify(session, spend_last_try=True) == Verdict(Outcome.WAS_BLOCKED, 0)
    assert card.book.wrong() == 1


async def test_an_unknown_count_is_shown_as_none() -> None:
    counter = Counter()
    counter.channel.pump.before = lambda _, apdu: (
        b"\x6a\x80" if apdu[1:3] == b"\x20\x00" and len(apdu) == 4 else None
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
    assert {raw[1] for raw in card.heard} == {0xA4}, "asked who it is, and nothing else"
    heard = len(card.heard)
    assert await outcome(counter.open()) == "NotSupported"
    assert len(card.heard) == heard
    assert counter.publisher.told("card-ready") == []


async def test_a_blank_card() -> None:
    counter = Counter()
    await counter.ready(make_card(slots=()))
    assert counter.publisher.card.state is CardState.BLANK
    assert counter.publisher.card.standing.trust is Trust.NO_CERTIFICATE


async def test_a_card_that_withholds_its_certificate_is_not_blank(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    card = make_card()
    process = card.process

    def withholding(apdu: bytes) -> bytes:
        return b"\x69\x82" if bytes.fromhex("5C035FC105") in apdu else process(apdu)

    monkeypatch.setattr(card, "process", withholding)
    counter = Counter()
    await counter.ready(card)
    assert counter.publisher.card.state is CardState.READY
    assert counter.publisher.card.holder is None


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


# asking, locking, staying


async def test_a_query_asks_the_card_and_leaves_the_session() -> None:
    counter = Counter()
    card = await counter.ready()
    session = await counter.open()
    card.pins.reference(PIN).left = 1
    assert await counter.desks.query(session, DISPENSER, "user") == Known(1)
    assert counter.publisher.card.pins.status["user"] == Known(1)
    assert counter.state is State.UNVERIFIED
    assert await outcome(counter.desks.query(session, DISPENSER, "third")) == "NoSuchPin"


async def test_a_query_while_active_asks_nothing() -> None:
    counter = Counter()
    _, session = await counter.active()
    exchanges = counter.channel.exchanges
    assert await counter.desks.query(session, DISPENSER, "user") == Verified()
    assert counter.channel.exchanges == exchanges
    assert await outcome(counter.desks.query(session, DISPENSER, "third")) == "NoSuchPin"


async def test_lock_and_unlock() -> None:
    counter = Counter()
    card, session = await counter.active()
    await counter.desks.lock(session, DISPENSER)
    assert counter.publisher.session.state is SessionState.LOCKED
    assert (counter.publisher.session.holder_id, counter.publisher.session.verified_usec) == ("", 0)
    assert not card.pins.satisfied
    assert not counter.channel.holding
    assert counter.publisher.card.pins.status["user"] == Known(3)
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


@pytest.mark.parametrize(
    ("profiles", "wanted"), [(["piv"], Outcome.VERIFIED), ([], Outcome.REFUSED_UNKNOWN)]
)
async def test_a_site_may_accept_unknown_counts_for_a_profile(
    profiles: list[str], wanted: Outcome
) -> None:
    counter = Counter(Config(session=SessionConfig(accept_unknown=frozenset(profiles))))

    def silent(_: int, apdu: bytes) -> bytes | None:
        return bytes.fromhex("6A80") if apdu == bytes.fromhex("00200080") else None

    counter.channel.pump.before = silent
    await counter.ready()
    session = await counter.open()
    assert (await counter.verify(session)).outcome is wanted

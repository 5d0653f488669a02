"""A new passcode: judged by the old one's counter, or by the PUK's, and by the site's rules."""

from __future__ import annotations

import pytest

from cardsession.config import CardConfig, Config, PinConfig, SessionConfig
from cardsession.core.facts import EndReason, Remedy
from cardsession.core.states import State
from cardsession.core.tries import Act, Blocked, Known, Outcome, Unknown
from cardsession.virtual.book import Kind
from fakes.counter import CANARY, WRONG, Counter, make_card, outcome, settle

NEW = "86421357"
PUK = "12345678"
PIN = 0x80
UNBLOCKING = Config(pin=PinConfig(unblock=frozenset({"piv"})))


async def test_the_passcode_is_changed_and_the_change_is_known() -> None:
    counter = Counter(Config(pin=PinConfig(change_days=30)))
    card = await counter.ready()
    session = await counter.open()
    verdict = await counter.replace_pin(session, Act.CHANGE, CANARY, NEW)
    assert verdict.outcome is Outcome.CHANGED
    assert counter.state is State.UNVERIFIED, "a change is no log-in"
    assert not counter.channel.holding
    shown = counter.publisher.card.pins
    assert shown.status["user"] == Known(3), "nobody is left verified"
    assert shown.changed_usec == counter.clock.usec()
    assert (await counter.verify(session, NEW)).outcome is Outcome.VERIFIED
    assert counter.trail.told("pin.judged")[0]["act"] == "change"
    counter.pull()
    counter.clock.advance(31 * 86_400)
    await counter.ready(card)


async def test_a_change_while_active_leaves_the_session_active() -> None:
    counter = Counter()
    _, session = await counter.active()
    verdict = await counter.replace_pin(session, Act.CHANGE, CANARY, NEW)
    assert verdict.outcome is Outcome.CHANGED
    assert counter.state in {State.ACTIVE, State.UNVERIFIED}
    assert counter.channel.holding is (counter.state is State.ACTIVE)


@pytest.mark.parametrize("active", [False, True])
async def test_a_wrong_old_passcode_is_counted(active: bool) -> None:
    counter = Counter()
    card = await counter.ready()
    session = await counter.open()
    if active:
        await counter.verify(session)
    verdict = await counter.replace_pin(session, Act.CHANGE, WRONG, NEW)
    assert (verdict.outcome, verdict.left) == (Outcome.INCORRECT, 2)
    assert counter.publisher.card.pins.status["user"] == Known(2)
    assert counter.state is State.UNVERIFIED
    assert card.book.tally(Kind.CHANGE, PIN).wrong == 1


async def test_the_last_try_is_kept_back_from_a_change_too() -> None:
    counter = Counter()
    card = await counter.ready()
    card.pins.reference(PIN).left = 1
    session = await counter.open()
    verdict = await counter.replace_pin(session, Act.CHANGE, WRONG, NEW)
    assert (verdict.outcome, verdict.left) == (Outcome.REFUSED_LAST_TRY, 1)
    assert card.book.tally(Kind.CHANGE, PIN).wrong == 0
    verdict = await counter.replace_pin(session, Act.CHANGE, WRONG, NEW, spend_last_try=True)
    assert verdict.outcome is Outcome.NOW_BLOCKED
    await settle()
    assert counter.publisher.reasons() == [EndReason.PIN_BLOCKED]


@pytest.mark.parametrize("new", ["1234", "123456789", "12345a", "passcode"])
async def test_a_new_passcode_obeys_the_sites_rule_and_an_old_one_does_not(new: str) -> None:
    counter = Counter()
    card = await counter.ready()
    session = await counter.open()
    verdict = await counter.replace_pin(session, Act.CHANGE, CANARY, new)
    assert (verdict.outcome, verdict.left) == (Outcome.BAD_NEW_PIN, None)
    assert card.book.tally(Kind.CHANGE, PIN).right == 0
    assert (await counter.verify(session, "abcd")).outcome is not Outcome.BAD_NEW_PIN


async def test_unblocking_is_off_unless_the_site_enables_it() -> None:
    counter = Counter()
    card = await counter.ready()
    session = await counter.open()
    asked = counter.replace_pin(session, Act.UNBLOCK, PUK, NEW, accept_unknown=True)
    assert await outcome(asked) == "NotSupported"
    assert card.book.tally(Kind.RESET, 0x81).right == 0


async def test_a_blocked_passcode_is_unblocked_with_the_puk_and_consent() -> None:
    counter = Counter(UNBLOCKING)
    card = make_card(organisation="a hospital")
    card.pins.reference(PIN).left = 0
    await counter.ready(card)
    assert Remedy.UNBLOCK in counter.publisher.card.remedies
    assert counter.publisher.card.pins.status["user"] == Blocked()
    assert counter.publisher.card.pins.issued_locked
    session = await counter.open()
    verdict = await counter.replace_pin(session, Act.UNBLOCK, PUK, NEW)
    assert verdict.outcome is Outcome.REFUSED_UNKNOWN, "nothing is known of the PUK's counter"
    verdict = await counter.replace_pin(session, Act.UNBLOCK, PUK, NEW, accept_unknown=True)
    assert verdict.outcome is Outcome.UNBLOCKED
    assert counter.publisher.card.pins.status["user"] == Known(3)
    assert counter.publisher.card.remedies == ()
    assert counter.state is State.UNVERIFIED
    assert (await counter.verify(session, NEW)).outcome is Outcome.VERIFIED


async def test_a_wrong_puk_is_counted_as_the_puks() -> None:
    counter = Counter(UNBLOCKING)
    card = await counter.ready()
    session = await counter.open()
    verdict = await counter.replace_pin(session, Act.UNBLOCK, WRONG, NEW, accept_unknown=True)
    assert verdict.outcome is Outcome.INCORRECT
    left = card.pins.reference(0x81).left
    assert verdict.left == left
    assert counter.publisher.card.pins.status["puk"] == Known(left)
    assert card.pins.reference(PIN).left == 3
    # from here on the ledger guards it, over a reinsertion as well
    for _ in range(left - 2):
        await counter.replace_pin(session, Act.UNBLOCK, WRONG, NEW, accept_unknown=True)
    counter.pull()
    await counter.ready(card)
    assert counter.publisher.card.pins.status["puk"] == Unknown()
    session = await counter.open()
    while card.pins.reference(0x81).left > 1:
        await counter.replace_pin(session, Act.UNBLOCK, WRONG, NEW, accept_unknown=True)
    verdict = await counter.replace_pin(session, Act.UNBLOCK, WRONG, NEW, accept_unknown=True)
    assert verdict.outcome is Outcome.REFUSED_LAST_TRY
    assert card.pins.reference(0x81).left == 1, "a blocked PUK can destroy the card"


async def test_a_temporary_card_says_who_uses_it() -> None:
    card = make_card()
    serial = card.identity.guid.hex().upper()
    counter = Counter(Config(card=CardConfig(temporary=frozenset({serial}))))
    await counter.ready(card)
    assert counter.publisher.card.temporary
    assert await outcome(counter.open()) == "UsedByRequired"
    await counter.open(used_by="Dr. A. Locum")
    assert counter.trail.told("session.opened")[0]["used_by"] == "Dr. A. Locum"


async def test_the_trail_tells_who_did_what_with_which_card() -> None:
    counter = Counter(Config(session=SessionConfig()))
    card, session = await counter.active()
    await counter.desks.end(session, EndReason.CLOSED)
    counter.pull()
    told = [entry["event"] for entry in counter.trail.entries]
    assert told == ["card.read", "session.opened", "pin.judged", "session.ended", "card.gone"]
    for entry in counter.trail.entries:
        assert entry["serial"] == card.identity.guid.hex().upper()
        assert entry["holder"] == "555012345678"
    assert counter.trail.told("session.ended")[0]["reason"] == "closed"
    assert CANARY not in repr(counter.trail.entries)

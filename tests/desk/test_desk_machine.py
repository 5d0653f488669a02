"""A card, a desk, callers, a rival and time, in any order: what holds whatever happens.

The card's own book is the judge: it counts every try that was taken away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cardsession.core.errors import Failure, Problem
from cardsession.core.facts import CardState, ReaderState, SessionState
from cardsession.core.states import State
from cardsession.core.tries import Known, Outcome, PinStatus, Source, left
from cardsession.ports import Verdict
from cardsession.shown import READER_STATES, SESSION_STATES
from cardsession.virtual.card import VirtualCard
from cardsession.virtual.pins import PIN
from fakes.channel import is_verify_with_data, removed
from fakes.counter import (
    CANARY,
    COLLEAGUE,
    DISPENSER,
    WRONG,
    Counter,
    make_card,
    outcome,
    read,
    settle,
)

SELECT = bytes.fromhex("00A404000BA000000308000010000100")
UNDER_WAY = {
    State.PROBING, State.OPENING, State.VERIFYING, State.REVERIFYING, State.UNLOCKING,
    State.QUERYING, State.QUERYING_LOCKED, State.LOCKING, State.CLOSING, State.RELEASING,
}  # fmt: skip


class Seat(RuleBasedStateMachine):
    """One reader and whatever can happen at it."""

    @initialize(
        tries=st.integers(0, 3),
        deauthentication=st.booleans(),
        start=st.sampled_from(["nothing", "card", "session", "active", "locked"]),
    )
    def begin(self, tries: int, start: str, *, deauthentication: bool) -> None:
        """Two cards lie on the counter, or the day began already."""
        self.loop = asyncio.new_event_loop()
        self.counter: Counter = self.run(self._counter())
        self.cards: list[VirtualCard] = [
            make_card(tries=tries, deauthentication=deauthentication),
            make_card(holder="222222222222"),
        ]
        self.here: VirtualCard | None = None
        self.sessions: dict[int, Any] = {}
        self.pending: list[asyncio.Future[Any]] = []
        self.answers: list[Any] = []
        self.submissions = 0
        self.rival_tries = 0
        self.rival_came = self.lies = False
        self.told: set[int] = set()
        self.strike: Callable[[int, bytes], bytes | None] = lambda _, __: None
        self.counter.channel.pump.after = self._after
        self._start(["nothing", "card", "session", "active", "locked"].index(start))

    def _start(self, steps: int) -> None:
        if steps > 0:
            self.insert(0)
        if steps > 1:
            self.open(DISPENSER, 0.0, replace=False)
        if steps > 2:
            self.verify(CANARY, last=True)
        if steps > 3:
            self.call("lock")

    def _after(self, number: int, apdu: bytes, _: bytes) -> bytes | None:
        """What the card had whenever it was asked; then whatever goes wrong."""
        if apdu[1] == 0x20 and self.here:
            self.told.add(self.here.pins.reference(PIN).left)
        return self.strike(number, apdu)

    async def _counter(self) -> Counter:
        return Counter()

    def teardown(self) -> None:
        """Nobody is left waiting, whatever happened."""
        if not hasattr(self, "loop"):
            return
        self.run(self._farewell())
        self.loop.close()

    async def _farewell(self) -> None:
        self.counter.channel.resume()
        await settle()
        for _ in range(3):
            self.counter.clock.advance(30)
            await settle()
        self.counter.unplug()
        await settle()
        assert all(each.done() for each in self.pending), "somebody waits for ever"
        assert self.counter.publisher.objects == {}
        assert not any(card.pins.satisfied for card in self.cards)

    def run(self, work: Awaitable[Any]) -> Any:
        """Work on this machine's loop."""
        return self.loop.run_until_complete(work)

    def ask(self, work: Awaitable[Any]) -> None:
        """A caller asks, and does not wait here."""

        async def begin() -> None:
            self.pending.append(asyncio.ensure_future(outcome(work)))
            await settle()

        self.run(begin())

    # what people do

    @precondition(lambda self: self.here is None)
    @rule(which=st.integers(0, 1))
    def insert(self, which: int) -> None:
        """A card comes."""
        self.here = self.cards[which]
        self.run(self._do(lambda: self.counter.insert(self.cards[which])))

    @precondition(lambda self: self.here is not None)
    @rule(noticed=st.booleans())
    def pull(self, *, noticed: bool) -> None:
        """It goes; the status wait may sleep a little longer."""
        self.here = None
        self.run(self._do(lambda: self.counter.pull(noticed=noticed)))

    @precondition(lambda self: self.here is not None)
    @rule()
    def mute(self) -> None:
        """The status wait calls the card mute."""
        self.run(self._do(lambda: self.counter.report(mute=True)))

    @rule()
    def look(self) -> None:
        """The status wait tells what is there."""
        self.run(self._do(self.counter.list))

    async def _do(self, work: Any) -> None:
        work()
        await settle()

    @precondition(lambda self: self.counter.publisher.cards)
    @rule(
        caller=st.sampled_from([DISPENSER, COLLEAGUE]),
        wait=st.sampled_from([0.0, 5.0]),
        replace=st.booleans(),
    )
    def open(self, caller: Any, wait: float, *, replace: bool) -> None:
        """OpenSession."""

        async def opened() -> Any:
            number = await self.counter.open(caller, wait=wait, replace=replace)
            self.sessions[number] = caller
            return number

        self.ask(opened())

    @precondition(lambda self: self.sessions)
    @rule(
        text=st.sampled_from([CANARY, WRONG, "abcdefgh", "1" * 9]),
        last=st.booleans(),
    )
    def verify(self, text: str, *, last: bool) -> None:
        """VerifyPin, of the latest session."""
        number = max(self.sessions, default=0)
        self.submissions += 1

        async def verified() -> Any:
            return await self.counter.submit(
                number, read(text), self.sessions.get(number, DISPENSER), spend_last_try=last
            )

        self.ask(verified())

    @precondition(lambda self: self.sessions)
    @rule(what=st.sampled_from(["query", "lock", "keep_alive"]))
    def call(self, what: str) -> None:
        """QueryPin, Lock, KeepAlive."""
        number = max(self.sessions, default=0)
        more = ("user",) if what == "query" else ()
        self.ask(
            getattr(self.counter.desks, what)(number, self.sessions.get(number, DISPENSER), *more)
        )

    @rule(caller=st.sampled_from([DISPENSER, COLLEAGUE]))
    def leave(self, caller: Any) -> None:
        """A connection is closed."""
        self.run(self._do(lambda: self.counter.desks.caller_gone(caller.name)))

    @rule(seconds=st.sampled_from([0.5, 3.0, 6.0, 12.0, 70.0, 1000.0]))
    def wait(self, seconds: float) -> None:
        """Time goes by."""
        self.run(self._do(lambda: self.counter.clock.advance(seconds)))

    # what readers, cards and rivals do

    @precondition(lambda self: not self.counter.channel.paused)
    @rule()
    def hang(self) -> None:
        """The worker does not get on."""
        self.counter.channel.paused = True

    @precondition(lambda self: self.counter.channel.paused)
    @rule()
    def go_on(self) -> None:
        """It does again."""
        self.run(self._do(self.counter.channel.resume))

    @precondition(lambda self: self.here is not None and not self.counter.channel.holding)
    @rule(text=st.sampled_from([CANARY, WRONG]))
    def rival(self, text: str) -> None:
        """Another program tries a passcode, and leaves the card as it then is."""
        assert self.here is not None
        wrong = self.here.book.wrong()
        self.here.process(SELECT)
        self.here.process(b"\x00\x20\x00\x80\x08" + text.encode())
        self.rival_tries += self.here.book.wrong() - wrong
        self.rival_came = True

    @rule(elsewhere=st.booleans())
    def hold(self, *, elsewhere: bool) -> None:
        """Another program holds the card, or lets go of it."""
        self.counter.channel.elsewhere = elsewhere

    @rule(
        after=st.integers(1, 6),
        what=st.sampled_from(["reset", "pull", "noise", "silence", "garbage to verify"]),
    )
    def trouble(self, after: int, what: str) -> None:
        """Something goes wrong once, some exchanges from now."""
        pump = self.counter.channel.pump
        at = len(pump.apdus) + after

        def strike(number: int, apdu: bytes) -> bytes | None:
            if what == "garbage to verify":
                return b"\x6f\x00" if is_verify_with_data(apdu) and number >= at else None
            if number != at:
                return None
            match what:
                case "reset":
                    if self.here:
                        self.here.reset()
                    raise Failure(Problem.CARD_RESET, "another program reset the card")
                case "pull":
                    self.here = None
                    self.counter.pull()
                    raise removed()
                case "noise":
                    self.lies = True
                    return b"\x13\x37"
            return b""

        self.strike = strike

    # what holds

    @invariant()
    def tries_are_never_spent_twice(self) -> None:
        """The card's book holds no more than was submitted."""
        if not hasattr(self, "counter"):
            return
        wrong = sum(card.book.wrong() for card in self.cards)
        assert wrong - self.rival_tries <= self.submissions
        assert len(self.counter.channel.pump.verifies) <= self.submissions

    @invariant()
    def what_is_shown_is_what_the_card_had_when_it_was_read(self) -> None:
        """A count from the card, with nobody but us at it, is the card's."""
        if not hasattr(self, "counter") or not self.counter.publisher.cards:
            return
        shown = self.counter.publisher.card
        status = shown.pins.status.get("user")
        real = [card for card in self.cards if card.identity.guid.hex().upper() == shown.serial]
        if not real or self.lies or self.counter.state in {*UNDER_WAY, State.STUCK}:
            return
        if isinstance(status, Known):
            assert status.left in self.told, "a number that the card never told"
            if not self.rival_came:
                assert status.left == real[0].pins.reference(PIN).left
        if shown.pins.source in {Source.STALE, Source.NONE}:
            assert status is None or left(status) is None

    @invariant()
    def published_states_follow_the_seat_s(self) -> None:
        """No ghost, and one story."""
        if not hasattr(self, "counter"):
            return
        shown, state = self.counter.publisher, self.counter.state
        assert shown.reader.state is READER_STATES.get(state, ReaderState.READY)
        if state is State.EMPTY:
            assert (shown.cards, shown.sessions) == ([], [])
        if state in SESSION_STATES:
            assert shown.session.state is SESSION_STATES[state]
        elif state not in {State.CLOSING, State.RELEASING}:
            assert shown.sessions == []
        if shown.cards:
            assert shown.reader.card == shown.card.number
            assert shown.card.session == (shown.session.number if shown.sessions else None)
            assert (shown.card.state is CardState.PROBING) <= (
                state in {State.PROBING, State.ELSEWHERE, State.STUCK}
            )

    @invariant()
    def authority_is_held_only_while_active(self) -> None:
        """Nobody is verified by us when nothing is under way and the session is not active."""
        if not hasattr(self, "counter"):
            return
        state, channel = self.counter.state, self.counter.channel
        if channel.queued or state in UNDER_WAY or state is State.STUCK:
            return
        assert channel.holding == (state is State.ACTIVE)
        if self.counter.publisher.sessions and state is not State.ACTIVE:
            session = self.counter.publisher.session
            assert session.state is not SessionState.ACTIVE
            assert session.holder_id == ""

    @invariant()
    def answers_make_sense(self) -> None:
        """A verdict's number and what went before it agree."""
        for each in [each for each in getattr(self, "pending", []) if each.done()]:
            self.pending.remove(each)
            answer = each.result()
            assert answer != "Internal"
            if isinstance(answer, Verdict):
                assert (answer.outcome is Outcome.VERIFIED) <= (answer.left is None)
                assert (answer.outcome is Outcome.NOW_BLOCKED) <= (answer.left == 0)
            assert isinstance(answer, Verdict | int | str | PinStatus | None)

    @invariant()
    def no_fault(self) -> None:
        """Nothing of this is our bug."""
        if hasattr(self, "counter"):
            assert self.counter.publisher.reader.last_error != "an internal error"


TestSeat = Seat.TestCase
TestSeat.settings = settings(
    max_examples=120,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)

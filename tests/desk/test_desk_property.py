"""Cards, the daemon, a rival, people and time, in any order: what holds whatever happens.

Wrong passcodes that a card counted never exceed what was submitted; the bus shows what the card
had at `PinTriesReadUSec`; no secret goes to another card than the one it was meant for; nothing is
sent at one try left, or at an unknown count, without consent; pulling a card earns no try. The
rival's own tries, resets and left-over verifications are part of it, and so are CHANGE REFERENCE
DATA and RESET RETRY COUNTER. What is demanded is in `fakes.witness`.

`CARDSESSION_PROPERTY_SECONDS=3600` makes it run so long, each time with another seed.
"""

from __future__ import annotations

import os
import random
import sys
import time

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule, run_state_machine_as_test

from cardsession.config import Config, Hold, PinConfig, SessionConfig
from cardsession.core.errors import Problem
from cardsession.core.facts import ReaderState, SessionState
from cardsession.core.policy import Removal
from cardsession.core.states import State
from cardsession.core.tries import Consent, Outcome
from cardsession.ports import Verdict
from cardsession.shown import READER_STATES, SESSION_STATES
from fakes.line import AT, Armed, Trouble
from fakes.people import People
from fakes.rival import ACTS
from fakes.specimens import RECIPES
from fakes.world import READERS, World

AT_REST = {State.READY, State.EMPTY, State.UNVERIFIED, State.ACTIVE, State.LOCKED, State.KEPT}
NAMES = [*RECIPES, *(name for name, each in RECIPES.items() if not each.free)]
"""Cards that may not be asked come twice as often."""
STARTS = ("nothing", "card", "session", "active", "locked")


class Counter(People):
    """A day at the counter; see the module."""

    @initialize(
        cards=st.lists(st.sampled_from(NAMES), min_size=3, max_size=3, unique=True),
        removal=st.sampled_from(Removal),
        hold=st.sampled_from(Hold),
        accept=st.sampled_from(["", "", "pkcs15"]),
        worn=st.lists(st.sampled_from([0, 0, 0, 1, 1, 2, 3]), min_size=3, max_size=3),
        start=st.sampled_from(STARTS),
        on_disk=st.integers(0, 7).map(lambda number: number == 7),
    )
    def begin(  # noqa: PLR0913 - what a day begins with
        self,
        *,
        cards: list[str],
        removal: Removal,
        hold: Hold,
        accept: str,
        worn: list[int],
        start: str,
        on_disk: bool,
    ) -> None:
        """The day begins, or began already."""
        accepted = frozenset({accept} - {""})
        session = SessionConfig(removal=removal, hold=hold, accept_unknown=accepted)
        config = Config(session=session, pin=PinConfig(unblock=frozenset({"piv", "pkcs15"})))
        self.world = World(tuple(cards), config, on_disk=on_disk).__enter__()
        for card, left in zip(self.world.cards, worn, strict=True):
            card.worn(card.recipe.pins["user"], 3 - left)
        stage = STARTS.index(start)
        if stage > 0:
            self.insert(0, 0, mute=False, told=True)
        if stage > 1:
            self.open(0, 0, 0.0, take=False)
        if stage > 2:
            consent = Consent(spend_last_try=True, accept_unknown=True)
            self.verify(0, "right", "user", consent, twice=False)
        if stage > 3:
            self.call(0, "lock")

    def teardown(self) -> None:
        """Everybody is answered, and nobody left verified, whatever happened."""
        if not hasattr(self, "world"):
            return
        try:
            self._farewell()
        finally:
            self.world.__exit__(None, None, None)

    def _farewell(self) -> None:
        world = self.world
        world.line.armed = None
        world.rival.give_up()
        for name in list(world.rival.handles):
            world.rival.release(name, reset=False)
        if world.pcscd.down:
            self._service()
        for worker in world.workers:
            worker.hung = False
        world.do(world.notice)
        world.wait(30.0)
        world.restart()
        self.rest()
        self.nobody_is_left_verified()

    # the rival

    @rule(which=st.integers(0, 1), what=st.sampled_from(sorted(ACTS)), reset=st.booleans())
    def rival(self, which: int, what: str, *, reset: bool) -> None:
        """Another program does something at a card, and leaves it so, or resets it."""
        slot = self._slot(which)
        if slot is not None:
            self.world.do(lambda: self.world.rival.act(slot, what, reset=reset))

    @rule(which=st.integers(0, 1), kind=st.sampled_from(["shared", "exclusive", "transaction"]))
    def rival_stays(self, which: int, kind: str) -> None:
        """It keeps the card, or lets go of it."""
        rival, name = self.world.rival, READERS[which]
        if name in rival.handles:
            self.world.do(lambda: rival.release(name, reset=kind == "exclusive"))
        else:
            self.world.do(lambda: rival.keep(name, kind))
        self.world.do(self.world.list)

    @rule(what=st.sampled_from(sorted(ACTS)), reset=st.booleans(), gaps=st.integers(0, 4))
    def rival_waits(self, what: str, gaps: int, *, reset: bool) -> None:
        """It comes in when there is a gap between two calls of ours."""
        self.world.rival.wait(what, gaps, reset=reset)

    # faults

    @rule(
        trouble=st.sampled_from(Trouble),
        at=st.sampled_from(sorted(AT)),
        after=st.integers(1, 6),
    )
    def trouble(self, trouble: Trouble, at: str, after: int) -> None:
        """Something will go wrong once, at a command of ours."""
        self.world.line.armed = Armed(trouble, AT[at], after if at == "any" else 1)

    # what holds

    @invariant()
    def rest(self) -> None:
        """What the witness saw, and said nothing of until now."""
        if not hasattr(self, "world"):
            return
        witness = self.world.witness
        witness.books()
        for text in self.world.news():
            witness.silent(text)
        for event in self.world.events:
            known = str(event.get("event")).endswith("fault")
            witness.demand(not known, f"our bug: {event}")
        self.world.events.clear()
        self.world._told[2] = 0
        assert witness.violations == []

    @invariant()
    def answers(self) -> None:
        """They make sense."""
        if not hasattr(self, "world"):
            return
        for each in self.world.answers:
            assert each != Problem.INTERNAL.value
            if isinstance(each, Verdict):
                assert (each.outcome is Outcome.VERIFIED) <= (each.left is None)
                assert (each.outcome is Outcome.NOW_BLOCKED) <= (each.left == 0)
        self.world.answers.clear()

    @invariant()
    def nobody_is_left_verified(self) -> None:
        """By us, but in a session that is active."""
        if not hasattr(self, "world"):
            return
        world = self.world
        for slot in world.pcscd.slots.values():
            card = slot.chip
            if card is None or not card.by_us or world.unsettled(slot.name):
                continue
            sessions = [each for each in world.publisher.sessions if each.reader_id == slot.name]
            mine = [each for each in sessions if world.witness.session_cards[each.number] is card]
            live = (SessionState.ACTIVE, SessionState.VERIFYING)
            assert [each for each in mine if each.state in live], f"{card} is verified by us"

    @invariant()
    def no_ghosts(self) -> None:
        """A session's card is the one that lies there, once everybody has noticed."""
        if not hasattr(self, "world"):
            return
        world = self.world
        for facts in world.publisher.cards:
            slot = world.pcscd.slots.get(facts.reader_id)
            if slot is None or slot.moves or world.unsettled(facts.reader_id):
                continue
            shown = world.witness.specimen_of(facts)
            reader = world.publisher.objects["reader", facts.reader_id]
            if reader.state is ReaderState.READY and shown is not None:
                assert shown is slot.chip, f"{shown} is shown, {slot.chip} lies there"
        for session in world.publisher.sessions:
            if session.card is not None and ("card", session.card) in world.publisher.objects:
                facts = world.publisher.objects["card", session.card]
                meant = world.witness.session_cards[session.number]
                assert world.witness.specimen_of(facts) is meant

    @invariant()
    def one_story(self) -> None:
        """What is shown follows the seat's state, and a card is held only for an active session."""
        if not hasattr(self, "world"):
            return
        publisher = self.world.publisher
        for name, desk in self.world.desks._desks.items():
            state, reader = desk.state, publisher.objects["reader", name]
            assert reader.state is READER_STATES.get(state, ReaderState.READY)
            sessions = [each.state for each in publisher.sessions if each.reader_id == name]
            if state in SESSION_STATES:
                assert sessions == [SESSION_STATES[state]]
            elif state not in {State.CLOSING, State.RELEASING}:
                assert sessions == []
            if state in AT_REST and not self.world.unsettled(name):
                assert desk._channel.holding == (state is State.ACTIVE)


_LIMITS = settings(
    max_examples=2000,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=False,
    report_multiple_bugs=False,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)
_SECONDS = float(os.environ.get("CARDSESSION_PROPERTY_SECONDS", "0"))


@pytest.mark.slow
@pytest.mark.timeout(0 if _SECONDS else 900)
def test_whatever_happens() -> None:
    if not _SECONDS:
        run_state_machine_as_test(Counter, settings=_LIMITS)
    until = time.monotonic() + _SECONDS
    while _SECONDS and time.monotonic() < until:
        number = random.SystemRandom().randrange(1 << 32)
        print("seed", number, file=sys.stderr, flush=True)  # noqa: T201 - to run it again
        limits = settings(_LIMITS, derandomize=False)
        run_state_machine_as_test(seed(number)(Counter), settings=limits)

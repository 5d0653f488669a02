"""Cards, the daemon, a rival, people and time, in any order: what holds whatever happens.

Wrong passcodes that a card counted never exceed what was submitted; the bus shows what the card
had at `PinTriesReadUSec`; no secret goes to another card than the one it was meant for; nothing is
sent at one try left, or at an unknown count, without consent; pulling a card earns no try. The
rival's own tries, resets and left-over verifications are part of it, and so are CHANGE REFERENCE
DATA and RESET RETRY COUNTER. What is demanded is in `fakes.witness`.

`CARDSESSION_PROPERTY_SECONDS=3600` makes it run so long, each time with another seed.
"""

from __future__ import annotations

import hashlib
import os
import random
import sys
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from cardsession.config import Config, Hold, PinConfig, SessionConfig
from cardsession.core.errors import Problem
from cardsession.core.facts import EndReason, ReaderState, SessionFacts, SessionState
from cardsession.core.policy import Removal
from cardsession.core.signing import Algorithm
from cardsession.core.tries import Act, Consent, Outcome
from cardsession.ports import Caller, OpenRequest, PinRequest, SignRequest, Verdict
from fakes.specimens import PASSCODES, RECIPES, SELECT_ANOTHER, Specimen
from fakes.witness import Submission, act_reference
from fakes.world import AT, READERS, Armed, Slot, Trouble, World, reading

DIGEST = hashlib.sha256(b"a prescription").digest()
APDUS = (
    bytes.fromhex("00CB3FFF055C035FC10200"),  # GET DATA: the CHUID
    SELECT_ANOTHER,
    bytes.fromhex("0020008008") + PASSCODES[0].encode(),  # VERIFY: not on the list
)
TYPED = st.sampled_from(["right", "wrong", "wrong", "long", "empty", "another"])
CONSENTS = st.sampled_from(
    [Consent(), Consent(), Consent(spend_last_try=True), Consent(accept_unknown=True),
     Consent(spend_last_try=True, accept_unknown=True)]
)  # fmt: skip
CONFIGS = st.builds(
    lambda removal, hold, accept: Config(
        session=SessionConfig(removal=removal, hold=hold, accept_unknown=accept),
        pin=PinConfig(unblock=frozenset({"piv", "pkcs15"})),
    ),
    st.sampled_from(Removal),
    st.sampled_from(Hold),
    st.sampled_from([frozenset(), frozenset(), frozenset({"pkcs15"})]),
)
STARTS = ("nothing", "card", "session", "active", "locked")


class Counter(RuleBasedStateMachine):
    """Two readers, three cards, three callers and a rival."""

    world: World

    @initialize(
        cards=st.lists(st.sampled_from(RECIPES), min_size=3, max_size=3, unique=True),
        config=CONFIGS,
        worn=st.lists(st.integers(0, 3), min_size=3, max_size=3),
        start=st.sampled_from(STARTS),
        durable=st.integers(0, 7).map(lambda number: number == 7),
    )
    def begin(  # noqa: PLR0913 - what a day begins with
        self, cards: list[Any], config: Config, worn: list[int], start: str, durable: bool
    ) -> None:
        """The day begins, or began already."""
        self.world = World(tuple(cards), config, durable=durable).__enter__()
        for card, left in zip(self.world.cards, worn, strict=True):
            card.worn(card.recipe.pins["user"], 3 - left)
        self.typed = 0
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
        world.armed = world.intruder = None
        for name in list(world.rivals):
            world.release(name, reset=False)
        if world.pcscd.down:
            self.service_rises()
        for worker in world.workers:
            worker.hung = False
        world.do(world.notice)
        world.wait(30.0)
        world.restart()
        self.rest()
        self.nobody_is_left_verified()

    # cards and readers

    def _slot(self, which: int) -> Slot[Specimen] | None:
        return self.world.pcscd.slots.get(READERS[which])

    def _lying(self) -> list[Specimen | None]:
        slots = self.world.pcscd.slots.values()
        return [*(slot.chip for slot in slots), *self.world.unplugged.values()]

    @rule(which=st.integers(0, 1), card=st.integers(0, 2), mute=st.just(False), told=st.booleans())
    def insert(self, which: int, card: int, *, mute: bool, told: bool) -> None:
        """A card comes, or takes another one's place before anybody has noticed."""
        slot, chip = self._slot(which), self.world.cards[card]
        lying = self._lying()
        if slot is None or self.world.pcscd.down or (chip in lying and slot.chip is not chip):
            return
        self.world.pcscd.pull(slot)
        self.world.pcscd.insert(slot, chip, mute=mute)
        self.world.do(self.world.notice if told else lambda: None)

    @rule(which=st.integers(0, 1), told=st.booleans())
    def pull(self, which: int, *, told: bool) -> None:
        """It goes."""
        slot = self._slot(which)
        if slot is None or slot.chip is None:
            return
        self.world.pcscd.pull(slot)
        self.world.do(self.world.notice if told else lambda: None)

    @rule()
    def look(self) -> None:
        """The card service looks at its readers, and we hear of it."""
        self.world.do(self.world.notice)

    @rule(which=st.integers(0, 1))
    def upside_down(self, which: int) -> None:
        """A card comes the wrong way round."""
        slot = self._slot(which)
        free = [card for card in self.world.cards if card not in self._lying()]
        if slot and slot.chip is None and free and not self.world.pcscd.down:
            self.insert(which, self.world.cards.index(free[0]), mute=True, told=True)

    @rule(which=st.integers(0, 1))
    def plug(self, which: int) -> None:
        """A reader goes, with its card in it, or comes back."""
        name, world = READERS[which], self.world
        world.rivals.pop(name, None)
        if name in world.unplugged:
            world.pcscd.plug(name, world.unplugged.pop(name))
        else:
            world.unplugged[name] = world.pcscd.unplug(name).chip
        world.do(world.list)

    @precondition(lambda self: not self.world.pcscd.down)
    @rule()
    def service_dies(self) -> None:
        """The card service is killed."""
        self.world.pcscd.die()
        self.world.rivals.clear()
        self.world.do(self.world.list)

    @precondition(lambda self: self.world.pcscd.down)
    @rule()
    def service_rises(self) -> None:
        """It is back."""
        self.world.pcscd.rise()
        self.world.do(self.world.list)

    # people

    @precondition(lambda self: self.world.publisher.cards)
    @rule(
        which=st.integers(0, 1),
        caller=st.integers(0, 2),
        wait=st.sampled_from([0.0, 5.0]),
        take=st.booleans(),
    )
    def open(self, which: int, caller: int, wait: float, *, take: bool) -> None:
        """OpenSession."""
        cards = self.world.publisher.cards
        if cards:
            number = cards[which % len(cards)].number
            request = OpenRequest("a test", wait=wait, replace=take)
            owner = self.world.callers[caller]
            self.world.ask(self.world.desks.open_session(number, owner, request))

    def _session(self, which: int) -> SessionFacts | None:
        sessions = self.world.publisher.sessions
        return sessions[which % len(sessions)] if sessions else None

    def _typed(self, card: Specimen | None, reference: int, what: str) -> str:
        """What somebody types as a card's passcode."""
        self.typed += 1
        wrong = f"7319{1000 + self.typed}"
        match what:
            case "right" if card is not None and reference >= 0:
                return card.passcode(reference)
            case "long":
                return wrong + "3"
            case "empty":
                return ""
            case "another":
                return PASSCODES[1]
        return wrong

    def _submission(  # noqa: PLR0913, PLR0917 - what one submission needs
        self,
        session: SessionFacts,
        act: Act,
        label: str,
        typed: str,
        consent: Consent,
        new: str = "",
        signing: SignRequest | None = None,
    ) -> Submission:
        card = self.world.witness.session_cards[session.number]
        named = label
        if signing is not None:
            two = card is not None and "signature" in card.recipe.pins
            named = "signature" if two and signing.slot == "signature" else "user"
            label = ""
        reference = act_reference(card, act, named)
        texts = (self._typed(card, reference, typed), *((new,) if new else ()))
        request = PinRequest(act, label, tuple(reading(each) for each in texts), consent, signing)
        return Submission(
            request=request,
            caller=Caller(session.owner, session.owner_uid),
            session=session.number,
            card=card,
            reference=reference,
            texts=texts,
            consent=consent,
            asked_usec=self.world.clock.usec(),
        )

    def _submit(self, *submissions: Submission) -> None:
        async def submitted() -> list[Any]:
            asked = [self.world.submit(each) for each in submissions]
            calls = [self.world.loop.create_task(each) for each in asked]
            done = await self.world.gathered(calls)
            self.world.answers.extend(done)
            return done

        self.world.ask(submitted())

    LABELS = st.sampled_from(["user", "user", "user", "global", "application", "signature", "puk"])

    @precondition(lambda self: self.world.publisher.sessions)
    @rule(
        which=st.integers(0, 1),
        typed=TYPED,
        label=LABELS,
        consent=CONSENTS,
        twice=st.booleans(),
    )
    def verify(
        self, which: int, typed: str, label: str, consent: Consent, *, twice: bool
    ) -> None:
        """VerifyPin, with a double click perhaps."""
        session = self._session(which)
        if session is not None:
            asked = [
                self._submission(session, Act.VERIFY, label, typed, consent)
                for _ in range(2 if twice else 1)
            ]
            self._submit(*asked)

    @precondition(lambda self: self.world.publisher.sessions)
    @rule(
        which=st.integers(0, 1),
        act=st.sampled_from([Act.CHANGE, Act.UNBLOCK]),
        typed=TYPED,
        label=LABELS,
        new=st.sampled_from([*PASSCODES, "73", "7319abcd"]),
        consent=CONSENTS,
    )
    def renew(  # noqa: PLR0913, PLR0917 - what the bus wants
        self, which: int, act: Act, typed: str, label: str, new: str, consent: Consent
    ) -> None:
        """ChangePin, UnblockPin."""
        session = self._session(which)
        if session is not None:
            self._submit(self._submission(session, act, label, typed, consent, new))

    @precondition(lambda self: self.world.publisher.sessions)
    @rule(
        which=st.integers(0, 1),
        slot=st.sampled_from(["authentication", "signature"]),
        typed=TYPED,
        consent=CONSENTS,
    )
    def sign_with_pin(self, which: int, slot: str, typed: str, consent: Consent) -> None:
        """SignWithPin."""
        session = self._session(which)
        if session is not None:
            wanted = SignRequest(slot, Algorithm.ECDSA_SHA256, DIGEST)
            asked = self._submission(session, Act.VERIFY, "user", typed, consent, signing=wanted)
            self._submit(asked)

    @precondition(lambda self: self.world.publisher.sessions)
    @rule(
        which=st.integers(0, 1),
        what=st.sampled_from(["query", "lock", "keep_alive", "sign", "transmit", "end"]),
        apdu=st.sampled_from(APDUS),
    )
    def call(self, which: int, what: str, apdu: bytes = APDUS[0]) -> None:
        """QueryPin, Lock, KeepAlive, Sign, Transmit, Close."""
        session, desks = self._session(which), self.world.desks
        if session is None:
            return
        owner = Caller(session.owner, session.owner_uid)
        more: dict[str, tuple[Any, ...]] = {
            "query": ("user",),
            "sign": (SignRequest("authentication", Algorithm.ECDSA_SHA256, DIGEST),),
            "transmit": (apdu,),
        }
        if what == "end":
            self.world.ask(desks.end(session.number, EndReason.CLOSED))
        else:
            self.world.ask(getattr(desks, what)(session.number, owner, *more.get(what, ())))

    @rule(which=st.integers(0, 2))
    def leave(self, which: int) -> None:
        """A caller's connection ends."""
        self.world.do(lambda: self.world.leave(which))

    @rule(seconds=st.sampled_from([0.5, 3.0, 6.0, 12.0, 70.0, 1000.0]))
    def wait(self, seconds: float) -> None:
        """Time goes by."""
        self.world.wait(seconds)

    # the rival

    @rule(which=st.integers(0, 1), what=st.sampled_from(sorted(World.RIVALS)), reset=st.booleans())
    def rival(self, which: int, what: str, *, reset: bool) -> None:
        """Another program does something at a card, and leaves it so, or resets it."""
        slot = self._slot(which)
        if slot is not None:
            self.world.do(lambda: self.world.rival(slot, what, reset=reset))

    @rule(which=st.integers(0, 1), kind=st.sampled_from(["shared", "exclusive", "transaction"]))
    def rival_stays(self, which: int, kind: str) -> None:
        """It keeps the card, or lets go of it."""
        world, name = self.world, READERS[which]
        if name in world.rivals:
            world.do(lambda: world.release(name, reset=kind == "exclusive"))
        else:
            world.do(lambda: world.keep(name, kind))

    @rule(what=st.sampled_from(sorted(World.RIVALS)), reset=st.booleans())
    def rival_waits(self, what: str, *, reset: bool) -> None:
        """It comes in as soon as there is a gap between two calls of ours."""
        world = self.world
        world.intruder = lambda slot: world.rival(slot, what, reset=reset)

    # faults

    @rule(which=st.integers(0, 1))
    def hang(self, which: int) -> None:
        """A reader's thread does not get on, or does again."""
        for worker in self.world.workers:
            if worker.reader == READERS[which]:
                worker.hung = not worker.hung
        self.world.do(lambda: None)

    @rule(
        trouble=st.sampled_from(Trouble),
        at=st.sampled_from(sorted(AT)),
        after=st.integers(1, 6),
    )
    def trouble(self, trouble: Trouble, at: str, after: int) -> None:
        """Something will go wrong once, at a command of ours."""
        self.world.armed = Armed(trouble, AT[at], after if at == "any" else 1)

    @rule()
    def restart(self) -> None:
        """The daemon is started anew."""
        self.world.restart()

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


_LIMITS = settings(
    max_examples=300,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=False,
    suppress_health_check=list(HealthCheck),
)
_SECONDS = float(os.environ.get("CARDSESSION_PROPERTY_SECONDS", "0"))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(_SECONDS > 0, reason="a longer run was asked for")
def test_whatever_happens() -> None:
    run_state_machine_as_test(Counter, settings=_LIMITS)


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.skipif(not _SECONDS, reason="CARDSESSION_PROPERTY_SECONDS is not set")
def test_whatever_happens_for_hours() -> None:
    until = time.monotonic() + _SECONDS
    while time.monotonic() < until:
        number = random.SystemRandom().randrange(1 << 32)
        print("seed", number, file=sys.stderr, flush=True)  # noqa: T201 - to run it again
        limits = settings(_LIMITS, derandomize=False)
        run_state_machine_as_test(seed(number)(Counter), settings=limits)


__all__ = ["replace"]

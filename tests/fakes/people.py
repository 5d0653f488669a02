"""What people do in the property test, as rules: they open sessions, type passcodes, sign."""

from __future__ import annotations

import hashlib
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from cardsession.core.facts import EndReason, SessionFacts
from cardsession.core.signing import Algorithm
from cardsession.core.tries import Act, Consent
from cardsession.ports import Caller, OpenRequest, PinRequest, SignRequest
from fakes.line import AT, Armed, Trouble
from fakes.process import reading
from fakes.seats import Seats
from fakes.specimens import COMMON, PASSCODES, POOR, SELECT_ANOTHER, Specimen
from fakes.witness import Submission, act_reference

DIGEST = hashlib.sha256(b"a prescription").digest()
APDUS = (
    bytes.fromhex("00CB3FFF055C035FC10200"),  # GET DATA: the CHUID
    SELECT_ANOTHER,
    bytes.fromhex("0020008008") + PASSCODES[0].encode(),  # VERIFY: not on the list
)
TYPED = st.sampled_from(["right", "right", "right", "wrong", "wrong", "another", "long", "empty"])
CONSENTS = st.sampled_from(
    [Consent(), Consent(), Consent(spend_last_try=True), Consent(accept_unknown=True),
     Consent(spend_last_try=True, accept_unknown=True)]
)  # fmt: skip
LABELS = st.sampled_from(["user", "user", "user", "user", "other", "puk"])
"""`other`: the second PIN, of a card that has two."""
LOSES = (Trouble.PULL_AFTER, Trouble.GONE, Trouble.LOST, Trouble.NOISE, Trouble.CRASH_AFTER)
"""At the command with the secret: its answer is lost."""
WITHDRAWS = (Trouble.LEAVES, Trouble.CLOSES, Trouble.LATE)
"""Before it: it is not sent."""


class People(Seats):
    """Three callers."""

    typed = 0
    """Passcodes so far: each wrong one is another one."""

    @precondition(lambda self: self.world.publisher.cards)
    @rule(
        which=st.integers(0, 1),
        caller=st.integers(0, 2),
        wait=st.sampled_from([0.0, 5.0]),
        take=st.booleans(),
        left_over=st.booleans(),
    )
    def open(
        self, which: int, caller: int, wait: float, *, take: bool, left_over: bool = False
    ) -> None:
        """OpenSession, of a card that a rival left verified perhaps."""
        if left_over:
            self._rival_verifies(which)
        cards = self.world.publisher.cards
        if cards:
            number = cards[which % len(cards)].number
            request = OpenRequest("a test", wait=wait, replace=take)
            owner = self.world.callers[caller]
            self.world.ask(self.world.desks.open_session(number, owner, request))

    def _session(self, which: int, *, anew: bool = False) -> SessionFacts | None:
        """One of the sessions there are; `anew`: the first one is opened, if that can be."""
        publisher = self.world.publisher
        if anew and not publisher.sessions:
            if not publisher.cards:
                self.insert(which, which, mute=False, told=True)
            self.open(which, 0, 0.0, take=False)
        sessions = publisher.sessions
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
        if label == "other":
            second = [each for each in (card.recipe.pins if card else ()) if each not in COMMON]
            label = (second or ["signature"])[0]
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

    @rule(
        which=st.integers(0, 1),
        typed=TYPED,
        label=LABELS,
        consent=CONSENTS,
        twice=st.sampled_from([False, False, True]),
    )
    def verify(self, which: int, typed: str, label: str, consent: Consent, *, twice: bool) -> None:
        """VerifyPin, with a double click perhaps."""
        session = self._session(which, anew=True)
        if session is not None:
            asked = [
                self._submission(session, Act.VERIFY, label, typed, consent)
                for _ in range(2 if twice else 1)
            ]
            self._submit(*asked)

    @rule(
        which=st.integers(0, 1),
        trouble=st.sampled_from(Trouble),
        at=st.sampled_from(["secret", "question"]),
        typed=st.sampled_from(["right", "wrong"]),
        consent=CONSENTS,
    )
    def verify_in_trouble(
        self, which: int, trouble: Trouble, at: str, typed: str, consent: Consent
    ) -> None:
        """VerifyPin, and something goes wrong."""
        self.world.line.armed = Armed(trouble, AT[at], 1)
        self.verify(which, typed, "user", consent, twice=False)

    @rule(
        which=st.integers(0, 1),
        unblocking=st.sampled_from([False, False, True]),
        steps=st.lists(
            st.tuples(
                st.sampled_from(["wrong", "wrong", "wrong", "right"]),
                st.sampled_from([None, None, "put back", "swap", *LOSES, *WITHDRAWS]),
            ),
            min_size=2,
            max_size=5,
        ),
        consent=st.sampled_from([Consent(accept_unknown=True)] * 3 + [Consent()]),
    )
    def persist(
        self, which: int, steps: list[tuple[str, Any]], consent: Consent, *, unblocking: bool
    ) -> None:
        """Somebody does not give up, whatever goes wrong."""
        for typed, mishap in steps:
            if mishap == "put back":
                self.put_back(which)
            elif mishap == "swap":
                self.swap(which)
            elif mishap:
                at, after = ("secret", 1) if mishap in LOSES else ("any", 2)
                self.world.line.armed = Armed(mishap, AT[at], after)
            if unblocking:
                self.renew(which, Act.UNBLOCK, typed, "user", PASSCODES[0], consent)
            else:
                self.verify(which, typed, "user", consent, twice=False)
            self.world.line.armed = None
            self.look()

    @rule(
        which=st.integers(0, 1),
        act=st.sampled_from([Act.CHANGE, Act.UNBLOCK]),
        typed=TYPED,
        label=LABELS,
        new=st.sampled_from([*PASSCODES, *PASSCODES, *POOR]),
        consent=CONSENTS,
    )
    def renew(  # noqa: PLR0913, PLR0917 - what the bus wants
        self, which: int, act: Act, typed: str, label: str, new: str, consent: Consent
    ) -> None:
        """ChangePin, UnblockPin."""
        session = self._session(which, anew=True)
        if session is not None:
            self._submit(self._submission(session, act, label, typed, consent, new))

    @rule(
        which=st.integers(0, 1),
        slot=st.sampled_from(["authentication", "signature"]),
        typed=TYPED,
        consent=CONSENTS,
    )
    def sign_with_pin(self, which: int, slot: str, typed: str, consent: Consent) -> None:
        """SignWithPin."""
        session = self._session(which, anew=True)
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

    @rule(seconds=st.sampled_from([0.5, 0.5, 3.0, 3.0, 6.0, 12.0, 70.0, 1000.0]))
    def wait(self, seconds: float) -> None:
        """Time goes by."""
        self.world.wait(seconds)

    def _rival_verifies(self, which: int) -> None:
        slot = self._slot(which)
        if slot is not None:
            self.world.do(lambda: self.world.rival.act(slot, "verifies", reset=False))

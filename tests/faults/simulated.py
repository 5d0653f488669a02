"""The moments of the matrix in a counter in memory (`fakes.world`): the daemon's real rooms and
its real PC/SC channel, struck at an exchange, between two calls of the card service, or at rest."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from cardsession.asks import OpenAsk
from cardsession.config import Config
from cardsession.core.errors import Failure
from cardsession.core.facts import CardFacts, EndReason, SessionState
from cardsession.core.signing import Algorithm
from cardsession.core.tries import Act, Consent, Known
from cardsession.ports import OpenRequest, PinRequest, SignRequest, Verdict
from fakes.pcscd import Slot
from fakes.process import reading
from fakes.specimens import PASSCODES, Specimen, carries_secret
from fakes.witness import Submission
from fakes.world import READERS, World
from faults.matrix import Moment

READER = READERS[0]
PIN = 0x80
PROBED = 3
"""Exchanges after which a probe is struck: it knows the application, and no certificate yet."""
NOTICED = 1.5
"""Seconds after which the card service has looked, and was looked at."""
SETTLED = 17.0
"""Seconds after which whoever waits for a rival was told."""
PATIENT = OpenRequest("a test", wait=15.0)
RIGHT = PASSCODES[0]
PLAIN = Config()
Answer = tuple[int, bytes]
"""What the line gives: a PC/SC code, and bytes."""


@dataclass(frozen=True, slots=True)
class Strike:
    """How a fault is made. `hit` may give the answer that the reader gets instead."""

    hit: Callable[[Stage], Answer | None]
    heal: Callable[[Stage], None] = lambda _: None
    in_gap: frozenset[Moment] = frozenset()
    """Moments in which it comes before the conversation's first call, not at an exchange."""
    in_use: bool = False
    """Whether an active session's Sign is under way."""
    config: Config = PLAIN
    card: str = "piv"
    on_disk: bool = False
    asks: bool = True
    """Whether anybody is there to be asked when it was made at rest."""
    tries: int = 0
    """VERIFYs of a rival's that the card has in its book."""


class Stage:
    """One cell, on its way: a world, the fault, and what was seen of it."""

    def __init__(self, world: World, strike: Strike, moment: Moment) -> None:
        self.world, self.strike, self.moment = world, strike, moment
        self.card, self.other = world.cards[0], world.cards[1]
        self.twist: Callable[[bytes], Answer | None] = lambda _: None
        """What becomes of every answer from now on."""
        self.seen: tuple[str, ...] | None = None
        self.before: CardFacts | None = None
        self._call: asyncio.Future[Any] | None = None
        self._due: Callable[[bytes], bool] = lambda _: False
        self._gap = False
        self._exchange, world.pcscd.exchange = world.pcscd.exchange, self._exchanged
        world.pcscd.gap = self._in_gap

    # where it strikes

    @property
    def slot(self) -> Slot[Specimen]:
        """Our reader."""
        return self.world.pcscd.slots[READER]

    def _exchanged(self, slot: Slot[Specimen], apdu: bytes) -> Answer:
        said = self._exchange(slot, apdu)
        instead = None
        if self._due(apdu):
            self._due = lambda _: False
            self.before = self._card()
            instead = self.strike.hit(self)
        instead = instead or self.twist(apdu)
        if instead is not None:
            self.world.witness.spoilt(slot.name)
        return instead or said

    def _in_gap(self, _: Slot[Specimen]) -> None:
        if self._gap:
            self._gap = False
            self.before = self._card()
            self.strike.hit(self)

    def _arm(self, due: Callable[[bytes], bool]) -> None:
        if self.moment in self.strike.in_gap:
            self._gap = True
        else:
            self._due = due

    def _struck(self) -> None:
        assert self._due(b"") is False or self.moment is Moment.PROBING
        assert not self._gap, "there was no such gap"

    # the moments

    def run(self) -> None:
        """To the moment, the fault, the call, and what is shown when all have noticed."""
        getattr(self, f"_{self.moment}")()
        self.world.do(lambda: None)
        if self.seen is None:
            self.world.wait(SETTLED)
            self.seen = self._shown()

    def _insert(self) -> None:
        world = self.world
        world.pcscd.insert(self.slot, self.card)
        world.do(world.notice)

    def _hit(self) -> None:
        self.before = self._card()
        self.world.do(lambda: self.strike.hit(self))
        self.world.wait(NOTICED)

    def _idle(self) -> None:
        self._insert()
        self._hit()
        assert self.before is not None
        number, owner = self.before.number, self.world.callers[1]
        request = OpenRequest("a test")
        self._ask_next(self.world.desks.open_session(number, owner, request))

    def _probing(self) -> None:
        exchanges = iter(range(1, 1000))
        self._arm(lambda apdu: bool(apdu) and next(exchanges) == PROBED)
        hit = self.strike.hit

        def waits_then_hit(stage: Stage) -> Answer | None:
            desk = self.world.desks._desks[READER]
            ask = OpenAsk(self.world.callers[0], PATIENT)
            desk.ask_to_open(ask)
            self._call = ask.answered
            return hit(stage)

        self.strike = replace(self.strike, hit=waits_then_hit)
        self._insert()

    def _unverified(self) -> None:
        number = self._open()
        self._hit()
        self._ask_next(self.world.desks.query(number, self.world.callers[0], "user"))

    def _verifying(self) -> None:
        number = self._open()
        self._arm(carries_secret)
        self._ask(self._verify(number))

    def _active(self) -> None:
        number = self._unlock()
        if self.strike.in_use:
            self._arm(lambda _: True)
        else:
            self._hit()
        digest = hashlib.sha256(b"a prescription").digest()
        wanted = SignRequest("authentication", Algorithm.ECDSA_SHA256, digest)
        self._ask_next(self.world.desks.sign(number, self.world.callers[0], wanted))

    def _ending(self) -> None:
        number = self._unlock()
        self._arm(lambda _: True)
        self._ask(self.world.desks.end(number, EndReason.CLOSED))

    # what people do

    def _ask_next(self, work: Any) -> None:
        """The call that is made when the fault was made at rest."""
        if self.strike.asks:
            self._ask(work)
        else:
            work.close()

    def _ask(self, work: Any) -> None:
        self._call = self.world.ask(work)
        self.world.wait(SETTLED)

    def _open(self) -> int:
        if self._card() is None:
            self._insert()
        card = self._card()
        assert card is not None, "nothing is shown of the card"
        opening = self.world.ask(
            self.world.desks.open_session(card.number, self.world.callers[0], PATIENT)
        )
        self.world.wait(0.1)
        assert isinstance(opening.result(), int), opening.result()
        return int(opening.result())

    def _verify(self, number: int) -> Any:
        card = self.world.witness.session_cards[number]
        assert card is not None
        reference = card.recipe.pins["user"]
        request = PinRequest(Act.VERIFY, "user", (reading(RIGHT),), Consent())
        return self.world.submit(
            Submission(
                request=request,
                caller=self.world.callers[0],
                session=number,
                card=card,
                reference=reference,
                texts=(RIGHT,),
                consent=Consent(),
                asked_usec=self.world.clock.usec(),
            )
        )

    def _unlock(self) -> int:
        number = self._open()
        verdict = self.world.ask(self._verify(number))
        self.world.wait(0.1)
        assert verdict.result().outcome == "verified", verdict.result()
        return number

    # what is seen

    def snapshot(self) -> None:
        """This is what is shown, before it is over."""
        self.seen = self._shown()

    def _card(self) -> CardFacts | None:
        here = [each for each in self.world.publisher.cards if each.reader_id == READER]
        return here[0] if here else None

    def _shown(self) -> tuple[str, ...]:
        publisher = self.world.publisher
        reader = publisher.objects.get(("reader", READER))
        card = self._card()
        sessions = [each for each in publisher.sessions if each.state is not SessionState.ENDED]
        known = card is not None and self.before is not None and self._is(card, self.before)
        said = "" if card is None else f"{'' if known else 'new:'}{card.state}"
        return (
            getattr(reader, "state", "gone"),
            said,
            str(sessions[0].state) if sessions else "",
            "".join(each.facts.end_reason for each in publisher.told("ended")),
        )

    def _is(self, card: CardFacts, before: CardFacts) -> bool:
        return (card.number, card.inserted_usec) == (before.number, before.inserted_usec)

    @property
    def answer(self) -> str:
        """What the call answered, in a word."""
        assert self._call is not None, "nobody asked"
        assert self._call.done(), "somebody waits for ever"
        if isinstance(failure := self._call.exception(), Failure):
            return str(failure.problem)
        match self._call.result():
            case int():
                return "session"
            case Verdict() as verdict:
                return str(verdict.outcome)
            case Known():
                return "unverified"
            case bytes():
                return "signed"
            case None:
                return "done"
            case said:
                return str(said)

    @property
    def verifies(self) -> int:
        """VERIFYs with data of ours in the card's own book."""
        tally = self.card.card.book.as_dict()["counts"]
        assert isinstance(tally, dict)
        kinds = (each.get("verify", {}) for each in tally.values())
        sent = ("right", "wrong", "blocked", "refused")
        total = sum(int(each.get(outcome, 0)) for each in kinds for outcome in sent)
        return total - self.strike.tries

    @property
    def left_open(self) -> bool:
        """Whether somebody is verified by us, and nobody has a session with that authority."""
        hangs = any(each.hung for each in self.world.workers)
        return bool(self.card.by_us) and self.seen is not None and not hangs and (
            self.seen[2] != SessionState.ACTIVE
        )  # fmt: skip

    # afterwards

    def heal(self) -> None:
        """The fault is over: a card in the reader can be used again, and has lost nothing."""
        world = self.world
        self.twist = lambda _: None
        self.strike.heal(self)
        world.do(world.notice)
        for session in world.publisher.sessions:
            world.ask(world.desks.end(session.number, EndReason.CLOSED))
        world.wait(40.0)
        if self._card() is None or self._card().state != "ready":
            world.pcscd.pull(self.slot)
            world.do(world.notice)
            self._insert()
        self._unlock()

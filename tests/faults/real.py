"""The moments of the matrix with real parts: pcscd, its virtual reader, a bus, the daemon.

At a card the moment is reached by the card: it falls silent when it has carried a command out, the
fault is made, and only then it goes on. So nothing here is a matter of timing.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from cardsession.bus.connection import BusError, BusGone, Variant
from cardsession.stack import Card
from cardsession.stack.pcscd import SOCKET
from faults.matrix import Expected, Moment
from faults.room import PIN, PLAIN, Plan, Room
from system.crash import submissions
from system.rival import Rival
from system.subscriber import NAME, ROOT, Properties, Subscriber

PROBED = 3
QUESTIONS_TO_THE_BUS = 5
QUESTIONS = 3
"""Exchanges before a VERIFY: select, identify, ask."""
AT_CARD = frozenset({Moment.PROBING, Moment.VERIFYING, Moment.ENDING})
SECONDS = 8.0
DIGEST = hashlib.sha256(b"a prescription").digest()
SIGN = ("authentication", "ecdsa-sha256", DIGEST, {})


@dataclass(frozen=True, slots=True)
class Part:
    """How a fault is made."""

    hit: Callable[[Scene], Awaitable[None]]
    heal: Callable[[Scene], Awaitable[None]] | None = None
    plan: Plan = PLAIN
    early: bool = False
    """It comes before the conversation: nobody can come between us and the card later."""
    speaks: bool = True
    """Whether the card goes on once the fault is made."""
    asks: bool = True
    """Whether anybody is there to be asked when it was made at rest."""
    answers: str = ""
    """What the card says from the moment on, hexadecimal; the fault is this."""
    times: int = 40
    """How often: more than any of our conversations asks for."""
    rival: bool = False
    tries: int = 0
    """VERIFYs of the rival's in the card's book."""


class Scene:
    """One cell, on its way."""

    def __init__(self, room: Room, seen: Subscriber, owner: Subscriber, part: Part) -> None:
        self.room, self.seen, self.owner, self.part = room, seen, owner, part
        self.card = room.card
        self.moment = Moment.IDLE
        self.rival: Rival | None = None
        self.session = ""
        self.atr = self.card.status()["atr"]
        self.before: tuple[str, int] | None = None
        self._call: asyncio.Task[str] | None = None

    # the moments

    async def run(self, moment: Moment, cell: Expected) -> None:
        """To the moment, the fault, the call, and until the bus shows what it should."""
        self.moment = moment
        await self._prepare()
        await getattr(self, f"_{moment}")()
        with contextlib.suppress(AssertionError):  # the difference is told by whoever compares
            await self.seen.until("it shows", lambda: self.shown() == cell.shown, SECONDS)

    async def _prepare(self) -> None:
        self.card.tell("clear-faults")
        self.card.tell("reset-book")
        self.card.tell("set-tries", left=3)
        if self.moment is Moment.PROBING or self._found()[1] != "ready":
            await self._emptied()
        if self.moment is not Moment.PROBING:
            await self._ready()

    async def _emptied(self) -> None:
        """It is out, and both the card service and the daemon have noticed."""
        self.card.remove()
        await self._until(lambda: not self.room.present())
        await self.seen.until("the reader is empty", lambda: self._found()[:2] == ("empty", ""))

    async def _ready(self) -> None:
        if not self.card.status()["inserted"]:
            self.card.insert()
        path, facts = await self.seen.card_in_state("ready")
        self.before = path, facts["InsertedMonotonicUSec"]

    async def _idle(self) -> None:
        assert self.before is not None
        path = self.before[0]
        self._twist(1)
        await self._hit()
        await self._ask_next(self._opened(path), lambda body: "session")

    async def _probing(self) -> None:
        if self.part.early:
            await self._hit()
        # it says nothing before it says what makes no sense: so somebody can be there to wait
        self._twist(PROBED)
        self.card.tell("silent-at", n=PROBED - bool(self.part.answers), stage="after")
        self.card.insert()
        await self._until(self._silent)
        path, facts = await self.seen.card_in_state("probing")
        self.before = path, facts["InsertedMonotonicUSec"]
        self._ask(self._opened(path, 15_000_000), lambda body: "session")
        # The daemon asks the bus who calls, and other calls overtake it meanwhile. Each of these
        # goes to and fro behind one of its questions: after them it has its answers.
        for _ in range(QUESTIONS_TO_THE_BUS):
            await self._refused(path)
        if not self.part.early:
            await self._hit()
        elif self.part.speaks:
            self.card.tell("speak")
        await self._answered()

    async def _refused(self, path: str) -> None:
        with contextlib.suppress(BusError):
            await self._opened(path)

    async def _unverified(self) -> None:
        await self._open()
        self._twist(1)
        await self._hit()
        call = self._session_call("QueryPin", "s", ("user",))
        await self._ask_next(call, lambda body: body[0])

    async def _verifying(self) -> None:
        await self._open()
        if self.part.early:
            await self._hit()
        self._arm(QUESTIONS + 1, n=1, ins="20", with_data=True)
        self._ask(self._verify(), lambda body: body[0])
        await self._at_card()

    async def _active(self) -> None:
        await self._unlock()
        self._twist(1)
        await self._hit()
        call = self._session_call("Sign", "ssaya{sv}", SIGN)
        await self._ask_next(call, lambda body: "signed")

    async def _ending(self) -> None:
        await self._unlock()
        if self.part.early:
            await self._hit()
        self._arm(1, n=self.card.status()["exchanges"] + 1)
        self._ask(self._session_call("Close", "", ()), lambda body: "done")
        await self._at_card()

    async def _at_card(self) -> None:
        if not self.part.early:
            await self._until(self._silent)
            await self._hit()
        await self._answered()

    def _arm(self, number: int, **fields: Any) -> None:
        """The card falls silent when it has carried a command out, or says what it is told from
        the exchange of that number on."""
        if self.part.answers:
            self._twist(number)
        elif not self.part.early:
            self.card.tell("silent-at", stage="after", **fields)

    def _twist(self, number: int) -> None:
        """From that exchange on, counted from now, or from the insertion that comes."""
        if not self.part.answers:
            return
        if self.moment is not Moment.PROBING:
            number += self.card.status()["exchanges"]
        orders = [
            {"command": "answer-at", "n": n, "hex": self.part.answers, "stage": "after"}
            for n in range(number, number + self.part.times)
        ]
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(SECONDS)
            assert isinstance(self.card, Card)
            link.connect(str(self.card.control))
            with link.makefile("rwb") as lines:
                for order in orders:
                    lines.write(json.dumps(order).encode() + b"\n")
                    lines.flush()
                    assert b"error" not in lines.readline()

    def _silent(self) -> bool:
        assert self._call is None or not self._call.done(), self._call
        return bool(self.card.status()["silent"]) or bool(self.part.answers)

    async def _hit(self) -> None:
        await self.part.hit(self)
        if self.part.speaks:
            self.card.tell("speak")

    async def _until(self, condition: Callable[[], bool]) -> None:
        await self.seen.until("it is so", condition)

    # what people do

    async def _ask_next(
        self, call: Coroutine[Any, Any, Any], word: Callable[[tuple[Any, ...]], str]
    ) -> None:
        """The call that is made when the fault was made at rest."""
        if self.part.asks:
            self._ask(call, word)
            await self._answered()
        else:
            call.close()

    def _ask(self, call: Awaitable[Any], word: Callable[[tuple[Any, ...]], str]) -> None:
        async def asked() -> str:
            try:
                return word(await call)
            except BusError as error:
                return error.name.rsplit(".", 1)[1]
            except BusGone:
                return "nobody is there"

        self._call = asyncio.ensure_future(asked())

    async def _answered(self) -> None:
        assert self._call is not None
        await asyncio.wait([self._call], timeout=30)

    async def _opened(self, path: str, wait: int = 0) -> tuple[Any, ...]:
        options = {"wait-usec": Variant("t", wait)} if wait else {}
        return await self.owner.call(path, "Card", "OpenSession", "sa{sv}", ("test", options))

    async def _session_call(
        self, member: str, signature: str, body: tuple[Any, ...]
    ) -> tuple[Any, ...]:
        return await self.owner.call(self.session, "Session", member, signature, body)

    async def _verify(self) -> tuple[Any, ...]:
        return await self.owner.verify(self.session, PIN.encode())

    async def _open(self) -> None:
        assert self.before is not None
        # it waits for the certificates too: from here on exchanges can be counted
        self.session = await self.owner.open_session(self.before[0])

    async def _unlock(self) -> None:
        await self._open()
        assert (await self._verify())[0] == "verified"

    # what is seen

    def _found(self) -> tuple[str, str, str]:
        """Reader.State, Card.State, the card's path."""
        for reader in self.seen.all("Reader").values():
            if reader["Name"].startswith(self.room.reader):
                card: Properties = self.seen.all("Card").get(reader["Card"], {})
                return reader["State"], card.get("State", ""), reader["Card"]
        return "gone", "", ""

    def shown(self) -> tuple[str, ...]:
        """Reader.State, Card.State, Session.State, end reason."""
        reader, state, path = self._found()
        card = self.seen.all("Card").get(path)
        known = card is not None and (path, card["InsertedMonotonicUSec"]) == self.before
        sessions = [each["State"] for each in self.seen.all("Session").values()]
        ended = [each.body[0] for _, each in self.seen.signals if each.member == "Ended"]
        said = "" if card is None else f"{'' if known else 'new:'}{state}"
        return reader, said, "".join(sessions), "".join(ended)

    @property
    def answer(self) -> str:
        """What the call answered."""
        assert self._call is not None and self._call.done(), "somebody waits for ever"
        return self._call.result()

    def verifies(self) -> int:
        """VERIFYs with data of ours in the card's own book; another card has none in its."""
        status = self.card.status()
        if status["card"] != "first":
            assert submissions(status) == 0, "another card was given the passcode"
            status = self.card.tell("swap", name="first") and self.card.status()
        return submissions(status) - self.part.tries

    # afterwards

    async def heal(self) -> None:
        """The fault is over: the card is used again, and has lost nothing."""
        self.card.tell("clear-faults")
        self.card.tell("speak")
        if self.part.heal:
            await self.part.heal(self)
        for child in (self.room.pcscd, self.room.daemon):
            if child.returncode is not None:
                child.start()  # not in a thread that ends: its child would end with it
        await self.seen.until("the reader is there", lambda: self._found()[0] != "gone")
        with contextlib.suppress(BusError, BusGone):
            for session in tuple(self.seen.all("Session")):
                await self.owner.call(session, "Session", "Close")
        await self.seen.until("no session", lambda: not self.seen.all("Session"))
        status = self.card.status()
        beyond_hope = self._found()[1] in ("mute", "unknown")
        if status["card"] == "first" and status["inserted"] and not beyond_hope:
            with contextlib.suppress(AssertionError):
                await self.seen.until("it is ready", lambda: self._found()[1] == "ready", 2.0)
        if self.card.status()["card"] != "first" or self._found()[1] != "ready":
            await self._emptied()
            self.card.tell("swap", name="first")
        await self._usable()

    async def _usable(self) -> None:
        """A second try: our thread may be on its way out of the card service yet."""
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                path, _ = await self.seen.card_in_state("ready")
                session = await self.seen.open_session(path, wait_usec=Variant("t", 5_000_000))
                assert (await self.seen.verify(session, PIN.encode()))[0] == "verified"
                await self.seen.call(session, "Session", "Close")
                break
            except BusError:
                assert time.monotonic() < deadline, "the card cannot be used again"
                await asyncio.sleep(0.05)
        assert self.card.status()["references"]["80"]["verified"] is False

    def say(self, line: str) -> str:
        """To the rival, which is there from then on."""
        assert self.rival is not None
        return self.rival.say(line)


def backend(seen: Subscriber) -> Awaitable[tuple[Any, ...]]:
    """`Manager.Backend`, asked."""
    get = (ROOT, "org.freedesktop.DBus.Properties", "Get", "ss")
    return seen.call(*get, (f"{NAME}.Manager", "Backend"))


async def close_socket(scene: Scene) -> None:
    """Nobody but root may speak to the card service any more, and it is not there."""
    SOCKET.chmod(0o000)
    scene.room.pcscd.kill()

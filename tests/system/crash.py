"""A daemon that is killed in the middle of an operation, and started again over the same state.

The moment is chosen by the card: it falls silent at an exchange, the daemon dies, and only then
the card goes on. So nothing here is a matter of timing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from cardsession.adapters.ledger import lines
from cardsession.adapters.ledger.entry import Entry
from cardsession.bus.connection import BusError, Variant
from cardsession.stack import Bus, Card, Daemon, wait_until
from system.rival import Rival
from system.subscriber import Subscriber, memfd

SUBMITTED: Final = ("right", "wrong", "blocked", "refused")
"""What may become of a command that carries a secret, in the card's book."""
SECRET_INS: Final = ("20", "24", "2c")
_FAILED: Final = "6F00"


class Moment(StrEnum):
    """When the daemon dies: its command was lost on the way to the card; the card carries it out
    after the death; the card has carried it out, and the answer is lost."""

    LOST = "lost"
    LATE = "late"
    DONE = "done"

    @property
    def fault(self) -> dict[str, object]:
        """Of the card, for `silent-at`."""
        match self:
            case Moment.LOST:
                return {"stage": "before", "hex": _FAILED}
            case Moment.LATE:
                return {"stage": "before"}
            case Moment.DONE:
                return {"stage": "after"}


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of Session that submits a passcode."""

    member: str
    secrets: tuple[bytes, ...] = field(repr=False)
    right: bool
    reference: str = "80"
    """Whose counter is at stake, as the card's book has it."""
    ins: str = "20"
    """Of the command that carries the secret."""
    signing: tuple[Any, ...] = ()
    """Slot, algorithm, digest: only in an active session."""

    async def call(self, seen: Subscriber, session: str, **options: bool) -> tuple[Any, ...]:
        """Make the call."""
        given = {key.replace("_", "-"): Variant("b", value) for key, value in options.items()}
        first = self.signing or ("user",)
        body = (*first, *range(len(self.secrets)), given)
        signature = ("ssay" if self.signing else "s") + "h" * len(self.secrets) + "a{sv}"
        fds = tuple(memfd(secret) for secret in self.secrets)
        return await seen.call(session, "Session", self.member, signature, body, fds)


def submissions(status: dict[str, Any]) -> int:
    """Commands with a secret that the card ever saw, whatever became of them."""
    return sum(
        tally[outcome]
        for kinds in status["counts"].values()
        for tally in kinds.values()
        for outcome in SUBMITTED
    )


def wrong(status: dict[str, Any]) -> int:
    """Tries that VERIFY, CHANGE REFERENCE DATA and RESET RETRY COUNTER took away."""
    return int(status["wrong"])


def remembered(daemon: Daemon, reference: int = 0x80) -> Entry:
    """What another process reads of the one card's PIN in the ledger's file, now."""
    found = lines.read((daemon.state / "ledger").read_bytes())
    assert found.damage == ""
    entries = [entry for (_, at), entry in found.entries.items() if at == reference]
    return entries[0] if entries else Entry()


def trail(daemon: Daemon) -> list[dict[str, Any]]:
    """The audit trail, every line of it."""
    files = sorted(daemon.state.glob("audit-*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


class Crash:
    """The daemon, its card, a subscriber who starts anew with it, and a rival."""

    def __init__(self, bus: Bus, daemon: Daemon, card: Card, rival: Rival) -> None:
        self.daemon, self.card, self.rival = daemon, card, rival
        self._bus = bus

    @contextlib.asynccontextmanager
    async def subscribed(self) -> AsyncIterator[Subscriber]:
        """One who sees the readers."""
        async with await Subscriber.open(self._bus.address) as seen:
            await seen.until("two readers", lambda: len(seen.all("Reader")) == 2)
            yield seen

    async def killed_in_silence(self, seen: Subscriber, call: asyncio.Task[Any]) -> None:
        """Wait for the silence that was armed, and kill the daemon."""

        def silent() -> bool:
            assert not call.done(), f"over before the card fell silent: {call}"
            return bool(self.card.status()["silent"])

        await seen.until("the card is silent", silent)
        await self.kill(call)

    async def kill(self, call: asyncio.Task[Any]) -> None:
        """Kill the daemon; its caller hears of it."""
        self.daemon.kill()
        with contextlib.suppress(BusError):
            await call

    def left_to_others(self) -> str:
        """What a rival finds once the card service has noticed the death: the answer to an
        empty VERIFY. (It may connect while the service is about to reset the card: then the card
        has another protocol than its handle, which is none.)"""
        answers: list[str] = []

        def has_it() -> bool:
            if self.rival.say("shared") != "00000000":
                return False
            answers.append(self.rival.say("state"))
            assert self.rival.say("free") == "00000000"
            return answers[-1] != "error 8010000F"

        wait_until("the card is free", has_it)
        return answers[-1]

    def restart(self) -> int:
        """Start it again; when (microseconds since 1970)."""
        before = time.time_ns() // 1000
        self.daemon.start()
        return before

    def entry(self, reference: int = 0x80) -> Entry:
        """What the ledger's file says of a PIN, now."""
        return remembered(self.daemon, reference)

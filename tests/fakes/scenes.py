"""A counter brought into each state that a seat can be in, with whoever waits there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from cardsession.config import Config, SessionConfig
from cardsession.core.facts import EndReason
from cardsession.core.policy import Removal
from cardsession.core.signing import Algorithm
from cardsession.core.states import State
from cardsession.ports import SignRequest
from fakes.counter import DISPENSER, Counter, make_card, outcome, settle

SIGNATURE = SignRequest("authentication", Algorithm.ECDSA_SHA256, bytes(32))


class Scene:
    """A counter brought into a state, and the calls that wait there."""

    def __init__(self, removal: Removal = Removal.END) -> None:
        self.counter = Counter(Config(session=SessionConfig(removal=removal)))
        self.card = make_card()
        self.waiting: list[asyncio.Future[Any]] = []

    async def ask(self, asked: Awaitable[Any]) -> None:
        """A call that is not answered as long as the channel is paused."""
        self.counter.channel.paused = True
        self.waiting.append(asyncio.ensure_future(outcome(asked)))
        await settle()

    async def insert(self) -> None:
        """The card comes."""
        self.counter.insert(self.card)
        await settle()

    async def active(self) -> int:
        """A session that is active."""
        return (await self.counter.active(self.card))[1]

    async def locked(self) -> int:
        """A session that is locked."""
        session = await self.active()
        await self.counter.desks.lock(session, DISPENSER)
        return session

    async def away(self) -> int:
        """An active session's card is pulled."""
        session = await self.active()
        self.counter.pull()
        await settle()
        return session


async def _empty(_: Scene) -> None:
    """Nothing."""


async def _probing(scene: Scene) -> None:
    scene.counter.channel.paused = True
    await scene.insert()


async def _elsewhere(scene: Scene) -> None:
    scene.counter.channel.elsewhere = True
    await scene.insert()


async def _mute(scene: Scene) -> None:
    scene.counter.channel.mute = True
    scene.counter.report(present=True, mute=True, counter=2)
    await settle()


async def _opening(scene: Scene) -> None:
    await scene.insert()
    await scene.ask(scene.counter.open())


async def _unverified(scene: Scene) -> None:
    await scene.insert()
    await scene.counter.open()


async def _verifying(scene: Scene) -> None:
    await scene.insert()
    await scene.ask(scene.counter.verify(await scene.counter.open()))


async def _querying(scene: Scene) -> None:
    await scene.insert()
    session = await scene.counter.open()
    await scene.ask(scene.counter.desks.query(session, DISPENSER, "user"))


async def _active(scene: Scene) -> None:
    await scene.active()


async def _signing(scene: Scene) -> None:
    session = await scene.active()
    await scene.ask(scene.counter.desks.sign(session, DISPENSER, SIGNATURE))
    await scene.ask(scene.counter.desks.sign(session, DISPENSER, SIGNATURE))


async def _reverifying(scene: Scene) -> None:
    await scene.ask(scene.counter.verify(await scene.active()))


async def _locking(scene: Scene) -> None:
    session = await scene.active()
    await scene.ask(scene.counter.desks.lock(session, DISPENSER))


async def _locked(scene: Scene) -> None:
    await scene.locked()


async def _unlocking(scene: Scene) -> None:
    await scene.ask(scene.counter.verify(await scene.locked()))


async def _querying_locked(scene: Scene) -> None:
    session = await scene.locked()
    await scene.ask(scene.counter.desks.query(session, DISPENSER, "user"))


async def _away(scene: Scene) -> None:
    await scene.away()


async def _away_probing(scene: Scene) -> None:
    await scene.away()
    scene.counter.channel.paused = True
    await scene.insert()


async def _away_elsewhere(scene: Scene) -> None:
    await scene.away()
    scene.counter.channel.elsewhere = True
    await scene.insert()


async def _away_mute(scene: Scene) -> None:
    await scene.away()
    scene.counter.channel.mute = True
    scene.counter.report(present=True, mute=True, counter=7)
    await settle()


async def _kept(scene: Scene) -> None:
    await scene.away()
    await scene.insert()


async def _kept_verifying(scene: Scene) -> None:
    session = await scene.away()
    await scene.insert()
    await scene.ask(scene.counter.verify(session))


async def _closing(scene: Scene) -> None:
    await scene.insert()
    session = await scene.counter.open()
    await scene.ask(scene.counter.desks.query(session, DISPENSER, "user"))
    await scene.ask(scene.counter.desks.end(session, EndReason.CLOSED))


async def _releasing(scene: Scene) -> None:
    await scene.ask(scene.counter.desks.end(await scene.active(), EndReason.CLOSED))


async def _stuck(scene: Scene) -> None:
    await _probing(scene)
    scene.counter.clock.advance(11)


SCENES: list[tuple[State, Removal, Callable[[Scene], Awaitable[None]]]] = [
    (State.EMPTY, Removal.END, _empty),
    (State.PROBING, Removal.END, _probing),
    (State.ELSEWHERE, Removal.END, _elsewhere),
    (State.MUTE, Removal.END, _mute),
    (State.READY, Removal.END, Scene.insert),
    (State.OPENING, Removal.END, _opening),
    (State.UNVERIFIED, Removal.END, _unverified),
    (State.VERIFYING, Removal.END, _verifying),
    (State.QUERYING, Removal.END, _querying),
    (State.ACTIVE, Removal.END, _active),
    (State.ACTIVE, Removal.LOCK, _signing),
    (State.REVERIFYING, Removal.END, _reverifying),
    (State.LOCKING, Removal.END, _locking),
    (State.LOCKED, Removal.LOCK, _locked),
    (State.UNLOCKING, Removal.LOCK, _unlocking),
    (State.QUERYING_LOCKED, Removal.LOCK, _querying_locked),
    (State.LOCKED_AWAY, Removal.LOCK, _away),
    (State.LOCKED_PROBING, Removal.LOCK, _away_probing),
    (State.LOCKED_ELSEWHERE, Removal.LOCK, _away_elsewhere),
    (State.LOCKED_MUTE, Removal.LOCK, _away_mute),
    (State.KEPT_AWAY, Removal.KEEP, _away),
    (State.KEPT_PROBING, Removal.KEEP, _away_probing),
    (State.KEPT_ELSEWHERE, Removal.KEEP, _away_elsewhere),
    (State.KEPT_MUTE, Removal.KEEP, _away_mute),
    (State.KEPT, Removal.KEEP, _kept),
    (State.KEPT_VERIFYING, Removal.KEEP, _kept_verifying),
    (State.CLOSING, Removal.END, _closing),
    (State.RELEASING, Removal.END, _releasing),
    (State.STUCK, Removal.END, _stuck),
]
"""Every state: the site's removal policy that it takes, and how it is come to."""

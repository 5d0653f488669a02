"""Each fault of the matrix in the counter in memory."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any
from unittest import mock

from cardsession.adapters.ledger import store
from cardsession.asks import EndAsk
from cardsession.config import Config, Hold, SessionConfig
from cardsession.core.facts import Backend, EndReason
from cardsession.core.policy import Removal
from cardsession.core.reports import Listing
from cardsession.core.states import Event
from fakes.pcscd import NO_READER, NO_SERVICE, OK, RESET, UNRESPONSIVE
from faults.matrix import Fault, Moment
from faults.simulated import READER, Answer, Stage, Strike

SHARED = Config(session=SessionConfig(hold=Hold.SHARED))
LOCK = Config(session=SessionConfig(removal=Removal.LOCK))
WARM = bytes.fromhex("3B8F8001804F0CA000000306030001000000006A")
NOT_TRANSACTED = 0x80100016
"""SCARD_E_NOT_TRANSACTED: what pcscd makes of a reader's communication error."""
_AT_CARD = frozenset({Moment.PROBING, Moment.VERIFYING, Moment.ENDING})


def _now(stage: Stage) -> bool:
    """Whether it strikes in the midst of an exchange."""
    at_card = stage.moment in _AT_CARD or (stage.moment is Moment.ACTIVE and stage.strike.in_use)
    return at_card and stage.moment not in stage.strike.in_gap


# readers and cards that go


def _unplug(stage: Stage) -> Answer:
    stage.world.unplugged[READER] = stage.world.pcscd.unplug(READER).chip
    stage.world.list()
    return NO_READER, b""


def _plug(stage: Stage) -> None:
    stage.world.pcscd.plug(READER, stage.world.unplugged.pop(READER))


def _tear(stage: Stage) -> Answer:
    stage.world.pcscd.pull(stage.slot)
    stage.world.notice()
    return OK, b""


def _swap(stage: Stage) -> Answer:
    stage.world.pcscd.pull(stage.slot)
    stage.world.pcscd.insert(stage.slot, stage.other)
    if not _now(stage):
        stage.world.notice()
    stage.world.clock.later(0.4, stage.world.notice)  # the service's next look
    return NOT_TRANSACTED, b""


def _replace(stage: Stage) -> Answer:
    _tear(stage)
    stage.world.pcscd.insert(stage.slot, stage.other)
    stage.world.clock.later(0.2, stage.world.notice)
    return OK, b""


def _turn(stage: Stage) -> Answer:
    _tear(stage)
    stage.world.pcscd.insert(stage.slot, stage.card, mute=True)
    stage.world.notice()
    return OK, b""


# the card service


def _kill(stage: Stage) -> Answer:
    """The thread at the card is the first to know."""
    stage.world.pcscd.die()
    stage.world.clock.later(0.05, stage.world.list)
    return NO_SERVICE, b""


def _rise(stage: Stage) -> None:
    stage.world.pcscd.rise()


def _restart(stage: Stage) -> Answer:
    answer = _kill(stage)

    def back() -> None:
        stage.world.pcscd.rise()
        stage.world.list()

    stage.world.clock.later(1.0, back)
    return answer


def _deny(stage: Stage) -> Answer:
    stage.world.pcscd.die()
    stage.world.desks.listing(Listing(Backend.DENIED))
    return NO_SERVICE, b""


# rivals


def _keep(kind: str) -> Callable[[Stage], None]:
    def hit(stage: Stage) -> None:
        stage.world.rival.keep(READER, kind)
        stage.world.list()

    return hit


def _release(stage: Stage) -> None:
    if READER in stage.world.rival.handles:
        stage.world.rival.release(READER, reset=False)


def _reset(stage: Stage) -> Answer | None:
    if not _now(stage):
        stage.world.rival.act(stage.slot, "looks", reset=True)
        return None
    stage.card.reset()
    for handle in stage.slot.handles:
        handle.code = RESET
    return RESET, b""


def _warm(stage: Stage) -> Answer | None:
    stage.card.card.atr = WARM
    answer = _reset(stage)
    stage.world.list()
    return answer


def _verify(stage: Stage) -> None:
    stage.world.rival.act(stage.slot, "verifies", reset=False)


# difficult cards


def _mute(stage: Stage) -> Answer:
    stage.slot.mute = True
    stage.card.reset()
    for handle in stage.slot.handles:
        handle.code = UNRESPONSIVE
    stage.world.list()
    return UNRESPONSIVE, b""


def _hang(stage: Stage) -> None:
    if _now(stage):
        stage.world.clock.advance(stage.world.config.readers.stuck_seconds + 1.0)
        stage.snapshot()
        return
    for worker in stage.world.workers:
        worker.hung = worker.reader == READER


def _answers(stage: Stage) -> None:
    for worker in stage.world.workers:
        worker.hung = False


def _twist(twisted: Callable[[bytes], Answer | None]) -> Callable[[Stage], Answer | None]:
    def hit(stage: Stage) -> None:
        stage.twist = twisted

    return hit


def _garbage(_: bytes) -> Answer:
    return OK, bytes.fromhex("DEADBEEF1337")


def _nothing(_: bytes) -> Answer:
    return OK, b""


def _endless(_: bytes) -> Answer:
    return OK, bytes(16) + b"\x61\x10"


def _chain(apdu: bytes) -> Answer | None:
    return (OK, bytes(256) + b"\x90\x00") if apdu[1] == 0xB0 else None


# the machine


def _sleep(stage: Stage) -> None:
    if _now(stage):
        _end(stage, EndReason.SUSPEND)
    stage.world.loop.create_task(stage.world.desks.suspend())


def _wake(stage: Stage) -> None:
    stage.world.desks.resume()


def _overrun(stage: Stage) -> None:
    for readers in ((), (), None, ()):
        stage.world.desks.usb(readers)


def _end(stage: Stage, reason: EndReason) -> None:
    """What the farewell begins with: the thread is at the card, the loop goes on."""
    for desk in stage.world.desks._desks.values():
        desk.post(Event.END_ASKED, EndAsk(reason))


def _stop(stage: Stage) -> None:
    if _now(stage):
        _end(stage, EndReason.DAEMON_STOPPING)
    stage.world.loop.create_task(stage.world.desks.close())


def _start(stage: Stage) -> None:
    stage.world._begin_anew()


def _die(stage: Stage) -> None:
    stage.world.clock.advance(0.001)
    if _now(stage):
        stage.world.line._crash()
    stage.world.crashed = True


def _leave(stage: Stage) -> None:
    stage.world.leave(0)


def _fill(stage: Stage) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    stage.world.on_record = lambda: True  # in memory: the disk has no room for it
    stage.world._stack.enter_context(mock.patch.object(store, "_write", full))


STRIKES = {
    Fault.READER_PULLED: Strike(_unplug, _plug),
    Fault.TORN_OUT: Strike(_tear),
    Fault.SWAPPED: Strike(_swap),
    Fault.REPLACED: Strike(_replace, config=LOCK),
    Fault.SERVICE_KILLED: Strike(_kill, _rise),
    Fault.SERVICE_RESTARTED: Strike(_restart),
    Fault.DENIED: Strike(_deny, _rise),
    Fault.EXCLUSIVE: Strike(_keep("exclusive"), _release, frozenset({Moment.PROBING})),
    Fault.TRANSACTION: Strike(_keep("transaction"), _release, _AT_CARD, config=SHARED),
    Fault.RESET: Strike(_reset, in_gap=frozenset({Moment.PROBING, Moment.ENDING}), config=SHARED),
    Fault.VERIFIED: Strike(_verify, in_gap=_AT_CARD, config=SHARED, tries=1),
    Fault.MUTE: Strike(_mute),
    Fault.UPSIDE_DOWN: Strike(_turn),
    Fault.HUNG: Strike(_hang, _answers),
    Fault.WARM_ATR: Strike(
        _warm, in_gap=frozenset({Moment.PROBING, Moment.ENDING}), in_use=True, config=SHARED
    ),
    Fault.GARBAGE: Strike(_twist(_garbage)),
    Fault.EMPTY: Strike(_twist(_nothing)),
    Fault.ENDLESS: Strike(_twist(_endless)),
    Fault.CHAIN: Strike(_twist(_chain), card="pkcs15"),
    Fault.SUSPEND: Strike(_sleep, _wake),
    Fault.OVERRUN: Strike(_overrun),
    Fault.SIGTERM: Strike(_stop, _start),
    Fault.SIGKILL: Strike(_die, asks=False),
    Fault.OWNER: Strike(_leave, asks=False),
    Fault.DISK: Strike(_fill, in_gap=frozenset({Moment.VERIFYING}), on_disk=True),
}
"""How each fault is made."""

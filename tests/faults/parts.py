"""Each fault of the matrix with real parts."""

from __future__ import annotations

import asyncio
import time

from cardsession.bus.connection import Connection
from cardsession.stack.pcscd import SOCKET
from faults.matrix import Fault, Moment
from faults.real import Part, Scene, backend
from faults.room import PIN, Plan
from faults.usbcard import UsbCard
from system.disks import fill
from system.logind import announce

SHARED = Plan('[session]\nhold = "shared"\n')
LOCK = Plan('[session]\nremoval = "lock"\n')
IMPATIENT = Plan("[readers]\nstuck-seconds = 6\n")
USB = Plan(usb=True)
STOP_SECONDS = 3.0
EXCLUSIVELY_OURS = "8010000B"
HAD = "00000000"


async def _nothing(_: Scene) -> None:
    """The card's own doing."""


async def _tear(scene: Scene) -> None:
    scene.card.remove()
    await scene.seen.until("it is noticed", lambda: scene.shown()[1] == "")


async def _swap(scene: Scene) -> None:
    scene.card.tell("swap", name="other")
    await scene.seen.until("it is noticed", lambda: scene.shown()[1] == "new:ready", 5)


async def _replace(scene: Scene) -> None:
    scene.card.remove()
    await scene.seen.until(
        "it is noticed", lambda: scene.shown()[1] == "" and not scene.room.present()
    )
    scene.card.tell("swap", name="other")
    await scene.seen.until("another one is read", lambda: scene.shown()[1] == "new:ready")


async def _pull(scene: Scene) -> None:
    scene.room.pull()
    await scene.seen.until("it is noticed", lambda: scene.shown()[0] == "gone")


async def _plug(scene: Scene) -> None:
    scene.room.plug()


async def _turn(scene: Scene) -> None:
    assert isinstance(scene.card, UsbCard)
    scene.card.remove()
    scene.card.tell("speak")
    await scene.seen.until("it is noticed", lambda: scene.shown()[1] == "")
    scene.card.insert(mute=True)
    await scene.seen.until("it is mute", lambda: scene.shown()[1] == "new:mute")


async def _kill(scene: Scene) -> None:
    scene.room.pcscd.kill()
    await scene.seen.until("it is noticed", lambda: scene.shown()[0] == "gone")


async def _restart(scene: Scene) -> None:
    await _kill(scene)
    scene.room.pcscd.start()
    scene.card.tell("speak")
    await scene.seen.until("all is back", lambda: scene.shown()[1] == "new:ready", 5)


async def _deny(scene: Scene) -> None:
    SOCKET.chmod(0o000)
    await _kill(scene)
    deadline = time.monotonic() + 10
    while (said := (await backend(scene.seen))[0].value) != "denied":
        assert time.monotonic() < deadline, said
        await asyncio.sleep(0.02)


async def _exclusive(scene: Scene) -> None:
    ours = scene.moment in (Moment.VERIFYING, Moment.ACTIVE, Moment.ENDING)
    assert scene.say("exclusive") == (EXCLUSIVELY_OURS if ours else HAD)


async def _hold(scene: Scene) -> None:
    assert scene.say("hold") == HAD


async def _free(scene: Scene) -> None:
    scene.say("free")


async def _reset(scene: Scene) -> None:
    assert scene.say("shared") == HAD
    assert scene.say("reset") == HAD


async def _warm(scene: Scene) -> None:
    scene.card.tell("set-atr", hex="3B8F8001804F0CA000000306030001000000006A")
    await _reset(scene)


async def _cold(scene: Scene) -> None:
    scene.card.tell("set-atr", hex=scene.atr)


async def _verify(scene: Scene) -> None:
    assert scene.say("shared") == HAD
    assert scene.say(f"verify {PIN}") == "9000"
    assert scene.say("free") == HAD


async def _hang(scene: Scene) -> None:
    if scene.moment in (Moment.IDLE, Moment.UNVERIFIED, Moment.ACTIVE):
        # the next one, whatever is being said to the card meanwhile: its later certificates
        told = scene.card.status()["exchanges"]
        for number in range(told + 1, told + 21):
            scene.card.tell("silent-at", n=number)


async def _stop(scene: Scene) -> None:
    scene.room.daemon.signal(15)
    if scene.moment in (Moment.PROBING, Moment.VERIFYING, Moment.ENDING):
        # it has begun: what it says last is that sessions are over, or readers
        reader = scene.moment is Moment.PROBING
        await scene.seen.until(
            "it is under way",
            lambda: reader or "STOPPING" in str(scene.room.daemon.notify.all("STOPPING"))
            or scene.room.daemon.notify.all("STOPPING"),
        )  # fmt: skip
    scene.card.tell("speak")
    begun = time.monotonic()
    await scene.seen.until("it ended", lambda: scene.room.daemon.returncode is not None)
    assert time.monotonic() - begun < STOP_SECONDS + 2  # a busy machine is slow
    assert scene.room.daemon.returncode == 0


async def _crash(scene: Scene) -> None:
    scene.room.daemon.kill()
    scene.card.tell("speak")
    scene.seen.objects.clear()
    scene.before = None
    scene.room.daemon.start()


async def _leave(scene: Scene) -> None:
    await scene.owner.connection.close()


async def _fill(scene: Scene) -> None:
    fill(scene.room.daemon.state)


async def _empty(scene: Scene) -> None:
    (scene.room.daemon.state / "filler").unlink()


async def _sleep(scene: Scene) -> None:
    async with await Connection.open(scene.room.bus.address) as other:
        await announce(other, sleep=True)
    if scene.moment in (Moment.VERIFYING, Moment.ENDING):
        await scene.seen.until("it is told", lambda: scene.shown()[0] in ("gone", "ready"))
    scene.card.tell("speak")
    await scene.seen.until("nothing is shown", lambda: scene.shown()[0] == "gone")


async def _wake(scene: Scene) -> None:
    async with await Connection.open(scene.room.bus.address) as other:
        await announce(other, sleep=False)


PARTS = {
    Fault.TORN_OUT: Part(_tear),
    Fault.SWAPPED: Part(_swap),
    Fault.SERVICE_KILLED: Part(_kill),
    Fault.SERVICE_RESTARTED: Part(_restart),
    Fault.EXCLUSIVE: Part(_exclusive, _free, rival=True),
    Fault.GARBAGE: Part(_nothing, answers="DEADBEEF1337"),
    Fault.EMPTY: Part(_nothing, answers="90"),  # vpcd takes no byte at all for a card that hangs
    Fault.ENDLESS: Part(_nothing, answers="00" * 16 + "6110", times=700),
    Fault.SIGTERM: Part(_stop, asks=False),
    Fault.SIGKILL: Part(_crash, asks=False),
    Fault.OWNER: Part(_leave, asks=False),
    Fault.REPLACED: Part(_replace, plan=LOCK),
    Fault.DENIED: Part(_deny, plan=Plan(as_nobody=True)),
    Fault.TRANSACTION: Part(_hold, _free, SHARED, early=True, rival=True),
    Fault.RESET: Part(_reset, plan=SHARED, rival=True),
    Fault.VERIFIED: Part(_verify, plan=SHARED, early=True, rival=True, tries=1),
    Fault.WARM_ATR: Part(_warm, _cold, SHARED, rival=True),
    Fault.HUNG: Part(_hang, plan=IMPATIENT, speaks=False),
    Fault.DISK: Part(_fill, _empty, Plan(small_disk=True), early=True),
    Fault.READER_PULLED: Part(_pull, _plug, USB),
    Fault.UPSIDE_DOWN: Part(_turn, plan=USB),
    Fault.SUSPEND: Part(_sleep, _wake, Plan(logind=True)),
}
"""How each fault is made; those that share a room come one after the other."""

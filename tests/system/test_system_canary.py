"""The passcode is in no log, message, file or memory of the daemon, whatever was done with it."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path

from cardsession.bus.connection import BusError, Variant
from cardsession.stack import Bus, Card, Child, Daemon, Pcscd
from cardsession.stack.monitor import Monitor
from system.subscriber import Subscriber, memfd

NEVER_SET = "64827193"
"""A wrong passcode is a secret too: it is most often the right one with a slip."""
NEW, NEWER, PUK = "90817263", "51423160", "35792468"
"""Of the card's next passcodes, and its PUK."""
DIGEST = hashlib.sha256(b"a prescription").digest()


def memory(pid: int) -> bytes:
    """Everything that the process may read."""
    found = bytearray()
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory_file:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, access, *_ = line.split()
            if access.startswith("r") and "[v" not in line:
                start, end = (int(each, 16) for each in span.split("-"))
                memory_file.seek(start)
                with contextlib.suppress(OSError):
                    found += memory_file.read(end - start)
    return bytes(found)


def written(directory: Path, pid: int) -> dict[str, bytes]:
    """Every file of the run, and what /proc tells everybody of the process."""
    files = [file for file in directory.rglob("*") if file.is_file()]
    files += [Path(f"/proc/{pid}/{name}") for name in ("status", "cmdline", "environ")]
    return {file.name: file.read_bytes() for file in files}


async def everything_else(seen: Subscriber, session: str, canary: str) -> list[str]:
    """Outcomes of every other call that carries a secret."""
    known = {"accept-unknown": Variant("b", True)}
    sign = ("signature", "ecdsa-sha256", DIGEST, 0, {})
    calls: list[tuple[str, str, tuple[object, ...], tuple[str, ...]]] = [
        ("SignWithPin", "ssayha{sv}", sign, (NEVER_SET,)),
        ("VerifyPin", "sha{sv}", ("user", 0, {}), (canary,)),
        ("SignWithPin", "ssayha{sv}", sign, (canary,)),
        ("ChangePin", "shha{sv}", ("user", 0, 1, {}), (canary, "1234")),
        ("ChangePin", "shha{sv}", ("user", 0, 1, {}), (canary, NEW)),
        ("UnblockPin", "shha{sv}", ("user", 0, 1, known), (NEVER_SET, NEWER)),
        ("UnblockPin", "shha{sv}", ("user", 0, 1, known), (PUK, NEWER)),
    ]
    outcomes = []
    for member, signature, body, secrets in calls:
        fds = tuple(memfd(secret.encode()) for secret in secrets)
        answer = await seen.call(session, "Session", member, signature, body, fds)
        outcomes.append(str(answer[0]))
    return outcomes


async def test_a_passcode_leaves_no_trace(  # noqa: PLR0913, PLR0917 - every place is looked at
    bus: Bus,
    rundir: Path,
    pcscd: Pcscd,
    begin: Callable[[Child], Child],
    daemons: Callable[..., Daemon],
    cards: Callable[..., Card],
    canary: str,
) -> None:
    begin(Monitor(rundir, bus.address))
    daemon = daemons(
        configuration='[log]\nlevel = "debug"\n[pin]\nunblock = ["piv"]\n',
        environment={"PYTHONASYNCIODEBUG": "1"},
    )
    card = cards(puk=PUK)
    async with await Subscriber.open(bus.address) as seen:
        card.insert()
        path, _ = await seen.card_in_state("ready")
        session = await seen.open_session(path)
        outcomes = [
            await seen.verify(session, secret)
            for secret in (
                NEVER_SET.encode(),
                canary.encode(),
                canary.encode() + b"\n",
                canary.encode() * 2,
                canary.encode(),
            )
        ]
        assert [outcome for outcome, _ in outcomes] == [
            "incorrect", "verified", "bad-format", "bad-format", "verified"
        ]  # fmt: skip
        with contextlib.suppress(BusError):
            await seen.verify(session, canary.encode() * 20)
        assert await everything_else(seen, session, canary) == [
            "incorrect", "verified", "verified", "bad-new-pin", "changed", "incorrect", "unblocked"
        ]  # fmt: skip
        assert (await seen.verify(session, NEWER.encode()))[0] == "verified"
        card.tell("pull-at", n=card.status()["exchanges"] + 5, stage="after")
        with contextlib.suppress(BusError):
            await seen.verify(session, NEWER.encode())
        await seen.no_card()

    secrets = [each.encode() for each in (canary, NEVER_SET, NEW, NEWER, PUK)]
    marks = [*secrets, *(each.hex().encode() for each in secrets)]
    held = memory(daemon.pid)
    assert b"org.cardsession1" in held, "the memory was read"
    assert b"pin.judged" in daemon.log().encode(), "the log was written"
    places = written(rundir, daemon.pid) | {"pcscd": pcscd.log().encode(), "memory": held}
    found = [name for name, content in places.items() if any(mark in content for mark in marks)]
    assert found == []

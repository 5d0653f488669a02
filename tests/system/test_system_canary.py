"""The passcode is in no log, message, file or memory of the daemon, whatever was done with it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from cardsession.bus.connection import BusError
from cardsession.stack import Bus, Card, Child, Daemon, Pcscd
from cardsession.stack.monitor import Monitor
from system.subscriber import Subscriber

NEVER_SET = "64827193"
"""A wrong passcode is a secret too: it is most often the right one with a slip."""


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
    files = [file for file in directory.iterdir() if file.is_file()]
    files += [Path(f"/proc/{pid}/{name}") for name in ("status", "cmdline", "environ")]
    return {file.name: file.read_bytes() for file in files}


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
        configuration='[log]\nlevel = "debug"\n', environment={"PYTHONASYNCIODEBUG": "1"}
    )
    card = cards()
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
        card.tell("pull-at", n=card.status()["exchanges"] + 5, stage="after")
        with contextlib.suppress(BusError):
            await seen.verify(session, canary.encode())
        await seen.no_card()

    marks = [canary.encode(), NEVER_SET.encode(), canary.encode().hex().encode()]
    held = memory(daemon.pid)
    assert b"org.cardsession1" in held, "the memory was read"
    assert b"pin.judged" in daemon.log().encode(), "the log was written"
    places = written(rundir, daemon.pid) | {"pcscd": pcscd.log().encode(), "memory": held}
    found = [name for name, content in places.items() if any(mark in content for mark in marks)]
    assert found == []

"""What the daemon costs when nothing happens, and how far behind a bare status wait it is."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from cardsession.stack import Card, Daemon
from cardsession.stack.processes import child_environment
from system.subscriber import ROOT, Subscriber

MIB = 1024 * 1024
MOST_CALLS = 4
BARE_WAIT = """
import sys, time
from smartcard import scard
_, context = scard.SCardEstablishContext(scard.SCARD_SCOPE_SYSTEM)
state = scard.SCARD_STATE_UNAWARE
while True:
    code, (answer,) = scard.SCardGetStatusChange(context, 30000, [(sys.argv[1], state)])
    state = answer[1]
    print(time.monotonic(), bool(state & scard.SCARD_STATE_PRESENT), flush=True)
"""


def wakeups(pid: int) -> int:
    """Times that any thread of the process went to sleep and was woken."""
    count = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        for line in (task / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                count += int(line.split()[1])
    return count


async def test_under_32_mib_before_the_first_card(daemon: Daemon) -> None:
    assert daemon.resident_bytes() < 32 * MIB


@pytest.mark.slow
async def test_idle_with_a_card_in_sleeps(daemon: Daemon, seen: Subscriber, card: Card) -> None:
    card.insert()
    await seen.card_in_state("ready")
    quiet: list[int] = []

    async def settled() -> bool:
        """The readers are listed once more after a change, then never again."""
        quiet.append(wakeups(daemon.pid))
        await asyncio.sleep(0.5)
        return len(quiet) > 6 and len(set(quiet[-6:])) == 1

    deadline = time.monotonic() + 30
    while not await settled():
        assert time.monotonic() < deadline, quiet
    before = wakeups(daemon.pid)
    await asyncio.sleep(8)  # the span that is measured
    assert wakeups(daemon.pid) - before == 0


@pytest.mark.slow
async def test_insertion_and_removal_reach_a_subscriber_right_behind_a_bare_wait(
    seen: Subscriber, card: Card, record_property: Callable[[str, object], None]
) -> None:
    """Measured in calls to the daemon, made in between, after as long a rest: a busy machine makes
    them slow as well. It spoils some of them, so the quick ones are compared, of both."""
    bare = subprocess.Popen(  # noqa: ASYNC220 - once, before anything is measured
        [sys.executable, "-c", BARE_WAIT, "Virtual PCD 00 00"],
        stdout=subprocess.PIPE,
        env=child_environment(),
    )
    assert bare.stdout is not None
    try:
        await asyncio.to_thread(bare.stdout.readline)
        rounds = []
        for _ in range(5):
            rounds.append(await behind(seen, card, bare.stdout))
            record_property("milliseconds of a call, and behind", rounds[-1])
            if max(rounds[-1].values()) <= MOST_CALLS * rounds[-1]["call"]:
                return
        pytest.fail(f"more than {MOST_CALLS} calls behind in each round: {rounds}")
    finally:
        bare.kill()
        bare.wait()
        bare.stdout.close()


async def a_call(seen: Subscriber) -> float:
    """Seconds of a call that is answered with everything there is."""
    start = time.monotonic()
    await seen.call(ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects")
    return time.monotonic() - start


async def behind(seen: Subscriber, card: Card, bare: IO[bytes]) -> dict[str, float]:
    """Milliseconds of a call, and from the bare wait's notice to our subscriber's, by signal."""
    times: dict[str, list[float]] = {"call": [], "InterfacesAdded": [], "InterfacesRemoved": []}
    for _ in range(9):
        for act, member in ((card.insert, "InterfacesAdded"), (card.remove, "InterfacesRemoved")):
            start = len(seen.signals)
            await asyncio.to_thread(act)
            moment = float((await asyncio.to_thread(bare.readline)).split()[0])

            def told(start: int = start, member: str = member) -> float | None:
                for when, signal in seen.signals[start:]:
                    if signal.member == member and "/card/" in signal.body[0]:
                        return when
                return None

            times[member].append(await seen.until(member, told) - moment)
            if member == "InterfacesAdded":
                await seen.card_in_state("ready")
            await asyncio.sleep(0.2)  # everybody sleeps, as they do before a card comes
            times["call"].append(await a_call(seen))
    return {name: sorted(each)[len(each) // 4] * 1000 for name, each in times.items()}

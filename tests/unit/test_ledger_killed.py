"""SIGKILL at any moment: what the ledger said it had done, it had done."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cardsession.adapters.ledger import FileLedger
from cardsession.ports import Past

PIN = 0x80
ROUNDS = 15

WORKER = """
import itertools, sys
from pathlib import Path
from cardsession.adapters.ledger import FileLedger, durable, store
from cardsession.core.tries import Known, Unknown, Verified

store.GROWTH = int(sys.argv[2])
durable.PATIENCE = 60.0
ledger = FileLedger(Path(sys.argv[1]), itertools.count(1).__next__)
for number in itertools.count(int(sys.argv[3])):
    card = f"card {number % 20} {number}"
    def done(what):
        print(number, what, flush=True)
    ledger.note(card, 0x80, Known(3)); done("noted")
    ledger.begin(card, 0x80, "a test"); done("begun")
    if number % 4 == 0:
        ledger.note(card, 0x80, Known(1)); done("read-back")
        ledger.settle(card, 0x80, Known(1)); done("low")
    elif number % 4 == 1:
        ledger.settle(card, 0x80, Known(2)); done("wrong")
    elif number % 4 == 2:
        ledger.settle(card, 0x80, Verified(), 0x80); done("changed")
    else:
        ledger.settle(card, 0x80, Unknown()); done("uncertain")
"""

AFTER: dict[str, list[tuple[int | None, bool, bool]]] = {
    # last heard of: (lowest, in flight, tried), as it was or as what came next left it
    "noted": [(3, False, False), (2, True, True)],
    "begun": [(2, True, True), (1, False, True), (2, False, True), (None, False, True)],
    "read-back": [(1, False, True)],
    "low": [(1, False, True)],
    "wrong": [(2, False, True)],
    "changed": [(None, False, True)],
    "uncertain": [(2, True, True)],
}
"""(`read-back` and `low` look alike: the card told, and nothing is stale.)"""


@pytest.mark.parametrize("growth", [600, 1 << 20], ids=["rewriting", "appending"])
def test_killed_at_a_random_moment(tmp_path: Path, growth: int) -> None:
    """A new process reads the file after each, and goes on with it."""
    dice = random.Random(growth)  # noqa: S311 - the same each time
    heard: dict[int, str] = {}
    start = 0
    for _ in range(ROUNDS):
        heard |= _run_and_kill(tmp_path, growth, start, dice)
        start = max(heard) + 2  # the one after the last may have been noted, unheard
        said: list[str] = []
        ledger = FileLedger(tmp_path, lambda: 1, said.append)
        for number, what in heard.items():
            card = f"card {number % 20} {number}"
            past: Past = ledger.past(card)
            state = (ledger.lowest(card, PIN), past.in_flight, past.tried)
            assert state in AFTER[what], (number, what)
            if what == "changed":
                assert past.changed_usec
        ledger.close()
        assert said == [], "a kill damages nothing"
    assert len(set(heard.values())) > 4


def _run_and_kill(directory: Path, growth: int, start: int, dice: random.Random) -> dict[int, str]:
    """The last thing heard of each card, whole lines only."""
    arguments = [sys.executable, "-P", "-c", WORKER, str(directory), str(growth), str(start)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        lines = [worker.stdout.readline() for _ in range(dice.randrange(1, 30))]
        # not always when it has just spoken; how long does not matter to what is asserted
        time.sleep(dice.random() * 0.002)
        worker.send_signal(signal.SIGKILL)
        lines += worker.stdout.read().splitlines(keepends=True)
        worker.wait(60)
    whole = [line.split() for line in lines if line.endswith("\n")]
    assert whole
    return {int(number): what for number, what in whole}

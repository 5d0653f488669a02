"""The audit trail on a full disk, and of a process that is killed.

Run as a program this file plays one of those parts, in a process of its own.
"""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from cardsession.adapters.trail import AuditTrail, entries, writer

sys.path.append(str(Path(__file__).parents[1]))  # as a program

from fakes.disk import on_a_small_disk
from fakes.trails import NOON, TODAY, Trails, until

HERE = Path(__file__)


def test_a_full_disk(trails: Trails) -> None:
    """A tmpfs of 32 KiB in a mount namespace, really full, and then not."""
    command = on_a_small_disk(trails.directory, HERE, "full")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("fine\n"), done.stdout + done.stderr


def _more(trails: Trails, count: int) -> Callable[[], bool]:
    before = len(trails.read())
    return lambda: len(trails.read()) > before + count


def test_killed_at_any_moment(trails: Trails) -> None:
    """What was on the disk stays, whole; the next process goes on after it."""
    for _ in range(5):
        arguments = [sys.executable, "-P", str(HERE), "write", str(trails.directory)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:
            until(_more(trails, 20))
            process.send_signal(signal.SIGKILL)
            process.wait(60)
        seen = trails.read()
        trails.now += 1
        trails.open().record("after")
        trails.close()
        assert trails.read()[:-1] == seen
    assert "trail.gap" not in trails.events()
    numbers = [entry["number"] for entry in trails.read() if entry["event"] == "x"]
    starts = numbers.count(0)
    assert starts == 5
    assert all(b in (0, a + 1) for a, b in itertools.pairwise(numbers))


def play_write(directory: Path) -> None:
    """Entries until killed."""
    trail = AuditTrail(directory, lambda: NOON, 0)
    number = 0
    while True:
        trail.record("x", number=number, padding="y" * 100)
        number += 1
        until(lambda: len(trail._queue) < 100)


def play_full(directory: Path) -> None:
    """Lost, counted, told; then a gap, and on with it."""
    said: list[str] = []
    trail = AuditTrail(directory, lambda: NOON, 0, said.append)
    filler = directory / "filler"
    trail.record("x", number=0)
    until(lambda: list(entries(directory)))
    try:
        with filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 512)
    except OSError:
        pass
    number = 0
    while not said:
        number += 1
        trail.record("x", number=number, padding="y" * 100)
        until(lambda: not trail._queue and not trail._busy_since)
    lost = trail.lost
    assert said == ["The audit trail is not written: No space left on device"], said
    assert lost >= 1
    filler.unlink()
    trail.record("y")
    trail.close()
    assert said[1:] == [""], said
    found = list(entries(directory))
    assert [each["event"] for each in found[-2:]] == ["trail.gap", "y"], found
    assert found[-2]["lost"] == lost
    assert [each["number"] for each in found[:-2]] == list(range(number - lost + 1))
    raw = (directory / TODAY).read_bytes()
    assert raw.endswith(b"\n")
    for line in raw.splitlines():
        assert not line or line.startswith(b"{")
    assert json.loads(raw.splitlines()[-1])["event"] == "y"


if __name__ == "__main__":
    writer.CLOSE_SECONDS = 60.0  # a busy machine's disk may be slow
    globals()[f"play_{sys.argv[1]}"](Path(sys.argv[2]))
    sys.stdout.write("fine\n")

"""The ledger beside another process's, on a full disk, on a read-only one, at a limit.

Run as a program this file plays one of those parts, in a process of its own.
"""

from __future__ import annotations

import itertools
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cardsession.adapters.ledger import FileLedger, durable
from cardsession.core.tries import Known, Unknown

sys.path.append(str(Path(__file__).parents[1]))  # as a program

from fakes.disk import on_a_small_disk

CARD, PIN = "A1", 0x80
HERE = Path(__file__)


def spend(ledger: FileLedger, identity: str = CARD) -> None:
    """Three tries, of which one is lost."""
    ledger.note(identity, PIN, Known(3))
    ledger.begin(identity, PIN, ":1.7 uid 1000")


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


# two processes


def test_a_second_process_knows_and_does_not_write(
    opened: Callable[..., FileLedger], tmp_path: Path, said: list[str]
) -> None:
    """It is told so; when the first one is gone it has learnt what that one did."""
    with _part("hold", tmp_path) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "ready\n"
        ledger = opened()
        assert ledger.lowest("theirs", PIN) == 2
        assert said == ["Passcode attempts are not recorded: another process keeps the record"]
        spend(ledger)
        assert ledger.lowest(CARD, PIN) == 2
        before = (tmp_path / "ledger").read_bytes()
        ledger.begin(CARD, PIN, "a test")
        assert (tmp_path / "ledger").read_bytes() == before
        holder.send_signal(signal.SIGKILL)
        holder.wait(60)
    assert len(said) == 1
    ledger.begin("B2", PIN, "a test")
    assert said[1:] == [""]
    ledger = opened()
    assert ledger.lowest(CARD, PIN) == 1
    assert ledger.lowest("theirs", PIN) == 2
    assert ledger.past("theirs").in_flight and ledger.past("B2").in_flight


def test_what_another_process_wrote_is_merged_once(
    opened: Callable[..., FileLedger], said: list[str]
) -> None:
    """Or an attempt that was settled here would be in flight again at every change."""
    first = opened()
    spend(first)
    second = opened(beside=True)
    assert second.past(CARD).in_flight
    second.note(CARD, PIN, Known(2))
    second.note("B2", PIN, Known(2))
    assert not second.past(CARD).in_flight
    assert len(said) == 1


# disks


@pytest.mark.parametrize("part", ["full", "readonly"])
def test_a_small_disk(part: str, tmp_path: Path) -> None:
    """A tmpfs of 32 KiB in a mount namespace: really full, really read-only."""
    _finish(on_a_small_disk(tmp_path, HERE, part))


def test_a_limit_on_the_size_of_files(tmp_path: Path) -> None:
    _finish([sys.executable, "-P", str(HERE), "limit", str(tmp_path)])


def _finish(arguments: list[str]) -> None:
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("fine\n"), done.stdout + done.stderr


def _part(part: str, directory: Path) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-P", str(HERE), part, str(directory)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def play_hold(directory: Path) -> None:
    """Keep the ledger until killed."""
    ledger = FileLedger(directory, lambda: 1)
    spend(ledger, "theirs")
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    signal.pause()


def play_full(directory: Path) -> None:
    """The disk fills, the guard goes on; it has room again, and nothing was forgotten."""
    said: list[str] = []
    ledger = FileLedger(directory, itertools.count(1).__next__, said.append)
    spend(ledger)
    filler = (directory / "filler").open("wb", buffering=0)
    try:
        while True:
            filler.write(b"x" * 512)
    except OSError:
        filler.close()
    spent = 0
    while not said:  # what is left of the ledger's own last page
        ledger.begin("many", PIN, "a test" * 20)
        spent += 1
        assert spent < 500
    assert said == ["Passcode attempts are not recorded: No space left on device"], said
    ledger.note(CARD, PIN, Known(1))
    ledger.begin("B2", PIN, "a test")
    assert ledger.lowest(CARD, PIN) == 1 and ledger.past("B2").in_flight
    with _copied(directory) as other:
        assert other.past(CARD).in_flight and not other.past("B2").tried
    assert len(said) == 1
    (directory / "filler").unlink()
    ledger.begin(CARD, PIN, "a test")
    assert said[1:] == [""]
    assert sorted(path.name for path in directory.iterdir()) == ["ledger"]
    with _copied(directory) as again:
        assert again.lowest(CARD, PIN) == 0
        assert again.past(CARD).in_flight and again.past("B2").in_flight


def play_readonly(directory: Path) -> None:
    """Read-only at the start: what is there counts, and becomes a file's when it can."""
    ledger = FileLedger(directory, lambda: 1)
    spend(ledger)
    ledger.close()
    remount = ["mount", "-o", "remount,ro", str(directory)]
    subprocess.run(remount, check=True)
    said: list[str] = []
    ledger = FileLedger(directory, lambda: 2, said.append)
    assert ledger.past(CARD).in_flight
    assert said == ["Passcode attempts are not recorded: Read-only file system"], said
    ledger.begin(CARD, PIN, "a test")
    assert ledger.lowest(CARD, PIN) == 1
    assert len(said) == 1
    subprocess.run([*remount[:2], "remount,rw", str(directory)], check=True)
    ledger.settle(CARD, PIN, Unknown())
    ledger.begin(CARD, PIN, "a test")
    assert said[1:] == [""]
    ledger.close()
    again = FileLedger(directory, lambda: 3)
    assert again.lowest(CARD, PIN) == 0
    assert len(again._everything()[CARD, PIN].attempts) == 3


def play_limit(directory: Path) -> None:
    """Half a line is written, then no more: it is not where the next one begins."""
    said: list[str] = []
    ledger = FileLedger(directory, itertools.count(1).__next__, said.append)
    spend(ledger)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((directory / "ledger").stat().st_size + 20, hard))
    ledger.begin("B2", PIN, "a test")
    assert said == ["Passcode attempts are not recorded: File too large"], said
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    ledger.begin("C3", PIN, "a test")
    assert said[1:] == [""]
    ledger.close()
    again = FileLedger(directory, lambda: 1, said.append)
    assert all(again.past(identity).in_flight for identity in (CARD, "B2", "C3"))
    assert len(said) == 2


@contextmanager
def _copied(directory: Path) -> Iterator[FileLedger]:
    """A ledger that reads what is there now, as it would after a crash."""
    with tempfile.TemporaryDirectory() as root:
        copy = Path(root) / "state"
        shutil.copytree(directory, copy, ignore=shutil.ignore_patterns("filler"))
        ledger = FileLedger(copy, lambda: 1)
        yield ledger
        ledger.close()


if __name__ == "__main__":
    durable.PATIENCE = 60.0  # a busy machine's disk may be slow
    globals()[f"play_{sys.argv[1]}"](Path(sys.argv[2]))
    sys.stdout.write("fine\n")

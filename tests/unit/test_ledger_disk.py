"""The ledger's disk: what is written when, odd directories, and a disk that hangs."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from cardsession.adapters.ledger import FileLedger, durable, lines, store
from cardsession.core.tries import Known, Verified
from cardsession.ports import Past

CARD, PIN = "A1", 0x80


def spend(ledger: FileLedger, identity: str = CARD) -> None:
    """Three tries, of which one is lost."""
    ledger.note(identity, PIN, Known(3))
    ledger.begin(identity, PIN, ":1.7 uid 1000")


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


# what is kept


def test_it_is_remembered(opened: Callable[..., FileLedger], said: list[str]) -> None:
    spend(opened())
    ledger = opened()
    assert ledger.past(CARD) == Past(in_flight=True, tried=True)
    assert ledger.lowest(CARD, PIN) == 2
    ledger.settle(CARD, PIN, Verified(), PIN)
    changed = ledger.past(CARD).changed_usec
    assert changed > 0
    ledger = opened()
    assert ledger.past(CARD) == Past(tried=True, changed_usec=changed)
    assert ledger.lowest(CARD, PIN) is None
    assert said == []


def test_nothing_happens_before_the_first_call(opened: Callable[..., FileLedger]) -> None:
    """No work in `__init__`, and nothing to close."""
    threads = threading.active_count()
    ledger = opened(Path("/nonexistent"))
    ledger.close()
    assert threading.active_count() == threads


def test_the_file_is_its_owner_s(opened: Callable[..., FileLedger], tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        spend(opened())
    finally:
        os.umask(before)
    assert names(tmp_path) == ["ledger"]
    assert (tmp_path / "ledger").stat().st_mode & 0o7777 == 0o600


def test_a_line_says_who_and_when_and_no_more(
    opened: Callable[..., FileLedger], tmp_path: Path
) -> None:
    spend(opened())
    *_, line = (tmp_path / "ledger").read_bytes().splitlines()
    assert line[9:] == (
        b'{"card":"A1","reference":128,"lowest":2,'
        b'"attempts":[[1000,":1.7 uid 1000",3,false]],"spent":false,"changed":0}'
    )


def test_an_unchanged_count_is_not_written_again(
    opened: Callable[..., FileLedger], tmp_path: Path
) -> None:
    ledger = opened()
    ledger.note(CARD, PIN, Known(3))
    size = (tmp_path / "ledger").stat().st_size
    for _ in range(10):
        ledger.note(CARD, PIN, Known(3))
    assert (tmp_path / "ledger").stat().st_size == size


def test_the_file_does_not_grow_for_ever(
    opened: Callable[..., FileLedger], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "GROWTH", 2000)
    ledger = opened()
    for _ in range(100):
        ledger.begin(CARD, PIN, "a test")
        ledger.settle(CARD, PIN, Verified())
    assert (tmp_path / "ledger").stat().st_size < 3000
    assert opened().past(CARD) == Past(tried=True)


def test_the_attempt_is_synced_before_begin_returns(
    opened: Callable[..., FileLedger], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fdatasync was given is what a new process reads."""
    ledger = opened()
    ledger.note(CARD, PIN, Known(3))
    synced: list[bytes] = []
    real = os.fdatasync

    def fdatasync(descriptor: int) -> None:
        synced.append((tmp_path / "ledger").read_bytes())
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    ledger.begin(CARD, PIN, "a test")
    (raw,) = synced
    assert lines.read(raw).entries[CARD, PIN].in_flight
    ledger.settle(CARD, PIN, Verified())
    assert len(synced) == 1, "an outcome makes nobody wait for the disk"


def test_a_new_file_is_synced_before_it_has_the_old_one_s_name(
    opened: Callable[..., FileLedger], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a power cut would leave an empty one in its place."""
    calls: list[tuple[str, int]] = []
    real_sync, real_rename = os.fsync, os.rename

    def fsync(descriptor: int) -> None:
        real_sync(descriptor)
        calls.append(("fsync", os.fstat(descriptor).st_ino))

    def rename(source: str, target: str, **directories: int) -> None:
        calls.append(("rename", (tmp_path / source).stat().st_ino))
        real_rename(source, target, **directories)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    opened().past(CARD)
    file, directory = ((tmp_path / name).stat().st_ino for name in ("ledger", "."))
    assert calls == [("fsync", file), ("rename", file), ("fsync", directory)]


# threads


def test_threads_share_it(opened: Callable[..., FileLedger]) -> None:
    """Cards of their own and one in common; each thread counts what it did."""
    ledger = opened()
    ledger.note("shared", PIN, Known(15))

    def work(number: int) -> None:
        for _ in range(20):
            ledger.begin(f"card {number}", PIN, "a test")
            ledger.settle(f"card {number}", PIN, Known(2))
        ledger.begin("shared", PIN, f"{number}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for each in (ledger, opened()):
        assert each.lowest("shared", PIN) == 9
        assert {attempt.asked_by for attempt in each._everything()["shared", PIN].attempts} == {
            str(number) for number in range(6)
        }
        for number in range(6):
            assert each.past(f"card {number}") == Past(tried=True)
            assert each.lowest(f"card {number}", PIN) == 2


# no directory, odd directories


def test_a_missing_directory_costs_durability_only(
    opened: Callable[..., FileLedger], tmp_path: Path, said: list[str]
) -> None:
    directory = tmp_path / "later"
    with capture_logs() as events:
        ledger = opened(directory)
        spend(ledger)
        assert ledger.lowest(CARD, PIN) == 2
        assert ledger.past(CARD).in_flight
        assert said == ["Passcode attempts are not recorded: No such file or directory"]
        directory.mkdir()
        ledger.begin("B2", PIN, "a test")
        assert said[1:] == [""]
    assert [event["event"] for event in events] == ["ledger.trouble", "ledger.recovered"]
    ledger = opened(directory)
    assert ledger.past(CARD).in_flight and ledger.past("B2").in_flight
    assert ledger.lowest(CARD, PIN) == 2


@pytest.mark.parametrize("what", ["file", "directory"])
def test_a_file_that_was_taken_away_is_made_again(
    opened: Callable[..., FileLedger], tmp_path: Path, what: str, said: list[str]
) -> None:
    """A write to a file that nobody can open any more would succeed."""
    directory = tmp_path / "state"
    directory.mkdir()
    ledger = opened(directory)
    spend(ledger)
    if what == "file":
        (directory / "ledger").unlink()
    else:
        directory.rename(tmp_path / "moved")
        directory.mkdir()
    ledger.begin("B2", PIN, "a test")
    assert said == []
    ledger = opened(directory)
    assert ledger.past(CARD).in_flight and ledger.past("B2").in_flight


@pytest.mark.parametrize("what", ["directory", "fifo", "symlink", "nowhere"])
def test_what_is_no_file_is_put_aside(
    opened: Callable[..., FileLedger], tmp_path: Path, what: str, said: list[str]
) -> None:
    directory = tmp_path / "state"
    directory.mkdir()
    path, other = directory / "ledger", tmp_path / "other"
    other.write_text("somebody's")
    match what:
        case "directory":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "symlink":
            path.symlink_to(other)
        case _:
            path.symlink_to(tmp_path / "nowhere")
    spend(opened(directory))
    assert names(directory) == ["ledger", "ledger.damaged-1"]
    assert len(said) == 2 and "ledger.damaged-1" in said[0] and not said[1]
    assert other.read_text() == "somebody's"
    assert not (tmp_path / "nowhere").exists()
    assert opened(directory).past(CARD).in_flight


# a disk that hangs


def test_a_disk_that_hangs_is_waited_for_once(
    opened: Callable[..., FileLedger], monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    ledger = opened()
    ledger.note(CARD, PIN, Known(3))
    answers, real = threading.Event(), os.fdatasync

    def fdatasync(descriptor: int) -> None:
        answers.wait(60)
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    monkeypatch.setattr(durable, "PATIENCE", 0.05)
    ledger.begin(CARD, PIN, "a test")
    assert said == ["Passcode attempts are not recorded: the disk does not answer"]
    monkeypatch.setattr(durable, "PATIENCE", 3600.0)
    ledger.begin(CARD, PIN, "nobody waits for this one")
    ledger.settle("B2", PIN, Known(1))
    assert ledger.lowest(CARD, PIN) == 1
    assert ledger.past(CARD).in_flight
    answers.set()
    deadline = time.monotonic() + 60
    while len(said) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert said[1] == ""
    ledger = opened()
    assert ledger.lowest(CARD, PIN) == 1
    assert ledger.lowest("B2", PIN) == 1


def test_a_disk_that_hangs_from_the_start(
    opened: Callable[..., FileLedger], monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    """Nothing is known, nobody hangs; what is read later is added, the stricter of both."""
    ledger = opened()
    spend(ledger)
    ledger.note("B2", PIN, Known(1))
    ledger.close()
    answers, real = threading.Event(), store.Store.read

    def read(self: store.Store) -> lines.Found:
        answers.wait(60)
        return real(self)

    monkeypatch.setattr(store.Store, "read", read)
    monkeypatch.setattr(durable, "PATIENCE", 0.05)
    ledger = opened()
    assert ledger.lowest(CARD, PIN) is None
    ledger.note("B2", PIN, Known(3))
    ledger.begin("C3", PIN, "a test")
    answers.set()
    deadline = time.monotonic() + 60
    while len(said) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    for each in (ledger, opened()):
        assert each.lowest(CARD, PIN) == 2
        assert each.lowest("B2", PIN) == 1
        assert each.past(CARD).in_flight and each.past("C3").in_flight


def test_closing_does_not_wait_for_a_disk_that_hangs(
    opened: Callable[..., FileLedger], monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = opened()
    ledger.past(CARD)
    answers = threading.Event()
    monkeypatch.setattr(os, "fdatasync", lambda _: answers.wait(60))
    monkeypatch.setattr(durable, "PATIENCE", 0.05)
    monkeypatch.setattr(durable, "CLOSE_SECONDS", 0.05)
    ledger.begin(CARD, PIN, "a test")
    with capture_logs() as events:
        ledger.close()
    assert "ledger.abandoned" in [event["event"] for event in events]
    answers.set()
    ledger._thread.join(60)  # type: ignore[union-attr]


def test_after_the_end_it_is_a_ledger_in_memory(opened: Callable[..., FileLedger]) -> None:
    ledger = opened()
    spend(ledger)
    ledger.close()
    ledger.close()
    ledger.begin(CARD, PIN, "too late")
    assert ledger.lowest(CARD, PIN) == 1
    assert opened().lowest(CARD, PIN) == 2


# faults of ours


def test_a_fault_of_ours_is_trouble_and_no_exception(
    opened: Callable[..., FileLedger], monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    ledger = opened()
    ledger.past(CARD)
    with monkeypatch.context() as patch, capture_logs() as events:
        patch.setattr(store.Store, "append", lambda *_, **__: 1 / 0)
        spend(ledger)
    assert said == ["Passcode attempts are not recorded: a fault of the program"]
    assert events[0]["event"] == "ledger.fault"
    ledger.begin(CARD, PIN, "a test")
    assert said[1:] == [""]
    assert opened().lowest(CARD, PIN) == 1


def test_a_report_that_fails_is_nobody_s_trouble(tmp_path: Path) -> None:
    """The loop may be closed when the disk's trouble is over."""

    def report(_: str) -> None:
        raise RuntimeError("Event loop is closed")

    ledger = FileLedger(tmp_path / "missing", lambda: 1, report)
    spend(ledger)
    ledger.begin(CARD, PIN, "a test")
    assert ledger.lowest(CARD, PIN) == 1
    ledger.close()

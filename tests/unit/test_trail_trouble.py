"""The audit trail in trouble: odd files, slow disks, threads; nobody waits, and gaps are told."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import pytest
from structlog.testing import capture_logs

from cardsession.adapters.trail import AuditTrail, writer
from fakes.trails import NOON, TODAY, Trails, until


def test_half_a_line_of_a_crash_costs_that_line(trails: Trails) -> None:
    trails.open().record("x", number=1)
    trails.close()
    with (trails.directory / TODAY).open("a") as file:
        file.write('{"time":"2026-03-01T12:00:00.0000')
    trails.open().record("x", number=2)
    trails.close()
    assert (trails.directory / TODAY).read_text().count("\n") == 3
    assert [entry["number"] for entry in trails.read()] == [1, 2]


def test_a_missing_directory_is_a_gap(trails: Trails) -> None:
    trails.directory.rmdir()
    with capture_logs() as events:
        trail = trails.open()
        for _ in range(3):
            trail.record("x")
            until(lambda: trails.said)
        until(lambda: trail.lost == 3)
        trails.directory.mkdir()
        trail.record("y")
        trails.close()
    assert trails.said == ["The audit trail is not written: No such file or directory", ""]
    assert [event["event"] for event in events] == ["trail.trouble", "trail.recovered"]
    assert [(each["event"], each.get("lost")) for each in trails.read()] == [
        ("trail.gap", 3),
        ("y", None),
    ]


def test_trouble_ends_without_another_entry(
    trails: Trails, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "RETRY_SECONDS", 0.01)
    trails.directory.rmdir()
    trails.open().record("x")
    until(lambda: trails.said)
    trails.directory.mkdir()
    until(lambda: len(trails.said) == 2)
    assert trails.events() == ["trail.gap"]


def test_the_gap_is_written_at_the_end_if_not_before(trails: Trails) -> None:
    trails.directory.rmdir()
    trails.open().record("x")
    until(lambda: trails.said)
    trails.directory.mkdir()
    trails.close()
    assert [(each["event"], each["lost"]) for each in trails.read()] == [("trail.gap", 1)]


@pytest.mark.parametrize(
    "what", ["directory", "fifo", "symlink", *(["device"] if os.getuid() == 0 else [])]
)
def test_what_lies_in_a_file_s_place_is_told_of(trails: Trails, what: str) -> None:
    path, other = trails.directory / TODAY, trails.directory / "other"
    other.write_text("somebody's")
    match what:
        case "directory":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "symlink":
            path.symlink_to(other)
        case _:
            os.mknod(path, 0o020666, os.makedev(1, 3))
    trail = trails.open()
    trail.record("x")
    until(lambda: trail.lost == 1)
    path.rmdir() if path.is_dir() else path.unlink()
    trail.record("y")
    trails.close()
    assert trails.said[0].startswith("The audit trail is not written: ")
    if what in ("fifo", "device"):
        assert "no regular file" in trails.said[0]
    assert trails.said[1:] == [""]
    assert trails.events() == ["trail.gap", "y"]
    assert other.read_text() == "somebody's"


def test_a_file_that_others_may_write_is_mended(
    trails: Trails, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = trails.directory / TODAY
    path.touch()
    path.chmod(0o666)
    trails.open().record("x")
    trails.close()
    assert path.stat().st_mode & 0o7777 == 0o640
    assert trails.said == []
    path.chmod(0o666)

    def refuse(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchmod", refuse)
    trails.open().record("y")
    trails.close()
    assert len(trails.said) == 1 and "others" in trails.said[0]
    assert trails.events() == ["x", "y"]


def test_a_file_that_was_taken_away_is_made_again(trails: Trails) -> None:
    trail = trails.open()
    trail.record("x", number=1)
    until(lambda: trails.events() == ["x"])
    (trails.directory / TODAY).rename(trails.directory / "rotated")
    trail.record("x", number=2)
    trails.close()
    assert [entry["number"] for entry in trails.read()] == [2]
    assert "rotated" in trails.names()


def test_a_disk_that_hangs_holds_nobody_up(trails: Trails, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit into the queue is a gap, in its place."""
    answers, hangs, real = threading.Event(), threading.Event(), os.fdatasync

    def fdatasync(descriptor: int) -> None:
        hangs.set()
        answers.wait(60)
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    monkeypatch.setattr(writer, "MOST_QUEUED", 5)
    trail = trails.open()
    trail.record("x", number=0)
    assert hangs.wait(60)
    for number in range(1, 9):
        trail.record("x", number=number)
    assert trail.lost == 3
    assert trails.said == ["The audit trail is not written: the disk does not keep up"]
    answers.set()
    until(lambda: len(trails.said) == 2)
    trail.record("y")
    trails.close()
    assert [each.get("number", each.get("lost")) for each in trails.read()] == [
        *range(6),
        3,
        None,
    ]
    assert trails.said[1:] == [""]


def test_a_disk_that_hangs_is_told_of(trails: Trails, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long before the queue is full."""
    answers, hangs = threading.Event(), threading.Event()

    def fdatasync(_: int) -> None:
        hangs.set()
        answers.wait(60)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    monkeypatch.setattr(writer, "SLOW_SECONDS", 0.0)
    trail = trails.open()
    trail.record("x")
    assert hangs.wait(60)
    time.sleep(0.001)
    trail.record("x")
    assert trails.said == ["The audit trail is not written: the disk does not keep up"]
    answers.set()


def test_closing_has_a_deadline(trails: Trails, monkeypatch: pytest.MonkeyPatch) -> None:
    answers, hangs = threading.Event(), threading.Event()

    def fdatasync(_: int) -> None:
        hangs.set()
        answers.wait(60)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    monkeypatch.setattr(writer, "CLOSE_SECONDS", 0.02)
    trail = trails.open()
    trail.record("x")
    assert hangs.wait(60)
    with capture_logs() as events:
        trail.close()
    assert [event["event"] for event in events] == ["trail.abandoned"]
    answers.set()
    trail._thread.join(60)  # type: ignore[union-attr]


def test_closing_writes_what_waits_and_takes_no_more(trails: Trails) -> None:
    trail = trails.open()
    for number in range(500):
        trail.record("x", number=number)
    trails.close()
    trail.record("x", number=500)
    assert [entry["number"] for entry in trails.read()] == list(range(500))
    assert trail.lost == 1 and trails.said == []


def test_what_fails_to_sync_is_counted_as_lost(
    trails: Trails, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        trail = trails.open()
        trail.record("x")
        until(lambda: trail.lost == 1)
    trail.record("y")
    trails.close()
    assert trails.events() == ["x", "trail.gap", "y"]


def test_a_clock_that_fails_is_a_gap(trails: Trails) -> None:
    times: list[Any] = ["noon", "noon", NOON, NOON]
    with capture_logs() as events:
        trail = AuditTrail(trails.directory, lambda: times.pop(0), 0, trails.said.append)
        trail.record("x")
        until(lambda: len(times) == 2)
        trail.record("y")
        trail.close()
    assert [each["event"] for each in events][:2] == ["trail.fault", "trail.fault"]
    assert trails.events() == ["trail.gap", "y"]
    assert trail.lost == 1
    assert trails.said == ["The audit trail is not written: a fault of the program", ""]


def test_a_report_that_fails_is_nobody_s_trouble(trails: Trails) -> None:
    """The loop may be closed by then."""

    def report(_: str) -> None:
        raise RuntimeError("Event loop is closed")

    with capture_logs() as events:
        trail = AuditTrail(trails.directory / "missing", lambda: NOON, 0, report)
        trail.record("x")
        trail.record("x")
        trail.close()
    assert "trail.fault" in [each["event"] for each in events]


def test_many_threads(trails: Trails) -> None:
    trail = trails.open()

    def work(thread: int) -> None:
        for number in range(100):
            trail.record("x", thread=thread, number=number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    trails.close()
    for number in range(5):
        found = [entry["number"] for entry in trails.read(thread=number)]
        assert found == list(range(100))

"""Reading the audit trail: by time, by field, and whatever the files are like."""

from __future__ import annotations

import os
from pathlib import Path

from cardsession.adapters.trail import entries
from fakes.trails import DAY, NOON, TODAY, Trails


def test_reading_by_time_and_by_field(trails: Trails) -> None:
    trail = trails.open()
    for day in range(3):
        trails.now = NOON + day * DAY
        trail.record("pin.judged", card=day % 2, outcome="incorrect")
        trail.record("session.ended", card=day % 2)
    trails.close()
    assert len(trails.read()) == 6
    assert len(trails.read(NOON + DAY)) == 4
    assert len(trails.read(NOON + DAY + 1)) == 2
    assert len(trails.read(NOON + DAY, event="pin.judged")) == 2
    assert [entry["time"][:10] for entry in trails.read(card=1, event="pin.judged")] == [
        "2026-03-02"
    ]
    assert trails.read(card="1") == trails.read(missing="x") == []
    assert trails.read(NOON + 99 * DAY) == []


def test_reading_skips_what_is_damaged(trails: Trails) -> None:
    good = '{"time":"2026-03-01T12:00:00.000000+00:00","event":"x","number":%d}\n'
    huge = '{"time":"2026-03-01T12:00:00.000000+00:00","event":"' + "x" * (200 << 10) + '"}\n'
    bad = [
        b"\n",
        b"\0" * 100 + b"\n",
        b"\xff\xfe{}\n",
        b"null\n",
        b"[]\n",
        b"{}\n",
        b'{"time":"yesterday","event":"x"}\n',
        b'{"time":7,"event":"x"}\n',
        b'{"time":"2026-03-01T12:00:00","event":"x"}\n',
        b'{"time":"2026-03-01T12:00:00.000000+00:00"}\n',
        b'{"time":"2026-03-01T12:00:00.000000+00:00","event":["x"]}\n',
        b'{"time":"2026-03-01T12:00:00.000000+00:00","event":"x","y":{"z":1}}\n',
        b'{"time":"2026-03-01T12:00:00.000000+00:00","event":"x","y":NaN}\n',
        b'{"time":"2026-03-01T12:00:00.000000+00:00","event":"x","y":' + b"9" * 9999 + b"}\n",
        b"[" * 60_000 + b"\n",
        huge.encode(),
    ]
    parts: list[bytes] = []
    for number, each in enumerate(bad):
        parts += [each, (good % number).encode()]
    (trails.directory / TODAY).write_bytes(b"".join(parts) + (good % 99).encode()[:-1])
    assert [entry["number"] for entry in trails.read()] == list(range(len(bad)))


def test_reading_odd_directories(trails: Trails, tmp_path: Path) -> None:
    """Nothing that is no file of ours is followed, waited for, or an exception."""
    assert list(entries(tmp_path / "missing")) == []
    trails.open().record("x")
    trails.close()
    (trails.directory / "audit-2026-01-01.jsonl").mkdir()
    os.mkfifo(trails.directory / "audit-2026-01-02.jsonl")
    (trails.directory / "audit-2026-01-03.jsonl").symlink_to(trails.directory / TODAY)
    (trails.directory / "audit-2026-01-04.jsonl").symlink_to(tmp_path / "nowhere")
    (trails.directory / "audit-2026-03-01.jsonl~").write_bytes(
        (trails.directory / TODAY).read_bytes()
    )
    assert trails.events() == ["x"]


def test_reading_streams(trails: Trails) -> None:
    """A first entry is there before the last one is read: a file that grows is no memory."""
    line = b'{"time":"2026-03-01T12:00:00.000000+00:00","event":"x"}\n'
    (trails.directory / TODAY).write_bytes(line * 10)
    (trails.directory / "audit-2026-03-02.jsonl").write_bytes(line)
    found = entries(trails.directory)
    next(found)
    (trails.directory / "audit-2026-03-02.jsonl").unlink()
    assert len(list(found)) == 9

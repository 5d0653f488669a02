"""The audit trail: what is in it, in which file, and what is in none."""

from __future__ import annotations

import os
import threading
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from cardsession.adapters.trail import is_secretive
from cardsession.core.secret import Secret
from fakes.trails import DAY, NOON, TODAY, Trails

CANARY = "73194682"


# what is in it


def test_a_line_is_an_entry(trails: Trails) -> None:
    trail = trails.open()
    trail.record("pin.judged", reader="1-2", card=7, outcome="incorrect", left=2, temporary=False)
    trails.now += 1
    trail.record("session.ended", reason="Jörg")
    trails.close()
    assert (trails.directory / TODAY).read_text() == (
        '{"time":"2026-03-01T12:00:00.000000+00:00","event":"pin.judged","reader":"1-2","card":7,'
        '"outcome":"incorrect","left":2,"temporary":false}\n'
        '{"time":"2026-03-01T12:00:00.000001+00:00","event":"session.ended","reason":"Jörg"}\n'
    )
    assert trails.said == []
    assert trail.lost == 0


def test_enumerations_are_their_values(trails: Trails) -> None:
    class Word(StrEnum):
        CARD = "card"

    class Number(IntEnum):
        TWO = 2

    trails.open().record("x", word=Word.CARD, number=Number.TWO)
    trails.close()
    (entry,) = trails.read()
    assert (entry["word"], entry["number"]) == ("card", 2)


def test_nothing_happens_before_the_first_entry(trails: Trails) -> None:
    threads = threading.active_count()
    trails.open()
    assert threading.active_count() == threads
    trails.close()
    assert trails.names() == []


def test_whatever_is_in_a_text_it_stays_one_line(trails: Trails) -> None:
    trail = trails.open()
    trail.record("x\ny", holder='A\x1b[2J\x00\n"\u2028\ud800\x85' + "x" * 9999, uid=1 << 100)
    trails.close()
    raw = (trails.directory / TODAY).read_bytes()
    assert raw.count(b"\n") == 1 and len(raw) < 1000
    (entry,) = trails.read()
    assert all(value.isprintable() for value in entry.values())
    assert entry["uid"] == "<huge>"


def test_a_file_s_mode_and_group_are_the_directory_s_doing(trails: Trails) -> None:
    """setgid; and no umask takes the group's right to read."""
    os.chown(trails.directory, -1, 12345) if os.getuid() == 0 else None
    trails.directory.chmod(0o2750)
    before = os.umask(0o077)
    try:
        trails.open().record("x")
        trails.close()
    finally:
        os.umask(before)
    status = (trails.directory / TODAY).stat()
    assert status.st_mode & 0o7777 == 0o640
    assert status.st_gid == trails.directory.stat().st_gid


def test_it_is_only_appended_to(trails: Trails) -> None:
    for number in range(3):
        trails.open().record("x", number=number)
    trails.close()
    assert [entry["number"] for entry in trails.read()] == [0, 1, 2]


# what never is

SLIPS: dict[str, Any] = {
    "pin": CANARY,
    "old_pin": CANARY,
    "pin_value": CANARY,
    "puk": int(CANARY),
    "secret": CANARY,
    "passcode": CANARY,
    "apdu": "0020008008" + CANARY.encode().hex(),
    "data": CANARY,
    "response_data": CANARY,
    "holder": CANARY.encode(),
    "label": bytearray(CANARY.encode()),
    "who": Secret(bytearray(CANARY.encode())),
    "many": list(CANARY),
    "nothing": None,
    "ratio": 0.73194682,
    "time": CANARY,
    "not a name": CANARY,
}


@pytest.mark.parametrize("name", SLIPS)
def test_no_secret_has_a_place_in_it(trails: Trails, name: str) -> None:
    """Masked and logged in the field; an exception in tests."""
    with pytest.raises(ValueError) as error:
        trails.open().record("x", **{name: SLIPS[name]})
    assert CANARY not in str(error.value)
    with capture_logs() as events:
        trails.open(strict=False).record("x", **{name: SLIPS[name]}, left=2)
    assert events == [{"event": "trail.masked", "entry": "x", "field": name, "log_level": "error"}]
    trails.close()
    raw = (trails.directory / TODAY).read_text()
    assert CANARY not in raw and "7319" not in raw
    (entry,) = trails.read(left=2)
    assert entry.get(name, "<masked>") == "<masked>" or name == "time"


def test_names_that_only_sound_like_a_secret() -> None:
    harmless = "pin_label pin_state pin_tries pin_changed data_length header spinning label left"
    assert not [name for name in harmless.split() if is_secretive(name)]
    assert is_secretive("new_PIN")


def test_an_entry_has_not_too_many_fields(trails: Trails) -> None:
    trail = trails.open(strict=False)
    trail.record("x", **{f"field{number}": "y" * 500 for number in range(300)})
    trails.close()
    (entry,) = trails.read()
    assert len(entry) == 2 + 32


# days


def test_every_day_has_its_file(trails: Trails) -> None:
    trail = trails.open()
    for hours in (0, 11, 13, 37):
        trails.now = NOON + hours * DAY // 24
        trail.record("x", hours=hours)
    trails.now = NOON  # the clock was set back
    trail.record("x", hours=0)
    trails.close()
    assert trails.names() == [f"audit-2026-03-0{day}.jsonl" for day in (1, 2, 3)]
    assert [entry["hours"] for entry in trails.read()] == [0, 11, 0, 13, 37]


def test_old_files_are_removed_and_nothing_else(trails: Trails, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("somebody's")
    for name in (
        "audit-2026-01-01.jsonl",
        "audit-2026-02-26.jsonl",
        "audit-2026-02-27.jsonl",
        "audit-2027-01-01.jsonl",
        "audit-2026-01-01.jsonl.gz",
        "audit-2026-13-01.jsonl",
        "audit-2026-1-1.jsonl",
        "xaudit-2026-01-01.jsonl",
        "ledger",
    ):
        (trails.directory / name).write_text("{}\n")
    (trails.directory / "audit-2026-01-02.jsonl").symlink_to(victim)
    (trails.directory / "audit-2026-01-03.jsonl").mkdir()
    before = set(trails.names())
    trail = trails.open(retention_days=2)
    trail.record("x")
    trails.close()
    gone = {"audit-2026-01-01.jsonl", "audit-2026-02-26.jsonl"}
    assert set(trails.names()) == (before - gone) | {TODAY}
    assert victim.read_text() == "somebody's"
    trail = trails.open(retention_days=2)
    trail.record("x")
    trails.now += DAY
    trail.record("x")
    trails.close()
    gone.add("audit-2026-02-27.jsonl")
    assert set(trails.names()) == (before - gone) | {TODAY, "audit-2026-03-02.jsonl"}
    assert trails.said == []


def test_no_retention_keeps_everything(trails: Trails) -> None:
    (trails.directory / "audit-1999-01-01.jsonl").touch()
    trails.open(retention_days=0).record("x")
    trails.close()
    assert len(trails.names()) == 2


def test_a_retention_that_is_longer_than_time(trails: Trails) -> None:
    trails.open(retention_days=10**9).record("x")
    trails.close()
    assert trails.events() == ["x"] and trails.said == []


def test_old_files_that_stay_are_told_of(trails: Trails, monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry is written all the same."""
    (trails.directory / "audit-1999-01-01.jsonl").touch()

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        trails.open(retention_days=1).record("x")
        trails.close()
    assert trails.said == ["Old files of the audit trail are not removed: Operation not permitted"]
    assert trails.events() == ["x"]

"""A ledger's file that is not as we wrote it: noticed, put aside, believed at its strictest."""

from __future__ import annotations

import errno
import os
import random
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from cardsession.adapters.ledger import FileLedger, lines, store
from cardsession.adapters.ledger.entry import Attempt, Entry, strictest
from cardsession.core.tries import Known

CARD, PIN = "A1", 0x80


def spend(ledger: FileLedger, identity: str = CARD) -> None:
    """Three tries, of which one is lost."""
    ledger.note(identity, PIN, Known(3))
    ledger.begin(identity, PIN, ":1.7 uid 1000")


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


# damage


def test_a_line_that_was_never_finished_is_no_damage(
    opened: Callable[..., FileLedger], tmp_path: Path, said: list[str]
) -> None:
    """Nobody relied on it: it was not on the disk. The one before it stands."""
    ledger = opened()
    spend(ledger)
    ledger.note("B2", PIN, Known(3))
    ledger.close()
    whole = (tmp_path / "ledger").read_bytes()
    start = whole.rstrip(b"\n").rindex(b"\n") + 1
    for end in range(start, len(whole)):
        (tmp_path / "ledger").write_bytes(whole[:end])
        again = opened()
        assert again.lowest(CARD, PIN) == 2
        assert again.lowest("B2", PIN) == (3 if end == len(whole) - 1 else None)
    assert said == []
    assert names(tmp_path) == ["ledger"]


def test_every_flipped_byte_is_noticed(
    opened: Callable[..., FileLedger], tmp_path: Path, said: list[str]
) -> None:
    """What can still be read is believed, at its strictest; staff are told; the ledger works."""
    ledger = opened()
    for count in (Known(3), Known(1)):
        ledger.note(CARD, PIN, count)
    spend(ledger, "B2")
    ledger.close()
    whole = (tmp_path / "ledger").read_bytes()
    rest = {"A1": whole.index(b'"B2"') - 9, "B2": len(whole)}
    dice = random.Random(7)  # noqa: S311 - the same each time
    for at in dice.sample(range(len(whole)), 60):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << dice.randrange(8)
        found = lines.read(bytes(flipped))
        assert found.damage, at
        for key, entry in found.entries.items():
            truth = lines.read(whole).entries[key]
            assert entry in {truth, *(one for one in _states(whole, key[0]))}
    (tmp_path / "ledger").write_bytes(whole[: rest["A1"]] + b"\xff" + whole[rest["A1"] + 1 :])
    with capture_logs() as events:
        ledger = opened()
        assert ledger.lowest(CARD, PIN) == 1
    assert [event["event"] for event in events] == ["ledger.damaged", "ledger.trouble"]
    assert len(said) == 1 and "ledger.damaged-1" in said[0]
    ledger.begin(CARD, PIN, "a test")
    assert said[1:] == [""]
    ledger = opened()
    assert ledger.lowest(CARD, PIN) == 0
    assert len(said) == 2


def test_an_end_that_is_another_byte_now_is_damage() -> None:
    """Unlike an end that never was there: the line before it was on the disk."""
    whole = lines.heading() + lines.write({(CARD, PIN): Entry(lowest=1)})
    for last in (b"\x00", b"\x0b", b"}"):
        found = lines.read(whole[:-1] + last)
        assert found.damage
        assert found.entries[CARD, PIN].lowest == 1


def test_a_file_that_cannot_be_read_is_not_written_over(
    opened: Callable[..., FileLedger], said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it holds is read when it can be."""
    spend(opened())

    def read(_: store.Store) -> lines.Found:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(store.Store, "read", read)
        ledger = opened()
        ledger.begin("B2", PIN, "a test")
        ledger.begin("B2", PIN, "a test")
        assert said == ["Passcode attempts are not recorded: Input/output error"]
        assert not ledger.past(CARD).in_flight
    ledger.settle("B2", PIN, Known(2))
    assert said[1:] == [""]
    assert ledger.past(CARD).in_flight
    assert opened().lowest(CARD, PIN) == 2


def _states(raw: bytes, identity: str) -> list[Entry]:
    """Every state that the file ever gave a card."""
    heading, *rest = raw.splitlines(keepends=True)
    return [
        entry
        for line in rest
        for key, entry in lines.read(heading + line).entries.items()
        if key[0] == identity
    ]


def test_of_a_damaged_file_the_lowest_count_is_believed() -> None:
    """The line that says why the count rose again may be the damaged one."""
    written = [lines.write({(CARD, PIN): Entry(lowest=count)}) for count in (3, 1, 3)]
    whole = lines.heading() + b"".join(written)
    assert lines.read(whole).entries[CARD, PIN].lowest == 3
    damaged = lines.heading() + b"garbage\n" + b"".join(written)
    assert lines.read(damaged).entries[CARD, PIN].lowest == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"\0" * 4096,
        b"SQLite format 3\0" + b"\x10" * 2000,
        lines._line({"ledger": 2}) + lines._line({"new": "members"}),
        lines._line({"ledger": "1"}),
        lines.heading() + lines._line({"card": "A1"}),
        lines.heading() + lines.write({("A1", 128): Entry(lowest=99)}),
        lines.heading() + lines.write({("A1", 128): Entry(attempts=(Attempt(-1, "", None),))}),
        lines.heading() + b'00000000 {"a":' + b"[" * 100_000 + b"\n",
        b"x" * (store.MOST_BYTES + 1),
    ],
    ids=[
        "empty",
        "line",
        "zeros",
        "sqlite",
        "newer",
        "text",
        "card",
        "count",
        "time",
        "deep",
        "big",
    ],
)
def test_a_file_that_is_none_of_ours_is_put_aside(
    opened: Callable[..., FileLedger], tmp_path: Path, content: bytes, said: list[str]
) -> None:
    (tmp_path / "ledger").write_bytes(content)
    spend(opened())
    assert names(tmp_path) == ["ledger", "ledger.damaged-1"]
    assert (tmp_path / "ledger.damaged-1").read_bytes() == content
    assert len(said) == 2 and said[0] and not said[1]
    assert opened().past(CARD).in_flight


def test_a_checksum_does_not_vouch_for_json(tmp_path: Path) -> None:
    """Deep enough to overflow the parser, and with a right checksum."""
    text = b'{"a":' + b"[" * 100_000 + b"}"
    raw = lines.heading() + b"%08x %s\n" % (zlib.crc32(text), text)
    assert lines.read(raw).damage


def test_of_damaged_files_the_newest_few_are_kept(
    opened: Callable[..., FileLedger], tmp_path: Path
) -> None:
    (tmp_path / "ledger.damaged-x").touch()
    (tmp_path / "ledger.damaged-3").mkdir()
    for number in range(store.KEPT + 4):
        (tmp_path / "ledger").write_bytes(b"%d" % number)
        opened().past(CARD)
    kept = {f"ledger.damaged-{number}" for number in (3, "x", *range(8, 8 + store.KEPT))}
    assert set(names(tmp_path)) == {"ledger", *kept}


def test_any_bytes_are_read_without_an_exception() -> None:
    dice = random.Random(11)  # noqa: S311 - the same each time
    whole = lines.heading() + lines.write({(CARD, PIN): Entry(3, (Attempt(1, "a", 3),))}) * 5
    for _ in range(500):
        raw = bytearray(whole)
        for _ in range(dice.randrange(1, 40)):
            raw[dice.randrange(len(raw))] = dice.randrange(256)
        lines.read(bytes(raw))
        lines.read(dice.randbytes(dice.randrange(200)))


# two memories


def test_two_memories_make_the_stricter_one() -> None:
    one = Entry(lowest=2, attempts=(Attempt(5, "a", 3),), changed_usec=7)
    other = Entry(lowest=1, attempts=(Attempt(4, "b", 2, told=True),), spent=True)
    for both in (strictest(one, other), strictest(other, one)):
        assert both == Entry(1, (Attempt(4, "b", 2, told=True), Attempt(5, "a", 1)), True, 7)
        assert both.withdrawn().lowest == 1
    assert strictest(one, Entry()) == one
    assert strictest(one, one) == Entry(2, (Attempt(5, "a", 2),), changed_usec=7)

"""The ledger's file as text: one line an entry, each with a checksum. Pure.

`<CRC-32 of the rest, 8 hexadecimal digits> <JSON object>`; the first line names the schema. A
line holds an entry's whole state, so the last line of a PIN is what is true of it, and a line
that is lost takes nothing with it but itself. There is no member that could hold a secret.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from cardsession.core.tries import SATURATED

from .entry import Attempt, Entry, Key, lowest

SCHEMA = 1
_LINE = re.compile(rb"([0-9a-f]{8}) (\{.*\})", re.DOTALL)
_SUM_CHARS = 9


class Damaged(Exception):
    """A line that nobody wrote like this."""


@dataclass(slots=True)
class Found:
    """What a file holds."""

    entries: dict[Key, Entry] = field(default_factory=dict)
    damage: str = ""
    """What is wrong with it; a last line that was never finished is not: it was not on the
    disk, so nobody relied on it."""


def write(entries: Mapping[Key, Entry]) -> bytes:
    """Lines for these entries."""
    return b"".join(_line(_members(key, entry)) for key, entry in entries.items())


def heading() -> bytes:
    """The first line."""
    return _line({"ledger": SCHEMA})


def read(raw: bytes) -> Found:
    """What can be read of a file, and whether that is all of it.

    Of a damaged one, each PIN has the lowest count of all its lines: the line that raised it
    may be right, the one that lowered it again may be lost.
    """
    found, lows = Found(), dict[Key, int | None]()
    first, *rest = _split(raw)
    try:
        schema = _parse(first).get("ledger")
        if schema != SCHEMA:
            found.damage = f"schema {schema!r:.20}"
            return found
    except Damaged as error:
        found.damage = str(error)
    for line in rest:
        try:
            key, entry = _entry(_parse(line))
        except Damaged as error:
            found.damage = str(error)
            continue
        found.entries.pop(key, None)
        found.entries[key] = entry
        lows[key] = lowest(lows.get(key), entry.lowest)
    if found.damage:
        for key, entry in found.entries.items():
            found.entries[key] = replace(entry, lowest=lows[key])
    return found


def _split(raw: bytes) -> Iterator[bytes]:
    """The lines; an unfinished last one only if it lacks nothing but its end."""
    *whole, last = raw.split(b"\n")
    yield from whole or [b""]
    if _is_line(last):
        yield last
    elif _is_line(last[:-1]):
        yield last[:-1]
        yield b""  # its end was there, and is another byte now: damage


def _is_line(line: bytes) -> bool:
    match = _LINE.fullmatch(line)
    return match is not None and zlib.crc32(match[2]) == int(match[1], 16)


def _line(members: Mapping[str, object]) -> bytes:
    text = json.dumps(members, separators=(",", ":")).encode("ascii")
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _parse(line: bytes) -> dict[str, object]:
    if not _is_line(line):
        raise Damaged("a line is damaged")
    try:
        members: dict[str, object] = json.loads(line[_SUM_CHARS:])
    except (ValueError, RecursionError):
        raise Damaged("a line is no JSON") from None
    return members


def _members(key: Key, entry: Entry) -> dict[str, object]:
    return {
        "card": key[0],
        "reference": key[1],
        "lowest": entry.lowest,
        "attempts": [[each.usec, each.asked_by, each.before, each.told] for each in entry.attempts],
        "spent": entry.spent,
        "changed": entry.changed_usec,
    }


def _entry(members: Mapping[str, object]) -> tuple[Key, Entry]:
    """The checksum was right: whatever is not as we write it comes from somebody else."""
    match members:
        case {
            "card": str(identity),
            "reference": int(reference),
            "lowest": None | int() as count,
            "attempts": list(attempts),
            "spent": bool(spent),
            "changed": int(changed),
        } if _is_count(count) and _is_usec(changed):
            made = tuple(_attempt(each) for each in attempts)
            return (identity, reference), Entry(count, made, spent, changed)
    raise Damaged("a line has other members")


def _attempt(parts: object) -> Attempt:
    match parts:
        case [int(usec), str(asked_by), None | int() as before, bool(told)] if _is_count(
            before
        ) and _is_usec(usec):
            return Attempt(usec, asked_by, before, told)
    raise Damaged("a line has other members")


def _is_count(count: int | None) -> bool:
    return count is None or 0 <= count <= SATURATED


def _is_usec(usec: int) -> bool:
    return 0 <= usec < 1 << 63

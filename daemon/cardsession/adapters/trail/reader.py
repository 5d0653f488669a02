"""Reading the trail: entry for entry, a line at a time, whatever the files are like."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

from .fields import day, usec_of
from .files import day_in

MOST_LINE: Final = 64 << 10
"""Bytes; a line that is longer is none of ours."""

_READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW


def entries(directory: Path, since_usec: int = 0, **match: str | int) -> Iterator[dict[str, Any]]:
    """Every entry since then whose fields are `match`'s, in the order they were written.

    A damaged line is skipped, a directory that is not there has none. Raises `OSError` if a file
    cannot be read. Blocks: not for the loop.
    """
    first = day(max(0, since_usec))
    for path in _files(directory):
        found = day_in(path.name)
        if found is None or found < first:
            continue
        for raw in _lines(path):
            entry = _entry(raw, since_usec)
            if entry is not None and all(entry.get(name) == match[name] for name in match):
                yield entry


def _files(directory: Path) -> list[Path]:
    """By day."""
    try:
        names = sorted(os.listdir(directory))  # noqa: PTH208 - names are what is matched
    except FileNotFoundError:
        return []
    return [directory / name for name in names if day_in(name)]


def _lines(path: Path) -> Iterator[bytes]:
    """The finished lines of a regular file; of the rest nothing."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return
        descriptor = os.open(path, _READ)
    except FileNotFoundError:
        return  # its retention ended meanwhile
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor
        yield from _bounded(file)


def _bounded(file: BinaryIO) -> Iterator[bytes]:
    whole = True
    while raw := file.readline(MOST_LINE):
        ended = raw.endswith(b"\n")
        if whole and ended:
            yield raw
        whole = ended


def _entry(raw: bytes, since_usec: int) -> dict[str, Any] | None:
    """The entry; None for what is none of ours, or older."""
    try:
        entry = json.loads(raw)
        fine = (
            isinstance(entry, dict)
            and isinstance(entry["event"], str)
            and all(isinstance(value, (str, int)) for value in entry.values())
            and usec_of(entry["time"]) >= since_usec
        )
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    return entry if fine else None

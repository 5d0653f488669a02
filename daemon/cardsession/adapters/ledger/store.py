"""The ledger's file: appended to, rewritten in one stroke, locked against a second process."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from . import lines
from .entry import Entry, Key
from .lines import Found

NAME = "ledger"
_NEW = "ledger.new"
_DAMAGED = re.compile(r"ledger\.damaged-([0-9]{1,9})")
KEPT = 5
"""Damaged files that stay for whoever wants to look at them."""

MOST_BYTES = 16 << 20
"""A file that is larger is none of ours: it is rewritten long before."""
GROWTH = 256 << 10
"""Bytes appended before the file is rewritten without what is superseded."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# O_NONBLOCK: opening a FIFO that lies in the file's place must not wait for its other end
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_CREATE = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


class Store:
    """The file, for one thread. What it cannot do it raises as `OSError`.

    The lock is on the directory: its owner's file is replaced, and two names to lock are one too
    many. It goes with the process, however that ends.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory
        self._directory = -1
        self._file = -1
        self._appended = 0
        self._locked = False

    @property
    def ready(self) -> bool:
        """Whether the file is open, and what `directory` leads to; if not, `rewrite` it."""
        return self._file >= 0 and _same(self._file, self._path / NAME)

    @property
    def held(self) -> bool:
        """Whether the directory is locked, and still where it was: nobody else wrote there."""
        return self._locked and _same(self._directory, self._path)

    @property
    def grown(self) -> bool:
        """Whether it is time to rewrite the file."""
        return self._appended > GROWTH

    def enter(self) -> None:
        """Open the directory."""
        self.close()
        self._directory = os.open(self._path, _DIRECTORY)

    def lock(self) -> None:
        """Have it alone; `BlockingIOError` while another process does."""
        fcntl.flock(self._directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._locked = True

    def read(self) -> Found:
        """What the file holds; a missing one holds nothing."""
        try:
            file = os.open(NAME, _READ, dir_fd=self._directory)
        except FileNotFoundError:
            return Found()
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):
                return Found(damage="no regular file")
            raise
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                return Found(damage="no regular file")
            if status.st_size > MOST_BYTES:
                return Found(damage=f"{status.st_size} bytes")
            return lines.read(_all(file))
        finally:
            os.close(file)

    def set_aside(self) -> str:
        """Rename what lies in the file's place; its new name. Of those, the newest few stay."""
        numbers = sorted(
            int(match[1])
            for name in os.listdir(self._directory)  # noqa: PTH208 - by descriptor
            if (match := _DAMAGED.fullmatch(name))
        )
        name = f"ledger.damaged-{numbers[-1] + 1 if numbers else 1}"
        os.rename(NAME, name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        for number in numbers[: max(0, len(numbers) + 1 - KEPT)]:
            with suppress(OSError):  # a directory, say: it costs a name
                os.unlink(f"ledger.damaged-{number}", dir_fd=self._directory)
        return name

    def rewrite(self, entries: Mapping[Key, Entry]) -> None:
        """Replace the file by one that holds exactly these, on the disk when this returns.

        The old one stays until the new one is there, whatever happens.
        """
        with suppress(FileNotFoundError):
            os.unlink(_NEW, dir_fd=self._directory)
        file = os.open(_NEW, _CREATE, 0o600, dir_fd=self._directory)
        try:
            _write(file, lines.heading() + lines.write(entries))
            os.fsync(file)
            os.rename(_NEW, NAME, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        except OSError:
            os.close(file)
            with suppress(OSError):
                os.unlink(_NEW, dir_fd=self._directory)  # the room that it takes
            raise
        self._close_file()
        self._file, self._appended = file, 0
        os.fsync(self._directory)

    def append(self, entries: Mapping[Key, Entry], *, sync: bool) -> None:
        """Add lines; `sync`: they, and all before them, are on the disk when this returns.

        After an error the file may end in half a line: only `rewrite` mends that.
        """
        raw = lines.write(entries)
        try:
            _write(self._file, raw)
            if sync:
                os.fdatasync(self._file)
        except OSError:
            self._close_file()
            raise
        self._appended += len(raw)

    def close(self) -> None:
        """Let go of everything."""
        self._close_file()
        directory, self._directory, self._locked = self._directory, -1, False
        if directory >= 0:
            os.close(directory)

    def _close_file(self) -> None:
        file, self._file = self._file, -1
        if file >= 0:
            with suppress(OSError):  # close(2) tells of earlier trouble; the descriptor is gone
                os.close(file)


def _same(descriptor: int, path: Path) -> bool:
    """Whether `path` still leads to what is open."""
    try:
        found = path.stat(follow_symlinks=True)
    except OSError:
        return False
    return os.path.samestat(os.fstat(descriptor), found)


def _all(file: int) -> bytes:
    parts = []
    while part := os.read(file, 1 << 20):
        parts.append(part)
    return b"".join(parts)


def _write(file: int, raw: bytes) -> None:
    """All of it, in one write(2) wherever the disk has room."""
    view = memoryview(raw)
    while view:
        view = view[os.write(file, view) :]

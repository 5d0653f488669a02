"""The trail's files: one a day, appended to, removed when they are old."""

from __future__ import annotations

import errno
import os
import re
import stat
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Final

from .fields import day as day_of

MODE: Final = 0o640

_NAME: Final = re.compile(r"audit-([0-9]{4}-[0-9]{2}-[0-9]{2})\.jsonl")
# O_NONBLOCK: opening a FIFO that lies in a file's place must not wait for its other end
_OPEN: Final = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_CREATE: Final = _OPEN | os.O_CREAT | os.O_EXCL

_OLD: Final = "Old files of the audit trail are not removed: {}"
_MODE_ODD: Final = "The audit trail's file of today may be read or written by others than it should"


def name_of(day: date) -> str:
    """The name of a day's file."""
    return f"audit-{day.isoformat()}.jsonl"


def day_in(name: str) -> date | None:
    """The day of a file of ours; None for any other name."""
    match = _NAME.fullmatch(name)
    if match:
        with suppress(ValueError):
            return date.fromisoformat(match[1])
    return None


class Files:
    """The file of the day, for one thread. What it cannot do it raises as `OSError`."""

    def __init__(self, directory: Path, retention_days: int) -> None:
        self._directory = directory
        self._retention = retention_days
        self._file = -1
        self._day = self._swept = date.min
        self._old = self._odd = ""

    @property
    def notice(self) -> str:
        """What staff should know, although entries are written; or ""."""
        return self._old or self._odd

    def append(self, usec: int, line: bytes) -> None:
        """One entry into its day's file, by one write(2).

        After an error the file may end in half a line; opened again, it goes on with a new one.
        """
        day = day_of(usec)
        if self._file < 0 or day != self._day or not self._is_in_place():
            self._open(day)
        if os.write(self._file, line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def sync(self) -> None:
        """What was appended is on the disk when this returns."""
        if self._file >= 0:
            os.fdatasync(self._file)

    def close(self) -> None:
        """Let the file go."""
        file, self._file = self._file, -1
        if file >= 0:
            with suppress(OSError):  # close(2) tells of earlier trouble; the descriptor is gone
                os.close(file)

    def _is_in_place(self) -> bool:
        """A write to a file that nobody can open any more would succeed, too."""
        try:
            found = (self._directory / name_of(self._day)).lstat()
        except FileNotFoundError:
            return False
        return os.path.samestat(found, os.fstat(self._file))

    def _open(self, day: date) -> None:
        self._leave()
        if day > self._swept:
            self._sweep(day)
        path = self._directory / name_of(day)
        self._odd = ""
        try:
            self._file = os.open(path, _CREATE, MODE)
            os.fchmod(self._file, MODE)  # whatever the umask is
            self._sync_directory()
        except FileExistsError:
            self._file = os.open(path, _OPEN)
            self._inspect()
        self._day = day

    def _leave(self) -> None:
        """Yesterday's file is complete."""
        try:
            self.sync()
        finally:
            self.close()

    def _inspect(self) -> None:
        """A file that was there before: whose it is, and whether its last line has an end."""
        status = os.fstat(self._file)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "its file is no regular file")
        if stat.S_IMODE(status.st_mode) != MODE:
            try:
                os.fchmod(self._file, MODE)
            except PermissionError:
                self._odd = _MODE_ODD
        if status.st_size and os.pread(self._file, 1, status.st_size - 1) != b"\n":
            os.write(self._file, b"\n")

    def _sync_directory(self) -> None:
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _sweep(self, today: date) -> None:
        """Remove the files of days before the retention; nothing else, and no symbolic link."""
        if self._retention <= 0:
            return
        oldest = today.toordinal() - self._retention
        self._old = ""
        try:
            with os.scandir(self._directory) as found:
                for each in found:
                    day = day_in(each.name)
                    if day and day.toordinal() < oldest and each.is_file(follow_symlinks=False):
                        Path(each.path).unlink(missing_ok=True)
            self._swept = today
        except OSError as error:
            self._old = _OLD.format(error.strerror or type(error).__name__)

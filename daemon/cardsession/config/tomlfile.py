"""One TOML file from the disk: never more than a file of ours is long, and never waited for."""

from __future__ import annotations

import os
import stat
import tomllib
from pathlib import Path
from typing import Any, Final

from .rules import ConfigError, shown

MAX_BYTES: Final = 64 * 1024
"""A file longer than this is not ours: it is refused before it is read into memory."""
_MAX_DOTS: Final = 2000
"""In a line: the parser's time is the square of a key's parts, half a minute for a full file."""


def read(path: Path, *, optional: bool = False) -> dict[str, Any]:
    """The tables of the file, or a ConfigError without its name; absent is empty if `optional`."""
    return _parsed(_contents(path, optional=optional))


def _contents(path: Path, *, optional: bool) -> bytes:
    """The file, if it is one, not a device that never ends nor a pipe that never begins."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except FileNotFoundError:
        if optional and not path.is_symlink():
            return b""
        raise ConfigError("expected a TOML file, there is none") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a file name"
        raise ConfigError(f"expected a readable TOML file: {reason}") from None
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            kind = "a directory" if stat.S_ISDIR(mode) else "something that is no regular file"
            raise ConfigError(f"expected a TOML file, found {kind}")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"expected a readable TOML file: {error.strerror}") from None
    finally:
        os.close(descriptor)
    if len(content) > MAX_BYTES:
        raise ConfigError(f"expected a TOML file of at most {MAX_BYTES} bytes, this one is longer")
    return content


def _parsed(content: bytes) -> dict[str, Any]:
    """TOML, or a ConfigError that names the line."""
    if any(line.count(b".") > _MAX_DOTS for line in content.splitlines()):
        raise ConfigError(f"expected TOML with at most {_MAX_DOTS} dots in a line")
    try:
        return tomllib.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError(f"expected TOML in UTF-8 (at line {line})") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"expected valid TOML: {shown(error, 200)}") from None
    except (RecursionError, ValueError):
        # nested a thousand deep, or a number of five thousand digits: tomllib passes on
        # what the interpreter says
        raise ConfigError("expected valid TOML: nested too deeply or a number too long") from None

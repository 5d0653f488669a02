"""The site's settings: dataclasses from one TOML file; what is not understood refuses to start.

A setting that is silently ignored is a counter that closes its sessions at the wrong time, so an
unknown key, a wrong type or a value out of range is an error, and one run names all of them.
What a key means is written once, at its field: `describe()` makes the reference from it.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

DEFAULT_PATH: Final = Path("/etc/cardsession/cardsessiond.toml")
MAX_BYTES: Final = 64 * 1024
"""A file longer than this is not ours: it is refused before it is read into memory."""
_LABEL_CHARS: Final = 128
_SHOWN_BITS: Final = 64
_PROFILE_CHARS: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")


class Hold(StrEnum):
    """How the daemon holds the card of an active session."""

    EXCLUSIVE = "exclusive"
    SHARED = "shared"


class SpendLastTry(StrEnum):
    """Who may ask for the last try of a PIN to be spent."""

    CALLER = "caller"
    ADMIN = "admin"
    NEVER = "never"


class LogLevel(StrEnum):
    """The least important event that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """Where events go: `auto` is the journal if standard error already leads there."""

    AUTO = "auto"
    JOURNAL = "journal"
    JSON = "json"


class ConfigError(Exception):
    """The daemon must not start; the text names file, key and what was expected, line by line."""


class KeyDoc(NamedTuple):
    """One row of the reference: what may be written under `key`."""

    key: str
    type: str
    default: str
    meaning: str


class Problems(list[tuple[str, str]]):
    """(dotted key, what is wrong with it) in the order of the file."""

    def add(self, key: str, expected: str, found: object) -> None:
        """A value of the wrong kind. Only numbers are shown: a text might be a secret."""
        self.append((key, f"expected {expected}, found {_kind(found)}"))


@dataclass(frozen=True, slots=True)
class Rule:
    """What a key accepts: in words, as a test, how it is kept, and the rule for its parts."""

    expected: str
    fits: Callable[[Any], bool]
    keep: Callable[[Any], Any]
    each: Rule | None = None

    def read(self, key: str, value: Any, problems: Problems) -> Any:
        """The value as the dataclass keeps it; what is wrong with it goes to `problems`."""
        before = len(problems)
        if not self.fits(value):
            problems.add(key, self.expected, value)
        elif self.each is not None:
            for at, part in value.items() if isinstance(value, dict) else enumerate(value):
                self.each.read(f"{key}.{_shown(at)}", part, problems)
        return self.keep(value) if len(problems) == before else None


def _whole(low: int, high: int) -> Rule:
    """A boolean is no number, although Python counts with it."""
    text = f"a whole number from {low} to {high}"
    return Rule(text, lambda value: type(value) is int and low <= value <= high, int)


def _number(low: int, high: int) -> Rule:
    """With or without a fraction; NaN is in no range."""
    text = f"a number from {low} to {high}"
    return Rule(text, lambda value: type(value) in (int, float) and low <= value <= high, float)


def _one_of(words: type[StrEnum]) -> Rule:
    """A word of a closed set."""
    text = "one of " + ", ".join(f'"{word}"' for word in words)
    return Rule(text, lambda value: isinstance(value, str) and value in list(words), words)


def _is_label(value: object) -> bool:
    """Whether staff can read it and a bus can carry it."""
    return isinstance(value, str) and 0 < len(value) <= _LABEL_CHARS and value.isprintable()


def _is_profile(value: object) -> bool:
    """Whether it looks like a profile's name; which there are is known to the cards' room."""
    return isinstance(value, str) and value != "" and _PROFILE_CHARS.issuperset(value)


_PROFILES: Final = Rule(
    'a list of card profile names, such as ["piv"]',
    lambda value: isinstance(value, list),
    frozenset,
    Rule("a profile name (a-z, 0-9, hyphen)", _is_profile, str),
)
_LABELS: Final = Rule(
    f"a table: reader's PC/SC name or id = label, 1 to {_LABEL_CHARS} printable characters each",
    lambda value: isinstance(value, dict) and all(map(_is_label, value)),
    lambda value: MappingProxyType(dict(value)),
    Rule(f"1 to {_LABEL_CHARS} printable characters", _is_label, str),
)


def _about(rule: Rule, meaning: str) -> Mapping[str, Any]:
    """What is known of a field: its rule and its line in the reference."""
    return {"rule": rule, "meaning": meaning}


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """How long a session lasts and what may be tried in it."""

    idle_seconds: int = field(
        default=900,
        metadata=_about(
            _whole(30, 86_400), "An active session ends after this long without activity."
        ),
    )
    max_age_seconds: int = field(
        default=43_200,
        metadata=_about(
            _whole(60, 604_800), "An active session ends after this long whatever happens."
        ),
    )
    hold: Hold = field(
        default=Hold.EXCLUSIVE,
        metadata=_about(
            _one_of(Hold), "Whether other programs may use the card of an active session."
        ),
    )
    spend_last_try: SpendLastTry = field(
        default=SpendLastTry.CALLER,
        metadata=_about(
            _one_of(SpendLastTry), "Who may have the last try of a PIN spent on request."
        ),
    )
    accept_unknown: frozenset[str] = field(
        default=frozenset(),
        metadata=_about(
            _PROFILES,
            "Card profiles whose PIN is sent although nothing is known of the tries left.",
        ),
    )


@dataclass(frozen=True, slots=True)
class CardConfig:
    """What is said about cards."""

    renewal_days: int = field(
        default=90,
        metadata=_about(
            _whole(0, 3650), "A card is due for renewal this many days before it expires."
        ),
    )


@dataclass(frozen=True, slots=True)
class ReadersConfig:
    """The readers of this site."""

    labels: Mapping[str, str] = field(
        default_factory=lambda: MappingProxyType({}),
        hash=False,
        metadata=_about(_LABELS, "What staff call a reader, by its PC/SC name or its reader id."),
    )
    stuck_seconds: float = field(
        default=10.0,
        metadata=_about(
            _number(6, 300),
            "A reader that answers nothing for this long is published as stuck. Another program"
            " is waited for up to 5 seconds: that is no hung reader.",
        ),
    )


@dataclass(frozen=True, slots=True)
class LogConfig:
    """What is written about the daemon's work."""

    level: LogLevel = field(
        default=LogLevel.INFO,
        metadata=_about(_one_of(LogLevel), "The least important event that is written."),
    )
    format: LogFormat = field(
        default=LogFormat.AUTO,
        metadata=_about(
            _one_of(LogFormat),
            "Journal fields or JSON lines; auto asks whether standard error is the journal.",
        ),
    )


@dataclass(frozen=True, slots=True)
class Config:
    """All settings; without arguments, the defaults."""

    session: SessionConfig = SessionConfig()
    card: CardConfig = CardConfig()
    readers: ReadersConfig = ReadersConfig()
    log: LogConfig = LogConfig()


def load(path: Path | None = None, default: Path = DEFAULT_PATH) -> Config:
    """The settings of `path`, which must exist, or of `default`, which need not; or ConfigError."""
    chosen = default if path is None else path
    problems = Problems()
    try:
        content = _contents(chosen, optional=path is None)
        settings = _read(_parsed(content), problems)
    except ConfigError as error:
        raise ConfigError(f"{_shown(chosen)}: {error}") from None
    if problems:
        lines = "".join(f"\n  {key}: {text}" for key, text in problems)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise ConfigError(f"{_shown(chosen)}: {count}{lines}")
    return settings


def describe() -> Iterator[KeyDoc]:
    """The reference, a row a key, in the order of the sections."""
    for section in fields(Config):
        for name, item in _settings(type(section.default)).items():
            rule: Rule = item.metadata["rule"]
            default = _toml(item.default)
            yield KeyDoc(f"{section.name}.{name}", rule.expected, default, item.metadata["meaning"])


def _toml(default: object) -> str:
    """A default as one would write it in the file."""
    if isinstance(default, str):
        return f'"{default}"'
    if isinstance(default, (int, float)):
        return f"{default:g}" if isinstance(default, float) else str(default)
    return "[]" if isinstance(default, frozenset) else "{}"


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
    try:
        return tomllib.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError(f"expected TOML in UTF-8 (at line {line})") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"expected valid TOML: {_shown(error, 200)}") from None
    except (RecursionError, ValueError):
        # nested a thousand deep, or a number of five thousand digits: tomllib passes on
        # what the interpreter says
        raise ConfigError("expected valid TOML: nested too deeply or a number too long") from None


def _read(tables: dict[str, Any], problems: Problems) -> Config:
    """Tables into dataclasses, problems noted."""
    sections: dict[str, Any] = {}
    known: dict[str, type[Any]] = {item.name: type(item.default) for item in fields(Config)}
    for name, table in tables.items():
        if name not in known:
            problems.append((_shown(name), _unknown("", name)))
        elif not isinstance(table, dict):
            problems.add(name, f"a table, [{name}]", table)
        else:
            sections[name] = known[name](**_values(name, known[name], table, problems))
    return Config(**sections)


def _values(
    section: str, kind: type[Any], table: dict[str, Any], problems: Problems
) -> dict[str, Any]:
    """Constructor arguments of one section."""
    values: dict[str, Any] = {}
    settings = _settings(kind)
    for name, value in table.items():
        if name not in settings:
            problems.append((f"{section}.{_shown(name)}", _unknown(section, name)))
            continue
        rule: Rule = settings[name].metadata["rule"]
        values[settings[name].name] = rule.read(f"{section}.{name}", value, problems)
    return values


def _settings(kind: type[Any]) -> dict[str, Field[Any]]:
    """The fields of a section by the name they have in TOML."""
    return {item.name.replace("_", "-"): item for item in fields(kind)}


def _unknown(section: str, name: str) -> str:
    """That there is no such key, and the one most probably meant: perhaps of another section."""
    import difflib  # noqa: PLC0415 - only a start that fails needs it

    near: dict[str, str] = {}
    for known in fields(Config):
        near[known.name] = f"[{known.name}]"
        near |= {key: f"{known.name}.{key}" for key in _settings(type(known.default))}
    if not section and (best := difflib.get_close_matches(name, [f.name for f in fields(Config)])):
        return f"unknown section; did you mean [{best[0]}]?"
    best = difflib.get_close_matches(name.replace("_", "-").lower(), near, n=1)
    return "unknown key" + (f"; did you mean {near[best[0]]}?" if best else "")


def _kind(value: object) -> str:
    """What TOML calls the type of a value; a number with its digits, if they are few."""
    names = {bool: "a boolean", str: "a text", list: "a list", dict: "a table"}
    if type(value) is float or (type(value) is int and value.bit_length() < _SHOWN_BITS):
        return f"the number {value}"
    return names.get(type(value), "a huge number" if type(value) is int else "a date or time")


def _shown(value: object, limit: int = 100) -> str:
    """A name from outside, without what a terminal would obey."""
    text = str(value)[:limit]
    return text if text.isprintable() else ascii(text)

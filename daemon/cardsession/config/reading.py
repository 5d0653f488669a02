"""From a file to settings, and from the settings to their reference."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, Final, NamedTuple

from cardsession.core.facts import Remedy

from .rules import ConfigError, Problems, Rule, kind, nearest, read_table, shown
from .settings import Config
from .tomlfile import read

DEFAULT_PATH: Final = Path("/etc/cardsession/cardsessiond.toml")
_PATH_SHOWN: Final = 400


class KeyDoc(NamedTuple):
    """One row of the reference: what may be written under `key`."""

    key: str
    type: str
    default: str
    meaning: str


def load(path: Path | None = None, default: Path = DEFAULT_PATH) -> Config:
    """The settings of `path`, which must exist, or of `default`, which need not; or ConfigError."""
    chosen = default if path is None else path
    problems = Problems()
    try:
        settings = settings_of(read(chosen, optional=path is None), problems)
    except ConfigError as error:
        raise ConfigError(f"{shown(chosen, _PATH_SHOWN)}: {error}") from None
    if problems:
        raise ConfigError(f"{shown(chosen, _PATH_SHOWN)}: {problems.told()}")
    return settings


def settings_of(tables: Mapping[str, Any], problems: Problems) -> Config:
    """Tables into dataclasses, problems noted; with problems, what comes back means nothing."""
    values: dict[str, Any] = {}
    known = {item.name: item for item in fields(Config)}
    for name, table in tables.items():
        if name not in known:
            _unknown_section(name, problems)
        elif rule := _rule(known[name]):
            values[name] = rule.read(name, table, problems)
        elif not isinstance(table, dict):
            problems.append((name, f"expected a table, [{name}], found {kind(table)}"))
        else:
            values[name] = _section(name, known[name], table, problems)
    return Config(**values)


def describe() -> Iterator[KeyDoc]:
    """The reference, a row a key, in the order of the sections; what is no section goes first,
    as it does in a file."""
    for section in sorted(fields(Config), key=lambda section: _rule(section) is None):
        if rule := _rule(section):
            yield _row(section.name, section, rule)
            continue
        for name, item in _keys(section).items():
            limit = _limit(item) and f", at most {section.name}.{_limit(item)}"
            yield _row(f"{section.name}.{name}", item, item.metadata["rule"], limit)


def reference() -> str:
    """Every key with its meaning and its default, as a file that changes nothing."""
    lines = ["# Settings of cardsessiond. What stands here is what holds without a file."]
    section = None
    for row in describe():
        name, _, key = row.key.rpartition(".")
        if name != section:
            section = name
            # a table of its own is a key of the whole file, and TOML has these first
            lines += ["", f"[{name}]"] if name else [""]
        wrapped = textwrap.wrap(f"{row.meaning} ({row.type})", 96)
        lines += [*(f"# {line}" for line in wrapped), f"{key} = {row.default}"]
    return "\n".join(lines) + "\n"


def _row(key: str, item: Field[Any], rule: Rule, limit: str = "") -> KeyDoc:
    """One row; a limit that is another key's value is part of what is accepted."""
    return KeyDoc(key, rule.expected + limit, _toml(_default(item)), item.metadata["meaning"])


def _section(name: str, section: Field[Any], table: Mapping[str, Any], problems: Problems) -> Any:
    """One section: every key by its rule, then what must agree."""
    items = _keys(section)
    rules = {key: item.metadata["rule"] for key, item in items.items()}
    found = read_table(name, table, rules, problems, _everything())
    for key, item in items.items():
        if item.metadata["at_most"]:
            _compare(name, key, items, found, problems)
    return type(_default(section))(**{items[key].name: value for key, value in found.items()})


def _compare(
    section: str,
    key: str,
    items: Mapping[str, Field[Any]],
    found: Mapping[str, Any],
    problems: Problems,
) -> None:
    """A key that may not exceed another one; each may stand in the file or be left out."""
    limit = _limit(items[key])
    small, big = (found.get(each, _default(items[each])) for each in (key, limit))
    if small is None or big is None or small <= big:
        return  # what is wrong with one of them by itself has been told
    default = "" if key in found else ", its default"
    text = f"expected at most {section}.{limit}, which is {big}, found the number {small}{default}"
    problems.append((f"{section}.{key}", text))


def _limit(item: Field[Any]) -> str:
    """The key that this one may not exceed; "" if there is none."""
    return str(item.metadata["at_most"]).replace("_", "-")


def _keys(section: Field[Any]) -> dict[str, Field[Any]]:
    """The fields of a section by the name they have in TOML."""
    return {item.name.replace("_", "-"): item for item in fields(type(_default(section)))}


def _rule(item: Field[Any]) -> Rule | None:
    """What a key accepts; None for a section."""
    return item.metadata.get("rule")


def _default(item: Field[Any]) -> Any:
    """What a field is without a file."""
    return item.default if item.default_factory is MISSING else item.default_factory()


def _everything() -> dict[str, str]:
    """Every name that may have been meant, and how one would write it; a key before a remedy."""
    names = {str(remedy): f"contacts.{remedy}" for remedy in Remedy}
    for section in fields(Config):
        names[section.name] = f"[{section.name}]"
        if not _rule(section):
            names |= {key: f"{section.name}.{key}" for key in _keys(section)}
    return names


def _unknown_section(name: str, problems: Problems) -> None:
    """There is none; perhaps it was a key, and its section was left out."""
    sections = {item.name: f"[{item.name}]" for item in fields(Config)}
    near = "" if problems.crowded else nearest(name, sections)
    if near:
        problems.append((shown(name), f"unknown section{near}"))
    else:
        problems.unknown(shown(name), name, _everything())


def _toml(value: object) -> str:
    """A default as one would write it in the file."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"{value:g}" if isinstance(value, float) else str(value)
    if isinstance(value, str | Path):
        return f'"{value}"'
    if isinstance(value, Mapping):
        pairs = [f'"{key}" = {_toml(entry)}' for key, entry in value.items() if entry]
        return "{ " + ", ".join(pairs) + " }" if pairs else "{}"
    if isinstance(value, frozenset | tuple):
        entries = sorted(value) if isinstance(value, frozenset) else value
        return "[" + ", ".join(map(_toml, entries)) + "]"
    raise TypeError(f"no TOML for {type(value).__name__}")

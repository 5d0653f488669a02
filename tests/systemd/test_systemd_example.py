"""The example configuration, held against the settings' own reference: neither drifts."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from cardsession.config import Config, ConfigError, KeyDoc, describe, load
from systemd.units import SHIPPED

EXAMPLE: Final = SHIPPED / "cardsessiond.toml"
_SETTING: Final = re.compile(r"^#([a-z-]+) = (.*)$")
_SECTION: Final = re.compile(r"^\[([a-z-]+)\]$")
_INSTANCE: Final = "#     "
_MORE: Final = ("#    ", "#]")
"""What stands before the lines of a list that does not fit one."""


def blocks() -> Iterator[tuple[str, str, list[str], list[str]]]:
    """Each setting: dotted key, the lines of it without "#", its comment, its instances."""
    section = key = ""
    comment: list[str] = []
    instances: list[str] = []
    lines: list[str] = []
    for line in [*EXAMPLE.read_text().splitlines(), ""]:
        if lines and line.startswith(_MORE):
            lines.append(line[1:])
        elif found := _SETTING.match(line):
            key = f"{section}.{found[1]}" if section else found[1]
            lines = [line[1:]]
        elif line.startswith(_INSTANCE):
            instances.append(line.removeprefix(_INSTANCE))
        elif line.startswith("# "):
            comment.append(line[2:])
        else:
            if lines:
                yield key, "\n".join(lines), comment, instances
            comment, instances, lines = [], [], []
            if found := _SECTION.match(line):
                section = found[1]


def in_section(key: str, line: str) -> str:
    """A file with one setting."""
    section = key.rpartition(".")[0]
    return f"[{section}]\n{line}\n" if section else f"{line}\n"


def read(path: Path, text: str) -> Config:
    path.write_text(text)
    return load(path)


ROWS: Final = {row.key: row for row in describe()}


def test_every_key_is_there_in_the_reference_s_order() -> None:
    assert [key for key, *_ in blocks()] == list(ROWS)


def test_as_it_is_it_changes_nothing() -> None:
    assert load(EXAMPLE) == Config()


def test_with_every_line_in_force_it_changes_nothing(tmp_path: Path) -> None:
    text = EXAMPLE.read_text()
    for _, lines, *_ in blocks():
        commented = "\n".join(f"#{line}" for line in lines.split("\n"))
        assert text.count(f"{commented}\n") == 1
        text = text.replace(f"{commented}\n", f"{lines}\n")
    tables = tomllib.loads(text)
    written = {f"{name}.{key}" for name, table in tables.items() for key in table}
    assert written | {name for name, table in tables.items() if not table} == set(ROWS)
    assert read(tmp_path / "all.toml", text) == Config()


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_the_reference_s_words_and_default(row: KeyDoc) -> None:
    lines, comment = next((lines, comment) for key, lines, comment, _ in blocks() if key == row.key)
    said = " ".join(comment)
    assert said.startswith(row.meaning)
    assert f" Accepted: {row.type}." in said
    value = lines.partition(" = ")[2]
    assert tomllib.loads(f"x = {value}") == tomllib.loads(f"x = {row.default}")


INSTANCES: Final = [(key, each) for key, _, _, instances in blocks() for each in instances]


@pytest.mark.parametrize(("key", "instance"), INSTANCES, ids=[key for key, _ in INSTANCES])
def test_instances_are_accepted_and_change_something(
    tmp_path: Path, key: str, instance: str
) -> None:
    assert instance.startswith(f"{key.rpartition('.')[2]} = ")
    assert read(tmp_path / "one.toml", in_section(key, instance)) != Config()


def test_a_key_that_there_is_not_would_be_refused(tmp_path: Path) -> None:
    text = EXAMPLE.read_text().replace("#idle-seconds", "idle-second")
    with pytest.raises(ConfigError, match="idle-second"):
        read(tmp_path / "wrong.toml", text)


def test_lines_fit_a_terminal() -> None:
    assert all(len(line) <= 100 for line in EXAMPLE.read_text().splitlines())

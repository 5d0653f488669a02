"""TOML to try readers with: any value as text, and strategies for values good and bad."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

_ESCAPED = {'"': '\\"', "\\": "\\\\"}

WORDS = [
    "piv",
    "",
    "F8",
    "20",
    "lock",
    "sha1",
    "revoked",
    "/etc",
    "3B00",
    "A000000063",
    "1.3.6",
    "04",
]
"""Texts that some key takes."""

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SCALARS = (
    st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.integers(0, 1000)
    | st.floats()
    | st.dates(min_value=datetime.date(1000, 1, 1))
    | TEXTS
    | st.sampled_from(WORDS)
)
VALUES = st.recursive(
    SCALARS,
    lambda parts: st.lists(parts, max_size=4) | st.dictionaries(TEXTS, parts, max_size=4),
    max_leaves=8,
)


def inline(value: Any) -> str:
    """One value as it stands behind an equals sign."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return '"' + "".join(map(_character, value)) + '"'
        case Mapping():
            return "{" + ", ".join(f"{inline(k)} = {inline(v)}" for k, v in value.items()) + "}"
        case list() | tuple():
            return "[" + ", ".join(map(inline, value)) + "]"
        case _:
            return str(value)


def document(tables: Mapping[str, Any]) -> str:
    """A whole file."""
    return "".join(f"{inline(name)} = {inline(value)}\n" for name, value in tables.items())


def tables(known: Mapping[str, list[str]]) -> st.SearchStrategy[dict[str, Any]]:
    """Files whose sections and keys are mostly known, and whose values are anything."""
    sections = {
        name: st.dictionaries(st.sampled_from([*keys, "x"]) | TEXTS, VALUES, max_size=6)
        for name, keys in known.items()
    }
    return st.fixed_dictionaries({}, optional=sections) | st.dictionaries(TEXTS, VALUES, max_size=3)


def _character(each: str) -> str:
    return _ESCAPED.get(each, each if each.isprintable() else f"\\U{ord(each):08X}")

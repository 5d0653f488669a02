"""The site's card declarations: a directory of TOML files, each with `[[card]]` tables.

A file with a mistake is refused as a whole, because half of it may say of a card what the other
half takes back; the other files are used, because one mistake must not stop a counter. What a
declaration is, and how it is matched, is `cards.declaration`'s affair.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import ascii_lowercase, digits
from types import MappingProxyType
from typing import Any, Final

from cardsession.cards.declaration import READINGS, Declaration
from cardsession.config import tomlfile
from cardsession.config import vocabulary as words
from cardsession.config.rules import (
    BOOLEAN,
    ConfigError,
    Problems,
    Rule,
    hex_digits,
    kind,
    listed,
    octets,
    one_of,
    read_table,
    shown,
    table_of,
    text,
    word,
)

MAX_FILES: Final = 256
"""More in one directory are not declarations; the first of them, by name, are read."""
_SUFFIX: Final = ".toml"
_PATH_SHOWN: Final = 400
_SOURCE_CHARS: Final = 400
_SERIAL_DIGITS: Final = 128
_SLUG_CHARS: Final = 32
_FIRST_OF_ATR: Final = b"\x3b\x3f"
"""TS: direct and inverse convention (ISO/IEC 7816-3 clause 8.1)."""

_AID: Final = octets("an application identifier (AID)", 5, 16)
"""ISO/IEC 7816-5: a registered provider's five bytes, and up to eleven of its own."""
_BUS_LABEL: Final = word(
    f"a PIN's label on the bus, 1 to {_SLUG_CHARS} of a-z, 0-9, hyphen",
    ascii_lowercase + digits + "-",
    _SLUG_CHARS,
)

_MECHANISMS: Final = ("rsa-pkcs1", "rsa-raw", "ecdsa")


def _is_octet(value: object) -> bool:
    return words.octet(value) is not None


def _labels(given: Mapping[str, str]) -> Mapping[str, str]:
    """A PIN's reference is looked up in upper case, its own label as the card has it."""
    references = {name.upper(): label for name, label in given.items() if _is_octet(name)}
    return MappingProxyType({**references, **given})


CRITERIA: Final[Mapping[str, Rule]] = {
    "atr": octets(
        "an ATR that begins with 3B or 3F", 2, 33, fits=lambda atr: atr[0] in _FIRST_OF_ATR
    ),
    "aid": _AID,
    "manufacturer": words.LABEL,
    "label": words.LABEL,
    "serial-prefix": Rule(
        f"the first 1 to {_SERIAL_DIGITS} hexadecimal digits of a serial number",
        lambda value: 0 < len(hex_digits(value)) <= _SERIAL_DIGITS,
        hex_digits,
    ),
    "profile": words.PROFILE,
}
"""Which cards a declaration is about."""
FACTS: Final[Mapping[str, Rule]] = {
    "asking-is-free": BOOLEAN,
    "series": words.SERIES,
    "nhs": BOOLEAN,
    "labels": table_of(
        "a table: a PIN's own label, or its reference in two hexadecimal digits, = its label on"
        ' the bus, such as "81" = "signature"',
        _BUS_LABEL,
        named=words.LABEL,
        keep=_labels,
    ),
    "read-as": one_of(sorted(READINGS - {""})),
    "application": _AID,
    "mechanisms": table_of(
        f'a table: {listed(_MECHANISMS)} = the card\'s reference of it, such as rsa-pkcs1 = "02"',
        dict.fromkeys(_MECHANISMS, Rule("two hexadecimal digits", _is_octet, words.octet)),
        keep=MappingProxyType,
    ),
}
"""What holds for them."""
KEYS: Final[Mapping[str, Rule]] = {
    **CRITERIA,
    "atr-mask": octets("an ATR mask that leaves something to compare", 2, 33, fits=any),
    **FACTS,
    "source": text(_SOURCE_CHARS),
}
_EARLY: Final = ("read-as", "application")
_CARD: Final = "card"


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a directory had: the declarations of its good files, a text for each other one."""

    declarations: tuple[Declaration, ...] = ()
    problems: tuple[str, ...] = ()


def load(directory: Path) -> Loaded:
    """The declarations of `directory`, in the order of the files' names and then of the tables.

    Names that begin with a dot are an editor's. Nothing that the directory holds is raised.
    """
    try:
        names = _names(directory)
    except ConfigError as error:
        return Loaded(problems=(f"{shown(directory, _PATH_SHOWN)}: {error}",))
    found: list[Declaration] = []
    problems: list[str] = []
    for name in names[:MAX_FILES]:
        path = directory / name
        try:
            found += _declarations(path)
        except ConfigError as error:
            problems.append(f"{shown(path, _PATH_SHOWN)}: {error}")
    if len(names) > MAX_FILES:
        count = f"expected at most {MAX_FILES} files, found {len(names)}; the rest is not used"
        problems.append(f"{shown(directory, _PATH_SHOWN)}: {count}")
    return Loaded(tuple(found), tuple(problems))


def _names(directory: Path) -> list[str]:
    """The files of ours; none where there is no directory, but not where a link leads nowhere."""
    try:
        names = os.listdir(directory)  # noqa: PTH208 - names, also those that are not UTF-8
    except FileNotFoundError:
        if directory.is_symlink():
            raise ConfigError("expected a directory, the link leads to none") from None
        return []
    except NotADirectoryError:
        raise ConfigError("expected a directory, found something else") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a file name"
        raise ConfigError(f"expected a readable directory: {reason}") from None
    return sorted(each for each in names if each.endswith(_SUFFIX) and not each.startswith("."))


def _declarations(path: Path) -> list[Declaration]:
    """All of one file, or a ConfigError with all that is wrong with it."""
    problems = Problems()
    file = tomlfile.read(path)
    unheaded = {name: f"{name}, below a line [[{_CARD}]]" for name in KEYS}
    for name in file:
        if name != _CARD:
            problems.unknown(shown(name), name, {_CARD: f"[[{_CARD}]]"} | unheaded)
    tables = file.get(_CARD, [])
    if not isinstance(tables, list):
        problems.append((_CARD, f"expected tables, [[{_CARD}]], found {kind(tables)}"))
        tables = []
    known_from = f"the site: {shown(path.name)}"
    read = [
        _declaration(f"{_CARD}.{at}", table, known_from, problems)
        for at, table in enumerate(tables)
    ]
    if problems:
        raise ConfigError(problems.told())
    return [each for each in read if each is not None]


def _declaration(key: str, table: Any, known_from: str, problems: Problems) -> Declaration | None:
    """One table; None, and what is wrong with it in `problems`."""
    if not isinstance(table, dict):
        problems.append((key, f"expected a table, [[{_CARD}]], found {kind(table)}"))
        return None
    before = len(problems)
    values = read_table(key, table, KEYS, problems)
    problems.extend(_contradictions(key, table, values))
    if len(problems) > before:
        return None
    given = {name.replace("-", "_"): value for name, value in values.items()}
    return Declaration(**{"source": known_from} | given)


def _contradictions(
    key: str, table: Mapping[str, Any], values: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """What is wrong between keys: `table` as it was written, `values` as its rules keep it."""
    criteria = [name for name in CRITERIA if name in table]
    understood = table.keys() <= KEYS.keys()  # else it may be there, with a typing error
    if understood and not criteria:
        yield key, f"expected a criterion, at least one of {', '.join(CRITERIA)}: which cards?"
    if understood and not any(table.get(name, {}) != {} for name in FACTS):
        yield key, f"expected a fact, at least one of {', '.join(FACTS)}: what of these cards?"
    if "asking-is-free" in table and "source" not in table:
        yield f"{key}.source", "expected a text, as asking-is-free is given: known from where?"
    for name in _EARLY:
        if name in table and criteria != ["atr"]:
            why = "it is needed before anything else of the card is known"
            yield f"{key}.{name}", f"expected beside atr and no other criterion: {why}"
    atr, mask = values.get("atr"), values.get("atr-mask")
    if "atr-mask" in table and "atr" not in table:
        yield f"{key}.atr-mask", "expected beside atr only: it says which bits of atr count"
    elif atr and mask and len(atr) != len(mask):
        yield f"{key}.atr-mask", f"expected {len(atr)} bytes as in atr, found {len(mask)}"

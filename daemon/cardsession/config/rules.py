"""What a key of a settings file accepts, and how it is told what it does not accept.

A rule is words, a test and a conversion. What is wrong is collected, not raised: one run names
every mistake of a file. A value is never repeated in a text: it might be a secret that somebody
put in the wrong place. Names of keys are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

_SHOWN_BITS: Final = 64
_SHOWN_PROBLEMS: Final = 40
"""More are counted, not told: a file of junk fills one screen, not the journal."""
_HEX: Final = frozenset("0123456789abcdefABCDEF")
_SEPARATORS: Final = str.maketrans("", "", " :.-_")


class ConfigError(Exception):
    """A file that is not understood; the text names file, key and what was expected."""


class Problems(list[tuple[str, str]]):
    """(dotted key, what is wrong with it) in the order of the file."""

    def unknown(self, key: str, name: str, known: Mapping[str, str]) -> None:
        """There is no such key; `known` maps each name there is to how one would write it."""
        self.append((key, "unknown key" + ("" if self.crowded else nearest(name, known))))

    @property
    def crowded(self) -> bool:
        """Whether what comes now is only counted: no use looking for what was meant."""
        return len(self) >= _SHOWN_PROBLEMS

    def told(self) -> str:
        """Their number, and a line for each."""
        count = "1 problem" if len(self) == 1 else f"{len(self)} problems"
        lines = "".join(f"\n  {key}: {text}" for key, text in self[:_SHOWN_PROBLEMS])
        more = len(self) - _SHOWN_PROBLEMS
        return count + lines + (f"\n  and {more} more" if more > 0 else "")


def nearest(name: str, known: Mapping[str, str]) -> str:
    """The key most probably meant, as the end of a sentence; "" if none is near."""
    import difflib  # noqa: PLC0415 - only a file with a mistake needs it

    best = difflib.get_close_matches(name.replace("_", "-").lower(), known, n=1)
    return f"; did you mean {known[best[0]]}?" if best else ""


def kind(value: object) -> str:
    """What TOML calls the type of a value; a number with its digits, if they are few."""
    if isinstance(value, (str, list, dict)):
        name = {str: "text", list: "list", dict: "table"}[type(value)]
        return f"a {name}" if value else f"an empty {name}"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, float) or (isinstance(value, int) and value.bit_length() < _SHOWN_BITS):
        return f"the number {value}"
    return "a huge number" if isinstance(value, int) else "a date or time"


def shown(value: object, limit: int = 100) -> str:
    """A name from outside, without what a terminal would obey."""
    text = str(value)[:limit]
    return text if text.isprintable() else ascii(text)


@dataclass(frozen=True, slots=True)
class Rule:
    """What a key accepts: in words, as a test, and how it is kept; then the rules for its parts.

    `each` is the rule for every entry of a list or table, or one for each name that a table may
    have; `named` is for the names of a table whose names are open. `keep` is given the parts as
    their own rules keep them.
    """

    expected: str
    fits: Callable[[Any], bool]
    keep: Callable[[Any], Any]
    each: Rule | Mapping[str, Rule] | None = None
    named: Rule | None = None
    found: Callable[[Any], str] = kind

    def read(self, key: str, value: Any, problems: Problems) -> Any:
        """The value as it is kept; None, and what is wrong with it in `problems`."""
        if not self.fits(value):
            problems.append((key, f"expected {self.expected}, found {self.found(value)}"))
            return None
        before = len(problems)
        if isinstance(self.each, Mapping):
            value = read_table(key, value, self.each, problems)
        elif self.each is not None:
            value = self._parts(key, value, self.each, problems)
        return self.keep(value) if len(problems) == before else None

    def _parts(self, key: str, value: Any, each: Rule, problems: Problems) -> Any:
        """Every part by the one rule for all."""
        if isinstance(value, list):
            return [each.read(f"{key}.{at}", part, problems) for at, part in enumerate(value)]
        for name in value:
            if self.named is not None and not self.named.fits(name):
                words = f"expected a key that is {self.named.expected}"
                problems.append((f"{key}.{shown(name)}", words))
        return {at: each.read(f"{key}.{shown(at)}", part, problems) for at, part in value.items()}


def read_table(
    key: str,
    table: Mapping[str, Any],
    rules: Mapping[str, Rule],
    problems: Problems,
    known: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The values of a table whose keys are known; `known` has more names that may be meant."""
    values: dict[str, Any] = {}
    for name, value in table.items():
        at = f"{key}.{shown(name)}" if key else shown(name)
        if name in rules:
            values[name] = rules[name].read(at, value, problems)
        else:
            problems.unknown(at, name, known or {each: f"{key}.{each}" for each in rules})
    return values


def whole(low: int, high: int) -> Rule:
    """A boolean is no number, although Python counts with it."""
    text = f"a whole number from {low} to {high}"
    return Rule(text, lambda value: type(value) is int and low <= value <= high, int)


def number(low: int, high: int) -> Rule:
    """With or without a fraction; NaN is in no range."""
    text = f"a number from {low} to {high}"
    return Rule(text, lambda value: type(value) in (int, float) and low <= value <= high, float)


BOOLEAN: Final = Rule("true or false", lambda value: isinstance(value, bool), bool)


def one_of(words: Iterable[str]) -> Rule:
    """A word of a closed set; an enumeration's is kept as its member."""
    known = {str(word): word for word in words}
    return Rule(
        f"one of {listed(known)}",
        lambda value: isinstance(value, str) and value in known,
        known.__getitem__,
    )


def text(most: int) -> Rule:
    """What staff can read and a bus can carry."""
    return Rule(
        f"1 to {most} printable characters",
        lambda value: isinstance(value, str) and 0 < len(value) <= most and value.isprintable(),
        str,
    )


def word(expected: str, characters: Collection[str], most: int = 64) -> Rule:
    """A short name made of `characters` only."""
    allowed = frozenset(characters)
    return Rule(
        expected,
        lambda value: (
            isinstance(value, str) and 0 < len(value) <= most and allowed.issuperset(value)
        ),
        str,
    )


def hex_digits(value: object) -> str:
    """Hexadecimal digits in upper case, without what separates them; "" if it is none."""
    if not isinstance(value, str):
        return ""
    digits = value.translate(_SEPARATORS)
    return digits.upper() if _HEX.issuperset(digits) else ""


def octets(
    what: str,
    low: int,
    high: int,
    keep: Callable[[str], Any] = bytes.fromhex,
    fits: Callable[[bytes], bool] = lambda _: True,
) -> Rule:
    """`low` to `high` bytes, written as pairs of hexadecimal digits; `keep` is given the digits."""

    def accepted(value: object) -> bool:
        digits = hex_digits(value)
        if len(digits) % 2 or not low <= len(digits) // 2 <= high:
            return False
        return fits(bytes.fromhex(digits))

    words = f"{what}: {low} to {high} bytes, two hexadecimal digits each"
    return Rule(words, accepted, lambda value: keep(hex_digits(value)))


def list_of(
    expected: str, each: Rule, least: int = 0, keep: Callable[[Any], Any] = frozenset
) -> Rule:
    """At least so many entries; their order means nothing unless `keep` keeps it."""
    return Rule(expected, lambda value: isinstance(value, list) and len(value) >= least, keep, each)


def table_of(
    expected: str,
    each: Rule | Mapping[str, Rule],
    named: Rule | None = None,
    keep: Callable[[Any], Any] = dict,
) -> Rule:
    """A table with names of its own."""
    return Rule(expected, lambda value: isinstance(value, dict), keep, each, named)


def listed(words: Iterable[str]) -> str:
    """The words of a closed set, for a sentence."""
    return ", ".join(f'"{each}"' for each in words)

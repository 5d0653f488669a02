"""Files that somebody edited, or a disk damaged: settings, declarations, the ledger, the trail."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from hypothesis import strategies as st

from cardsession import config, declarations
from cardsession.adapters.ledger import FileLedger, lines
from cardsession.adapters.ledger.entry import Attempt, Entry, Key, strictest
from cardsession.adapters.trail import entries, fields
from cardsession.config import Config, ConfigError
from cardsession.core.tries import SATURATED, Known
from fakes.cards import CANARY
from fuzz.cases import fuzz, quiet
from fuzz.mutations import SOME, Edit, changed, mutants, noise

DECLARATIONS = b"""[[card]]
atr = "3B6A00FF4A434F50343156323231"
atr-mask = "FFFFFFFFFFFFFFFFFFFFFFFFFFFF"
series = "04"
nhs = true
source = "the seed"

[[card]]
label = "test card"
manufacturer = "nobody"
asking-is-free = true
labels = { "81" = "signature", "PIN of somebody" = "user" }
mechanisms = { rsa-pkcs1 = "02", ecdsa = "04" }
aid = "A000000308"
source = "its manual"

[[card]]
atr = "3B0001"
read-as = "pkcs15"
application = "A000000063504B43532D3135"
source = "its manual"
"""


@contextmanager
def directory() -> Iterator[Path]:
    """One of its own for each case."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@fuzz(400, st.lists(st.tuples(SOME, st.integers(0, 40)), max_size=3), st.booleans())
def test_settings(changes: list[tuple[list[Edit], int]], uncommented: bool) -> None:
    """A line of our own reference changed at a time, so that the rest of the file is read."""
    text = config.reference()
    rows = (text.replace("\n# ", "\n") if uncommented else text).encode().split(b"\n")
    given = [at for at, row in enumerate(rows) if b"=" in row]
    for edits, which in changes:
        at = given[which % len(given)]
        rows[at] = changed(rows[at], edits)
    with directory() as path:
        file = path / "site.toml"
        file.write_bytes(b"\n".join(rows))
        try:
            assert isinstance(config.load(file), Config)
        except ConfigError as error:
            for_people(error)


@fuzz(400, SOME, SOME | st.just([]))
def test_declarations(edits: list[Edit], more: list[Edit]) -> None:
    """A file that is refused takes no other with it."""
    with directory() as path:
        (path / "a.toml").write_bytes(changed(changed(DECLARATIONS, edits), more))
        (path / "b.toml").write_bytes(DECLARATIONS)
        found = declarations.load(path)
        assert len(found.declarations) >= 3
        assert len(found.problems) <= 1
        assert all(each.isprintable() for text in found.problems for each in text.split("\n"))


def for_people(error: ConfigError) -> None:
    """On a terminal, and of a length that somebody reads."""
    assert all(line.isprintable() for line in str(error).split("\n"))
    assert len(str(error)) < 20_000
    quiet(error)


CARDS = st.sampled_from(["A0" * 16, "", "\ud800", "x" * 300])
USEC = st.sampled_from([0, 1, 1_790_000_000_000_000, (1 << 63) - 1])
TIMES = st.sampled_from([0, 1, 1_790_000_000_000_000, 1_790_000_000_000_002])
COUNTS = st.none() | st.integers(0, SATURATED)
ATTEMPTS = st.builds(
    Attempt, USEC, st.sampled_from([":1.7 uid 1000", "ü\0"]), COUNTS, st.booleans()
)
ENTRIES = st.builds(Entry, COUNTS, st.lists(ATTEMPTS, max_size=3).map(tuple), st.booleans(), USEC)
BOOKS: st.SearchStrategy[dict[Key, Entry]] = st.dictionaries(
    st.tuples(CARDS, st.sampled_from([0x80, 0x81, 0, 1 << 70])), ENTRIES, max_size=4
)


@fuzz(700, BOOKS, SOME | st.just([]), BOOKS)
def test_ledger_lines(book: dict[Key, Entry], edits: list[Edit], other: dict[Key, Entry]) -> None:
    """What can be read of a damaged file was in it, and counts never rise by damage."""
    raw = lines.heading() + lines.write(book)
    damaged = changed(raw, edits)
    found = lines.read(damaged)
    assert damaged != raw or (found.entries == book and not found.damage)
    for key, entry in found.entries.items():
        assert entry.lowest is None or 0 <= entry.lowest <= SATURATED
        if key in book and found.damage:
            assert entry == book[key]
        strictest(entry, next(iter(other.values()), entry)).begun(1, "x").withdrawn()


@fuzz(60, BOOKS, SOME)
def test_a_damaged_ledger_is_put_aside_and_goes_on(
    book: dict[Key, Entry], edits: list[Edit]
) -> None:
    """On a disk, with its thread; what it forgot it may only be stricter about."""
    with directory() as path:
        (path / "ledger").write_bytes(changed(lines.heading() + lines.write(book), edits))
        said: list[str] = []
        ledger = FileLedger(path, lambda: 1_790_000_000_000_000, said.append)
        try:
            ledger.note("another card", 0x80, Known(2))
            ledger.begin("another card", 0x80, ":1.7")
            assert ledger.lowest("another card", 0x80) == 1
            assert ledger.past("another card").in_flight
        finally:
            ledger.close()
        kept = lines.read((path / "ledger").read_bytes())
        assert not kept.damage
        assert kept.entries["another card", 0x80].in_flight
        assert not [each for each in said if CANARY in each]


@cache
def _trail() -> bytes:
    made = [
        fields.line(1_790_000_000_000_000 + at, event, {"card": at, "reader": "Reader 00 00"})
        for at, event in enumerate(["session.opened", "pin.judged", "session.ended"])
    ]
    return b"".join(made)


@fuzz(400, SOME, noise(80) | st.just(b""), TIMES, st.sampled_from(["audit-2026-09-21.jsonl", "x"]))
def test_a_damaged_trail(edits: list[Edit], before: bytes, since: int, name: str) -> None:
    """Every entry that is read has an event and a time, and texts and numbers only."""
    with directory() as path:
        (path / name).write_bytes(before + changed(_trail(), edits))
        for entry in entries(path, since, event="pin.judged"):
            assert entry["event"] == "pin.judged"
            assert fields.usec_of(entry["time"]) >= since
            assert all(isinstance(each, str | int) for each in entry.values())


NAMES = st.sampled_from(["card", "pin", "secret", "pin_label", "time", "A", "x y", "\0"]) | st.text(
    max_size=12
)
VALUES = st.text(max_size=60) | st.integers() | st.just(b"\x01") | st.none() | st.floats()


@fuzz(300, st.text(max_size=60), st.dictionaries(NAMES, VALUES, max_size=6), TIMES)
def test_an_entry_that_should_not_be(event: str, given: dict[str, object], usec: int) -> None:
    """One line, whatever is to be in it."""
    made = fields.line(usec, event, given)  # type: ignore[arg-type]
    assert made.endswith(b"\n") and made.count(b"\n") == 1
    made.decode()


@fuzz(200, mutants(*(row.encode() for row in config.reference().split("\n") if "=" in row)))
def test_one_line_of_settings(row: bytes) -> None:
    with directory() as path, suppress(ConfigError):
        (path / "one.toml").write_bytes(row)
        config.load(path / "one.toml")

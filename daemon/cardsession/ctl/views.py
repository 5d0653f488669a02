"""What is shown of readers, cards and sessions: rows, an aligned text, a table, JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cardsession.client import (
    CardInfo,
    CardSessionClient,
    Info,
    ManagerInfo,
    ReaderInfo,
    SessionInfo,
)

if TYPE_CHECKING:
    from rich.table import Table

NOTHING: Final = "-"
_KINDS: Final[dict[type[Info], str]] = {
    ManagerInfo: "manager",
    ReaderInfo: "reader",
    CardInfo: "card",
    SessionInfo: "session",
}


class Row(NamedTuple):
    """One line of the table; the names of the columns are the fields'."""

    reader: str
    state: str
    holder: str
    profile: str
    valid: str
    tries: str
    session: str


Seat = tuple[ReaderInfo | None, CardInfo | None, SessionInfo | None]
"""A reader with its card and its session; a session whose card is out has no reader."""


def seats(client: CardSessionClient) -> Iterator[Seat]:
    """Every reader, then the sessions that are at none."""
    seen = set()
    for reader in client.readers():
        found = client.get(reader.card)
        card = found if isinstance(found, CardInfo) else None
        here = [each for each in client.sessions() if each.reader == reader.path]
        session = here[0] if here else None
        seen.add(session.path if session else "")
        yield reader, card, session
    yield from ((None, None, each) for each in client.sessions() if each.path not in seen)


def row(seat: Seat) -> Row:
    """A seat as one line."""
    reader, card, session = seat
    return Row(
        reader=reader_name(reader) if reader else NOTHING,
        state=_state(reader, card),
        holder=shown(card.holder_id) if card and card.holder_id else NOTHING,
        profile=shown(card.profile) if card and card.profile else NOTHING,
        valid=valid(card) if card else NOTHING,
        tries=tries(card) if card else NOTHING,
        session=f"{shown(session.state)} (uid {session.owner_uid})" if session else NOTHING,
    )


def plain(rows: Iterable[Row]) -> str:
    """Columns aligned with spaces, for a pipe or a dumb terminal."""
    lines = [Row(*(name.upper() for name in Row._fields)), *rows]
    widths = [max(len(line[at]) for line in lines) for at in range(len(Row._fields))]
    padded = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in lines
    )
    return "\n".join(line.rstrip() for line in padded)


def table(rows: Iterable[Row]) -> Table:
    """The same as a table of rich, which is imported for a terminal only."""
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    made = Table()
    for name in Row._fields:
        made.add_column(name.capitalize(), no_wrap=name in {"holder", "tries"})
    for each in rows:
        made.add_row(*(Text(cell, style=_style(cell)) for cell in each))
    return made


def _style(cell: str) -> str:
    """A colour for what one looks for."""
    if cell == NOTHING:
        return "dim"
    if "blocked" in cell or cell in {"stuck", "mute"}:
        return "red"
    return "green" if cell == "ready" or cell.startswith("active") else ""


def reader_name(reader: ReaderInfo) -> str:
    """What staff call it, else what PC/SC does."""
    return shown(reader.label or reader.name or reader.id)


def tries(card: CardInfo) -> str:
    """`user 3, signature blocked`; a count that is not there is not guessed."""
    known = ", ".join(
        f"{shown(label)} {left or 'blocked'}" for label, left in card.pin_tries.items()
    )
    verified = [shown(label) for label, state in card.pin_state.items() if state == "verified"]
    if not known and verified:  # while it is, how many are left cannot be known
        return ", ".join(f"{label} verified" for label in verified)
    stale = " (stale)" if known and card.pin_tries_source == "stale" else ""
    return known + stale if known else "unknown"


def _state(reader: ReaderInfo | None, card: CardInfo | None) -> str:
    """The reader's state, unless there is only something to say of the card."""
    if reader is None:
        return NOTHING
    return shown(card.state if card and reader.state == "ready" else reader.state)


def valid(card: CardInfo) -> str:
    """Until when, and whether somebody should do something about it."""
    if not card.not_after:
        return NOTHING
    try:
        day = datetime.fromtimestamp(card.not_after, UTC).date().isoformat()
    except (OverflowError, ValueError, OSError):
        return "?"
    return f"until {day}" + (f", {card.days_left} days: renew" if card.renewal_due else "")


def shown(text: object) -> str:
    """Without what a terminal would obey."""
    return "".join(
        char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in str(text)
    )


def card_service(client: CardSessionClient) -> str:
    """` (card service: …)`: why there may be no reader; empty if that is not known."""
    manager = client.manager
    return f" (card service: {shown(manager.backend)})" if manager else ""


def kind(info: Info) -> str:
    """What it is, in a word."""
    return _KINDS[type(info)]


def facts(info: Info | None, names: Iterable[str] | None = None) -> dict[str, Any] | None:
    """The properties by name, all or some, as JSON has them; bytes as hexadecimal digits."""
    if info is None:
        return None
    wanted = [each.name for each in dataclasses.fields(info)] if names is None else sorted(names)
    return {name: _jsonable(getattr(info, name)) for name in wanted}


def _jsonable(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    return dict(value) if isinstance(value, Mapping) else value


def as_json(value: Mapping[str, Any]) -> str:
    """One object on one line, in ASCII: no terminal obeys it."""
    return json.dumps(value)

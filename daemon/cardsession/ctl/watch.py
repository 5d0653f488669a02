"""`cardsessionctl watch`: what is there, then every change, until interrupted."""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from cardsession.client import (
    Added,
    CardGone,
    CardInfo,
    CardReady,
    CardSessionClient,
    Changed,
    Ended,
    Event,
    Exchange,
    Info,
    Lost,
    ManagerInfo,
    ReaderInfo,
    Removed,
    ServiceBack,
    ServiceGone,
)

from .views import as_json, facts, kind, reader_name, row, seats, shown, table, valid

if TYPE_CHECKING:
    from rich.console import RenderableType

_RECENT: Final = 10
"""Changes shown under the table."""
_BARE: Final[dict[type[Event], str]] = {
    ServiceGone: "service-gone",
    ServiceBack: "service-back",
    Lost: "lost",
}
_SAID: Final[dict[type[Event], str]] = {
    ServiceGone: "cardsessiond has left the bus",
    ServiceBack: "cardsessiond is on the bus",
    Lost: "changes were lost; what follows is what there is",
}
_TOLD: Final[tuple[str, ...]] = (
    "backend", "hotplug", "state", "holder_id", "profile", "pin_tries", "trust", "purpose",
    "owner_uid",
)  # fmt: skip
"""What is said of an object that is new, in this order; the rest only when it changes."""
_EMPTY: Final[tuple[object, ...]] = (None, "", {}, "/")


async def watch(client: CardSessionClient, *, as_lines: bool, json: bool) -> None:
    """Until cancelled, or BusLost: a live table on a terminal, else a line a change."""
    events = client.events()
    view = Lines(client, json=json) if as_lines or json else LiveTable(client)
    with view:
        view.present()
        async for event in events:
            view.take(event)


class Lines:
    """One line a change, flushed: for a pipe."""

    def __init__(self, client: CardSessionClient, *, json: bool) -> None:
        self._client = client
        self._json = json

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to put back."""

    def present(self) -> None:
        """What is there already."""
        manager = self._client.manager
        there: list[Info | None] = [manager, *self._client.readers(), *self._client.cards()]
        for info in [*there, *self._client.sessions()]:
            if info is not None:
                self._write(
                    about(info) | {"event": "present"}, f"{name(self._client, info)}: {_all(info)}"
                )

    def take(self, event: Event) -> None:
        """A change; after a loss, what is there now."""
        text = line(self._client, event)
        if self._json or text:
            self._write(record(event), text)
        if isinstance(event, Lost):
            self.present()

    def _write(self, fact: dict[str, Any], text: str) -> None:
        stamp = datetime.now(UTC)
        if self._json:
            text = as_json({"time": stamp.isoformat(timespec="milliseconds")} | fact)
        else:
            text = f"{stamp.astimezone():%H:%M:%S} {text}"
        print(text, flush=True)


class LiveTable:
    """The readers as a table that follows, with the latest changes under it."""

    def __init__(self, client: CardSessionClient) -> None:
        from rich.live import Live  # noqa: PLC0415 - for a terminal only

        self._client = client
        self._recent: deque[str] = deque(maxlen=_RECENT)
        self._live = Live(auto_refresh=False)

    def __enter__(self) -> LiveTable:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """The last table stays on the terminal."""
        self._live.stop()

    def present(self) -> None:
        """Draw what there is."""
        self._live.update(self._drawn(), refresh=True)

    def take(self, event: Event) -> None:
        """Draw anew."""
        if text := line(self._client, event):
            self._recent.append(f"{datetime.now().astimezone():%H:%M:%S} {text}")
        self.present()

    def _drawn(self) -> RenderableType:
        from rich.console import Group  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        rows = [row(seat) for seat in seats(self._client)]
        return Group(
            table(rows), *(Text(each, no_wrap=True, overflow="ellipsis") for each in self._recent)
        )


def about(info: Info, names: frozenset[str] | None = None) -> dict[str, Any]:
    """An object in JSON: all its properties or those that are named."""
    return {"kind": kind(info), "path": info.path, "properties": facts(info, names)}


def record(event: Event) -> dict[str, Any]:
    """A change in JSON."""
    match event:
        case Added(info):
            return {"event": "added"} | about(info)
        case Changed(info, names):
            return {"event": "changed"} | about(info, names)
        case Removed(info):
            return {"event": "removed", "kind": kind(info), "path": info.path}
        case Ended(session, reason):
            return {"event": "ended", "kind": "session", "path": session, "reason": reason}
        case CardReady(card, reader):
            return {"event": "card-ready", "kind": "card", "path": card, "reader": reader}
        case CardGone(card, reader, reason):
            gone = {"event": "card-gone", "kind": "card", "path": card, "reader": reader}
            return gone | {"reason": reason}
        case Exchange():
            return {"event": "exchange", "reader": event.reader, "header": event.header}
    return {"event": _BARE[type(event)]}


def line(client: CardSessionClient, event: Event) -> str:
    """A change in words; empty for one that says nothing to a person."""
    match event:
        case Added(info):
            return f"{name(client, info)}: new, {_all(info)}"
        case Changed(info, names):
            some = _some(info, names)
            return f"{name(client, info)}: {some}" if some else ""
        case Removed(info):
            return f"{name(client, info)}: gone"
        case Ended(session, reason):
            return f"session {_number(session)}: ended, {shown(reason)}"
        case CardReady(card, _):
            return f"card {_number(card)}: ready"
        case CardGone(card, _, reason):
            return f"card {_number(card)}: gone, {shown(reason)}"
        case Exchange():
            return f"exchange {shown(event.header)} {event.sw:04X}"
    return _SAID[type(event)]


def name(client: CardSessionClient, info: Info) -> str:
    """What a person calls it."""
    match info:
        case ManagerInfo():
            return "cardsessiond"
        case ReaderInfo():
            return f"reader {reader_name(info)}"
        case CardInfo():
            reader = client.get(info.reader)
            place = f" in {reader_name(reader)}" if isinstance(reader, ReaderInfo) else ""
            return f"card {_number(info.path)}{place}"
    return f"session {_number(info.path)}"


def _number(path: str) -> str:
    """The number at the end of a path."""
    return shown(path.rpartition("/")[2])


def _all(info: Info) -> str:
    """The facts that matter, if there are any."""
    there = facts(info) or {}
    said = [f"{_word(each)} {_value(there[each])}" for each in _TOLD if _matters(there.get(each))]
    if isinstance(info, CardInfo) and info.not_after:
        said.append(valid(info))
    return ", ".join(said)


def _matters(value: object) -> bool:
    """Zero does: root's uid is one."""
    return value not in _EMPTY


def _some(info: Info, names: frozenset[str]) -> str:
    """What has changed, the important things first; empty if only times have (JSON has them)."""
    there = facts(info, {each for each in names if not each.endswith("_usec")}) or {}
    order = [each for each in _TOLD if each in there]
    order += [each for each in there if each not in order]
    return ", ".join(f"{_word(each)} {_value(there[each])}" for each in order)


def _word(field: str) -> str:
    return field.replace("_", "-")


def _value(value: object) -> str:
    """A property's value on a line."""
    if isinstance(value, dict):
        return "/".join(f"{shown(key)} {shown(each)}" for key, each in value.items()) or "none"
    if isinstance(value, tuple):
        return "/".join(map(shown, value)) or "none"
    return shown(value) or "none"

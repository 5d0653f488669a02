"""The commands of the control socket, each a plain dict in and out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from typing import TypeVar

from cardsession.virtual.faults import Fault, FaultKind, Stage
from cardsession.virtual.identity import Authority
from cardsession.virtual.options import Slot
from cardsession.virtual.reading import changed, hexadecimal
from cardsession.virtual.reference import Reference
from cardsession.virtual.seat import Seat

Request = Mapping[str, object]
Answer = dict[str, object]
_E = TypeVar("_E", bound=StrEnum)

_BYTE = 0xFF
_MOST_TRIES = 15
_WAIT = 1.0
_LONGEST_WAIT = 60.0


class Refused(Exception):
    """The command cannot be carried out; the text names what was expected."""


class Commands:
    """What the control socket can ask of a seat. `quit` is set when the card is to end."""

    def __init__(self, seat: Seat, authority: Authority, quit_event: asyncio.Event) -> None:
        self._seat = seat
        self._authority = authority
        self._quit = quit_event
        self._table: dict[str, Callable[[Request], Awaitable[Answer]]] = {
            "insert": self._insert,
            "remove": self._remove,
            "eject": self._remove,
            "swap": self._swap,
            "new-card": self._new_card,
            "status": self._status,
            "set-tries": self._set_tries,
            "set-pin": self._set_pin,
            "set-object": self._set_object,
            "set-atr": self._set_atr,
            "pull-at": self._pull_at,
            "silent-at": self._silent_at,
            "answer-at": self._answer_at,
            "clear-faults": self._clear_faults,
            "speak": self._speak,
            "slow": self._slow,
            "reset-book": self._reset_book,
            "authority": self._show_authority,
            "certificate": self._certificate,
            "quit": self._end,
        }

    async def run(self, request: Request) -> Answer:
        """Carry out one command; Refused if it is unknown or a field is wrong."""
        name = request.get("command")
        handler = self._table.get(name) if isinstance(name, str) else None
        if handler is None:
            raise Refused(f"command: one of {', '.join(sorted(self._table))} was expected")
        return await handler(request)

    async def _insert(self, request: Request) -> Answer:
        connected = await self._seat.insert(_seconds(request, "wait", _WAIT))
        return {"inserted": self._seat.inserted, "connected": connected}

    async def _remove(self, _: Request) -> Answer:
        await self._seat.remove()
        return {"inserted": False}

    async def _swap(self, request: Request) -> Answer:
        await self._lay_out(request, insert=True)
        await self._seat.link.wait_connected(_seconds(request, "wait", _WAIT))
        return self._who()

    async def _new_card(self, request: Request) -> Answer:
        await self._lay_out(request, insert=False)
        return self._who()

    async def _lay_out(self, request: Request, *, insert: bool) -> None:
        name = request.get("name")
        changes = request.get("options", {})
        if not isinstance(name, str | None) or not isinstance(changes, dict):
            raise Refused("name: a string, options: an object, were expected")
        try:
            options = changed(self._seat.options, changes)
            await self._seat.lay_out(name, options, insert=insert)
        except ValueError as error:
            raise Refused(f"options: {error}") from None

    def _who(self) -> Answer:
        seat = self._seat
        return {
            "inserted": seat.inserted,
            "connected": seat.link.connected,
            "card": seat.name,
            "family": seat.card.options.family.value,
            "holder": seat.card.options.holder,
            "guid": seat.card.identity.guid.hex(),
            "serial": seat.card.applet.serial.hex(),
            "atr": seat.atr.hex(),
        }

    async def _status(self, _: Request) -> Answer:
        seat = self._seat
        return {
            **self._who(),
            "powered": seat.powered,
            "silent": seat.silent,
            "references": seat.card.pins.as_dict(),
            "faults": seat.faults.as_list(),
            **seat.card.book.as_dict(),
        }

    async def _set_tries(self, request: Request) -> Answer:
        _, reference = self._reference(request)
        reference.left = _number(request, "left", 0, _MOST_TRIES)
        if reference.blocked:
            reference.verified = False
        return {"references": self._seat.card.pins.as_dict()}

    async def _set_pin(self, request: Request) -> Answer:
        at, _ = self._reference(request)
        pin, pins = request.get("pin"), self._seat.card.pins
        try:
            pins.replace(at, pin if isinstance(pin, str) else "")
        except ValueError:
            # The exception's own text could quote the PIN (UnicodeEncodeError does).
            raise Refused(
                "pin: 1 to 8 characters that are a PIN of this card were expected"
            ) from None
        return {"references": pins.as_dict()}

    def _reference(self, request: Request) -> tuple[int, Reference]:
        pins = self._seat.card.pins
        at = _byte(request.get("reference", pins.primary), "reference")
        try:
            return at, pins.reference(at)
        except KeyError:
            known = ", ".join(self._seat.card.pins.as_dict())
            raise Refused(f"reference: one of {known} was expected") from None

    async def _set_object(self, request: Request) -> Answer:
        tag, value = _hex(request, "tag"), request.get("hex")
        content = None if value is None else _hex(request, "hex")
        try:
            return {"objects": self._seat.card.applet.put(tag, content)}
        except ValueError as error:
            raise Refused(f"tag: {error}") from None

    async def _set_atr(self, request: Request) -> Answer:
        self._seat.card.atr = _hex(request, "hex")
        return {"atr": self._seat.atr.hex()}

    async def _pull_at(self, request: Request) -> Answer:
        return self._arm(FaultKind.PULL, request)

    async def _silent_at(self, request: Request) -> Answer:
        answer = _hex(request, "hex") if "hex" in request else b""
        return self._arm(FaultKind.SILENT, request, answer)

    async def _answer_at(self, request: Request) -> Answer:
        return self._arm(FaultKind.ANSWER, request, _hex(request, "hex"))

    def _arm(self, kind: FaultKind, request: Request, answer: bytes = b"") -> Answer:
        ins = request.get("ins")
        with_data = request.get("with_data", False)
        if not isinstance(with_data, bool):
            raise Refused("with_data: true or false was expected")
        fault = Fault(
            kind,
            _number(request, "n", 1, 1_000_000),
            _choice(request, "stage", Stage, Stage.BEFORE),
            None if ins is None else _byte(ins, "ins"),
            with_data,
            answer,
        )
        self._seat.faults.arm(fault)
        return {"faults": self._seat.faults.as_list()}

    async def _clear_faults(self, _: Request) -> Answer:
        self._seat.faults.clear()
        return {"faults": []}

    async def _speak(self, _: Request) -> Answer:
        self._seat.speak()
        return {}

    async def _slow(self, request: Request) -> Answer:
        milliseconds = _number(request, "ms", 0, 600_000)
        self._seat.slow = milliseconds / 1000
        return {"ms": milliseconds}

    async def _reset_book(self, _: Request) -> Answer:
        self._seat.card.book.clear()
        return {}

    async def _show_authority(self, _: Request) -> Answer:
        return {"pem": self._authority.pem().decode()}

    async def _certificate(self, request: Request) -> Answer:
        certificates = self._seat.card.identity.certificates
        at = _byte(request.get("slot", int(Slot.AUTHENTICATION)), "slot")
        for slot, der in certificates.items():
            if slot == at:
                return {"slot": f"{slot:02X}", "der": der.hex()}
        raise Refused(f"slot: one of {', '.join(f'{slot:02X}' for slot in certificates)} expected")

    async def _end(self, _: Request) -> Answer:
        self._quit.set()
        return {}


def _number(request: Request, name: str, least: int, most: int) -> int:
    value = request.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise Refused(f"{name}: a number from {least} to {most} was expected")
    return value


def _seconds(request: Request, name: str, default: float) -> float:
    value = request.get(name, default)
    if not isinstance(value, int | float) or not 0 <= value <= _LONGEST_WAIT:
        raise Refused(f"{name}: seconds from 0 to {_LONGEST_WAIT:.0f} were expected")
    return float(value)


def _byte(value: object, name: str) -> int:
    """A byte as a number, or as a string of two hexadecimal digits."""
    if isinstance(value, str):
        raw = hexadecimal(value)
        value = raw[0] if raw is not None and len(raw) == 1 else None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _BYTE:
        raise Refused(f'{name}: a byte was expected, as a number or as hexadecimal ("80")')
    return value


def _hex(request: Request, name: str) -> bytes:
    value = request.get(name)
    raw = hexadecimal(value) if isinstance(value, str) else None
    if raw is None:
        raise Refused(f"{name}: a string of hexadecimal digits was expected")
    return raw


def _choice(request: Request, name: str, kind: type[_E], default: _E) -> _E:
    try:
        return kind(str(request.get(name, default.value)))
    except ValueError:
        raise Refused(f"{name}: one of {', '.join(kind)} was expected") from None

"""The PIV card application (SP 800-73-4 part 2), apart from its transport."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cardsession.virtual import objects
from cardsession.virtual.apdu import SW, Command, Ins, Response
from cardsession.virtual.book import Book
from cardsession.virtual.identity import Identity, Key
from cardsession.virtual.objects import CERTIFICATE_TAG, NEEDS_PIN, Tag
from cardsession.virtual.options import PIV_ALGORITHMS, CardOptions, Slot
from cardsession.virtual.pins import Pins
from cardsession.virtual.tlv import tlv, walk

_WHOLE_OBJECTS: Final = (0x3F, 0xFF)
_TAG_LIST: Final = 0x5C
_TEMPLATE: Final = 0x7C
_CHALLENGE: Final = 0x81
_ANSWER: Final = 0x82
_POINT: Final = 0x85


class PivApplet:
    """One PIV application. Data objects lie in `objects`, by tag, as they are answered."""

    def __init__(self, options: CardOptions, pins: Pins, identity: Identity) -> None:
        if options.algorithm not in PIV_ALGORITHMS:
            raise ValueError(f"algorithm: PIV has no {options.algorithm}")
        self.pins = pins
        self.serial = identity.guid
        self.objects = _data_objects(options, identity)
        self._keys = identity.keys
        self._pin_commands: dict[int, Callable[[Command], Response]] = {
            Ins.VERIFY: pins.verify,
            Ins.CHANGE_REFERENCE_DATA: pins.change,
            Ins.RESET_RETRY_COUNTER: pins.unblock,
        }

    @property
    def book(self) -> Book:
        """Where commands on PINs are counted."""
        return self.pins.book

    def answers_to(self, name: bytes) -> bool:
        """The PIV AID with or without its version."""
        return objects.answers_to(name)

    def select(self, _: int) -> bytes:
        """Part 2 clause 3.1.1: selecting PIV again changes no security status."""
        self.pins.fresh = False
        return objects.property_template(sorted({key.identifier for key in self._keys.values()}))

    def deselect(self) -> None:
        """Part 2 clause 3.1.1: another application is selected, PIV forgets who was verified."""
        self.pins.forget(platform=False)

    def reset(self) -> None:
        """Reset or power lost."""
        self.pins.forget(platform=True)

    def put(self, name: bytes, value: bytes | None) -> list[str]:
        """Write (or remove) a data object past all rules; the tags of all objects."""
        if value is None:
            self.objects.pop(int.from_bytes(name, "big"), None)
        else:
            self.objects[int.from_bytes(name, "big")] = value
        return sorted(f"{known:X}" for known in self.objects)

    def process(self, command: Command) -> Response:
        """Answer one command."""
        # "PIN always" (part 1 table 4b): only a signature right after VERIFY may use its freshness.
        fresh, self.pins.fresh = self.pins.fresh, False
        if command.ins in self._pin_commands:
            return self._pin_commands[command.ins](command)
        match command.ins:
            case Ins.SELECT:
                return Response(SW.WRONG_P1P2)
            case Ins.GENERAL_AUTHENTICATE:
                return self._authenticate(command, fresh)
            case Ins.GET_DATA:
                return self._get_data(command)
            case Ins.GENERATE_ASYMMETRIC_KEY_PAIR | Ins.PUT_DATA:
                # Needs the card management key, which this card has not.
                return Response(SW.SECURITY_STATUS)
        return Response(SW.INS)

    def _get_data(self, command: Command) -> Response:
        """GET DATA, part 2 clause 3.1.2: one tag in a tag list, one object back."""
        if (command.p1, command.p2) != _WHOLE_OBJECTS:
            return Response(SW.WRONG_P1P2)
        try:
            found = list(walk(command.data))
        except ValueError:
            return Response(SW.WRONG_DATA)
        if len(found) != 1 or found[0][0] != _TAG_LIST or not found[0][1]:
            return Response(SW.WRONG_DATA)
        tag = int.from_bytes(found[0][1], "big")
        value = self.objects.get(tag)
        if value is None:
            return Response(SW.NOT_FOUND)
        if tag in NEEDS_PIN and not self.pins.satisfied:
            return Response(SW.SECURITY_STATUS)
        return Response(SW.OK, value)

    def _authenticate(self, command: Command, fresh: bool) -> Response:
        """GENERAL AUTHENTICATE, part 2 clause 3.2.4: internal authentication and key agreement."""
        key = self._keys.get(Slot(command.p2)) if command.p2 in set(Slot) else None
        if key is None or key.identifier != command.p1:
            return Response(SW.WRONG_P1P2)
        if not self._may_use(Slot(command.p2), fresh):
            return Response(SW.SECURITY_STATUS)
        try:
            answer = _use(key, command.data)
        except ValueError:
            return Response(SW.WRONG_DATA)
        return Response(SW.OK, tlv(_TEMPLATE, tlv(_ANSWER, answer)))

    def _may_use(self, slot: Slot, fresh: bool) -> bool:
        match slot:
            case Slot.CARD_AUTHENTICATION:
                return True
            case Slot.SIGNATURE:
                return self.pins.satisfied and fresh
        return self.pins.satisfied


def _use(key: Key, data: bytes) -> bytes:
    """7C { 82 (empty: asked for), 81 challenge | 85 point }; ValueError for anything else."""
    ((template, content),) = walk(data)
    fields = dict(walk(content))
    if template != _TEMPLATE or fields.get(_ANSWER) != b"":
        raise ValueError("dynamic authentication template expected, with an empty response")
    if _CHALLENGE in fields:
        return key.challenge(fields[_CHALLENGE])
    if _POINT in fields:
        return key.agree(fields[_POINT])
    raise ValueError("no challenge and no point")


def _data_objects(options: CardOptions, identity: Identity) -> dict[int, bytes]:
    made: dict[int, bytes] = {Tag.CCC: objects.capability_container(identity.guid)}
    if options.chuid:
        made[Tag.CHUID] = objects.chuid(identity.guid, identity.expires.date())
    if options.discovery:
        made[Tag.DISCOVERY] = objects.discovery(options.pin_policy)
    for slot, der in identity.certificates.items():
        made[CERTIFICATE_TAG[slot]] = objects.certificate(der, compressed=options.compressed)
    merged: dict[int, bytes | None] = {**made, **options.objects}
    return {tag: value for tag, value in merged.items() if value is not None}

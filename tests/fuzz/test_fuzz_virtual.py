"""The developer's card, which is shown whatever a reader, a test or a person sends it."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from cardsession.virtual import apdu, tlv
from cardsession.virtual.control import ControlServer
from fakes.cards import CANARY, WRONG
from fuzz.cases import fuzz
from fuzz.hostile import KINDS, make
from fuzz.mutations import SOME, TREES, Edit, changed, mutants, noise

TRUE = [
    bytes.fromhex(each) for each in
    ["00A404000BA000000308000010000100", "00CB3FFF055C035FC10500", "0020008008", "0020FF80",
     "0087119A26" + "7C2482008120" + "00" * 32 + "00", "00A4040C0CA000000063504B43532D3135",
     "00A4080C0450154401", "00B00000F0", "00B2010400", "002C008010" + "3132333435363738" * 2,
     "0024008010" + CANARY.encode().hex() + WRONG.encode().hex(), "002A9E9A04AABBCCDD00",
     "00220141B606800102840101", "1087119A05AABBCCDDEE", "00C0000000", "00B000000003E8",
     "00200080" + "08" + WRONG.encode().hex(), "00CA006E00"]
]  # fmt: skip


@fuzz(700, mutants(*TRUE) | noise(30))
def test_command(raw: bytes) -> None:
    with suppress(apdu.Malformed):
        found = apdu.parse(raw)
        assert 0 <= found.ne <= 65_536
        assert len(found.data) < len(raw)


@fuzz(500, TREES, SOME | st.just([]))
def test_objects_of_the_virtual_card(tree: bytes, edits: list[Edit]) -> None:
    with suppress(ValueError):
        for tag, value in tlv.walk(changed(tree, edits)):
            assert next(iter(tlv.walk(tlv.tlv(tag, value)))) == (tag, value)


@fuzz(600, KINDS, st.lists(mutants(*TRUE) | noise(12), min_size=1, max_size=12))
def test_any_command(kind: tuple[str, int], commands: list[bytes]) -> None:
    """It answers each with a status word, and counts what it was asked."""
    card = make(kind)
    for raw in commands:
        answer = card.process(raw)
        assert 2 <= len(answer) <= 65_538
    assert card.book.wrong() <= len(commands)
    json.dumps(card.book.as_dict())
    json.dumps(card.pins.as_dict())
    card.reset()
    assert not card.pins.satisfied


class _Seat:
    """A seat with nobody at it: what is not refused before is done by nobody."""

    async def run(self, request: dict[str, Any]) -> dict[str, object]:
        return {"got": sorted(map(str, request))}


LINES = mutants(
    b'{"command": "status"}', b'{"command": "set-tries", "left": 1}',
    b'{"a": [1, 2, {"b": 1e999}]}',
    b"[" * 3000, b'{"a":' * 2000, b"9" * 5000,
)  # fmt: skip


@fuzz(300, LINES | noise(60))
def test_control_line(line: bytes) -> None:
    """One answer for each, good or not."""
    server = ControlServer(Path("none"), _Seat())  # type: ignore[arg-type]
    answer = asyncio.run(server._answer(line))
    assert isinstance(answer["ok"], bool)
    json.dumps(answer)

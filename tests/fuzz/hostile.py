"""Cards that lie: a true card's answers, changed on their way; grammar; noise; and no end to it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any
from unittest import mock

from hypothesis import strategies as st

from cardsession.cards.declaration import Declaration
from cardsession.virtual import card
from cardsession.virtual.card import VirtualCard
from cardsession.virtual.identity import Authority, Identity, personalise
from cardsession.virtual.options import CardOptions, Family, PinPolicy, Secrets, Slot
from cardsession.virtual.pkcs15.options import EmptyVerify, Pkcs15Options
from fakes.cards import CANARY
from fakes.piv import PUK, STRANGE
from fuzz.mutations import SOME, TREES, Edit, changed

GET_RESPONSE = 0xC0
FREE = Declaration(profile="pkcs15", asking_is_free=True, source="the tests' own card")
WORDS = [bytes.fromhex(each) for each in STRANGE if len(each) == 4] + [
    bytes.fromhex(each) for each in
    ["9000", "63C0", "63C1", "63C3", "63CF", "6300", "6282", "6283", "6983", "6984", "6985", "6A80",
     "6A82", "6A86", "6A88", "6B00", "6881", "6981", "62C1", "62C7", "61FF", "6CFF", "0000"]
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Lie:
    """What becomes of one answer. `endless`: the rest of it, which never ends."""

    edits: tuple[Edit, ...] = ()
    word: bytes | None = None
    instead: bytes | None = None
    again: bool = False
    """The answer before this one, once more."""
    endless: bytes | None = None

    def tell(self, answer: bytes, before: bytes) -> bytes:
        """The answer as it arrives."""
        if self.instead is not None:
            return self.instead
        if self.again:
            return before
        data, word = answer[:-2], answer[-2:]
        if self.endless is not None:
            return data + b"\x61\xff"
        return changed(data, list(self.edits)) + (word if self.word is None else self.word)


LIES: st.SearchStrategy[Lie] = st.one_of(
    st.builds(Lie, edits=SOME.map(tuple)),
    st.builds(Lie, edits=SOME.map(tuple)),
    st.builds(Lie, word=st.sampled_from(WORDS) | st.binary(min_size=2, max_size=2)),
    st.builds(Lie, edits=SOME.map(tuple), word=st.sampled_from(WORDS)),
    st.builds(Lie, instead=st.binary(max_size=40) | st.sampled_from(WORDS)),
    st.builds(Lie, instead=TREES.map(lambda tree: tree[:400] + b"\x90\x00")),
    st.builds(Lie, again=st.just(True)),
    st.builds(Lie, endless=st.binary(max_size=3) | st.just(bytes(256))),
)


@dataclass(frozen=True, slots=True)
class Plan:
    """At which answers it lies; `period`: and so again, after so many."""

    lies: dict[int, Lie]
    period: int

    def at(self, number: int) -> Lie | None:
        """What becomes of that answer."""
        return self.lies.get(number % self.period if self.period else number)


PLANS = st.builds(
    Plan,
    st.dictionaries(st.integers(0, 12) | st.integers(0, 80), LIES, min_size=1, max_size=6),
    st.sampled_from([0, 0, 0, 1, 2, 7, 31]),
)


class Hostile:
    """A card before which somebody sits."""

    def __init__(self, honest: VirtualCard | Any, plan: Plan) -> None:
        self.honest, self.plan = honest, plan
        self.said = -1
        self.before = b"\x90\x00"
        self.endless: bytes | None = None

    def process(self, raw: bytes) -> bytes:
        """An answer, true or not."""
        if len(raw) > 1 and raw[1] == GET_RESPONSE and self.endless is not None:
            return self.endless + b"\x61\xff"
        self.said += 1
        lie = self.plan.at(self.said)
        self.endless = lie.endless if lie else None
        answer = self.honest.process(raw)
        told = lie.tell(answer, self.before) if lie else answer
        self.before = told
        return told

    def reset(self) -> None:
        """Power goes."""
        self.endless = None
        self.honest.reset()


_SLOTS = (Slot.AUTHENTICATION, Slot.SIGNATURE)
_PIV: tuple[dict[str, Any], ...] = (
    {},
    {"pin_policy": PinPolicy.GLOBAL_TOO, "slots": tuple(Slot)},
    {"chuid": False, "discovery": False},
    {"deauthentication": False, "slots": _SLOTS, "tries": 1},
    {"pin_policy": PinPolicy.GLOBAL_PRIMARY},
)
_PKCS15 = (
    Pkcs15Options(),
    Pkcs15Options(empty_verify=EmptyVerify.COSTS, signature_pin=True),
    Pkcs15Options(puk=True, ef_dir=False, dir_records=False),
    Pkcs15Options(odf_records=True, object_records=True, direct_objects=True),
)
COUNTS_QUESTIONS = ("pkcs15", 1)
KINDS = st.sampled_from([*(("piv", at) for at in range(len(_PIV))),
                         *(("pkcs15", at) for at in range(len(_PKCS15)))])  # fmt: skip


_SECRETS = Secrets(pin=CANARY, puk=PUK, signature_pin=CANARY, global_pin=CANARY)


@cache
def _authority() -> Authority:
    return Authority.make()


@cache
def _identity(kind: tuple[str, int]) -> Identity:
    return personalise(_options(kind), _authority())


def _options(kind: tuple[str, int]) -> CardOptions:
    family, at = kind
    if family == "piv":
        return CardOptions(**{"slots": _SLOTS, "guid": bytes([0xA0 + at]) * 16} | _PIV[at])
    pkcs15 = replace(_PKCS15[at], serial=bytes([0xB0 + at]) * 8)
    return CardOptions(family=Family.PKCS15, pkcs15=pkcs15, slots=_SLOTS)


def make(kind: tuple[str, int]) -> VirtualCard:
    """A card that tells the truth; one of a kind has the same keys each time, for a case must be
    the same when it is tried again."""
    with mock.patch.object(card, "personalise", return_value=_identity(kind)):
        return VirtualCard(_options(kind), _SECRETS, _authority())

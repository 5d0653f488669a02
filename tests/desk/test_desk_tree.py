"""The object tree: which signals leave, when, and in which order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardsession.bus import contract
from cardsession.bus.tree import Tree
from cardsession.bus.values import describe, path_of, pin_state
from cardsession.core.facts import (
    CardFacts,
    Certificate,
    EndReason,
    PinFacts,
    ReaderFacts,
    Remedy,
    Revocation,
    SessionFacts,
    Standing,
    Trust,
)
from cardsession.core.tries import (
    Blocked,
    Known,
    NoSuchPin,
    NotSet,
    PinStatus,
    Source,
    Unknown,
    Verified,
)

READER = ReaderFacts("Fake Reader 00 00", "Fake Reader 00 00")
CARD = CardFacts(1, READER.id, b"\x3b\x00", 5, 6)
SESSION = SessionFacts(1, 1, READER.id, ":1.7", 1000, "dispensing", "", 7, 8)


class Bus:
    """A tree whose signals are a list; `turn` is the end of a turn of the loop."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, tuple[Any, ...]]] = []
        self._later: list[Callable[[], None]] = []
        self.tree = Tree(self._emit, self._later.append)

    def _emit(self, path: str, _: str, member: str, signature: str, body: tuple[Any, ...]) -> None:
        assert len(contract_types(signature)) == len(body)
        self.sent.append((member, path, body))

    def turn(self) -> None:
        """Whatever was to happen later happens."""
        while self._later:
            self._later.pop(0)()

    def put(self, facts: ReaderFacts | CardFacts | SessionFacts) -> None:
        """As the service shows facts."""
        interface, values = describe(facts)
        self.tree.put(path_of(facts), interface, values)

    def remove(self, facts: ReaderFacts | CardFacts | SessionFacts) -> None:
        """As the service withdraws them."""
        self.tree.remove(path_of(facts))

    @property
    def members(self) -> list[str]:
        """The signals' names."""
        return [member for member, _, _ in self.sent]


def contract_types(signature: str) -> list[str]:
    """A signal's arguments, as far as this test's signals need it."""
    return {
        "sa{sv}as": ["s", "a{sv}", "as"],
        "oa{sa{sv}}": ["o", "a"],
        "oas": ["o", "as"],
        "sa{sv}": ["s", "a{sv}"],
        "oo": ["o", "o"],
        "oos": ["o", "o", "s"],
    }[signature]


@pytest.fixture
def bus() -> Bus:
    """A tree that is open."""
    made = Bus()
    made.tree.open()
    return made


def ended(bus: Bus, reason: str) -> None:
    """The farewell of a session."""
    body = (reason, {})
    bus.tree.signal(path_of(SESSION), contract.SESSION, "Ended", body, farewell=True)


def test_nothing_that_happened_before_the_name_was_ours_ever_leaves() -> None:
    bus = Bus()
    bus.put(READER)
    bus.put(CARD)
    bus.put(replace(READER, card=1))
    bus.turn()
    bus.tree.flush()
    bus.tree.flush_before_reply()
    assert bus.sent == []
    bus.tree.open()
    bus.turn()
    bus.tree.flush()
    assert bus.sent == []
    assert set(bus.tree.managed()) == {path_of(READER), path_of(CARD)}, "they are listed"
    bus.put(replace(READER, insert_count=2))
    bus.turn()
    assert bus.members == ["PropertiesChanged"]


def test_an_object_is_announced_once_with_its_latest_values(bus: Bus) -> None:
    bus.put(CARD)
    bus.put(replace(CARD, profile="piv"))
    bus.put(replace(CARD, profile="piv", serial="AB"))
    bus.turn()
    ((member, path, (about, interfaces)),) = bus.sent
    assert (member, path, about) == ("InterfacesAdded", contract.ROOT, path_of(CARD))
    assert interfaces[contract.CARD]["Profile"].value == "piv"
    assert interfaces[contract.CARD]["Serial"].value == "AB"
    assert {name for name in interfaces if name.startswith("org.freedesktop")} == set(
        contract.STANDARD
    )


def test_changes_of_one_object_are_one_signal_with_the_latest(bus: Bus) -> None:
    bus.put(CARD)
    bus.turn()
    bus.sent.clear()
    for left in (3, 2, 1):
        bus.put(replace(CARD, pins=PinFacts({"user": Known(left)}, Source.CARD, left)))
    bus.turn()
    ((member, path, (interface, changed, invalidated)),) = bus.sent
    assert (member, path, interface) == ("PropertiesChanged", path_of(CARD), contract.CARD)
    assert changed["PinTries"].value == {"user": 1}
    assert set(changed) == {"PinTries", "PinState", "PinTriesSource", "PinTriesReadUSec"}
    assert invalidated == []


def test_what_did_not_change_or_is_not_told_is_no_signal(bus: Bus) -> None:
    bus.put(SESSION)
    bus.turn()
    bus.sent.clear()
    bus.put(SESSION)
    bus.put(replace(SESSION, exchange_count=9, last_activity_monotonic_usec=9))
    bus.turn()
    assert bus.sent == [], "EmitsChangedSignal false"
    values = bus.tree.properties(path_of(SESSION), contract.SESSION)
    assert values is not None
    assert values["ExchangeCount"].value == 9, "and yet it is there for who asks"


def test_an_object_is_announced_before_anything_is_said_of_it(bus: Bus) -> None:
    bus.put(READER)
    bus.turn()
    bus.sent.clear()
    bus.put(replace(READER, card=1))
    bus.put(CARD)
    bus.put(replace(CARD, profile="piv"))
    body = (path_of(CARD), path_of(READER))
    bus.tree.signal(contract.ROOT, contract.MANAGER, "CardReady", body, farewell=False)
    bus.put(replace(CARD, profile="piv", serial="AB"))
    bus.turn()
    assert bus.members == ["PropertiesChanged", "InterfacesAdded", "CardReady"]


def test_one_that_came_and_went_in_one_turn_is_told_of_once(bus: Bus) -> None:
    bus.put(CARD)
    bus.put(replace(CARD, profile="piv"))
    bus.remove(CARD)
    bus.turn()
    assert bus.members == ["InterfacesAdded", "InterfacesRemoved"]
    assert bus.sent[0][2][1][contract.CARD]["Profile"].value == "piv"
    assert bus.tree.interfaces(path_of(CARD)) == []
    bus.remove(CARD)
    bus.turn()
    assert len(bus.sent) == 2


def test_nothing_is_said_of_an_object_after_it_went(bus: Bus) -> None:
    bus.put(CARD)
    bus.turn()
    bus.sent.clear()
    bus.put(replace(CARD, profile="piv"))
    bus.remove(CARD)
    bus.turn()
    assert bus.members == ["PropertiesChanged", "InterfacesRemoved"], "each in its place"
    path, interfaces = bus.sent[1][2]
    assert path == path_of(CARD)
    assert set(interfaces) == {contract.CARD, *contract.STANDARD}


def test_a_reader_that_comes_back_under_its_path_is_announced_anew(bus: Bus) -> None:
    bus.put(READER)
    bus.turn()
    bus.sent.clear()
    bus.remove(READER)
    bus.put(replace(READER, insert_count=7))
    bus.turn()
    assert bus.members == ["InterfacesRemoved", "InterfacesAdded"]


def test_before_a_reply_everything_leaves_up_to_a_farewell(bus: Bus) -> None:
    bus.put(CARD)
    bus.put(SESSION)
    bus.turn()
    bus.sent.clear()
    bus.put(replace(CARD, pins=PinFacts({"user": Blocked()}, Source.LAST_VERIFY, 1)))
    ended(bus, "pin-blocked")
    bus.remove(SESSION)
    bus.tree.flush_before_reply()
    assert bus.members == ["PropertiesChanged"]
    bus.sent.append(("reply", "", ()))
    bus.turn()
    assert bus.members == ["PropertiesChanged", "reply", "Ended", "InterfacesRemoved"]


def test_a_farewell_without_a_reply_leaves_all_the_same(bus: Bus) -> None:
    bus.put(SESSION)
    bus.turn()
    bus.sent.clear()
    ended(bus, "owner-vanished")
    bus.remove(SESSION)
    bus.turn()
    assert bus.members == ["Ended", "InterfacesRemoved"]
    bus.put(CARD)
    bus.turn()
    assert bus.members[-1] == "InterfacesAdded", "and the next turn is scheduled again"


async def test_whoever_was_woken_in_the_same_turn_replies_before_the_farewell() -> None:
    """As it happens: a change is queued first, the caller is answered next, the end comes last."""
    order: list[str] = []
    loop = asyncio.get_running_loop()

    def emit(_: str, __: str, member: str, *___: Any) -> None:
        order.append(member)

    tree = Tree(emit, loop.call_soon)
    tree.open()
    answer: asyncio.Future[None] = loop.create_future()

    async def caller() -> None:
        await answer
        tree.flush_before_reply()
        order.append("reply")

    interface, values = describe(SESSION)
    tree.put(path_of(SESSION), interface, values)
    task = loop.create_task(caller())
    for _ in range(5):
        await asyncio.sleep(0)
    tree.put(path_of(SESSION), *describe(replace(SESSION, end_reason="card-removed")))
    answer.set_result(None)
    body = ("card-removed", {})
    tree.signal(path_of(SESSION), contract.SESSION, "Ended", body, farewell=True)
    tree.remove(path_of(SESSION))
    await task
    for _ in range(5):
        await asyncio.sleep(0)
    assert order == [
        "InterfacesAdded", "PropertiesChanged", "reply", "Ended", "InterfacesRemoved"
    ]  # fmt: skip


def test_children_and_listing(bus: Bus) -> None:
    bus.put(READER)
    bus.put(CARD)
    assert bus.tree.children("/") == ["org"]
    assert bus.tree.children(contract.ROOT) == ["card", "reader"]
    assert bus.tree.children(contract.CARDS) == ["1"]
    assert bus.tree.children(path_of(CARD)) == []
    assert bus.tree.properties(path_of(CARD), contract.SESSION) is None


# facts as properties

COUNTS: list[tuple[PinStatus, str, int | None]] = [
    (Known(3), "unverified", 3),
    (Known(2), "unverified", 2),
    (Known(1), "last-try", 1),
    (Known(15), "unverified", 15),
    (Blocked(), "blocked", 0),
    (Verified(), "verified", None),
    (Unknown(), "unknown", None),
    (NotSet(), "not-set", None),
    (NoSuchPin(), "unknown", None),
]


@pytest.mark.parametrize(("status", "state", "left"), COUNTS, ids=str)
def test_a_missing_key_is_unknown_and_nought_is_blocked(
    status: PinStatus, state: str, left: int | None
) -> None:
    _, values = describe(replace(CARD, pins=PinFacts({"user": status}, Source.CARD, 1)))
    assert values["PinTries"] == ({} if left is None else {"user": left})
    assert values["PinState"] == {"user": state}
    assert pin_state(status) == state


@pytest.mark.parametrize("facts", [READER, CARD, SESSION], ids=lambda facts: type(facts).__name__)
def test_every_property_of_the_contract_has_a_value_and_no_other(
    facts: ReaderFacts | CardFacts | SessionFacts,
) -> None:
    interface, values = describe(facts)
    assert set(values) == set(contract.interface(interface).properties)


def test_what_is_not_there_is_no_object() -> None:
    assert describe(READER)[1]["Card"] == "/"
    assert describe(replace(READER, card=4))[1]["Card"] == "/org/cardsession1/card/4"
    assert describe(CARD)[1]["Session"] == "/"
    gone = describe(replace(SESSION, end_reason=EndReason.CARD_REMOVED))[1]
    assert (gone["Card"], gone["Reader"]) == ("/", "/")
    closed = describe(replace(SESSION, end_reason=EndReason.CLOSED))[1]
    assert closed["Card"] == "/org/cardsession1/card/1"


def test_a_session_that_waits_for_its_card_has_none() -> None:
    waits = describe(replace(SESSION, card=None))[1]
    assert (waits["Card"], waits["Reader"], waits["EndReason"]) == ("/", "/", "")


def test_what_was_judged_of_a_card() -> None:
    plain = describe(CARD)[1]
    judged = ("Trust", "TrustDetail", "Revocation", "Remedies", "RemedyText")
    assert [plain[name] for name in judged] == ["not-checked", "", "not-checked", [], ""]
    standing = Standing(Trust.REVOKED, "on the list of 3 May", Revocation.REVOKED)
    remedies = (Remedy.RA_IN_PERSON, Remedy.REPLACE_CARD)
    _, values = describe(replace(CARD, standing=standing, remedies=remedies, remedy_text="Go."))
    assert [values[name] for name in judged] == [
        "revoked", "on the list of 3 May", "revoked", ["ra-in-person", "replace-card"], "Go.",
    ]  # fmt: skip


def test_when_a_passcode_was_changed_and_whether_it_is_time() -> None:
    plain = describe(CARD)[1]
    assert (plain["PinChangedUSec"], plain["PinChangeDue"]) == (0, False)
    _, values = describe(replace(CARD, pins=PinFacts(changed_usec=7, change_due=True)))
    assert (values["PinChangedUSec"], values["PinChangeDue"]) == (7, True)


def test_the_most_tries_are_told_where_the_card_does_and_a_byte_holds_them() -> None:
    most = {"user": 3, "signature": 255, "global": 256, "puk": 0, "odd": -1}
    _, values = describe(replace(CARD, pins=PinFacts(most=most)))
    assert values["PinTriesMax"] == {"user": 3, "signature": 255}
    assert describe(CARD)[1]["PinTriesMax"] == {}


def test_what_a_session_proved() -> None:
    plain = describe(SESSION)[1]
    proved = ("PossessionProved", "HolderVerified", "Context")
    assert [plain[name] for name in proved] == [False, False, {}]
    context = {"ods-code": "FA123"}
    facts = replace(SESSION, possession_proved=True, holder_verified=True, context=context)
    shown = describe(facts)[1]
    assert [shown[name] for name in proved] == [True, True, context]
    assert shown["Context"] is not context, "what is shown is a snapshot"


def test_the_holder_is_the_authentication_certificate_s() -> None:
    held = Certificate("authentication", b"", "CN=x", "555012345678", 10, 20)
    other = Certificate("signature", b"", "CN=y", "somebody else", 1, 2)
    _, values = describe(replace(CARD, certificates={"authentication": held, "signature": other}))
    assert (values["HolderId"], values["NotBefore"], values["NotAfter"]) == ("555012345678", 10, 20)
    assert describe(replace(CARD, certificates={"signature": other}))[1]["HolderId"] == ""


@given(st.text(max_size=60))
def test_any_reader_name_makes_a_path_that_the_bus_takes(name: str) -> None:
    path = path_of(ReaderFacts(name, name))
    label = path.removeprefix(contract.READERS + "/")
    assert label
    assert all(each.isascii() and (each.isalnum() or each == "_") for each in label)


@given(st.lists(st.text(max_size=12), unique=True, max_size=12))
def test_two_readers_never_share_a_path(names: list[str]) -> None:
    assert len({path_of(ReaderFacts(name, name)) for name in names}) == len(names)

"""What the story's subscriber believes, and what it does not."""

from __future__ import annotations

import pytest

from cardsession.stack import StackError
from cardsession.stack.follower import CARD, NAME, ROOT, Follower, changed, reply_to
from cardsession.stack.monitor import Message, Monitor, plain

PATH = f"{ROOT}/card/1"


def message(number: int, name: str, *body: object, **fields: object) -> Message:
    """A signal from the daemon, unless told otherwise."""
    interface, _, member = name.rpartition(".")
    given = {
        "time": 0.0,
        "type": "signal",
        "sender": ":1.5",
        "destination": "",
        "path": ROOT,
        "cookie": 0,
        "reply_cookie": 0,
        "error": "",
    } | fields
    return Message(number=number, interface=interface, member=member, body=body, **given)  # type: ignore[arg-type]


OWNED = message(
    0, "org.freedesktop.DBus.NameOwnerChanged", NAME, "", ":1.5", sender="org.freedesktop.DBus"
)
ADDED = message(
    1,
    "org.freedesktop.DBus.ObjectManager.InterfacesAdded",
    PATH,
    {CARD: {"State": "probing", "PinTries": {}}},
)
READY = message(
    2,
    "org.freedesktop.DBus.Properties.PropertiesChanged",
    CARD,
    {"State": "ready"},
    ["PinTries"],
    path=PATH,
)
REMOVED = message(3, "org.freedesktop.DBus.ObjectManager.InterfacesRemoved", PATH, [CARD])


class Told(Monitor):
    """A monitor that has seen what we say."""

    def __init__(self, *messages: Message) -> None:
        self._messages = list(messages)


def follow(*messages: Message) -> Follower:
    """A follower that has taken all of them."""
    follower = Follower(Told(*messages))
    follower.until("the last", lambda m: m is messages[-1], seconds=0)
    return follower


def test_properties_are_folded_in() -> None:
    follower = follow(OWNED, ADDED, READY)
    assert follower.property(PATH, CARD, "State") == "ready"
    assert follower.property(PATH, CARD, "PinTries") is None
    assert follow(OWNED, ADDED, READY, REMOVED).objects == {}


@pytest.mark.parametrize("messages", [(ADDED,), (ADDED, OWNED)])
def test_a_signal_before_the_name_is_owned_is_an_error(messages: tuple[Message, ...]) -> None:
    with pytest.raises(StackError, match="does not own"):
        follow(*messages)


def test_a_stranger_is_not_believed() -> None:
    stranger = message(1, ADDED.name, *ADDED.body, sender=":1.6")
    with pytest.raises(StackError, match=r":1\.6, who does not own"):
        follow(OWNED, stranger)


def test_what_is_passed_over_is_handed_out_once_and_in_order() -> None:
    follower = Follower(Told(OWNED, ADDED, READY, REMOVED))
    found, passed = follower.until("ready", lambda m: m is READY, seconds=0)
    assert (found, passed) == (READY, [OWNED, ADDED])
    with pytest.raises(StackError, match="ready again"):
        follower.until("ready again", lambda m: m is READY, seconds=0)


def test_a_hopeless_wait_says_why() -> None:
    follower = Follower(Told(OWNED), hopeless=lambda: "the tool has ended")
    with pytest.raises(StackError, match=r"it comes \(the tool has ended\)"):
        follower.until("it comes", lambda m: m is ADDED, seconds=0)


def test_a_reply_belongs_to_one_call() -> None:
    question = message(1, "a.b.C", type="method_call", sender=":1.9", cookie=7)
    answer = message(2, ".", type="method_return", destination=":1.9", reply_cookie=7)
    other = message(2, ".", type="method_return", destination=":1.8", reply_cookie=7)
    assert [reply_to(question)(m) for m in (answer, other)] == [True, False]


def test_a_change_is_told_apart() -> None:
    assert changed(READY, PATH, CARD, "State") == "ready"
    assert changed(READY, f"{ROOT}/card/2", CARD, "State") is None
    assert changed(ADDED, PATH, CARD, "State") is None


def test_variants_are_taken_off() -> None:
    assert plain({"a": {"type": "v", "data": {"type": "ay", "data": [1]}}}) == {"a": [1]}

"""The client's records hold what the contract has, its words as members of their sets."""

from __future__ import annotations

import re
from dataclasses import fields
from importlib import resources

import pytest

from cardsession.bus import contract
from cardsession.bus.connection import Variant
from cardsession.client import CardInfo, words
from cardsession.client.records import KINDS, field_name, values

WORDS = {
    contract.MANAGER: {
        "backend": "Backend", "hotplug": "Hotplug", "removal_policy": "RemovalPolicy",
    },
    contract.READER: {"state": "ReaderState"},
    contract.CARD: {
        "state": "CardState", "trust": "Trust", "revocation": "Revocation",
        "remedies": "tuple[Remedy, ...]", "pin_state": "Mapping[str, PinState]",
        "pin_tries_source": "TriesSource",
    },
    contract.SESSION: {"state": "SessionState"},
}  # fmt: skip


@pytest.mark.parametrize("interface", sorted(KINDS))
def test_records_have_the_contracts_properties(interface: str) -> None:
    properties = contract.interface(interface).properties
    found = {each.name: each.type for each in fields(KINDS[interface])}
    types = {
        "s": "str", "o": "str", "b": "bool", "ay": "bytes", "as": "tuple[str, ...]",
        "a{sy}": "Mapping[str, int]", "a{ss}": "Mapping[str, str]",
    }  # fmt: skip
    expected = {
        field_name(name): types.get(each.signature, "int") for name, each in properties.items()
    }
    assert found == {"path": "str"} | expected | WORDS[interface]


SETS = words.Word.__subclasses__()


def test_every_word_of_the_contract_has_a_place() -> None:
    """The comments of the XML name them; reasons and outcomes are told as they come."""
    listed = {
        (name, member): re.findall(r"`([a-z-]+)`", comment)
        for name in KINDS
        for comment, member in re.findall(
            r"<!--((?:(?!-->).)*)-->\s*<property name=\"(\w+)\"", _xml(name), re.DOTALL
        )
    }
    for interface, known in WORDS.items():
        for field, hint in known.items():
            (kind,) = [each for each in SETS if each.__name__ in re.findall(r"\w+", hint)]
            member = next(
                each
                for each in contract.interface(interface).properties
                if field_name(each) == field
            )
            assert {*listed[interface, member]} - {"unknown"} == {*kind} - {"", "unknown"}, (
                interface,
                member,
            )


def _xml(interface: str) -> str:
    folder = resources.files(contract.__package__).joinpath("xml")
    return folder.joinpath(f"{interface}.xml").read_text("utf-8")


@pytest.mark.parametrize("kind", SETS, ids=lambda kind: kind.__name__)
def test_a_word_of_next_year_is_unknown(kind: type[words.Word]) -> None:
    assert kind("a-word-of-next-year") is kind["UNKNOWN"]
    assert kind("") is kind.__members__.get("NOT_TOLD", kind["UNKNOWN"])
    assert kind("unknown") == "unknown"
    with pytest.raises(ValueError):
        kind(7)


def test_words_are_read_wherever_they_are() -> None:
    read = values(
        CardInfo,
        {
            "Trust": Variant("s", "revoked"),
            "Revocation": Variant("s", "half-revoked"),
            "Remedies": Variant("as", ["renew", "pray", "unblock"]),
            "PinState": Variant("a{ss}", {"user": "last-try", "puk": "melted"}),
            "PinTriesMax": Variant("a{sy}", {"user": 3}),
        },
    )
    assert CardInfo("/card", **read) == CardInfo(
        "/card",
        trust=words.Trust.REVOKED,
        revocation=words.Revocation.UNKNOWN,
        remedies=(words.Remedy.RENEW, words.Remedy.UNKNOWN, words.Remedy.UNBLOCK),
        pin_state={"user": words.PinState.LAST_TRY, "puk": words.PinState.UNKNOWN},
        pin_tries_max={"user": 3},
    )
    assert {type(each) for each in read["remedies"]} == {words.Remedy}

"""What is declared of certain cards, whom it concerns, and how a card finds its family."""

from __future__ import annotations

import re
from typing import Any

import pytest

from cardsession.cards import families, recognise
from cardsession.cards.declaration import Declaration, Sighting, applies, matching
from cardsession.cards.declared import BUILT_IN
from cardsession.cards.pkcs15 import Pkcs15
from cardsession.cards.pkcs15.capabilities import historical_bytes, software_functions
from cardsession.cards.profile import Probe
from cardsession.core.tries import Known, Unknown
from fakes.cards import make_card
from fakes.channel import Pump
from fakes.pkcs15 import FakeCard, standard_card
from fakes.pkcs15_files import AID, APP, ATR, dir_entry, standard_files, tlv, token_entry

SEEN = Sighting(
    atr=bytes.fromhex("3B9F00"), aids=(AID,), manufacturer="Maker", label="Token",
    serial="12AB34", profile="pkcs15",
)  # fmt: skip
ISO_APPLET = bytes.fromhex("F276A288BCFBA69D34F31001")


def saying(**criteria: Any) -> Declaration:
    return Declaration(source="a test", **criteria)


@pytest.mark.parametrize(
    ("criteria", "met"),
    [
        ({}, False),
        ({"atr": SEEN.atr}, True),
        ({"atr": bytes.fromhex("3B9F01")}, False),
        ({"atr": bytes.fromhex("3B9F0000")}, False),
        ({"atr": bytes.fromhex("3B90FF"), "atr_mask": bytes.fromhex("FFF000")}, True),
        ({"atr": bytes.fromhex("3B80FF"), "atr_mask": bytes.fromhex("FFF000")}, False),
        ({"aid": AID}, True),
        ({"aid": AID[:5]}, True),
        ({"aid": AID + b"\x01"}, False),
        ({"manufacturer": "Maker"}, True),
        ({"manufacturer": "Make"}, False),
        ({"label": "Token"}, True),
        ({"label": "token"}, False),
        ({"serial_prefix": "12ab"}, True),
        ({"serial_prefix": "2ab3"}, False),
        ({"profile": "pkcs15"}, True),
        ({"profile": "piv"}, False),
        ({"profile": "pkcs15", "manufacturer": "Maker", "serial_prefix": "12"}, True),
        ({"profile": "pkcs15", "manufacturer": "Maker", "serial_prefix": "13"}, False),
    ],
)
def test_every_criterion_that_is_given_must_be_met(criteria: dict[str, Any], *, met: bool) -> None:
    assert applies(saying(**criteria), SEEN) is met


def test_of_each_fact_the_first_that_says_it_wins() -> None:
    first = saying(profile="pkcs15", series="8", labels={"PIN": "user"}, mechanisms={"ecdsa": 1})
    second = saying(
        profile="pkcs15", series="9", nhs=False, asking_is_free=True, application=AID,
        labels={"PIN": "global", "02": "signature"},
    )  # fmt: skip
    third = saying(profile="pkcs15", nhs=True, asking_is_free=False, read_as="pkcs15")
    other = saying(profile="piv", series="7", nhs=True)
    found = matching((other, first, second, third), SEEN)
    assert (found.series, found.nhs, found.asking_is_free) == ("8", False, True)
    assert (found.read_as, found.application) == ("pkcs15", AID)
    assert found.labels == {"PIN": "user", "02": "signature"}
    assert found.mechanisms == {"ecdsa": 1}


@pytest.mark.parametrize(
    "wrong",
    [
        {"source": ""},
        {"source": "x", "atr": b"\x3b\x00", "atr_mask": b"\xff"},
        {"source": "x", "atr_mask": b"\xff"},
        {"source": "x", "read_as": "openpgp"},
    ],
)
def test_a_declaration_that_makes_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Declaration(**wrong)


def test_what_comes_with_the_project_is_sourced_and_claims_no_nhs_card() -> None:
    retired = [
        bytes.fromhex("3B6A00FF4A434F50343156323231"),
        bytes.fromhex("3BF91800008131FE454A434F503431563232AF"),
    ]
    for each in BUILT_IN:
        assert re.search(r"github\.com/\w+/\w+", each.source) and ".c" in each.source + ".c"
        assert (each.series, each.nhs, each.read_as) == ("", None, "")
        assert each.atr not in retired
    for atr in retired:
        assert matching(BUILT_IN, Sighting(atr=atr)).nhs is None


def recognised(chip: Any, *declarations: Declaration, atr: bytes = ATR) -> tuple[Any, Probe, Pump]:
    pump = Pump(chip)
    family, probe = pump.hold(recognise(families(declarations), atr))
    return family and family.name, probe, pump


def test_each_card_finds_its_family() -> None:
    name, probe, pump = recognised(make_card())
    assert (name, probe.profile) == ("piv", "piv")
    assert pump.apdus[0][:5] == bytes.fromhex("00A4040009")
    name, probe, pump = recognised(standard_card())
    assert (name, probe.profile) == ("pkcs15", "pkcs15")
    assert pump.apdus[0][:5] == bytes.fromhex("00A4040009"), "PIV is asked for first"


@pytest.mark.parametrize("refusal", ["6A82", "6D00", "6E00", "6A86", "6700", "6999"])
def test_a_card_of_nobody_s_is_asked_for_applications_only(refusal: str) -> None:
    class Stubborn:
        def process(self, raw: bytes) -> bytes:
            del raw
            return bytes.fromhex(refusal)

        def reset(self) -> None:
            raise AssertionError("it is left alone")

    name, probe, pump = recognised(Stubborn())
    assert (name, probe.profile) == (None, "unknown")
    assert {apdu[1] for apdu in pump.apdus} == {0xA4}
    assert len(pump.apdus) <= 10


@pytest.mark.parametrize(
    ("read_as", "name"), [("unknown", None), ("piv", None), ("pkcs15", "pkcs15"), ("", "pkcs15")]
)
def test_a_declaration_may_choose_the_family(read_as: str, name: str | None) -> None:
    says = saying(atr=ATR, read_as=read_as, series="x")
    found, _, pump = recognised(standard_card(), says)
    assert found == name
    if read_as == "unknown":
        assert pump.apdus == []
    if read_as == "pkcs15":
        assert pump.apdus[0][:4] == bytes.fromhex("00A40000")


@pytest.mark.parametrize("chip", [make_card, standard_card])
def test_series_and_nhs_are_the_site_s_to_say(chip: Any) -> None:
    _, probe, _ = recognised(chip())
    assert (probe.series, probe.nhs) == ("", False)
    says = saying(atr=ATR, series="10", nhs=True)
    _, probe, _ = recognised(chip(), says)
    assert (probe.series, probe.nhs) == ("10", True)


def test_a_series_by_serial_number() -> None:
    card = make_card()
    guid = card.identity.guid.hex()
    _, probe, _ = recognised(card, saying(serial_prefix=guid[:6], series="9"))
    assert probe.series == "9"
    _, probe, _ = recognised(standard_card(), saying(serial_prefix="1234", series="8"))
    assert probe.series == "8"


def test_the_site_s_declarations_come_before_ours() -> None:
    files = {APP + "5032": token_entry(manufacturer="Aventra Ltd.")}
    _, probe, _ = recognised(standard_card(files=files))
    assert probe.tries == {"user": Known(3)}, "MyEID: asking is free"
    never = saying(manufacturer="Aventra Ltd.", asking_is_free=False)
    _, probe, pump = recognised(standard_card(files=files), never)
    assert probe.tries == {"user": Unknown()}
    assert 0x20 not in {apdu[1] for apdu in pump.apdus}


def applet(aid: bytes) -> FakeCard:
    """An applet that only its name leads to, with a file system of its own."""

    class Applet(FakeCard):
        selected = False

        def process(self, raw: bytes) -> bytes:
            if raw[1:3] == b"\xa4\x04":
                self.selected = self.selected or aid.startswith(raw[5 : 5 + raw[4]])
                return b"\x90\x00" if aid.startswith(raw[5 : 5 + raw[4]]) else b"\x6a\x82"
            return super().process(raw) if self.selected else b"\x6a\x86"

        def reset(self) -> None:
            super().reset()
            self.selected = False

    made = standard_card()
    return Applet(made.files, made.pins, made.keys)


def test_an_applet_with_files_of_its_own() -> None:
    card = applet(ISO_APPLET)
    name, probe, pump = recognised(card)
    assert (name, probe.tries) == ("pkcs15", {"user": Known(3)})
    assert len(pump.apdus) < 30
    again = Pump(card)
    assert again.hold(Pkcs15().question(probe)) == {"user": Known(3)}
    assert [apdu for apdu in again.apdus if apdu[1:3] == b"\xa4\x04"], "reset: its name again"


def test_an_application_that_a_declaration_names() -> None:
    aid = bytes.fromhex("D2760001240102")
    assert recognised(applet(aid))[0] is None
    assert recognised(applet(aid), saying(atr=ATR, application=aid))[0] == "pkcs15"
    assert recognised(applet(aid), saying(aid=aid[:5]))[0] == "pkcs15"


def test_an_application_of_ef_dir_that_a_declaration_names() -> None:
    aid = bytes.fromhex("D2760001240102")
    where = "3F004100"
    files = {name.replace(APP, where): value for name, value in standard_files().items()}
    files |= {name: value.replace(bytes.fromhex(APP), bytes.fromhex(where))
              for name, value in files.items()}  # fmt: skip
    files["3F002F00"] = dir_entry(where, aid)
    card = standard_card()
    card.files = files
    assert recognised(card)[0] is None
    assert recognised(card, saying(aid=aid))[0] == "pkcs15"


@pytest.mark.parametrize(
    ("atr", "historical", "functions"),
    [
        ("", "", 0),
        ("3B", "", 0),
        ("3B00", "", 0),
        ("3B6A00FF4A434F50343156323231", "4A434F50343156323231", 0),
        ("3BF91800008131FE454A434F503431563232AF", "4A434F503431563232", 0),
        ("3B058073000040", "8073000040", 0x40),
        ("3B9F968131FE4500", "00", 0),
        ("3BF5", "", 0),
        ("3BFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF", None, 0),
    ],
)
def test_historical_bytes(atr: str, historical: str | None, functions: int) -> None:
    found = historical_bytes(bytes.fromhex(atr))
    assert historical is None or found.hex().upper() == historical
    assert software_functions(bytes.fromhex(atr)) == functions


def test_lengths_by_ef_atr() -> None:
    atr = bytes.fromhex("3B058073000060")
    lengths = tlv(0x02, b"\x08\x00"), tlv(0x02, b"\x04\x02")
    files = {"3F002F01": b"\x7f\x66\x08" + b"".join(lengths)}
    _, probe, _ = recognised(standard_card(files=files), atr=atr)
    assert (probe.layout.manner.extended, probe.layout.manner.longest) == (True, 1024)
    _, probe, _ = recognised(standard_card(), atr=atr)
    assert (probe.layout.manner.extended, probe.layout.manner.longest) == (False, 256)

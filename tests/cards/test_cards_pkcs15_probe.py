"""What a probe of a PKCS#15 card finds, wherever and however the card keeps it."""

from __future__ import annotations

from typing import Any

import pytest

from cardsession.cards.declaration import Declaration
from cardsession.cards.pkcs15 import NAME, Pkcs15
from cardsession.cards.profile import Probe
from cardsession.core.tries import Blocked, Known, NotSet, Unknown, Verified
from fakes.channel import Pump
from fakes.pkcs15 import CardPin, FakeCard, standard_card
from fakes.pkcs15_files import (
    AID,
    APP,
    ATR,
    CANARY_PIN,
    COMMITS,
    DECRYPT,
    INITIALIZED,
    LOCAL,
    OFFICER,
    PADDED,
    SIGN,
    UNBLOCKING,
    UNWRAP,
    certificate,
    certificate_entry,
    dir_entry,
    key_entry,
    octets,
    odf,
    path,
    pin_entry,
    seq,
    standard_files,
    text,
    tlv,
    token_entry,
)

FREE = Declaration(profile=NAME, asking_is_free=True, source="the tests' own card")


def probed(card: FakeCard, *declarations: Declaration, atr: bytes = ATR) -> tuple[Probe, Pump]:
    """A card that is one of ours."""
    pump = Pump(card)
    probe = pump.hold(Pkcs15(declarations).probe(atr))
    assert probe is not None
    return probe, pump


def labelled(**files: bytes) -> Probe:
    """A probe of the standard card with other directory files: `pins`, `keys`, `certificates`."""
    numbers = {"pins": "4401", "keys": "4402", "certificates": "4403"}
    changed: dict[str, Any] = {APP + numbers[name]: content for name, content in files.items()}
    changed |= {APP + f"430{n}": certificate(number=n) for n in range(2, 6)}
    return probed(standard_card("p256", files=changed))[0]


def test_the_standard_card_and_what_it_costs() -> None:
    probe, pump = probed(standard_card())
    assert probe.profile == "pkcs15"
    assert (probe.serial, probe.identity) == ("12345678", "pkcs15:12345678:Maker")
    assert probe.certificates == {"authentication": certificate("rsa2048")}
    assert set(probe.pins) == {"user"}
    assert probe.tries == {"user": Unknown()}, "nobody declared that asking is free"
    assert {apdu[1] for apdu in pump.apdus} == {0xA4, 0xB0}, "it was not asked"
    assert len(pump.apdus) <= 17


@pytest.mark.parametrize(
    ("left", "status"), [(3, Known(3)), (1, Known(1)), (0, Blocked())], ids=["3", "1", "0"]
)
def test_the_counter_is_asked_for_where_that_is_declared_free(left: int, status: object) -> None:
    card = standard_card(pins={1: CardPin(CANARY_PIN, left)})
    probe, pump = probed(card, FREE)
    assert probe.tries == {"user": status}
    assert [apdu for apdu in pump.apdus if apdu[1] == 0x20] == [bytes.fromhex("00200001")]
    assert card.spent == 0


def test_a_rival_s_verification_shows() -> None:
    probe, _ = probed(standard_card(pins={1: CardPin(CANARY_PIN, verified=True)}), FREE)
    assert probe.tries == {"user": Verified()}


def test_a_pin_that_is_not_initialized_is_not_set_and_not_asked() -> None:
    probe, pump = probed(
        standard_card(files={APP + "4401": pin_entry(flags=(LOCAL, PADDED))}), FREE
    )
    assert probe.tries == {"user": NotSet()}
    assert not [apdu for apdu in pump.apdus if apdu[1] == 0x20]


@pytest.mark.parametrize(
    "options",
    [
        {"control": frozenset({0x00})},
        {"control": frozenset({0x0C})},
        {"by_path": False},
        {"by_steps": False},
        {"by_path": False, "control": frozenset({0x0C}), "tells_size": False},
        {"tells_size": False},
        {"tells_size": False, "past_end": "6282"},
        {"tells_size": False, "past_end": "6A86"},
        {"files": {"3F002F00": [dir_entry()]}},
        {"files": {"3F002F00": [dir_entry("3F007F01", b"\xf0" * 5), dir_entry()]}},
        {"files": {"3F002F00": dir_entry("3F007F01", b"\xf0" * 5) + dir_entry()}},
        {"files": {"3F002F00": dir_entry("")}},
        {"files": {"3F002F00": dir_entry("5015")}},
        {"files": {"3F002F00": dir_entry(aid=bytes.fromhex("E828BD080F01"))}},
        {"files": {"3F002F00": dir_entry() + bytes(300)}},
        {"files": {"3F002F00": b"\x61\x7f\x4f"}},
        {"files": {"3F002F00": b""}},
        {"files": {APP + "4401": [pin_entry()], APP + "4403": [certificate_entry()]}},
        {"files": {APP + "4402": b"\x00" + key_entry() + b"\x00" * 600 + b"\xff" * 300}},
        {"files": {APP + "5031": odf(pins="4401", keys="4402", certificates="4403")}},
        {"files": {APP + "5031": odf(pins="3FFF4401", keys="4402", certificates="4403")}},
        {"files": {APP + "4301": certificate("rsa2048") + bytes(900)}},
        {"files": {APP + "4403": certificate_entry(direct=certificate("rsa2048"))}},
    ],
    ids="-".join,
)  # fmt: skip
def test_cards_that_do_it_their_own_way(options: dict[str, Any]) -> None:
    probe, pump = probed(standard_card(**options), FREE)
    assert probe.certificates == {"authentication": certificate("rsa2048")}
    assert probe.serial == "12345678"
    assert probe.tries == {"user": Known(3)}
    assert len(pump.apdus) < 60


def test_files_that_an_index_and_a_length_cut_out() -> None:
    der = certificate("rsa2048")
    whole = b"\xaa" * 20 + der + b"\xbb" * 40
    entry = certificate_entry(part=(20, len(der)))
    card = standard_card(files={APP + "4301": whole, APP + "4403": entry})
    assert probed(card)[0].certificates == {"authentication": der}


def test_a_certificate_in_a_record() -> None:
    der = certificate("p256")
    entry = certificate_entry(part=(2, len(der)))
    files = {APP + "4301": [b"\x30\x00", der], APP + "4403": entry}
    card = standard_card("p256", files=files)  # type: ignore[arg-type]
    assert probed(card)[0].certificates == {"authentication": der}


def test_a_value_whose_tag_took_the_place_of_its_own() -> None:
    der = certificate("p256")
    inside = der[4:] if der[1] == 0x82 else der[3:]
    card = standard_card("p256", files={APP + "4403": certificate_entry(direct=inside)})
    assert probed(card)[0].certificates == {"authentication": der}


def test_objects_in_the_object_directory_itself() -> None:
    direct = tlv(0xA8, tlv(0xA0, pin_entry(), pin_entry("Second", 2, 2)))
    card = standard_card(
        files={APP + "5031": direct + odf(keys=APP + "4402", certificates=APP + "4403")}
    )
    assert set(probed(card)[0].pins) == {"user", "second"}


def test_an_application_that_only_its_name_leads_to() -> None:
    inside = {name.replace(APP, "3F00"): value for name, value in standard_files().items()}
    inside = {
        name: value.replace(bytes.fromhex(APP), b"\x3f\xff") for name, value in inside.items()
    }
    del inside["3F002F00"]
    files = {"3F00FFFF" + name[4:]: value for name, value in inside.items()}
    files |= {
        "3F00FFFF5031": odf(pins="4401", keys="4402", certificates="4403"),
        "3F00FFFF4402": key_entry(where=""),
        "3F00FFFF4403": certificate_entry(where="4301"),
    }
    card = standard_card()
    card.files, card.names = files, {AID: "3F00FFFF"}
    probe, pump = probed(card, FREE)
    assert probe.certificates == {"authentication": certificate("rsa2048")}
    assert probe.tries == {"user": Known(3)}
    assert len(pump.apdus) < 40


def test_other_places_by_the_application_template() -> None:
    ddo = tlv(0x06, b"\x2a\x03\x04") + path(APP + "6001") + tlv(0xA0, *_parts(path(APP + "6002")))
    files = standard_files()
    files |= {
        "3F002F00": dir_entry(ddo=ddo),
        APP + "6001": files.pop(APP + "5031"),
        APP + "6002": files.pop(APP + "5032"),
    }
    card = standard_card()
    card.files = files
    assert probed(card)[0].serial == "12345678"


def _parts(encoded: bytes) -> list[bytes]:
    return [encoded[2:]]


@pytest.mark.parametrize("serial", [b"", b"\x00" * 8])
def test_without_a_serial_number_the_certificate_tells_cards_apart(serial: bytes) -> None:
    probe, _ = probed(standard_card(files={APP + "5032": token_entry(serial)}))
    assert probe.serial == ""
    assert probe.identity.startswith("sha256:")


@pytest.mark.parametrize(
    "token",
    [b"", b"\x30", b"\x30\x80\x00\x00", seq(), seq(text("x")), b"\xff" * 40, octets(b"x")],
    ids=lambda token: token.hex() or "empty",
)
def test_a_token_info_that_is_none(token: bytes) -> None:
    probe, _ = probed(standard_card(files={APP + "5032": token}))
    assert probe.identity.startswith("sha256:")
    assert probe.certificates


@pytest.mark.parametrize(
    "objects",
    [b"", b"\x00" * 40, b"\xa8\x7f", octets(b"x"), seq(path("3F00")), tlv(0xA9, path("3F00"))],
    ids=lambda objects: objects.hex()[:12] or "empty",
)
def test_a_card_without_an_object_directory_is_none_of_ours(objects: bytes) -> None:
    pump = Pump(standard_card(files={APP + "5031": objects}))
    assert pump.hold(Pkcs15().probe(ATR)) is None


def test_text_of_a_card_is_made_safe() -> None:
    evil = token_entry(manufacturer="A\x00\x1b[2J\u202eB" + "x" * 200)
    probe, _ = probed(standard_card(files={APP + "5032": evil}))
    assert "\x00" not in probe.identity and "\x1b" not in probe.identity
    assert len(probe.identity) < 200


def two_of_everything(**second: Any) -> Probe:
    """Two certificates and keys, the second key guarded by the second PIN."""
    return labelled(
        pins=pin_entry("Login PIN") + pin_entry("Signature PIN", 2, 2),
        keys=key_entry(1, (SIGN, DECRYPT), 1, elliptic=True)
        + key_entry(2, **{"usage": (COMMITS,), "auth_id": 2, "elliptic": True, **second}),
        certificates=certificate_entry(1) + certificate_entry(2, APP + "4302"),
    )


@pytest.mark.parametrize(
    "second", [{}, {"usage": (SIGN, COMMITS)}, {"usage": (SIGN,), "consent": 1}]
)
def test_authentication_and_signature_are_told_apart_by_their_keys(second: dict[str, Any]) -> None:
    probe = two_of_everything(**second)
    family = Pkcs15()
    assert probe.certificates == {"authentication": certificate("p256")}
    assert set(probe.pins) == {"user", "signature"}
    assert (probe.pins["user"].reference, probe.pins["signature"].reference) == (1, 2)
    assert (probe.pins["user"].grants, probe.pins["signature"].grants) == (True, False)
    key = family.key(probe, "signature")
    assert key and (key.pin, key.pin_always) == ("signature", "consent" in second)
    assert family.key(probe, "encryption") is None


def test_the_order_does_not_matter_where_the_keys_say_more() -> None:
    probe = labelled(
        pins=pin_entry("Signature PIN", 2, 2) + pin_entry("Login PIN"),
        keys=key_entry(2, (COMMITS,), 2, auth_id=2) + key_entry(1, (SIGN,), 1),
        certificates=certificate_entry(2, APP + "4302") + certificate_entry(1),
    )
    assert probe.certificates == {"authentication": certificate("p256")}
    assert probe.pins["user"].reference == 1


def slots(probe: Probe) -> list[str]:
    return list(probe.layout.certificates)  # type: ignore[attr-defined]


def test_slots_of_many_certificates() -> None:
    probe = labelled(
        keys=key_entry(3, (DECRYPT, UNWRAP)) + key_entry(1, (SIGN,)) + key_entry(5, (SIGN,)),
        certificates=certificate_entry(4, APP + "4304", label="Root CA", authority=True)
        + certificate_entry(3, APP + "4303", label="Cipher")
        + certificate_entry(1, APP + "4301")
        + certificate_entry(5, APP + "4302", label="Authentication")
        + certificate_entry(6, APP + "4305", label="Ärzte, Ruhr!")
        + certificate_entry(7, APP + "4305", label="")
        + certificate_entry(8, APP + "4305", label=""),
    )
    assert slots(probe) == [
        "authentication", "encryption", "root-ca", "authentication-2", "arzte-ruhr",
        "certificate", "certificate-2",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("labels", "chosen"), [(("One", "Two"), 0), (("Sign", "My authentication"), 1)]
)
def test_without_keys_labels_and_order_decide(labels: tuple[str, str], chosen: int) -> None:
    entries = [certificate_entry(n + 1, APP + f"430{n + 1}", label=labels[n]) for n in range(2)]
    probe = labelled(keys=b"", certificates=b"".join(entries))
    wanted = certificate("p256") if chosen == 0 else certificate(number=2)
    assert probe.certificates == {"authentication": wanted}


def test_a_single_key_for_content_commitment_is_the_holder_s_all_the_same() -> None:
    assert slots(labelled(keys=key_entry(1, (COMMITS,)))) == ["authentication"]


def test_a_key_that_only_deciphers_authenticates_nobody() -> None:
    probe = labelled(keys=key_entry(1, (DECRYPT,)))
    assert (slots(probe), probe.certificates) == (["encryption"], {})


def test_pins_and_what_unblocks_them() -> None:
    probe = labelled(
        pins=pin_entry("Officer", 9, 9, (INITIALIZED, OFFICER))
        + pin_entry("PUK", 8, 8, (INITIALIZED, UNBLOCKING))
        + pin_entry("Other PUK", 7, 7, (INITIALIZED, UNBLOCKING))
        + pin_entry("PIN", 1, 1, guarded_by=8)
        + pin_entry("Same PIN again", 5, 1)
        + pin_entry("Spare", 6, 6)
    )
    assert {label: pin.reference for label, pin in probe.pins.items()} == {
        "user": 1, "puk": 8, "officer": 9, "other-puk": 7, "spare": 6,
    }  # fmt: skip
    assert {label for label, pin in probe.pins.items() if pin.verifiable} == {"user", "spare"}
    assert not any(pin.grants for label, pin in probe.pins.items() if label != "user")


def test_a_declaration_s_labels_come_first() -> None:
    files = {APP + "4401": pin_entry("First") + pin_entry("Second", 2, 0x82)}
    says = Declaration(profile=NAME, labels={"Second": "user", "01": "signature"}, source="x")
    probe, _ = probed(standard_card(files=files), says)
    assert {label: pin.reference for label, pin in probe.pins.items()} == {
        "user": 0x82, "signature": 1,
    }  # fmt: skip


@pytest.mark.parametrize("reference", [0x00, 0x01, 0x81, 0xFF])
def test_references_of_one_byte(reference: int) -> None:
    assert labelled(pins=pin_entry(reference=reference)).pins["user"].reference == reference


@pytest.mark.parametrize("negative", [-128, -127, -1])
def test_references_that_some_cards_encode_as_negative(negative: int) -> None:
    assert labelled(pins=pin_entry(reference=negative)).pins["user"].reference == negative + 256


def test_a_card_that_is_nothing_of_ours_is_asked_little() -> None:
    pump = Pump(FakeCard({}))
    assert pump.hold(Pkcs15().probe(ATR)) is None
    assert {apdu[1] for apdu in pump.apdus} <= {0xA4, 0xB0}
    assert len(pump.apdus) <= 12

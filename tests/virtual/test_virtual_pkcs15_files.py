"""Selecting and reading the files of a PKCS#15 card, and what is in them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from cardsession.virtual.card import VirtualCard
from cardsession.virtual.identity import Authority
from cardsession.virtual.options import Algorithm, Slot
from cardsession.virtual.pkcs15 import der
from cardsession.virtual.pkcs15.options import CertificatePlace, EndOfFile, Paths, SelectAnswer
from cardsession.virtual.tlv import walk

Maker = Callable[..., VirtualCard]
BY_NAME = "00A404000CA000000063504B43532D313500"


def ask(card: VirtualCard, command: str) -> tuple[bytes, int]:
    answer = card.process(bytes.fromhex(command))
    return answer[:-2], int.from_bytes(answer[-2:], "big")


def sw(card: VirtualCard, command: str) -> int:
    """The status word alone: what a SELECT without Le would say waits, and is not fetched."""
    status = ask(card, command)[1]
    return 0x9000 if status & 0xFF00 == 0x6100 else status


def read(card: VirtualCard, path: str) -> bytes:
    """A whole file by its path from the MF, in short portions."""
    where = bytes.fromhex(path)
    assert sw(card, f"00A4080C{len(where):02X}{path}") == 0x9000
    content = b""
    while True:
        part, status = ask(card, f"00B0{len(content):04X}00")
        if status == 0x6B00:
            return content
        if status & 0xFF00 == 0x6C00:
            part, status = ask(card, f"00B0{len(content):04X}{status & 0xFF:02X}")
        assert status in {0x9000, 0x6282}
        content += part
        if len(part) < 256:
            return content


@pytest.fixture
def card15(make_pkcs15: Maker) -> VirtualCard:
    return make_pkcs15()


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (BY_NAME, 0x9000),
        ("00A4040005A000000063", 0x9000),
        ("00A4040004A0000000", 0x6A82),
        ("00A40400", 0x6A82),
        ("00A40000", 0x9000),
        ("00A40000023F00", 0x9000),
        ("00A40000025015", 0x9000),
        ("00A40100025015", 0x9000),
        ("00A40200025015", 0x6A82),
        ("00A40200022F00", 0x9000),
        ("00A40100022F00", 0x6A82),
        ("00A40000025031", 0x6A82),  # not from the MF
        ("00A408000450155031", 0x9000),
        ("00A40800063F0050155031", 0x6A82),  # the MF is not in the path
        ("00A4080003501550", 0x6A82),
        ("00A40900025015", 0x9000),
        ("00A40300", 0x6A82),  # the MF has no parent
        ("00A40500025015", 0x6A86),
        ("00A40010025015", 0x6A86),
    ],
)
def test_files_are_selected_as_the_standard_has_it(
    card15: VirtualCard, command: str, status: int
) -> None:
    assert sw(card15, command) == status


def test_a_refused_select_changes_nothing(card15: VirtualCard) -> None:
    assert sw(card15, "00A408000450155032") == 0x9000
    content = ask(card15, "00B0000000")
    assert sw(card15, "00A40000027777") == 0x6A82
    assert ask(card15, "00B0000000") == content
    assert sw(card15, "00A40000025031") == 0x9000, "its DF is the current one"
    assert sw(card15, "00A40300") == 0x9000
    assert sw(card15, "00B0000000") == 0x6986


def test_control_information_is_what_p2_asks_for(card15: VirtualCard) -> None:
    content = read(card15, "50155031")
    for form, tag in ((0x00, 0x6F), (0x04, 0x62), (0x08, 0x64)):
        ((found, value),) = walk(ask(card15, f"00A408{form:02X}045015503100")[0])
        assert found == tag
        if tag != 0x64:
            fields = dict(walk(value))
            assert fields[0x80] == len(content).to_bytes(2, "big")
            assert (fields[0x82], fields[0x83], fields[0x88]) == (b"\x01", b"\x50\x31", b"\x88")
    assert ask(card15, "00A4080C0450155031") == (b"", 0x9000)
    ((_, value),) = walk(ask(card15, BY_NAME)[0])
    assert dict(walk(value))[0x84] == b"\xa0\0\0\0\x63PKCS-15"


@pytest.mark.parametrize(
    ("answer", "head"),
    [(SelectAnswer.FCI, b"\x6f"), (SelectAnswer.FCP, b"\x62"), (SelectAnswer.NOTHING, b"")],
)
def test_a_card_may_answer_select_in_its_own_way(
    make_pkcs15: Maker, answer: SelectAnswer, head: bytes
) -> None:
    card = make_pkcs15({"select_answer": answer})
    for form in (0x00, 0x04, 0x08):
        assert ask(card, f"00A408{form:02X}045015503100")[0][:1] == head
        assert ask(card, f"00A404{form:02X}05A00000006300")[0][:1] == head


def test_reading_ends_in_one_of_three_ways(make_pkcs15: Maker) -> None:
    size = len(read(make_pkcs15(), "50155032"))
    for way, status in (
        (EndOfFile.SHORT, 0x9000),
        (EndOfFile.WARNING, 0x6282),
        (EndOfFile.EXACT, 0x6C00 | size),
    ):
        card = make_pkcs15({"end_of_file": way})
        assert len(read(card, "50155032")) == size
        assert sw(card, "00B0000000") == status
        assert sw(card, f"00B00000{size:02X}") == 0x9000
        assert sw(card, f"00B0{size:04X}01") == 0x6B00


def test_a_long_file_is_read_short_extended_and_in_portions(make_pkcs15: Maker) -> None:
    card = make_pkcs15(algorithm=Algorithm.RSA2048)
    certificate = card.identity.certificates[Slot.AUTHENTICATION]
    assert read(card, "50154301") == certificate
    assert ask(card, "00B00000000000") == (certificate, 0x9000)
    on = make_pkcs15({"reads_on": True}, algorithm=Algorithm.RSA2048, extended=False)
    certificate = on.identity.certificates[Slot.AUTHENTICATION]
    assert sw(on, "00A4080C0450154301") == 0x9000
    content, status = ask(on, "00B0000000")
    while status & 0xFF00 == 0x6100:
        part, status = ask(on, f"00C00000{status & 0xFF:02X}")
        content += part
    assert (content, status) == (certificate, 0x9000)
    assert sw(on, "00B00000000000") == 0x6700


def test_short_identifiers_and_the_odd_instruction(card15: VirtualCard) -> None:
    information = read(card15, "50155032")
    assert sw(card15, "00B0920000") == 0x9000
    assert ask(card15, "00B0920002")[0] == information[:2]
    assert (
        ask(card15, "00B1000003540102" + "00")[0]
        == b"\x53" + bytes([len(information) - 2]) + information[2:]
    )
    assert sw(card15, "00B09F0000") == 0x6A82
    assert sw(card15, "00B0F20000") == 0x6A86
    assert sw(card15, "00B2010400") == 0x6981


def test_records(make_pkcs15: Maker) -> None:
    plain = make_pkcs15()
    card = make_pkcs15(
        {"dir_records": True, "odf_records": True, "object_records": True}, slots=tuple(Slot)
    )
    assert sw(card, "00A40200022F00") == 0x9000
    assert sw(card, "00B0000000") == 0x6981
    assert ask(card, "00B2010400")[0] == read(plain, "2F00")
    assert sw(card, "00B2020400") == 0x6A83
    assert sw(card, "00B2000400") == 0x6A83
    assert ask(card, "00B2010500")[0] == read(plain, "2F00")
    assert sw(card, "00A40800045015" + "5031") == 0x9000
    whole = b"".join(ask(card, f"00B2{number:02X}0400")[0] for number in (1, 2, 3))
    assert whole == read(plain, "50155031")
    assert ask(card, "00B2018C00")[0] == ask(card, "00B2010400")[0], "0x11: the ODF"


@pytest.mark.parametrize("ins", ["D6", "DC", "E2", "E0", "E4", "D0", "0E"])
def test_nothing_is_written(card15: VirtualCard, ins: str) -> None:
    read(card15, "50155031")
    assert sw(card15, f"00{ins}00000100") == 0x6982


def test_der_is_der() -> None:
    assert der.integer(0x7F).hex() == "02017f"
    assert der.integer(0x80).hex() == "02020080"
    assert der.integer(0).hex() == "020100"
    assert der.named_bits([1, 4, 5]).hex() == "0302024c"
    assert der.named_bits([2, 9]).hex() == "0303062040"
    assert der.named_bits([]).hex() == "030100"
    assert der.oid("1.2.840.113549.1.1.1").hex() == "06092a864886f70d010101"


def _files(card: VirtualCard) -> list[bytes]:
    return [read(card, f"5015{name}") for name in ("5031", "5032", "4401", "4402", "4403")]


@pytest.mark.parametrize("algorithm", [Algorithm.RSA2048, Algorithm.P256, Algorithm.P384])
def test_openssl_finds_der_in_every_file(make_pkcs15: Maker, algorithm: Algorithm) -> None:
    card = make_pkcs15({"signature_pin": True, "field_size": True}, algorithm=algorithm)
    for content in _files(card):
        # In a file the objects stand in a row; openssl wants one.
        whole = der.sequence(content)
        parsed = subprocess.run(
            ["openssl", "asn1parse", "-inform", "DER"],
            input=whole,
            capture_output=True,
            check=False,
        )
        assert parsed.returncode == 0, parsed.stderr


def test_where_certificates_may_be(make_pkcs15: Maker, authority: Authority) -> None:
    for place in CertificatePlace:
        card = make_pkcs15({"certificates": place, "trusted_certificates": True})
        first, second = list(card.identity.certificates.values())
        directory = read(card, "50154403")
        match place:
            case CertificatePlace.DIRECT:
                assert first in directory
                assert second in directory
            case CertificatePlace.SHARED_FILE:
                assert read(card, "50154310") == first + second
                assert b"\x04\x06\x3f\x00\x50\x15\x43\x10" in directory
            case CertificatePlace.OWN_FILE:
                assert (read(card, "50154301"), read(card, "50154302")) == (first, second)
        assert read(card, "501543CA") == authority.der()
        assert b"\xa5\x08\x30\x06\x04\x04" not in read(card, "50155031")
        assert b"\xa5\x0a\x30\x08\x04\x06\x3f\x00\x50\x15\x44\x04" in read(card, "50155031")


def test_the_variants_of_the_object_directory(make_pkcs15: Maker) -> None:
    assert read(make_pkcs15({"paths": Paths.RELATIVE}), "50155031").startswith(
        bytes.fromhex("A806300404024401")
    )
    slack = make_pkcs15({"slack": 5, "slack_byte": 0xFF})
    assert read(slack, "50155031") == read(make_pkcs15(), "50155031") + b"\xff" * 5
    direct = make_pkcs15({"direct_objects": True})
    assert read(direct, "50155031")[0] == 0xA8
    assert sw(direct, "00A408000450154401") == 0x6A82
    blank = make_pkcs15(slots=())
    assert read(blank, "50154403") == read(blank, "50154402") == b""


def test_a_hidden_directory_needs_the_pin(make_pkcs15: Maker) -> None:
    card = make_pkcs15({"private_keys_hidden": True})
    assert sw(card, "00A4080C0450154402") == 0x9000
    assert sw(card, "00B0000000") == 0x6982
    assert sw(card, "00200081083733313934363832") == 0x9000
    assert sw(card, "00B0000000") == 0x9000


@pytest.mark.parametrize(
    ("chosen", "path", "status"),
    [({"ef_dir": False}, "2F00", 0x6A82), ({"files": {"3F0050155032": None}}, "50155032", 0x6A82)],
)
def test_files_may_be_missing(
    make_pkcs15: Maker, chosen: dict[str, Any], path: str, status: int
) -> None:
    assert sw(make_pkcs15(chosen), f"00A40800{len(path) // 2:02X}{path}") == status


def test_files_may_be_anything(make_pkcs15: Maker) -> None:
    card = make_pkcs15({"files": {"3F0050155031": b"\xff\xff", "3F0050157001": b"more"}})
    assert read(card, "50155031") == b"\xff\xff"
    assert read(card, "50157001") == b"more"
    card.applet.put(bytes.fromhex("3F002F00"), b"")
    assert sw(card, "00A40000023F00") == 0x9000
    assert sw(card, "00A4020C022F00") == 0x9000
    assert ask(card, "00B0000000") == (b"", 0x9000)
    with pytest.raises(ValueError):
        card.applet.put(bytes.fromhex("3F0077777001"), b"")
    with pytest.raises(ValueError):
        card.applet.put(bytes.fromhex("3F005015"), b"")


def test_another_application_may_or_may_not_drop_who_is_verified(make_pkcs15: Maker) -> None:
    for drops in (True, False):
        card = make_pkcs15({"drops_on_select": drops})
        assert sw(card, BY_NAME) == 0x9000
        assert sw(card, "00200081083733313934363832") == 0x9000
        assert sw(card, "00A4040008A000000151000000") == 0x9000
        assert sw(card, "00A40000023F00") == 0x6A86, "the manager has no files"
        assert card.pins.satisfied is not drops


def test_a_card_may_want_its_application_selected_first(make_pkcs15: Maker) -> None:
    card = make_pkcs15(selected_by_default=False)
    assert sw(card, "00A40000023F00") == 0x6A86
    assert sw(card, "00B0000000") == 0x6D00
    assert sw(card, BY_NAME) == 0x9000
    assert sw(card, "00A4020C025031") == 0x9000


def test_the_atr_tells_of_files_and_piv_s_does_not(card: VirtualCard, card15: VirtualCard) -> None:
    assert card.atr != card15.atr
    assert card15.atr[card15.atr.index(b"\x80\x73") + 2] == 0xF6

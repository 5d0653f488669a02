"""Seats: names as pcscd makes them, and which USB reader a PC/SC reader is. Nothing is guessed."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import pytest

from cardsession.core.facts import ReaderFacts
from cardsession.core.seats import (
    USB_CHANNEL,
    Attributes,
    Listed,
    Name,
    UsbReader,
    join,
    may_be,
    seated,
)

GEMALTO = "Gemalto PC Twin Reader (EB5D1A2B) 00 00"
OMNIKEY = "OMNIKEY AG CardMan 5422 [OMNIKEY 5422 Smartcard Reader] 00 00"
SCR = "SCM Microsystems Inc. SCR 3310 [CCID Interface] (21120934208893) 01 00"
VIRTUAL = "Virtual PCD 00 00"


@dataclass(frozen=True)
class One:
    """A reader that the card service lists."""

    name: Name
    attributes: Attributes | None = None
    usb: UsbReader | None = None


SILENT = Attributes()
"""It was asked, and says nothing of itself."""


def at(device: int, serial: str = "") -> Attributes:
    """What a reader of libccid says, on bus 1."""
    return Attributes(channel_id=USB_CHANNEL << 16 | 1 << 8 | device, serial=serial)


def one(name: str, attributes: Attributes | None = SILENT, usb: UsbReader | None = None) -> Listed:
    """A reader by its name."""
    return One(Name.of(name), attributes, usb)


def port(path: str, device: int = 0, **known: object) -> UsbReader:
    """A USB reader."""
    interface = known.get("interface", 0)
    known = {"bus": 1, "device": device or 5} | known
    return UsbReader(f"/sys/{path}:1.{interface}", path, **known)  # type: ignore[arg-type]


# names


@pytest.mark.parametrize(
    ("name", "model", "serial", "index", "slot"),
    [
        (GEMALTO, "Gemalto PC Twin Reader", "EB5D1A2B", "00", 0),
        (OMNIKEY, "OMNIKEY AG CardMan 5422 [OMNIKEY 5422 Smartcard Reader]", "", "00", 0),
        (SCR, "SCM Microsystems Inc. SCR 3310 [CCID Interface]", "21120934208893", "01", 0),
        (VIRTUAL, "Virtual PCD", "", "00", 0),
        ("Virtual PCD 00 01", "Virtual PCD", "", "00", 1),
        ("Cherry TC 1100 0F 0A", "Cherry TC 1100", "", "0F", 10),
        ("C3PO LTC31 v2 (2) (0001) 02 00", "C3PO LTC31 v2 (2)", "0001", "02", 0),
        ("X [a (b) c] (d[e]f) 00 00", "X [a (b) c]", "d[e]f", "00", 0),
        ("X () 00 00", "X", "", "00", 0),
        ("X (a(b)c) 00 00", "X (a(b)c)", "", "00", 0),  # no serial number can be taken apart
        ("X (cut off at the 00 00", "X (cut off at the", "", "00", 0),
        ("Two\nlines (7) 00 00", "Two\nlines", "7", "00", 0),
        (" 00 00", "", "", "00", 0),
        ("", "", "", "", 0),
        ("Reader without numbers", "Reader without numbers", "", "", 0),
        ("lower case 0a 0b", "lower case 0a 0b", "", "", 0),
        ("a new line after 00 00\n", "a new line after 00 00\n", "", "", 0),
        ("\N{ARABIC-INDIC DIGIT ZERO}0 00", "\N{ARABIC-INDIC DIGIT ZERO}0 00", "", "", 0),
    ],
)
def test_a_name_is_taken_apart(name: str, model: str, serial: str, index: str, slot: int) -> None:
    found = Name.of(name)
    assert (found.model, found.serial, found.index, found.slot) == (model, serial, index, slot)


def test_a_hostile_name_takes_no_time() -> None:
    assert Name.of(" (" * 20_000 + " 00 0x").index == ""
    assert Name.of("( " * 20_000 + ") 00 00").index == "00"


def test_slots_share_all_but_the_slot() -> None:
    assert Name.of("X [i] (7) 00 00").reader == Name.of("X [i] (7) 00 01").reader
    for other in ("X [i] (7) 01 00", "X [j] (7) 00 00", "Y [i] (7) 00 00", "X [i] (8) 00 00"):
        assert Name.of(other).reader != Name.of("X [i] (7) 00 00").reader
    assert Name.of("X").reader == "X"


@pytest.mark.parametrize("serial", ["EB5D", "a(b)c", "(", "a_b", "S/N [1]", "a  b"])
def test_a_serial_number_is_found_whatever_is_in_it(serial: str) -> None:
    assert Name.of(f"X ({serial}) 00 00").tells_serial(serial)
    assert Name.of(f"X [i] ({serial}) 0A 00").tells_serial(serial.replace(" ", "_"))
    assert not Name.of(f"X ({serial}1) 00 00").tells_serial(serial)
    assert not Name.of(f"X (1{serial}) 00 00").tells_serial(serial)
    assert not Name.of("X 00 00").tells_serial(serial)


@pytest.mark.parametrize("serial", ["", "7", "a(b)"])
@pytest.mark.parametrize("label", ["CCID Interface", "PIN [v2]", "x]y", "(odd)"])
def test_an_interface_is_known_by_its_own_name(label: str, serial: str) -> None:
    name = Name.of(f"X [{label}]" + (f" ({serial})" if serial else "") + " 00 00")
    assert name.tells_label(port("1-1", label=label, serial=serial))
    assert name.tells_label(port("1-1", label=label.replace(" ", "_"), serial=serial))
    assert not name.tells_label(port("1-1", label=f"{label}2", serial=serial))
    assert not name.tells_label(port("1-1", label="", serial=serial))


# channel ids


@pytest.mark.parametrize(
    ("channel", "usb"),
    [
        (0x0020_0105, (1, 5)),
        (0x0020_FF7F, (255, 127)),
        (None, None),
        (0, None),
        (0x0020_0000, None),  # no bus and no device has the number 0
        (0x0020_0100, None),
        (0x0020_0005, None),
        (0x0001_0105, None),  # a serial port
        (0x0120_0105, None),
        (0x1_0020_0105, None),
    ],
)
def test_a_channel_id_leads_to_bus_and_device(
    channel: int | None, usb: tuple[int, int] | None
) -> None:
    assert Attributes(channel_id=channel).usb == usb


def test_a_reader_without_place_is_never_a_device_without_number() -> None:
    nowhere = UsbReader("/sys/x", "1-1")
    reader = one(GEMALTO, Attributes(channel_id=0x0020_0000))
    assert join(reader, [reader], [nowhere]) is None


def test_a_channel_id_is_believed_before_serial_number_and_name() -> None:
    right = port("1-2", 7, serial="other", model="Other")
    wrong = port("1-1", 5, serial="EB5D1A2B", model="PC_Twin_Reader")
    reader = one(GEMALTO, at(7, serial="EB5D1A2B"))
    assert join(reader, [reader], [wrong, right]) == right
    assert join(reader, [reader], [wrong]) is None


def test_a_reader_that_was_not_asked_is_joined_only_in_the_end() -> None:
    usb = [port("1-1", serial="EB5D1A2B"), port("1-2", serial="EB5D1A2C")]
    reader = one(GEMALTO, None)
    assert join(reader, [reader], usb) is None
    assert join(reader, [reader], usb, last=True) == usb[0]


def test_what_another_reader_was_joined_with_is_taken() -> None:
    here, there = port("1-1"), port("1-2", 6)
    other = one(SCR, at(5), here)
    reader = one(GEMALTO, at(5))
    assert join(reader, [reader, other], [here, there]) is None
    same_index = one("Virtual PCD 01 00", at(5))  # of another driver, which counts for itself
    assert join(same_index, [same_index, other], [here, there]) is None
    replugged = port("1-1", 7)
    reader = one(GEMALTO, at(7))
    assert join(reader, [reader, other], [replugged]) == replugged


def test_slots_of_one_reader_stand_in_one_place() -> None:
    usb = port("1-1")
    first = one("X (7) 00 00", at(5), usb)
    second = one("X (7) 00 01", at(5))
    assert join(second, [first, second], [usb]) == usb
    assert usb.seat(first.name.slot) != usb.seat(second.name.slot)
    interfaces = [port("1-1", interface=each) for each in range(2)]
    first = one("X (7) 00 00", at(5), interfaces[1])
    assert join(second, [first, second], interfaces) == interfaces[1]


# devices with two interfaces


def two(**labels: str) -> list[UsbReader]:
    """The interfaces of one device."""
    first, second = labels.get("first", ""), labels.get("second", "")
    return [
        port("1-1", interface=2, label=second),
        port("1-1", interface=0, label=first),
    ]


def placed(readers: list[Listed], usb: list[UsbReader]) -> dict[str, int | None]:
    """Who was joined with which interface, one after the other."""
    for last in (False, True):
        for _ in readers:
            for position, each in enumerate(readers):
                found = None if each.usb else join(each, readers, usb, last=last)
                if found:
                    readers[position] = One(each.name, each.attributes, found)
    return {each.name.index: each.usb.interface if each.usb else None for each in readers}


@pytest.mark.parametrize("order", list(permutations(range(2))))
@pytest.mark.parametrize(
    ("labels", "names", "expected"),
    [
        ({}, ("X 00 00", "X 01 00"), {"00": 0, "01": 2}),
        ({}, ("X 02 00", "X 0A 00"), {"02": 0, "0A": 2}),
        ({"first": "A", "second": "B"}, ("X [A] 00 00", "X [B] 01 00"), {"00": 0, "01": 2}),
        ({"first": "A", "second": "B"}, ("X [B] 00 00", "X [A] 01 00"), {"00": 2, "01": 0}),
        ({"first": "A", "second": "A"}, ("X [A] 00 00", "X [A] 01 00"), {"00": 0, "01": 2}),
        ({"second": "B"}, ("X [B] 00 00", "X 01 00"), {"00": 2, "01": 0}),
        ({"first": "B"}, ("X 00 00", "X [B] 01 00"), {"00": 2, "01": 0}),
        ({"first": "A", "second": "A_b"}, ("X [A b] 00 00", "X [A] 01 00"), {"00": 2, "01": 0}),
    ],
)  # fmt: skip
def test_two_interfaces_are_told_apart(
    order: tuple[int, int], labels: dict[str, str], names: tuple[str, str], expected: object
) -> None:
    readers = [one(names[each], at(5)) for each in order]
    assert placed(readers, two(**labels)) == expected


def test_one_of_two_interfaces_without_a_name_waits_for_the_other() -> None:
    first, second = one("X 00 00", at(5)), one("X 01 00", at(5))
    usb = two()
    assert join(second, [second], usb) is None
    assert join(second, [one("X 00 00", None), second], usb) is None
    assert join(second, [first, second], usb) == usb[0]
    assert join(second, [second], usb, last=True) == usb[1], "it is the only one that is listed"
    usb = two(first="B")
    assert join(first, [first], usb, last=True) == usb[0], "the other one would be called so"


def test_a_third_reader_of_a_device_with_two_interfaces_has_no_place() -> None:
    readers = [one(f"X 0{each} 00", at(5)) for each in range(3)]
    assert placed(readers, two()) == {"00": 0, "01": 2, "02": None}


# without channel id


def test_a_serial_number_joins_wherever_it_is_told() -> None:
    usb = [port("1-1", serial="EB5D1A2B", model="PC_Twin"), port("1-2", 6, model="PC_Twin")]
    for reader in (
        one(GEMALTO),
        one("Gemalto PC Twin Reader 00 00", Attributes(serial="EB5D1A2B")),
    ):
        assert join(reader, [reader], usb) == usb[0]


def test_the_model_joins_with_udev_s_underscores() -> None:
    usb = [port("1-1", model="CardMan_5422"), port("1-2", 6, model="SCR_3310")]
    reader = one(OMNIKEY)
    assert join(reader, [reader], usb) is None, "one like it may be on its way"
    assert join(reader, [reader], usb, last=True) == usb[0]
    for model in ("", "_ "):
        assert join(reader, [reader], [port("1-3", model=model)], last=True) is None


def test_another_serial_number_is_another_reader() -> None:
    reader = one(GEMALTO)
    other = port("1-1", serial="EB5D1A2C", model="PC_Twin_Reader")
    assert join(reader, [reader], [other], last=True) is None
    assert not may_be(reader, other)
    assert join(reader, [reader], [port("1-2", model="PC_Twin_Reader")], last=True) is not None


def test_two_of_a_kind_are_never_guessed() -> None:
    usb = [port("1-1", model="PC Twin"), port("1-2", 6, model="PC Twin")]
    first, second = one("A PC Twin 00 00"), one("A PC Twin 01 00")
    for last in (False, True):
        assert join(first, [first], usb, last=last) is None
        assert join(first, [first, second], usb[:1], last=last) is None, "it may be the other"
        assert join(second, [first, second], usb, last=last) is None
    assert may_be(first, usb[0]) and may_be(second, usb[0])


def test_two_with_one_serial_number_are_never_guessed() -> None:
    usb = [port("1-1", serial="0001", model="other"), port("1-2", 6, serial="0001", model="other")]
    first, second = one("X (0001) 00 00"), one("X (0001) 01 00")
    assert join(first, [first, second], usb, last=True) is None
    assert join(first, [first, second], usb[:1], last=True) is None
    assert may_be(first, usb[1]) and may_be(second, usb[0]), "nor called readers without a driver"


def test_the_last_of_a_kind_that_is_free_is_certain() -> None:
    usb = [port("1-1", model="PC Twin"), port("1-2", 6, model="PC Twin")]
    first = one("A PC Twin 00 00", at(5), usb[0])
    second = one("A PC Twin 01 00")
    assert join(second, [first, second], usb, last=True) == usb[1]


def test_a_reader_that_was_not_asked_yet_may_be_any() -> None:
    usb = port("1-1", model="PC Twin")
    named, silent = one("A PC Twin 00 00"), one("B 00 00", None)
    assert may_be(silent, usb)
    assert join(named, [named, silent], [usb], last=True) is None
    asked = one("B 00 00")
    assert not may_be(asked, usb)
    assert join(named, [named, asked], [usb], last=True) == usb


def test_a_reader_may_be_what_its_channel_id_says_and_nothing_else() -> None:
    reader = one("A PC Twin 00 00", at(5))
    assert may_be(reader, port("1-1", 5, serial="x"))
    assert not may_be(reader, port("1-1", 6, model="PC Twin"))


# what is told of it


def test_the_same_device_is_known_again_whatever_else_is_known_of_it() -> None:
    assert port("1-1", 5).is_still(port("1-1", 5, model="known by now"))
    assert not port("1-1", 5).is_still(port("1-1", 6))
    assert not port("1-1", 5).is_still(port("1-1", 5, interface=1))


def test_a_record_says_what_udev_says_before_what_the_reader_says() -> None:
    facts = ReaderFacts("id", GEMALTO)
    usb = port("1-4.2", serial="u", model="v", vendor_id=0x08E6, product_id=0x3437)
    said = Attributes(serial="s", model="m", pin_pad=True)
    both = seated(facts, said, usb)
    assert (both.serial, both.model, both.pin_pad) == ("u", "v", True)
    assert (both.port_path, both.vendor_id, both.product_id) == ("1-4.2", 0x08E6, 0x3437)
    alone = seated(both, said, None)
    assert (alone.serial, alone.model, alone.port_path, alone.vendor_id) == ("s", "m", "", 0)
    assert seated(facts, Attributes(), None).serial == "EB5D1A2B"
    assert alone.id == both.id == "id"


def test_nothing_hostile_is_told() -> None:
    usb = port("1-1", serial="a\x00b\n", model="\x1b[2J" + "x" * 300)
    shown = seated(ReaderFacts("id", VIRTUAL), Attributes(), usb)
    assert shown.serial == "a\ufffdb\ufffd"
    assert len(shown.model) == 128 and "\x1b" not in shown.model


def test_a_seat_has_its_port_its_interface_and_its_slot() -> None:
    assert port("1-4.2", interface=1).seat(0) == "1-4.2:1:0"
    assert port("1-4.2").seat(10) == "1-4.2:0:10"

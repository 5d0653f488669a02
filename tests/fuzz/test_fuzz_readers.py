"""What devices and the card service say of readers: names, attributes, words of udev's."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

from cardsession.core import usb
from cardsession.core.facts import ReaderFacts
from cardsession.core.seats import Attributes, Name, UsbReader, join, may_be, seated
from cardsession.core.text import clean
from fuzz.cases import fuzz
from fuzz.mutations import SOME, changed, mutants

TRUE_NAMES = (
    b"ACS ACR39U ICC Reader [CCID Interface] (0123456) 00 00",
    b"Virtual PCD 00 01",
    b"Gemalto PC Twin Reader (A(B)C) 0A FF",
    b"Generic [Smart Card] [PIN Pad] 01 00",
    b"Generic [Smart Card] [PIN Pad] 01 01",
    b"00 00",
)
NAMES = st.builds(changed, st.sampled_from(TRUE_NAMES), st.just([]) | SOME).map(
    lambda raw: raw.decode("utf-8", "replace")
)
SERIALS = st.sampled_from(["", "0123456", "A", "A(B)C", ")"])
MODELS = st.sampled_from(["", "ACR39U_ICC_Reader", "Virtual PCD", "\0", " ", "_"]) | st.text(
    max_size=8
)
USB = st.builds(
    UsbReader,
    syspath=st.sampled_from(["/a", "/b", "/c", ""]),
    port_path=st.sampled_from(["1-4.2", "1-1", ""]),
    interface=st.integers(0, 2),
    bus=st.integers(0, 2),
    device=st.integers(0, 4),
    serial=SERIALS,
    model=MODELS,
    label=st.sampled_from(["", "CCID Interface", "PIN Pad", "Smart Card"]),
)
ATTRIBUTES = st.builds(
    Attributes,
    channel_id=st.none() | st.integers(0, 0xFFFFFFFF) | st.integers(0x0020_0100, 0x0020_0205),
    serial=SERIALS,
    model=MODELS,
    pin_pad=st.booleans(),
)


@dataclass(frozen=True)
class Reader:
    """One that the card service lists."""

    name: Name
    attributes: Attributes | None
    usb: UsbReader | None


READERS = st.builds(
    Reader, (NAMES | st.text(max_size=60)).map(Name.of), st.none() | ATTRIBUTES, st.none() | USB
)


@fuzz(900, READERS, st.lists(READERS, max_size=4), st.lists(USB, max_size=5), st.booleans())
def test_seats(reader: Reader, others: list[Reader], seen: list[UsbReader], last: bool) -> None:
    """A reader is one that udev sees, and where it says it is, and no other reader's."""
    name = reader.name
    assert 0 <= name.slot <= 0xFF
    found = join(reader, [reader, *others], seen, last=last)
    assert found is None or found in seen
    if found is not None:
        place = reader.attributes.usb if reader.attributes else None
        assert place in {None, found.device_number}
        for each in others:
            another = each.name.reader != name.reader and each.usb is not None
            assert not (another and each.usb and each.usb.is_still(found)), "it is another's"
    for each in seen:
        may_be(reader, each)
    facts = ReaderFacts("id", f"{name.reader} {name.slot:02X}")
    shown = seated(facts, reader.attributes or Attributes(), found)
    assert all(clean(each) == each for each in (shown.serial, shown.model))


WORDS = ["INTERFACE", usb.MARK, "PRODUCT", "DEVNUM", "devnum", "ID_SERIAL_SHORT", "serial",
         "ID_MODEL_ENC", "product", "ID_MODEL", "interface", "bInterfaceClass", "ID_VENDOR_ID",
         "idVendor", "ID_MODEL_ID", "idProduct"]  # fmt: skip
VALUES = mutants(
    b"11/0/0", b"0b", b"ccid", b"vendor", b"ignore", b"8e6/4433/201", b"008", b"0x08e6",
    b"ACR39U\\x20ICC\\x20Reader", b"ACR39U_ICC_Reader", b"9" * 40, b"\\x00\\x1b[31m\\xff\\x",
    b"1_0", "\u0661\u0662".encode(),
).map(lambda raw: raw.decode("utf-8", "surrogateescape"))  # fmt: skip
LOOKS = st.dictionaries(st.sampled_from(WORDS), VALUES | st.text(max_size=200), max_size=10)
PATHS = mutants(
    b"/sys/devices/pci0000:00/0000:00:14.0/usb1/1-4/1-4.2/1-4.2:1.0", b"1-1:1.1", b"/x/usb1",
    b"99999-1.2.3.4.5.6.7:255.255",
).map(lambda raw: raw.decode("utf-8", "replace"))  # fmt: skip


@fuzz(900, PATHS, LOOKS, LOOKS, st.booleans())
def test_udev(path: str, interface: dict[str, str], device: dict[str, str], marked: bool) -> None:
    """Whatever a device calls itself: numbers are of their size, texts are fit for the bus."""
    looked = {usb.MARK: "ccid"} | interface if marked else interface
    found = usb.reader(path, looked.get, device.get)
    if found is None:
        return
    assert found.syspath == path
    numbers = (found.bus, found.device, found.vendor_id, found.product_id, found.interface)
    assert all(0 <= each <= 0xFFFF for each in numbers)
    for text in (found.serial, found.model, found.label):
        assert clean(text) == text
        text.encode()
    clean(found.seat(0))

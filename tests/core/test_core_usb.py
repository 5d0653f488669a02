"""Which USB interfaces are readers, and what their ports and numbers are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardsession.core import usb
from cardsession.core.seats import UsbReader

PATH = "/sys/devices/pci0000:00/0000:00:14.0/usb1/1-4/1-4.2/1-4.2:1.0"
INTERFACE = {"INTERFACE": "11/0/0", "PRODUCT": "8e6/4433/201", "interface": "CCID Interface"}
DEVICE = {
    "PRODUCT": "8e6/4433/201",
    "BUSNUM": "001",
    "DEVNUM": "017",
    "ID_MODEL": "GemPC_Twin_HWP113129",
    "ID_MODEL_ENC": r"GemPC\x20Twin\x20HWP113129",
    "ID_SERIAL_SHORT": "A1B2",
    "serial": "A1B2",
}
WHOLE = UsbReader(
    syspath=PATH,
    port_path="1-4.2",
    interface=0,
    bus=1,
    device=17,
    vendor_id=0x08E6,
    product_id=0x4433,
    serial="A1B2",
    model="GemPC Twin HWP113129",
    label="CCID Interface",
)


def read(
    interface: dict[str, str], device: dict[str, str] | None = None, path: str = PATH
) -> UsbReader | None:
    return usb.reader(path, interface.get, (DEVICE if device is None else device).get)


def test_a_reader_as_udev_describes_it() -> None:
    assert read(INTERFACE) == WHOLE


def test_sysfs_alone_says_the_same() -> None:
    interface = {"bInterfaceClass": "0b", "interface": "CCID Interface"}
    device = {
        "busnum": "1",
        "devnum": "17",
        "idVendor": "08e6",
        "idProduct": "4433",
        "serial": "A1B2\n",
        "product": "GemPC Twin HWP113129",
    }
    assert read(interface, device) == WHOLE


def test_of_a_removal_only_the_kernel_s_own_words_are_left() -> None:
    interface = {"INTERFACE": "11/0/0", "PRODUCT": "8e6/4433/201"}
    device = {"BUSNUM": "001", "DEVNUM": "017"}
    assert read(interface, device) == UsbReader(PATH, "1-4.2", 0, 1, 17, 0x08E6, 0x4433)
    assert read(interface, {}) == UsbReader(PATH, "1-4.2", 0, 1, 0, 0x08E6, 0x4433)


@pytest.mark.parametrize(
    ("interface", "is_one"),
    [
        ({"INTERFACE": "11/0/0"}, True),
        ({"INTERFACE": "11/1/2"}, True),
        ({"bInterfaceClass": "0b"}, True),
        ({"bInterfaceClass": "0B"}, True),
        ({"INTERFACE": "11"}, True),
        ({"INTERFACE": "3/1/1"}, False),
        ({"INTERFACE": "110/0/0"}, False),
        ({"INTERFACE": "0b/0/0"}, False),
        ({"INTERFACE": "255/0/0"}, False),
        ({"INTERFACE": "255/0/0", "CARDSESSION_READER": "vendor"}, True),
        ({"INTERFACE": "255/0/0", "CARDSESSION_READER": "1"}, False),
        ({"INTERFACE": "11/0/0", "CARDSESSION_READER": "ccid"}, True),
        ({"INTERFACE": "11/0/0", "CARDSESSION_READER": ""}, True),
        ({"INTERFACE": "11/0/0", "CARDSESSION_READER": "ignore"}, False),
        ({"INTERFACE": "-11/0/0"}, False),
        ({"INTERFACE": ""}, False),
        ({}, False),
    ],
)
def test_what_is_a_reader(interface: dict[str, str], is_one: bool) -> None:
    assert (read(interface) is not None) is is_one


@pytest.mark.parametrize(
    ("name", "port", "interface"),
    [
        ("1-4:1.0", "1-4", 0),
        ("2-1.4.3:1.1", "2-1.4.3", 1),
        ("12-11.7.1.2.3.4:2.10", "12-11.7.1.2.3.4", 10),
        ("1-4", None, 0),
        ("usb1", None, 0),
        ("1-4:1", None, 0),
        ("1-4:1.0/", None, 0),
        ("1-4:1.0 ", None, 0),
        ("1-\u0664:1.0", None, 0),
        ("", None, 0),
    ],
)
def test_the_port_is_in_the_kernel_s_name(name: str, port: str | None, interface: int) -> None:
    found = read(INTERFACE, path=f"/sys/bus/usb/devices/{name}")
    assert (found and (found.port_path, found.interface)) == (port and (port, interface))


@pytest.mark.parametrize(
    "number", ["", "x", "-1", "+1", "1_7", "0x11", "\u0661", "99999999", "1e3", "17 18"]
)
def test_a_number_that_is_none_is_not_known(number: str) -> None:
    found = read(INTERFACE, {"DEVNUM": number, "ID_VENDOR_ID": "zz", "PRODUCT": "///"})
    assert found is not None
    assert (found.device, found.vendor_id, found.product_id) == (0, 0, 0)


def test_a_product_that_says_nothing_leaves_it_to_the_other_words() -> None:
    found = read({"INTERFACE": "11/0/0"}, {"ID_VENDOR_ID": "04e6", "ID_MODEL_ID": "5116"})
    assert found is not None and (found.vendor_id, found.product_id) == (0x04E6, 0x5116)


@pytest.mark.parametrize(
    ("device", "model"),
    [
        ({"ID_MODEL_ENC": r"SCR33x\x20USB"}, "SCR33x USB"),
        ({"ID_MODEL_ENC": r"\x20\x20", "product": "Reader"}, "Reader"),
        ({"ID_MODEL": "SCR33x_USB"}, "SCR33x_USB"),
        ({"ID_MODEL_ENC": r"L\xc3\xa4nge"}, "Länge"),
        ({"ID_MODEL_ENC": r"a\x00b\x1b[31m"}, "a\ufffdb\ufffd[31m"),
        ({"ID_MODEL_ENC": r"\xff\x4"}, "\ufffd\\x4"),
        ({"product": "a\nb\u202e"}, "a\ufffdb\ufffd"),
        ({"product": "\udcff"}, "?"),
        ({"product": "x" * 1000}, "x" * 128),
        ({}, ""),
    ],
)
def test_a_device_s_own_words_are_made_safe(device: dict[str, str], model: str) -> None:
    found = read(INTERFACE, device)
    assert found is not None and found.model == model


WORDS = [
    *("CARDSESSION_READER", "INTERFACE", "PRODUCT", "BUSNUM", "DEVNUM", "ID_MODEL_ENC"),
    *("ID_SERIAL_SHORT", "ID_VENDOR_ID", "bInterfaceClass", "busnum", "serial", "interface"),
]


@given(
    st.dictionaries(st.sampled_from(WORDS), st.text() | st.sampled_from(["11/0/0", "8e6/1/2"])),
    st.dictionaries(st.sampled_from(WORDS), st.text() | st.from_regex(r"\\x[0-9a-f]{2}")),
    st.text() | st.from_regex(r"/[0-9]-[0-9](\.[0-9])*:[0-9]\.[0-9]"),
)
def test_no_device_makes_it_fail(
    interface: dict[str, str], device: dict[str, str], path: str
) -> None:
    found = read(interface, device, path)
    if found is not None:
        assert 0 <= found.vendor_id <= 0xFFFF and 0 <= found.product_id <= 0xFFFF
        assert path.endswith(f"/{found.port_path}:{path.rpartition(':')[2]}")
        for text in (found.serial, found.model, found.label):
            assert len(text) <= 128
            text.encode()

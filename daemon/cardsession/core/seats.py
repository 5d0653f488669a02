"""Seats at the counter: which reader of the card service is which USB device, in which port.

PC/SC names readers in the order in which they were plugged in; a USB port stays where it is. The
two are joined by the reader's channel id (PC/SC part 3 clause 3.1.2, `SCARD_ATTR_CHANNEL_ID`:
0x0020 and, of libccid, the bus and the device number), else by the serial number in its name,
else by the model in it, where that can only be one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from .facts import ReaderFacts
from .text import clean

USB_CHANNEL = 0x0020
_NAMED = re.compile(r"^(?P<model>.*?)(?: \((?P<serial>[^()]*)\))? (?P<index>[0-9A-F]{2}) "
                    r"(?P<slot>[0-9A-F]{2})$")  # fmt: skip
"""How pcscd names a reader: model, interface in brackets, serial number, its number, the slot."""
_INTERFACE = re.compile(r"\[([^]]*)\]")


@dataclass(frozen=True, slots=True)
class UsbReader:
    """One reader as udev has it: a smartcard interface of a USB device."""

    syspath: str
    port_path: str
    """As the kernel names the device: bus, "-", ports from the root hub on, with dots (1-4.2)."""
    interface: int = 0
    """Its number (bInterfaceNumber)."""
    bus: int = 0
    device: int = 0
    """Numbers on the bus; a device that is plugged in again has another one."""
    vendor_id: int = 0
    product_id: int = 0
    serial: str = ""
    model: str = ""
    label: str = ""
    """The interface's own name (iInterface)."""

    @property
    def device_number(self) -> tuple[int, int]:
        """Bus and device."""
        return self.bus, self.device

    def seat(self, slot: int) -> str:
        """The identifier of a slot in it, which the same port always has."""
        return f"{self.port_path}:{self.interface}:{slot}"


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a reader says of itself through PC/SC."""

    channel_id: int | None = None
    serial: str = ""
    model: str = ""
    pin_pad: bool = False

    @property
    def usb(self) -> tuple[int, int] | None:
        """Bus and device number; None where the reader is not on USB, or does not say."""
        if self.channel_id is None or self.channel_id >> 16 != USB_CHANNEL:
            return None
        return self.channel_id >> 8 & 0xFF, self.channel_id & 0xFF


@dataclass(frozen=True, slots=True)
class Name:
    """A PC/SC name, taken apart."""

    model: str
    serial: str = ""
    index: str = ""
    """Of the reader; the slots of one have the same."""
    slot: int = 0

    @classmethod
    def of(cls, name: str) -> Name:
        """A name of another form is all model."""
        found = _NAMED.match(name)
        if found is None:
            return cls(name)
        return cls(found["model"], found["serial"] or "", found["index"], int(found["slot"], 16))

    @property
    def label(self) -> str:
        """The interface's own name, which libccid puts in brackets."""
        found = _INTERFACE.findall(self.model)
        return found[-1] if found else ""


def join(
    name: Name, attributes: Attributes, usb: Collection[UsbReader], taken: Mapping[str, str]
) -> UsbReader | None:
    """The USB reader that a PC/SC reader is; None if that is not certain.

    `taken`: the readers (their index) that USB readers were joined with, by syspath; the slots
    of one reader share it.
    """
    place = attributes.usb
    if place is not None:
        here = [each for each in usb if each.device_number == place]
        return _interface(name, here, taken)
    free = [each for each in usb if taken.get(each.syspath, name.index) == name.index]
    serial = name.serial or attributes.serial
    if serial:
        return _only([each for each in free if each.serial == serial])
    return _only([each for each in free if _is_called(each, name)])


def may_be(name: Name, attributes: Attributes | None, usb: UsbReader) -> bool:
    """Whether a PC/SC reader that was joined with none may be this one, as far as is known."""
    if attributes is None:
        return True
    if attributes.usb is not None:
        return attributes.usb == usb.device_number
    return _is_called(usb, name)


def _interface(name: Name, here: list[UsbReader], taken: Mapping[str, str]) -> UsbReader | None:
    """Which interface of a device: by its own name, else in the order in which pcscd takes them."""
    if len(here) > 1:
        called = [each for each in here if each.label and each.label == name.label]
        here = called or here
    free = [each for each in here if taken.get(each.syspath, name.index) == name.index]
    return min(free, key=lambda each: each.interface, default=None)


def _only(found: list[UsbReader]) -> UsbReader | None:
    """Two of a kind cannot be told apart."""
    return found[0] if len(found) == 1 else None


def _is_called(usb: UsbReader, name: Name) -> bool:
    return bool(usb.model) and _plain(usb.model) in _plain(name.model)


def _plain(text: str) -> str:
    """udev has underscores where there were blanks."""
    return " ".join(re.split(r"[\s_]+", text.strip())).casefold()


def seated(reader: ReaderFacts, attributes: Attributes, usb: UsbReader | None) -> ReaderFacts:
    """A reader's record with what is known of where it stands; its identifier stays."""
    return replace(
        reader,
        serial=clean((usb and usb.serial) or attributes.serial or Name.of(reader.name).serial),
        port_path=usb.port_path if usb else "",
        vendor_id=usb.vendor_id if usb else 0,
        product_id=usb.product_id if usb else 0,
        model=clean((usb and usb.model) or attributes.model),
        pin_pad=attributes.pin_pad,
    )

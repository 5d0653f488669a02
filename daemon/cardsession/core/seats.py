"""Seats at the counter: which reader of the card service is which USB device, in which port.

PC/SC names readers in the order in which they were plugged in; a USB port stays where it is. The
two are joined by the reader's channel id (PC/SC part 3 clause 3.1.2, `SCARD_ATTR_CHANNEL_ID`:
0x0020 and, of libccid, the bus and the device number), else by the serial number in its name,
else by the model in it, where that can only be one.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Protocol

from .facts import ReaderFacts
from .text import clean

USB_CHANNEL = 0x0020
_NAMED = re.compile(r"(?P<model>.*?)(?: \((?P<serial>[^()]*)\))? (?P<index>[0-9A-F]{2}) "
                    r"(?P<slot>[0-9A-F]{2})", re.DOTALL)  # fmt: skip
"""How pcscd names a reader: model, interface in brackets, serial number, its number, the slot."""


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

    def is_still(self, other: UsbReader) -> bool:
        """Whether that is the same one, plugged in once; more may be known of it by now."""
        return (self.syspath, self.device_number) == (other.syspath, other.device_number)

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
        """Bus and device number, each from 1 on; None where the reader is not on USB, or does not
        say."""
        if self.channel_id is None or self.channel_id >> 16 != USB_CHANNEL:
            return None
        bus, device = self.channel_id >> 8 & 0xFF, self.channel_id & 0xFF
        return (bus, device) if bus and device else None


@dataclass(frozen=True, slots=True)
class Name:
    """A PC/SC name, taken apart."""

    reader: str
    """What the slots of one reader share: all but the slot."""
    model: str
    serial: str = ""
    """What stands in the last parentheses: of a device without serial number it is model."""
    index: str = ""
    slot: int = 0

    @classmethod
    def of(cls, name: str) -> Name:
        """A name of another form is all model."""
        found = _NAMED.fullmatch(name)
        if found is None:
            return cls(name, name)
        model, serial, index, slot = found.groups()
        return cls(name[:-3], model, serial or "", index, int(slot, 16))

    def tells_serial(self, serial: str) -> bool:
        """Whether the device with this serial number is called so (it may have parentheses)."""
        return _plain(self._device).endswith(_plain(f"({serial})"))

    def tells_label(self, usb: UsbReader) -> bool:
        """Whether this interface of a device is called so: libccid puts its name in brackets."""
        model = _plain(self._device).removesuffix(_plain(f"({usb.serial})")).rstrip()
        return bool(usb.label) and model.endswith(_plain(f"[{usb.label}]"))

    @property
    def _device(self) -> str:
        return self.reader.removesuffix(f" {self.index}")


class Listed(Protocol):
    """What is known of a reader that the card service lists."""

    @property
    def name(self) -> Name:
        """Its name."""

    @property
    def attributes(self) -> Attributes | None:
        """What it says of itself; None if it was not asked yet, or cannot be."""

    @property
    def usb(self) -> UsbReader | None:
        """The USB reader that it was joined with."""


def join(
    reader: Listed, listed: Collection[Listed], usb: Collection[UsbReader], *, last: bool = False
) -> UsbReader | None:
    """The USB reader that a reader is; None if that is not certain, whatever came first.

    `listed`: all readers. `last`: nothing more will be known for now: what there is, is taken.
    """
    if reader.attributes is None and not last:
        return None
    own, others = _parted(reader, listed)
    taken = [each.usb for each in others if each.usb is not None]
    rivals = [each for each in others if each.usb is None]
    free = [each for each in usb if not any(each.is_still(one) for one in taken)]
    place = reader.attributes.usb if reader.attributes else None
    if place is not None:
        free = [each for each in free if each.device_number == place]
    for each in free:
        if any(each.is_still(one) for one in own):
            return each
    if place is not None:
        return _interface(reader, rivals, free, last=last)
    return _by_name(reader, rivals, free, last=last)


def _parted(reader: Listed, listed: Collection[Listed]) -> tuple[list[UsbReader], list[Listed]]:
    """What its other slots were joined with; and the other readers."""
    own = [each for each in listed if each.name.reader == reader.name.reader]
    others = [each for each in listed if each.name.reader != reader.name.reader]
    return [each.usb for each in own if each.usb is not None], others


def _by_name(
    reader: Listed, rivals: list[Listed], free: list[UsbReader], *, last: bool
) -> UsbReader | None:
    """The only one that has its serial number, or in the end its model, if no other reader may be
    it. (Before the end, another one of the same model may be on its way.)"""
    exact = [each for each in free if _same_serial(reader, each)]
    if not exact and not last:
        return None
    if exact:
        rivals = [each for each in rivals if any(_same_serial(each, one) for one in exact)]
    found = exact or [each for each in free if may_be(reader, each) and _is_called(reader, each)]
    certain = len(found) == 1 and not any(may_be(each, found[0]) for each in rivals)
    return found[0] if certain else None


def may_be(reader: Listed, usb: UsbReader) -> bool:
    """Whether a reader that was joined with none may be this one, as far as is known."""
    if reader.attributes and reader.attributes.usb is not None:
        return reader.attributes.usb == usb.device_number
    if _same_serial(reader, usb):
        return True
    if usb.serial and (reader.name.serial or (reader.attributes and reader.attributes.serial)):
        return False
    return reader.attributes is None or _is_called(reader, usb)


def _interface(
    reader: Listed, rivals: list[Listed], here: list[UsbReader], *, last: bool
) -> UsbReader | None:
    """Which interface of a device: the one that is called so, else in the order in which the card
    service takes them; for that all of them must be listed."""
    labelled = [each for each in here if reader.name.tells_label(each)]
    here = labelled or [each for each in here if not each.label] or here
    if len(here) < 2:  # noqa: PLR2004 - no choice
        return here[0] if here else None
    peers = {
        (each.name.index, each.name.reader)
        for each in (reader, *rivals)
        if each.attributes
        and each.attributes.usb == here[0].device_number
        and any(each.name.tells_label(one) for one in here) == bool(labelled)
    }
    if len(peers) < len(here) and not last:
        return None
    rank = sorted(peers).index((reader.name.index, reader.name.reader))
    return sorted(here, key=lambda each: each.interface)[rank] if rank < len(here) else None


def _same_serial(reader: Listed, usb: UsbReader) -> bool:
    if not usb.serial:
        return False
    said = reader.attributes is not None and reader.attributes.serial == usb.serial
    return said or reader.name.tells_serial(usb.serial)


def _is_called(reader: Listed, usb: UsbReader) -> bool:
    return bool(usb.model.strip("_ ")) and _plain(usb.model) in _plain(reader.name.model)


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

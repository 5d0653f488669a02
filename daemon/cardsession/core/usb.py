"""USB readers as udev describes them: which interfaces are readers, where they are plugged in.

A reader is an *interface* of a USB device: one of the smartcard class (0b, USB-IF CCID 1.1
clause 4.1), or one that our udev rule marks, for readers that are older than the class.
Everything here comes from a device that anybody may plug in: nothing of it raises.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

from .seats import UsbReader
from .text import LIMIT, clean

Look = Callable[[str], str | None]
"""Looks up one word of udev's on a device: a property (`PRODUCT`) or an attribute of sysfs
(`idVendor`). Their names differ in case. None: there is no such word."""

MARK: Final = "CARDSESSION_READER"
"""The property that our udev rule sets on interfaces (udev-rules/70-cardsession.rules)."""
MARKS: Final = frozenset({"ccid", "vendor"})
"""A reader: of the smartcard class, or of a vendor's own (ff)."""
IGNORED: Final = "ignore"
"""A site's own rule may say that an interface is no reader, whatever its class."""
SMARTCARD_CLASS: Final = 0x0B
SUBSYSTEM: Final = "usb"
CANDIDATES: Final = (("INTERFACE", f"{SMARTCARD_CLASS}/*"), (MARK, "?*"))
"""Properties, with shell patterns: one of them is on every reader's interface."""

_NAME = re.compile(
    r"(?P<port>(?P<bus>[0-9]{1,5})-[0-9]{1,3}(?:\.[0-9]{1,3}){0,6}):[0-9]{1,3}\.(?P<interface>[0-9]{1,3})"
)
"""How the kernel names an interface: bus, ports from the root hub on, configuration, interface."""
_ESCAPED = re.compile(rb"\\x([0-9a-fA-F]{2})")
_WORD = 0xFFFF


def reader(syspath: str, interface: Look, device: Look) -> UsbReader | None:
    """The reader that an interface is; None if it is none.

    Of a device that has been pulled only what the kernel said with the event is left; what
    is not known is 0 or "".
    """
    name = _NAME.fullmatch(syspath.rpartition("/")[2])
    if name is None or not _is_reader(interface):
        return None
    vendor, product = _ids(interface, device)
    return UsbReader(
        syspath=syspath,
        port_path=name["port"],
        interface=int(name["interface"]),
        bus=_number(name["bus"]),
        device=_first(_numbers(device, "DEVNUM", "devnum")),
        vendor_id=vendor,
        product_id=product,
        serial=_text(device, "ID_SERIAL_SHORT", "serial"),
        model=_text(device, "ID_MODEL_ENC", "product", "ID_MODEL"),
        label=_text(interface, "interface"),
    )


def _is_reader(interface: Look) -> bool:
    """By the rule's mark; without our rule, by the class."""
    mark = interface(MARK)
    if mark == IGNORED:
        return False
    return mark in MARKS or _class(interface) == SMARTCARD_CLASS


def _class(interface: Look) -> int:
    """Of the event, `INTERFACE=11/0/0` (decimal); of sysfs, `bInterfaceClass` (hexadecimal)."""
    of_event = (interface("INTERFACE") or "").partition("/")[0]
    return _number(of_event) or _number(interface("bInterfaceClass"), 16)


def _ids(interface: Look, device: Look) -> tuple[int, int]:
    """Vendor and product: `PRODUCT=8e6/4433/201` is in every event of both."""
    vendor, _, rest = (device("PRODUCT") or interface("PRODUCT") or "").partition("/")
    product = rest.partition("/")[0]
    return (
        _number(vendor, 16) or _first(_numbers(device, "ID_VENDOR_ID", "idVendor", base=16)),
        _number(product, 16) or _first(_numbers(device, "ID_MODEL_ID", "idProduct", base=16)),
    )


def _numbers(look: Look, *words: str, base: int = 10) -> Iterator[int]:
    return (_number(look(word), base) for word in words)


def _first(numbers: Iterator[int]) -> int:
    return next((number for number in numbers if number), 0)


def _number(text: str | None, base: int = 10) -> int:
    """At most 16 bits; 0 for anything else, and for what only looks like a number to Python."""
    text = (text or "").strip()
    if not text.isascii() or not text.isalnum():
        return 0
    try:
        number = int(text, base)
    except ValueError:
        return 0
    return number if number <= _WORD else 0


def _text(look: Look, *words: str) -> str:
    """The first of these words that says something. The words of udev's database come before
    those of sysfs, which the kernel does not let us read while it resets the device."""
    for word in words:
        text = _decoded(look(word) or "").strip()
        if text:
            return clean(text)
    return ""


def _decoded(text: str) -> str:
    r"""udev writes a byte that may do harm as \xNN."""
    raw = text[: 4 * LIMIT].encode(errors="replace")
    return _ESCAPED.sub(lambda found: bytes([int(found[1], 16)]), raw).decode(errors="replace")

"""What is plugged into the test bed: kinds of readers, devices, their interfaces."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from system.ifd import Make, Slot

USB_CHANNEL: Final = 0x0020
CCID: Final = (0x0B, 0, 0)
VENDOR_SPECIFIC: Final = (0xFF, 0, 0)
HUB: Final = {"bDeviceClass": "09", "idVendor": "1d6b", "idProduct": "0002"}


@dataclass(frozen=True)
class Model:
    """A kind of reader: ids, what the device calls itself, what the driver calls it."""

    vid: int
    pid: int
    product: str
    name: str = ""
    """The driver's friendly name; "": no driver knows it."""
    manufacturer: str = ""


OMNIKEY: Final = Model(
    0x076B, 0x3031, "Smart Card Reader USB", "HID Global OMNIKEY 3x21 Smart Card Reader", "OMNIKEY"
)
SCR: Final = Model(
    0x04E6, 0x5116, "SCR331x USB Smart Card Reader", "SCM Microsystems Inc. SCR 3310", "SCM"
)
SPR: Final = Model(0x04E6, 0xE003, "SPRx32 USB", "SCM Microsystems Inc. SPR 532", "SCM")
CHERRY: Final = Model(
    0x046A, 0x003E, "SmartTerminal ST-2xxx", "Cherry GmbH SmartTerminal ST-2xxx", "Cherry GmbH"
)
GEMALTO: Final = Model(0x08E6, 0x3437, "USB SmartCard Reader", "Gemalto PC Twin Reader", "Gemalto")
UNKNOWN: Final = Model(0x1234, 0x5678, "Nobody's Reader", "", "Nobody")
MODELS: Final = (OMNIKEY, SCR, SPR, CHERRY, GEMALTO)


@dataclass
class Interface:
    """One interface of a device: number, class, name; its slots where pcscd takes it."""

    number: int = 0
    kind: tuple[int, int, int] = CCID
    name: str = ""
    make: Make = field(default_factory=Make)
    syspath: str = ""
    device: str = ""
    """What pcscd tells the driver, by which the driver finds us."""
    slots: list[Slot] = field(default_factory=list)


@dataclass
class Plugged:
    """A device in a port."""

    port: str
    model: Model
    serial: str
    bus: int
    number: int
    """Of the device: another one each time it is plugged in."""
    interfaces: list[Interface]
    syspath: str = ""

    @property
    def slot(self) -> Slot:
        """The first slot of its first interface that is a reader."""
        return next(each.slots[0] for each in self.interfaces if each.slots)

    @property
    def channel_id(self) -> int:
        """As libccid makes it."""
        return USB_CHANNEL << 16 | self.bus << 8 | self.number


def device_attributes(device: Plugged) -> dict[str, str]:
    """What sysfs says of a device."""
    model = device.model
    attributes = {
        "idVendor": f"{model.vid:04x}",
        "idProduct": f"{model.pid:04x}",
        "busnum": str(device.bus),
        "devnum": str(device.number),
        "devpath": device.port.partition("-")[2],
        "manufacturer": model.manufacturer,
        "product": model.product,
        "serial": device.serial,
        "bDeviceClass": "00",
        "bConfigurationValue": "1",
    }
    return {name: value for name, value in attributes.items() if value}


def device_properties(device: Plugged) -> dict[str, str]:
    """What the kernel says of a device, and udev's own rules (usb_id)."""
    model = device.model
    vendor = (model.manufacturer or f"{model.vid:04x}").replace(" ", "_")
    product = model.product.replace(" ", "_")
    serial = {"ID_SERIAL_SHORT": device.serial} if device.serial else {}
    interfaces = [f"{kind[0]:02x}{kind[1]:02x}{kind[2]:02x}" for kind in _kinds(device)]
    return {
        "DEVTYPE": "usb_device",
        "DEVNAME": f"/dev/bus/usb/{device.bus:03d}/{device.number:03d}",
        "BUSNUM": f"{device.bus:03d}",
        "DEVNUM": f"{device.number:03d}",
        "PRODUCT": f"{model.vid:x}/{model.pid:x}/100",
        "ID_BUS": "usb",
        "ID_VENDOR": vendor,
        "ID_VENDOR_ID": f"{model.vid:04x}",
        "ID_MODEL": product,
        "ID_MODEL_ID": f"{model.pid:04x}",
        "ID_SERIAL": "_".join([vendor, product, *serial.values()]),
        "ID_USB_INTERFACES": f":{':'.join(interfaces)}:",
        **serial,
    }


def _kinds(device: Plugged) -> list[tuple[int, int, int]]:
    return list(dict.fromkeys(each.kind for each in device.interfaces))

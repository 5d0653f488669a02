"""Stock pcscd with readers that are plugged in and pulled, and no hardware.

    def test_something(bed: Bed) -> None:                    # fixtures in tests/conftest.py
        reader = bed.plug("1-4", OMNIKEY, serial="A1")       # pcscd lists it about 50 ms later
        bed.plug("1-4.2", SPR, make=Make(features=(Feature.VERIFY_PIN_DIRECT,)))
        reader.slot.insert(make_card())                      # fakes.cards; see system/ifd.py
        bed.unplug("1-4")                                    # real "remove" events, reader gone
        bed.names()                                          # what pcscd lists, asked without us

    async def test_with_the_daemon(bed: Bed, bed_daemon: Callable[..., Daemon], bus: Bus):
        daemon = bed_daemon()                                # its udev sees the same devices
        async with await Subscriber.open(bus.address) as seen: ...

    bed.pcscd.stop() / .kill() / .start()                    # cards and plugs stay as they are
    bed.plug("1-7", UNKNOWN)                                 # no driver: udev alone sees it
    UDEVD.unlink()                                           # udevd is gone, as far as one can see
    bed.plugs.uevent(reader.interfaces[0].syspath, "add")    # the same event twice

    def test_many(counters: Callable[..., Counter]) -> None: # no udev: reader.conf, serial readers
        readers = counters(16)                               # "Counter 00 00" to "Counter 0F 00"
        readers.slots[3].insert(make_card())

While a bed is up, the run's own pcscd rests: both want /run/pcscd.
"""

from __future__ import annotations

import plistlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Self

from smartcard import scard

from cardsession.stack import Pcscd
from system.ifd import Call, Make, Readers, Slot, driver
from system.plugs import Plugs

DRIVERS: Final = Path("/usr/lib/pcsc/drivers")
"""Compiled into pcscd; a private directory in the namespace of daemon/setup.sh."""
_BUNDLE: Final = DRIVERS / "cardsession.bundle"
UDEVD: Final = Path("/run/udev/control")
"""udevd's sign of life. libumockdev sends what udevd would send, but does not show it."""
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


class Bed:
    """The USB bus, our driver, and stock pcscd. A context manager.

    `virtual`: with the two readers of `cardsession-virtual`, too. `models`: what the driver knows.
    """

    def __init__(
        self, directory: Path, *, models: Sequence[Model] = MODELS, virtual: bool = False
    ) -> None:
        self._models = models
        self._open = ExitStack()
        self._next: dict[int, int] = {}
        self._hubs: dict[str, str] = {}
        self.plugged: dict[str, Plugged] = {}
        """What is plugged in, by port."""
        self._directory = directory
        self._virtual = virtual
        self.plugs = Plugs()
        self.readers = Readers(directory / "ifd.sock")

    def __enter__(self) -> Self:
        with ExitStack() as entered:
            entered.enter_context(self.readers)
            entered.enter_context(self.plugs)
            entered.enter_context(_bundle(self._models))
            entered.enter_context(_udevd())
            others = self._directory / "reader.conf.d"
            others.mkdir()
            self.pcscd = Pcscd(
                self._directory,
                configuration=None if self._virtual else others,
                environment=self.environment | self.readers.environment,
                name="pcscd of the bed",
            )
            entered.enter_context(self.pcscd)
            self._open = entered.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def environment(self) -> Mapping[str, str]:
        """For a program whose udev is to see these devices: `Daemon(…, environment=…)`."""
        return self.plugs.environment

    def plug(  # noqa: PLR0913 - keyword-only, each with a default
        self,
        port: str,
        model: Model = OMNIKEY,
        *,
        serial: str = "",
        make: Make | None = None,
        interfaces: Sequence[Interface] = (),
        listed: bool = True,
        refuses: bool = False,
        device_properties: Mapping[str, str] | None = None,
        properties: Mapping[str, str] | None = None,
    ) -> Plugged:
        """Plug a device into a port ("1-4", "1-4.2"); waits until pcscd has opened its readers,
        where its driver knows it (`listed`) and the reader answers (else `refuses`).

        `make`: what the reader says of itself; serial, type and channel id are filled in where
        they are empty (a channel id below 0: it does not say one). `interfaces` of a device that
        has more than one; `properties`: more of them for udev, of the interfaces.
        """
        if port in self.plugged:
            raise ValueError(f"there is something in port {port}")
        bus = int(port.split("-", maxsplit=1)[0])
        self._next[bus] = self._next.get(bus, 1) + 1
        device = Plugged(port, model, serial, bus, self._next[bus], list(interfaces))
        if not device.interfaces:
            device.interfaces.append(Interface(make=make or Make()))
        for each in device.interfaces:
            self._make_slots(device, each)
            for slot in each.slots if refuses else ():
                slot.failing.add(Call.OPEN)
        device.syspath = self._add_device(device, device_properties or {})
        for each in device.interfaces:
            each.syspath = self._add_interface(device, each, properties or {})
        self.plugged[port] = device
        known = listed and not refuses and model in self._models
        if known and self.pcscd.returncode is None:
            slots = [slot for each in device.interfaces for slot in each.slots]
            self.pcscd.wait_for("opens the reader", lambda: all(each.opened for each in slots))
        return device

    def unplug(self, port: str, *, quietly: bool = False) -> None:
        """Pull what is in a port. `quietly`: without the events; nobody is told."""
        device = self.plugged.pop(port)
        take = self.plugs.forget if quietly else self.plugs.remove
        for each in device.interfaces:
            self.readers.remove(each.device)
            take(each.syspath)
        take(device.syspath)

    def names(self) -> list[str]:
        """What pcscd lists."""
        return names()

    def wait_names(self, count: int) -> list[str]:
        """Wait until pcscd lists so many readers; their names."""
        self.pcscd.wait_for(f"lists {count} readers", lambda: len(names()) == count)
        return names()

    def _make_slots(self, device: Plugged, interface: Interface) -> None:
        model = device.model
        place = f"/dev/bus/usb/{device.bus:03d}/{device.number:03d}"
        interface.device = f"usb:{model.vid:04x}/{model.pid:04x}:libudev:{interface.number}:{place}"
        if interface.kind not in {CCID, VENDOR_SPECIFIC}:
            return
        make = interface.make
        channel = device.channel_id if make.channel_id is None else make.channel_id
        interface.make = replace(
            make,
            serial=make.serial or device.serial,
            type=make.type or model.product,
            channel_id=None if channel < 0 else channel,
        )
        interface.slots = self.readers.add(interface.device, interface.make)

    def _add_device(self, device: Plugged, more: Mapping[str, str]) -> str:
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
        properties = _device_properties(device) | dict(more)
        kept = {name: value for name, value in attributes.items() if value}
        return self.plugs.add(device.port, self._hub(device.port), kept, properties)

    def _add_interface(self, device: Plugged, interface: Interface, more: Mapping[str, str]) -> str:
        kind = interface.kind
        attributes = {
            "bInterfaceClass": f"{kind[0]:02x}",
            "bInterfaceSubClass": f"{kind[1]:02x}",
            "bInterfaceProtocol": f"{kind[2]:02x}",
            "bInterfaceNumber": f"{interface.number:02x}",
        } | ({"interface": interface.name} if interface.name else {})
        properties = {
            "DEVTYPE": "usb_interface",
            "INTERFACE": "/".join(str(each) for each in kind),
            "PRODUCT": f"{device.model.vid:x}/{device.model.pid:x}/100",
            **more,
        }
        name = f"{device.port}:1.{interface.number}"
        return self.plugs.add(name, device.syspath, attributes, properties)

    def _hub(self, port: str) -> str:
        """The syspath of what a port belongs to: a root hub, or a hub that is plugged in itself."""
        name = port.rpartition(".")[0] or f"usb{port.split('-', maxsplit=1)[0]}"
        if name in self.plugged:
            raise ValueError(f"what is in port {name} is no hub")
        if name not in self._hubs:
            parent = self._hub(name) if "-" in name else None
            self._hubs[name] = self.plugs.add(name, parent, HUB, {"DEVTYPE": "usb_device"})
        return self._hubs[name]


def _device_properties(device: Plugged) -> dict[str, str]:
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


class Counter:
    """Stock pcscd with readers of reader.conf, no udev at all. A context manager."""

    def __init__(self, directory: Path, count: int = 16, make: Make | None = None) -> None:
        self._open = ExitStack()
        self.readers = Readers(directory / "ifd.sock")
        self.slots: list[Slot] = []
        """In the order of their names."""
        others = directory / "reader.conf.d"
        others.mkdir()
        text = ""
        for number in range(count):
            # pcscd looks for a file of that name, unless there is a colon in it
            device = f"/dev/null:{number}"
            self.slots += self.readers.add(device, make or Make(serial=f"S{number:02}"))
            text += (
                f'FRIENDLYNAME "Counter"\nDEVICENAME {device}\n'
                f"LIBPATH {driver()}\nCHANNELID {number}\n\n"
            )
        (others / "counter").write_text(text)
        environment = self.readers.environment
        self.pcscd = Pcscd(
            directory, configuration=others, environment=environment, name="pcscd of the counter"
        )

    def __enter__(self) -> Self:
        with ExitStack() as entered:
            entered.enter_context(self.readers)
            entered.enter_context(self.pcscd)
            self.pcscd.wait_for(
                "opens every reader", lambda: all(slot.opened for slot in self.slots)
            )
            self._open = entered.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()


@contextmanager
def _bundle(models: Sequence[Model]) -> Iterator[None]:
    """Our driver where pcscd looks for drivers of USB readers."""
    library = _BUNDLE / "Contents" / "Linux" / "libcardsessionifd.so"
    library.parent.mkdir(parents=True)
    try:
        shutil.copyfile(driver(), library)
        known = {
            "CFBundleExecutable": library.name,
            "CFBundleIdentifier": "org.cardsession.ifd",
            "ifdCapabilities": "0x00000000",
            "ifdManufacturerString": "Cardsession",
            "ifdProductString": "Test readers",
            "ifdVendorID": [f"0x{each.vid:04X}" for each in models],
            "ifdProductID": [f"0x{each.pid:04X}" for each in models],
            "ifdFriendlyName": [each.name for each in models],
        }
        (_BUNDLE / "Contents" / "Info.plist").write_bytes(plistlib.dumps(known))
        yield
    finally:
        shutil.rmtree(_BUNDLE)


@contextmanager
def _udevd() -> Iterator[None]:
    """There is an udevd, for all that can be seen of it: /run/udev is private, too."""
    shown = not UDEVD.exists()
    if shown:
        UDEVD.touch()
    try:
        yield
    finally:
        if shown:
            UDEVD.unlink(missing_ok=True)


@contextmanager
def resting(pcscd: Pcscd) -> Iterator[None]:
    """The run's own pcscd makes room for another one."""
    pcscd.stop()
    try:
        yield
    finally:
        pcscd.start()


def names() -> list[str]:
    """What the card service lists; nothing while there is none."""
    code, context = scard.SCardEstablishContext(scard.SCARD_SCOPE_SYSTEM)
    if code != scard.SCARD_S_SUCCESS:
        return []
    try:
        _, readers = scard.SCardListReaders(context, [])
        return sorted(readers)
    finally:
        scard.SCardReleaseContext(context)


def state(name: str) -> int:
    """The state of a reader (SCARD_STATE_…), without the counter; 0 if it cannot be asked."""
    code, context = scard.SCardEstablishContext(scard.SCARD_SCOPE_SYSTEM)
    if code != scard.SCARD_S_SUCCESS:
        return 0
    try:
        asked = [(name, scard.SCARD_STATE_UNAWARE)]
        code, answers = scard.SCardGetStatusChange(context, 0, asked)
        return int(answers[0][1]) & 0xFFFF if code == scard.SCARD_S_SUCCESS else 0
    finally:
        scard.SCardReleaseContext(context)

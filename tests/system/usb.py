"""Stock pcscd with readers that are plugged in and pulled, and no hardware.

    def test_something(bed: Bed) -> None:                    # fixtures in tests/conftest.py
        reader = bed.plug("1-4", OMNIKEY, serial="A1")       # pcscd lists it about 50 ms later
        bed.plug("1-5.2", SPR, make=Make(features=(Feature.VERIFY_PIN_DIRECT,)))
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
from dataclasses import replace
from pathlib import Path
from typing import Final, Self

from smartcard import scard

from cardsession.stack import Pcscd, StackError, in_namespace
from system.ifd import Call, Make, Readers, Slot, driver
from system.models import (
    CCID,
    CHERRY,
    GEMALTO,
    HUB,
    MODELS,
    OMNIKEY,
    SCR,
    SPR,
    UNKNOWN,
    VENDOR_SPECIFIC,
    Interface,
    Model,
    Plugged,
    device_attributes,
    device_properties,
)
from system.plugs import Plugs

__all__ = [
    "CCID",
    "CHERRY",
    "GEMALTO",
    "MODELS",
    "OMNIKEY",
    "SCR",
    "SPR",
    "UDEVD",
    "UNKNOWN",
    "VENDOR_SPECIFIC",
    "Bed",
    "Counter",
    "Interface",
    "Model",
    "Plugged",
    "names",
    "resting",
    "state",
]

DRIVERS: Final = Path("/usr/lib/pcsc/drivers")
"""Compiled into pcscd; a private directory in the namespace of daemon/setup.sh."""
_BUNDLE: Final = DRIVERS / "cardsession.bundle"
UDEVD: Final = Path("/run/udev/control")
"""udevd's sign of life. libumockdev sends what udevd would send, but does not show it."""


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
        if not in_namespace():
            raise StackError("the bed writes where pcscd has its drivers: only in our namespace")
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
        attributes, properties = device_attributes(device), device_properties(device)
        parent = self._hub(device.port)
        return self.plugs.add(device.port, parent, attributes, properties | dict(more))

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

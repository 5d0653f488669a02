"""A USB bus that a test plugs readers into: udev's adapter in a process of its own, under
libumockdev's preload, fed with lines of JSON; each of its reports comes back as one.

    bus.do(("plug", "1-4.2", 5), ("unplug", "1-3"))    # all in one turn of its loop
    bus.until(lambda readers: len(readers) == 1)
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Self

from cardsession.adapters.udev import UdevHotplug
from cardsession.core.seats import UsbReader
from cardsession.stack.processes import (
    StackError,
    bound_to_us,
    child_environment,
    python_module,
    wait_until,
)

PRELOAD: Final = "libumockdev-preload.so.0"
CONTROLLER: Final = "/sys/devices"
Readers = dict[str, UsbReader]
"""By port path and interface."""
_TEXT: Final = ctypes.c_char_p
_LIST: Final = ctypes.POINTER(ctypes.c_char_p)


class UsbBus:
    """The test's side. A context manager."""

    def __init__(self, directory: Path) -> None:
        self.control = directory / "control"
        """udevd's sign of life: there from the start; a test may take it away."""
        self.reports: list[Readers | None] = []
        self._errors = directory / "stderr"

    def __enter__(self) -> Self:
        self.control.touch()
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                bound_to_us([*python_module("fakes.usbbus"), str(self.control)]),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=child_environment(
                    {"LD_PRELOAD": PRELOAD, "PYTHONPATH": str(Path(__file__).parent.parent)}
                ),
            )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            assert self._process.wait(20) == 0, self._errors.read_text()
        finally:
            self._process.kill()
            self._thread.join(20)
            self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            readers = None if said is None else [UsbReader(**each) for each in said]
            found = readers and {f"{each.port_path}:{each.interface}": each for each in readers}
            assert not readers or len(readers) == len(found or ())
            self.reports.append(None if readers is None else found or {})

    def do(self, *steps: tuple[Any, ...]) -> int:
        """Steps (methods of `Testbed` and `_Child`), in one turn; how many reports came before.
        At most ten events: libumockdev gives up where the adapter does not take them."""
        before = len(self.reports)
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(steps) + "\n")
        self._process.stdin.flush()
        return before

    def until(self, holds: Callable[[Readers], bool], since: int = 0) -> Readers:
        """Wait until the last report (of those `since`) is one for which it holds."""

        def now() -> bool:
            last = self.reports[-1] if len(self.reports) > since else None
            assert self._process.poll() is None, self._errors.read_text()
            return last is not None and holds(last)

        try:
            wait_until("the readers are those", now)
        except StackError as error:
            raise AssertionError(f"{error}; last: {self.reports[-1:]}") from None
        last = self.reports[-1]
        assert last is not None
        return last

    def until_none(self, since: int = 0) -> None:
        """Wait until the last report (of those `since`) says that there is no udev."""
        wait_until("no udev", lambda: len(self.reports) > since and self.reports[-1] is None)


class Testbed:
    """libumockdev's testbed: it needs the preload."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libumockdev.so.0")
        for name, arguments in {
            "add_devicev": [ctypes.c_void_p, _TEXT, _TEXT, _TEXT, _LIST, _LIST],
            "uevent": [ctypes.c_void_p, _TEXT, _TEXT],
            "remove_device": [ctypes.c_void_p, _TEXT],
            "set_property": [ctypes.c_void_p, _TEXT, _TEXT, _TEXT],
        }.items():
            getattr(self._library, f"umockdev_testbed_{name}").argtypes = arguments
        self._library.umockdev_testbed_add_devicev.restype = ctypes.c_void_p
        self._library.umockdev_testbed_new.restype = ctypes.c_void_p
        self._bed = self._library.umockdev_testbed_new()
        self._interfaces: dict[str, list[str]] = {}
        """Names, by device."""

    def plug(self, port: str, number: int, **words: str) -> None:
        """A device with one interface; events of both. `words`: properties of the interface."""
        self.device(port, number)
        self.interface(port, 0, **words)

    def device(self, port: str, number: int, **words: str) -> None:
        """A device without interfaces, and its event."""
        attributes = {
            "busnum": port.partition("-")[0],
            "devnum": str(number),
            "idVendor": "08e6",
            "idProduct": "4433",
        }
        properties = {
            "DEVTYPE": "usb_device",
            "PRODUCT": "8e6/4433/201",
            "ID_MODEL_ENC": r"Test\x20Reader",
            "ID_SERIAL_SHORT": f"S{number}",
        }
        self._add(port, None, attributes, properties | words)

    def interface(self, port: str, number: int, **words: str) -> None:
        """An interface of a device that is there, and its event."""
        attributes = {"bInterfaceNumber": f"{number:02x}", "interface": f"Interface {number}"}
        properties = {
            "DEVTYPE": "usb_interface",
            "PRODUCT": "8e6/4433/201",
            "INTERFACE": "11/0/0",
        }
        name = f"{port}:1.{number}"
        self._interfaces.setdefault(port, []).append(name)
        self._add(name, f"{CONTROLLER}/{port}", attributes, properties | words)

    def unplug(self, port: str) -> None:
        """Events as the kernel orders them, then nothing of it is left."""
        for name in self._interfaces[port]:
            self.event("remove", name)
        self.event("remove", port)
        self.vanish(port)

    def event(self, action: str, name: str) -> None:
        """One event of a device or interface that is there."""
        self._library.umockdev_testbed_uevent(self._bed, _path(name).encode(), action.encode())

    def vanish(self, port: str) -> None:
        """Nothing of it is left in sysfs; no event tells it."""
        for name in [*self._interfaces.pop(port), port]:
            self._library.umockdev_testbed_remove_device(self._bed, _path(name).encode())

    def _add(
        self, name: str, parent: str | None, attributes: Mapping[str, str], words: Mapping[str, str]
    ) -> None:
        above = parent.encode() if parent else None
        self._library.umockdev_testbed_add_devicev(
            self._bed, b"usb", name.encode(), above, _list(attributes), _list(words)
        )


def _path(name: str) -> str:
    """Of a device (1-4), or an interface (1-4:1.0)."""
    port = name.partition(":")[0]
    return f"{CONTROLLER}/{port}" if port == name else f"{CONTROLLER}/{port}/{name}"


def _list(words: Mapping[str, str]) -> ctypes.Array[ctypes.c_char_p]:
    flat = [each.encode() for pair in words.items() for each in pair]
    return (_TEXT * (len(flat) + 1))(*flat, None)


class _Child:
    """The adapter's side."""

    def __init__(self, control: str) -> None:
        self._bed = Testbed()
        self._control = control

    async def run(self) -> None:
        """Until its input ends."""
        self._hotplug = UdevHotplug(self._control)
        lines = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        while line := await lines.readline():
            for name, *arguments in json.loads(line):
                words = arguments.pop() if arguments and isinstance(arguments[-1], dict) else {}
                owner = self if hasattr(self, name) else self._bed
                getattr(owner, name)(*arguments, **words)
            for _ in range(3):  # the loop looks at its descriptors
                await asyncio.sleep(0)
        self._hotplug.close()

    def start(self) -> None:
        """The adapter begins."""
        self._hotplug.start(_tell)

    def look_again(self) -> None:
        """It is asked to."""
        self._hotplug.look_again()

    def close(self) -> None:
        """It ends."""
        self._hotplug.close()


def _tell(readers: tuple[UsbReader, ...] | None) -> None:
    fields = UsbReader.__slots__
    said = readers and [{name: getattr(each, name) for name in fields} for each in readers]
    print(json.dumps(None if readers is None else said or []), flush=True)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(_Child(sys.argv[1]).run())

"""USB devices that come and go, in a process of its own: libumockdev, fed with lines of JSON.

libumockdev finds its own devices only under its preload, and a test's process runs without. A
program that is to see them runs with `Plugs.environment`.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Final, Self

from cardsession.stack.processes import StackError, bound_to_us, child_environment

PRELOAD: Final = "libumockdev-preload.so.0"
_SUBSYSTEM: Final = b"usb"


class Plugs:
    """The USB bus of a test. A context manager."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self.directory = ""
        """Where the devices are (UMOCKDEV_DIR)."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            bound_to_us([sys.executable, "-P", __file__]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=child_environment({"LD_PRELOAD": PRELOAD}),
        )
        self.directory = self._ask("directory")
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.communicate(timeout=10)

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs in its environment to see these devices, and no others."""
        return {"LD_PRELOAD": PRELOAD, "UMOCKDEV_DIR": self.directory}

    def add(
        self,
        name: str,
        parent: str | None,
        attributes: Mapping[str, str],
        properties: Mapping[str, str],
    ) -> str:
        """A device below the one with the syspath `parent`, and its "add"; its syspath."""
        return self._ask("add", name, parent, dict(attributes), dict(properties))

    def uevent(self, syspath: str, action: str) -> None:
        """An event of a device that there is."""
        self._ask("uevent", syspath, action)

    def remove(self, syspath: str) -> None:
        """Its "remove", and it is gone. Its interfaces first, as the kernel does."""
        self.uevent(syspath, "remove")
        self.forget(syspath)

    def forget(self, syspath: str) -> None:
        """It is gone without an event."""
        self._ask("forget", syspath)

    def _ask(self, *question: Any) -> str:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise StackError("there is no USB bus yet")
        process.stdin.write(json.dumps(question) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        if not answer:
            raise StackError(f"the USB bus ended at {question}")
        return str(json.loads(answer))


class _Testbed:
    """libumockdev, as far as it is wanted."""

    def __init__(self) -> None:
        library = ctypes.CDLL("libumockdev.so.0")
        library.umockdev_testbed_new.restype = ctypes.c_void_p
        library.umockdev_testbed_get_root_dir.restype = ctypes.c_char_p
        library.umockdev_testbed_add_devicev.restype = ctypes.c_char_p
        self._library = library
        self._bed = ctypes.c_void_p(library.umockdev_testbed_new())

    def close(self) -> None:
        """The last reference takes the devices' directory away."""
        ctypes.CDLL("libgobject-2.0.so.0").g_object_unref(self._bed)

    def directory(self) -> str:
        """UMOCKDEV_DIR."""
        return bytes(self._library.umockdev_testbed_get_root_dir(self._bed)).decode()

    def add(
        self,
        name: str,
        parent: str | None,
        attributes: Mapping[str, str],
        properties: Mapping[str, str],
    ) -> str:
        """umockdev_testbed_add_devicev, which sends "add" as well."""
        above = None if parent is None else parent.encode()
        words = (_SUBSYSTEM, name.encode(), above, _words(attributes), _words(properties))
        made = self._library.umockdev_testbed_add_devicev(self._bed, *words)
        if not made:
            raise ValueError(name)
        return bytes(made).decode()

    def uevent(self, syspath: str, action: str) -> str:
        """umockdev_testbed_uevent."""
        self._library.umockdev_testbed_uevent(self._bed, syspath.encode(), action.encode())
        return ""

    def forget(self, syspath: str) -> str:
        """umockdev_testbed_remove_device, which sends nothing."""
        self._library.umockdev_testbed_remove_device(self._bed, syspath.encode())
        return ""


def _words(values: Mapping[str, str]) -> ctypes.Array[ctypes.c_char_p]:
    """Name, value, name, value, and the end."""
    words = [word.encode() for pair in values.items() for word in pair]
    return (ctypes.c_char_p * (len(words) + 1))(*words, None)


def _serve() -> None:
    bed = _Testbed()
    try:
        for line in sys.stdin:
            member, *arguments = json.loads(line)
            print(json.dumps(getattr(bed, member)(*arguments)), flush=True)  # noqa: T201
    finally:
        bed.close()


if __name__ == "__main__":
    _serve()

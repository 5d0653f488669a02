"""One QEMU: its process, its monitor (QMP), and lines over its virtio-serial ports."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from cardsession.stack.processes import Child, child_environment, program, wait_until

EMULATED: Final = ("-accel", "tcg,thread=multi,tb-size=512", "-cpu", "qemu64")
"""The plainest model: each instruction set more is modules to load and code to translate."""
VIRTUALISED: Final = ("-accel", "kvm", "-cpu", "host")
COMMAND_LINE: Final = "root=/dev/vda rw console=ttyS0 mitigations=off nokaslr random.trust_cpu=on"
PORTS: Final = ("agent", "talk1", "talk2", "talk3")
_TRY_SECONDS: Final = 15.0
_MONITOR_SECONDS: Final = 120.0


class QemuError(Exception):
    """The monitor refused a command, or a line did not come."""


class Line:
    """Lines over a unix socket, with deadlines."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(_MONITOR_SECONDS)
        self._socket.connect(str(path))
        self._unread = b""

    def send(self, line: bytes) -> None:
        """One line."""
        self._socket.settimeout(_MONITOR_SECONDS)
        self._socket.sendall(line + b"\n")

    def receive(self, seconds: float) -> bytes:
        """The next line. TimeoutError after `seconds`, QemuError if there will be none."""
        deadline = time.monotonic() + seconds
        while b"\n" not in self._unread:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"no line within {seconds:g} s")
            self._socket.settimeout(left)
            if not (some := self._socket.recv(1 << 16)):
                raise QemuError("the line was closed")
            self._unread += some
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


class Qemu(Child):
    """A machine that stands still until `go`. A context manager.

    `directory` gets the console, sockets and QEMU's own log.
    """

    def __init__(
        self,
        directory: Path,
        image: Path,
        accelerator: Sequence[str],
        disks: Sequence[str],
        snapshot: str | None = None,
    ) -> None:
        self.directory = directory
        self.console = directory / "console"
        self.lines: dict[str, Line] = {}
        self.events: list[dict[str, Any]] = []
        self._monitor: Line | None = None
        command = [
            *(program("qemu-system-x86_64"), "-nodefaults", "-no-user-config", "-S"),
            *("-machine", "pc", *accelerator, "-smp", "2", "-m", "1024", "-display", "none"),
            *("-kernel", str(image / "vmlinuz"), "-initrd", str(image / "initrd")),
            *("-append", COMMAND_LINE, "-rtc", "base=utc", "-device", "virtio-rng-pci"),
            *("-chardev", f"file,id=console,path={self.console},append=on"),
            *("-serial", "chardev:console", "-device", "qemu-xhci,id=usb"),
            *("-device", "virtio-serial"),
            *("-qmp", f"unix:{directory}/monitor,server=on,wait=off"),
        ]
        for port in PORTS:
            path = f"socket,id={port},path={directory}/{port},server=on,wait=off"
            device = f"virtserialport,chardev={port},name={port}"
            command += ["-chardev", path, "-device", device]
        for disk in disks:
            command += ["-drive", f"if=virtio,{disk}"]
        if snapshot is not None:
            command += ["-loadvm", snapshot]
        super().__init__("qemu", command, directory / "qemu.log", child_environment())

    def start(self) -> None:
        """Start it, with every line connected: to the guest a port without us is at its end."""
        super().start()
        self.wait_for("its monitor listens", (self.directory / "monitor").exists)
        self._monitor = Line(self.directory / "monitor")
        self._monitor.receive(_MONITOR_SECONDS)  # the greeting: a snapshot has been loaded
        self.monitor("qmp_capabilities")
        self.lines = {port: Line(self.directory / port) for port in PORTS}

    def monitor(self, command: str, **arguments: Any) -> Any:
        """One command of QMP; what it returns. QemuError if it is refused."""
        assert self._monitor is not None
        request = {"execute": command, "arguments": arguments}
        self._monitor.send(json.dumps(request).encode())
        while True:
            answer = json.loads(self._monitor.receive(_MONITOR_SECONDS))
            if "event" in answer:
                self.events.append(answer)
            elif "error" in answer:
                raise QemuError(f"{command} {arguments}: {answer['error']['desc']}")
            else:
                return answer["return"]

    def human(self, line: str) -> str:
        """A command of the monitor for people. QemuError if it answers at all."""
        said: str = self.monitor("human-monitor-command", **{"command-line": line})
        if said.strip():
            raise QemuError(f"{line}: {said.strip()}")
        return said

    def told(self, event: str, **data: Any) -> bool:
        """Whether that event has come since it was last asked for."""
        self.monitor("query-status")  # events before it have been read then
        for each in self.events:
            if each["event"] == event and data.items() <= each.get("data", {}).items():
                self.events.remove(each)
                return True
        return False

    def until_told(self, event: str, seconds: float, **data: Any) -> None:
        """Wait for an event."""
        wait_until(f"QEMU's {event} {data or ''}", lambda: self.told(event, **data), seconds)

    def hang_up(self) -> None:
        """Close every line."""
        for line in [*self.lines.values(), *([self._monitor] if self._monitor else [])]:
            line.close()


def accelerator(directory: Path, image: Path) -> Sequence[str]:
    """Hardware virtualisation if a kernel says a word under it: it may be offered and not work."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return EMULATED
    console = directory / "kvm"
    command = [
        *(program("qemu-system-x86_64"), "-nodefaults", "-no-user-config", "-machine", "pc"),
        *(*VIRTUALISED, "-m", "256", "-display", "none", "-kernel", str(image / "vmlinuz")),
        *("-append", "console=ttyS0", "-serial", f"file:{console}"),
    ]

    def speaks() -> bool:
        if child.returncode is not None:
            raise QemuError("ended")
        return console.exists() and b"Linux version" in console.read_bytes()

    with Child("kvm", command, directory / "kvm.log", child_environment()) as child:
        try:
            wait_until("a kernel speaks", speaks, _TRY_SECONDS)
        except Exception:
            return EMULATED
    return VIRTUALISED

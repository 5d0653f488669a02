"""The machine at the counter: commands inside it, readers in its ports, its people and its bus."""

from __future__ import annotations

import base64
import json
import shlex
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final, Self

from cardsession.stack.processes import StackError, wait_until
from machine.cards import Card
from machine.qemu import Line, Qemu

NAME: Final = "org.cardsession1"
ROOT: Final = "/org/cardsession1"
UNIT: Final = "cardsessiond.service"
CANARY: Final = "73194682"
DEADLINE: Final = 90.0
"""Seconds for anything inside: an emulated machine on a busy one has a hard life."""
BOOT: Final = 300.0
_POLL: Final = 0.2
_SLACK: Final = 60.0


@dataclass(frozen=True, slots=True)
class Said:
    """What a command in the machine came to."""

    command: str
    status: int
    text: str


class Refused(Exception):
    """A command in the machine failed; the text is what it said."""


class Machine:
    """A running machine. A context manager; `people` are chemist, technician, stranger and root."""

    def __init__(self, qemu: Qemu, passcode: str = CANARY) -> None:
        self.qemu = qemu
        self.directory = qemu.directory
        self.passcode = passcode
        self.cards: list[Card] = []
        self._commands = 0
        self._plugs = 0
        self._talkers = 0
        self._parts = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._parts.enter_context(self.qemu)
            self._parts.callback(self.qemu.hang_up)
        except BaseException:
            self._parts.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._parts.close()

    # -- power

    def boot(self) -> None:
        """Let it run from the beginning, until everything that starts by itself has."""
        self.qemu.monitor("cont")
        self.settled()

    def settled(self) -> None:
        """Wait until it is up. Refused if a unit has failed on the way."""
        said = self.ask("systemctl is-system-running --wait", seconds=BOOT)
        if said.status != 0:
            raise Refused(f"{said.text.strip()}: {self.ask('systemctl --failed --no-legend').text}")

    def resume(self) -> None:
        """Let a machine from a snapshot go on, in today's time."""
        self.qemu.monitor("cont")
        self.run(f"date --set=@{time.time():.0f}")

    def save(self, snapshot: str) -> None:
        """Keep it as it is now, in its disk."""
        self.run("sync")
        self.qemu.human(f"savevm {snapshot}")

    # -- commands

    def ask(
        self, command: str, *, user: str = "root", seconds: float = DEADLINE, given: str = ""
    ) -> Said:
        """A command (bash) of somebody, `given` on its standard input; whatever it comes to."""
        if user != "root":
            command = f"cd / && exec runuser -u {user} -- bash -c {shlex.quote(command)}"
        self._commands += 1
        request = f"{self._commands} {seconds:.0f} {_coded(command)} {_coded(given)}"
        agent = self.qemu.lines["agent"]
        agent.send(request.encode())
        deadline = time.monotonic() + seconds + _SLACK
        while True:  # an agent that came back, after a restart of the machine, says nothing new
            number, status, *text = agent.receive(deadline - time.monotonic()).decode().split()
            if int(number) == self._commands:
                return Said(command, int(status), base64.b64decode("".join(text)).decode())

    def run(self, command: str, **options: Any) -> str:
        """The same, and it must succeed: what it printed. Refused with all of that if not."""
        said = self.ask(command, **options)
        if said.status != 0:
            raise Refused(f"{said.command}: status {said.status}\n{said.text}")
        return said.text

    def until(self, what: str, command: str, seconds: float = DEADLINE, user: str = "root") -> str:
        """Wait, inside, until a command succeeds; what it printed."""
        loop = f"until said=$({command}); do sleep {_POLL}; done; printf '%s' \"$said\""
        said = self.ask(loop, seconds=seconds, user=user)
        if said.status != 0:
            last = self.ask(command, user=user)
            raise StackError(f"{what}: not within {seconds:g} s: {last.status} {last.text}")
        return said.text

    def wait(self, what: str, condition: Callable[[], bool], seconds: float = DEADLINE) -> None:
        """Wait, outside, until a condition holds."""

        def slowly() -> bool:
            if condition():
                return True
            time.sleep(_POLL)
            return False

        wait_until(what, slowly, seconds)

    # -- units

    def unit(self, name: str = UNIT) -> dict[str, str]:
        """What systemd has to say about a unit."""
        wanted = "ActiveState,SubState,MainPID,NRestarts,StatusText,Result,ExecMainStatus"
        text = self.run(f"systemctl show -p {wanted} {name}")
        return dict(line.split("=", 1) for line in text.splitlines())

    def active(self, name: str = UNIT, seconds: float = DEADLINE) -> dict[str, str]:
        """Wait until a unit is active; the same."""
        self.until(f"{name} is active", f"systemctl is-active {name}", seconds)
        return self.unit(name)

    def until_status(self, text: str, seconds: float = DEADLINE) -> None:
        """Wait until the daemon's STATUS= has this text in it."""
        show = f"systemctl show -P StatusText {UNIT} | grep -F {shlex.quote(text)}"
        self.until(f"STATUS= says {text!r}", show, seconds)

    # -- the bus

    def call(self, path: str, member: str, *body: str, user: str = "root") -> Said:
        """A method by busctl: `call("/…", "Manager.ListReaders")`."""
        interface, _, name = member.rpartition(".")
        full = interface if interface.startswith("org.") else f"{NAME}.{interface}"
        words = shlex.join(["busctl", "--json=short", "call", NAME, path, full, name, *body])
        return self.ask(words, user=user)

    def manager(self, name: str) -> str:
        """A property of the Manager."""
        said = self.run(f"busctl --json=short get-property {NAME} {ROOT} {NAME}.Manager {name}")
        return str(json.loads(said)["data"])

    def until_backend(self, word: str, seconds: float = DEADLINE) -> None:
        """Wait until the daemon is there and says this of the card service."""
        get = f"busctl get-property {NAME} {ROOT} {NAME}.Manager Backend"
        self.until(f"Backend is {word}", f"{get} | grep -F '\"{word}\"'", seconds)

    def objects(self, kind: str) -> dict[str, dict[str, Any]]:
        """Properties of every Reader, Card or Session, by path."""
        said = self.call(ROOT, "org.freedesktop.DBus.ObjectManager.GetManagedObjects")
        if said.status != 0:
            raise Refused(said.text)
        full = f"{NAME}.{kind}"
        return {
            path: {key: value["data"] for key, value in interfaces[full].items()}
            for path, interfaces in json.loads(said.text)["data"][0].items()
            if full in interfaces
        }

    def until_objects(
        self,
        what: str,
        kind: str,
        condition: Callable[[dict[str, dict[str, Any]]], bool],
        seconds: float = DEADLINE,
    ) -> dict[str, dict[str, Any]]:
        """Wait until the objects of a kind are as wanted; them."""
        last: dict[str, dict[str, Any]] = {}

        def holds() -> bool:
            nonlocal last
            try:
                last = self.objects(kind)
            except Refused:
                return False  # the daemon is not there, for the time being
            return condition(last)

        try:
            self.wait(what, holds, seconds)
        except StackError as error:
            raise StackError(f"{error}; there is {last}") from None
        return last

    def reader_in(self, port: str) -> tuple[str, dict[str, Any]]:
        """Wait for the reader in a port; its path and its properties."""

        def there(objects: dict[str, dict[str, Any]]) -> bool:
            return any(_is_in(port, each) for each in objects.values())

        found = self.until_objects(f"a reader in port {port}", "Reader", there)
        return next((path, each) for path, each in found.items() if _is_in(port, each))

    def card_ready(self, port: str) -> tuple[str, dict[str, Any]]:
        """Wait for a card that has been read in a port's reader; its path and its properties."""
        path, _ = self.reader_in(port)

        def there(objects: dict[str, dict[str, Any]]) -> bool:
            return any(
                each["Reader"] == path and each["State"] == "ready" for each in objects.values()
            )

        found = self.until_objects(f"a card is ready in port {port}", "Card", there)
        return next((card, each) for card, each in found.items() if each["Reader"] == path)

    # -- readers

    def plug(self, port: int = 1, *options: str, inserted: bool = True) -> Reader:
        """A USB reader into a port, with a card in it unless told otherwise."""
        self._plugs += 1
        card = Card(f"card{self._plugs}", self.directory, self.passcode, options)
        reader = Reader(self.qemu, f"reader{self._plugs}", port, card)
        reader.plug()
        self._parts.enter_context(card)
        self.cards.append(card)
        if inserted:
            card.insert()
        return reader

    # -- people

    def program(self, user: str) -> Program:
        """A program of somebody that stays on the bus: see guest/program.py."""
        self._talkers += 1
        port = f"talk{self._talkers}"
        options = [
            *(f"--uid={user}", "--collect", f"--unit={port}", "--service-type=exec"),
            *(f"--property=StandardInput=file:/dev/virtio-ports/{port}",),
            *(f"--property=StandardOutput=file:/dev/virtio-ports/{port}",),
            *("--property=StandardError=journal", "--property=WorkingDirectory=/"),
        ]
        python = "/usr/lib/cardsession/bin/python -I /run/payload/program.py"
        self.run(f"systemd-run --quiet {shlex.join(options)} {python}")
        return Program(self.qemu.lines[port])


class Reader:
    """A USB CCID reader, QEMU's own (08e6:4433), and the developer's card at its other end."""

    def __init__(self, qemu: Qemu, name: str, port: int, card: Card) -> None:
        self.name = name
        self.port = f"1-{port}"
        self.card = card
        self._qemu = qemu
        self._number = port

    def plug(self, number: int | None = None) -> None:
        """Into the port it was in, or another."""
        self._number = number or self._number
        self.port = f"1-{self._number}"
        socket = {"type": "unix", "data": {"path": str(self.card.address)}}
        backend = {"type": "socket", "data": {"addr": socket, "server": True, "wait": False}}
        self._qemu.monitor("chardev-add", id=self.name, backend=backend)
        self._qemu.monitor(
            "device_add", driver="usb-ccid", id=self.name, bus="usb.0", port=str(self._number),
            pcap=str(self.card.capture),
        )  # fmt: skip
        self._qemu.monitor(
            "device_add", driver="ccid-card-passthru", id=f"{self.name}-card",
            bus=f"{self.name}.0", chardev=self.name,
        )  # fmt: skip

    def unplug(self) -> None:
        """Pull it; the card stays in it."""
        self._qemu.monitor("device_del", id=self.name)
        self._qemu.until_told("DEVICE_DELETED", DEADLINE, device=self.name)
        self._qemu.monitor("chardev-remove", id=self.name)


class ProgramError(Exception):
    """A call of a program in the machine failed; the text is the error's name."""


class Program:
    """Dispensing software: one connection to the bus, and the sessions that live with it."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def do(self, what: str, seconds: float = DEADLINE, **fields: Any) -> Any:
        """Tell it to do something; what came of it. ProgramError with the error's name."""
        self._line.send(json.dumps({"do": what, "seconds": seconds, **fields}).encode())
        answer = json.loads(self._line.receive(seconds + _SLACK))
        if "error" in answer:
            raise ProgramError(answer["error"])
        return answer["done"]

    def refused(self, what: str, **fields: Any) -> str:
        """The name of the error that something is refused with."""
        try:
            done = self.do(what, **fields)
        except ProgramError as error:
            return str(error).split(":")[0]
        raise AssertionError(f"{what} was not refused: {done}")


def _is_in(port: str, reader: dict[str, Any]) -> bool:
    return bool(reader["PortPath"] == port)


def _coded(text: str) -> str:
    return base64.b64encode(text.encode()).decode() or "-"

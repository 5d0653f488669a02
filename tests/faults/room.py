"""Real parts that the cells of the matrix share: a bus, the daemon's process, a card, a rival.

One room at a time: two daemons would be each other's rivals. A room is kept as long as the next
cell wants the same one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from smartcard import scard

from cardsession.stack import Bus, Card, Child, Daemon, Pcscd, run_directory
from cardsession.stack.pcscd import READERS, SOCKET
from faults.usbcard import UsbCard
from system.disks import small
from system.logind import Logind
from system.readers import present
from system.subscriber import NAME
from system.usb import OMNIKEY, Bed, names, resting, state

_C = TypeVar("_C", bound=Child)
NOBODY = 65534
PIN = "73194682"
PORT = "1-4"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a room is made of."""

    configuration: str = ""
    as_nobody: bool = False
    """The daemon may be kept from the card service's socket."""
    small_disk: bool = False
    logind: bool = False
    usb: bool = False
    """With a reader that can be pulled, in place of the virtual one."""


PLAIN = Plan()


class Room:
    """See the module. A context manager."""

    def __init__(self, plan: Plan, pcscd: Pcscd) -> None:
        self.plan, self.pcscd = plan, pcscd
        self.card: Card | UsbCard
        self.bed: Bed | None = None
        self._open = ExitStack()
        self.children: list[Child] = []

    def __enter__(self) -> Room:
        with ExitStack() as opening:
            directory = opening.enter_context(run_directory(shared=True))
            self.bus = self._begin(opening, self._bus(directory))
            if self.plan.logind:
                self._begin(opening, Logind(directory, self.bus))
            environment = {}
            if self.plan.usb:
                environment = self._plug(opening, directory)
            else:
                self.card = self._begin(opening, Card(directory, pin=PIN))
            uid = NOBODY if self.plan.as_nobody and os.getuid() == 0 else None
            daemon = Daemon(
                directory,
                self.bus.address,
                configuration=self.plan.configuration,
                environment=environment,
                uid=uid,
            )
            if self.plan.small_disk:
                opening.enter_context(small(daemon.state))
            self.daemon = self._begin(opening, daemon)
            self._open = opening.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def reader(self) -> str:
        """The name of the reader that is looked at."""
        return READERS[0] if self.bed is None else OMNIKEY.name

    def present(self) -> bool:
        """Whether the card service believes that a card is in."""
        if self.bed is None:
            return present(0)
        flags = [state(name) for name in names()]
        return bool(flags and flags[0] & scard.SCARD_STATE_PRESENT)

    def _plug(self, opening: ExitStack, directory: Path) -> dict[str, str]:
        opening.enter_context(resting(self.pcscd))
        self.bed = opening.enter_context(Bed(directory))
        self.pcscd = self.bed.pcscd
        self.children.append(self.pcscd)
        self.card = UsbCard(self.bed.plug(PORT, OMNIKEY).slot)
        return dict(self.bed.environment)

    def pull(self) -> None:
        """The reader goes, with what is in it."""
        assert self.bed is not None
        self.bed.unplug(PORT)

    def plug(self) -> None:
        """It comes back, empty."""
        assert self.bed is not None
        assert isinstance(self.card, UsbCard)
        self.card.into(self.bed.plug(PORT, OMNIKEY).slot)

    def _begin(self, stack: ExitStack, child: _C) -> _C:
        self.children.append(child)
        stack.enter_context(child)
        return child

    def _bus(self, directory: Path) -> Bus:
        if not self.plan.as_nobody:
            return Bus(directory)
        uid = NOBODY if os.getuid() == 0 else os.getuid()
        policy = directory / "policy.conf"
        policy.write_text(
            f'<busconfig><policy user="{uid}"><allow own="{NAME}"/></policy>'
            f'<policy user="{os.getuid()}"><allow send_destination="{NAME}"/></policy></busconfig>'
        )
        return Bus(directory, policies=[policy])


def rooms(pcscd: Pcscd) -> Iterator[Callable[[Plan], AbstractContextManager[Room]]]:
    """A room for a plan, to be used in a `with` block: the last one, if it was of the same plan
    and what was done in it went well. One that failed shows its logs, and is left."""
    kept: list[Room] = []

    def clear() -> None:
        while kept:
            kept.pop().__exit__()
        if SOCKET.exists():
            SOCKET.chmod(0o666)
        if pcscd.returncode is not None:
            pcscd.start()

    @contextmanager
    def room(plan: Plan) -> Iterator[Room]:
        if kept and kept[-1].plan != plan:
            clear()
        if not kept:
            kept.append(Room(plan, pcscd).__enter__())
        here = kept[-1]
        try:
            yield here
        except BaseException as error:
            for child in here.children:
                error.add_note(child.log_tail())
            clear()
            raise

    try:
        yield room
    finally:
        clear()

"""USB ports, a card service and udev, each of which hears of a plug when a test says so, before
the real desks. A reader answers questions as libccid does: from what the service opened last."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from itertools import count

from cardsession.adapters.ledger import MemoryLedger
from cardsession.cards import families
from cardsession.config import Config
from cardsession.core.errors import Failure, Problem
from cardsession.core.facts import Backend, ReaderFacts, SessionFacts
from cardsession.core.reports import Listing, SlotReport
from cardsession.core.seats import USB_CHANNEL, Attributes, UsbReader
from cardsession.core.tries import Act, Consent
from cardsession.desks import Desks, Keepers
from cardsession.ports import OpenRequest, PinRequest
from cardsession.virtual.card import VirtualCard
from fakes.channel import FakeChannel
from fakes.clock import FakeClock
from fakes.counter import ATR, DISPENSER, make_card, read, settle
from fakes.keepers import FakeJudge, FakeTrail
from fakes.publisher import FakePublisher

BUS = 1
SEATED_SECONDS = 1.05
"""Until a reader is shown, whatever is known of it."""
DRIVERLESS_SECONDS = 5.05


@dataclass(frozen=True)
class Model:
    """A kind of reader."""

    name: str
    serial: str = ""
    labels: tuple[str, ...] = ("",)
    """Of its interfaces."""
    slots: int = 1
    channel: bool = True
    """Whether it tells where it is."""
    driver: bool = True
    """Whether the card service has one for it."""


@dataclass(eq=False)
class Plug:
    """One reader, plugged in once."""

    model: Model
    port: str
    device: int
    card: VirtualCard | None = None

    def usb(self) -> list[UsbReader]:
        """As udev sees it."""
        return [
            UsbReader(
                syspath=f"/sys/devices/{self.port}:1.{number}",
                port_path=self.port,
                interface=number,
                bus=BUS,
                device=self.device,
                vendor_id=0x08E6,
                product_id=0x3437,
                serial=self.model.serial,
                model=self.model.name.replace(" ", "_"),
                label=label,
            )
            for number, label in enumerate(self.model.labels)
        ]

    @property
    def place(self) -> int:
        """Its channel id."""
        return USB_CHANNEL << 16 | BUS << 8 | self.device


@dataclass(frozen=True)
class Opened:
    """One slot as the card service has it."""

    plug: Plug
    interface: int
    slot: int

    @property
    def seat(self) -> str:
        """The identifier that it should have."""
        return f"{self.plug.port}:{self.interface}:{self.slot}"


class SeatChannel(FakeChannel):
    """Asks the card service of a test about its reader."""

    def __init__(self, name: str, ports: Ports) -> None:
        super().__init__(ports.ledger)
        self.name = name
        self.told: Attributes | None = None
        """What the reader said last."""
        self._ports = ports
        self._handle: Plug | None = None
        """The reader to which the handle leads that is kept."""
        self._waiting: list[asyncio.Future[Attributes]] = []

    def attributes(self) -> asyncio.Future[Attributes]:
        """What it says, now or when it hangs no more."""
        self.asked += 1
        asked: asyncio.Future[Attributes] = asyncio.get_running_loop().create_future()
        self._waiting.append(asked)
        self.answer()
        return asked

    def answer(self) -> None:
        """Whoever asked is told, unless it hangs."""
        if self.name in self._ports.hung or self.closed:
            return
        waiting, self._waiting = self._waiting, []
        for asked in waiting:
            if asked.done():
                continue
            try:
                self.told = self._says()
            except Failure as failure:
                asked.set_exception(failure)
            else:
                asked.set_result(self.told)

    def _says(self) -> Attributes:
        if self.holding and self._handle is not self._plug():
            raise Failure(Problem.CARD_REMOVED, "the handle leads nowhere")
        if self.name in self._ports.taken:
            raise Failure(Problem.IN_USE_ELSEWHERE, "a rival has it for itself")
        plug = self._plug()
        if plug is None or self.name in self._ports.leaving:
            raise Failure(Problem.READER_REMOVED, "the reader is gone")
        return Attributes(plug.place) if plug.model.channel else Attributes()

    def _plug(self) -> Plug | None:
        opened = self._ports.opened.get(self.name)
        return opened.plug if opened else None

    def _connect(self, *, exclusive: bool) -> None:
        plug = self._plug()
        if not self.holding:
            self._handle, self.chip = plug, plug.card if plug else None
        super()._connect(exclusive=exclusive)


class Ports:
    """See the module. To be used in a running loop."""

    def __init__(
        self,
        config: Config | None = None,
        publisher: FakePublisher | None = None,
        clock: FakeClock | None = None,
    ) -> None:
        self.clock = clock or FakeClock()
        self.publisher = publisher or FakePublisher()
        self.ledger = MemoryLedger(self.clock.usec)
        self.plugs: dict[str, Plug] = {}
        """What is there, by port."""
        self.opened: dict[str, Opened] = {}
        """What the card service has, by name."""
        self.reported: tuple[UsbReader, ...] | None = None
        """What udev said last."""
        self.down = False
        """Whether the card service is."""
        self.hung: set[str] = set()
        """Names of readers that do not answer."""
        self.taken: set[str] = set()
        """Names of readers that a rival has for itself."""
        self.leaving: set[str] = set()
        """Names that the card service lists yet, and whose readers it lets go of."""
        self.channels: list[SeatChannel] = []
        self._devices = count(2)
        keepers = Keepers(families(), self.ledger, FakeJudge(), FakeTrail())
        self.desks = Desks(
            config or Config(), self.clock, self.publisher, self._new_channel, keepers
        )
        self.desks.list_afresh = lambda: asyncio.get_running_loop().call_soon(self._list)

    def _new_channel(self, name: str) -> SeatChannel:
        self.channels.append(SeatChannel(name, self))
        return self.channels[-1]

    # what happens, and who notices

    def plug(self, port: str, model: Model, *, card: bool = False) -> Plug:
        """A reader comes, with another number than any before."""
        made = Plug(model, port, next(self._devices), make_card() if card else None)
        self.plugs[port] = made
        return made

    def unplug(self, port: str) -> Plug:
        """It goes."""
        return self.plugs.pop(port)

    async def udev(self) -> None:
        """udev notices, and tells."""
        seen = [usb for plug in self.plugs.values() for usb in plug.usb()]
        await self.tell(tuple(seen))

    async def tell(self, readers: tuple[UsbReader, ...] | None) -> None:
        """udev tells this, whatever there is."""
        self.reported = readers
        self.desks.usb(readers)
        await settle()

    def serve(self) -> None:
        """The card service notices: it names new readers with the first number that is free."""
        for name, opened in list(self.opened.items()):
            if self.plugs.get(opened.plug.port) is not opened.plug:
                del self.opened[name]
        known = {(each.plug, each.interface) for each in self.opened.values()}
        for plug in sorted(self.plugs.values(), key=lambda each: each.device):
            for number, label in enumerate(plug.model.labels):
                if plug.model.driver and (plug, number) not in known:
                    self._open(plug, number, label)

    def _open(self, plug: Plug, interface: int, label: str) -> None:
        model = plug.model
        name = model.name + (f" [{label}]" if label else "")
        name += f" ({model.serial})" if model.serial else ""
        taken = {each.rsplit(" ", 2)[1] for each in self.opened}
        index = next(f"{each:02X}" for each in count() if f"{each:02X}" not in taken)
        for slot in range(model.slots):
            self.opened[f"{name} {index} {slot:02X}"] = Opened(plug, interface, slot)

    async def status(self) -> None:
        """The status wait tells what the service has."""
        self._list()
        await settle()

    def _list(self) -> None:
        if self.down:
            self.desks.listing(Listing(Backend.PCSCD_DOWN))
        else:
            slots = [self._slot(name, each.plug) for name, each in self.opened.items()]
            self.desks.listing(Listing(Backend.OK, tuple(slots)))

    @staticmethod
    def _slot(name: str, plug: Plug) -> SlotReport:
        slot = SlotReport(name)
        return replace(slot, present=True, counter=1, atr=ATR) if plug.card else slot

    async def pcscd(self) -> None:
        """The card service notices, and the status wait tells."""
        self.serve()
        await self.status()

    async def all(self) -> None:
        """Everybody notices, udev first."""
        await self.udev()
        await self.pcscd()

    async def answer(self) -> None:
        """Readers that hang no more answer."""
        for channel in self.channels:
            channel.answer()
        await settle()

    async def wait(self, seconds: float) -> None:
        """Time goes by, from timer to timer."""
        end = self.clock.passed + seconds
        while self.clock.passed < end:
            next_ = min((each.at for each in self.clock.pending), default=end)
            self.clock.advance(min(max(next_, self.clock.passed), end) - self.clock.passed)
            await settle()

    async def session(self, name: str) -> SessionFacts:
        """An active session at a reader that has a card in it."""
        (card,) = [
            each
            for each in self.publisher.cards
            if each.reader_id == next(one.id for one in self.readers if one.name == name)
        ]
        number = await self.desks.open_session(card.number, DISPENSER, OpenRequest())
        request = PinRequest(Act.VERIFY, "user", (read(),), Consent())
        await self.desks.submit(number, DISPENSER, request)
        return self.desks.session(number)

    # what is shown

    @property
    def readers(self) -> list[ReaderFacts]:
        """All readers."""
        return self.publisher.readers

    @property
    def shown(self) -> dict[str, str]:
        """The PC/SC name of each reader that is shown, by identifier."""
        return {each.id: each.name for each in self.readers}

    @property
    def open(self) -> list[SeatChannel]:
        """Channels that were not closed."""
        return [each for each in self.channels if not each.closed]

    def reader(self, place: str) -> ReaderFacts:
        """One of them."""
        return next(each for each in self.readers if each.id == place)

    def channel(self, name: str) -> SeatChannel:
        """The open one of a name."""
        return next(each for each in self.open if each.name == name)


def withdrawn(ports: Ports) -> list[str]:
    """Identifiers of readers that went, in order."""
    return [each.facts.id for each in ports.publisher.told("withdraw") if hasattr(each.facts, "id")]


def replug(ports: Ports, port: str = "1-1", to: str | None = None) -> Plug:
    """The same reader, with the card in it, comes again."""
    gone = ports.unplug(port)
    again = ports.plug(to or port, gone.model)
    again.card = gone.card
    return again

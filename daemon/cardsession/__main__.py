"""cardsessiond: arguments -> configuration -> wiring -> run.

Exit status: 0 stopped as asked; 1 the bus was lost or refused (systemd restarts us); 64 bad
usage; 78 a configuration that is not understood.
"""

from __future__ import annotations

import sys

if "asyncio" not in sys.modules:
    # OpenSSL is 5 MiB of a process that is always there: asyncio does without ssl (we speak to
    # sockets of this machine only), hashlib has SHA-2 of its own, and cryptography, which comes
    # with the first card, brings its own.
    sys.modules["ssl"] = sys.modules["_hashlib"] = None  # type: ignore[assignment]

import argparse
import asyncio
import contextlib
import ctypes
import logging
import os
import resource
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

from cardsession import __version__, cards, declarations
from cardsession import config as settings
from cardsession.adapters import journal
from cardsession.adapters.clock import LoopClock
from cardsession.adapters.ledger import FileLedger
from cardsession.adapters.pcsc import PcscChannel, PcscWatch
from cardsession.adapters.systemd import Notifier
from cardsession.adapters.trail import AuditTrail
from cardsession.adapters.truststore import TrustStore
from cardsession.adapters.udev import UdevHotplug
from cardsession.bus.connection import BusError, BusGone, Connection, NameTaken
from cardsession.bus.logind import Sleep
from cardsession.bus.service import Service
from cardsession.bus.values import Constants
from cardsession.config import Config, ConfigError
from cardsession.core.facts import Backend
from cardsession.core.reports import Listing
from cardsession.core.seats import UsbReader
from cardsession.core.trust_rules import TrustRules
from cardsession.desks import Desks, Keepers

_PR_SET_DUMPABLE = 4
EX_FAILED, EX_USAGE, EX_CONFIG = 1, 64, 78
STATE_DIRECTORY = "/var/lib/cardsession"
ASLEEP = "the machine sleeps: no readers, no sessions"


def main() -> int:
    """Run until asked to stop; the exit status."""
    arguments = _arguments()
    if arguments.settings:
        sys.stdout.write(settings.reference())
        return 0
    try:
        config = settings.load(arguments.config)
    except ConfigError as error:
        sys.stderr.write(f"cardsessiond: {error}\n")
        return EX_CONFIG
    with journal.configure(arguments.log_level or config.log.level, config.log.format):
        _no_cores()
        logging.captureWarnings(True)
        try:
            asyncio.run(_serve(config))
        except (BusGone, BusError, NameTaken) as error:
            log = journal.logger("cardsession")
            log.critical("bus.lost", kind=type(error).__name__, text=str(error))
            return EX_FAILED
    return 0


def _no_cores() -> None:
    """A passcode is in memory for a moment: no core of this process is ever written, and nobody
    attaches to it. (A limit of zero does not keep a core from a pipe, prctl(2) does.)"""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


async def _serve(config: Config) -> None:
    """Everything wired together, from the first connection to the last farewell."""
    notifier = Notifier.from_environment()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    session, clock = config.session, LoopClock()
    trouble = _Trouble()
    async with await Connection.open() as connection:
        constants = Constants(
            __version__, session.removal, session.idle_seconds, session.max_age_seconds
        )
        service = Service(connection, constants)
        keepers, close_keepers = _keepers(config, clock, trouble)
        ledger = keepers.ledger
        desks = Desks(config, clock, service, lambda reader: PcscChannel(reader, ledger), keepers)
        trouble.tell = desks.trouble
        await service.start(desks, spend_last_try=session.spend_last_try)
        watch, hotplug = PcscWatch(), UdevHotplug()

        def plugged(readers: tuple[UsbReader, ...] | None) -> None:
            desks.usb(readers)
            watch.look_again()

        desks.list_afresh = watch.restart
        listed = _Listed(desks.listing, notifier, hotplug.look_again)
        try:
            watch.start(listed.take)
            hotplug.start(plugged)
            progress = notifier.watchdog(lambda: watch.alive and desks.overdue is None)
            watchdog = asyncio.ensure_future(progress)
            async with _sleep(connection, service, desks, watch, listed):
                await _first(stop.wait(), _gone(connection))
            watchdog.cancel()
        finally:
            notifier.stopping()
            hotplug.close()
            await asyncio.gather(watch.close(), desks.close())
            close_keepers()
    if not stop.is_set():
        raise BusGone("the message bus closed the connection")


def _sleep(
    connection: Connection, service: Service, desks: Desks, watch: PcscWatch, listed: _Listed
) -> Sleep:
    """What is done before the machine sleeps, and when it is awake again."""

    async def suspend() -> None:
        listed.sleep()
        await desks.suspend()
        await service.fence()  # the bus has been told before nobody can be told any more

    def resume() -> None:
        desks.resume()
        watch.restart()
        listed.wake()

    return Sleep(connection, suspend, resume)


def _keepers(
    config: Config, clock: LoopClock, trouble: _Trouble
) -> tuple[Keepers, Callable[[], None]]:
    """What the desks know from elsewhere, and how to close it."""
    state = state_directory(os.environ)
    declared = declarations.load(config.card.declarations)
    for problem in declared.problems:
        journal.logger("cardsession").error("declaration.refused", text=problem)
    rules = TrustRules(tuple(config.trust.required_eku), config.trust.admit)
    ledger = FileLedger(state, clock.usec, trouble.of("ledger"))
    trail = AuditTrail(state, clock.usec, config.audit.retention_days, trouble.of("trail"))
    keepers = Keepers(
        families=cards.families(declared.declarations),
        ledger=ledger,
        judge=TrustStore(config.trust.anchors, config.trust.revocation, rules),
        trail=trail,
    )

    def close() -> None:
        trail.close()
        ledger.close()

    return keepers, close


def state_directory(environment: Mapping[str, str]) -> Path:
    """Where state is kept: systemd's StateDirectory=, else the place that it would be."""
    return Path(environment.get("STATE_DIRECTORY", "").split(":")[0] or STATE_DIRECTORY)


class _Trouble:
    """Trouble with what is kept, from whatever thread meets it, told on the loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._texts: dict[str, str] = {}
        self.tell: Callable[[str], None] = lambda _: None

    def of(self, what: str) -> Callable[[str], None]:
        """A report that any thread may call: a text, or "" when it is over. After the loop's
        end nobody is there to be told."""

        def report(text: str) -> None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._take, what, text)

        return report

    def _take(self, what: str, text: str) -> None:
        self._texts[what] = text
        self.tell("; ".join(each for each in self._texts.values() if each))


class _Listed:
    """Hands listings on; after the first one the daemon is ready.

    `other_readers`: called before it hands on readers that are not those of before: for udev
    may know more by now than it has told.
    """

    def __init__(
        self,
        take: Callable[[Listing], None],
        notifier: Notifier,
        other_readers: Callable[[], None],
    ) -> None:
        self._take = take
        self._notifier = notifier
        self._other_readers = other_readers
        self._names: set[str] = set()
        self._told = self._asleep = False

    def take(self, listing: Listing) -> None:
        """One listing; the status line says what a technician asks first."""
        before, self._names = self._names, {slot.name for slot in listing.slots}
        if self._names != before:
            self._other_readers()
        self._take(listing)
        fine = listing.backend is Backend.OK
        status = f"{len(listing.slots)} readers" if fine else f"card service: {listing.backend}"
        if not self._told:
            self._told = True
            journal.logger("cardsession").info("ready", status=status)
            self._notifier.ready(ASLEEP if self._asleep else status)
        elif not self._asleep:
            self._notifier.status(status)

    def sleep(self) -> None:
        """What is listed from now on is not shown, and is not claimed to be."""
        self._asleep = True
        self._notifier.status(ASLEEP)

    def wake(self) -> None:
        """Nothing is known until it is listed anew; udev may have more to tell by then."""
        self._asleep = False
        self._notifier.status(f"card service: {Backend.STARTING}")
        self._other_readers()


async def _gone(connection: Connection) -> None:
    await asyncio.shield(connection.closed)


async def _first(*waits: object) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]  # type: ignore[call-overload]
    _, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()


class _Parser(argparse.ArgumentParser):
    """Bad usage has the exit status that sysexits(3) gives it."""

    def error(self, message: str) -> NoReturn:
        """Say what was wrong, and end."""
        self.print_usage(sys.stderr)
        self.exit(EX_USAGE, f"{self.prog}: {message}\n")


def _arguments() -> argparse.Namespace:
    parser = _Parser(
        prog="cardsessiond",
        description="Publishes smartcard sessions on D-Bus (org.cardsession1).",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML; must exist if given")
    parser.add_argument(
        "--log-level",
        choices=[level.value for level in settings.LogLevel],
        help="instead of the file's",
    )
    parser.add_argument(
        "--settings", action="store_true", help="print every setting with its meaning, and end"
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

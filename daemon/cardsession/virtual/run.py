"""`cardsession-virtual run`: a card in the foreground."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from collections.abc import Mapping, MutableMapping
from functools import partial
from pathlib import Path

from cardsession.virtual import vpcd, vscard
from cardsession.virtual.arguments import pkcs15_changes
from cardsession.virtual.capture import Capture
from cardsession.virtual.card import VirtualCard
from cardsession.virtual.commands import Commands
from cardsession.virtual.control import ControlServer
from cardsession.virtual.identity import Authority
from cardsession.virtual.options import CardOptions, Secrets, TransmissionProtocol
from cardsession.virtual.reading import changed
from cardsession.virtual.seat import Connect, Seat
from cardsession.virtual.vpcd import LOOPBACK, PORT
from cardsession.virtual.vscard_wire import Address

_LONGEST_SECRET_LINE = 64


def options_of(arguments: argparse.Namespace) -> CardOptions:
    """The card that the command line describes. ValueError if it describes none."""
    given: Mapping[str, object] = {
        "family": arguments.family,
        "holder": arguments.holder,
        "algorithm": arguments.algorithm,
        "slots": arguments.slots,
        "valid_days": arguments.valid_days,
        "days_left": arguments.days_left,
        "tries": arguments.tries,
        "tries_limit": arguments.tries_limit,
        "pin_policy": arguments.pin_policy,
        "compressed": arguments.compressed,
        "chuid": not arguments.no_chuid,
        "discovery": not arguments.no_discovery,
        "extended": not arguments.no_extended,
        "chaining": not arguments.no_chaining,
        "selected_by_default": not arguments.not_by_default,
        "deauthentication": not arguments.no_deauthentication,
        "pin_digits_only": not arguments.any_pin,
        "format_costs_a_try": arguments.format_costs_a_try,
        "guid": arguments.guid,
        "protocol": arguments.protocol or _spoken(arguments),
        "atr": arguments.atr,
        "pkcs15": pkcs15_changes(arguments),
    }
    return changed(CardOptions(), given)


def _spoken(arguments: argparse.Namespace) -> TransmissionProtocol:
    """QEMU's reader refuses a T=1 card: it offers T=0 only, a TPDU for a TPDU."""
    behind_qemu = arguments.vscard is not None
    return TransmissionProtocol.T0 if behind_qemu else TransmissionProtocol.T1


def line_of(arguments: argparse.Namespace) -> tuple[str, Connect]:
    """Where the card goes, in words, and how it gets there. ValueError if that is two places."""
    address: Address | None = arguments.vscard
    if address is None:
        if arguments.vscard_capture is not None:
            raise ValueError("--vscard-capture: only together with --vscard")
        slot = arguments.slot or 0
        host, port = arguments.host or LOOPBACK, arguments.port or PORT + slot
        return f"reader slot {slot} ({host}:{port})", partial(vpcd.Link, host, port)
    for other in ("host", "port", "slot"):
        if getattr(arguments, other) is not None:
            raise ValueError(f"--{other}: not together with --vscard, which is another reader")
    path: Path | None = arguments.vscard_capture
    capture = None if path is None else Capture(path)
    return f"QEMU's reader ({address})", partial(vscard.Link, address, capture, vscard.Pace())


def secrets_of(
    arguments: argparse.Namespace, environment: MutableMapping[str, str] = os.environ
) -> Secrets:
    """PIN from --pin-file, --pin-fd or the environment, which is then cleared of it."""
    plain = Secrets()
    pin = environment.pop("CARDSESSION_CARD_PIN", plain.pin)
    puk = environment.pop("CARDSESSION_CARD_PUK", plain.puk)
    global_pin = environment.pop("CARDSESSION_CARD_GLOBAL_PIN", plain.global_pin)
    signature_pin = environment.pop("CARDSESSION_CARD_SIGNATURE_PIN", plain.signature_pin)
    if arguments.pin_file is not None:
        pin = first_line(Path(arguments.pin_file).read_bytes())
    elif arguments.pin_fd is not None:
        with os.fdopen(arguments.pin_fd, "rb") as stream:
            pin = first_line(stream.readline(_LONGEST_SECRET_LINE))
    return Secrets(pin, puk, global_pin, signature_pin)


def first_line(raw: bytes) -> str:
    """The first line of a PIN file, without its end."""
    return raw.split(b"\n", 1)[0].rstrip(b"\r").decode("ascii", "replace")


async def run(arguments: argparse.Namespace, control: Path) -> None:
    """Serve one card until SIGTERM, SIGINT or `quit`."""
    options, secrets = options_of(arguments), secrets_of(arguments)
    kept: Path | None = arguments.authority
    authority = Authority.make() if kept is None else Authority.kept(kept)
    where, connect = line_of(arguments)
    seat = Seat(connect, options, lambda chosen: VirtualCard(chosen, secrets, authority))
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    async with ControlServer(control, Commands(seat, authority, ended)):
        print(
            f"{options.family} card {options.holder} for {where}, control socket {control}",
            flush=True,
        )
        try:
            if not arguments.not_inserted:
                await seat.insert(wait=0)
            await ended.wait()
        finally:
            await seat.remove()

"""`cardsession-virtual`: run a developer's card, or tell a running one what to do."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from cardsession.virtual.control_client import ENVIRONMENT, Control, ControlError, default_path
from cardsession.virtual.options import Algorithm, PinPolicy

_PLAIN = {
    "insert": "insert the card",
    "remove": "take the card out",
    "eject": "the same as remove",
    "status": "counts, tries left, exchanges and command headers since insertion",
    "speak": "end a silence",
    "clear-faults": "disarm pull-at, silent-at and answer-at",
    "reset-book": "forget the counts",
    "authority": "the certificate of the card's test authority, PEM",
    "quit": "end the card's process",
}
_FAULTS = {
    "pull-at": "pull the card during the n-th exchange since insertion",
    "silent-at": "withhold the answer to the n-th exchange since insertion, until `speak`",
    "answer-at": "answer the n-th exchange since insertion with these bytes",
}


def _run_options(run: argparse.ArgumentParser) -> None:
    run.add_argument("--slot", type=int, choices=(0, 1), default=0, help="virtual reader")
    run.add_argument("--host", default="127.0.0.1", help="where the virtual reader listens")
    run.add_argument("--port", type=int, help="its port (default: 35963 + slot)")
    run.add_argument("--not-inserted", action="store_true", help="begin with the card out")
    run.add_argument("--pin-file", type=Path, help="PIN, first line (default PIN: 123456)")
    run.add_argument("--pin-fd", type=int, help="PIN from a file descriptor")
    run.add_argument("--authority", type=Path, help="keep the test authority in this PEM file")
    run.epilog = (
        "The PIN may also come from the environment: CARDSESSION_CARD_PIN, _PUK and _GLOBAL_PIN."
    )


def _card_options(run: argparse.ArgumentParser) -> None:
    card = run.add_argument_group("the card")
    card.add_argument("--holder", default="555012345678", help="common name in the certificates")
    card.add_argument("--algorithm", choices=tuple(map(str, Algorithm)), default=Algorithm.P256)
    card.add_argument("--slots", default="9A,9C,9D,9E", help="key slots that are filled")
    card.add_argument("--valid-days", type=int, default=1095, help="life of the certificates")
    card.add_argument("--days-left", type=int, default=730, help="negative: expired")
    card.add_argument("--tries", type=int, help="PIN tries left at the start (0: blocked)")
    card.add_argument("--tries-limit", type=int, default=3, help="PIN tries after a right one")
    card.add_argument(
        "--pin-policy", choices=tuple(map(str, PinPolicy)), default=PinPolicy.APPLICATION
    )
    card.add_argument("--guid", help="32 hexadecimal digits (default: random)")
    card.add_argument("--atr", help="hexadecimal (default: a T=1 contact card)")
    for flag, text in {
        "--compressed": "certificates are gzip-compressed",
        "--no-chuid": "no card holder unique identifier",
        "--no-discovery": "no discovery object",
        "--no-extended": "refuse extended length fields (6700)",
        "--no-deauthentication": "refuse VERIFY with P1 FF (6A86)",
        "--any-pin": "a PIN need not be six to eight digits",
        "--format-costs-a-try": "a badly formed PIN is answered 63CX, not 6A80",
    }.items():
        card.add_argument(flag, action="store_true", help=text)


def _client_options(add: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    for name, text in _PLAIN.items():
        add.add_parser(name, help=text)
    for name, text in _FAULTS.items():
        fault = add.add_parser(name, help=text)
        fault.add_argument("n", type=int)
        if name == "answer-at":
            fault.add_argument("hex", help='the whole response ("" for an empty one)')
        fault.add_argument("--stage", choices=("before", "after"), default="before")
        fault.add_argument("--ins", help="count only this instruction, from now on (hexadecimal)")
        fault.add_argument("--with-data", action="store_true", default=None)
    for name, text in {
        "swap": "another card in its place at once",
        "new-card": "another card, not yet inserted",
    }.items():
        other = add.add_parser(name, help=text)
        other.add_argument("--name", help="a name to find it again; a known one brings it back")
        other.add_argument("--options", type=json.loads, help='JSON, {"holder": "555000000001"}')
    tries = add.add_parser("set-tries", help="set a retry counter")
    tries.add_argument("left", type=int)
    pin = add.add_parser("set-pin", help="set a PIN, asked for or read from standard input")
    for with_reference in (tries, pin):
        with_reference.add_argument("--reference", help="80 (default), 81 the PUK, 00 global")
    slow = add.add_parser("slow", help="answer so much later")
    slow.add_argument("ms", type=int)
    data = add.add_parser("set-object", help="override a data object; without bytes: remove it")
    data.add_argument("tag", help="5FC105")
    data.add_argument("hex", nargs="?", help="as GET DATA answers it")
    atr = add.add_parser("set-atr", help="answer to reset from the next insertion on")
    atr.add_argument("hex")
    certificate = add.add_parser("certificate", help="a slot's certificate")
    certificate.add_argument("slot", nargs="?", help="9A (default), 9C, 9D, 9E")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="cardsession-virtual", description=__doc__)
    add = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = add.add_parser("run", help="run a card in the foreground")
    _run_options(run)
    _card_options(run)
    _client_options(add)
    for each in set(add.choices.values()):
        each.add_argument("--control", type=Path, help=f"control socket (default: ${ENVIRONMENT})")
    return top


def _tell(arguments: argparse.Namespace, path: Path) -> int:
    fields = {key: value for key, value in vars(arguments).items() if value is not None}
    fields.pop("control", None)
    command = fields.pop("command")
    if command == "set-pin":
        # Never an argument: the command line is public on this machine.
        entered = getpass.getpass("PIN: ") if sys.stdin.isatty() else sys.stdin.readline()
        fields["pin"] = entered.rstrip("\r\n")
    try:
        answer = Control(path, timeout=120).send(command, **fields)
    except (ControlError, OSError) as error:
        print(f"cardsession-virtual: {path}: {error}", file=sys.stderr)
        return 1
    print(json.dumps(answer, indent=2))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 0, 1 if it failed, 2 for a command line that cannot be read."""
    arguments = parser().parse_args(argv)
    path = arguments.control or default_path()
    if arguments.command != "run":
        return _tell(arguments, path)
    # Imported late: a client command needs no cryptography.
    from cardsession.virtual.run import run  # noqa: PLC0415

    try:
        asyncio.run(run(arguments, path))
    except (OSError, ValueError) as error:
        print(f"cardsession-virtual: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The command line of `cardsession-virtual`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Final, NoReturn

from cardsession.virtual.control_client import ENVIRONMENT
from cardsession.virtual.options import Algorithm, Family, PinPolicy, TransmissionProtocol
from cardsession.virtual.pkcs15 import options as pkcs15
from cardsession.virtual.pkcs15.options import Pkcs15Options
from cardsession.virtual.vscard_wire import Address

EX_USAGE: Final = 64

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


def _address(text: str) -> Address:
    try:
        return Address.read(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _run_options(run: argparse.ArgumentParser) -> None:
    vpcd = run.add_argument_group("pcscd's virtual reader, vpcd, where nothing else is said")
    vpcd.add_argument("--slot", type=int, choices=(0, 1), help="which of the two (default: 0)")
    vpcd.add_argument("--host", help="where the virtual reader listens (default: 127.0.0.1)")
    vpcd.add_argument("--port", type=int, help="its port (default: 35963 + slot)")
    qemu = run.add_argument_group(
        "QEMU's USB reader, instead",
        "QEMU listens at ADDRESS for its devices usb-ccid and ccid-card-passthru (chardev socket "
        "with server=on,wait=off). It tells the card of no reset: a verified card stays verified. "
        "With usb-ccid's pcap=FILE, and that FILE here, the card sees power and resets.",
    )
    qemu.add_argument("--vscard", type=_address, metavar="ADDRESS", help="unix:PATH or HOST:PORT")
    qemu.add_argument("--vscard-capture", type=Path, metavar="FILE", help="QEMU writes it")
    run.add_argument("--not-inserted", action="store_true", help="begin with the card out")
    run.add_argument("--pin-file", type=Path, help="PIN, first line (default PIN: 123456)")
    run.add_argument("--pin-fd", type=int, help="PIN from a file descriptor")
    run.add_argument("--authority", type=Path, help="keep the test authority in this PEM file")
    run.epilog = (
        "The PINs may also come from the environment: CARDSESSION_CARD_PIN, _PUK, _GLOBAL_PIN "
        "and, of a PKCS#15 card, _SIGNATURE_PIN."
    )


def _card_options(run: argparse.ArgumentParser) -> None:
    card = run.add_argument_group("the card")
    card.add_argument("--family", choices=tuple(map(str, Family)), default=Family.PIV)
    card.add_argument("--holder", default="555012345678", help="common name in the certificates")
    card.add_argument("--algorithm", choices=tuple(map(str, Algorithm)), default=Algorithm.P256)
    card.add_argument(
        "--slots",
        default="9A,9C,9D,9E",
        help="key slots that are filled (PKCS#15: 9A authentication, 9C signature)",
    )
    card.add_argument("--valid-days", type=int, default=1095, help="life of the certificates")
    card.add_argument("--days-left", type=int, default=730, help="negative: expired")
    card.add_argument("--tries", type=int, help="PIN tries left at the start (0: blocked)")
    card.add_argument("--tries-limit", type=int, default=3, help="PIN tries after a right one")
    card.add_argument(
        "--pin-policy", choices=tuple(map(str, PinPolicy)), default=PinPolicy.APPLICATION
    )
    card.add_argument(
        "--protocol",
        choices=tuple(map(str, TransmissionProtocol)),
        help="T=0 or T=1 in the ATR (default: t1; behind QEMU, which refuses it, t0)",
    )
    card.add_argument("--guid", help="32 hexadecimal digits (default: random)")
    card.add_argument("--atr", help="hexadecimal (default: a contact card's)")
    for flag, text in {
        "--compressed": "certificates are gzip-compressed",
        "--no-chuid": "no card holder unique identifier",
        "--no-discovery": "no discovery object",
        "--no-extended": "refuse extended length fields (6700)",
        "--no-deauthentication": "refuse VERIFY with P1 FF (6A86)",
        "--no-chaining": "refuse command chaining (6884)",
        "--not-by-default": "after a reset no application is selected",
        "--any-pin": "what a PIN is made of is not looked at",
        "--format-costs-a-try": "a badly formed PIN is answered 63CX, not 6A80 or 6700",
    }.items():
        card.add_argument(flag, action="store_true", help=text)


_PKCS15_HELP: Final[Mapping[str, str]] = {
    "label": "TokenInfo label",
    "manufacturer": "TokenInfo manufacturerID",
    "serial": "TokenInfo serialNumber, hexadecimal (default: the GUID)",
    "aid": "the application's identifier, hexadecimal",
    "pin_label": "label of the user's PIN",
    "pin_reference": "its pinReference",
    "pin_type": "pinType of all PINs",
    "padding": "what PINs are padded with",
    "minimum_length": "minLength, in characters",
    "maximum_length": "maxLength, in characters",
    "stored_length": "storedLength, in bytes",
    "tell_maximum": "the AODF has maxLength",
    "pin_initialized": "the user's PIN is set; without: issued locked, 6985",
    "pin_local": "the PINs belong to DF 5015, and do not exist elsewhere",
    "pin_path": "the AODF has the PINs' path",
    "pin_change": "the user's PIN may be changed",
    "short_references": "references above 7F are one byte, as many cards have it (so negative)",
    "signature_pin": "a second PIN guards the signature key",
    "signature_pin_label": "label of that PIN",
    "signature_pin_reference": "its pinReference",
    "consent": "the signature key wants its PIN for each use (userConsent 1)",
    "puk": "there is a PUK; without: unblock-disabled",
    "puk_label": "label of the PUK",
    "puk_reference": "its pinReference",
    "so_pin": "the PUK is called the security officer's PIN (soPin), too",
    "empty_verify": "VERIFY without data: 63CX; 6300; 6300 and one try less; 6700; 6A86",
    "drops_on_select": "selecting another application drops the security status",
    "ef_dir": "there is an EF.DIR",
    "dir_records": "EF.DIR holds records",
    "odf_records": "the ODF holds records (OpenSC cannot read that)",
    "object_records": "AODF, PrKDF and CDFs hold records",
    "paths": "how the directory files name other files",
    "slack": "unused bytes at the end of each directory file",
    "slack_byte": "what they are filled with",
    "direct_objects": "the ODF holds the objects, not the paths of files",
    "private_keys_hidden": "the PrKDF is read only with the user's PIN verified",
    "select_answer": "what SELECT answers",
    "end_of_file": "READ BINARY past the end: 9000, 6282 or 6CXX",
    "reads_on": "READ BINARY with Le 00 answers the whole rest, by 61XX",
    "certificates": "where the certificates are",
    "trusted_certificates": "the authority's certificate is on the card, in a CDF of its own",
    "mechanisms": "names such as RSA_PKCS,RSA_X_509 (default: RSA_PKCS or ECDSA)",
    "tell_algorithms": "TokenInfo has supportedAlgorithms",
    "field_size": "EC keys have OpenSC's fieldSize before keyInfo",
    "files": 'files by path, JSON: {"3F0050155031": "hexadecimal" or null}',
}
_PKCS15_CHOICES: Final = {
    "pin_type": pkcs15.PinType,
    "padding": pkcs15.Padding,
    "empty_verify": pkcs15.EmptyVerify,
    "paths": pkcs15.Paths,
    "select_answer": pkcs15.SelectAnswer,
    "end_of_file": pkcs15.EndOfFile,
    "certificates": pkcs15.CertificatePlace,
}
_PKCS15: Final = "pkcs15_"


def _number(text: str) -> int:
    """Decimal, or 0x81."""
    return int(text, 0)


def _pkcs15_options(run: argparse.ArgumentParser) -> None:
    """One flag for each field; what is not given is not in the namespace but as None."""
    card = run.add_argument_group("a PKCS#15 card (--family pkcs15)")
    for field in fields(Pkcs15Options):
        flag, says = f"--{field.name.replace('_', '-')}", _PKCS15_HELP[field.name]
        target = _PKCS15 + field.name
        if isinstance(field.default, bool):
            kind = argparse.BooleanOptionalAction
            shown = f"{says} (default: {'yes' if field.default else 'no'})"
            card.add_argument(flag, dest=target, action=kind, default=None, help=shown)
        elif field.name in _PKCS15_CHOICES:
            shown, choices = f"{says} (default: {field.default})", _PKCS15_CHOICES[field.name]
            card.add_argument(flag, dest=target, choices=tuple(map(str, choices)), help=shown)
        elif isinstance(field.default, int):
            shown = f"{says} (default: {field.default})"
            card.add_argument(flag, dest=target, type=_number, metavar="N", help=shown)
        else:
            kind_of = json.loads if field.name == "files" else str
            name = field.name.rsplit("_", 1)[-1].upper()
            card.add_argument(flag, dest=target, type=kind_of, metavar=name, help=says)


def pkcs15_changes(arguments: argparse.Namespace) -> dict[str, object]:
    """What the command line says of a PKCS#15 card, as JSON would."""
    return {
        name.removeprefix(_PKCS15): value
        for name, value in vars(arguments).items()
        if name.startswith(_PKCS15) and value is not None
    }


class Parser(argparse.ArgumentParser):
    """Bad usage has the exit status that sysexits(3) gives it."""

    def error(self, message: str) -> NoReturn:
        """Say what was wrong, and end."""
        self.print_usage(sys.stderr)
        self.exit(EX_USAGE, f"{self.prog}: {message}\n")


def _client_options(add: argparse._SubParsersAction[Parser]) -> None:
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
        with_reference.add_argument("--reference", help="PIV: 80 (default), 81 the PUK, 00 global")
    slow = add.add_parser("slow", help="answer so much later")
    slow.add_argument("ms", type=int)
    data = add.add_parser(
        "set-object", help="override a data object or a file; without bytes: remove it"
    )
    data.add_argument("tag", help="5FC105; of a PKCS#15 card a path, 3F0050155031")
    data.add_argument("hex", nargs="?", help="as GET DATA answers it, or as the file has it")
    atr = add.add_parser("set-atr", help="answer to reset from the next insertion on")
    atr.add_argument("hex")
    certificate = add.add_parser("certificate", help="a slot's certificate")
    certificate.add_argument("slot", nargs="?", help="9A (default), 9C, 9D, 9E")


def parser() -> Parser:
    """The command line."""
    top = Parser(
        prog="cardsession-virtual",
        description="Run a developer's card, or tell a running one what to do.",
    )
    add = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = add.add_parser("run", help="run a card in the foreground")
    _run_options(run)
    _card_options(run)
    _pkcs15_options(run)
    _client_options(add)
    for each in set(add.choices.values()):
        each.add_argument("--control", type=Path, help=f"control socket (default: ${ENVIRONMENT})")
    return top

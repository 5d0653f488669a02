"""`cardsession-virtual`: run a developer's card, or tell a running one what to do."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from cardsession.virtual.arguments import EX_USAGE, parser
from cardsession.virtual.control_client import Control, ControlError, default_path

EX_FAILED = 1


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
        said = error.strerror if isinstance(error, OSError) and error.strerror else error
        return _complain(f"{path}: {said}", EX_FAILED)
    print(json.dumps(answer, indent=2))
    return 0


def _complain(text: str, status: int) -> int:
    print(f"cardsession-virtual: {text}", file=sys.stderr)
    return status


def _told(error: OSError) -> str:
    """What the system says, with the file that it says it of."""
    said = error.strerror or str(error)
    return said if error.filename is None else f"{error.filename}: {said}"


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 0; 1 if it failed; 64 for a command line that describes nothing."""
    arguments = parser().parse_args(argv)
    path = arguments.control or default_path()
    if arguments.command != "run":
        return _tell(arguments, path)
    # Imported late: a client command needs no cryptography.
    from cardsession.virtual.run import run  # noqa: PLC0415

    try:
        asyncio.run(run(arguments, path))
    except OSError as error:
        return _complain(_told(error), EX_FAILED)
    except ValueError as error:
        return _complain(str(error), EX_USAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())

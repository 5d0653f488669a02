"""cardsessionctl: arguments -> client -> a command -> an exit code.

Exit codes: 0 done; 1 the passcode was not accepted; 3 the message bus cannot be reached or
refuses; 4 cardsessiond is not running; 5 no such card or session, or it went away; 6 the passcode
is blocked; 7 busy or in use elsewhere; 8 cardsessiond cannot do it; 64 bad usage; 70 a fault of
our own; 130 interrupted (143 by SIGTERM, 129 by SIGHUP).
"""

from __future__ import annotations

import argparse
import asyncio
import io
import logging
import math
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Final, NoReturn

import structlog

from cardsession import __version__
from cardsession.client import CardSessionClient, CardSessionError, SessionInfo

from .exits import MEANINGS, Complaint, Exit, complaint
from .verify import verify
from .views import as_json, card_service, facts, plain, row, seats, shown, table
from .watch import watch

_SIGNALLED: Final = 128
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_HOLD_MAX: Final = 7 * 86_400


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    options = _arguments(argv)
    _quiet_libraries()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a holder's name in a locale without it
            stream.reconfigure(errors="replace")
    try:
        return asyncio.run(_interruptible(options))
    except BrokenPipeError:
        # Whoever read us has enough; nothing is left to flush at exit, or Python complains.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _SIGNALLED + signal.SIGPIPE
    except Exception:
        traceback.print_exc()
        return Exit.INTERNAL


async def _interruptible(options: argparse.Namespace) -> int:
    """The command as a task that a signal cancels: sessions close, the terminal echoes again."""
    task = asyncio.ensure_future(_run(options))
    received: list[int] = []

    def interrupt(number: int) -> None:
        received.append(number)
        task.cancel()

    for number in _SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, interrupt, number)
    try:
        return await task
    except asyncio.CancelledError:
        return _SIGNALLED + received[0]


async def _run(options: argparse.Namespace) -> Exit:
    """The command, and what went wrong in words."""
    try:
        async with await CardSessionClient.open() as client:
            return await _command(client, options)
    except CardSessionError as error:
        said = complaint(error)
    except Complaint as error:
        said = error
    print(f"cardsessionctl: {shown(said)}", file=sys.stderr)
    return said.exit


async def _command(client: CardSessionClient, options: argparse.Namespace) -> Exit:
    """By its name."""
    match options.command:
        case "status":
            _status(client, options)
        case "watch":
            await watch(client, as_lines=not _to_terminal(), json=options.json)
        case "verify":
            return await verify(client, options)
        case "end":
            await _end(client, options)
    return Exit.OK


def _status(client: CardSessionClient, options: argparse.Namespace) -> None:
    """Readers, cards and sessions as they are."""
    there = list(seats(client))
    if options.json:
        for reader, card, session in there:
            print(
                as_json({"reader": facts(reader), "card": facts(card), "session": facts(session)})
            )
    elif not there:
        print(f"no reader{card_service(client)}")
    elif _to_terminal():
        from rich.console import Console  # noqa: PLC0415 - for a terminal only

        Console().print(table(map(row, there)))
    else:
        print(plain(map(row, there)))
    sys.stdout.flush()


async def _end(client: CardSessionClient, options: argparse.Namespace) -> None:
    """A session belongs to the program that opened it: only technicians may end another's."""
    session = _chosen(client, options.session)
    await client.diagnostics.end_session(session.path, options.why)
    text = f"session {shown(session.id)} was ended"
    print(as_json({"event": "ended", "path": session.path}) if options.json else text, flush=True)


def _chosen(client: CardSessionClient, name: str | None) -> SessionInfo:
    """By path or number; without either, the only one."""
    found = client.sessions()
    if name is not None:
        found = tuple(each for each in found if name in {each.path, each.path.rpartition("/")[2]})
    if len(found) > 1:
        numbers = ", ".join(each.path.rpartition("/")[2] for each in found)
        raise Complaint(Exit.USAGE, f"there is more than one session, say which: {numbers}")
    if not found:
        which = "no session" if name is None else f"no session {name}"
        raise Complaint(Exit.NO_CARD, f"there is {which}")
    return found[0]


def _to_terminal() -> bool:
    """Whether standard output is a terminal that can move its cursor."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def _quiet_libraries() -> None:
    """Standard output is ours; as it comes, structlog prints there, local variables included."""
    structlog.configure(
        processors=[structlog.processors.add_log_level, structlog.processors.LogfmtRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logging.basicConfig(level=logging.ERROR)


class _Parser(argparse.ArgumentParser):
    """Bad usage has an exit code of its own: argparse's 2 means other things elsewhere."""

    def error(self, message: str) -> NoReturn:
        """Say what was wrong, and end."""
        self.print_usage(sys.stderr)
        self.exit(Exit.USAGE, f"{self.prog}: {message}\n")


def _seconds(text: str) -> float:
    """A time to hold a session, more than none and at most a week."""
    value = float(text)
    if not math.isfinite(value) or not 0 < value <= _HOLD_MAX:
        raise ValueError
    return value


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; --help says what the exit codes mean."""
    codes = "\n".join(f"  {code.value:3}  {text}" for code, text in MEANINGS.items())
    parser = _Parser(
        prog="cardsessionctl",
        description="Smartcards, readers and sessions of cardsessiond.",
        epilog=f"exit codes:\n{codes}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"cardsessionctl {__version__}")
    json = _Parser(add_help=False)
    json.add_argument("--json", action="store_true", help="one JSON object a line")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("status", parents=[json], help="show readers, cards and sessions")
    commands.add_parser("watch", parents=[json], help="show them, then every change")
    _verify_arguments(commands.add_parser("verify", parents=[json], help="verify a passcode"))
    end = commands.add_parser("end", parents=[json], help="end a session (technicians)")
    end.add_argument("session", nargs="?", help="its number or path; the only one if not given")
    end.add_argument("--why", default="cardsessionctl end", help="for the record")
    return parser.parse_args(argv)


def _verify_arguments(parser: argparse.ArgumentParser) -> None:
    """What `verify` takes; never the passcode, which everybody could read in the process list."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--reader", metavar="NAME", help="its id, PC/SC name or label")
    which.add_argument("--card", metavar="PATH", help="the card's path or number")
    parser.add_argument("--stdin", action="store_true", help="read one line instead of asking")
    parser.add_argument(
        "--hold", type=_seconds, metavar="SECONDS", help="keep the session open that long"
    )
    parser.add_argument(
        "--spend-last-try", action="store_true", help="send it even if only one try is left"
    )
    parser.add_argument(
        "--accept-unknown", action="store_true", help="send it without knowing the tries left"
    )
    parser.add_argument("--purpose", default="cardsessionctl", help="what the session is for")


if __name__ == "__main__":
    sys.exit(main())

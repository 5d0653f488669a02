"""`python -m cardsession.stack`: what daemon/try.sh runs, inside the namespace."""

from __future__ import annotations

import argparse
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from cardsession.stack.card import Card
from cardsession.stack.processes import (
    STOP_DEADLINE,
    StackError,
    bound_to_us,
    child_environment,
    python_module,
)
from cardsession.stack.story import scripted
from cardsession.stack.whole import Stack

DEVELOPERS_PIN: Final = "123456"
_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SIGNALLED: Final = 128


class Interrupted(BaseException):
    """A signal asked us to end; what is open is closed on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _interrupt(number: int, _: FrameType | None) -> NoReturn:
    # Once is enough: a second Ctrl-C must not cut the cleaning up short.
    for each in _ENDING:
        signal.signal(each, signal.SIG_IGN)
    raise Interrupted(number)


def in_front(command: Sequence[str], environment: dict[str, str]) -> int:
    """Run `command` at the terminal; its status as a shell gives it (128 + n for signal n).

    Ctrl-C is its own affair, as under a shell; other endings of ours are passed on to it.
    """
    passed_on = list[int]()
    # The handlers first: a signal between start and wait would end us and not it.
    process: subprocess.Popen[bytes] | None = None

    def pass_on(number: int, _: FrameType | None) -> None:
        passed_on.append(number)
        if process is not None:
            process.send_signal(number)

    signal.signal(signal.SIGINT, lambda *_: None)
    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, pass_on)
    process = subprocess.Popen(bound_to_us(command, "HUP"), env=environment)  # noqa: S603
    try:
        status = _wait(process, passed_on)
    finally:
        # What follows is cleaning up, which nothing may cut short.
        for each in _ENDING:
            signal.signal(each, signal.SIG_IGN)
    if passed_on:
        return _SIGNALLED + passed_on[0]
    return status if status >= 0 else _SIGNALLED - status


def _wait(process: subprocess.Popen[bytes], passed_on: Sequence[int]) -> int:
    """Wait for it; once it was told to end it gets STOP_DEADLINE."""
    while True:
        try:
            return process.wait(STOP_DEADLINE)
        except subprocess.TimeoutExpired:
            if passed_on:
                process.kill()


def explain(stack: Stack, card: Card | None) -> str:
    """What to type in another terminal."""
    tools = shlex.quote(str(Path(sys.executable).parent))
    lines = [
        f"export DBUS_SYSTEM_BUS_ADDRESS={shlex.quote(stack.bus.address)}",
        f"export PATH={tools}:$PATH",
    ]
    if card is not None:
        lines += [
            f"export CARDSESSION_CARD={shlex.quote(str(card.control))}",
            f"cardsessionctl verify           # the developer's PIN is {DEVELOPERS_PIN}",
            "cardsession-virtual remove      # pulls the card",
            "cardsession-virtual insert      # puts it back",
        ]
    else:
        lines += ["cardsessionctl verify           # careful: real cards have few tries"]
    lines += ["cardsessionctl status"]
    text = "\n".join(f"  {line}" for line in lines)
    return f"cardsessiond is up. In another terminal:\n\n{text}\n\nCtrl-C here ends everything.\n"


def _environment(stack: Stack, card: Card | None) -> dict[str, str]:
    given = {"DBUS_SYSTEM_BUS_ADDRESS": stack.bus.address}
    if card is not None:
        given["CARDSESSION_CARD"] = str(card.control)
    return child_environment(given)


def with_stack(command: Sequence[str], *, real: bool, talk: bool) -> int:
    """Bring everything up and run `command` in front; its status."""
    with Stack(real=real) as stack:
        daemon = stack.start_daemon()
        card = None if real else stack.start_card()
        if card is not None:
            card.insert()
            stack.wait_card_ready()
        if talk:
            print(explain(stack, card), flush=True)
        status = in_front(command, _environment(stack, card))
        if daemon.returncode is not None:
            print(f"cardsessiond ended by itself\n{daemon.log_tail()}", file=sys.stderr)
        return status


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m cardsession.stack", description=__doc__)
    parser.add_argument("--real", action="store_true", help="the machine's own readers")
    modes = parser.add_subparsers(dest="mode", required=True)
    modes.add_parser("watch", help="show cardsessionctl watch")
    modes.add_parser("scripted", help="play one story and check it")
    run = modes.add_parser("exec", help="run a command")
    run.add_argument("command", nargs=argparse.REMAINDER)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: the command's, 0 or 1 for the story, 1 if a part did not come up."""
    for each in _ENDING:
        signal.signal(each, _interrupt)
    arguments = _arguments(argv)
    try:
        if arguments.mode == "scripted":
            return scripted()
        if arguments.mode == "exec":
            return with_stack(arguments.command, real=arguments.real, talk=False)
        watch = [*python_module("cardsession.ctl"), "watch"]
        return with_stack(watch, real=arguments.real, talk=True)
    except StackError as error:
        print(f"cardsession: {error}", file=sys.stderr)
        return 1
    except Interrupted as interrupted:
        return _SIGNALLED + interrupted.number


if __name__ == "__main__":
    sys.exit(main())

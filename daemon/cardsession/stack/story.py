"""One story, played without questions, told as an independent subscriber saw it on the bus.

The parts are driven from outside: the card over its control socket, the passcodes through
`cardsessionctl verify --stdin` in processes of their own. What is printed, and what decides the
exit status, comes from `busctl monitor` alone.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from cardsession.stack.card import Card
from cardsession.stack.follower import (
    CARD,
    NAME,
    READER,
    ROOT,
    SESSION,
    STEP_SECONDS,
    Follower,
    added,
    call,
    changed,
    removed,
    reply_to,
)
from cardsession.stack.monitor import Message, Monitor
from cardsession.stack.pcscd import READERS
from cardsession.stack.processes import (
    StackError,
    bound_to_us,
    child_environment,
    program,
    python_module,
)
from cardsession.stack.whole import Stack

PASSCODE: Final = "73194682"
WRONG: Final = "73194683"
_TRIES: Final = 3
_HOLD_SECONDS: Final = 300
_OBJECT_MANAGER: Final = "org.freedesktop.DBus.ObjectManager"


class Story:
    """The steps, in order; each raises StackError if the subscriber did not see it."""

    def __init__(self, stack: Stack, monitor: Monitor) -> None:
        self.stack = stack
        self.seen = Follower(monitor, hopeless=self._ended_early)
        self._monitor = monitor
        self._began = time.time()
        self._before = self._began
        self._steps = 0
        self._in_use: subprocess.Popen[str] | None = None

    def tell(self, message: Message, text: str) -> None:
        """Print a step: seconds since the start, since the step before, and what was seen."""
        since, step = message.time - self._began, message.time - self._before
        self._before = message.time
        self._steps += 1
        print(f"{self._steps:2}  {since:7.3f} s  +{step:6.3f} s  {text}", flush=True)

    def play(self) -> None:
        """All of it."""
        with ExitStack() as tools:
            self.stack.start_daemon()
            self._reader_appears()
            card = self.stack.start_card(pin=PASSCODE)
            first = self._card_comes(card)
            self._wrong_passcode(first)
            session = self._right_passcode(first, tools)
            self._card_pulled(card, first, session)
            if self._card_comes(card) == first:
                raise StackError(f"the card put back is the old object: {first}")
            print("    the same card again is a new card object", flush=True)
        self._nothing_leaked()

    def _reader_appears(self) -> None:
        """By signal, or in the first listing: a subscriber subscribes, then lists."""
        with self._tool(
            program("busctl"),
            f"--address={self.stack.bus.address}",
            *("call", NAME, ROOT, _OBJECT_MANAGER, "GetManagedObjects"),
        ):
            what = f"a reader named {READERS[0]}"
            question, passed = self.seen.until(
                "GetManagedObjects", call(_OBJECT_MANAGER, "GetManagedObjects")
            )
            answer, more = self.seen.until("its answer", reply_to(question))
        for message in passed + more:
            if added(READER)(message) and message.body[1][READER].get("Name") == READERS[0]:
                self.tell(message, f"reader appears  {READERS[0]}  {message.body[0]}")
                return
        listed = answer.body[0] if answer.type == "method_return" else {}
        for path, interfaces in listed.items():
            if interfaces.get(READER, {}).get("Name") == READERS[0]:
                self.tell(answer, f"reader appears  {READERS[0]}  {path} (listed)")
                return
        self._await_reader(what)

    def _await_reader(self, what: str) -> None:
        """The daemon may be ready before its readers are: then it signals them."""
        message, _ = self.seen.until(
            what,
            lambda m: added(READER)(m) and m.body[1][READER].get("Name") == READERS[0],
        )
        self.tell(message, f"reader appears  {READERS[0]}  {message.body[0]}")

    def _card_comes(self, card: Card) -> str:
        """Insert; the card's object path, when it is ready."""
        self._mark()
        card.insert()
        here, _ = self.seen.until("a card object", added(CARD))
        path = str(here.body[0])
        state = here.body[1][CARD].get("State")
        self.tell(here, f"card present    {path}  ({state})")
        ready = here
        if state != "ready":
            ready, _ = self.seen.until(
                f"{path} becomes ready", lambda _: self._card(path, "State") == "ready"
            )
        self._check_card(path)
        self.tell(ready, f"card ready      {self._describe(path)}")
        return path

    def _check_card(self, path: str) -> None:
        now = time.time()
        tries = (self._card(path, "PinTries") or {}).get("user")
        expected = {
            "Profile is piv": self._card(path, "Profile") == "piv",
            "HolderId is known": bool(self._card(path, "HolderId")),
            "NotBefore is past": self._card(path, "NotBefore") <= now,
            "NotAfter is to come": now < self._card(path, "NotAfter"),
            f"PinTries user is {_TRIES}": tries == _TRIES,
        }
        for what, holds in expected.items():
            if not holds:
                known = self.seen.objects.get(path, {}).get(CARD)
                raise StackError(f"{path} is ready, but not: {what}\n{known}")

    def _describe(self, path: str) -> str:
        until = time.strftime("%Y-%m-%d", time.gmtime(self._card(path, "NotAfter")))
        return (
            f"holder {self._card(path, 'HolderId')}, profile {self._card(path, 'Profile')},"
            f" valid until {until}, {self._card(path, 'PinTries')['user']} tries left"
        )

    def _wrong_passcode(self, card: str) -> None:
        """`incorrect`, one try fewer, and the count on the bus before the reply."""
        self._mark()
        with self._verify(WRONG) as tool:
            session = self._session_opens()
            reply, passed = self._judged()
            if reply.body != ("incorrect", _TRIES - 1):
                raise StackError(f"the wrong passcode was answered {reply.error} {reply.body}")
            counts = [changed(m, card, CARD, "PinTries") for m in passed]
            if {"user": _TRIES - 1} not in [_only_user(c) for c in counts]:
                raise StackError(f"no signal of the count before the reply; seen: {counts}")
            self.tell(
                reply,
                f"wrong passcode  incorrect, {_TRIES - 1} tries left"
                " (the count was signalled before the reply)",
            )
            if tool.wait(STEP_SECONDS) == 0:
                raise StackError("cardsessionctl verify exits 0 after a wrong passcode")
        ended, _ = self.seen.until("the session ends", removed(session, SESSION))
        self.tell(ended, f"session over    {session}")

    def _right_passcode(self, card: str, tools: ExitStack) -> str:
        """`verified` and `active`; the session's path. The tool holds it until it ends."""
        self._mark()
        tools.enter_context(self._verify(PASSCODE, "--hold", str(_HOLD_SECONDS)))
        session = self._session_opens()
        reply, _ = self._judged()
        if not reply.body or reply.body[0] != "verified":
            raise StackError(f"the right passcode was answered {reply.error} {reply.body}")
        active = reply
        if self.seen.property(session, SESSION, "State") != "active":
            active, _ = self.seen.until(
                f"{session} becomes active",
                lambda _: self.seen.property(session, SESSION, "State") == "active",
            )
        holder = self.seen.property(session, SESSION, "HolderId")
        if not holder or holder != self._card(card, "HolderId"):
            raise StackError(f"the active session has no holder: {holder!r}")
        self.tell(active, f"right passcode  verified, {session} active, holder {holder}")
        return session

    def _session_opens(self) -> str:
        opened, _ = self.seen.until("a session object", added(SESSION))
        path = str(opened.body[0])
        state = opened.body[1][SESSION].get("State")
        self.tell(opened, f"session opened  {path}  ({state})")
        return path

    def _judged(self) -> tuple[Message, list[Message]]:
        """The reply to the next VerifyPin, and what came between call and reply."""
        question, _ = self.seen.until("VerifyPin is called", call(SESSION, "VerifyPin"))
        return self.seen.until("the reply to VerifyPin", reply_to(question))

    def _card_pulled(self, card: Card, path: str, session: str) -> None:
        """`Ended card-removed`, then both objects are gone."""
        self._mark()
        # From here on the tool may end: its session does.
        self._in_use = None
        card.remove()
        ended, passed = self.seen.until(
            "Ended", lambda m: m.name == f"{SESSION}.Ended" and m.path == session
        )
        if ended.body[0] != "card-removed":
            raise StackError(f"Ended says {ended.body[0]}, not card-removed")
        if any(removed(session, SESSION)(m) for m in passed):
            raise StackError("the session object was removed before Ended")
        self.tell(ended, f"card pulled     Ended {ended.body[0]}")
        gone = [m for m in passed if removed(path, CARD)(m)]
        last = gone[0] if gone else self.seen.until("the card is gone", removed(path, CARD))[0]
        self.tell(last, f"card gone       {path}")
        if session in self.seen.objects:
            self.seen.until("the session is gone", removed(session, SESSION))

    def _nothing_leaked(self) -> None:
        """No passcode in any message or log."""
        for child in (*self.stack.children, self._monitor):
            if PASSCODE in child.log() or WRONG in child.log():
                raise StackError(f"a passcode is in the log of {child.name}")
        print("    no passcode in any message or log", flush=True)

    def _ended_early(self) -> str:
        """A part, or the tool whose doing is awaited, that has ended by itself."""
        for child in self.stack.children:
            if child.returncode is not None:
                return f"{child.name} has ended"
        if self._in_use is not None and self._in_use.poll() is not None:
            return f"the tool has ended with status {self._in_use.returncode}"
        return ""

    def _card(self, path: str, name: str) -> Any:
        return self.seen.property(path, CARD, name)

    def _mark(self) -> None:
        """The next step's time counts from here: from what is done to what is seen of it."""
        self._before = time.time()

    def _verify(self, passcode: str, *options: str) -> Any:
        command = [*python_module("cardsession.ctl"), "verify", "--stdin", *options]
        return self._tool(*command, typed=passcode + "\n")

    @contextmanager
    def _tool(self, *command: str, typed: str = "") -> Iterator[subprocess.Popen[str]]:
        """A program of its own on our bus; ended with the block. Its words are shown if we fail."""
        log = self.stack.directory / f"tool{self._steps}.log"
        environment = child_environment({"DBUS_SYSTEM_BUS_ADDRESS": self.stack.bus.address})
        with log.open("w") as out:
            process = subprocess.Popen(  # noqa: S603 - a list, no shell
                bound_to_us(command),
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
                text=True,
            )
        try:
            if process.stdin is not None:
                process.stdin.write(typed)
                process.stdin.close()
            self._in_use = process
            yield process
        except (StackError, subprocess.TimeoutExpired, BrokenPipeError) as error:
            words = log.read_text(errors="backslashreplace")
            raise StackError(f"{error}\n--- {' '.join(command[-4:])}\n{words}---") from None
        finally:
            self._in_use = None
            process.terminate()
            try:
                process.wait(STEP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _only_user(counts: dict[str, int] | None) -> dict[str, int]:
    """The count of the primary PIN alone: a card may have more."""
    return {key: left for key, left in (counts or {}).items() if key == "user"}


def scripted() -> int:
    """Play the story on a stack of its own; the exit status."""
    with Stack() as stack, Monitor(stack.directory, stack.bus.address) as monitor:
        try:
            Story(stack, monitor).play()
        except StackError as error:
            print(f"\nNOT SEEN: {error}\n{stack.logs()}", flush=True)
            return 1
    print("all of it was seen", flush=True)
    return 0

"""`verify`: which card, what is asked, what is said of the outcome, how long it is held."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable

import pytest

from bus.fakeservice import SESSION, FakeService
from cardsession.bus.connection import Answer, Call, Refusal
from cardsession.bus.contract import ErrorName
from cardsession.ctl.exits import Exit

from .conftest import NAME, AtTerminal, Ctl, Screen, Start, add_card

CANARY = b"73194682"
CARD = "/org/cardsession1/card/1"


def outcome(service: FakeService, word: str, left: int) -> None:
    """What the card will say."""
    service.answers["VerifyPin"] = lambda _: Answer("si", (word, left))
    service.answers["Close"] = lambda _: ended(service, "closed")


def ended(service: FakeService, reason: str) -> Answer:
    """The session is over."""
    if SESSION in service.objects:
        service.say(SESSION, "org.cardsession1.Session", "Ended", reason, {})
        service.remove(SESSION)
    return Answer()


def refusing(name: ErrorName, text: str) -> Callable[[Call], Answer]:
    """An answer that is an error."""

    def refuse(_: Call) -> Answer:
        raise Refusal(name, text)

    return refuse


async def test_verified(ctl: Ctl, service: FakeService) -> None:
    outcome(service, "verified", -1)
    said = await ctl("verify", "--stdin", "--purpose", "a test", typed=CANARY + b"\nrest")
    assert said.code == 0
    assert said.out.splitlines() == [
        f"{NAME}, Ada Example; tries left: user 3",
        "verified",
    ]
    assert said.err == ""
    assert service.secrets == [CANARY]
    members = [member for member, _ in service.calls]
    assert members == ["GetAll", "GetManagedObjects", "OpenSession", "VerifyPin", "Close"]
    assert service.calls[2][1][0] == "a test"
    assert service.calls[3][1][2] == {}


@pytest.mark.parametrize(
    ("word", "left", "code", "hint"),
    [
        ("incorrect", 2, Exit.NOT_ACCEPTED, "is wrong"),
        ("now-blocked", 0, Exit.BLOCKED, "blocked now: renew"),
        ("was-blocked", 0, Exit.BLOCKED, "nothing was sent"),
        ("refused-last-try", 1, Exit.NOT_ACCEPTED, "--spend-last-try"),
        ("refused-unknown", -1, Exit.NOT_ACCEPTED, "--accept-unknown"),
        ("uncertain", -1, Exit.NOT_ACCEPTED, "may be gone"),
        ("bad-format", 3, Exit.NOT_ACCEPTED, "not sent"),
        ("cancelled", 3, Exit.NOT_ACCEPTED, "not accepted"),
        ("an-outcome-of-next-year", 3, Exit.NOT_ACCEPTED, "not accepted"),
    ],
)
async def test_outcomes(  # noqa: PLR0913, PLR0917
    ctl: Ctl, service: FakeService, word: str, left: int, code: Exit, hint: str
) -> None:
    service.change(CARD, Remedies=["renew"])
    outcome(service, word, left)
    said = await ctl("verify", "--stdin", "--json", typed=CANARY)
    assert said.code == code
    assert hint in said.err
    asking, judged = (json.loads(line) for line in said.out.splitlines())
    assert asking["tries"] == {"user": 3}
    assert judged == {"event": "judged", "outcome": word, "left": None if left < 0 else left}
    assert CANARY.decode() not in said.out + said.err


async def test_options_are_passed_on(ctl: Ctl, service: FakeService) -> None:
    outcome(service, "verified", -1)
    await ctl("verify", "--stdin", "--spend-last-try", "--accept-unknown", typed=CANARY)
    options = service.calls[3][1][2]
    assert {name: value.value for name, value in options.items()} == {
        "spend-last-try": True,
        "accept-unknown": True,
    }


async def test_a_blocked_passcode_is_not_asked_for(ctl: Ctl, service: FakeService) -> None:
    service.change(CARD, PinTries={"user": 0}, RemedyText="Go to the desk.")
    said = await ctl("verify", "--stdin")
    assert said.code == Exit.BLOCKED
    assert said.err == "cardsessionctl: the passcode is blocked: Go to the desk.\n"
    assert "VerifyPin" not in [member for member, _ in service.calls]


async def test_too_long_is_not_sent(ctl: Ctl, service: FakeService) -> None:
    said = await ctl("verify", "--stdin", typed=b"7" * 65 + b"\n")
    assert said.code == Exit.NOT_ACCEPTED
    assert "VerifyPin" not in [member for member, _ in service.calls]


async def test_which_card(ctl: Ctl, service: FakeService) -> None:
    """By reader or card; without either, only if there is no doubt."""
    reader, _ = add_card(service, 2)
    service.change(reader, Label="Till 2")
    outcome(service, "verified", -1)
    said = await ctl("verify", "--stdin", typed=CANARY)
    assert said.code == Exit.USAGE
    assert f"{NAME}, Till 2: say which by --reader" in said.err
    for arguments in (
        ("--reader", "r2"),
        ("--reader", "Virtual PCD 00 01"),
        ("--reader", "Till 2"),
        ("--card", "2"),
        ("--card", "/org/cardsession1/card/2"),
    ):
        said = await ctl("verify", "--stdin", *arguments, typed=CANARY)
        assert (said.code, said.out.partition(",")[0]) == (0, "Till 2")


async def test_no_card(ctl: Ctl, service: FakeService) -> None:
    """Each reason in its own words."""
    reader = "/org/cardsession1/reader/r1"
    service.change(CARD, State="unknown")
    assert f"no card is ready ({NAME}: unknown)" in (await ctl("verify")).err
    service.remove(CARD)
    service.change(reader, Card="/", State="empty")
    for arguments, text in (
        ((), "no card is ready"),
        (("--reader", "r1"), "there is no card in r1 (empty)"),
        (("--reader", "r9"), "there is no reader r9"),
        (("--card", "9"), "there is no card 9"),
        (("--card", reader), f"there is no card {reader}"),
    ):
        said = await ctl("verify", *arguments)
        assert (said.code, said.err) == (Exit.NO_CARD, f"cardsessionctl: {text}\n")
    service.change(reader, State="in-use-elsewhere")
    assert (await ctl("verify")).code == Exit.BUSY
    service.remove(reader)
    said = await ctl("verify")
    assert said.err == "cardsessionctl: there is no reader (card service: ok)\n"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        (ErrorName.BUSY, Exit.BUSY),
        (ErrorName.IN_USE_ELSEWHERE, Exit.BUSY),
        (ErrorName.READER_STUCK, Exit.BUSY),
        (ErrorName.CARD_REMOVED, Exit.NO_CARD),
        (ErrorName.NO_CARD, Exit.NO_CARD),
        (ErrorName.UNKNOWN_OBJECT, Exit.NO_CARD),
        (ErrorName.NOT_AUTHORIZED, Exit.NOT_PERMITTED),
        (ErrorName.ACCESS_DENIED, Exit.NOT_PERMITTED),
        (ErrorName.SERVICE_UNKNOWN, Exit.ABSENT),
        (ErrorName.USED_BY_REQUIRED, Exit.FAILED),
        (ErrorName.INTERNAL, Exit.FAILED),
    ],
)
async def test_errors(ctl: Ctl, service: FakeService, name: ErrorName, code: Exit) -> None:
    service.answers["OpenSession"] = refusing(name, "as told")
    said = await ctl("verify", "--stdin", typed=CANARY)
    assert said.code == code
    assert said.err.startswith("cardsessionctl: ")
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("card-removed", Exit.NO_CARD),
        ("pin-blocked", Exit.BLOCKED),
        ("daemon-stopping", Exit.ABSENT),
        ("forced", Exit.FAILED),
    ],
)
async def test_the_session_ends_while_somebody_types(
    start: Start, service: FakeService, reason: str, code: Exit
) -> None:
    tool = await start("verify", "--stdin")
    await tool.until("tries left")
    ended(service, reason)
    # standard input stays open: nobody has typed anything
    async with asyncio.timeout(20):
        assert await tool.process.wait() == code


async def test_the_daemon_goes_while_somebody_types(start: Start, service: FakeService) -> None:
    tool = await start("verify", "--stdin")
    await tool.until("tries left")
    await service.connection.close()
    async with asyncio.timeout(20):
        assert await tool.process.wait() == Exit.ABSENT


async def test_held_until_the_card_is_pulled(start: Start, service: FakeService) -> None:
    outcome(service, "verified", -1)
    tool = await start("verify", "--stdin", "--hold", "600", "--json")
    assert tool.process.stdin is not None
    tool.process.stdin.write(CANARY + b"\n")
    assert json.loads(await tool.until("holding"))["session"] == SESSION
    ended(service, "card-removed")
    assert json.loads(await tool.line()) == {"event": "ended", "reason": "card-removed"}
    assert (await tool.end()).code == 0


async def test_held_until_the_daemon_goes(start: Start, service: FakeService) -> None:
    outcome(service, "verified", -1)
    tool = await start("verify", "--stdin", "--hold", "600")
    assert tool.process.stdin is not None
    tool.process.stdin.write(CANARY + b"\n")
    await tool.until("holding")
    await service.connection.close()
    said = await tool.end()
    assert (said.code, said.out) == (Exit.ABSENT, "the session has ended: service-gone\n")


async def test_held_and_kept_alive_for_a_time(start: Start, service: FakeService) -> None:
    """Without KeepAlive the idle limit would end it first."""
    service.change("/org/cardsession1", IdleUSec=150_000)
    service.answers["KeepAlive"] = lambda _: Answer()
    outcome(service, "verified", -1)
    said = await (await start("verify", "--stdin", "--hold", "0.4")).end(CANARY)
    assert said.code == 0
    members = [member for member, _ in service.calls]
    assert "KeepAlive" in members
    assert members[-1] == "Close"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_interrupted_the_session_is_closed(
    start: Start, service: FakeService, number: signal.Signals
) -> None:
    outcome(service, "verified", -1)
    tool = await start("verify", "--stdin", "--hold", "600")
    assert tool.process.stdin is not None
    tool.process.stdin.write(CANARY + b"\n")
    await tool.until("holding")
    tool.process.send_signal(number)
    said = await tool.end()
    assert (said.code, said.err) == (128 + number, "")
    assert service.calls[-1][0] == "Close"


async def test_asked_at_the_terminal(
    at_terminal: AtTerminal, screen: Screen, service: FakeService
) -> None:
    outcome(service, "incorrect", 2)
    process = await at_terminal("verify")
    await screen.until(b"Passcode: ")
    assert b"tries left: user 3" in screen.shown
    os.write(screen.master, CANARY + b"\n")
    async with asyncio.timeout(20):
        assert await process.wait() == Exit.NOT_ACCEPTED
    await screen.until(b"incorrect; tries left: 2")
    assert service.secrets == [CANARY]
    assert CANARY not in screen.shown


async def test_control_c_while_asked(
    at_terminal: AtTerminal, screen: Screen, service: FakeService
) -> None:
    outcome(service, "incorrect", 2)
    process = await at_terminal("verify", "--stdin")  # a terminal is asked anyway
    await screen.until(b"Passcode: ")
    os.write(screen.master, b"7319\x03")
    async with asyncio.timeout(20):
        assert await process.wait() == Exit.INTERRUPTED
    assert service.secrets == []
    assert service.calls[-1][0] == "Close"
    assert b"Traceback" not in screen.shown


async def test_nobody_to_ask(start: Start, service: FakeService) -> None:
    said = await (await start("verify", start_new_session=True)).end()
    assert said.code == Exit.USAGE
    assert "use --stdin" in said.err

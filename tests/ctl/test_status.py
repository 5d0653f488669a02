"""`status`, `end`, usage and the failures that every command shares."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from bus.fakeservice import FakeService
from cardsession.bus.connection import Answer, Call, Connection, Refusal
from cardsession.bus.contract import ErrorName
from cardsession.ctl.exits import MEANINGS, Exit
from cardsession.stack import Bus

from .conftest import NAME, Ctl, add_card

SESSION = "/org/cardsession1/session/7"


async def test_in_a_pipe_aligned_text(ctl: Ctl, service: FakeService) -> None:
    reader, _ = add_card(service, 2, PinTries={}, RenewalDue=True, DaysLeft=12)
    service.change(reader, Label="Till 2")
    service.add("/org/cardsession1/reader/r3", "org.cardsession1.Reader", Name="C", State="empty")
    session = {"Reader": reader, "State": "active", "OwnerUid": 1000}
    service.add(SESSION, "org.cardsession1.Session", **session)
    said = await ctl("status")
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert [re.split("  +", line) for line in lines] == [
        ["READER", "STATE", "HOLDER", "PROFILE", "VALID", "TRIES", "SESSION"],
        [NAME, "ready", "Ada Example", "piv", "until 2030-01-01", "user 3", "-"],
        ["Till 2", "ready", "Ada Example", "piv", "until 2030-01-01, 12 days: renew", "unknown",
         "active (uid 1000)"],
        ["C", "empty", "-", "-", "-", "-", "-"],
    ]  # fmt: skip
    assert len({line.rindex("  ") for line in lines}) == 1  # the last column is aligned


async def test_json_an_object_a_line(ctl: Ctl, service: FakeService) -> None:
    session = {"State": "locked"}  # its card is out
    service.add(SESSION, "org.cardsession1.Session", **session)
    said = await ctl("status", "--json")
    first, second = (json.loads(line) for line in said.out.splitlines())
    assert first["reader"]["name"] == "Virtual PCD 00 00"
    assert first["card"]["pin_tries"] == {"user": 3}
    assert first["session"] is None
    assert second["reader"] is None
    assert second["session"]["state"] == "locked"


async def test_no_reader(ctl: Ctl, service: FakeService) -> None:
    for path in list(service.objects)[1:]:
        service.remove(path)
    service.change("/org/cardsession1", Backend="pcscd-down")
    assert (await ctl("status")).out == "no reader (card service: pcscd-down)\n"


async def test_nothing_that_a_terminal_obeys(ctl: Ctl, service: FakeService) -> None:
    service.change("/org/cardsession1/card/1", HolderId="A\x1b[2J\u202eB", NotAfter=1 << 62)
    for arguments in (("status",), ("status", "--json")):
        said = await ctl(*arguments)
        assert said.code == 0
        assert all(char.isprintable() or char == "\n" for char in said.out)


async def test_a_table_on_a_terminal(ctl: Ctl, service: FakeService) -> None:
    master, slave = os.openpty()
    service.change("/org/cardsession1/card/1", HolderId="[bold]Ada[/bold]")
    said = await ctl("status", stdout=slave, more={"TERM": "xterm", "COLUMNS": "150"})
    os.close(slave)
    shown = os.read(master, 1 << 16).decode()
    os.close(master)
    assert said.code == 0
    assert "━" in shown
    assert "[bold]Ada[/bold]" in shown


async def test_no_daemon(ctl: Ctl) -> None:
    for command in ("status", "watch", "verify", "end"):
        said = await ctl(command)
        assert said.code == Exit.ABSENT
        assert said.err.startswith("cardsessionctl: cardsessiond is not running")
        assert said.out == ""


async def test_no_bus(ctl: Ctl, tmp_path: Path) -> None:
    said = await ctl("status", address=f"unix:path={tmp_path}/none")
    assert said.code == Exit.NOT_PERMITTED
    assert "no access to the message bus" in said.err


async def test_a_bus_that_refuses_this_user(ctl: Ctl, rundir: Path) -> None:
    """The service is there, but the policy lets nobody call: as without the group."""
    policy = rundir / "policy.conf"
    policy.write_text(
        '<busconfig><policy context="default"><allow own="org.cardsession1"/></policy></busconfig>'
    )
    (rundir / "closed").mkdir()
    with Bus(rundir / "closed", policies=[policy]) as closed:
        async with await Connection.open(closed.address) as connection:
            await FakeService.start(connection)
            said = await ctl("status", address=closed.address)
    assert said.code == Exit.NOT_PERMITTED
    assert "no access to the message bus" in said.err
    assert "group cardsession" in said.err


async def test_end_is_for_technicians(ctl: Ctl, service: FakeService) -> None:
    assert (await ctl("end")).code == Exit.NO_CARD
    service.add(SESSION, "org.cardsession1.Session", State="active", Id="7")

    def refuse(_: Call) -> Answer:
        raise Refusal(ErrorName.NOT_SUPPORTED, "not built yet")

    service.answers["EndSession"] = refuse
    said = await ctl("end")
    assert said.code == Exit.FAILED
    assert said.err == (
        "cardsessionctl: cardsessiond does not support this (NotSupported: not built yet)\n"
    )
    service.answers["EndSession"] = lambda _: Answer()
    assert (await ctl("end", "7", "--why", "closing time")).out == "session 7 was ended\n"
    assert service.calls[-1] == ("EndSession", (SESSION, "closing time"))
    assert (await ctl("end", "8")).code == Exit.NO_CARD
    service.add("/org/cardsession1/session/8", "org.cardsession1.Session")
    assert (await ctl("end")).code == Exit.USAGE


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("bogus",),
        ("verify", "--hold", "nan"),
        ("verify", "--hold", "-1"),
        ("verify", "--hold", "1e9"),
        ("verify", "--reader", "a", "--card", "b"),
        ("verify", "73194682"),
        ("status", "--bogus"),
    ],
)
async def test_bad_usage(ctl: Ctl, arguments: tuple[str, ...]) -> None:
    said = await ctl(*arguments)
    assert said.code == Exit.USAGE
    assert said.err.startswith("usage: cardsessionctl")


async def test_help_names_every_exit_code(ctl: Ctl) -> None:
    said = await ctl("--help")
    assert said.code == 0
    for code, meaning in MEANINGS.items():
        assert f"{code.value:3}  {meaning}" in said.out
    assert set(MEANINGS) == set(Exit)


async def test_who_has_read_enough(ctl: Ctl, service: FakeService) -> None:
    """`cardsessionctl status | head -0` ends quietly."""
    reader, writer = os.pipe()
    os.close(reader)
    said = await ctl("status", stdout=writer)
    os.close(writer)
    assert said.code == 128 + 13
    assert said.err == ""

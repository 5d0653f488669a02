"""pcscd stops, comes back, is masked, and is kept from others."""

from __future__ import annotations

from machine.installed import README
from machine.machine import CANARY, UNIT, Machine
from machine.readme import commands

CONNECT = (
    '/usr/lib/cardsession/bin/python -Ic "import socket; '
    "socket.socket(socket.AF_UNIX).connect('/run/pcscd/pcscd.comm')\""
)
DROP_IN = "/etc/systemd/system/pcscd.socket.d/cardsession.conf"


def test_a_card_service_that_is_restarted_ends_the_session_and_is_found_again(
    machine: Machine,
) -> None:
    machine.plug(1)
    machine.card_ready("1-1")
    chemist = machine.program("chemist")
    chemist.do("open")
    assert chemist.do("verify", passcode=CANARY) == ["verified", None]
    machine.run("systemctl restart pcscd.service")
    assert chemist.do("ended") == "backend-lost"
    machine.until_backend("ok")
    assert machine.card_ready("1-1")[1]["PinTries"] == {"user": 3}
    assert machine.unit()["NRestarts"] == "0"


def test_a_card_service_that_is_stopped_or_masked_is_told_and_not_a_reason_to_end(
    machine: Machine,
) -> None:
    machine.plug(1)
    machine.card_ready("1-1")
    pid = machine.unit()["MainPID"]
    for stop, start in (
        ("stop", "systemctl start pcscd.socket"),
        ("mask --runtime --now", "systemctl unmask --runtime pcscd.socket pcscd.service && "
         "systemctl start pcscd.socket"),
    ):  # fmt: skip
        machine.run(f"systemctl {stop} pcscd.socket pcscd.service")
        machine.until_backend("pcscd-down")
        machine.until_status("card service: pcscd-down")
        machine.until_objects("no card", "Card", lambda found: not found)
        machine.run(start)
        machine.until_backend("ok")
        machine.until_status("1 readers")
        machine.card_ready("1-1")
    assert machine.unit()["MainPID"] == pid


def test_a_narrowed_socket_keeps_strangers_out_and_lets_the_daemon_in(machine: Machine) -> None:
    machine.plug(1)
    machine.card_ready("1-1")
    assert machine.ask(CONNECT, user="stranger").status == 0
    for each in commands(README, 1):
        machine.run(each)
    said = machine.ask(CONNECT, user="stranger")
    assert said.status != 0
    assert "PermissionError" in said.text
    machine.until_backend("ok")
    assert machine.card_ready("1-1")[1]["PinTries"] == {"user": 3}

    machine.run("gpasswd --delete cardsession cardsession-pcsc")
    machine.run(f"systemctl restart {UNIT}")
    machine.until_backend("denied")
    machine.until_status("denied")

    machine.run(f"usermod -aG cardsession-pcsc cardsession && systemctl restart {UNIT}")
    machine.until_backend("ok")
    machine.card_ready("1-1")

    machine.run(f"rm {DROP_IN}")
    for each in commands(README, 1)[-2:]:
        machine.run(each)
    assert machine.ask(CONNECT, user="stranger").status == 0
    machine.until_backend("ok")

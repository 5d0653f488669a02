"""The daemon's own life: it starts with the machine and comes back."""

from __future__ import annotations

from machine.machine import CANARY, NAME, ROOT, UNIT, Machine

WRONG = "64827193"
CORES = "ls -A /var/cores"


def test_after_a_reboot_of_the_machine_the_daemon_is_there(machine: Machine) -> None:
    boot = machine.run("cat /proc/sys/kernel/random/boot_id")
    machine.run("systemctl --no-block reboot")
    machine.qemu.until_told("RESET", 120)
    machine.settled()
    assert machine.run("cat /proc/sys/kernel/random/boot_id") != boot
    unit = machine.unit()
    assert (unit["ActiveState"], unit["NRestarts"]) == ("active", "0")
    assert unit["StatusText"] == "0 readers"
    assert machine.manager("Backend") == "ok"
    owner = "busctl call org.freedesktop.DBus / org.freedesktop.DBus GetConnectionUnixUser s"
    assert machine.run(f"{owner} {NAME}").split() == ["u", machine.run("id -u cardsession").strip()]


def test_a_killed_daemon_comes_back_without_the_session_and_with_the_right_count(
    machine: Machine,
) -> None:
    reader = machine.plug(1)
    before, _ = machine.card_ready("1-1")
    chemist = machine.program("chemist")
    chemist.do("open")
    assert chemist.do("verify", passcode=CANARY) == ["verified", None]
    assert chemist.do("verify", passcode=WRONG) == ["incorrect", 2]
    pid = machine.unit()["MainPID"]
    machine.run(f"systemctl kill --kill-whom=main --signal=KILL {UNIT}")
    assert chemist.do("ended") == "service-gone"
    assert chemist.do("present")
    card = machine.card_ready("1-1")[1]
    assert card["PinTries"] == {"user": 2}
    assert reader.card.left == 2
    assert card["Session"] == "/"
    assert machine.objects("Session") == {}
    unit = machine.unit()
    assert unit["MainPID"] != pid
    assert unit["NRestarts"] == "1"
    assert before.startswith(f"{ROOT}/card/")
    chemist.do("open")
    assert chemist.do("verify", passcode=CANARY) == ["verified", None]


def test_a_daemon_that_hangs_is_restarted_by_the_watchdog_and_leaves_no_core(
    machine: Machine,
) -> None:
    pid = machine.unit()["MainPID"]
    machine.run(f"kill -STOP {pid}")
    machine.until(
        "another process", f"systemctl show -P MainPID {UNIT} | grep -vxE '0|{pid}'", seconds=180
    )
    machine.active()
    machine.until_backend("ok")
    assert "watchdog" in machine.run(f"journalctl -u {UNIT} -o cat").lower()
    assert machine.run(CORES) == ""
    # On this machine, whoever is killed like that leaves a core, unless it is told not to.
    machine.ask("ulimit -c unlimited; bash -c 'kill -ABRT $$'")
    assert machine.run(CORES).startswith("bash.")


def test_a_call_starts_a_stopped_daemon(machine: Machine) -> None:
    machine.run(f"systemctl stop {UNIT}")
    assert machine.unit()["ActiveState"] == "inactive"
    said = machine.ask(
        f"busctl --timeout=120 call {NAME} {ROOT} {NAME}.Manager ListReaders",
        user="chemist", seconds=150,
    )  # fmt: skip
    assert (said.status, said.text.strip()) == (0, "ao 0")
    assert machine.unit()["ActiveState"] == "active"


def test_a_reader_that_is_plugged_in_starts_a_stopped_daemon(machine: Machine) -> None:
    machine.run(f"systemctl disable --now {UNIT}")
    assert machine.unit()["ActiveState"] == "inactive"
    machine.plug(1)
    machine.active()
    assert machine.card_ready("1-1")[1]["PinTries"] == {"user": 3}


def test_a_configuration_that_is_not_understood_is_told_once_and_not_tried_again(
    machine: Machine,
) -> None:
    machine.run("printf '[session]\\nidle-secnods = 600\\n' >/etc/cardsession/cardsessiond.toml")
    assert machine.ask(f"systemctl restart {UNIT}").status != 0
    unit = machine.unit()
    assert (unit["ActiveState"], unit["ExecMainStatus"]) == ("failed", "78")
    assert unit["NRestarts"] == "0"
    assert "idle-secnods" in machine.run(f"journalctl -u {UNIT} -o cat -n 20")
    machine.run("sed -i s/secnods/seconds/ /etc/cardsession/cardsessiond.toml")
    machine.run(f"systemctl restart {UNIT}")
    assert machine.manager("IdleUSec") == "600000000"

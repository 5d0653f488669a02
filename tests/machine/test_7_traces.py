"""What is written: the journal by reader, no passcode anywhere, and what systemd thinks of us."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path

from machine.installed import Installed
from machine.machine import UNIT, Machine

WRONG = "64827193"
_BLOCK = 1 << 24


def test_the_journal_is_asked_by_reader(machine: Machine) -> None:
    machine.plug(1)
    machine.plug(2)
    machine.card_ready("1-1")
    path, _ = machine.card_ready("1-2")
    _, reader = machine.reader_in("1-2")
    chemist = machine.program("chemist")
    chemist.do("open", card=path)
    assert chemist.do("verify", passcode=WRONG) == ["incorrect", 2]
    asked = f"journalctl -u {UNIT} -o json 'CARDSESSION_READER={reader['Name']}'"
    entries = [json.loads(line) for line in machine.run(asked).splitlines()]
    assert {each["CARDSESSION_READER"] for each in entries} == {reader["Name"]}
    by_event = {each["CARDSESSION_EVENT"]: each for each in entries}
    assert {"reader.appeared", "card.read", "pin.judged"} <= by_event.keys()
    judged = by_event["pin.judged"]
    assert (judged["CARDSESSION_OUTCOME"], judged["CARDSESSION_LEFT"]) == ("incorrect", "2")
    assert judged["SYSLOG_IDENTIFIER"] == "cardsessiond"


def _on_disk(disk: Path, directory: Path, needles: tuple[str, ...]) -> set[str]:
    """Which of the needles are anywhere on a disk, deleted files included."""
    raw = directory / "searched.img"
    command = ["qemu-img", "convert", "-U", "-O", "raw", str(disk), str(raw)]
    subprocess.run(command, check=True)
    found, rest = set(), b""
    with raw.open("rb") as stream:
        while block := stream.read(_BLOCK):
            text = rest + block
            found |= {each for each in needles if each.encode() in text}
            rest = block[-64:]
    raw.unlink()
    return found


def test_a_passcode_is_nowhere_on_the_machine(
    machine: Machine, installed: Installed, workplace: Path
) -> None:
    # The usual canary is in the package: it has the test stack in it. These are new.
    passcode, wrong, marker = (f"{each:08}" for each in random.sample(range(10**8), 3))
    machine.passcode = passcode
    machine.run("printf '[log]\\nlevel = \"debug\"\\n' >/etc/cardsession/cardsessiond.toml")
    machine.run(f"systemctl restart {UNIT}")
    reader = machine.plug(1)
    machine.card_ready("1-1")
    chemist = machine.program("chemist")
    chemist.do("open")
    assert chemist.do("verify", passcode=wrong) == ["incorrect", 2]
    assert chemist.do("verify", passcode=passcode) == ["verified", None]
    machine.run(f"systemctl kill --kill-whom=main --signal=SEGV {UNIT}")
    assert chemist.do("ended") == "service-gone"
    assert chemist.do("present")
    machine.card_ready("1-1")
    assert reader.card.left == 3
    assert machine.run("ls -A /var/cores") == ""
    machine.run(f"echo {marker} >/var/tmp/marker; echo {marker} >/run/marker")
    machine.run("journalctl --sync; sync")
    for needle, files in ((marker, "/run/marker\n"), (passcode, ""), (wrong, "")):
        assert machine.ask(f"grep -rlaF {needle} /run /dev/shm 2>/dev/null").text == files
        exported = machine.run(f"journalctl -b -o export | grep -caF {needle} || true")
        assert exported.strip() == "0"
    disk = Path(installed.disks[0].removeprefix("file=").partition(",")[0])
    assert _on_disk(disk, workplace, (marker, passcode, wrong)) == {marker}


def test_systemd_finds_nothing_wrong_and_little_exposed(machine: Machine) -> None:
    said = machine.ask(f"systemd-analyze verify {UNIT}")
    assert (said.status, said.text) == (0, "")
    security = f"systemd-analyze security --no-pager --threshold=10 {UNIT}"
    said = machine.ask(security)
    assert said.status == 0, said.text
    status = machine.run("cat /proc/$(systemctl show -P MainPID cardsessiond.service)/status")
    facts = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    assert int(facts["CapEff"], 16) == int(facts["CapBnd"], 16) == 0
    assert (facts["NoNewPrivs"].strip(), facts["Seccomp"].strip()) == ("1", "2")

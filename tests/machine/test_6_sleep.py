"""The machine sleeps, really."""

from __future__ import annotations

from machine.machine import CANARY, Machine


def test_a_session_ends_before_the_machine_sleeps_and_all_is_listed_afresh(
    machine: Machine,
) -> None:
    reader = machine.plug(1)
    seat, _ = machine.reader_in("1-1")
    before, old = machine.card_ready("1-1")
    chemist = machine.program("chemist")
    session = chemist.do("open")
    assert chemist.do("verify", passcode=CANARY) == ["verified", None]
    machine.run("systemctl suspend")
    machine.qemu.until_told("SUSPEND", 120)
    assert not reader.card.verified
    machine.qemu.monitor("system_wakeup")
    machine.qemu.until_told("WAKEUP", 60)
    assert chemist.do("ended") == "suspend"
    assert chemist.do("reasons") == [[session, "suspend"]]
    after, new = machine.card_ready("1-1")
    assert machine.reader_in("1-1")[0] == seat
    assert after != before
    assert new["PinTriesReadUSec"] > old["PinTriesReadUSec"]
    chemist.do("open", card=after)
    assert chemist.do("verify", passcode=CANARY) == ["verified", None]

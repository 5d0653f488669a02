"""What somebody at the counter does: readers, cards, passcodes."""

from __future__ import annotations

from machine.machine import CANARY, Machine

WRONG = "64827193"


def test_a_reader_that_is_plugged_in_appears_with_its_port_and_its_ids(machine: Machine) -> None:
    machine.plug(1, inserted=False)
    path, reader = machine.reader_in("1-1")
    assert path == "/org/cardsession1/reader/_31_2d1_3a0_3a0"
    assert (reader["VendorId"], reader["ProductId"]) == (0x08E6, 0x4433)
    assert (reader["State"], reader["Card"]) == ("empty", "/")
    assert "CCID" in reader["Name"]


def test_a_wrong_passcode_a_right_one_and_the_reader_is_pulled(machine: Machine) -> None:
    reader = machine.plug(1)
    _, card = machine.card_ready("1-1")
    assert (card["HolderId"], card["PinTries"]["user"]) == ("555012345678", 3)
    chemist = machine.program("chemist")
    session = chemist.do("open")
    assert chemist.do("verify", passcode=WRONG) == ["incorrect", 2]
    assert reader.card.left == 2
    assert chemist.do("verify", passcode=CANARY) == ["verified", None]
    assert chemist.do("info")["state"] == "active"
    assert chemist.do("info")["possession_proved"]
    reader.unplug()
    assert chemist.do("ended") == "reader-removed"
    machine.until_objects("nothing is left", "Reader", lambda found: not found)
    assert machine.objects("Card") == {}
    assert chemist.do("reasons") == [[session, "reader-removed"]]


def test_another_port_is_another_seat_and_the_old_port_the_old_one(machine: Machine) -> None:
    reader = machine.plug(1)
    first, _ = machine.reader_in("1-1")
    reader.unplug()
    reader.plug(2)
    second, _ = machine.reader_in("1-2")
    assert second != first
    assert list(machine.objects("Reader")) == [second]
    reader.unplug()
    reader.plug(1)
    assert machine.reader_in("1-1")[0] == first
    _, card = machine.card_ready("1-1")
    assert card["HolderId"] == "555012345678"


def test_two_readers_of_one_make_are_two_seats_with_a_session_each(machine: Machine) -> None:
    machine.plug(1, "--holder", "555000000001")
    machine.plug(3, "--holder", "555000000003")
    one, first = machine.card_ready("1-1")
    three, third = machine.card_ready("1-3")
    assert (first["HolderId"], third["HolderId"]) == ("555000000001", "555000000003")
    assert first["Reader"] != third["Reader"]
    left, right = machine.program("chemist"), machine.program("chemist")
    left.do("open", card=one)
    right.do("open", card=three)
    assert left.do("verify", passcode=WRONG) == ["incorrect", 2]
    assert right.do("verify", passcode=CANARY) == ["verified", None]
    assert [card.left for card in machine.cards] == [2, 3]
    assert left.do("info")["state"] == "unverified"
    assert right.do("info")["holder_id"] == "555000000003"


def test_a_card_comes_and_goes_under_the_command_line(machine: Machine) -> None:
    reader = machine.plug(1, inserted=False)
    machine.reader_in("1-1")
    status = "cardsessionctl status --json"
    assert '"empty"' in machine.run(status, user="chemist")
    reader.card.insert()
    machine.card_ready("1-1")
    assert "555012345678" in machine.run(status, user="chemist")
    verify = "cardsessionctl verify --stdin --json"
    wrong = machine.ask(verify, user="chemist", given=f"{WRONG}\n")
    assert (wrong.status, reader.card.left) == (1, 2)
    assert '"incorrect"' in wrong.text
    right = machine.ask(verify, user="chemist", given=f"{CANARY}\n")
    assert (right.status, reader.card.left) == (0, 3)
    assert machine.ask(status, user="stranger").status == 3
    reader.card.remove()
    machine.until_objects("no card", "Card", lambda found: not found)


def test_the_rules_mark_a_reader_and_keep_its_power(machine: Machine) -> None:
    machine.plug(1, inserted=False)
    machine.reader_in("1-1")
    device = "/sys/bus/usb/devices/1-1"
    shown = machine.run(f"udevadm settle; udevadm info {device}:1.0")
    assert "E: CARDSESSION_READER=ccid" in shown
    assert "E: SYSTEMD_WANTS=cardsessiond.service" in shown
    attributes = machine.run(f"cat {device}/power/control {device}/power/persist")
    assert attributes.split() == ["on", "0"]

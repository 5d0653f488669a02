"""The test bed's own readers: what stock pcscd makes of them, asked without the daemon."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property

import pytest
from smartcard import scard

from cardsession.adapters.pcsc.features import attributes
from cardsession.stack import wait_until
from cardsession.stack.processes import child_environment
from fakes.cards import make_card
from system.ifd import COMMON_ATR, Call, Feature, Make, Power, Scripted
from system.usb import (
    CCID,
    CHERRY,
    OMNIKEY,
    SCR,
    UNKNOWN,
    VENDOR_SPECIFIC,
    Bed,
    Counter,
    Interface,
    names,
    state,
)

SELECT_PIV = bytes.fromhex("00A404000BA00000030800001000010000")
WARM_ATR = bytes.fromhex("3B021450")
SOON = 5.0
"""A generous deadline of what takes a few milliseconds."""


class Program:
    """A program at the card service."""

    @cached_property
    def context(self) -> int:
        """Made when it is first wanted: the card service comes with the bed."""
        code, context = scard.SCardEstablishContext(scard.SCARD_SCOPE_SYSTEM)
        assert code == scard.SCARD_S_SUCCESS
        return int(context)

    def end(self) -> None:
        """Let go of everything."""
        if "context" in self.__dict__:
            scard.SCardReleaseContext(self.context)

    def connect(self, reader: str, mode: int = scard.SCARD_SHARE_SHARED) -> tuple[int, int]:
        """Status (unsigned) and handle."""
        protocols = 0 if mode == scard.SCARD_SHARE_DIRECT else scard.SCARD_PROTOCOL_ANY
        code, card, _ = scard.SCardConnect(self.context, reader, mode, protocols)
        return code & 0xFFFFFFFF, card

    def transmit(self, card: int, raw: bytes) -> tuple[int, bytes]:
        """Status and answer."""
        code, answer = scard.SCardTransmit(card, scard.SCARD_PROTOCOL_T1, list(raw))
        return code & 0xFFFFFFFF, bytes(answer)


@pytest.fixture
def program() -> Iterator[Program]:
    """A program that begins when it is first asked for a context: after the bed is up."""
    program = Program()
    yield program
    program.end()


def shows(name: str, flags: int, seconds: float = SOON) -> None:
    """Wait until pcscd shows all these flags of a reader's state."""
    wait_until(f"{name} shows {flags:#x}", lambda: state(name) & flags == flags, seconds)


# readers


def test_a_reader_that_is_plugged_in_is_listed_and_says_where_it_is(
    bed: Bed, program: Program
) -> None:
    reader = bed.plug("1-4", OMNIKEY, serial="A1")
    (name,) = bed.wait_names(1)
    assert name == "HID Global OMNIKEY 3x21 Smart Card Reader (A1) 00 00"
    _, card = program.connect(name, scard.SCARD_SHARE_DIRECT)
    said = attributes(card)
    assert (said.serial, said.model, said.pin_pad) == ("A1", "Smart Card Reader USB", False)
    assert said.channel_id == reader.channel_id == 0x0020_0102
    assert said.usb == (1, reader.number)


def test_two_of_a_kind_are_told_apart_by_their_channel_ids(bed: Bed, program: Program) -> None:
    plugged = [bed.plug(port, SCR) for port in ("1-1", "2-1.4")]
    listed = bed.wait_names(2)
    assert listed == [f"SCM Microsystems Inc. SCR 3310 0{each} 00" for each in (0, 1)]
    cards = [program.connect(name, scard.SCARD_SHARE_DIRECT)[1] for name in listed]
    assert [attributes(card).channel_id for card in cards] == [each.channel_id for each in plugged]
    assert len({each.channel_id for each in plugged}) == 2


def test_one_that_is_pulled_vanishes_and_comes_back_as_another_device(bed: Bed) -> None:
    first = bed.plug("1-1", SCR)
    bed.plug("1-2", OMNIKEY)
    bed.wait_names(2)
    bed.unplug("1-1")
    assert "OMNIKEY" in bed.wait_names(1)[0]
    again = bed.plug("1-1", SCR)
    bed.wait_names(2)
    assert again.channel_id != first.channel_id and again.syspath == first.syspath


def test_one_without_a_driver_is_not_listed(bed: Bed) -> None:
    bed.plug("1-1", UNKNOWN)
    bed.plug("1-2", OMNIKEY)
    assert len(bed.wait_names(1)) == 1


def test_one_that_does_not_answer_is_not_listed(bed: Bed) -> None:
    bed.plug("1-1", SCR, refuses=True)
    bed.plug("1-2", OMNIKEY)
    assert "OMNIKEY" in bed.wait_names(1)[0]


def test_interfaces_and_slots_of_one_device(bed: Bed, program: Program) -> None:
    interfaces = (
        Interface(0, (0x03, 0, 0), "Keyboard"),
        Interface(1, CCID, "Contact", Make(slots=2)),
        Interface(2, VENDOR_SPECIFIC, "Contactless"),
    )
    device = bed.plug("1-3", CHERRY, serial="K7", interfaces=interfaces)
    contact, first, second = (
        f"Cherry GmbH SmartTerminal ST-2xxx [{what}] (K7) 0{index} 0{slot}"
        for what, index, slot in (("Contactless", 1, 0), ("Contact", 0, 0), ("Contact", 0, 1))
    )
    assert bed.wait_names(3) == sorted([contact, first, second])
    device.interfaces[1].slots[1].insert(make_card())
    shows(second, scard.SCARD_STATE_PRESENT)
    assert not state(first) & scard.SCARD_STATE_PRESENT
    _, card = program.connect(second)
    assert attributes(card).channel_id == device.channel_id


def test_a_pin_pad_says_so(bed: Bed, program: Program) -> None:
    make = Make(features=(Feature.VERIFY_PIN_DIRECT, Feature.MODIFY_PIN_DIRECT))
    bed.plug("1-4", CHERRY, make=make)
    _, card = program.connect(bed.wait_names(1)[0], scard.SCARD_SHARE_DIRECT)
    assert attributes(card).pin_pad


def test_a_reader_may_know_neither_its_place_nor_its_name(bed: Bed, program: Program) -> None:
    bed.plug("1-4", OMNIKEY, make=Make(channel_id=-1))
    _, card = program.connect(bed.wait_names(1)[0], scard.SCARD_SHARE_DIRECT)
    assert attributes(card).channel_id is None and attributes(card).serial == ""


def test_the_bed_outlives_its_card_service(bed: Bed) -> None:
    bed.plug("1-4", OMNIKEY).slot.insert(make_card())
    bed.wait_names(1)
    bed.pcscd.kill()
    assert names() == []
    bed.pcscd.start()
    (name,) = bed.wait_names(1)
    shows(name, scard.SCARD_STATE_PRESENT)


def test_what_is_plugged_in_before_the_card_service_starts_is_listed(bed: Bed) -> None:
    bed.pcscd.stop()
    bed.plug("1-4", OMNIKEY)
    bed.pcscd.start()
    bed.wait_names(1)


def test_sixteen_readers_at_once(counters: Callable[..., Counter], program: Program) -> None:
    counter = counters(16)
    assert names() == [f"Counter {each:02X} 00" for each in range(16)]
    for slot in counter.slots:
        slot.insert(make_card())
    for name in names():
        shows(name, scard.SCARD_STATE_PRESENT)
        _, card = program.connect(name)
        code, answer = program.transmit(card, SELECT_PIV)
        assert code == 0 and answer[-2:] == b"\x90\x00", name
    assert [slot.commands for slot in counter.slots] == [1] * 16


# cards


@pytest.fixture
def omnikey(bed: Bed) -> tuple[str, Bed]:
    """One reader in port 1-4: its name."""
    bed.plug("1-4", OMNIKEY)
    return bed.wait_names(1)[0], bed


def test_a_card_comes_answers_and_goes(omnikey: tuple[str, Bed], program: Program) -> None:
    name, bed = omnikey
    slot = bed.plugged["1-4"].slot
    slot.insert(make_card())
    shows(name, scard.SCARD_STATE_PRESENT)
    _, card = program.connect(name)
    code, answer = program.transmit(card, SELECT_PIV)
    assert code == 0 and answer[-2:] == b"\x90\x00"
    slot.pull()
    shows(name, scard.SCARD_STATE_EMPTY)


def test_a_card_the_wrong_way_round_is_mute(omnikey: tuple[str, Bed], program: Program) -> None:
    name, bed = omnikey
    slot = bed.plugged["1-4"].slot
    slot.insert(make_card(), mute=True)
    shows(name, scard.SCARD_STATE_PRESENT | scard.SCARD_STATE_MUTE)
    code, _ = program.connect(name)
    # (pcscd 1.9.9 says the latter of a card that it tried to power and that did not answer)
    mute = (scard.SCARD_W_UNRESPONSIVE_CARD, scard.SCARD_W_UNPOWERED_CARD)
    assert code in {each & 0xFFFFFFFF for each in mute}
    slot.turn()
    shows(name, scard.SCARD_STATE_PRESENT)
    wait_until("it is not mute", lambda: not state(name) & scard.SCARD_STATE_MUTE)
    code, card = program.connect(name)
    assert code == 0 and program.transmit(card, SELECT_PIV)[1][-2:] == b"\x90\x00"


def test_a_card_may_have_another_atr_after_a_reset(
    omnikey: tuple[str, Bed], program: Program
) -> None:
    name, bed = omnikey
    slot = bed.plugged["1-4"].slot
    slot.insert(Scripted(), warm=WARM_ATR)
    shows(name, scard.SCARD_STATE_PRESENT)
    _, card = program.connect(name)
    assert bytes(scard.SCardStatus(card)[4]) == COMMON_ATR
    any_protocol = scard.SCARD_PROTOCOL_ANY
    scard.SCardReconnect(card, scard.SCARD_SHARE_SHARED, any_protocol, scard.SCARD_RESET_CARD)
    assert bytes(scard.SCardStatus(card)[4]) == WARM_ATR
    scard.SCardReconnect(card, scard.SCARD_SHARE_SHARED, any_protocol, scard.SCARD_UNPOWER_CARD)
    assert bytes(scard.SCardStatus(card)[4]) == COMMON_ATR
    assert slot.powered[-3:] == [Power.RESET, Power.DOWN, Power.UP]


HANG = f"""
from smartcard import scard
_, context = scard.SCardEstablishContext(scard.SCARD_SCOPE_SYSTEM)
_, card, protocol = scard.SCardConnect(
    context, input(), scard.SCARD_SHARE_SHARED, scard.SCARD_PROTOCOL_ANY)
code, answer = scard.SCardTransmit(card, protocol, {list(SELECT_PIV)})
print(hex(code & 0xffffffff), bytes(answer).hex())
"""


@contextmanager
def waiting(name: str) -> Iterator[subprocess.Popen[str]]:
    """Another program, which sends a command and waits for the answer."""
    command = [sys.executable, "-P", "-c", HANG]
    pipe = subprocess.PIPE
    environment = child_environment()
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as process:
        assert process.stdin
        process.stdin.write(name + "\n")
        process.stdin.flush()
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("end", ["answers", "pulled", "unplugged"])
def test_a_card_that_hangs_holds_up_no_other_reader(bed: Bed, program: Program, end: str) -> None:
    bed.plug("1-4", OMNIKEY)
    bed.plug("1-5", SCR)
    hung, other = bed.wait_names(2)
    for port in ("1-4", "1-5"):
        bed.plugged[port].slot.insert(make_card())
    shows(hung, scard.SCARD_STATE_PRESENT)
    shows(other, scard.SCARD_STATE_PRESENT)
    slot = bed.plugged["1-4"].slot
    slot.hang()
    with waiting(hung) as process:
        slot.wait_hung()
        _, card = program.connect(other)
        assert program.transmit(card, SELECT_PIV)[1][-2:] == b"\x90\x00"
        assert process.poll() is None and slot.hung
        {"answers": slot.release, "pulled": slot.pull, "unplugged": lambda: bed.unplug("1-4")}[
            end
        ]()
        said, _ = process.communicate(timeout=SOON)
    assert said.startswith("0x0 ") == (end == "answers"), said
    bed.wait_names(1 if end == "unplugged" else 2)


def test_garbage_is_handed_on_as_it_came(omnikey: tuple[str, Bed], program: Program) -> None:
    name, bed = omnikey
    slot = bed.plugged["1-4"].slot
    slot.insert(make_card())
    shows(name, scard.SCARD_STATE_PRESENT)
    _, card = program.connect(name)
    for garbage in (b"", b"\x90", b"\xff" * 258):
        slot.garble = lambda _, garbage=garbage: garbage
        assert program.transmit(card, SELECT_PIV) == (0, garbage)
    slot.garble = None
    assert program.transmit(card, SELECT_PIV)[1][-2:] == b"\x90\x00"


def test_a_driver_whose_calls_fail(omnikey: tuple[str, Bed], program: Program) -> None:
    name, bed = omnikey
    slot = bed.plugged["1-4"].slot
    slot.insert(make_card())
    shows(name, scard.SCARD_STATE_PRESENT)
    _, card = program.connect(name)
    slot.failing.add(Call.TRANSMIT)
    assert program.transmit(card, SELECT_PIV)[0] == scard.SCARD_E_NOT_TRANSACTED & 0xFFFFFFFF
    slot.failing = {Call.POWER}
    scard.SCardDisconnect(card, scard.SCARD_UNPOWER_CARD)
    assert program.connect(name)[0] == scard.SCARD_W_UNPOWERED_CARD & 0xFFFFFFFF


def test_a_swap_between_two_looks_shows_in_the_counter(
    omnikey: tuple[str, Bed], program: Program
) -> None:
    name, bed = omnikey
    slot = bed.plugged["1-4"].slot
    slot.insert(Scripted())
    shows(name, scard.SCARD_STATE_PRESENT)
    _, card = program.connect(name)
    before = counter_of(program, name)
    slot.swap(Scripted(lambda _: b"\x90\x00"))
    wait_until("the counter counts two", lambda: counter_of(program, name) == before + 2)
    assert program.transmit(card, SELECT_PIV)[0] == scard.SCARD_W_REMOVED_CARD & 0xFFFFFFFF
    _, card = program.connect(name)
    assert program.transmit(card, SELECT_PIV) == (0, b"\x90\x00")


def test_a_swap_that_pcscd_is_not_told_of_shows_in_the_next_command(
    omnikey: tuple[str, Bed], program: Program
) -> None:
    name, bed = omnikey
    slot = bed.plugged["1-4"].slot
    slot.insert(Scripted())
    shows(name, scard.SCARD_STATE_PRESENT)
    _, card = program.connect(name)
    before = counter_of(program, name)
    slot.swap(Scripted(lambda _: b"\x90\x00"), told=False)
    assert program.transmit(card, SELECT_PIV)[0] == scard.SCARD_E_NOT_TRANSACTED & 0xFFFFFFFF
    assert counter_of(program, name) == before


def counter_of(program: Program, name: str) -> int:
    """pcscd's count of events of a reader."""
    asked = [(name, scard.SCARD_STATE_UNAWARE)]
    _, ((_, now, _),) = scard.SCardGetStatusChange(program.context, 0, asked)
    return int(now) >> 16

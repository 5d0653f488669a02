"""SIGKILL of the daemon at every exchange of an operation: no try is lost track of, none is spent
twice, and nobody finds the card unlocked.

That an attempt is synced before it is sent: `test_the_attempt_is_synced_before_begin_returns` of
the ledger, and here what is left of it on the disk when the power goes, too.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cardsession.adapters.ledger import lines
from cardsession.stack import Bus, Card, Daemon, wait_until
from system.crash import Crash, Moment, Operation, submissions, wrong
from system.disks import after_a_power_cut, forgetful, frozen
from system.rival import Rival
from system.subscriber import Subscriber

RIGHT, WRONG = b"73194682", b"11112222"
NEW, PUK = b"86421357", b"12345678"
PKCS15_PIN = 0x3F005015 << 8 | 0x81
"""What the ledger calls it: the PIN 81 of the directory 3F005015 (`Pin.counter`)."""
SIGNING = ("signature", "ecdsa-sha256", hashlib.sha256(b"a prescription").digest())
UNBLOCK = '[pin]\nunblock = ["piv"]\n'

OPERATIONS = {
    "verify-wrong": Operation("VerifyPin", (WRONG,), right=False),
    "verify-right": Operation("VerifyPin", (RIGHT,), right=True),
    "change-wrong": Operation("ChangePin", (WRONG, NEW), right=False, ins="24"),
    "change-right": Operation("ChangePin", (RIGHT, NEW), right=True, ins="24"),
    "unblock-wrong": Operation("UnblockPin", (WRONG, NEW), right=False, reference="81", ins="2c"),
    "unblock-right": Operation("UnblockPin", (PUK, NEW), right=True, reference="81", ins="2c"),
    "sign-wrong": Operation("SignWithPin", (WRONG,), right=False, signing=SIGNING),
    "sign-right": Operation("SignWithPin", (RIGHT,), right=True, signing=SIGNING),
}

GIVEN_UP = "the disk does not answer"
"""What the log says of a disk that is waited for no more."""

Crashes = Callable[..., Crash]


@pytest.fixture
def crashes(
    bus: Bus, daemons: Callable[..., Daemon], cards: Callable[..., Card]
) -> Iterator[Crashes]:
    """A daemon to be killed, with a card in slot 0: crashes("--tries-limit", "15")."""
    with Rival() as rival:

        def make(*options: str, configuration: str = "") -> Crash:
            daemon = daemons(configuration=configuration)
            return Crash(bus, daemon, cards(options=options), rival)

        yield make


def moments(operation: Operation, length: int, at: int) -> Iterator[tuple[int, Moment]]:
    """Every exchange once it is done; what led to the command with the secret (the exchange `at`)
    is the same whether that is right or wrong; that command in every way."""
    if not operation.right:
        yield from ((number, Moment.DONE) for number in range(1, at))
        yield at, Moment.LOST
    yield at, Moment.LATE
    yield from ((number, Moment.DONE) for number in range(at, length + 1))


async def ready_session(crash: Crash, seen: Subscriber, operation: Operation) -> str:
    """A fresh card and a session in which the operation may be called."""
    card = crash.card
    path, _ = await seen.card_in_state("ready")
    card.tell("set-pin", pin=RIGHT.decode())
    for reference in ("80", "81"):
        card.tell("set-tries", left=3, reference=reference)
    session = await seen.open_session(path)
    if operation.signing:
        assert (await seen.verify(session, RIGHT))[0] == "verified"
    card.tell("reset-book")
    return session


async def is_as_the_card_has_it(crash: Crash, since_usec: int, sent: int) -> None:
    """After the restart: the card's own counts, read anew, and nothing was submitted again."""
    async with crash.subscribed() as seen:
        path, facts = await seen.card_in_state("ready")
        session = await seen.open_session(path)  # queued behind the whole reading
        status = crash.card.status()
        left = status["references"]["80"]["left"]
        assert facts["PinTries"] == {"user": left}
        assert facts["PinState"] == {"user": "unverified", "puk": "unknown"}
        assert facts["PinTriesSource"] == "card"
        assert facts["PinTriesReadUSec"] >= since_usec
        assert facts["PinChangedUSec"] == crash.entry().changed_usec
        assert list(seen.all("Session")) == [session]
        assert submissions(status) == sent, "nothing is sent again"
        entry = crash.entry()
        assert not entry.in_flight
        assert entry.lowest is not None and entry.lowest <= left
        await seen.call(session, "Session", "Close")


async def killed_at_one(
    crash: Crash, operation: Operation, number: int, at: int, when: Moment
) -> None:
    """One kill at one exchange, in every respect. The secret is in the exchange `at`."""
    card = crash.card
    sent = int(number >= at and (number, when) != (at, Moment.LOST))
    async with crash.subscribed() as seen:
        session = await ready_session(crash, seen, operation)
        changed = crash.entry().changed_usec
        card.tell("silent-at", n=card.status()["exchanges"] + number, **when.fault)
        call = asyncio.ensure_future(
            operation.call(seen, session, accept_unknown=True, spend_last_try=True)
        )
        await crash.killed_in_silence(seen, call)
        entry = crash.entry(int(operation.reference, 16))
        assert entry.in_flight == (number == at), "on record before it is sent, until it is known"
        if entry.in_flight:
            assert entry.attempts[-1].asked_by.startswith(seen.connection.unique_name)
        anew = crash.entry().changed_usec != changed
        assert anew == (operation.ins != "20" and operation.right and number > at)
    card.tell("speak")
    found = crash.left_to_others()
    status = card.status()
    assert found == f"63c{status['references']['80']['left']}", "the card is not left unlocked"
    assert submissions(status) == sent
    assert wrong(status) == (0 if operation.right else sent)
    await is_as_the_card_has_it(crash, crash.restart(), sent)


async def killed_after_the_answer(crash: Crash, operation: Operation) -> list[str]:
    """The caller was told, then the daemon dies: the headers of the whole operation."""
    async with crash.subscribed() as seen:
        session = await ready_session(crash, seen, operation)
        answer = await operation.call(seen, session, accept_unknown=True)
        assert (answer[0] == "incorrect") == (not operation.right)
        headers: list[str] = crash.card.status()["headers"]
        crash.daemon.kill()
    found = crash.left_to_others()
    assert found == f"63c{crash.card.status()['references']['80']['left']}"
    assert not crash.entry(int(operation.reference, 16)).in_flight
    await is_as_the_card_has_it(crash, crash.restart(), 1)
    return headers


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATIONS)
async def test_killed_at_every_exchange(crashes: Crashes, name: str) -> None:
    operation, crash = OPERATIONS[name], crashes(configuration=UNBLOCK)
    crash.card.insert()
    headers = await killed_after_the_answer(crash, operation)
    at = max(number for number, header in enumerate(headers, 1) if header[2:4] == operation.ins)
    for number, when in moments(operation, len(headers), at):
        await killed_at_one(crash, operation, number, at, when)


async def test_started_again_while_the_card_still_thinks(crashes: Crashes) -> None:
    """The card service holds on to the dead client until the card has answered."""
    crash = crashes()
    card = crash.card
    card.insert()
    async with crash.subscribed() as seen:
        session = await ready_session(crash, seen, OPERATIONS["verify-right"])
        card.tell("silent-at", n=1, ins="20", with_data=True, stage="after")
        call = asyncio.ensure_future(seen.verify(session, RIGHT))
        await crash.killed_in_silence(seen, call)
    assert card.status()["references"]["80"]["verified"] is True
    since = crash.restart()
    async with crash.subscribed() as seen:
        await seen.until("it knows of a card", seen.card)
        card.tell("speak")
        await seen.card_in_state("ready")
    assert card.status()["references"]["80"]["verified"] is False
    await is_as_the_card_has_it(crash, since, 1)


async def test_a_rival_that_waited_finds_it_locked(crashes: Crashes) -> None:
    """It was connected all the time, and has its turn as soon as the dead client's is over."""
    crash = crashes(configuration='[session]\nhold = "shared"\n')
    card, rival = crash.card, crash.rival
    card.insert()
    async with crash.subscribed() as seen:
        session = await ready_session(crash, seen, OPERATIONS["verify-right"])
        assert rival.say("shared") == "00000000"
        card.tell("silent-at", n=1, ins="20", with_data=True, stage="after")
        call = asyncio.ensure_future(seen.verify(session, RIGHT))
        await crash.killed_in_silence(seen, call)
    assert card.status()["references"]["80"]["verified"] is True
    card.tell("speak")
    answers: list[str] = []

    def has_its_turn() -> bool:
        answers.append(rival.say("state"))
        return answers[-1] != "error 8010000B"

    wait_until("the transaction is over", has_its_turn)
    assert answers[-1] == "error 80100068", "the card was reset under it"
    assert rival.say("free")
    assert crash.left_to_others() == "63c3"


UNASKED = ("--family", "pkcs15", "--empty-verify", "costs")
"""A card on which an empty VERIFY is a wrong try: nobody may ask it."""


async def killed_with_an_unasked_card(crash: Crash, when: Moment, *, counted: bool) -> None:
    """The daemon dies in a VERIFY; before it one was settled (`counted`), or none ever was."""
    crash.card.insert()
    async with crash.subscribed() as seen:
        path, facts = await seen.card_in_state("ready")
        session = await seen.open_session(path)
        if counted:
            assert await seen.verify(session, WRONG, accept_unknown=True) == ("incorrect", 2)
            assert facts["PinTriesSource"] == "last-verify"
        crash.card.tell("silent-at", n=1, ins="20", with_data=True, **when.fault)
        call = asyncio.ensure_future(seen.verify(session, WRONG, accept_unknown=True))
        await crash.killed_in_silence(seen, call)
        assert crash.entry(PKCS15_PIN).in_flight
    crash.card.tell("speak")
    crash.restart()


@pytest.mark.parametrize(
    ("counted", "when"),
    [(False, Moment.DONE), (True, Moment.DONE), (True, Moment.LOST)],
    ids=["never-counted", "counted", "counted-and-lost"],
)
async def test_a_counter_that_cannot_be_asked_is_stale(
    crashes: Crashes, counted: bool, when: Moment
) -> None:
    """What the ledger knows is all that there is: it is used to refuse, and never shown."""
    crash = crashes(*UNASKED)
    await killed_with_an_unasked_card(crash, when, counted=counted)
    card, taken = crash.card, counted + (when is not Moment.LOST)
    async with crash.subscribed() as seen:
        path, facts = await seen.card_in_state("ready")
        assert is_stale(facts)
        session = await seen.open_session(path)
        assert is_stale(facts), "nothing was heard of the card"
        state = await seen.call(session, "Session", "QueryPin", "s", ("user",))
        assert tuple(state) == ("unknown", -1)
        assert is_stale(facts)
        refused = "refused-last-try" if counted else "refused-unknown"
        assert await seen.verify(session, RIGHT) == (refused, -1)
        assert is_stale(facts)
        told = card.status()["counts"].get("81", {}).get("verify", {"total": 0})
        assert told["total"] == taken, "it was not asked, and nothing was sent"
        consent = {"accept_unknown": True, "spend_last_try": counted}
        assert (await seen.verify(session, RIGHT, **consent))[0] == "verified"
        assert facts["PinTriesSource"] == "last-verify"
        assert wrong(card.status()) == taken
        assert not crash.entry(PKCS15_PIN).in_flight


def is_stale(facts: dict[str, object]) -> bool:
    """No number is shown, and why."""
    shown = facts["PinTries"], facts["PinState"], facts["PinTriesSource"]
    return shown == ({}, {"user": "unknown", "puk": "unknown"}, "stale")


@pytest.mark.slow
async def test_killed_at_random_moments(crashes: Crashes) -> None:
    """Often while the ledger is being written, and sometimes while it is being read."""
    dice = random.Random(7)  # noqa: S311 - the same each time, as far as that goes
    crash = crashes("--tries-limit", "15")
    card = crash.card
    card.insert()
    for number in range(6):
        async with crash.subscribed() as seen:
            path, _ = await seen.card_in_state("ready")
            session = await seen.open_session(path)
            card.tell("reset-book")
            answers: list[str] = []
            call = asyncio.ensure_future(without_end(seen, session, answers))
            await asyncio.sleep(dice.random() * 0.2)
            await crash.kill(call)
        assert crash.left_to_others().startswith("63c")
        status = card.status()
        assert submissions(status) - len(answers) in {0, 1}
        assert wrong(status) - answers.count("incorrect") in {0, 1}
        left = status["references"]["80"]["left"]
        lowest = crash.entry().lowest
        assert lowest is None or lowest <= left
        if number % 2 == 0:
            crash.restart()  # the ledger is read, and written anew, for the first card
            await asyncio.sleep(dice.random() * 0.1)
            crash.daemon.kill()
            assert crash.entry().lowest in {lowest, left}
        crash.restart()
        async with crash.subscribed() as seen:
            _, facts = await seen.card_in_state("ready")
            assert facts["PinTries"] == {"user": left}
    assert "ledger.damaged" not in crash.daemon.log()


async def without_end(seen: Subscriber, session: str, answers: list[str]) -> None:
    """One right passcode, three wrong ones, and so on."""
    while True:
        secret = WRONG if len(answers) % 4 else RIGHT
        answers.append((await seen.verify(session, secret))[0])


async def test_the_power_goes_when_the_card_has_the_passcode(
    crashes: Crashes, rundir: Path
) -> None:
    """What the disk has of the ledger when the VERIFY arrives was synced before it was sent."""
    with forgetful(rundir / "cardsessiond.state", rundir / "disk"):
        crash = crashes()
        card = crash.card
        card.insert()
        async with crash.subscribed() as seen:
            session = await ready_session(crash, seen, OPERATIONS["verify-wrong"])
            assert await seen.verify(session, WRONG) == ("incorrect", 2)
            card.tell("silent-at", n=1, ins="20", with_data=True)
            call = asyncio.ensure_future(seen.verify(session, WRONG))
            await seen.until("the card has it", lambda: card.status()["silent"])
            with after_a_power_cut(rundir / "disk", rundir / "afterwards") as left:
                (entry,) = lines.read((left / "ledger").read_bytes()).entries.values()
            assert entry.in_flight
            assert entry.lowest == 1
            card.tell("speak")
            assert await call == ("incorrect", 1)


async def test_nothing_is_sent_before_the_disk_has_it(crashes: Crashes, rundir: Path) -> None:
    """A disk that takes its time: the card waits, unless the disk is given up, which is told."""
    with forgetful(rundir / "cardsessiond.state", rundir / "disk") as disk:
        crash = crashes()
        card = crash.card
        card.insert()
        async with crash.subscribed() as seen:
            session = await ready_session(crash, seen, OPERATIONS["verify-wrong"])
            with frozen(disk):
                call = asyncio.ensure_future(seen.verify(session, WRONG))
                await seen.until("the card is asked", lambda: len(card.status()["headers"]) >= 3)
                for _ in range(30):
                    given_up = GIVEN_UP in crash.daemon.log()
                    assert given_up or submissions(card.status()) == 0
                    await asyncio.sleep(0.01)
            assert await call == ("incorrect", 2)
            assert submissions(card.status()) == 1

"""The methods that take a secret: what is asked of the desks, who may, and that no descriptor and
no secret is left behind whatever happens."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from cardsession.bus.connection import Credentials, Variant
from cardsession.core.errors import Failure, Problem
from cardsession.core.facts import EndReason
from cardsession.core.signing import Algorithm
from cardsession.core.tries import Act, Consent, Outcome
from cardsession.ports import Caller, PinRequest, SignRequest, Verdict
from fakes.requests import OWNER, SESSION

from .served import (
    LAST_TRY,
    NEW,
    PIN_METHODS,
    SAMPLES,
    SHA256,
    Served,
    pipes,
    secrets_of,
    settle,
    with_options,
)
from .util import CANARY, Until, open_fds, unread

BOTH = ("ChangePin", "UnblockPin")
ACTS = {"VerifyPin": Act.VERIFY, "ChangePin": Act.CHANGE, "UnblockPin": Act.UNBLOCK,
        "SignWithPin": Act.VERIFY}  # fmt: skip
SIGNING = SignRequest("signature", Algorithm.RSA_SHA256, SHA256)
STRANGER = ":1.9"


@pytest.fixture(autouse=True)
def _no_descriptor_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Holds for every test here: what is open after it was open before it."""
    before = open_fds()
    yield
    assert open_fds() == before


def submitted(served: Served) -> PinRequest:
    """The only submission that the desks saw."""
    ((what, (session, caller, request)),) = served.requests.asked
    assert (what, session, caller) == ("submit", 1, Caller(OWNER, 1000))
    return request


# what is asked, what is answered


@pytest.mark.parametrize("member", PIN_METHODS)
async def test_a_submission_is_what_the_caller_asked(member: str) -> None:
    served = await Served.start()
    options = {"accept-unknown": Variant("b", True)}
    with pipes(*(CANARY, NEW)[: secrets_of(member)]) as fds:
        await served.call(member, *with_options(member, options), fds=fds)
    request = submitted(served)
    signs = member == "SignWithPin"
    assert (request.act, request.label) == (ACTS[member], "" if signs else "user")
    assert request.consent == Consent(spend_last_try=False, accept_unknown=True)
    assert request.signing == (SIGNING if signs else None)
    assert served.requests.secrets == [CANARY, NEW][: secrets_of(member)]


@pytest.mark.parametrize("member", BOTH)
async def test_the_secret_that_is_judged_comes_first_however_they_were_sent(member: str) -> None:
    served = await Served.start()
    with pipes(NEW, CANARY) as fds:
        await served.call(member, "user", 1, 0, {}, fds=fds)
    assert served.requests.secrets == [CANARY, NEW]


@pytest.mark.parametrize("member", PIN_METHODS)
@pytest.mark.parametrize(("count", "left"), [(None, -1), (0, 0), (2, 2)])
async def test_the_outcome_and_its_count(member: str, count: int | None, left: int) -> None:
    served = await Served.start()
    served.requests.verdict = Verdict(Outcome.INCORRECT, count)
    reply = await served.sample(member)
    assert reply.body[:2] == ("incorrect", left)


@pytest.mark.parametrize("outcome", list(Outcome))
async def test_a_signature_is_told_only_if_it_was_verified(outcome: Outcome) -> None:
    served = await Served.start()
    served.requests.verdict = Verdict(outcome, None, b"signature")
    reply = await served.sample("SignWithPin")
    signature = b"signature" if outcome is Outcome.VERIFIED else b""
    assert reply.body == (str(outcome), -1, signature)


@pytest.mark.parametrize("member", PIN_METHODS)
@pytest.mark.parametrize("text", ["", "1234\n", "h\u00e9llo"])
async def test_what_is_no_passcode_is_the_desks_to_judge(member: str, text: str) -> None:
    served = await Served.start()
    with pipes(*(text, NEW)[: secrets_of(member)]) as fds:
        reply = await served.call(member, *SAMPLES[member], fds=fds)
    assert reply.body[0] == str(ACTS[member].refused_format)


# both at the same time


@pytest.mark.parametrize("member", BOTH)
async def test_the_new_passcode_is_read_while_the_old_one_is_waited_for(
    member: str, until: Until
) -> None:
    served = await Served.start()
    late, sink = os.pipe()
    with pipes(NEW) as (new,):
        ours = os.dup(new)
        served.send(member, "user", 0, 1, {}, fds=(late, new))
        await until(lambda: unread(ours) == 0)
        assert served.order == []
        os.write(sink, CANARY.encode())
        os.close(sink)
        reply = await served.reply()
        os.close(ours)
    assert reply.what == f"reply to {member}"
    assert served.requests.secrets == [CANARY, NEW]


# descriptors that are not as they should be


@pytest.mark.parametrize("member", BOTH)
async def test_one_descriptor_for_two_secrets(member: str) -> None:
    served = await Served.start()
    with pipes(CANARY, NEW) as fds:
        reply = await served.call(member, "user", 1, 1, {}, fds=fds)
    assert reply.what == f"SecretInvalid to {member}"
    assert served.requests.asked == []


@pytest.mark.parametrize("member", PIN_METHODS)
async def test_a_descriptor_that_was_not_sent(member: str) -> None:
    served = await Served.start()
    last = secrets_of(member) - 1
    elsewhere = [7 if type(each) is int and each == last else each for each in SAMPLES[member]]
    with pipes(*(CANARY, NEW)[: last + 1]) as fds:
        reply = await served.call(member, *elsewhere, fds=fds)
    assert reply.what == f"InvalidArgs to {member}"
    assert served.requests.asked == []


@pytest.mark.parametrize("member", PIN_METHODS)
async def test_one_more_than_was_asked_for(member: str) -> None:
    served = await Served.start()
    with pipes(CANARY, NEW, "x") as fds:
        reply = await served.call(member, *SAMPLES[member], fds=fds)
    assert reply.what == f"reply to {member}"


@pytest.mark.parametrize("member", PIN_METHODS)
async def test_a_secret_that_is_no_pipe_is_refused_by_its_name(member: str) -> None:
    served = await Served.start()
    with pipes(*(CANARY, NEW)[: secrets_of(member) - 1]) as fds:
        null = os.open("/dev/null", os.O_RDONLY)
        reply = await served.call(member, *SAMPLES[member], fds=(*fds, null))
    assert reply.what == f"SecretInvalid to {member}"


@pytest.mark.parametrize("member", BOTH)
@pytest.mark.parametrize("silent", [0, 1], ids=["old", "new"])
async def test_a_secret_that_never_comes_is_not_waited_for(member: str, silent: int) -> None:
    served = await Served.start()
    texts: list[str | None] = [CANARY, NEW]
    texts[silent] = None
    with pipes(*texts) as fds:
        reply = await served.call(member, *SAMPLES[member], fds=fds)
    assert reply.what == f"SecretInvalid to {member}"
    assert CANARY not in str(served.connection.sent)


# refusals: nothing was read, and nothing is left


WRONG: dict[str, dict[str, Variant]] = {
    "an option that there is not": {"dry-run": Variant("b", True)},
    "another type": {"spend-last-try": Variant("u", 1)},
}


@pytest.mark.parametrize("member", PIN_METHODS)
@pytest.mark.parametrize("options", WRONG.values(), ids=WRONG)
async def test_options_that_are_not_understood(member: str, options: dict[str, Variant]) -> None:
    served = await Served.start()
    with pipes(*(CANARY, NEW)[: secrets_of(member)]) as fds:
        reply = await served.call(member, *with_options(member, options), fds=fds)
    assert reply.what == f"InvalidArgs to {member}"
    assert served.requests.asked == []


@pytest.mark.parametrize("member", PIN_METHODS)
async def test_a_stranger_s_secret_is_not_read(member: str) -> None:
    served = await Served.start()
    reply = await served.sample(member, sender=STRANGER)
    assert reply.what == f"NotOwner to {member}"
    assert served.requests.asked == []


@pytest.mark.parametrize("member", PIN_METHODS)
@pytest.mark.parametrize("reads", [True, False], ids=["read", "unread"])
@pytest.mark.parametrize(
    "failure",
    [Failure(Problem.BUSY, "wait"), RuntimeError(CANARY)],
    ids=["foreseen", "unforeseen"],
)
async def test_a_submission_that_fails(member: str, reads: bool, failure: Exception) -> None:
    served = await Served.start()
    served.requests.failure, served.requests.reads = failure, reads
    reply = await served.sample(member)
    assert reply.what.split()[0] in {"Busy", "Internal"}
    assert CANARY not in str(served.connection.sent)


# the last try


@pytest.mark.parametrize("member", PIN_METHODS)
@pytest.mark.parametrize(
    ("granted", "uid", "may"),
    [("caller", 12345, True), ("never", 0, False), ("admin", 12345, False), ("admin", 0, True)],
)
async def test_who_may_spend_the_last_try(member: str, granted: str, uid: int, may: bool) -> None:
    served = await Served.start(granted)
    served.connection.who = Credentials(uid, None, ())
    with pipes(*(CANARY, NEW)[: secrets_of(member)]) as fds:
        reply = await served.call(member, *with_options(member, LAST_TRY), fds=fds)
    if may:
        assert submitted(served).consent.spend_last_try
        assert reply.what == f"reply to {member}"
    else:
        assert reply.what == f"NotAuthorized to {member}"
        assert served.requests.asked == []


@pytest.mark.parametrize("member", PIN_METHODS)
async def test_no_grant_is_needed_for_what_was_not_asked(member: str) -> None:
    served = await Served.start("never")
    no = {"spend-last-try": Variant("b", False)}
    with pipes(*(CANARY, NEW)[: secrets_of(member)]) as fds:
        reply = await served.call(member, *with_options(member, no), fds=fds)
    assert reply.what == f"reply to {member}"


# those who leave


@pytest.mark.parametrize("member", PIN_METHODS)
async def test_a_caller_that_leaves_while_its_secret_is_read(member: str) -> None:
    served = await Served.start()
    await served.sample("OpenSession")
    with pipes(*(None, NEW)[: secrets_of(member)]) as fds:
        served.send(member, *SAMPLES[member], fds=fds)
        await settle()
        served.connection.leaves(OWNER)
        assert served.requests.asked[-1] == ("caller_gone", OWNER)
        for task in served.connection.cancel():  # the connection's own end is no different
            with pytest.raises(asyncio.CancelledError):
                await task
        await settle()
    assert served.requests.secrets == []


@pytest.mark.parametrize("member", PIN_METHODS)
async def test_the_reply_comes_before_the_end_though_a_secret_is_still_being_read(
    member: str,
) -> None:
    """Closing what is being read takes a turn of the loop, for which no reply waits."""
    served = await Served.start()
    with pipes(*(None, None)[: secrets_of(member)]) as fds:
        over: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        _answered_by(served, over)
        served.send(member, *SAMPLES[member], fds=fds)
        await settle()
        gone = replace(SESSION, end_reason=EndReason.CARD_REMOVED)
        over.set_exception(Failure(Problem.CARD_REMOVED, "the card was removed"))
        served.service.show(gone)
        served.service.ended(gone, {})
        served.service.withdraw(gone)
        await served.reply()
    assert served.order == [
        "PropertiesChanged", f"CardRemoved to {member}", "Ended", "InterfacesRemoved",
    ]  # fmt: skip


def _answered_by(served: Served, over: asyncio.Future[Verdict]) -> None:
    """A desk that reads in a task of its own, and answers before that has ended."""
    tasks: list[Any] = []

    async def submit(_: int, __: Caller, request: PinRequest) -> Verdict:
        tasks.append(asyncio.ensure_future(_read(request)))
        return await over

    async def _read(request: PinRequest) -> None:
        with pytest.raises(Failure):
            await request.reads[0]()

    served.requests.submit = submit  # type: ignore[method-assign]

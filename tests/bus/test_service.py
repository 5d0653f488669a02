"""The contract's methods, dispatched: each is built, checked, and answered in its turn."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pytest

from cardsession.bus import contract
from cardsession.bus.calls import number_of
from cardsession.bus.connection import Variant
from cardsession.core.errors import Failure, Problem
from cardsession.core.facts import EndReason, PinFacts, Remedy
from cardsession.core.policy import CARD_FUNCTIONS
from cardsession.core.signing import Algorithm
from cardsession.core.tries import Known, Source
from cardsession.ports import Caller, SignRequest
from fakes.requests import CARD, OWNER, SESSION

from .served import (
    CARD_1,
    CONSTANTS,
    LAST_TRY,
    OWNERS,
    SAMPLES,
    SESSION_1,
    SHA256,
    Served,
    settle,
)

CALLER = Caller(OWNER, 1000)
STRANGER = ":1.9"
NOT_BUILT = {"GetReport", "GetHistory", "GetMetrics", "Rescan", "SetLogLevel", "SetTrace"}


async def test_every_method_of_the_contract_is_built_but_some_of_diagnostics() -> None:
    served = await Served.start()
    ours = {contract.MANAGER, contract.READER, contract.CARD, contract.SESSION}
    members = {member for name in ours for member in contract.interface(name).methods}
    assert members == set(SAMPLES), "each has a sample"
    every = members | {*contract.interface(contract.DIAGNOSTICS).methods}
    built = {member for methods in served.service._methods.values() for member in methods}
    assert every - built == NOT_BUILT
    assert not built - every, "nothing is dispatched that the contract does not have"


@pytest.mark.parametrize("member", sorted(SAMPLES))
async def test_a_call_that_is_in_order_is_answered(member: str) -> None:
    served = await Served.start()
    assert (await served.sample(member)).what == f"reply to {member}"
    for fd in served.connection.given:
        os.close(fd)


async def test_what_is_not_built_says_so() -> None:
    served = await Served.start()
    for member in sorted(NOT_BUILT):
        served.connection.sent.clear()
        signature = contract.method(contract.DIAGNOSTICS, member).in_signature
        served.connection.call(contract.ROOT, contract.DIAGNOSTICS, member, signature)
        assert (await served.reply()).what == f"NotSupported to {member}"


# in their turn


@pytest.mark.parametrize("member", sorted({*OWNERS, "OpenSession"} - {"TakeLifetime"}))
async def test_what_changed_on_the_way_is_told_before_the_reply(member: str) -> None:
    served = await Served.start()
    counted = PinFacts({"user": Known(2)}, Source.LAST_VERIFY, 9)
    served.requests.during = lambda: served.service.show(replace(CARD, pins=counted))
    await served.sample(member)
    first, *_, last = served.connection.sent
    assert (first.what, last.what) == ("PropertiesChanged", f"reply to {member}")
    assert first.body[1]["PinTries"].value == {"user": 2}


@pytest.mark.parametrize("member", sorted({*OWNERS} - {"TakeLifetime", "Close"}))
async def test_a_card_pulled_in_a_call_the_call_is_answered_then_everybody_is_told(
    member: str,
) -> None:
    served = await Served.start()

    def pull() -> None:
        gone = replace(SESSION, end_reason=EndReason.CARD_REMOVED)
        served.service.show(gone)
        served.service.ended(gone, {})
        served.service.withdraw(gone)
        raise Failure(Problem.CARD_REMOVED, "the card was removed")

    served.requests.during = pull
    await served.sample(member)
    assert served.order == [
        "PropertiesChanged", f"CardRemoved to {member}", "Ended", "InterfacesRemoved",
    ]  # fmt: skip


async def test_whoever_closes_a_session_finds_it_gone() -> None:
    served = await Served.start()
    await served.sample("Close")
    assert served.order == [
        "PropertiesChanged", "Ended", "InterfacesRemoved", "reply to Close",
    ]  # fmt: skip


# whose it is


@pytest.mark.parametrize("member", OWNERS)
async def test_the_owner_is_asked_about_before_anything_else(member: str) -> None:
    served = await Served.start()
    wrong: dict[str, Any] = {
        "Sign": ("signature", "rot13", b"", {"x": Variant("b", True)}),
        "SignWithPin": ("signature", "rot13", b"", 7, LAST_TRY),
        "VerifyPin": ("x" * 999, 7, {"x": Variant("b", True)}),
        "ChangePin": ("user", 7, 7, LAST_TRY),
        "UnblockPin": ("user", 7, 7, {"x": Variant("b", True)}),
        "Transmit": (b"", {"x": Variant("b", True)}),
        "QueryPin": ("x" * 999,),
    }
    reply = await served.call(member, *wrong.get(member, SAMPLES[member]), sender=STRANGER)
    assert reply.what == f"NotOwner to {member}"
    assert served.requests.asked == []


@pytest.mark.parametrize("member", OWNERS)
async def test_a_session_that_is_over_says_why(member: str) -> None:
    served = await Served.start()
    served.requests.session_facts = None
    served.service.withdraw(SESSION)
    await settle()
    reply = await served.sample(member)
    assert (reply.what, reply.body) == (f"SessionEnded to {member}", ("closed",))


@pytest.mark.parametrize("name", ["01", "", "x", "-1", "0" * 30, "1" * 30, "1/2"])
async def test_a_path_that_is_no_session_s_is_no_object(name: str) -> None:
    assert number_of(f"{contract.SESSIONS}/{name}", contract.SESSIONS) is None
    served = await Served.start()
    reply = await served.sample("Close", path=f"{contract.SESSIONS}/{name}".rstrip("/"))
    assert reply.what == "UnknownObject to Close"


# signatures, APDUs, context


async def test_sign_asks_for_what_the_caller_asked() -> None:
    served = await Served.start()
    reply = await served.sample("Sign")
    wanted = SignRequest("signature", Algorithm.RSA_SHA256, SHA256)
    assert served.requests.asked == [("sign", (1, CALLER, wanted))]
    assert reply.body == (b"signature",)


@pytest.mark.parametrize("member", ["Sign", "SignWithPin"])
@pytest.mark.parametrize("algorithm", ["", "rsa", "RSA-PKCS1-SHA256", "ecdsa-sha512", "x" * 9999])
async def test_an_algorithm_that_is_not_ours(member: str, algorithm: str) -> None:
    served = await Served.start()
    slot, _, *rest = SAMPLES[member]
    reply = await served.call(member, slot, algorithm, *rest)
    assert reply.what == f"UnsupportedAlgorithm to {member}"
    assert "ecdsa-sha384" in reply.body[0], "what is ours is named"
    assert served.requests.asked == []


@pytest.mark.parametrize("member", ["Sign", "SignWithPin"])
@pytest.mark.parametrize("algorithm", list(Algorithm))
@pytest.mark.parametrize("off", [-1, 1])
async def test_a_digest_of_the_wrong_length(member: str, algorithm: Algorithm, off: int) -> None:
    served = await Served.start()
    slot, _, _, *rest = SAMPLES[member]
    digest = bytes(algorithm.digest_size + off)
    reply = await served.call(member, slot, str(algorithm), digest, *rest)
    assert reply.what == f"InvalidArgs to {member}"
    assert f"{algorithm.digest_size} bytes" in reply.body[0]
    assert served.requests.asked == []


async def test_transmit_hands_the_bytes_on() -> None:
    served = await Served.start()
    reply = await served.sample("Transmit")
    apdu = b"\x00\x84\x00\x00\x08"
    assert served.requests.asked == [("transmit", (1, CALLER, apdu))]
    assert reply.body == (apdu, 0x9000)


@pytest.mark.parametrize("member", ["Sign", "Transmit"])
async def test_an_option_that_there_is_not(member: str) -> None:
    served = await Served.start()
    options = {"spend-last-try": Variant("b", True)}
    reply = await served.call(member, *SAMPLES[member][:-1], options)
    assert reply.what == f"InvalidArgs to {member}"
    assert reply.body == ("option spend-last-try: no option was expected",)
    assert served.requests.asked == []


async def test_the_context_is_shown_before_the_reply() -> None:
    served = await Served.start()
    await served.sample("SetContext")
    context = {"ods-code": "FA123"}
    assert served.requests.asked == [("set_context", (1, CALLER, context))]
    assert served.order == ["PropertiesChanged", "reply to SetContext"]
    assert served.connection.sent[0].body[1]["Context"].value == context


@pytest.mark.parametrize("problem", [Problem.INVALID_CONTEXT, Problem.NOT_VERIFIED])
async def test_what_the_desks_refuse_is_the_contract_s_error(problem: Problem) -> None:
    served = await Served.start()
    served.requests.failure = Failure(problem, "why")
    reply = await served.sample("SetContext")
    assert (reply.what, reply.body) == (f"{problem} to SetContext", ("why",))


# Manager


async def test_the_manager_tells_what_it_was_made_with() -> None:
    tree = (await Served.start()).service._tree
    found = tree.properties(contract.ROOT, contract.MANAGER)
    assert found is not None
    assert set(found) == set(contract.interface(contract.MANAGER).properties)
    told = {name: variant.value for name, variant in found.items()}
    assert (told["Version"], told["RemovalPolicy"]) == (CONSTANTS.version, "lock")
    assert (told["IdleUSec"], told["MaxAgeUSec"]) == (900_000_000, 43_200_000_000)


@pytest.mark.parametrize(
    ("path", "sender", "answer"),
    [
        ("/", OWNER, (True, "")),
        (SESSION_1, OWNER, (True, "")),
        ("/", STRANGER, (False, "no-session")),
        (SESSION_1, STRANGER, (False, "not-owner")),
        (f"{contract.SESSIONS}/2", OWNER, (False, "no-session")),
        (f"{contract.SESSIONS}/01", OWNER, (False, "no-session")),
        (CARD_1, OWNER, (False, "no-session")),
        ("/elsewhere", OWNER, (False, "no-session")),
    ],
)
async def test_which_session_a_function_is_asked_about(
    path: str, sender: str, answer: tuple[bool, str]
) -> None:
    served = await Served.start()
    for function in CARD_FUNCTIONS:
        reply = await served.call("CheckFunction", function, path, sender=sender)
        assert reply.body == answer
    free = await served.call("CheckFunction", "nominated-download", path, sender=sender)
    assert free.body == (True, "")
    assert (await served.call("CheckFunction", "dance", path)).what.startswith("NoSuchFunction")


async def test_remedies_leave_in_their_order() -> None:
    served = await Served.start()
    remedies = (Remedy.SELF_UNLOCK, Remedy.LSA_OR_SPONSOR, Remedy.RENEW)
    served.service.show(replace(CARD, remedies=remedies, remedy_text="Ask the sponsor."))
    await settle()
    (changed,) = served.connection.sent
    told = {name: variant.value for name, variant in changed.body[1].items()}
    assert told == {
        "Remedies": ["self-unlock", "lsa-or-sponsor", "renew"], "RemedyText": "Ask the sponsor.",
    }  # fmt: skip


# who left


async def test_whoever_leaves_the_bus_leaves_the_session() -> None:
    served = await Served.start()
    await served.sample("OpenSession")
    served.connection.leaves(OWNER)
    assert served.requests.asked[-1] == ("caller_gone", OWNER)


async def test_a_failure_that_nobody_foresaw_says_nothing_of_itself() -> None:
    served = await Served.start()
    served.requests.failure = RuntimeError("secret words")
    reply = await served.sample("Sign")
    assert reply.what == "Internal to Sign"
    assert "secret words" not in str(reply)

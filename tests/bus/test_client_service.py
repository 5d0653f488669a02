"""The client library and the service, over a real bus: what one sends the other understands."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from cardsession.bus.connection import Variant
from cardsession.bus.service import Service
from cardsession.client import (
    CardInfo,
    CardSessionClient,
    Certificate,
    Changed,
    Permission,
    PinStatus,
    Session,
    SessionInfo,
    Signed,
    Transmitted,
    Verdict,
    errors,
    words,
)
from cardsession.core.errors import Failure, Problem
from cardsession.core.facts import PinFacts, Remedy, Revocation, Standing, Trust
from cardsession.core.signing import Algorithm
from cardsession.core.tries import Act, Consent, Known, Outcome, Source
from cardsession.ports import Caller, SignRequest
from cardsession.ports import Verdict as Told
from fakes.requests import CARD, READER, FakeRequests

from .served import CARD_1, CONSTANTS, NEW, SHA256
from .util import CANARY, Connect, next_of, open_fds

PIN = CANARY.encode()


@pytest.fixture
async def requests(connect: Connect) -> FakeRequests:
    """The desks behind a service that has a card."""
    made = FakeRequests()
    made.session_facts = None
    service = Service(await connect(), CONSTANTS)
    made.publisher = service
    service.show(READER)
    service.show(CARD)
    await service.start(made, spend_last_try="caller")
    return made


@pytest.fixture
async def client(requests: FakeRequests, bus: str) -> AsyncIterator[CardSessionClient]:
    """A client of that service."""
    async with await CardSessionClient.open(bus) as client:
        yield client


@pytest.fixture
async def session(client: CardSessionClient, requests: FakeRequests) -> Session:
    """A session of that client."""
    session = await client.open_session(CARD_1, "test")
    requests.asked.clear()
    return session


async def test_the_four_that_take_secrets(session: Session, requests: FakeRequests) -> None:
    before = open_fds()
    requests.verdict = Told(Outcome.INCORRECT, 2)
    assert await session.verify_pin(PIN) == Verdict("incorrect", 2)
    requests.verdict = Told(Outcome.CHANGED, None)
    assert await session.change_pin(PIN, NEW.encode()) == Verdict("changed", None)
    requests.verdict = Told(Outcome.UNBLOCKED, 9)
    assert await session.unblock_pin(PIN, NEW.encode(), "signature") == Verdict("unblocked", 9)
    requests.verdict = Told(Outcome.VERIFIED, None, b"signature")
    signed = await session.sign_with_pin("signature", "ecdsa-sha256", SHA256, PIN)
    assert signed == Signed("verified", None, b"signature")
    assert requests.secrets == [CANARY, CANARY, NEW, CANARY, NEW, CANARY]
    asked = [details[2] for what, details in requests.asked]
    assert [(each.act, each.label) for each in asked] == [
        (Act.VERIFY, "user"), (Act.CHANGE, "user"), (Act.UNBLOCK, "signature"), (Act.VERIFY, ""),
    ]  # fmt: skip
    assert asked[3].signing == SignRequest("signature", Algorithm.ECDSA_SHA256, SHA256)
    assert {each.consent for each in asked} == {Consent()}
    assert open_fds() == before


async def test_consent_arrives_as_given(session: Session, requests: FakeRequests) -> None:
    await session.change_pin(PIN, PIN, spend_last_try=True)
    await session.unblock_pin(PIN, PIN, accept_unknown=True)
    await session.sign_with_pin(
        "signature", "ecdsa-sha256", SHA256, PIN, spend_last_try=True, accept_unknown=True
    )
    assert [details[2].consent for _, details in requests.asked] == [
        Consent(spend_last_try=True), Consent(accept_unknown=True), Consent(True, True)
    ]  # fmt: skip


async def test_the_rest_of_a_session(
    session: Session, client: CardSessionClient, requests: FakeRequests
) -> None:
    owner = Caller(client.unique_name, os.getuid())
    assert await session.query_pin() == PinStatus("unverified", 3)
    assert await session.sign("signature", "ecdsa-sha256", SHA256) == b"signature"
    assert await session.transmit(b"\x00\x84\x00\x00\x08") == Transmitted(
        b"\x00\x84\x00\x00\x08", 0x9000
    )
    await session.keep_alive()
    await session.lock()
    assert [what for what, _ in requests.asked] == [
        "query", "sign", "transmit", "keep_alive", "lock",
    ]  # fmt: skip
    assert all(details[1] == owner for _, details in requests.asked)
    assert await client.check_function("claim", session.path) == Permission(True, "")
    assert await client.list_certificates(CARD_1) == (Certificate("signature", "", 0, 0),)
    assert await client.get_certificate(CARD_1, "signature") == b"der"
    fd = await session.take_lifetime()
    os.close(fd)
    async with asyncio.timeout(20):
        assert await session.ended == "lifetime-closed"


async def test_a_context_is_seen_when_the_call_returns(
    session: Session, requests: FakeRequests
) -> None:
    await session.set_context({"ods-code": "FA123"})
    assert session.info is not None
    assert session.info.context == {"ods-code": "FA123"}


async def test_refusals_have_their_classes(session: Session, requests: FakeRequests) -> None:
    with pytest.raises(errors.UnsupportedAlgorithm, match="ecdsa-sha384"):
        await session.sign("signature", "rot13", SHA256)
    with pytest.raises(errors.InvalidArgs, match="48 bytes"):
        await session.sign_with_pin("signature", "ecdsa-sha384", SHA256, PIN)
    for problem, error in (
        (Problem.NOT_VERIFIED, errors.NotVerified),
        (Problem.INVALID_CONTEXT, errors.InvalidContext),
        (Problem.APDU_FILTERED, errors.ApduFiltered),
        (Problem.NO_SUCH_SLOT, errors.NoSuchSlot),
        (Problem.NOT_TRUSTED, errors.NotTrusted),
    ):
        requests.failure = Failure(problem, "why")
        with pytest.raises(error, match="why"):
            await session.transmit(b"")
        with pytest.raises(error, match="why"):
            await session.set_context({})
        with pytest.raises(error, match="why"):
            await session.change_pin(PIN, PIN)


async def test_a_session_is_its_connection_s(
    session: Session, requests: FakeRequests, bus: str
) -> None:
    async with await CardSessionClient.open(bus) as other:
        theirs = Session(other._service, session.path, lambda _: None)
        with pytest.raises(errors.NotOwner):
            await theirs.change_pin(PIN, PIN)
        with pytest.raises(errors.NotOwner):
            await theirs.sign("signature", "rot13", b"")
    assert requests.asked == []


async def test_what_is_shown_arrives(client: CardSessionClient, requests: FakeRequests) -> None:
    events = client.events()
    pins = PinFacts(
        {"user": Known(1)}, Source.CARD, 5, most={"user": 3, "signature": 300, "puk": 0},
        changed_usec=7, change_due=True,
    )  # fmt: skip
    assert requests.publisher
    requests.publisher.show(
        replace(
            CARD,
            pins=pins,
            standing=Standing(Trust.REVOKED, "left the site", Revocation.REVOKED),
            remedies=(Remedy.RA_IN_PERSON,),
            remedy_text="See the Registration Authority.",
        )
    )
    (changed,) = await next_of(events, 1)
    assert isinstance(changed, Changed) and isinstance(changed.info, CardInfo)
    card = changed.info
    assert card.pin_tries_max == {"user": 3}, "neither nought nor more than a byte holds"
    assert (card.pin_changed_usec, card.pin_change_due) == (7, True)
    assert (card.trust, card.trust_detail) == (words.Trust.REVOKED, "left the site")
    assert card.revocation is words.Revocation.REVOKED
    assert card.remedies == (words.Remedy.RA_IN_PERSON,)
    assert card.remedy_text == "See the Registration Authority."
    assert card.pin_state == {"user": words.PinState.LAST_TRY}
    assert client.manager is not None
    assert client.manager.removal_policy is words.RemovalPolicy.LOCK


async def test_what_was_proved_arrives(
    session: Session, client: CardSessionClient, requests: FakeRequests
) -> None:
    assert requests.publisher and requests.session_facts
    before = session.info
    assert before is not None
    assert (before.possession_proved, before.holder_verified) == (False, False)
    events = client.events()
    proved = replace(
        requests.session_facts, card=None, possession_proved=True, holder_verified=True
    )
    requests.publisher.show(proved)
    (changed,) = await next_of(events, 1)
    assert isinstance(changed, Changed) and isinstance(changed.info, SessionInfo)
    assert changed.names == {"card", "reader", "possession_proved", "holder_verified"}
    assert (changed.info.card, changed.info.reader) == ("/", "/")
    assert changed.info.possession_proved and changed.info.holder_verified


async def test_an_unknown_option_is_refused_by_name(
    session: Session, client: CardSessionClient
) -> None:
    with pytest.raises(errors.InvalidArgs, match="option dry-run: no option was expected"):
        await session._call("Transmit", b"\x00", {"dry-run": Variant("b", True)})

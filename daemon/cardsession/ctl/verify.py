"""`cardsessionctl verify`: one passcode, judged once by the card."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from collections.abc import Mapping
from typing import Any, Final

from cardsession.client import CardInfo, CardSessionClient, ReaderInfo, Session, Verdict

from .exits import Complaint, Exit, ended
from .passcode import NoTerminal, TooLong, ask, read_line
from .views import as_json, card_service, reader_name, shown, tries

_PIN: Final = "user"
_MEANINGS: Final = {
    "incorrect": "the passcode is wrong",
    "now-blocked": "the passcode is wrong, and is blocked now",
    "was-blocked": "the passcode is blocked: nothing was sent",
    "refused-last-try": "only one try is left: not sent; --spend-last-try would send it",
    "refused-unknown": "how many tries are left is unknown: not sent;"
    " --accept-unknown would send it",
    "uncertain": "the card's answer was lost: a try may be gone",
    "bad-format": "not a passcode that the card could take: not sent, no try spent",
}
_BLOCKED: Final = frozenset({"now-blocked", "was-blocked"})
_SERVICE_LOST: Final = frozenset({"service-gone", "bus-lost", "daemon-stopping"})
"""Ends of a held session that nobody at the counter brought about."""
_KEEP_ALIVES: Final = 3
"""KeepAlive calls in one idle time: one may be late."""
_TYPING_SECONDS: Final = 5.0
"""How long a passcode that is not wanted any more may still be typed."""
_SHORTEST_IDLE: Final = 30.0
"""Seconds; no site can configure less."""


async def verify(client: CardSessionClient, options: argparse.Namespace) -> Exit:
    """Open a session, ask, verify, and hold the session if told to."""
    card = choose(client, options.reader, options.card)
    async with await client.open_session(card.path, options.purpose) as session:
        verdict = await _judged(client, session, card.path, options)
        if verdict.outcome == "verified" and options.hold:
            await _hold(client, session, options)
    return _exit(verdict.outcome)


def choose(client: CardSessionClient, reader: str | None, card: str | None) -> CardInfo:
    """The card that is meant: by its path or number, by its reader, or the only one ready."""
    if card is not None:
        found = client.get(card if card.startswith("/") else f"/org/cardsession1/card/{card}")
        if not isinstance(found, CardInfo):
            raise Complaint(Exit.NO_CARD, f"there is no card {shown(card)}")
        return found
    if reader is not None:
        return _card_in(client, reader)
    ready = [each for each in client.cards() if each.state == "ready"]
    if len(ready) > 1:
        places = ", ".join(_place(client, each) for each in ready)
        raise Complaint(Exit.USAGE, f"cards are ready in {places}: say which by --reader")
    return ready[0] if ready else _none_ready(client)


def _card_in(client: CardSessionClient, name: str) -> CardInfo:
    """The card in the reader of that id, PC/SC name or label."""
    readers = [each for each in client.readers() if name in {each.id, each.name, each.label}]
    if len(readers) != 1:
        many = "there is no reader" if not readers else "there is more than one reader"
        raise Complaint(Exit.NO_CARD if not readers else Exit.USAGE, f"{many} {shown(name)}")
    card = client.get(readers[0].card)
    if not isinstance(card, CardInfo):
        state = shown(readers[0].state)
        raise Complaint(Exit.NO_CARD, f"there is no card in {shown(name)} ({state})")
    return card


def _none_ready(client: CardSessionClient) -> CardInfo:
    """Why there is none: raises Complaint, whose text says what each reader has instead."""
    if not client.readers():
        raise Complaint(Exit.NO_CARD, f"there is no reader{card_service(client)}")
    elsewhere = [each for each in client.readers() if each.state == "in-use-elsewhere"]
    if elsewhere:
        name = reader_name(elsewhere[0])
        raise Complaint(Exit.BUSY, f"another program is using the card in {name}")
    states = [f"{_place(client, each)}: {shown(each.state)}" for each in client.cards()]
    raise Complaint(
        Exit.NO_CARD, "no card is ready" + (f" ({', '.join(states)})" if states else "")
    )


def _place(client: CardSessionClient, card: CardInfo) -> str:
    """The reader a card is in."""
    reader = client.get(card.reader)
    return reader_name(reader) if isinstance(reader, ReaderInfo) else shown(card.reader)


async def _judged(
    client: CardSessionClient, session: Session, path: str, options: argparse.Namespace
) -> Verdict:
    """Say what is left, ask, submit once, say what came of it."""
    card = client.get(path)  # as read when the session was opened
    if not isinstance(card, CardInfo):
        raise ended("card-removed")
    place = _place(client, card)
    before = {"event": "asking", "card": path, "session": session.path, "reader": place}
    holder = f", {shown(card.holder_id)}" if card.holder_id else ""
    _say(
        options,
        before | {"tries": dict(card.pin_tries)},
        f"{place}{holder}; tries left: {tries(card)}",
    )
    if card.pin_tries.get(_PIN) == 0:
        raise Complaint(Exit.BLOCKED, "the passcode is blocked" + _remedy(card))
    secret = await _asked(session, options)
    try:
        verdict = await session.verify_pin(
            secret, spend_last_try=options.spend_last_try, accept_unknown=options.accept_unknown
        )
    finally:
        secret[:] = bytes(len(secret))
    _say_verdict(options, verdict, client.get(path))
    return verdict


async def _asked(session: Session, options: argparse.Namespace) -> bytearray:
    """The passcode; the card may be pulled while somebody types."""
    if options.stdin and sys.stdin is None:
        raise Complaint(Exit.USAGE, "standard input is closed")
    piped = options.stdin and not sys.stdin.isatty()
    source = read_line(sys.stdin.fileno()) if piped else ask("Passcode: ")
    asking = asyncio.ensure_future(source)
    over = asyncio.ensure_future(_end(session))
    try:
        await asyncio.wait({asking, over}, return_when=asyncio.FIRST_COMPLETED)
        if not asking.done():
            raise ended(over.result())
        return asking.result()
    except NoTerminal:
        raise Complaint(Exit.USAGE, "there is no terminal to ask at: use --stdin") from None
    except TooLong:
        raise Complaint(Exit.NOT_ACCEPTED, "no passcode is that long: not sent") from None
    finally:
        over.cancel()
        if not asking.done():
            await _let_finish(asking, piped=piped)


async def _let_finish(asking: asyncio.Future[bytearray], *, piped: bool) -> None:
    """Somebody is typing a passcode: the rest of it must not be read, and shown, by the shell."""
    if not piped:
        print("\ncardsessionctl: too late; press Enter", file=sys.stderr, flush=True)
        await asyncio.wait({asking}, timeout=_TYPING_SECONDS)
    if asking.done():
        with contextlib.suppress(NoTerminal, TooLong):
            typed = asking.result()
            typed[:] = bytes(len(typed))
        return
    asking.cancel()
    await asyncio.wait({asking})  # the terminal echoes again; what was typed is thrown away


async def _end(session: Session) -> str:
    """Why the session has ended, once it has."""
    return await session.ended


def _say_verdict(options: argparse.Namespace, verdict: Verdict, card: object) -> None:
    """The outcome, the tries left, and what to do if there are none."""
    left = "unknown" if verdict.left is None else str(verdict.left)
    verified = verdict.outcome == "verified"
    text = "verified" if verified else f"{shown(verdict.outcome)}; tries left: {left}"
    _say(options, {"event": "judged", "outcome": verdict.outcome, "left": verdict.left}, text)
    if not verified:
        why = _MEANINGS.get(verdict.outcome, "the passcode was not accepted")
        remedy = _remedy(card) if verdict.outcome in _BLOCKED else ""
        print(f"cardsessionctl: {why}{remedy}", file=sys.stderr)


def _remedy(card: object) -> str:
    """What the site says is to be done about it."""
    if not isinstance(card, CardInfo):
        return ""
    text = card.remedy_text or ", ".join(card.remedies)
    return f": {shown(text)}" if text else ""


async def _hold(client: CardSessionClient, session: Session, options: argparse.Namespace) -> None:
    """Keep the session until the time is over or it ends by itself."""
    loop = asyncio.get_running_loop()
    until = loop.time() + options.hold
    manager = client.manager
    idle = manager.idle_usec / 1e6 if manager and manager.idle_usec else _SHORTEST_IDLE
    _say(options, {"event": "holding", "session": session.path}, "holding the session")
    over = asyncio.ensure_future(_end(session))
    try:
        while (left := until - loop.time()) > 0:
            done, _ = await asyncio.wait({over}, timeout=min(left, idle / _KEEP_ALIVES))
            if done:
                reason = over.result()
                text = f"the session has ended: {shown(reason)}"
                _say(options, {"event": "ended", "reason": reason}, text)
                if reason in _SERVICE_LOST:
                    raise ended(reason)
                return
            if loop.time() < until:
                await session.keep_alive()
    finally:
        over.cancel()


def _say(options: argparse.Namespace, event: Mapping[str, Any], text: str) -> None:
    """For a program or for a person."""
    print(as_json(event) if options.json else text, flush=True)


def _exit(outcome: str) -> Exit:
    """The outcome for a script; one that this version does not know is no success."""
    if outcome == "verified":
        return Exit.OK
    return Exit.BLOCKED if outcome in _BLOCKED else Exit.NOT_ACCEPTED

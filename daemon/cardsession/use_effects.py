"""The effects that use a session's authority without a secret: signatures and APDUs."""

from __future__ import annotations

from typing import Any

from cardsession import conversations
from cardsession.actor import Actor
from cardsession.asks import SignAsk, TransmitAsk, UseAsk, Waiting
from cardsession.card_effects import CardEffects
from cardsession.config import Hold
from cardsession.core import filter as allow_list
from cardsession.core.errors import TEXTS, Failure, Problem
from cardsession.core.states import Event
from cardsession.shown import Office, Shown

MAX_USES = 16
"""That wait for one card: a caller who asks faster than the card answers is told so."""


class UseEffects:
    """See `Effects`."""

    def __init__(
        self, actor: Actor, shown: Shown, card: CardEffects, waiting: Waiting, office: Office
    ) -> None:
        self._desk = actor
        self._shown = shown
        self._card = card
        self._waiting = waiting
        self._office = office

    def use(self, _: Event, ask: UseAsk[Any]) -> None:
        """Have it done; the conversation answers the ask itself."""
        if len(self._waiting.using) >= MAX_USES:
            ask.refuse(Problem.BUSY, TEXTS[Problem.BUSY])
            return
        try:
            match ask:
                case SignAsk():
                    work = self._sign(ask)
                case TransmitAsk():
                    work = self._transmit(ask)
                case _:
                    raise TypeError(f"no use: {type(ask).__name__}")
        except Failure as failure:
            ask.fail(failure)
            return
        using = self._waiting.using
        using.append(ask)
        ask.answered.add_done_callback(lambda _: using.remove(ask))
        self._desk.launch(work, Event.USE_FAILED)

    def end(self, reason: str, *, finish: bool) -> None:
        """The session is over: what still waits for the card is not begun any more. `finish`: the
        one that is under way is."""
        for ask in self._waiting.using[1 if finish else 0 :]:
            ask.refuse(Problem.SESSION_ENDED, reason)

    def _sign(self, ask: SignAsk) -> Any:
        card = self._shown.card
        assert card is not None  # noqa: S101 - an active session has one
        certificate = self._card.signable(card, ask.request)
        alone = self._office.config.session.hold is Hold.EXCLUSIVE
        fresh = alone and self._card.selected
        self._shown.record(
            "signature.asked", slot=ask.request.slot, algorithm=str(ask.request.algorithm)
        )
        return conversations.sign(*self._card.talk(), ask, certificate, fresh)

    def _transmit(self, ask: TransmitAsk) -> Any:
        channel, _, known = self._card.talk()
        extra = self._office.config.transmit.get(known.profile, frozenset())
        apdu = allow_list.check(ask.raw, extra)
        self._card.selected, self._card.foreign = False, True
        self._shown.record("apdu.asked", header=apdu.header)
        return conversations.transmit(channel, ask, apdu)

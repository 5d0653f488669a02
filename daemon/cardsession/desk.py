"""One actor per reader: events in, `step()`, effects out.

Everything that happens to a reader, its card and its session goes through `Desk.post`, one
after the other; nothing else writes. Conversations with the card run in the channel's thread
and come home as events; a generation number keeps the answer about one card from another.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import replace
from functools import partial
from typing import Any

from structlog import get_logger

from cardsession.actor import Conversation, Timers
from cardsession.asks import Ask, EndAsk, OpenAsk
from cardsession.core.errors import TEXTS, Failure, Malformed, Problem
from cardsession.core.facts import EndReason, ReaderFacts
from cardsession.core.reports import SlotReport, came_to_life, changes
from cardsession.core.session import step
from cardsession.core.states import Event, Refuse, State
from cardsession.effects import Effects
from cardsession.ports import Channel
from cardsession.shown import Office, Shown

log = get_logger(__name__)

HELD_SECONDS = 5.5
"""Longer than any conversation waits by itself: our thread is kept inside the card service."""
RECONCILE_SECONDS = (1.0, 5.0, 30.0, 300.0)
"""Pauses before a card that the worker calls gone and the status wait does not is read again;
the last repeats, so that a card that contradicts itself costs next to nothing."""
_DOUBTS_OF_A_CARD_THAT_WAS_READ = 1
"""One that was read in between was there: it may have been changed for another, quicker than the
card service looks, and is not made to wait for longer than the second pause."""
TAKEOVER_SECONDS = 5.0

_SETTLED = frozenset({State.READY, State.EMPTY, State.MUTE, State.STUCK, State.GONE})
"""States in which whoever waited for the card can be answered."""
_EMPTY = frozenset({State.EMPTY, State.LOCKED_AWAY, State.KEPT_AWAY})
_ASKED_AGAIN = frozenset({Problem.IN_USE_ELSEWHERE, Problem.BACKEND_UNAVAILABLE})
"""Failures that say nothing of a card that is being read: it is not unknown for that. (The status
wait tells of a card service that went away, a moment later.)"""
_RECOVERIES = {
    Event.CARD_REMOVED: Event.RECOVERED_EMPTY,
    Event.CARD_INSERTED: Event.RECOVERED,
}
_ELSEWHERE = frozenset({State.ELSEWHERE, State.LOCKED_ELSEWHERE, State.KEPT_ELSEWHERE})


class Desk:
    """The actor of one reader."""

    def __init__(self, reader: ReaderFacts, channel: Channel, office: Office) -> None:
        self.state = State.EMPTY
        self.shown = Shown(reader, office)
        self._office = office
        self._channel = channel
        self._report: SlotReport | None = None
        self._revived: int | None = None
        """The insertion (its counter) whose card was mute at first: once is enough."""
        self._events: deque[tuple[Event, Any]] = deque()
        self._draining = False
        self._generation = 0
        self._doubts = 0
        self._timers = Timers(office.clock)
        self._tasks: dict[asyncio.Task[None], None] = {}
        """Conversations under way, as they were begun."""
        self._effects = Effects(self, self.shown, channel, office)

    # events in

    def post(self, event: Event, payload: Any = None) -> None:
        """Take in one event; it and what follows from it are done when this returns."""
        self._events.append((event, payload))
        if self._draining:
            return
        self._draining = True
        try:
            while self._events:
                self._take(*self._events.popleft())
        finally:
            self._draining = False

    def report(self, now: SlotReport) -> None:
        """The status wait's word on this reader."""
        # What was counted before we looked for the first time is nothing that we saw happen.
        before = self._report or SlotReport(now.name, counter=now.counter)
        if now != before:
            self._doubts = 0
        self._report = now
        for event in changes(before, now):
            self.post(event, now.atr)
        if came_to_life(before, now) and self._revived != now.counter:
            self._revived = now.counter
            self.post(Event.CARD_REMOVED)
            self.post(Event.CARD_INSERTED, now.atr)

    def ask_to_open(self, ask: OpenAsk) -> None:
        """OpenSession, with a take-over of the same user's session if that was asked for."""
        session = self.shown.session
        if ask.request.replace and session and session.owner_uid == ask.caller.uid:
            ask.request = replace(ask.request, wait=max(ask.request.wait, TAKEOVER_SECONDS))
            self.post(Event.END_ASKED, EndAsk(EndReason.FORCED))
        self.post(Event.OPEN_ASKED, ask)

    def turn_away(self, reason: EndReason) -> None:
        """Whoever waits for the card does so no more: the session that has it is the last."""
        self._effects.turn_away(reason)

    def caller_gone(self, name: str) -> None:
        """A connection left the bus: what was its own ends."""
        deferred, asking = self._effects.waiting.deferred, self._effects.waiting.asking
        for ask in [ask for ask in deferred if ask.caller.name == name]:
            deferred.remove(ask)
            ask.refuse(Problem.NOT_AUTHORIZED, "the caller left")
        opening = isinstance(asking, OpenAsk) and asking.caller.name == name
        session = self.shown.session
        if (session and session.owner == name) or (self.state is State.OPENING and opening):
            self.post(Event.END_ASKED, EndAsk(EndReason.OWNER_VANISHED))

    async def close(self) -> None:
        """End the channel's thread; no event follows."""
        self._timers.cancel()
        self._effects.stop()
        await self._channel.close()

    def _take(self, event: Event, payload: Any) -> None:
        try:
            before = self.state
            removal = self._office.config.session.removal
            self.state, effects = step(before, event, removal)
            held = event is Event.HELD and self.state is not before
            if held or self.state is State.STUCK is not before:
                self.new_generation()
            self.shown.states(self.state)
            for effect in effects:
                if not isinstance(effect, Refuse):
                    self._effects.do(effect, event, payload)
                elif isinstance(payload, Ask):
                    payload.refuse(effect.problem, TEXTS[effect.problem])
            self.shown.states(self.state)
            if self.state in _SETTLED:
                self._effects.answer_deferred()
            if self.state is State.STUCK and not self._tasks and event in _RECOVERIES:
                self.post(_RECOVERIES[event])  # nothing hangs: what that card met was our bug
        except Exception as error:  # our bug must not take the other readers along
            self._fault(event, error)
            if isinstance(payload, Ask):
                payload.refuse(Problem.INTERNAL, TEXTS[Problem.INTERNAL])

    def _fault(self, event: Event, error: Exception) -> None:
        log.error("desk.fault", reader=self.shown.reader.name, moment=event.name, exc_info=error)
        self.state = State.STUCK
        self.new_generation()
        self._effects.give_up(event)
        self.shown.states(self.state)
        self.shown.fault(TEXTS[Problem.INTERNAL])

    # conversations: each comes home as an event of this card, or not at all

    def launch(self, work: Conversation, failed: Event) -> None:
        """Begin a conversation; it comes home as an event, a failed one as `failed`."""
        home = self._bring_home(work, failed, self._generation)
        task = asyncio.get_running_loop().create_task(home)
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)
        if "stuck" not in self._timers:
            self._watch_over()

    def new_generation(self) -> None:
        """Whatever is under way now is not about this card: it does not come home."""
        self._generation += 1

    @property
    def unwatched(self) -> bool:
        """Whether a conversation is under way that nobody would call stuck."""
        watched = "stuck" in self._timers or self.state is State.STUCK
        return bool(self._tasks) and not watched

    def _watch_over(self) -> None:
        self._timers.set("held", HELD_SECONDS, self._held)
        self._timers.set("stuck", self._office.config.readers.stuck_seconds, self._stuck)

    def _held(self) -> None:
        if self._channel.waiting:
            self.post(Event.HELD)

    def _stuck(self) -> None:
        if self._channel.waiting:
            self._watch_over()
        else:
            self.post(Event.STUCK)

    async def _bring_home(self, work: Conversation, failed: Event, generation: int) -> None:
        try:
            event, payload = await work
        except (Failure, Malformed) as error:
            event, payload = self._failed(failed, error)
        except Exception as error:  # our bug, as above
            if generation == self._generation:
                self._fault(failed, error)
                return
            log.error("desk.late-fault", reader=self.shown.reader.name, exc_info=error)
            event, payload = failed, None
        # The thread holds them in order. One that is home before its turn never came to the
        # thread, and says nothing of it: its caller's passcode could not be read, say.
        in_turn = next(iter(self._tasks), None) is asyncio.current_task()
        if in_turn:
            self._timers.cancel("stuck", "held")
        if in_turn and len(self._tasks) > 1:  # others are queued behind this one
            self._watch_over()
        if self.state is State.STUCK:
            if in_turn:
                self.post(Event.RECOVERED if self.shown.card else Event.RECOVERED_EMPTY)
        elif generation == self._generation:
            if event in (Event.PROBED, Event.PROBED_SAME):
                self._doubts = min(self._doubts, _DOUBTS_OF_A_CARD_THAT_WAS_READ)
            self.post(event, payload)
        elif self.state in _ELSEWHERE:
            self.post(Event.RETRY)  # whoever kept our thread let go of the card

    def _failed(self, failed: Event, error: Failure | Malformed) -> tuple[Event, Any]:
        """Some failures say more than that the conversation failed."""
        if isinstance(error, Malformed):
            return failed, Failure(Problem.CARD_RESET, "the card's answer makes no sense")
        if error.problem in (Problem.CARD_REMOVED, Problem.READER_REMOVED):
            # The worker noticed first. Should the status wait never agree, we look again.
            pause = RECONCILE_SECONDS[min(self._doubts, len(RECONCILE_SECONDS) - 1)]
            self._office.clock.later(pause, partial(self._reconcile, self._report))
            return Event.CARD_REMOVED, None
        if failed is Event.PROBE_FAILED and error.problem in _ASKED_AGAIN:
            return Event.PROBE_BUSY, error
        if failed is Event.PROBE_FAILED and error.problem is Problem.CARD_MUTE:
            return Event.PROBE_MUTE, error
        if error.problem is Problem.CARD_MUTE:
            return Event.FOUND_MUTE, error
        return failed, error

    def _reconcile(self, then: SlotReport | None) -> None:
        if self.state in _EMPTY and then and self._report == then and then.present:
            self._doubts += 1
            self.post(Event.CARD_INSERTED, then.atr)

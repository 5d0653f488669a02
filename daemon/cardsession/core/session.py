"""The states of a seat (a reader, its card, its session), and the ONE table that moves them.

A seat is in one `State`; an event moves it and names the effects, in order. The table is data:
it is tested cell by cell, and the diagram of the documentation is drawn from it. `step` is
total: a pair is in `TABLE`, or in `IGNORED` with its reason, or it is our bug.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from .errors import Problem, Unexpected


class State(Enum):
    """Where a seat is. The session's published state follows from it (`desk.py`)."""

    EMPTY = auto()
    PROBING = auto()
    ELSEWHERE = auto()
    """Another program holds the card; it is not known yet."""
    MUTE = auto()
    READY = auto()
    """The card is known (a blank or an unknown one too); nobody has a session."""
    OPENING = auto()
    """A session was asked for: the counter is being read, leftovers are de-authenticated."""
    UNVERIFIED = auto()
    VERIFYING = auto()
    QUERYING = auto()
    ACTIVE = auto()
    REVERIFYING = auto()
    """A submission while active."""
    LOCKING = auto()
    LOCKED = auto()
    UNLOCKING = auto()
    """A submission while locked."""
    QUERYING_LOCKED = auto()
    CLOSING = auto()
    """The session is over, a PIN operation under way must still come home."""
    RELEASING = auto()
    """The session is over, the card's authority is being dropped."""
    STUCK = auto()
    """The reader has not answered for too long."""
    GONE = auto()
    """The reader is gone; nothing follows."""


class Event(Enum):
    """What happens to a seat. Payloads (an ATR, a judgement, a reply to give) travel beside."""

    # the status wait
    CARD_INSERTED = auto()
    CARD_REMOVED = auto()
    CARD_MUTE = auto()
    READER_LOST = auto()
    """The reader, or the whole card service, went away."""
    # the card's conversation came home
    PROBED = auto()
    PROBE_FAILED = auto()
    PROBE_BUSY = auto()
    """The card could not be had: another program holds it."""
    PROBE_MUTE = auto()
    CERTIFICATES_READ = auto()
    OPENED = auto()
    OPEN_FAILED = auto()
    PIN_VERIFIED = auto()
    PIN_REFUSED = auto()
    """Judged without dropping an authority: nothing was sent."""
    PIN_FAILED = auto()
    """Judged, and whatever authority there was is gone."""
    PIN_BLOCKED = auto()
    PIN_UNSENT = auto()
    """No judgement, for there was nothing to send: not a word was said to the card."""
    PIN_LOST = auto()
    """No judgement: the answer, or the way to the card, was lost."""
    QUERIED = auto()
    QUERY_FAILED = auto()
    LOCK_DONE = auto()
    RELEASED = auto()
    STUCK = auto()
    HELD = auto()
    """The reader's thread waits for a rival, longer than it should."""
    RECOVERED = auto()
    """A stuck reader answered; its card is still in."""
    RECOVERED_EMPTY = auto()
    RETRY = auto()
    """Time, or a sign from the status wait, to ask again for a card held elsewhere."""
    # the bus
    OPEN_ASKED = auto()
    VERIFY_ASKED = auto()
    QUERY_ASKED = auto()
    LOCK_ASKED = auto()
    KEEP_ALIVE_ASKED = auto()
    END_ASKED = auto()
    """Close, owner gone, lifetime closed, a timer, the daemon stopping: the payload says which."""


class Effect(Enum):
    """What the desk does about it."""

    SHOW_CARD = auto()
    PROBE = auto()
    KEEP_PROBE = auto()
    KEEP_UNKNOWN = auto()
    """Announce the card by its ATR alone."""
    CALL_MUTE = auto()
    RETRY_LATER = auto()
    READ_CERTIFICATES = auto()
    KEEP_CERTIFICATES = auto()
    DROP_CARD = auto()
    LEAVE = auto()
    """Take the reader off the bus."""
    LET_GO = auto()
    """Forget the handle of a card that is gone."""
    DEFER = auto()
    """The asker waits for the card, if it wished to, else hears `Busy`."""
    ASK_TO_OPEN = auto()
    START_SESSION = auto()
    ABANDON = auto()
    """The asker left while we opened: the session ends as soon as it is there."""
    ANSWER_FAILURE = auto()
    """The conversation's failure is the answer to whoever began it."""
    VERIFY = auto()
    KEEP_JUDGEMENT = auto()
    ANSWER_JUDGEMENT = auto()
    MARK_VERIFIED = auto()
    MARK_UNVERIFIED = auto()
    MARK_STALE = auto()
    """A try may be gone: no count is shown until the card is asked again."""
    QUERY = auto()
    QUERY_FROM_CACHE = auto()
    KEEP_QUERY = auto()
    ANSWER_QUERY = auto()
    LOCK = auto()
    MARK_LOCKED = auto()
    ANSWER_DONE = auto()
    TOUCH = auto()
    REVOKE = auto()
    """A secret that was not sent yet is not sent any more."""
    CLOSE_SESSION = auto()
    """Publish that the session is over, with its reason; it is still an object."""
    RELEASE = auto()
    END_SESSION = auto()
    """`Ended`, then the object goes; whoever waits for it is answered."""
    REPORT_FAILURE = auto()
    """Log it and set `LastError`."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """The effect that answers a call with an error."""

    problem: Problem


Effects = tuple[Effect | Refuse, ...]
S, E, X = State, Event, Effect

_BUSY = (Refuse(Problem.BUSY),)
_OVER = (Refuse(Problem.SESSION_ENDED),)
_JUDGED = (X.KEEP_JUDGEMENT, X.ANSWER_JUDGEMENT)
_VERIFIED = (X.KEEP_JUDGEMENT, X.MARK_VERIFIED, X.ANSWER_JUDGEMENT)
_END_HUNG = (X.END_SESSION, X.REPORT_FAILURE)
_LOST = (X.REPORT_FAILURE, X.MARK_STALE, X.ANSWER_FAILURE)
_PIN_STATES = (S.VERIFYING, S.REVERIFYING, S.UNLOCKING, S.QUERYING, S.QUERYING_LOCKED, S.LOCKING)
_AT_REST = (S.UNVERIFIED, S.ACTIVE, S.LOCKED)
_SESSION = (*_AT_REST, *_PIN_STATES)
_OVER_STATES = (S.CLOSING, S.RELEASING)
_NO_SESSION = (S.EMPTY, S.PROBING, S.ELSEWHERE, S.MUTE, S.READY, S.OPENING)
_WITH_CARD = (S.PROBING, S.ELSEWHERE, S.MUTE, S.READY)
_CALLS = (E.VERIFY_ASKED, E.QUERY_ASKED, E.LOCK_ASKED, E.KEEP_ALIVE_ASKED)
_RESULTS = (
    E.PROBED, E.PROBE_FAILED, E.PROBE_BUSY, E.PROBE_MUTE, E.CERTIFICATES_READ, E.OPENED,
    E.OPEN_FAILED, E.PIN_VERIFIED, E.PIN_REFUSED, E.PIN_FAILED, E.PIN_BLOCKED, E.PIN_UNSENT,
    E.PIN_LOST, E.QUERIED, E.QUERY_FAILED, E.LOCK_DONE, E.RELEASED,
)  # fmt: skip

TABLE: dict[tuple[State, Event], tuple[State, Effects]] = {
    # a card comes, and is read
    (S.EMPTY, E.CARD_INSERTED): (S.PROBING, (X.SHOW_CARD, X.PROBE)),
    (S.EMPTY, E.CARD_MUTE): (S.MUTE, (X.SHOW_CARD, X.CALL_MUTE)),
    (S.PROBING, E.PROBED): (S.READY, (X.KEEP_PROBE, X.READ_CERTIFICATES)),
    (S.PROBING, E.PROBE_FAILED): (S.READY, (X.REPORT_FAILURE, X.KEEP_UNKNOWN)),
    (S.PROBING, E.PROBE_BUSY): (S.ELSEWHERE, (X.RETRY_LATER,)),
    (S.PROBING, E.PROBE_MUTE): (S.MUTE, (X.CALL_MUTE,)),
    (S.PROBING, E.CARD_MUTE): (S.MUTE, (X.CALL_MUTE,)),
    (S.ELSEWHERE, E.CARD_MUTE): (S.MUTE, (X.CALL_MUTE,)),
    (S.ELSEWHERE, E.RETRY): (S.PROBING, (X.PROBE,)),
    (S.READY, E.RETRY): (S.READY, (X.READ_CERTIFICATES,)),
    # a session is asked for
    (S.EMPTY, E.OPEN_ASKED): (S.EMPTY, (Refuse(Problem.NO_CARD),)),
    (S.PROBING, E.OPEN_ASKED): (S.PROBING, (X.DEFER,)),
    (S.ELSEWHERE, E.OPEN_ASKED): (S.ELSEWHERE, (X.DEFER,)),
    (S.MUTE, E.OPEN_ASKED): (S.MUTE, (Refuse(Problem.CARD_MUTE),)),
    (S.READY, E.OPEN_ASKED): (S.OPENING, (X.ASK_TO_OPEN,)),
    (S.OPENING, E.OPEN_ASKED): (S.OPENING, _BUSY),
    (S.RELEASING, E.OPEN_ASKED): (S.RELEASING, (X.DEFER,)),
    (S.CLOSING, E.OPEN_ASKED): (S.CLOSING, (X.DEFER,)),
    (S.OPENING, E.OPENED): (S.UNVERIFIED, (X.KEEP_QUERY, X.START_SESSION)),
    (S.OPENING, E.OPEN_FAILED): (S.READY, (X.REPORT_FAILURE, X.ANSWER_FAILURE)),
    (S.OPENING, E.END_ASKED): (S.OPENING, (X.ABANDON,)),
    # one submission
    (S.UNVERIFIED, E.VERIFY_ASKED): (S.VERIFYING, (X.VERIFY,)),
    (S.VERIFYING, E.PIN_VERIFIED): (S.ACTIVE, _VERIFIED),
    (S.VERIFYING, E.PIN_REFUSED): (S.UNVERIFIED, _JUDGED),
    (S.VERIFYING, E.PIN_FAILED): (S.UNVERIFIED, _JUDGED),
    (S.VERIFYING, E.PIN_UNSENT): (S.UNVERIFIED, (X.ANSWER_FAILURE,)),
    (S.VERIFYING, E.PIN_LOST): (S.UNVERIFIED, _LOST),
    (S.LOCKED, E.VERIFY_ASKED): (S.UNLOCKING, (X.VERIFY,)),
    (S.UNLOCKING, E.PIN_VERIFIED): (S.ACTIVE, _VERIFIED),
    (S.UNLOCKING, E.PIN_REFUSED): (S.LOCKED, _JUDGED),
    (S.UNLOCKING, E.PIN_FAILED): (S.LOCKED, _JUDGED),
    (S.UNLOCKING, E.PIN_UNSENT): (S.LOCKED, (X.ANSWER_FAILURE,)),
    (S.UNLOCKING, E.PIN_LOST): (S.LOCKED, _LOST),
    (S.ACTIVE, E.VERIFY_ASKED): (S.REVERIFYING, (X.VERIFY,)),
    (S.REVERIFYING, E.PIN_VERIFIED): (S.ACTIVE, _VERIFIED),
    (S.REVERIFYING, E.PIN_REFUSED): (S.ACTIVE, _JUDGED),
    (S.REVERIFYING, E.PIN_FAILED): (S.UNVERIFIED, (X.MARK_UNVERIFIED, *_JUDGED)),
    (S.REVERIFYING, E.PIN_UNSENT): (S.ACTIVE, (X.ANSWER_FAILURE,)),
    (S.REVERIFYING, E.PIN_LOST): (S.UNVERIFIED, (X.MARK_UNVERIFIED, *_LOST)),
    # a question to the card
    (S.UNVERIFIED, E.QUERY_ASKED): (S.QUERYING, (X.QUERY,)),
    (S.QUERYING, E.QUERIED): (S.UNVERIFIED, (X.KEEP_QUERY, X.ANSWER_QUERY)),
    (S.QUERYING, E.QUERY_FAILED): (S.UNVERIFIED, (X.REPORT_FAILURE, X.ANSWER_FAILURE)),
    (S.LOCKED, E.QUERY_ASKED): (S.QUERYING_LOCKED, (X.QUERY,)),
    (S.QUERYING_LOCKED, E.QUERIED): (S.LOCKED, (X.KEEP_QUERY, X.ANSWER_QUERY)),
    (S.QUERYING_LOCKED, E.QUERY_FAILED): (S.LOCKED, (X.REPORT_FAILURE, X.ANSWER_FAILURE)),
    # while the PIN is verified the card can only say so: asking would first end that
    (S.ACTIVE, E.QUERY_ASKED): (S.ACTIVE, (X.QUERY_FROM_CACHE,)),
    # locking, and staying
    (S.ACTIVE, E.LOCK_ASKED): (S.LOCKING, (X.LOCK,)),
    (S.LOCKING, E.LOCK_DONE): (S.LOCKED, (X.KEEP_QUERY, X.MARK_LOCKED, X.ANSWER_DONE)),
    (S.LOCKED, E.LOCK_ASKED): (S.LOCKED, (X.ANSWER_DONE,)),
    (S.UNVERIFIED, E.LOCK_ASKED): (S.UNVERIFIED, (Refuse(Problem.NOT_VERIFIED),)),
    (S.ACTIVE, E.KEEP_ALIVE_ASKED): (S.ACTIVE, (X.TOUCH, X.ANSWER_DONE)),
    (S.UNVERIFIED, E.KEEP_ALIVE_ASKED): (S.UNVERIFIED, (Refuse(Problem.NOT_VERIFIED),)),
    (S.LOCKED, E.KEEP_ALIVE_ASKED): (S.LOCKED, (Refuse(Problem.NOT_VERIFIED),)),
    # the authority is dropped, then the session goes
    (S.RELEASING, E.RELEASED): (S.READY, (X.KEEP_QUERY, X.END_SESSION, X.READ_CERTIFICATES)),
    (S.CLOSING, E.PIN_VERIFIED): (S.RELEASING, (*_JUDGED, X.RELEASE)),
    (S.CLOSING, E.PIN_REFUSED): (S.RELEASING, (*_JUDGED, X.RELEASE)),
    (S.CLOSING, E.PIN_FAILED): (S.RELEASING, (*_JUDGED, X.RELEASE)),
    (S.CLOSING, E.PIN_BLOCKED): (S.RELEASING, (*_JUDGED, X.RELEASE)),
    (S.CLOSING, E.PIN_UNSENT): (S.RELEASING, (X.ANSWER_FAILURE, X.RELEASE)),
    (S.CLOSING, E.PIN_LOST): (S.RELEASING, (*_LOST, X.RELEASE)),
    (S.CLOSING, E.QUERIED): (S.RELEASING, (X.KEEP_QUERY, X.ANSWER_QUERY, X.RELEASE)),
    (S.CLOSING, E.QUERY_FAILED): (S.RELEASING, (X.REPORT_FAILURE, X.ANSWER_FAILURE, X.RELEASE)),
    (S.CLOSING, E.LOCK_DONE): (S.RELEASING, (X.KEEP_QUERY, X.ANSWER_DONE, X.RELEASE)),
    # a reader that does not answer, and answers again
    # what hung may have unlocked the card in the end: its handle goes, with a reset
    (S.STUCK, E.RECOVERED): (S.PROBING, (X.LET_GO, X.PROBE)),
    (S.STUCK, E.RECOVERED_EMPTY): (S.EMPTY, (X.LET_GO,)),
    (S.STUCK, E.CARD_REMOVED): (S.STUCK, (X.DROP_CARD,)),
    (S.STUCK, E.CARD_INSERTED): (S.STUCK, (X.SHOW_CARD,)),
    (S.STUCK, E.CARD_MUTE): (S.STUCK, (X.SHOW_CARD,)),
    (S.STUCK, E.OPEN_ASKED): (S.STUCK, (Refuse(Problem.READER_STUCK),)),
    (S.STUCK, E.READER_LOST): (S.GONE, (X.DROP_CARD, X.LEAVE)),
    (S.GONE, E.OPEN_ASKED): (S.GONE, (Refuse(Problem.READER_REMOVED),)),
}

for _state in _WITH_CARD:
    TABLE[_state, E.CARD_REMOVED] = (S.EMPTY, (X.DROP_CARD,))
    TABLE[_state, E.READER_LOST] = (S.GONE, (X.DROP_CARD, X.LEAVE))
TABLE[S.EMPTY, E.READER_LOST] = (S.GONE, (X.LEAVE,))
TABLE[S.OPENING, E.CARD_REMOVED] = (S.EMPTY, (X.REVOKE, X.ANSWER_FAILURE, X.LET_GO, X.DROP_CARD))
TABLE[S.OPENING, E.READER_LOST] = (S.GONE, (X.REVOKE, X.ANSWER_FAILURE, X.DROP_CARD, X.LEAVE))

for _state in _SESSION:
    # The caller who waits for the card hears first, then everybody: Ended, then the objects go.
    TABLE[_state, E.CARD_REMOVED] = (
        S.EMPTY,
        (X.REVOKE, X.CLOSE_SESSION, X.ANSWER_FAILURE, X.END_SESSION, X.LET_GO, X.DROP_CARD),
    )  # fmt: skip
    TABLE[_state, E.READER_LOST] = (
        S.GONE, (X.REVOKE, X.CLOSE_SESSION, X.ANSWER_FAILURE, X.END_SESSION, X.DROP_CARD, X.LEAVE),
    )  # fmt: skip
    TABLE[_state, E.OPEN_ASKED] = (_state, _BUSY)
for _state in _AT_REST:
    TABLE[_state, E.END_ASKED] = (S.RELEASING, (X.CLOSE_SESSION, X.RELEASE))
for _state in _PIN_STATES:
    TABLE[_state, E.END_ASKED] = (S.CLOSING, (X.REVOKE, X.CLOSE_SESSION))
    for _call in _CALLS:
        TABLE[_state, _call] = (_state, _BUSY)
for _state in (S.VERIFYING, S.REVERIFYING, S.UNLOCKING):
    TABLE[_state, E.PIN_BLOCKED] = (
        S.RELEASING, (X.KEEP_JUDGEMENT, X.CLOSE_SESSION, X.ANSWER_JUDGEMENT, X.RELEASE),
    )  # fmt: skip
for _state in _OVER_STATES:
    TABLE[_state, E.CARD_REMOVED] = (
        S.EMPTY, (X.ANSWER_FAILURE, X.END_SESSION, X.LET_GO, X.DROP_CARD),
    )  # fmt: skip
    TABLE[_state, E.READER_LOST] = (
        S.GONE, (X.ANSWER_FAILURE, X.END_SESSION, X.DROP_CARD, X.LEAVE),
    )  # fmt: skip
    for _call in _CALLS:
        TABLE[_state, _call] = (_state, _OVER)
for _state in (S.PROBING, S.READY, S.OPENING, *_SESSION, *_OVER_STATES):
    TABLE[_state, E.STUCK] = (
        S.STUCK,
        (X.REVOKE, X.MARK_STALE, X.CLOSE_SESSION, X.ANSWER_FAILURE, *_END_HUNG),
    )
# A rival's transaction keeps the card from us, and our thread in pcscd: no fault of the reader.
TABLE[S.PROBING, E.HELD] = (S.ELSEWHERE, (X.RETRY_LATER,))
TABLE[S.OPENING, E.HELD] = (S.READY, (X.ANSWER_FAILURE,))
for _state, _back in (
    (S.VERIFYING, S.UNVERIFIED),
    (S.QUERYING, S.UNVERIFIED),
    (S.UNLOCKING, S.LOCKED),
    (S.QUERYING_LOCKED, S.LOCKED),
):
    TABLE[_state, E.HELD] = (_back, (X.REVOKE, X.ANSWER_FAILURE))
TABLE[S.REVERIFYING, E.HELD] = (
    S.UNVERIFIED, (X.REVOKE, X.MARK_STALE, X.MARK_UNVERIFIED, X.ANSWER_FAILURE, X.LET_GO)
)  # fmt: skip
TABLE[S.LOCKING, E.HELD] = (S.LOCKED, (X.MARK_STALE, X.MARK_LOCKED, X.ANSWER_FAILURE, X.LET_GO))
TABLE[S.CLOSING, E.HELD] = (S.RELEASING, (X.REVOKE, X.MARK_STALE, X.ANSWER_FAILURE, X.RELEASE))
TABLE[S.RELEASING, E.HELD] = (S.READY, (X.MARK_STALE, X.END_SESSION, X.LET_GO))
for _state in (S.READY, S.OPENING):  # never during a session: they are read before it
    TABLE[_state, E.CERTIFICATES_READ] = (_state, (X.KEEP_CERTIFICATES,))

IGNORED: dict[tuple[State, Event], str] = {}
"""Pairs in which nothing is to be done, each with its reason."""

for _state in State:
    _late = "an answer about a card or a question that is no longer ours"
    for _event in _RESULTS:
        IGNORED.setdefault((_state, _event), _late)
    IGNORED.setdefault((_state, E.RETRY), "the card was had, or went, before its turn came")
for _state in (*_NO_SESSION, S.STUCK, S.GONE):
    for _call in _CALLS:
        # the bus looks a session up by its path: a call that finds none never comes this far
        TABLE[_state, _call] = (_state, _OVER)
    IGNORED.setdefault((_state, E.END_ASKED), "the session has ended already")
for _state in _OVER_STATES:
    IGNORED[_state, E.END_ASKED] = "it is ending already, for the reason that came first"
IGNORED[S.EMPTY, E.CARD_REMOVED] = "the status wait repeats itself"
for _event in (E.CARD_INSERTED, E.CARD_REMOVED, E.CARD_MUTE, E.READER_LOST, E.STUCK):
    IGNORED[S.GONE, _event] = "the reader is gone"
for _state in (S.EMPTY, S.ELSEWHERE, S.MUTE, S.STUCK):
    IGNORED[_state, E.STUCK] = "no conversation that matters is under way"
for _state in State:
    IGNORED[_state, E.HELD] = "nobody waits for what the thread is kept from"
for _state in State:
    if _state is not S.STUCK:
        for _event in (E.RECOVERED, E.RECOVERED_EMPTY):
            IGNORED[_state, _event] = "the reader was not stuck"
for _state in (*_WITH_CARD, S.OPENING, *_SESSION, *_OVER_STATES):
    if _state is not S.EMPTY:
        IGNORED[_state, E.CARD_INSERTED] = "a card is in already: a removal always comes first"
for _state in (S.READY, S.OPENING, S.MUTE, *_SESSION, *_OVER_STATES):
    IGNORED.setdefault((_state, E.CARD_MUTE), "told by the conversation under way, or the next one")
for _pair in TABLE:
    IGNORED.pop(_pair, None)


def step(state: State, event: Event) -> tuple[State, Effects]:
    """Where `event` leads from `state`, and what to do on the way. Changes nothing itself."""
    found = TABLE.get((state, event))
    if found is not None:
        return found
    if (state, event) in IGNORED:
        return state, ()
    raise Unexpected(f"{event.name} in {state.name}")

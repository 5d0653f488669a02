"""The states of a seat (a reader, its card, its session), and the ONE table that moves them.

A seat is in one `State`; an event moves it and names the effects, in order. The table is data:
it is tested cell by cell, and the diagram of the documentation is drawn from it. `step` is
total: a pair is in `TABLE`, or in `IGNORED` with its reason, or it is our bug.
"""

from __future__ import annotations

from dataclasses import dataclass

from .errors import Problem, Unexpected
from .policy import Removal
from .states import Effect, Effects, Event, Refuse, State

S, E, X = State, Event, Effect

_BUSY = (Refuse(Problem.BUSY),)
_OVER = (Refuse(Problem.SESSION_ENDED),)
_NO_CARD = (Refuse(Problem.NO_CARD),)
_NOT_VERIFIED = (Refuse(Problem.NOT_VERIFIED),)
_JUDGED = (X.KEEP_JUDGEMENT, X.ANSWER_JUDGEMENT)
_VERIFIED = (X.KEEP_JUDGEMENT, X.MARK_VERIFIED, X.ANSWER_JUDGEMENT)
_USED = (X.KEEP_JUDGEMENT, X.TOUCH, X.ANSWER_JUDGEMENT)
_ENDED = (X.CLOSE_SESSION, X.END_SESSION)
_END_HUNG = (X.END_SESSION, X.REPORT_FAILURE)
_LOST = (X.REPORT_FAILURE, X.MARK_STALE, X.ANSWER_FAILURE)
_SUBMITTING = (S.VERIFYING, S.REVERIFYING, S.UNLOCKING, S.KEPT_VERIFYING)
_PIN_STATES = (*_SUBMITTING, S.QUERYING, S.QUERYING_LOCKED, S.LOCKING)
_AT_REST = (S.UNVERIFIED, S.ACTIVE, S.LOCKED, S.KEPT)
_SESSION = (*_AT_REST, *_PIN_STATES)
_OVER_STATES = (S.CLOSING, S.RELEASING)
_NO_SESSION = (S.EMPTY, S.PROBING, S.ELSEWHERE, S.MUTE, S.READY, S.OPENING)
_WITH_CARD = (S.PROBING, S.ELSEWHERE, S.MUTE, S.READY)
_USES = (E.SIGN_PIN_ASKED, E.USE_ASKED, E.CONTEXT_ASKED)
_CALLS = (
    E.VERIFY_ASKED, E.CHANGE_ASKED, *_USES, E.QUERY_ASKED, E.LOCK_ASKED, E.KEEP_ALIVE_ASKED,
)  # fmt: skip
_RESULTS = (
    E.PROBED, E.PROBED_SAME, E.PROBE_FAILED, E.PROBE_BUSY, E.PROBE_MUTE, E.FOUND_MUTE,
    E.CERTIFICATES_READ, E.OPENED, E.OPEN_FAILED, E.PIN_VERIFIED, E.POSSESSION_FAILED,
    E.PIN_JUDGED, E.PIN_USED, E.PIN_FAILED, E.PIN_BLOCKED, E.PIN_UNSENT, E.PIN_LOST, E.QUERIED,
    E.QUERY_FAILED, E.LOCK_DONE, E.RELEASED, E.USED, E.USE_FAILED, E.AUTHORITY_LOST, E.CARD_RESET,
    E.REJUDGED,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A session that waits for its card: the seat's states meanwhile, and with the card back."""

    away: State
    probing: State
    elsewhere: State
    mute: State
    back: State

    @property
    def all(self) -> tuple[State, ...]:
        """Every state without the card."""
        return (self.away, self.probing, self.elsewhere, self.mute)


_LOCK_WAITS = _Waiting(S.LOCKED_AWAY, S.LOCKED_PROBING, S.LOCKED_ELSEWHERE, S.LOCKED_MUTE, S.LOCKED)
_KEEP_WAITS = _Waiting(S.KEPT_AWAY, S.KEPT_PROBING, S.KEPT_ELSEWHERE, S.KEPT_MUTE, S.KEPT)
_WAITS = (_LOCK_WAITS, _KEEP_WAITS)
_WAITING = (*_LOCK_WAITS.all, *_KEEP_WAITS.all)

TABLE: dict[tuple[State, Event], tuple[State, Effects]] = {
    # a card comes, and is read
    (S.EMPTY, E.CARD_INSERTED): (S.PROBING, (X.SHOW_CARD, X.PROBE)),
    # the status wait calls it mute: it is asked all the same, for that gives it power anew, once
    (S.EMPTY, E.CARD_MUTE): (S.PROBING, (X.SHOW_CARD, X.PROBE)),
    (S.PROBING, E.PROBED): (S.READY, (X.KEEP_PROBE, X.READ_CERTIFICATES)),
    (S.PROBING, E.PROBE_FAILED): (S.READY, (X.REPORT_FAILURE, X.KEEP_UNKNOWN)),
    (S.PROBING, E.PROBE_BUSY): (S.ELSEWHERE, (X.RETRY_LATER,)),
    (S.PROBING, E.PROBE_MUTE): (S.MUTE, (X.CALL_MUTE,)),
    (S.ELSEWHERE, E.CARD_MUTE): (S.PROBING, (X.PROBE,)),
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
    # one submission; what each state goes to and back is below
    (S.UNVERIFIED, E.VERIFY_ASKED): (S.VERIFYING, (X.SUBMIT,)),
    (S.UNVERIFIED, E.CHANGE_ASKED): (S.VERIFYING, (X.SUBMIT,)),
    (S.VERIFYING, E.PIN_FAILED): (S.UNVERIFIED, _JUDGED),
    (S.VERIFYING, E.PIN_LOST): (S.UNVERIFIED, _LOST),
    (S.LOCKED, E.VERIFY_ASKED): (S.UNLOCKING, (X.SUBMIT,)),
    (S.UNLOCKING, E.PIN_FAILED): (S.LOCKED, _JUDGED),
    (S.UNLOCKING, E.PIN_LOST): (S.LOCKED, _LOST),
    (S.ACTIVE, E.VERIFY_ASKED): (S.REVERIFYING, (X.SUBMIT,)),
    (S.ACTIVE, E.CHANGE_ASKED): (S.REVERIFYING, (X.SUBMIT,)),
    (S.ACTIVE, E.SIGN_PIN_ASKED): (S.REVERIFYING, (X.SUBMIT,)),
    (S.REVERIFYING, E.PIN_USED): (S.ACTIVE, _USED),
    # what is shown as verified goes last, or the judgement would show it again
    (S.REVERIFYING, E.PIN_FAILED): (
        S.UNVERIFIED,
        (X.KEEP_JUDGEMENT, X.MARK_UNVERIFIED, X.ANSWER_JUDGEMENT),
    ),
    (S.REVERIFYING, E.PIN_LOST): (
        S.UNVERIFIED,
        (X.REPORT_FAILURE, X.MARK_STALE, X.MARK_UNVERIFIED, X.ANSWER_FAILURE),
    ),
    (S.KEPT, E.VERIFY_ASKED): (S.KEPT_VERIFYING, (X.SUBMIT,)),
    (S.KEPT_VERIFYING, E.PIN_FAILED): (S.KEPT, (X.MARK_DROPPED, *_JUDGED)),
    (S.KEPT_VERIFYING, E.PIN_LOST): (S.KEPT, (X.MARK_DROPPED, *_LOST)),
    # the authority is used; the seat stays active, so uses queue up behind each other
    (S.ACTIVE, E.USE_ASKED): (S.ACTIVE, (X.USE,)),
    (S.ACTIVE, E.USED): (S.ACTIVE, (X.TOUCH,)),
    (S.ACTIVE, E.USE_FAILED): (S.ACTIVE, (X.REPORT_FAILURE,)),
    (S.ACTIVE, E.AUTHORITY_LOST): (S.UNVERIFIED, (X.MARK_UNVERIFIED, X.LET_GO)),
    (S.ACTIVE, E.CARD_RESET): (S.RELEASING, (X.CLOSE_SESSION, X.RELEASE)),
    (S.ACTIVE, E.CONTEXT_ASKED): (S.ACTIVE, (X.SET_CONTEXT, X.ANSWER_DONE)),
    # a question to the card
    (S.UNVERIFIED, E.QUERY_ASKED): (S.QUERYING, (X.QUERY,)),
    (S.QUERYING, E.QUERIED): (S.UNVERIFIED, (X.KEEP_QUERY, X.ANSWER_QUERY)),
    (S.QUERYING, E.QUERY_FAILED): (S.UNVERIFIED, (X.REPORT_FAILURE, X.ANSWER_FAILURE)),
    (S.LOCKED, E.QUERY_ASKED): (S.QUERYING_LOCKED, (X.QUERY,)),
    (S.QUERYING_LOCKED, E.QUERIED): (S.LOCKED, (X.KEEP_QUERY, X.ANSWER_QUERY)),
    (S.QUERYING_LOCKED, E.QUERY_FAILED): (S.LOCKED, (X.REPORT_FAILURE, X.ANSWER_FAILURE)),
    # while the PIN is verified the card can only say so: asking would first end that
    (S.ACTIVE, E.QUERY_ASKED): (S.ACTIVE, (X.QUERY_FROM_CACHE,)),
    (S.KEPT, E.QUERY_ASKED): (S.KEPT, (X.QUERY_FROM_CACHE,)),
    # locking, and staying
    (S.ACTIVE, E.LOCK_ASKED): (S.LOCKING, (X.LOCK,)),
    (S.LOCKING, E.LOCK_DONE): (S.LOCKED, (X.KEEP_QUERY, X.MARK_LOCKED, X.ANSWER_DONE)),
    (S.LOCKED, E.LOCK_ASKED): (S.LOCKED, (X.ANSWER_DONE,)),
    (S.KEPT, E.LOCK_ASKED): (S.LOCKED, (X.MARK_LOCKED, X.ANSWER_DONE)),
    (S.ACTIVE, E.KEEP_ALIVE_ASKED): (S.ACTIVE, (X.TOUCH, X.ANSWER_DONE)),
    # the authority is dropped, then the session goes
    (S.RELEASING, E.RELEASED): (S.READY, (X.KEEP_QUERY, X.END_SESSION, X.READ_CERTIFICATES)),
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

for _state, _back in (
    (S.VERIFYING, S.UNVERIFIED),
    (S.REVERIFYING, S.ACTIVE),
    (S.UNLOCKING, S.LOCKED),
    (S.KEPT_VERIFYING, S.KEPT),
):
    TABLE[_state, E.PIN_VERIFIED] = (S.ACTIVE, _VERIFIED)
    TABLE[_state, E.PIN_JUDGED] = (_back, _JUDGED)
    TABLE.setdefault((_state, E.PIN_USED), (_back, _JUDGED))
    TABLE[_state, E.PIN_UNSENT] = (_back, (X.ANSWER_FAILURE,))
    for _event in (E.PIN_BLOCKED, E.POSSESSION_FAILED):
        TABLE[_state, _event] = (
            S.RELEASING, (X.KEEP_JUDGEMENT, X.CLOSE_SESSION, X.ANSWER_JUDGEMENT, X.RELEASE),
        )  # fmt: skip
for _event in (
    E.PIN_VERIFIED, E.POSSESSION_FAILED, E.PIN_JUDGED, E.PIN_USED, E.PIN_FAILED, E.PIN_BLOCKED,
):  # fmt: skip
    TABLE[S.CLOSING, _event] = (S.RELEASING, (*_JUDGED, X.RELEASE))
for _state in (S.UNVERIFIED, S.LOCKED, S.KEPT):
    for _call in (E.CHANGE_ASKED, *_USES, E.LOCK_ASKED, E.KEEP_ALIVE_ASKED):
        TABLE.setdefault((_state, _call), (_state, _NOT_VERIFIED))

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
for _state in _OVER_STATES:
    TABLE[_state, E.CARD_REMOVED] = (
        S.EMPTY, (X.ANSWER_FAILURE, X.END_SESSION, X.LET_GO, X.DROP_CARD),
    )  # fmt: skip
    TABLE[_state, E.READER_LOST] = (
        S.GONE, (X.ANSWER_FAILURE, X.END_SESSION, X.DROP_CARD, X.LEAVE),
    )  # fmt: skip
    for _call in _CALLS:
        TABLE[_state, _call] = (_state, _OVER)
for _state in (
    S.PROBING, S.READY, S.OPENING, S.LOCKED_PROBING, S.KEPT_PROBING, *_SESSION, *_OVER_STATES,
):  # fmt: skip
    TABLE[_state, E.STUCK] = (
        S.STUCK,
        (X.REVOKE, X.MARK_STALE, X.CLOSE_SESSION, X.ANSWER_FAILURE, *_END_HUNG),
    )
# Nobody can go on with a card that was found mute: it is one of which only its reader is known.
TABLE[S.READY, E.FOUND_MUTE] = (S.MUTE, (X.CALL_MUTE,))
TABLE[S.OPENING, E.FOUND_MUTE] = (S.MUTE, (X.ANSWER_FAILURE, X.CALL_MUTE))
for _state, _first in (
    *((each, (X.REVOKE, X.MARK_STALE, X.CLOSE_SESSION)) for each in _SESSION),
    *((each, (X.MARK_STALE,)) for each in _OVER_STATES),
):
    TABLE[_state, E.FOUND_MUTE] = (
        S.MUTE, (*_first, X.ANSWER_FAILURE, X.END_SESSION, X.LET_GO, X.CALL_MUTE)
    )  # fmt: skip
# A session waits for its card: another card ends it, as does one that nobody can read.
for _waits in _WAITS:
    TABLE[_waits.away, E.CARD_INSERTED] = (_waits.probing, (X.SHOW_CARD, X.PROBE))
    TABLE[_waits.away, E.CARD_MUTE] = (_waits.probing, (X.SHOW_CARD, X.PROBE))
    TABLE[_waits.away, E.READER_LOST] = (S.GONE, (*_ENDED, X.LEAVE))
    TABLE[_waits.away, E.END_ASKED] = (S.EMPTY, _ENDED)
    TABLE[_waits.probing, E.PROBED_SAME] = (
        _waits.back, (X.KEEP_PROBE, X.REJOIN, X.READ_CERTIFICATES),
    )  # fmt: skip
    TABLE[_waits.probing, E.PROBED] = (S.READY, (X.KEEP_PROBE, *_ENDED, X.READ_CERTIFICATES))
    TABLE[_waits.probing, E.PROBE_FAILED] = (S.READY, (X.REPORT_FAILURE, X.KEEP_UNKNOWN, *_ENDED))
    TABLE[_waits.probing, E.PROBE_BUSY] = (_waits.elsewhere, (X.RETRY_LATER,))
    TABLE[_waits.probing, E.HELD] = (_waits.elsewhere, (X.RETRY_LATER,))
    TABLE[_waits.elsewhere, E.RETRY] = (_waits.probing, (X.PROBE,))
    TABLE[_waits.probing, E.PROBE_MUTE] = (_waits.mute, (X.CALL_MUTE,))
    TABLE[_waits.elsewhere, E.CARD_MUTE] = (_waits.probing, (X.PROBE,))
    for _state, _back in (
        (_waits.probing, S.PROBING), (_waits.elsewhere, S.ELSEWHERE), (_waits.mute, S.MUTE),
    ):  # fmt: skip
        TABLE[_state, E.CARD_REMOVED] = (_waits.away, (X.DROP_CARD,))
        TABLE[_state, E.READER_LOST] = (S.GONE, (*_ENDED, X.DROP_CARD, X.LEAVE))
        TABLE[_state, E.END_ASKED] = (_back, _ENDED)
    for _state in _waits.all:
        TABLE[_state, E.OPEN_ASKED] = (_state, _BUSY)
        for _call in _CALLS:
            TABLE[_state, _call] = (_state, _NO_CARD)
# A rival's transaction keeps the card from us, and our thread in pcscd: no fault of the reader.
TABLE[S.PROBING, E.HELD] = (S.ELSEWHERE, (X.RETRY_LATER,))
TABLE[S.OPENING, E.HELD] = (S.READY, (X.ANSWER_FAILURE,))
for _state, _back in (
    (S.VERIFYING, S.UNVERIFIED),
    (S.QUERYING, S.UNVERIFIED),
    (S.UNLOCKING, S.LOCKED),
    (S.QUERYING_LOCKED, S.LOCKED),
    (S.KEPT_VERIFYING, S.KEPT),
):
    # a try may be gone: the rival may have come after it, while our thread let go of the card
    TABLE[_state, E.HELD] = (_back, (X.REVOKE, X.MARK_STALE, X.ANSWER_FAILURE))
TABLE[S.REVERIFYING, E.HELD] = (
    S.UNVERIFIED, (X.REVOKE, X.MARK_STALE, X.MARK_UNVERIFIED, X.ANSWER_FAILURE, X.LET_GO)
)  # fmt: skip
TABLE[S.LOCKING, E.HELD] = (S.LOCKED, (X.MARK_STALE, X.MARK_LOCKED, X.ANSWER_FAILURE, X.LET_GO))
TABLE[S.CLOSING, E.HELD] = (S.RELEASING, (X.REVOKE, X.MARK_STALE, X.ANSWER_FAILURE, X.RELEASE))
TABLE[S.RELEASING, E.HELD] = (S.READY, (X.MARK_STALE, X.END_SESSION, X.LET_GO))
for _state in (S.READY, S.OPENING, *_SESSION, *_OVER_STATES):
    # the worker holds conversations in order: they are read before a session verifies anything
    TABLE[_state, E.CERTIFICATES_READ] = (_state, (X.KEEP_CERTIFICATES,))
    TABLE[_state, E.REJUDGED] = (_state, (X.KEEP_STANDING,))

AWAY_EFFECTS = (
    X.REVOKE, X.ANSWER_FAILURE, X.SET_ASIDE, X.LET_GO, X.DROP_CARD,
)  # fmt: skip
"""Every authority is dropped at once; the caller who waits for the card hears first."""
_LOCKABLE = (S.LOCKED, S.LOCKING, S.UNLOCKING, S.QUERYING_LOCKED)
_KEEPABLE = (S.ACTIVE, S.REVERIFYING, S.KEPT, S.KEPT_VERIFYING)
AWAY: dict[Removal, dict[State, State]] = {
    Removal.END: {},
    Removal.LOCK: dict.fromkeys((*_LOCKABLE, *_KEEPABLE), S.LOCKED_AWAY),
    Removal.KEEP: dict.fromkeys(_LOCKABLE, S.LOCKED_AWAY) | dict.fromkeys(_KEEPABLE, S.KEPT_AWAY),
}
"""What CARD_REMOVED comes to by the site's removal policy, where that is not the session's end."""

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
for _state in (S.EMPTY, S.LOCKED_AWAY, S.KEPT_AWAY):
    IGNORED[_state, E.CARD_REMOVED] = "the status wait repeats itself"
for _event in (E.CARD_INSERTED, E.CARD_REMOVED, E.CARD_MUTE, E.READER_LOST, E.STUCK):
    IGNORED[S.GONE, _event] = "the reader is gone"
for _state in (S.EMPTY, S.ELSEWHERE, S.MUTE, S.STUCK, *_WAITING):
    IGNORED[_state, E.STUCK] = "no conversation that matters is under way"
for _state in State:
    IGNORED[_state, E.HELD] = "nobody waits for what the thread is kept from"
for _state in State:
    if _state is not S.STUCK:
        for _event in (E.RECOVERED, E.RECOVERED_EMPTY):
            IGNORED[_state, _event] = "the reader was not stuck"
for _state in (*_WITH_CARD, S.OPENING, *_SESSION, *_OVER_STATES, *_WAITING):
    if _state is not S.EMPTY:
        IGNORED[_state, E.CARD_INSERTED] = "a card is in already: a removal always comes first"
for _state in (
    S.PROBING, S.LOCKED_PROBING, S.KEPT_PROBING, S.READY, S.OPENING, S.MUTE, S.LOCKED_MUTE,
    S.KEPT_MUTE, *_SESSION, *_OVER_STATES,
):  # fmt: skip
    IGNORED.setdefault((_state, E.CARD_MUTE), "told by the conversation under way, or the next one")
for _pair in TABLE:
    IGNORED.pop(_pair, None)


def step(state: State, event: Event, removal: Removal = Removal.END) -> tuple[State, Effects]:
    """Where `event` leads from `state`, and what to do on the way. Changes nothing itself."""
    if event is Event.CARD_REMOVED and state in AWAY[removal]:
        return AWAY[removal][state], AWAY_EFFECTS
    found = TABLE.get((state, event))
    if found is not None:
        return found
    if (state, event) in IGNORED:
        return state, ()
    raise Unexpected(f"{event.name} in {state.name}")

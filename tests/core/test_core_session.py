"""The transition table: every cell, and what holds over all of it, from the bus contract."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest

from cardsession.core import session
from cardsession.core.errors import Problem, Unexpected
from cardsession.core.policy import Removal
from cardsession.core.session import AWAY_EFFECTS, IGNORED, TABLE, step
from cardsession.core.states import Effect, Event, Refuse, State

E, S, X = Event, State, Effect

# What a state means, read off its description and the contract, not off the table.
LOCK_WAITS = {S.LOCKED_AWAY, S.LOCKED_PROBING, S.LOCKED_ELSEWHERE, S.LOCKED_MUTE}
KEEP_WAITS = {S.KEPT_AWAY, S.KEPT_PROBING, S.KEPT_ELSEWHERE, S.KEPT_MUTE}
WAITING = LOCK_WAITS | KEEP_WAITS
"""A session waits for its card."""
AWAY = {S.LOCKED_AWAY, S.KEPT_AWAY}
WITH_BOTH = {
    S.UNVERIFIED, S.VERIFYING, S.QUERYING, S.ACTIVE, S.REVERIFYING, S.LOCKING, S.LOCKED,
    S.UNLOCKING, S.QUERYING_LOCKED, S.KEPT, S.KEPT_VERIFYING,
}  # fmt: skip
"""A session, and its card."""
WITH_SESSION = WITH_BOTH | WAITING
OVER = {S.CLOSING, S.RELEASING}
"""The session is over, its object is still there."""
OBJECT = WITH_SESSION | OVER
SUBMITTING = {S.VERIFYING, S.REVERIFYING, S.UNLOCKING, S.KEPT_VERIFYING}
UNDER_WAY = SUBMITTING | {S.QUERYING, S.QUERYING_LOCKED, S.LOCKING}
WITH_CARD = set(State) - {S.EMPTY, S.STUCK, S.GONE} - AWAY
CALLS = {
    E.VERIFY_ASKED, E.CHANGE_ASKED, E.SIGN_PIN_ASKED, E.USE_ASKED, E.CONTEXT_ASKED, E.QUERY_ASKED,
    E.LOCK_ASKED, E.KEEP_ALIVE_ASKED,
}  # fmt: skip
ANSWERS = {
    X.ANSWER_DONE, X.ANSWER_FAILURE, X.ANSWER_JUDGEMENT, X.ANSWER_QUERY, X.QUERY_FROM_CACHE,
}  # fmt: skip
CONVERSATIONS = {X.SUBMIT, X.USE, X.QUERY, X.LOCK, X.ASK_TO_OPEN}
JUDGED = {
    E.PIN_VERIFIED, E.POSSESSION_FAILED, E.PIN_JUDGED, E.PIN_USED, E.PIN_FAILED, E.PIN_BLOCKED,
}  # fmt: skip
PIN_RESULTS = JUDGED | {E.PIN_UNSENT, E.PIN_LOST}

MATRIX = list(product(State, Event))


def rows() -> Iterator[tuple[State, Event, State, tuple[Effect | Refuse, ...]]]:
    """Every transition of the table."""
    for (before, event), (after, effects) in TABLE.items():
        yield before, event, after, effects


def name(value: object) -> str:
    return value.name if isinstance(value, State | Event) else str(value)


@pytest.mark.parametrize(("state", "event"), MATRIX, ids=name)
def test_every_cell_is_a_transition_or_has_a_reason_to_be_none(state: State, event: Event) -> None:
    assert ((state, event) in TABLE) != ((state, event) in IGNORED)
    after, effects = step(state, event)
    if (state, event) in IGNORED:
        assert len(IGNORED[state, event]) > 10
        assert (after, effects) == (state, ())
    else:
        assert isinstance(after, State)
        assert all(isinstance(effect, Effect | Refuse) for effect in effects)


def test_a_gap_is_unexpected_and_names_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = (S.READY, E.OPEN_ASKED)
    monkeypatch.delitem(session.TABLE, pair)
    with pytest.raises(Unexpected, match="OPEN_ASKED in READY"):
        step(*pair)


def test_a_refusal_changes_nothing() -> None:
    refused = [row for row in rows() if any(isinstance(effect, Refuse) for effect in row[3])]
    assert len(refused) > 50
    for before, _, after, effects in refused:
        assert before is after
        assert len(effects) == 1, "a refusal does nothing but refuse"


def test_stepping_leaves_the_table_as_it_was() -> None:
    before = dict(TABLE), dict(IGNORED)
    for pair in MATRIX:
        assert step(*pair) == step(*pair)
    assert (dict(TABLE), dict(IGNORED)) == before


def test_a_session_that_is_left_behind_is_ended_and_only_then() -> None:
    for before, event, after, effects in rows():
        leaves = before in OBJECT and after not in OBJECT
        assert leaves <= (X.END_SESSION in effects), (before, event)
        if X.END_SESSION in effects:
            # STUCK is entered from everywhere with the same words; without a session they are idle
            assert before in OBJECT or event is E.STUCK, (before, event)
            assert after not in OBJECT


def test_no_session_ends_that_was_not_closed_with_a_reason_before() -> None:
    for before, event, after, effects in rows():
        if before in WITH_SESSION and after not in WITH_SESSION:
            assert X.CLOSE_SESSION in effects, (before, event)
            if X.END_SESSION in effects:
                assert effects.index(X.CLOSE_SESSION) < effects.index(X.END_SESSION)
        if before in OVER:
            assert X.CLOSE_SESSION not in effects or event is E.STUCK, "the first reason stays"


def test_over_is_entered_only_from_a_session_and_left_only_for_its_end() -> None:
    for before, event, after, effects in rows():
        if after in OVER and before not in OVER:
            assert before in WITH_BOTH, (before, event)
        if after in WITH_SESSION:
            assert before in WITH_SESSION or event is E.OPENED, (before, event)
        if event is E.OPENED:
            assert X.START_SESSION in effects
            assert before is S.OPENING
        assert (X.START_SESSION in effects) == (event is E.OPENED)


def test_a_closed_session_whose_card_is_still_in_drops_its_authority_first() -> None:
    for before, event, after, effects in rows():
        if after is S.RELEASING and before is not S.RELEASING:
            assert effects[-1] is X.RELEASE, (before, event)
        assert (X.RELEASE in effects) <= (after is S.RELEASING)
    released, effects = step(S.RELEASING, E.RELEASED)
    assert released is S.READY
    assert X.END_SESSION in effects


@pytest.mark.parametrize("state", State, ids=name)
@pytest.mark.parametrize("event", [*CALLS, E.OPEN_ASKED], ids=name)
def test_every_call_is_answered_exactly_one_way(state: State, event: Event) -> None:
    assert (state, event) in TABLE, "a call is never ignored: its caller would wait for ever"
    _, effects = step(state, event)
    ways = [
        effect
        for effect in effects
        if isinstance(effect, Refuse) or effect in ANSWERS | CONVERSATIONS | {X.DEFER}
    ]
    assert len(ways) == 1


@pytest.mark.parametrize("state", sorted(UNDER_WAY, key=name), ids=name)
@pytest.mark.parametrize("event", [*CALLS, E.OPEN_ASKED], ids=name)
def test_while_a_pin_operation_is_under_way_any_other_hears_busy(
    state: State, event: Event
) -> None:
    assert step(state, event) == (state, (Refuse(Problem.BUSY),))


def test_a_try_can_be_spent_only_where_the_contract_allows_it_and_only_on_request() -> None:
    spending = {(before, event) for before, event, _, effects in rows() if X.SUBMIT in effects}
    assert spending == {
        *((state, E.VERIFY_ASKED) for state in (S.UNVERIFIED, S.LOCKED, S.ACTIVE, S.KEPT)),
        *((state, E.CHANGE_ASKED) for state in (S.UNVERIFIED, S.ACTIVE)),
        (S.ACTIVE, E.SIGN_PIN_ASKED),
    }


def test_the_authority_is_used_only_while_active() -> None:
    using = {before for before, _, _, effects in rows() if X.USE in effects}
    assert using == {S.ACTIVE}
    assert step(S.ACTIVE, E.USE_ASKED)[0] is S.ACTIVE, "uses queue up"


def test_every_conversation_that_is_begun_has_a_way_home() -> None:
    homes = {
        X.SUBMIT: PIN_RESULTS,
        X.USE: {E.USED, E.USE_FAILED, E.AUTHORITY_LOST, E.CARD_RESET},
        X.QUERY: {E.QUERIED, E.QUERY_FAILED},
        X.LOCK: {E.LOCK_DONE},
        X.ASK_TO_OPEN: {E.OPENED, E.OPEN_FAILED},
        X.RELEASE: {E.RELEASED},
        X.PROBE: {E.PROBED, E.PROBE_FAILED, E.PROBE_BUSY, E.PROBE_MUTE},
    }
    for before, event, after, effects in rows():
        for effect, results in homes.items():
            if effect in effects:
                for result in results:
                    assert (after, result) in TABLE, (before, event, result)


def test_a_pin_operation_that_comes_home_after_the_end_is_still_kept_and_answered() -> None:
    for result in JUDGED:
        _, effects = step(S.CLOSING, result)
        assert X.KEEP_JUDGEMENT in effects
        assert X.ANSWER_JUDGEMENT in effects
    for result in (E.PIN_UNSENT, E.PIN_LOST):
        assert X.ANSWER_FAILURE in step(S.CLOSING, result)[1]


def test_the_count_is_shown_before_the_reply_that_carries_it() -> None:
    for before, event, _, effects in rows():
        if X.ANSWER_JUDGEMENT in effects:
            answer = effects.index(X.ANSWER_JUDGEMENT)
            assert X.KEEP_JUDGEMENT in effects[:answer], (before, event)
            for shown in (X.MARK_VERIFIED, X.MARK_UNVERIFIED, X.CLOSE_SESSION):
                assert shown not in effects[answer:], (before, event)
        if X.ANSWER_QUERY in effects:
            assert X.KEEP_QUERY in effects[: effects.index(X.ANSWER_QUERY)]


def test_a_lost_verify_leaves_no_count_standing() -> None:
    for before, event, _, effects in rows():
        if event is E.PIN_LOST or (event is E.STUCK and before in SUBMITTING):
            assert X.MARK_STALE in effects[: effects.index(X.ANSWER_FAILURE)], (before, event)


@pytest.mark.parametrize("state", sorted(WITH_CARD, key=name), ids=name)
@pytest.mark.parametrize("event", [E.CARD_REMOVED, E.READER_LOST], ids=name)
def test_a_card_that_goes_is_dropped_from_every_state_after_its_session(
    state: State, event: Event
) -> None:
    after, effects = step(state, event)
    empty = S.LOCKED_AWAY if state in LOCK_WAITS else S.EMPTY
    empty = S.KEPT_AWAY if state in KEEP_WAITS else empty
    assert after is (empty if event is E.CARD_REMOVED else S.GONE)
    drop = effects.index(X.DROP_CARD)
    if state in OBJECT - WAITING:
        assert effects.index(X.ANSWER_FAILURE) < effects.index(X.END_SESSION) < drop
    if state is S.OPENING:
        assert effects.index(X.ANSWER_FAILURE) < drop
    if event is E.READER_LOST:
        assert effects[-1] is X.LEAVE


def test_the_authority_leaves_nothing_behind_when_the_session_goes_without_a_release() -> None:
    """A handle that was kept over a verified PIN ends with a reset, whichever way it went."""
    for before, event, after, effects in rows():
        if before in OBJECT - WAITING and after is S.EMPTY:
            assert X.LET_GO in effects, (before, event)
        if before is S.STUCK and after in {S.PROBING, S.EMPTY}:
            assert effects[0] is X.LET_GO, (before, event)


def test_active_is_entered_only_by_a_verified_pin_or_stayed_in() -> None:
    for before, event, after, effects in rows():
        if after is S.ACTIVE and before is not S.ACTIVE:
            proved = event is E.PIN_VERIFIED and X.MARK_VERIFIED in effects
            untouched = before is S.REVERIFYING and event in {
                E.PIN_JUDGED, E.PIN_USED, E.PIN_UNSENT,
            }  # fmt: skip
            assert proved or untouched, (before, event)
        if X.MARK_VERIFIED in effects:
            assert (event, after) == (E.PIN_VERIFIED, S.ACTIVE)
        if before is S.REVERIFYING and after is S.UNVERIFIED:
            assert X.MARK_UNVERIFIED in effects


def test_only_verified_activity_postpones_the_idle_limit() -> None:
    touching = {(before, event) for before, event, _, effects in rows() if X.TOUCH in effects}
    assert touching == {
        (S.ACTIVE, E.KEEP_ALIVE_ASKED),
        (S.ACTIVE, E.USED),
        (S.REVERIFYING, E.PIN_USED),
    }


@pytest.mark.parametrize("call", sorted(CALLS, key=name), ids=name)
def test_what_works_when(call: Event) -> None:
    works = {
        E.VERIFY_ASKED: {S.UNVERIFIED, S.LOCKED, S.ACTIVE, S.KEPT},
        E.CHANGE_ASKED: {S.UNVERIFIED, S.ACTIVE},
        E.SIGN_PIN_ASKED: {S.ACTIVE},
        E.USE_ASKED: {S.ACTIVE},
        E.CONTEXT_ASKED: {S.ACTIVE},
        E.QUERY_ASKED: {S.UNVERIFIED, S.LOCKED, S.ACTIVE, S.KEPT},
        E.KEEP_ALIVE_ASKED: {S.ACTIVE},
        E.LOCK_ASKED: {S.ACTIVE, S.LOCKED, S.KEPT},
    }[call]
    for state in State:
        _, effects = step(state, call)
        refusals = [each.problem for each in effects if isinstance(each, Refuse)]
        if state in works:
            assert not refusals, state
        elif state in UNDER_WAY:
            assert refusals == [Problem.BUSY]
        elif state in WAITING:
            assert refusals == [Problem.NO_CARD], state
        elif state in WITH_SESSION:
            assert refusals == [Problem.NOT_VERIFIED], state
        else:
            assert refusals == [Problem.SESSION_ENDED], state


def test_an_end_is_heard_in_every_state_with_a_session() -> None:
    for state in WITH_SESSION:
        after, effects = step(state, E.END_ASKED)
        assert X.CLOSE_SESSION in effects
        if state in WAITING:
            assert X.END_SESSION in effects, "there is no card to be released"
            continue
        assert after is (S.CLOSING if state in UNDER_WAY else S.RELEASING)
        if state in SUBMITTING:
            assert effects[0] is X.REVOKE, "what was not sent yet is not sent any more"
    assert X.ABANDON in step(S.OPENING, E.END_ASKED)[1]


def reachable(start: State) -> set[State]:
    """Every state that some events lead to, under some policy."""
    seen, todo = {start}, [start]
    while todo:
        here = todo.pop()
        for event, removal in product(Event, Removal):
            after, _ = step(here, event, removal)
            if after not in seen:
                seen.add(after)
                todo.append(after)
    return seen


def test_every_state_is_reached_from_an_empty_reader() -> None:
    assert reachable(S.EMPTY) == set(State)


@pytest.mark.parametrize("state", [each for each in State if each is not S.GONE], ids=name)
def test_from_everywhere_the_reader_may_go_and_the_seat_may_be_empty_again(state: State) -> None:
    assert step(state, E.READER_LOST)[0] is S.GONE
    assert S.EMPTY in reachable(state)


def test_nothing_follows_after_the_reader_is_gone() -> None:
    for event in Event:
        after, effects = step(S.GONE, event)
        assert after is S.GONE
        assert all(isinstance(effect, Refuse) for effect in effects)


def test_every_effect_and_event_has_a_use() -> None:
    used = {effect for *_, effects in rows() for effect in effects if isinstance(effect, Effect)}
    assert used | set(AWAY_EFFECTS) == set(Effect)
    assert {event for _, event, *_ in rows()} == set(Event)


def test_certificates_are_read_when_nobody_is_verified() -> None:
    for before, event, after, effects in rows():
        if X.READ_CERTIFICATES in effects:
            assert after in {S.READY, S.LOCKED, S.KEPT}, (before, event)


# a card that goes under another policy than "end"


@pytest.mark.parametrize("removal", Removal)
@pytest.mark.parametrize("state", sorted(WITH_BOTH, key=name), ids=name)
def test_what_removal_means_is_the_sites_policy(state: State, removal: Removal) -> None:
    after, effects = step(state, E.CARD_REMOVED, removal)
    nobody_verified = state in {S.UNVERIFIED, S.VERIFYING, S.QUERYING}
    if removal is Removal.END or nobody_verified:
        assert (after, X.END_SESSION in effects) == (S.EMPTY, True)
        return
    was_locked = state in {S.LOCKED, S.LOCKING, S.UNLOCKING, S.QUERYING_LOCKED}
    kept = removal is Removal.KEEP and not was_locked
    assert after is (S.KEPT_AWAY if kept else S.LOCKED_AWAY)
    assert X.END_SESSION not in effects
    assert effects[0] is X.REVOKE, "what was not sent yet is not sent any more"
    assert effects.index(X.ANSWER_FAILURE) < effects.index(X.SET_ASIDE)
    assert effects.index(X.SET_ASIDE) < effects.index(X.DROP_CARD)
    assert X.LET_GO in effects


@pytest.mark.parametrize("removal", Removal)
def test_the_policy_changes_nothing_else(removal: Removal) -> None:
    for state, event in MATRIX:
        if event is not E.CARD_REMOVED or state not in WITH_BOTH:
            assert step(state, event, removal) == step(state, event)


@pytest.mark.parametrize(
    ("probing", "back"), [(S.LOCKED_PROBING, S.LOCKED), (S.KEPT_PROBING, S.KEPT)], ids=name
)
def test_only_the_same_card_takes_a_waiting_session_up_again(probing: State, back: State) -> None:
    after, effects = step(probing, E.PROBED_SAME)
    assert after is back
    assert effects.index(X.KEEP_PROBE) < effects.index(X.REJOIN)
    assert X.MARK_VERIFIED not in effects, "it signs only after VerifyPin"
    for event in (E.PROBED, E.PROBE_FAILED):
        after, effects = step(probing, event)
        assert after is S.READY
        assert effects.index(X.CLOSE_SESSION) < effects.index(X.END_SESSION)
    for before, event, _, effects in rows():
        assert (X.REJOIN in effects) == (event is E.PROBED_SAME), (before, event)


def test_a_waiting_session_keeps_its_reader_to_itself() -> None:
    for state in WAITING:
        assert step(state, E.OPEN_ASKED) == (state, (Refuse(Problem.BUSY),))

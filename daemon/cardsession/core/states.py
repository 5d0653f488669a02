"""The words of the transition table: where a seat (a reader, its card, its session) can be, what
happens to it, and what is done about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from .errors import Problem


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
    LOCKED_AWAY = auto()
    """Locked, and the reader is empty: the session waits for its card."""
    LOCKED_PROBING = auto()
    """A card came: is it the one?"""
    LOCKED_ELSEWHERE = auto()
    LOCKED_MUTE = auto()
    KEPT_AWAY = auto()
    """The same for a session that stays active without its card."""
    KEPT_PROBING = auto()
    KEPT_ELSEWHERE = auto()
    KEPT_MUTE = auto()
    KEPT = auto()
    """Its card is back, and was not verified since."""
    KEPT_VERIFYING = auto()
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
    PROBED_SAME = auto()
    """It is the card that a session waits for."""
    PROBE_FAILED = auto()
    PROBE_BUSY = auto()
    """The card could not be had: another program holds it."""
    PROBE_MUTE = auto()
    FOUND_MUTE = auto()
    """A later conversation found that the card does not answer any more."""
    CERTIFICATES_READ = auto()
    OPENED = auto()
    OPEN_FAILED = auto()
    PIN_VERIFIED = auto()
    POSSESSION_FAILED = auto()
    """Judged as right, but the card does not own the key of its certificate."""
    PIN_JUDGED = auto()
    """Judged, and whatever authority there was is there still: nothing was sent, say."""
    PIN_USED = auto()
    """The same, and it counts as activity."""
    PIN_FAILED = auto()
    """Judged, and whatever authority there was is gone."""
    PIN_BLOCKED = auto()
    PIN_UNSENT = auto()
    """No judgement, for there was nothing to send: not a word was said to the card."""
    PIN_LOST = auto()
    """No judgement: the answer, or the way to the card, was lost."""
    QUERIED = auto()
    QUERY_FAILED = auto()
    USED = auto()
    """A use of the authority (a signature, an APDU) came home and was answered."""
    USE_FAILED = auto()
    AUTHORITY_LOST = auto()
    """The card wants its PIN again: another program dropped our authority."""
    CARD_RESET = auto()
    """Another program reset the card that we had verified."""
    REJUDGED = auto()
    """The holder's certificate was judged again."""
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
    CHANGE_ASKED = auto()
    """ChangePin or UnblockPin."""
    SIGN_PIN_ASKED = auto()
    """SignWithPin."""
    USE_ASKED = auto()
    """Sign or Transmit."""
    CONTEXT_ASKED = auto()
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
    SUBMIT = auto()
    KEEP_JUDGEMENT = auto()
    ANSWER_JUDGEMENT = auto()
    MARK_VERIFIED = auto()
    MARK_UNVERIFIED = auto()
    MARK_DROPPED = auto()
    """A kept session's authority is gone; it waits as it did before."""
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
    USE = auto()
    SET_CONTEXT = auto()
    KEEP_STANDING = auto()
    SET_ASIDE = auto()
    """The session loses its card, and waits for it."""
    REJOIN = auto()
    """Its card is back."""
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

"""The fault matrix, as data: what goes wrong, when it does, and what the bus shows after it.

One line is one cell: moment, Reader.State (`gone`: there is no such object), Card.State of the
card in it (`new:` is another object than before), Session.State, end reason of the session that
is over, what the call under way answers, VERIFYs with data that the card has in its book, and how
it is driven: `S` simulated, `R` real parts. `-` is nothing. A line with a `#` says why there is no
such cell. Each line is derived from the bus contract and the card rules, which are cited.

The moments: `idle` a card is ready and nobody has a session; `probing` it is being read; then a
session that is `unverified`; `verifying`: the card has judged the passcode, the answer is not home;
`active`; `ending`: Close was called, and the card is being de-authenticated.
The call under way: OpenSession (with a wait, while it is probed), QueryPin, VerifyPin, Sign and
Close; at rest it is made when the fault was noticed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

LEAST = 60
"""Cells that are driven, at least; and cells that are driven with real parts."""


class Moment(StrEnum):
    """When it goes wrong."""

    IDLE = "idle"
    PROBING = "probing"
    UNVERIFIED = "unverified"
    VERIFYING = "verifying"
    ACTIVE = "active"
    ENDING = "ending"


class Way(StrEnum):
    """How a cell is driven."""

    SIMULATED = "S"
    REAL = "R"


class Fault(StrEnum):
    """What goes wrong."""

    READER_PULLED = "reader pulled"
    TORN_OUT = "card torn out"
    SWAPPED = "swapped within one poll"
    REPLACED = "another card (lock policy)"
    SERVICE_KILLED = "card service killed"
    SERVICE_RESTARTED = "card service restarted"
    DENIED = "socket closed to us"
    EXCLUSIVE = "rival: exclusive holder"
    TRANSACTION = "rival: long transaction"
    RESET = "rival: reset"
    VERIFIED = "rival: PIN verified"
    MUTE = "mute card"
    UPSIDE_DOWN = "card upside down"
    HUNG = "hung card or reader"
    WARM_ATR = "ATR differs warm"
    GARBAGE = "garbage answers"
    EMPTY = "answers of zero bytes"
    ENDLESS = "endless 61XX"
    CHAIN = "chain that never ends"
    SUSPEND = "sleep"
    OVERRUN = "udev overrun"
    SIGTERM = "SIGTERM"
    SIGKILL = "SIGKILL of the daemon"
    OWNER = "owner leaves"
    DISK = "disk full"


@dataclass(frozen=True, slots=True)
class Expected:
    """One cell that is driven: what is so when everybody has noticed."""

    reader: str
    card: str
    session: str
    reason: str
    answer: str
    verifies: int
    ways: frozenset[Way]

    @property
    def shown(self) -> tuple[str, ...]:
        """What the bus shows."""
        return self.reader, self.card, self.session, self.reason

    @property
    def summary(self) -> str:
        """In few words, for the table."""
        if self.reason:
            return self.reason
        return f"{self.reader}/{self.session}" if self.session else self.reader


@dataclass(frozen=True, slots=True)
class Impossible:
    """One cell that cannot be, and why."""

    why: str


Cell = Expected | Impossible

# The card is gone: the call answers CardRemoved, Ended, removal, no ghosts (bus.md, "When things
# vanish"). What ended before keeps the reason that came first. A reader that goes takes its object
# along. (A thread that is at the card hears of its card first, by chance or not: the moments in
# which that decides are simulated.)
_VANISHED = {
    Fault.READER_PULLED: """
        idle        gone  -  -  -               CardRemoved    0  SR
        probing     gone  -  -  -               ReaderRemoved  0  S
        unverified  gone  -  -  reader-removed  SessionEnded   0  SR
        verifying   gone  -  -  reader-removed  ReaderRemoved  1  S
        active      gone  -  -  reader-removed  SessionEnded   1  SR
        ending      gone  -  -  closed          done           1  SR
    """,
    Fault.TORN_OUT: """
        idle        empty  -  -  -             CardRemoved   0  SR
        probing     empty  -  -  -             CardRemoved   0  SR
        unverified  empty  -  -  card-removed  SessionEnded  0  SR
        verifying   empty  -  -  card-removed  CardRemoved   1  SR
        active      empty  -  -  card-removed  SessionEnded  1  SR
        ending      empty  -  -  closed        done          1  SR
    """,
    # card-rules C: it shows as +2 in the event counter; whoever was verified is not any more.
    # (In the midst of an exchange vpcd lets a new card answer in the old one's stead, without
    # power, and pcscd never counts it: no reader does that, so these are simulated.)
    Fault.SWAPPED: """
        idle        ready  new:ready  -  -             CardRemoved   0  SR
        probing     ready  new:ready  -  -             CardRemoved   0  S
        unverified  ready  new:ready  -  card-removed  SessionEnded  0  SR
        verifying   ready  new:ready  -  card-removed  CardRemoved   1  S
        active      ready  new:ready  -  card-removed  SessionEnded  1  SR
        ending      ready  new:ready  -  closed        done          1  S
    """,
    # removal policy `lock`: a verified session waits for its card, another one ends it
    Fault.REPLACED: """
        idle        ready  new:ready  -  -              CardRemoved   0  SR
        probing     ready  new:ready  -  -              CardRemoved   0  SR
        unverified  ready  new:ready  -  card-removed   SessionEnded  0  SR
        verifying   ready  new:ready  -  card-removed   CardRemoved   1  SR
        active      ready  new:ready  -  card-replaced  SessionEnded  1  SR
        ending      ready  new:ready  -  closed         done          1  SR
    """,
    Fault.UPSIDE_DOWN: """
        idle        mute  new:mute  -  -             CardRemoved   0  SR
        probing     mute  new:mute  -  -             CardRemoved   0  SR
        unverified  mute  new:mute  -  card-removed  SessionEnded  0  SR
        verifying   mute  new:mute  -  card-removed  CardRemoved   1  SR
        active      mute  new:mute  -  card-removed  SessionEnded  1  SR
        ending      mute  new:mute  -  closed        done          1  SR
    """,
}

# issue "pcscd's life": Backend says which, sessions end with backend-lost, afterwards all is
# published anew and every count read again. A VERIFY whose answer is lost is `uncertain` (A5).
_SERVICE = {
    Fault.SERVICE_KILLED: """
        idle        gone  -  -  -             CardRemoved         0  SR
        probing     gone  -  -  -             BackendUnavailable  0  SR
        unverified  gone  -  -  backend-lost  SessionEnded        0  SR
        verifying   gone  -  -  backend-lost  uncertain           1  SR
        active      gone  -  -  backend-lost  SessionEnded        1  SR
        ending      gone  -  -  closed        done                1  SR
    """,
    Fault.SERVICE_RESTARTED: """
        idle        ready  new:ready  -  -             CardRemoved         0  SR
        probing     ready  new:ready  -  -             BackendUnavailable  0  SR
        unverified  ready  new:ready  -  backend-lost  SessionEnded        0  SR
        verifying   ready  new:ready  -  backend-lost  uncertain           1  SR
        active      ready  new:ready  -  backend-lost  SessionEnded        1  SR
        ending      ready  new:ready  -  closed        done                1  SR
    """,
    Fault.DENIED: """
        idle        gone  -  -  -             CardRemoved         0  SR
        probing     gone  -  -  -             BackendUnavailable  0  SR
        unverified  gone  -  -  backend-lost  SessionEnded        0  SR
        verifying   gone  -  -  backend-lost  uncertain           1  SR
        active      gone  -  -  backend-lost  SessionEnded        1  SR
        ending      gone  -  -  closed        done                1  SR
    """,
}

# card-rules C: whoever holds the card is found by asking for it: no status wait is woken by an
# exclusive handle or a transaction, and no status word shows them to a wait that is under way
# (measured, pcscd 1.9.9); so a card that was read is `ready`, and the call says who has it. While
# we hold the card ourselves no rival can have it. The transaction, the reset and the
# verification are driven with hold = shared, where a rival can come at an active session's card.
_RIVALS = {
    Fault.EXCLUSIVE: """
        idle        ready             ready    -           -       InUseElsewhere  0  SR
        probing     in-use-elsewhere  probing  -           -       Timeout         0  S
        unverified  ready             ready    unverified  -       InUseElsewhere  0  SR
        verifying   ready             ready    active      -       verified        1  SR
        active      ready             ready    active      -       signed          1  SR
        ending      ready             ready    -           closed  done            1  SR
    """,
    Fault.TRANSACTION: """
        idle        ready             ready    -           -       InUseElsewhere  0  SR
       probing     in-use-elsewhere  probing  -           -       Timeout         0  S
        unverified  ready             ready    unverified  -       InUseElsewhere  0  S
        verifying   ready             ready    unverified  -       InUseElsewhere  0  SR
        active      ready             ready    active      -       InUseElsewhere  1  SR
        ending      ready             ready    -           closed  done            1  S
    """,
    # it shows at the next call: reconnect, state unverified; a secret is never sent again
    Fault.RESET: """
        idle        ready  ready  unverified           -           session     0  SR
        probing     ready  ready  unverified           -           session     0  S
        unverified  ready  ready  unverified  -           unverified  0  SR
        verifying   ready  ready  unverified  -           uncertain   1  S
        active      ready  ready  unverified  -           NotVerified 1  SR
        ending      ready  ready  -           closed      done        1  S
    """,
    # card-rules A4: a 9000 to the question blinds the guard; bus.md: found verified by somebody
    # else, it is de-authenticated before the session exists
    Fault.VERIFIED: """
        idle        ready  ready  unverified           -       session     0  SR
        probing     ready  ready  unverified           -       session     0  S
        unverified  ready  ready  unverified  -       unverified  0  SR
        verifying   ready  ready  active      -       verified    1  SR
        active      ready  ready  active      -       signed      1  SR
        ending      ready  ready  -           closed  done        1  S
    """,
}

# A card that answers what no card should: the submission is uncertain, nothing is repeated, and
# whatever was verified is dropped by a reset (A5, B).
_NONSENSE = """
    idle        ready  ready    -           -       CardReset  0  SR
    probing     ready  unknown  -           -       NotSupported  0  SR
    unverified  ready  ready    unverified  -       CardReset  0  SR
    verifying   ready  ready    unverified  -       uncertain  1  SR
    active      ready  ready    active      -       CardReset  1  SR
    ending      ready  ready    -           closed  done       1  SR
"""
_CARDS = {
    Fault.MUTE: """
        idle        mute  mute  -  -          CardMute   0  S
        probing     mute  mute  -  -          CardMute   0  S
        unverified  mute  mute  -  card-mute  CardMute   0  S
        verifying   mute  mute  -  card-mute  uncertain  1  S
        active      mute  mute  -  card-mute  CardMute   1  S
        ending      mute  mute  -  closed     done       1  S
    """,
    # the watchdog of each reader; a VERIFY that was sent is uncertain
    Fault.HUNG: """
        idle        stuck  ready    -  -          ReaderStuck  0  SR
        probing     stuck  probing  -  -          ReaderStuck  0  SR
        unverified  stuck  ready    -  card-mute  ReaderStuck  0  SR
        verifying   stuck  ready    -  card-mute  uncertain    1  SR
        active      stuck  ready    -  card-mute  ReaderStuck  1  SR
        ending      stuck  ready    -  closed     done         1  SR
    """,
    # the ATR says nothing of who it is: no insertion, no removal. (A rival's reset makes it warm;
    # an active session's in the midst of Sign, which ends it.)
    Fault.WARM_ATR: """
        idle        ready  ready  unverified           -           session     0  SR
        probing     ready  ready  unverified           -           session     0  S
        unverified  ready  ready  unverified  -           unverified  0  SR
        verifying   ready  ready  unverified  -           uncertain   1  S
        active      ready  ready  -           card-reset  CardReset   1  S
        ending      ready  ready  -           closed      done        1  S
    """,
    Fault.GARBAGE: _NONSENSE,
    Fault.EMPTY: _NONSENSE,
    Fault.ENDLESS: _NONSENSE,
    # a file without an end, on a card of PKCS#15; a VERIFY and a signature need no file
    Fault.CHAIN: """
        idle        ready  ready    -           -       CardReset     0  S
        probing     ready  unknown  -           -       NotSupported  0  S
        unverified  ready  ready    unverified  -       CardReset     0  S
        verifying   ready  ready    active      -       verified      1  S
        active      ready  ready    active      -       signed        1  S
        ending      ready  ready    -           closed  done          1  S
    """,
}

# SIGTERM: sessions ended on the bus, every card de-authenticated. SIGKILL: nobody hears of it, the
# card service resets the card, no session is restored. Owner gone: a VERIFY already sent is never
# aborted. A full disk: the counters go on in memory, the trouble is told. An overrun: enumerate.
_MACHINE = {
    # until the machine is awake nothing is shown of readers and cards; then all is listed afresh
    Fault.SUSPEND: """
        idle        gone  -  -  -        Suspended     0  SR
        probing     gone  -  -  -        Suspended     0  SR
        unverified  gone  -  -  suspend  SessionEnded  0  SR
        verifying   gone  -  -  suspend  verified      1  SR
        active      gone  -  -  suspend  SessionEnded  1  SR
        ending      gone  -  -  closed   done          1  SR
    """,
    Fault.OVERRUN: """
        idle        ready  ready  unverified           -       session     0  S
        probing     ready  ready  unverified           -       session     0  S
        unverified  ready  ready  unverified  -       unverified  0  S
        verifying   ready  ready  active      -       verified    1  S
        active      ready  ready  active      -       signed      1  S
        ending      ready  ready  -           closed  done        1  S
    """,
    Fault.SIGTERM: """
        idle        gone  -  -  -                CardRemoved    0  SR
        probing     gone  -  -  -                ReaderRemoved  0  SR
        unverified  gone  -  -  daemon-stopping  SessionEnded   0  SR
        verifying   gone  -  -  daemon-stopping  verified       1  SR
        active      gone  -  -  daemon-stopping  SessionEnded   1  SR
        ending      gone  -  -  closed           done           1  SR
    """,
    Fault.SIGKILL: """
        idle        ready  new:ready  -  -  -  0  SR
        probing     ready  new:ready  -  -  -  0  SR
        unverified  ready  new:ready  -  -  -  0  SR
        verifying   ready  new:ready  -  -  -  1  SR
        active      ready  new:ready  -  -  -  1  SR
        ending      ready  new:ready  -  -  -  1  SR
    """,
    Fault.OWNER: """
        idle        ready  ready  -  -               -  0  SR
        probing     ready  ready  -  -               -  0  SR
        unverified  ready  ready  -  owner-vanished  -  0  SR
        verifying   ready  ready  -  owner-vanished  -  1  SR
        active      ready  ready  -  owner-vanished  -  1  SR
        ending      ready  ready  -  closed          -  1  SR
    """,
    Fault.DISK: """
        idle        ready  ready  unverified           -       session     0  SR
        probing     ready  ready  unverified           -       session     0  SR
        unverified  ready  ready  unverified  -       unverified  0  SR
        verifying   ready  ready  active      -       verified    1  SR
        active      ready  ready  active      -       signed      1  SR
        ending      ready  ready  -           closed  done        1  SR
    """,
}


def _cell(line: str) -> tuple[Moment, Cell]:
    name, rest = line.split(maxsplit=1)
    if rest.startswith("#"):
        return Moment(name), Impossible(rest.lstrip("# "))
    *words, verifies, ways = rest.split()
    reader, card, session, reason, answer = ("" if each == "-" else each for each in words)
    driven = frozenset(Way(each) for each in ways)
    return Moment(name), Expected(reader, card, session, reason, answer, int(verifies), driven)


def _row(text: str) -> dict[Moment, Cell]:
    return dict(_cell(line) for line in text.strip().splitlines())


MATRIX: dict[Fault, dict[Moment, Cell]] = {
    fault: _row(text)
    for rows in (_VANISHED, _SERVICE, _RIVALS, _CARDS, _MACHINE)
    for fault, text in rows.items()
}
"""Every cell."""


def driven(way: Way) -> list[tuple[Fault, Moment]]:
    """The cells that are driven so, in the table's order."""
    return [
        (fault, moment)
        for fault in Fault
        for moment in Moment
        if isinstance(cell := MATRIX[fault].get(moment), Expected) and way in cell.ways
    ]


def expected(fault: Fault, moment: Moment) -> Expected:
    """What a driven cell demands."""
    cell = MATRIX[fault][moment]
    assert isinstance(cell, Expected)
    return cell

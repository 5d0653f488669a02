"""What holds whatever happens (card-rules A), seen from where nobody can argue: the card's own
counters, the commands that reach it, and what is shown.

Each command of ours passes a `Witness`, and each record that is published. What it finds goes
into a list: raised where it is found it would be one more fault for the daemon to get over.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from cardsession.asks import SubmitAsk
from cardsession.bus.values import describe
from cardsession.core.facts import CardFacts, SessionFacts, SessionState
from cardsession.core.tries import Act, Consent
from cardsession.ports import Caller, Permit, PinRequest
from fakes.specimens import Specimen, carries_secret, count_told, is_question

PASSCODE = re.compile(
    r"(?:(?<![0-9A-Fa-f])|\\x[0-9a-f]{2})7319(?:\d{2}|(?!\d000)\d{4}3?)(?![0-9A-Fa-f])"
    r"|37333139(?:3\d){2}"
)
"""Every passcode of the property tests, as text, in bytes or as the hexadecimal digits of its
bytes. (Times look like them, and end in three zeros; addresses and fingerprints may.)"""
SIGN = {0x87, 0x2A}
GRANTED = b"\x90\x00"
_NOBODY = (SessionState.UNVERIFIED, SessionState.LOCKED, SessionState.ENDED)


@dataclass(eq=False)
class Submission:
    """What one person typed once, and for which card."""

    request: PinRequest
    caller: Caller
    session: int
    card: Specimen | None
    reference: int
    """Whose counter is at stake."""
    texts: tuple[str, ...]
    consent: Consent
    asked_usec: int
    ask: SubmitAsk | None = None
    sent: int = 0
    wrong: int = 0
    """Tries that the card took away for it."""
    late: bool = False
    """Another one of its session was under way when it was asked for."""
    life: int = 0
    """Of the daemon."""

    @property
    def answered(self) -> bool:
        """Whether its caller has a reply."""
        return self.ask is not None and self.ask.answered.done()


@dataclass
class Transaction:
    """What was said in one card transaction of ours."""

    heard: dict[int, int] = field(default_factory=dict)
    """Counts that the card told, by reference."""
    blind: set[int] = field(default_factory=set)
    """References that it called verified when it was asked last."""
    granted: Specimen | None = None
    """The card that took a passcode."""
    left_verified: frozenset[int] = frozenset()
    """Who was verified at its end."""
    spoilt: bool = False
    """An answer did not reach us as the card gave it: we may not know what we could."""


@dataclass
class Low:
    """The lowest count that we were told of one PIN since a success, as card-rules A4 has it.

    `attempts`: sent since, outcome unknown: each counts as a try that is gone.
    """

    told: int | None = None
    attempts: int = 0

    @property
    def count(self) -> int | None:
        """What the guard may go by."""
        return None if self.told is None else max(0, self.told - self.attempts)

    def tell(self, count: int) -> None:
        """The card told it."""
        self.told = count if self.told is None else min(self.told, count)
        self.attempts = 0

    def forget(self) -> None:
        """A success."""
        self.told, self.attempts = None, 0


class Witness:
    """See the module."""

    def __init__(self, specimens: Iterable[Specimen]) -> None:
        self.specimens = list(specimens)
        self.violations: list[str] = []
        self.submissions: list[Submission] = []
        self.life = 0
        """How often the daemon was started."""
        self.gone: set[str] = set()
        """Names of callers that left."""
        self.accept_unknown: frozenset[str] = frozenset()
        """Profiles of which the site accepts it."""
        self.session_cards: dict[int, Specimen | None] = {}
        self.transactions: dict[str, Transaction] = {}
        self.lows: dict[tuple[Specimen, int], Low] = {}
        self.proved: dict[int, Specimen] = {}
        """By session: the card that signed, right after it took the passcode."""

    def demand(self, holds: object, text: str) -> None:
        """Note it unless it holds."""
        if not holds:
            self.violations.append(text)

    def new_life(self) -> None:
        """The daemon starts, and numbers its sessions anew."""
        self.life += 1
        self.session_cards.clear()
        self.proved.clear()
        self.transactions.clear()

    def of_permit(self, permit: Permit | None) -> Submission | None:
        """Whose permit this is."""
        for each in self.submissions:
            if permit is not None and each.ask is not None and each.ask.permit is permit:
                return each
        return None

    def low(self, card: Specimen, reference: int) -> Low:
        """What was told of a PIN."""
        return self.lows.setdefault((card, reference), Low())

    # our commands

    def begun(self, reader: str) -> None:
        """A transaction of ours begins."""
        self.transactions[reader] = Transaction()

    def ended(self, reader: str, card: Specimen | None) -> None:
        """It ends."""
        verified = frozenset(card.verified() if card else ())
        self.transactions[reader].left_verified = verified

    def spoilt(self, reader: str) -> None:
        """An answer was lost, or turned into another one."""
        self.transactions[reader].spoilt = True

    def asked(self, submission: Submission, ask: SubmitAsk) -> None:
        """It comes to the desk: is another one of the same session under way?"""
        submission.ask = ask
        submission.late = any(
            each.session == submission.session and each.ask and not each.answered
            for each in self.submissions
            if each is not submission and each.life == submission.life
        )

    def goes_out(self, permit: Permit | None, apdu: bytes, *, on_record: bool) -> None:
        """A command is handed to the reader."""
        if not carries_secret(apdu):
            return
        submission = self.of_permit(permit)
        if submission is None or submission.ask is None:
            self.violations.append(f"a secret that nobody submitted: {apdu[:4].hex()}")
            return
        submission.sent += 1
        self.demand(submission.sent == 1, "one submission, two commands with a secret")
        self.demand(not submission.late, "a double click is a second try")
        self.demand(submission.ask.permit.claimed, "sent without having been claimed")
        self.demand(not submission.answered, "sent after its caller's reply")
        self.demand(submission.caller.name not in self.gone, "sent after its caller left")
        self.demand(on_record, "sent with no attempt on record")

    def reaches(self, permit: Permit | None, reader: str, card: Specimen, apdu: bytes) -> None:
        """The card is about to judge it."""
        submission = self.of_permit(permit)
        if submission is None or not carries_secret(apdu):
            return
        self.demand(submission.card is card, f"meant for {submission.card}, sent to {card}")
        reference = card.recipe.puk if apdu[1] == 0x2C else apdu[3]
        self.demand(reference == submission.reference, "another PIN's counter is at stake")
        self._guard(submission, self.transactions[reader], card, reference)
        self.low(card, reference).attempts += 1

    def _guard(
        self, submission: Submission, said: Transaction, card: Specimen, reference: int
    ) -> None:
        consent, left = submission.consent, card.left(reference)
        profile = card.recipe.options.family.value
        accepts = consent.accept_unknown or profile in self.accept_unknown
        text = f"{submission.request.act.name} {reference:02X} of {card}"
        self.demand(reference not in said.blind, f"{text}: sent while somebody was verified")
        if reference in said.heard:
            self.demand(said.heard[reference] == left, f"{text}: {said.heard} heard, {left} left")
            self.demand(left > 1 or (left == 1 and consent.spend_last_try), f"{text}: {left} left")
            return
        low = self.low(card, reference).count if card.tells_itself else None
        if low is None:
            self.demand(accepts, f"{text}: sent at an unknown count")
        elif low == 0:
            self.demand(accepts and consent.spend_last_try, f"{text}: sent at none left")
        else:
            self.demand(low > 1 or consent.spend_last_try, f"{text}: sent at {low} left, not asked")

    def processed(self, permit: Permit | None, card: Specimen, apdu: bytes, spent: int) -> None:
        """The card did it; the answer may be lost yet."""
        submission = self.of_permit(permit)
        if submission is None or not carries_secret(apdu):
            self.demand(not spent, f"{apdu[:4].hex()} cost {card} a try")
            return
        submission.wrong += spent
        self.demand(submission.wrong <= 1, "one submission cost two tries")
        right = card.is_right(submission.reference, submission.texts[0])
        self.demand(not (spent and right), "a right passcode cost a try")

    def delivered(
        self, permit: Permit | None, reader: str, card: Specimen, apdu: bytes, answer: bytes
    ) -> None:
        """The answer reached us, as the card gave it."""
        said, count = self.transactions[reader], count_told(answer)
        ok = answer[-2:] == GRANTED
        if is_question(apdu):
            said.blind.discard(apdu[3])
            if count is not None:
                said.heard[apdu[3]] = count
                self.low(card, apdu[3]).tell(count)
            elif ok:
                said.blind.add(apdu[3])
        elif carries_secret(apdu):
            self._judged(card, apdu, count, answer)
            if ok and apdu[1] == 0x20:
                said.granted = card
        elif ok and apdu[1] in SIGN and said.granted is card:
            submission = self.of_permit(permit)
            if submission is not None:
                self.proved[submission.session] = card

    def _judged(self, card: Specimen, apdu: bytes, count: int | None, answer: bytes) -> None:
        unblocking = apdu[1] == 0x2C
        low = self.low(card, card.recipe.puk if unblocking else apdu[3])
        if count is not None:
            low.tell(count)
        elif answer[-2:] == GRANTED and unblocking:
            low.attempts = 0
            if low.told == 0:
                low.forget()
            self.low(card, apdu[3]).forget()
        elif answer[-2:] == GRANTED:
            low.forget()
        elif answer[-2:] == b"\x6a\x80" and card.recipe.options.family.value == "piv":
            low.attempts = 0

    # what is shown

    def specimen_of(self, facts: CardFacts) -> Specimen | None:
        """Which card a record is about."""
        if facts.profile == "unknown":
            return None
        der = facts.holder.der if facts.holder else None
        for each in self.specimens:
            if (der and each.der == der) or (facts.serial and each.serial == facts.serial):
                return each
        return next((each for each in self.specimens if not each.tells_itself), None)

    def shows_card(self, facts: CardFacts) -> None:
        """A card's record is published: its numbers are what the card had when they were read."""
        values = describe(facts)[1]
        tries, usec = values["PinTries"], values["PinTriesReadUSec"]
        card = self.specimen_of(facts)
        if tries:
            self.demand(card, f"numbers of a card that nobody identified: {tries}")
            self.demand(values["PinTriesSource"] in ("card", "last-verify"), "numbers of no source")
            self.demand(usec >= facts.inserted_usec, "numbers of another insertion")
        if card is None:
            return
        for label, count in tries.items():
            had = card.had(card.recipe.pins[label], usec)
            self.demand(count in had, f"{card} {label}: {count} is shown, it had {had} then")
        for label, most in values["PinTriesMax"].items():
            limit = card.limit(card.recipe.pins[label])
            self.demand(most == limit, f"{card} {label}: at most {most} is shown, it is {limit}")

    def shows_session(self, facts: SessionFacts, card: CardFacts | None) -> None:
        """A session's record is published: who is called verified was, with this very card."""
        said = self.transactions.get(facts.reader_id, Transaction())
        if facts.number not in self.session_cards:
            self.session_cards[facts.number] = self.specimen_of(card) if card else None
            found = said.left_verified and not said.spoilt
            self.demand(not found, "somebody was left verified as a session began")
        if facts.card is None or facts.state in _NOBODY:
            self.proved.pop(facts.number, None)
        if not (facts.possession_proved or facts.holder_verified):
            return
        meant = self.session_cards[facts.number]
        live = facts.state in (SessionState.ACTIVE, SessionState.VERIFYING)
        self.demand(live and facts.card is not None, f"possession while {facts.state}")
        self.demand(facts.possession_proved or not facts.holder_verified, "a holder without proof")
        proved = self.proved.get(facts.number)
        self.demand(meant is not None and proved is meant, f"{proved} signed, not {meant}")

    # at rest

    def books(self) -> None:
        """What the cards counted, over all insertions, is what people submitted and a rival."""
        for card in self.specimens:
            wrong = sum(each.wrong for each in self.submissions if each.card is card)
            submitted = sum(each.card is card for each in self.submissions)
            counted = card.card.book.wrong() - card.rival_wrong
            self.demand(counted == wrong <= submitted, f"{card}: {counted} counted, {wrong} wrong")

    def silent(self, text: str) -> None:
        """No passcode is in it."""
        found = PASSCODE.search(text)
        self.demand(not found, f"a passcode is in: {text[:200]}")

    def verdict(self, submission: Submission, left: int | None) -> None:
        """A reply's number is one that the card had since it was asked."""
        card = submission.card
        if left is None or card is None:
            return
        had = card.had_since(submission.reference, submission.asked_usec)
        self.demand(left in had, f"{card}: {left} is replied, it had {had}")


def act_reference(card: Specimen | None, act: Act, label: str) -> int:
    """Whose counter a submission is about."""
    if card is None:
        return -1
    return card.recipe.puk if act is Act.UNBLOCK else card.recipe.pins.get(label, -1)

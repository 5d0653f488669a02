"""The ledger on a disk is the ledger in memory, whatever happens, whenever it is opened again.

And after a power cut it is no laxer than it was: of the file only what had been synced is left.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cardsession.adapters.ledger import FileLedger, MemoryLedger
from cardsession.adapters.ledger import store as store_module
from cardsession.core.tries import Blocked, Known, NoSuchPin, NotSet, Unknown, Verified
from cardsession.ports import Past

IDENTITIES = ("", "A1", "B2", "Ö\ud800\n")
REFERENCES = (0x00, 0x80, 0x81)
identities = st.sampled_from(IDENTITIES)
references = st.sampled_from(REFERENCES)
statuses = st.one_of(
    st.integers(1, 15).map(Known),
    st.sampled_from([Blocked(), Verified(), Unknown(), NotSet(), NoSuchPin()]),
)


class Machine(RuleBasedStateMachine):
    """Every event goes to both; every question is answered alike by both."""

    growth = 700
    """Bytes after which the file is rewritten: often, here."""

    @initialize()
    def start(self) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.directories = (self.root / str(number) for number in itertools.count())
        ticks = itertools.count(1)
        self.now = 0
        self.ticks = ticks
        self.model = MemoryLedger(lambda: self.now)
        self.said: list[str] = []
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(store_module, "GROWTH", self.growth)
        self.directory = next(self.directories)
        self.directory.mkdir()
        self.open()

    def open(self) -> None:
        self.ledger = FileLedger(self.directory, lambda: self.now, self.said.append)

    def both(self, name: str, *arguments: Any) -> None:
        self.now = next(self.ticks)
        getattr(self.model, name)(*arguments)
        getattr(self.ledger, name)(*arguments)

    @rule(identity=identities, reference=references, status=statuses)
    def note(self, identity: str, reference: int, status: Any) -> None:
        self.both("note", identity, reference, status)

    @rule(identity=identities, reference=references)
    def begin(self, identity: str, reference: int) -> None:
        self.both("begin", identity, reference, ":1.7 uid 1000")

    @rule(identity=identities, reference=references)
    def withdraw(self, identity: str, reference: int) -> None:
        self.both("withdraw", identity, reference)

    @rule(
        identity=identities,
        reference=references,
        status=statuses,
        changed=st.none() | references,
    )
    def settle(self, identity: str, reference: int, status: Any, changed: int | None) -> None:
        self.both("settle", identity, reference, status, changed)

    @rule()
    def reopen(self) -> None:
        self.ledger.close()
        self.open()

    @rule(torn=st.binary(max_size=30).filter(lambda raw: b"\n" not in raw))
    def crash(self, torn: bytes) -> None:
        """What the files hold at this moment, and perhaps a line that was never finished."""
        self.ledger.past("")  # an opened ledger has a file
        copy = next(self.directories)
        shutil.copytree(self.directory, copy)
        with (copy / "ledger").open("ab") as file:
            file.write(torn)
        self.ledger.close()
        self.directory = copy
        self.open()

    @invariant()
    def same(self) -> None:
        if not hasattr(self, "ledger"):
            return
        for identity in IDENTITIES:
            assert self.ledger.past(identity) == self.model.past(identity)
            for reference in REFERENCES:
                mine = self.ledger.lowest(identity, reference)
                assert mine == self.model.lowest(identity, reference)
        assert self.ledger._everything() == self.model._everything()
        assert self.said == []

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.ledger.close()
            self.patch.undo()
            shutil.rmtree(self.root)


class PowerCut(Machine):
    """Beside it, the file as the last sync left it."""

    def start_synced(self) -> None:
        self.synced: bytes | None = None

        def seen(real: Any) -> Any:
            def sync(descriptor: int) -> None:
                real(descriptor)
                name = self.directory / "ledger"
                self.synced = name.read_bytes() if name.exists() else self.synced

            return sync

        self.patch.setattr(os, "fdatasync", seen(os.fdatasync))
        self.patch.setattr(os, "fsync", seen(os.fsync))

    @initialize()
    def start(self) -> None:
        super().start()
        self.start_synced()

    @invariant()
    def no_laxer(self) -> None:
        if not getattr(self, "synced", None):
            return
        directory = next(self.directories)
        directory.mkdir()
        (directory / "ledger").write_bytes(self.synced or b"")
        synced = self.synced
        after = FileLedger(directory, lambda: self.now, self.said.append)
        for identity, reference in itertools.product(IDENTITIES, REFERENCES):
            now, then = self.model.lowest(identity, reference), after.lowest(identity, reference)
            assert now is None or (then is not None and then <= now)
        for identity in IDENTITIES:
            past: Past = self.model.past(identity)
            assert after.past(identity).in_flight >= past.in_flight
            assert after.past(identity).tried >= past.tried
        after.close()
        self.synced = synced  # opening the copy synced, too


bounds = settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestLedgerMachine = Machine.TestCase
TestLedgerMachine.settings = bounds
TestPowerCut = PowerCut.TestCase
TestPowerCut.settings = settings(bounds, max_examples=25)

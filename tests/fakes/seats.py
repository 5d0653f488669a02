"""What happens to cards and readers in the property test, as rules."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from fakes.pcscd import Slot
from fakes.specimens import Specimen
from fakes.world import READERS, World


class Seats(RuleBasedStateMachine):
    """Two readers, and cards that lie about."""

    world: World

    def _slot(self, which: int) -> Slot[Specimen] | None:
        return self.world.pcscd.slots.get(READERS[which])

    def _lying(self) -> list[Specimen | None]:
        slots = self.world.pcscd.slots.values()
        return [*(slot.chip for slot in slots), *self.world.unplugged.values()]

    @rule(which=st.integers(0, 1), card=st.integers(0, 2), mute=st.just(False), told=st.booleans())
    def insert(self, which: int, card: int, *, mute: bool, told: bool) -> None:
        """A card comes, or takes another one's place before anybody has noticed."""
        slot, chip = self._slot(which), self.world.cards[card]
        lying = self._lying()
        if slot is None or self.world.pcscd.down or (chip in lying and slot.chip is not chip):
            return
        self.world.pcscd.pull(slot)
        self.world.pcscd.insert(slot, chip, mute=mute)
        self.world.do(self.world.notice if told else lambda: None)

    @rule(which=st.integers(0, 1), told=st.booleans())
    def pull(self, which: int, *, told: bool) -> None:
        """It goes."""
        slot = self._slot(which)
        if slot is None or slot.chip is None:
            return
        self.world.pcscd.pull(slot)
        self.world.do(self.world.notice if told else lambda: None)

    @rule(which=st.integers(0, 1))
    def put_back(self, which: int) -> None:
        """It goes, and the same one comes again."""
        slot = self._slot(which)
        if slot is not None and slot.chip is not None:
            card = self.world.cards.index(slot.chip)
            self.pull(which, told=True)
            self.insert(which, card, mute=False, told=True)

    @rule(which=st.integers(0, 1))
    def swap(self, which: int) -> None:
        """Another one takes its place, and nobody has noticed yet."""
        free = [at for at, card in enumerate(self.world.cards) if card not in self._lying()]
        if free:
            self.insert(which, free[0], mute=False, told=False)

    @rule()
    def look(self) -> None:
        """The card service looks at its readers, and we hear of it."""
        self.world.do(self.world.notice)

    @rule(
        what=st.sampled_from(["mute", "plug", "service", "hang", "restart", "leave"]),
        which=st.integers(0, 2),
    )
    def disaster(self, what: str, which: int) -> None:
        """What does not happen every day."""
        getattr(self, f"_{what}")(which % 2 if what != "leave" else which)

    def _mute(self, which: int) -> None:
        """A card comes the wrong way round."""
        slot = self._slot(which)
        free = [card for card in self.world.cards if card not in self._lying()]
        if slot and slot.chip is None and free and not self.world.pcscd.down:
            self.insert(which, self.world.cards.index(free[0]), mute=True, told=True)

    def _plug(self, which: int) -> None:
        """A reader goes, with its card in it, or comes back."""
        name, world = READERS[which], self.world
        world.rival.handles.pop(name, None)
        if name in world.unplugged:
            world.pcscd.plug(name, world.unplugged.pop(name))
        else:
            world.unplugged[name] = world.pcscd.unplug(name).chip
        world.do(world.list)

    def _service(self, _: int = 0) -> None:
        """The card service is killed, or is back."""
        if self.world.pcscd.down:
            self.world.pcscd.rise()
        else:
            self.world.pcscd.die()
            self.world.rival.handles.clear()
        self.world.do(self.world.list)

    def _hang(self, which: int) -> None:
        """A reader's thread does not get on, or does again."""
        for worker in self.world.workers:
            if worker.reader == READERS[which]:
                worker.hung = not worker.hung
        self.world.do(lambda: None)

    def _restart(self, which: int) -> None:
        """The daemon is started anew, or the machine sleeps for a while."""
        if which:
            self.world.sleep()
        else:
            self.world.restart()

    def _leave(self, which: int) -> None:
        """A caller's connection ends."""
        self.world.do(lambda: self.world.leave(which))

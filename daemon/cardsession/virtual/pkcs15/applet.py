"""The PKCS#15 card as an application of the chip: files, PINs and keys together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from cardsession.virtual.apdu import SW, Command, Ins, Response
from cardsession.virtual.identity import Identity
from cardsession.virtual.options import CardOptions, Slot
from cardsession.virtual.pkcs15.files import Df
from cardsession.virtual.pkcs15.filesystem import FileSystem
from cardsession.virtual.pkcs15.layout import APPLICATION, KEY_REFERENCE, Layout, mechanisms
from cardsession.virtual.pkcs15.pins import Pins15
from cardsession.virtual.pkcs15.signing import Signer, SigningKey

_RID: Final = 5
_WRITING: Final = frozenset(
    {0x0E, 0x0F, 0xD0, 0xD1, 0xD2, 0xD6, 0xD7, 0xDC, 0xDD, 0xE0, 0xE2, 0xE4}
)


class _OnPin(Protocol):
    def __call__(self, command: Command, *, here: bool) -> Response: ...


class Pkcs15Applet:
    """An ISO/IEC 7816-4 file system with a PKCS#15 application in DF 5015."""

    def __init__(
        self, options: CardOptions, pins: Pins15, identity: Identity, authority: bytes
    ) -> None:
        chosen = options.pkcs15
        self.pins = pins
        self._options = chosen
        layout = Layout(chosen, options.algorithm, identity, authority)
        self.serial = layout.serial
        self.files = FileSystem(layout.master_file(), chosen, lambda: pins.verified(pins.user))
        for path, content in chosen.files.items():
            self.files.put(bytes.fromhex(path), content)
        self._reading: dict[int, Callable[[Command], Response]] = {
            Ins.READ_BINARY: self.files.read_binary,
            Ins.READ_BINARY_OBJECTS: self.files.read_binary_objects,
            Ins.READ_RECORD: self.files.read_record,
        }
        self._on_pins: dict[int, _OnPin] = {
            Ins.VERIFY: pins.verify,
            Ins.CHANGE_REFERENCE_DATA: pins.change,
            Ins.RESET_RETRY_COUNTER: pins.unblock,
        }
        able = mechanisms(chosen, options.algorithm)
        self._signer = Signer(_signing_keys(options, pins, identity), able, pins)

    def answers_to(self, name: bytes) -> bool:
        """The application's identifier, or a part of it no shorter than the RID."""
        return len(name) >= min(_RID, len(self._options.aid)) and self._options.aid.startswith(name)

    def select(self, form: int) -> bytes:
        """SELECT by name makes DF 5015 the current one."""
        application = self.files.master.children[APPLICATION]
        assert isinstance(application, Df)  # noqa: S101 - the layout has made it one
        self.files.enter(application)
        self._signer.forget()
        return self.files.control_information(application, form)

    def deselect(self) -> None:
        """Another application was selected: most cards forget who was verified, some do not."""
        self._signer.forget()
        if self._options.drops_on_select:
            self.pins.forget()

    def reset(self) -> None:
        """Reset or power lost."""
        self.pins.forget()
        self.files.reset()
        self._signer.forget()

    def put(self, name: bytes, value: bytes | None) -> list[str]:
        """Write (or remove) a file past all rules; the paths of all files."""
        self.files.put(name, value)
        return sorted(self.files.master.listing())

    @property
    def _here(self) -> bool:
        return self.files.df.identifier == APPLICATION

    def process(self, command: Command) -> Response:
        """Answer one command."""
        if command.ins in _WRITING:
            return Response(SW.SECURITY_STATUS)
        if command.ins in self._on_pins:
            here = self._here or not self._options.pin_local
            return self._on_pins[command.ins](command, here=here)
        if command.ins in self._reading:
            return self._reading[command.ins](command)
        match command.ins:
            case Ins.SELECT:
                return self._select(command)
            case Ins.MANAGE_SECURITY_ENVIRONMENT:
                return self._signer.manage(command, here=self._here)
            case Ins.PERFORM_SECURITY_OPERATION:
                return self._signer.perform(command)
        return Response(SW.INS)

    def _select(self, command: Command) -> Response:
        """A security environment belongs to its DF (ISO/IEC 7816-4 clause 10.3.3)."""
        before = self.files.df
        answer = self.files.select(command)
        if self.files.df is not before:
            self._signer.forget()
        return answer


def _signing_keys(options: CardOptions, pins: Pins15, identity: Identity) -> dict[int, SigningKey]:
    keys = {}
    for slot, key in identity.keys.items():
        commits = slot is Slot.SIGNATURE
        at = pins.signature if commits else pins.user
        keys[KEY_REFERENCE[slot]] = SigningKey(key, at, commits and options.pkcs15.consent)
    return keys

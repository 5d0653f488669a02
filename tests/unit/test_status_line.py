"""What `systemctl status` shows of the daemon: what is listed, and nothing of it in its sleep."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cardsession.__main__ import ASLEEP, _Listed
from cardsession.adapters.systemd import Notifier
from cardsession.core.facts import Backend
from cardsession.core.reports import Listing, SlotReport


class Manager:
    """A service manager's socket, and what the daemon was handed."""

    def __init__(self, path: Path) -> None:
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.listener.bind(str(path))
        self.listener.settimeout(10)
        self.taken: list[Listing] = []
        self.looked = 0
        self.listed = _Listed(self.taken.append, Notifier(str(path)), self._look)

    def _look(self) -> None:
        self.looked += 1

    def heard(self) -> list[str]:
        """What came since the last time."""
        self.listener.setblocking(False)
        found = []
        try:
            while True:
                found.append(self.listener.recv(4096).decode())
        except BlockingIOError:
            return found


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(tmp_path / "notify")
    with closing(manager.listener):
        yield manager


def readers(count: int) -> Listing:
    """So many readers, empty."""
    return Listing(Backend.OK, tuple(SlotReport(f"Reader {each:02X} 00") for each in range(count)))


DOWN = Listing(Backend.PCSCD_DOWN)


def test_the_first_list_is_readiness(manager: Manager) -> None:
    manager.listed.take(readers(2))
    manager.listed.take(readers(3))
    manager.listed.take(DOWN)
    assert manager.heard() == [
        "READY=1\nSTATUS=2 readers",
        "STATUS=3 readers",
        "STATUS=card service: pcscd-down",
    ]


def test_asleep_it_claims_no_readers_whatever_is_listed(manager: Manager) -> None:
    manager.listed.take(readers(2))
    manager.heard()
    manager.listed.sleep()
    manager.listed.take(readers(1))
    manager.listed.take(DOWN)
    assert manager.heard() == [f"STATUS={ASLEEP}"]
    assert len(manager.taken) == 3, "the desks decide for themselves"


def test_awake_it_knows_nothing_until_it_has_listed(manager: Manager) -> None:
    manager.listed.take(readers(2))
    manager.listed.sleep()
    manager.heard()
    looked = manager.looked
    manager.listed.wake()
    assert manager.heard() == ["STATUS=card service: starting"]
    assert manager.looked == looked + 1, "udev is asked at once"
    manager.listed.take(readers(2))
    assert manager.heard() == ["STATUS=2 readers"]


def test_it_is_ready_though_it_sleeps(manager: Manager) -> None:
    """systemd would give up the start otherwise."""
    manager.listed.sleep()
    manager.listed.take(readers(2))
    assert manager.heard()[-1] == f"READY=1\nSTATUS={ASLEEP}"

"""libudev is found without a helper: a confined service may run no other program."""

from __future__ import annotations

import subprocess
from ctypes.util import find_library
from pathlib import Path
from typing import Any, NoReturn

import pytest
from pyudev._ctypeslib import utils
from structlog.testing import capture_logs

from cardsession.adapters import udev
from cardsession.adapters.udev import LIBRARY, UdevHotplug
from cardsession.core.seats import UsbReader


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No program can be started."""

    def refused(*_: Any, **__: Any) -> NoReturn:
        raise PermissionError("no other program may be run")

    monkeypatch.setattr(subprocess, "Popen", refused)


@pytest.mark.usefixtures("alone")
def test_it_is_loaded_without_another_program() -> None:
    assert udev._context().run_path == "/run/udev"
    with pytest.raises(ImportError):
        udev.Context()  # which is what pyudev does by itself


def test_pyudev_s_own_way_is_as_it_was() -> None:
    udev._context()
    assert utils.find_library is find_library


def test_it_is_the_library_that_pyudev_would_find() -> None:
    assert LIBRARY.format("udev") == find_library("udev")


async def test_without_the_library_there_is_no_udev(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(udev, "LIBRARY", "lib{}.so.none")
    (tmp_path / "control").touch()
    told: list[tuple[UsbReader, ...] | None] = []
    hotplug = UdevHotplug(str(tmp_path / "control"))
    with capture_logs() as logs:
        hotplug.start(told.append)
    hotplug.close()
    assert told == [None]
    assert [each["event"] for each in logs] == ["udev.unusable"]

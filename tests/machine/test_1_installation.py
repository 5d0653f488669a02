"""What a technician does first."""

from __future__ import annotations

from machine.installed import Installed
from machine.machine import Machine


def test_one_file_and_apt_are_the_whole_installation(
    installed: Installed, machine: Machine
) -> None:
    assert "Setting up cardsession " in installed.said
    assert machine.unit()["ActiveState"] == "active"
    assert machine.manager("Backend") == "ok"
    assert machine.manager("Hotplug") == "udev"


def test_the_installation_is_what_the_readme_says(installed: Installed, machine: Machine) -> None:
    assert any(each.startswith("apt") for each in installed.commands), installed.commands

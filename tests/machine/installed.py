"""The machine with the package in it: how it comes to be, and as a snapshot to begin with."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, Self

from machine.evidence import keep
from machine.machine import BOOT, Machine
from machine.payload import newer, payload
from machine.qemu import Qemu, accelerator
from machine.readme import commands

SNAPSHOT: Final = "installed"
README: Final = Path(__file__).parents[2] / "README.md"
UNPACK: Final = "mkdir -p /run/payload && tar -C /run/payload -xf /dev/vdb"
TREE: Final = "find / -xdev -path /proc -prune -o -path /sys -prune -o -printf '%p\\n'"


@dataclass(frozen=True, slots=True)
class Installed:
    """The machine after the installation: how it came to be, and where its disk is."""

    image: Path
    accelerator: Sequence[str]
    disks: Sequence[str]
    commands: Sequence[str]
    """The README's."""
    before: frozenset[str] = frozenset()
    """Every path that was there before them."""
    said: str = ""
    """What they printed."""

    def text(self) -> str:
        """For a file."""
        return json.dumps(asdict(self) | {"before": sorted(self.before)}, default=str)

    @classmethod
    def read(cls, file: Path) -> Self:
        """From one."""
        facts = json.loads(file.read_text())
        return cls(**facts | {"image": Path(facts["image"]), "before": frozenset(facts["before"])})

    def machine(self, directory: Path, snapshot: str | None = SNAPSHOT) -> Machine:
        """It, standing still."""
        directory.mkdir(exist_ok=True)
        return Machine(Qemu(directory, self.image, self.accelerator, self.disks, snapshot))


def install(directory: Path, image: Path, package: Path) -> Installed:
    """Boot the bare machine, install the package as the README says, keep that as a snapshot."""
    overlay, tar = directory / "disk.qcow2", directory / "payload.tar"
    backing = ["-b", str(image / "disk.img"), "-F", "raw"]
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, str(overlay)], check=True)
    payload(tar, [package, newer(package, directory)])
    disks = [f"file={overlay},format=qcow2,cache=unsafe", f"file={tar},format=raw,readonly=on"]
    bare = Installed(image, accelerator(directory, image), disks, commands(README))
    with bare.machine(directory / "installation", None) as machine:
        try:
            return _installed(bare, machine)
        except BaseException:
            keep(machine, "installation")
            raise


def _installed(bare: Installed, machine: Machine) -> Installed:
    machine.boot()
    before = frozenset(machine.run(TREE).splitlines())
    machine.run(f"{UNPACK} && cp /run/payload/first/*.deb /root/")
    said = [
        machine.run(f"cd /root && {each}", given="y\n", seconds=2 * BOOT) for each in bare.commands
    ]
    machine.active()
    machine.save(SNAPSHOT)
    return replace(bare, before=before, said="\n".join(said))

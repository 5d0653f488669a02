"""What the machine finds on its second disk: packages, and a program that uses the service."""

from __future__ import annotations

import re
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

NEWER = "99.1"
"""The version of the package that is upgraded to."""
_PROGRAM = Path(__file__).with_name("program.py")


def payload(tar: Path, packages: Sequence[Path]) -> None:
    """A plain tar: first/ and second/ have a package each."""
    with tarfile.open(tar, "w") as archive:
        archive.add(_PROGRAM, _PROGRAM.name)
        for directory, package in zip(("first", "second"), packages, strict=True):
            archive.add(package, f"{directory}/{package.name}")


def newer(package: Path, directory: Path) -> Path:
    """The same package with a higher version, which its daemon says, too."""
    tree = directory / "newer"
    _run("dpkg-deb", "--raw-extract", str(package), str(tree))
    control = tree / "DEBIAN" / "control"
    control.write_text(_replaced(r"(?m)^Version: .*$", f"Version: {NEWER}-1", control.read_text()))
    (module,) = tree.glob("usr/lib/cardsession/lib/python3*/site-packages/cardsession/__init__.py")
    module.write_text(
        _replaced(r"(?m)^__version__ = .*$", f'__version__ = "{NEWER}"', module.read_text())
    )
    built = directory / f"cardsession_{NEWER}-1_amd64.deb"
    _run("dpkg-deb", "--root-owner-group", "-Znone", "--build", str(tree), str(built))
    return built


def _replaced(pattern: str, by: str, text: str) -> str:
    changed, count = re.subn(pattern, by, text)
    assert count == 1, pattern
    return changed


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

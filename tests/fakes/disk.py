"""A small disk for a process of a test."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_MOUNTED = 'mount -t tmpfs -o size=32k tmpfs "$0" && exec "$@"'


def on_a_small_disk(directory: Path, program: Path, part: str) -> list[str]:
    """The command that runs a part of a program where `directory` is a tmpfs of 32 KiB.

    Root mounts in a namespace of the process; who is not root has to become it in a user
    namespace first, which a chroot refuses to root and nobody else needs.
    """
    becomes_root = [] if os.getuid() == 0 else ["--map-root-user"]
    shell = ["sh", "-c", _MOUNTED, str(directory)]
    run = [sys.executable, "-P", str(program), part, str(directory)]
    return ["unshare", *becomes_root, "--mount", *shell, *run]

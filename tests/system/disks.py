"""File systems of our own in the namespace of the tests: small ones, and one whose power goes."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from cardsession.stack.processes import program


@contextlib.contextmanager
def mounted(directory: Path, *arguments: str) -> Iterator[Path]:
    """mount(8) with these arguments at a directory, which is made."""
    assert os.getuid() == 0, "mounting needs root: sudo sh tests/run.sh"
    directory.mkdir(exist_ok=True)
    subprocess.run([program("mount"), *arguments, str(directory)], check=True)
    try:
        yield directory
    finally:
        # lazily: a daemon may still have its files there
        subprocess.run([program("umount"), "--lazy", str(directory)], check=True)


def remount(directory: Path, how: str) -> None:
    """`ro` or `rw`."""
    subprocess.run([program("mount"), "-o", f"remount,{how}", str(directory)], check=True)


def small(directory: Path) -> contextlib.AbstractContextManager[Path]:
    """A disk of 64 KiB."""
    return mounted(directory, "-t", "tmpfs", "-o", "size=64k", "tmpfs")


def fill(directory: Path) -> Path:
    """Leave no byte of room; the file that took it."""
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 512)
    return filler


@contextlib.contextmanager
def forgetful(directory: Path, image: Path) -> Iterator[Path]:
    """A disk that has only what is synced: its file system writes nothing by itself for an hour.
    `image` is that disk."""
    image.write_bytes(bytes(8 << 20))
    subprocess.run([program("mkfs.ext4"), "-q", str(image)], check=True)
    with mounted(directory, "-o", "loop,commit=3600", str(image)):
        os.sync()
        yield directory


@contextlib.contextmanager
def after_a_power_cut(image: Path, directory: Path) -> Iterator[Path]:
    """What the disk has now, as the next start finds it."""
    copy = image.with_suffix(".copy")
    shutil.copyfile(image, copy)
    with mounted(directory, "-o", "loop", str(copy)):
        yield directory


@contextlib.contextmanager
def frozen(directory: Path) -> Iterator[None]:
    """Whoever writes there waits until this is over."""
    subprocess.run([program("fsfreeze"), "--freeze", str(directory)], check=True)
    try:
        yield
    finally:
        subprocess.run([program("fsfreeze"), "--unfreeze", str(directory)], check=True)

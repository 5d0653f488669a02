"""The README's installation, as commands."""

from __future__ import annotations

import re
from pathlib import Path

_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def commands(readme: Path, number: int = 0) -> list[str]:
    """The lines of a fenced block under "## Install", without comments.

    Number 0 is the installation, 1 the card service's narrowed socket.
    """
    section = readme.read_text().partition("\n## Install\n")[2].partition("\n## ")[0]
    blocks: list[str] = _BLOCK.findall(section)
    lines = blocks[number].splitlines() if number < len(blocks) else []
    plain = (re.sub(r"(^|\s+)#.*", "", line).strip() for line in lines)
    return [line for line in plain if line]

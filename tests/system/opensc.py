"""OpenSC's tools on the first reader, told to read a card that it has no driver for."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

from cardsession.stack import Card
from cardsession.stack.processes import child_environment, program

CONFIGURATION = """
app default {{
    enable_default_driver = true;
    card_drivers = {driver};
    {choice}
    framework pkcs15 {{ use_file_caching = no; }}
}}
"""
CHOICE = {"default": "", "masktech": 'card_atr {atr} {{ driver = "MaskTech"; }}'}


class Judge:
    """OpenSC's tools on the first reader, with one of its drivers; openssl beside them."""

    def __init__(self, directory: Path, card: Card) -> None:
        self.directory = directory
        self.atr = bytes.fromhex(card.status()["atr"]).hex(":")

    async def __call__(self, *command: str, driver: str = "default", fails: bool = False) -> str:
        """One tool; what it printed (where it `fails`: what it complained of)."""
        configuration = self.directory / "opensc.conf"
        configuration.write_text(
            CONFIGURATION.format(driver=driver, choice=CHOICE[driver].format(atr=self.atr))
        )
        environment = child_environment({"OPENSC_CONF": str(configuration)})
        done = await self._run([program(command[0]), "--reader", "0", *command[1:]], environment)
        assert (done.returncode != 0) is fails, done.stdout + done.stderr
        return done.stderr if fails else done.stdout

    async def openssl(self, *command: str) -> str:
        """What openssl says; it must not fail."""
        done = await self._run([program("openssl"), *command], child_environment())
        assert done.returncode == 0, done.stderr
        return done.stdout

    async def _run(
        self, command: list[str], environment: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(
            subprocess.run,
            command,
            env=environment,
            cwd=self.directory,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

"""OpenSC as an outside judge: it reads the same card and says the same of it."""

from __future__ import annotations

import asyncio
import re
import ssl
import subprocess

from cardsession.stack import Card
from cardsession.stack.processes import child_environment, program
from system.subscriber import Subscriber


async def opensc(*command: str) -> str:
    """One of OpenSC's tools, on the first reader; what it printed."""
    done = await asyncio.to_thread(
        subprocess.run,
        [program(command[0]), "--reader", "0", *command[1:]],
        env=child_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


async def test_opensc_agrees_on_atr_serial_certificate_and_tries(
    seen: Subscriber, card: Card
) -> None:
    card.tell("set-tries", left=2)
    card.insert()
    path, facts = await seen.card_in_state("ready")
    await seen.call(await seen.open_session(path), "Session", "Close")  # the reading is over

    atr = await opensc("opensc-tool", "--atr")
    assert bytes.fromhex(atr.strip().replace(":", "")) == bytes(facts["Atr"])
    assert "Personal Identity Verification" in await opensc("opensc-tool", "--name")
    serial = await opensc("piv-tool", "--serial")
    assert serial.upper().startswith(bytes.fromhex(facts["Serial"]).hex(" ").upper())
    pem = await opensc("pkcs15-tool", "--read-certificate", "01")
    (der,) = await seen.call(path, "Card", "GetCertificate", "s", ("authentication",))
    assert ssl.PEM_cert_to_DER_cert(pem) == bytes(der)
    question = ("--send-apdu", "00A4040009A0000003080000100000", "--send-apdu", "00200080")
    answers = await opensc("opensc-tool", *question)
    count = re.findall(r"SW1=0x63, SW2=0xC(\d)", answers)
    assert [int(each) for each in count] == [facts["PinTries"]["user"]] == [2]
    assert card.status()["wrong"] == 0

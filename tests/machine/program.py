"""Dispensing software in the machine: one connection to the bus, told what to do line by line.

A JSON object in, {"do": …, "seconds": …}, a JSON object out, {"done": …} or {"error": …}. Runs
under the package's own interpreter, with the client library that it has installed.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from typing import Any

from cardsession.bus.connection import Connection, Signal
from cardsession.client import CardSessionClient, CardSessionError, Ended, Event, Session

NAME = "org.cardsession1"


class Ears:
    """Listens on a connection of its own, and asks for nothing."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    async def open(self) -> None:
        """From now on."""
        connection = await Connection.open()
        await connection.subscribe(self._take, sender=NAME)

    async def signals(self) -> list[str]:
        """Names of the signals that came."""
        return self.heard

    def _take(self, signal: Signal) -> None:
        self.heard.append(f"{signal.interface}.{signal.member}")


class Counter:
    """The client, its newest session and what it heard."""

    def __init__(self, ears: Ears, client: CardSessionClient) -> None:
        self.signals = ears.signals
        self.client = client
        self.session: Session | None = None
        self.heard: list[Event] = []

    async def listen(self) -> None:
        """Remember every event."""
        async for event in self.client.events():
            self.heard.append(event)

    async def state(self) -> Any:
        """Everything as this client has heard it."""
        client = self.client
        lists = {
            "readers": client.readers(),
            "cards": client.cards(),
            "sessions": client.sessions(),
        }
        manager = client.manager
        return {"manager": manager and dataclasses.asdict(manager)} | {
            name: [dataclasses.asdict(each) for each in found] for name, found in lists.items()
        }

    async def open(self, card: str | None = None) -> str:
        """Open a session: on that card, or on the only one."""
        path = card or self.client.cards()[0].path
        self.session = await self.client.open_session(path, "machine test")
        return self.session.path

    async def verify(self, passcode: str) -> Any:
        """VerifyPin."""
        secret = bytearray(passcode.encode())
        return dataclasses.astuple(await self._session.verify_pin(secret))

    async def info(self) -> Any:
        """The session as it is."""
        info = self._session.info
        return info and dataclasses.asdict(info)

    async def ended(self) -> str:
        """Why the session ended, once it has."""
        return await self._session.ended

    async def reasons(self) -> Any:
        """Every Ended signal: session and reason."""
        return [(each.session, each.reason) for each in self.heard if isinstance(each, Ended)]

    async def present(self) -> bool:
        """Wait until the service is there, and listed."""
        events = self.client.events()
        while not self.client.present:
            await anext(events)
        return True

    async def end_session(self, session: str) -> None:
        """As a technician."""
        await self.client.diagnostics.end_session(session, "machine test")

    async def report(self) -> Any:
        """As a technician."""
        return repr(await self.client.diagnostics.report())

    @property
    def _session(self) -> Session:
        assert self.session is not None
        return self.session


async def do(counter: Ears | Counter, request: dict[str, Any]) -> dict[str, Any]:
    """One request; whatever goes wrong is an answer."""
    name, seconds = request.pop("do"), request.pop("seconds")
    try:
        return {"done": await asyncio.wait_for(getattr(counter, name)(**request), seconds)}
    except CardSessionError as error:
        return {"error": f"{type(error).__name__}: {error}"}
    except Exception as error:
        return {"error": type(error).__name__}


def encoded(value: object) -> str:
    """What JSON has no word for."""
    return value.hex() if isinstance(value, bytes) else str(value)


async def main() -> None:
    """Until its line is closed."""
    loop, ears = asyncio.get_running_loop(), Ears()
    await ears.open()
    used: Ears | Counter = ears
    refusal = ""
    try:
        used = Counter(ears, await CardSessionClient.open())
        listening = asyncio.ensure_future(used.listen())
    except CardSessionError as error:  # told to whoever asks for more than signals
        refusal = f"{type(error).__name__}: {error}"
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        request = json.loads(line)
        answer = {"error": refusal}
        if not refusal or hasattr(ears, request["do"]):
            answer = await do(used, request)
        sys.stdout.write(json.dumps(answer, default=encoded) + "\n")
        sys.stdout.flush()
    if not refusal:
        listening.cancel()


asyncio.run(main())

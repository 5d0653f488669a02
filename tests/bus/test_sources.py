"""The secrets of one call: read together, handed out once, none left behind."""

from __future__ import annotations

import asyncio
import os

import pytest

from cardsession.bus.secrets import Sources
from cardsession.core.errors import Failure, Problem
from cardsession.core.secret import BadFormat, Secret

from .util import CANARY, Until, open_fds, unread

OLD, NEW = CANARY, "11112222"


def pipe(text: str | None = None) -> tuple[int, int]:
    """The ends of a pipe; with a text, all of it and the end-of-file are there already."""
    source, sink = os.pipe()
    if text is not None:
        os.write(sink, text.encode())
        os.close(sink)
    return source, sink


def text(secret: Secret) -> str:
    return secret.formed(64, None).decode()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_each_is_read_once_in_its_order() -> None:
    before = open_fds()
    with Sources() as sources:
        sources.add(pipe(OLD)[0])
        sources.add(pipe(NEW)[0])
        old, new = sources.reads
        assert (text(await new()), text(await old())) == (NEW, OLD)
        with pytest.raises(Failure) as again:
            await old()
        assert again.value.problem is Problem.SECRET_INVALID
    assert open_fds() == before


async def test_one_pipe_under_two_descriptors_is_no_pair_of_secrets() -> None:
    """Its two readers would have parts of it each: a wrong passcode that nobody typed."""
    before = open_fds()
    source, sink = pipe()
    with pytest.raises(Failure) as refused, Sources() as sources:
        sources.add(source)
        sources.add(os.dup(source))
    assert refused.value.problem is Problem.SECRET_INVALID
    os.close(sink)
    assert open_fds() == before


async def test_who_waits_for_one_has_the_other_read_as_well(until: Until) -> None:
    """So the deadline is one for both, whoever asks for them one after the other."""
    before = open_fds()
    late, sink = pipe()
    early, early_sink = pipe()
    ours = os.dup(early)
    os.write(early_sink, NEW.encode())
    with Sources() as sources:
        sources.add(late)
        sources.add(early)
        old, new = sources.reads
        waiting = asyncio.create_task(old())
        await until(lambda: unread(ours) == 0)
        assert not waiting.done()
        os.write(sink, OLD.encode())
        for end in (sink, early_sink, ours):
            os.close(end)
        assert (text(await waiting), text(await new())) == (OLD, NEW)
    assert open_fds() == before


async def test_none_is_read_before_somebody_asks() -> None:
    before = open_fds()
    source, sink = pipe()
    os.write(sink, OLD.encode())
    os.close(sink)
    ours = os.dup(source)
    with Sources() as sources:
        sources.add(source)
        await settle()
        assert unread(ours) == len(OLD)
    os.close(ours)
    assert open_fds() == before


async def test_what_was_handed_out_is_the_taker_s() -> None:
    """A worker may be sending it while the call ends: half a passcode would cost a try."""
    with Sources() as sources:
        sources.add(pipe(OLD)[0])
        secret = await sources.reads[0]()
    await settle()
    assert text(secret) == OLD


async def test_what_nobody_took_is_wiped() -> None:
    before = open_fds()
    with Sources() as sources:
        sources.add(pipe("")[0])
        sources.add(pipe(NEW)[0])
        with pytest.raises(BadFormat):
            await sources.reads[0]()
        await asyncio.wait(sources._reading)
        unwanted = sources._reading[1].result()
        assert not unwanted.wiped
    await settle()
    assert unwanted.wiped
    assert open_fds() == before


async def test_the_end_of_the_call_is_a_failure_and_no_cancellation() -> None:
    """Whoever reads is a part of the desk, which must hear of it as of any other failure."""
    before = open_fds()
    source, sink = pipe()
    with Sources() as sources:
        sources.add(source)
        waiting = asyncio.create_task(sources.reads[0]())
        await settle()
    with pytest.raises(Failure) as over:
        await waiting
    assert over.value.problem is Problem.SECRET_INVALID
    with pytest.raises(Failure):
        await sources.reads[0]()
    os.close(sink)
    assert open_fds() == before


async def test_a_secret_that_came_with_the_end_of_the_call_is_not_handed_out() -> None:
    with Sources() as sources:
        sources.add(pipe(OLD)[0])
        waiting = asyncio.create_task(sources.reads[0]())
        async with asyncio.timeout(10):
            while not (sources._reading and sources._reading[0].done()):  # noqa: ASYNC110
                await asyncio.sleep(0)
        (reading,) = sources._reading
        assert not waiting.done(), "it is there, and whoever waits for it was not woken yet"
    with pytest.raises(Failure):
        await waiting
    await settle()
    assert reading.result().wiped


async def test_who_waits_may_be_cancelled() -> None:
    before = open_fds()
    source, sink = pipe()
    with Sources() as sources:
        sources.add(source)
        waiting = asyncio.create_task(sources.reads[0]())
        await settle()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    await settle()
    os.close(sink)
    assert open_fds() == before

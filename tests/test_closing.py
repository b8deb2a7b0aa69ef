"""Stopping while something waits."""

import asyncio

import pytest

from k12ai.closing import Closing
from k12ai.errors import ServerStopping


async def test_work_that_ends_first_wins() -> None:
    async def work() -> int:
        return 42

    assert await Closing().unless(work()) == 42


async def test_when_the_server_stops_first_the_work_goes_on() -> None:
    closing, release, done = Closing(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await release.wait()
        done.set()

    waiting = asyncio.create_task(closing.unless(work()))
    await asyncio.sleep(0)
    closing.start()
    with pytest.raises(ServerStopping):
        await waiting
    release.set()
    await asyncio.wait_for(done.wait(), 5)


async def test_an_error_of_the_work_is_the_callers() -> None:
    async def work() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await Closing().unless(work())

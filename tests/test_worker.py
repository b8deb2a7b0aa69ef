"""Blocking reads in a thread with a deadline."""

import asyncio
import threading

import pytest

from k12ai.worker import Worker


async def test_a_job_returns_its_value_or_raises_its_error() -> None:
    async with Worker("test") as worker:
        assert await worker.run(lambda: 42, deadline_s=5) == 42
        with pytest.raises(ZeroDivisionError):
            await worker.run(lambda: 1 // 0, deadline_s=5)


async def test_jobs_take_turns() -> None:
    running = 0

    def job() -> int:
        nonlocal running
        running += 1
        seen = running
        running -= 1
        return seen

    async with Worker("test") as worker:
        assert await asyncio.gather(*(worker.run(job, deadline_s=5) for _ in range(20))) == [1] * 20


async def test_a_job_that_hangs_fails_and_so_do_the_next_ones_at_once_until_it_returns() -> None:
    release = threading.Event()
    async with Worker("test") as worker:
        with pytest.raises(TimeoutError):
            await worker.run(lambda: release.wait(10), deadline_s=0.05)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(worker.run(lambda: 42, deadline_s=60), 5)
        release.set()
        async with asyncio.timeout(5):
            while True:
                try:
                    assert await worker.run(lambda: 42, deadline_s=5) == 42
                    break
                except TimeoutError:
                    await asyncio.sleep(0.01)


async def test_leaving_does_not_wait_for_a_job_that_hangs() -> None:
    release = threading.Event()
    async with asyncio.timeout(5):
        async with Worker("test") as worker:
            with pytest.raises(TimeoutError):
                await worker.run(lambda: release.wait(30), deadline_s=0.05)
    release.set()

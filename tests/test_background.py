"""Background work: owned, kept running, without drift."""

import asyncio

import pytest

from k12ai import background as module
from k12ai.background import Background, every


async def test_leaving_the_block_cancels_what_runs_and_what_that_starts() -> None:
    cancelled = []

    async def work(name: str) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(name)
            if name == "first":
                background.start("second", work("second"))
            raise

    async with Background() as background:
        background.start("first", work("first"))
        await asyncio.sleep(0)
    assert cancelled[0] == "first"
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_work_that_fails_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESTART_S", 0.0)
    calls = 0
    third = asyncio.Event()

    async def work() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            third.set()
            await asyncio.sleep(60)
        raise ValueError("a fault of ours")

    async with Background() as background:
        background.keep_running("work", work)
        await asyncio.wait_for(third.wait(), 5)


class FakeLoopClock:
    """A clock that moves only when somebody sleeps, or when a tick says it took time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.25
        self.slept: list[float] = []
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(module.asyncio, "get_running_loop", lambda: self)
        monkeypatch.setattr(module.asyncio, "sleep", self.sleep)
        assert loop is not None

    def time(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 6))
        self.now += seconds


@pytest.mark.parametrize(
    ("tick_takes_s", "beats"),
    [
        pytest.param([0.0, 0.0, 0.0], [101.0, 102.0, 103.0], id="on the beat"),
        pytest.param([0.3, 0.7, 0.0], [101.0, 102.0, 103.0], id="time spent in a tick is not added"),
        pytest.param([2.5, 0.0, 0.0], [101.0, 104.0, 105.0], id="a late tick skips beats and stays on them"),
    ],
)
async def test_every_does_not_drift(
    monkeypatch: pytest.MonkeyPatch, tick_takes_s: list[float], beats: list[float]
) -> None:
    clock = FakeLoopClock(monkeypatch)
    seen: list[float] = []

    async def tick() -> None:
        seen.append(round(clock.now, 6))
        clock.now += tick_takes_s[len(seen) - 1]
        if len(seen) == len(tick_takes_s):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await every(1.0, tick)
    assert seen == beats

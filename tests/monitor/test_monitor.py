"""The loop, and windows of one's own."""

import asyncio
import threading
import time

import pytest

from k12ai.models import Disk, Part
from k12ai.monitor import monitor as module
from k12ai.monitor.monitor import Monitor
from tests.support.fakes import FakeGpus, FakeRuntime, unit


def monitor(*runtimes: FakeRuntime, interval_s: float = 0.05) -> Monitor:
    return Monitor(runtimes, interval_s=interval_s, gpu_probe=FakeGpus)


async def test_the_first_snapshot_is_complete() -> None:
    async with monitor(FakeRuntime(unit(1), unit(2)), interval_s=10) as running:
        message = running.latest.message(Part.ALL, "en")
    assert isinstance(message.containers, list)
    assert isinstance(message.gpus, list)
    assert [each.cpu_percent for each in message.containers] == [25.0, 25.0]
    assert len(message.gpus) == 2


async def test_it_measures_by_itself_and_a_reader_only_reads() -> None:
    runtime = FakeRuntime(unit())
    async with monitor(runtime) as running:
        first = running.latest
        reads = runtime.reads
        for _ in range(1000):
            _ = running.latest
        assert runtime.reads == reads
        async with asyncio.timeout(5):
            while running.latest is first:
                await asyncio.sleep(0.01)


async def test_containers_of_every_runtime_are_shown() -> None:
    async with monitor(
        FakeRuntime(unit(1), name="a"), FakeRuntime(unit(2), name="b"), interval_s=10
    ) as running:
        assert len(running.latest.containers) == 2


async def test_callers_who_wait_for_the_same_window_share_it() -> None:
    runtime = FakeRuntime(unit())
    async with monitor(runtime, interval_s=10) as running:
        reads = runtime.reads
        snapshots = await asyncio.gather(*(running.measure() for _ in range(20)))
    assert len({id(each) for each in snapshots}) == 1
    assert runtime.reads - reads == 2


async def test_a_window_starts_after_the_call_and_lasts_half_a_second() -> None:
    async with monitor(FakeRuntime(unit()), interval_s=10) as running:
        called = time.monotonic()
        first = asyncio.create_task(running.measure())
        await asyncio.sleep(0.1)  # the first window is under way: a later caller must not share it
        second = await running.measure()
        assert second is not await first
        assert (await first).reading.at_s - called >= 0.5
        assert second.reading.at_s - (await first).reading.at_s >= 0.5


async def test_a_source_that_hangs_costs_a_note_and_not_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SOURCE_DEADLINE_S", 0.05)
    release = threading.Event()
    hang = threading.Event()

    class Disks:
        def read(self) -> list[Disk]:
            if hang.is_set():
                release.wait(10)
            return [Disk("/", 100, 50, 50.0)]

    monkeypatch.setattr(module, "Disks", Disks)
    async with monitor(FakeRuntime(unit())) as running:
        hang.set()
        async with asyncio.timeout(5):
            while not running.latest.reading.notes:
                await asyncio.sleep(0.01)
        latest = running.latest
        release.set()
        message = latest.message(Part.ALL, "en")
        assert isinstance(message.disks, list)
        assert [disk.path for disk in message.disks] == ["/"]
        assert message.notes == ["disks: no answer in time; these are the last known figures"]
        assert latest.containers
        async with asyncio.timeout(5):
            while running.latest.reading.notes:
                await asyncio.sleep(0.01)


async def test_it_lets_go_of_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = FakeGpus()
    threads = threading.active_count()
    async with Monitor([FakeRuntime()], gpu_probe=lambda: probe):
        pass
    assert probe.closed
    assert threading.active_count() == threads
    assert asyncio.all_tasks() == {asyncio.current_task()}

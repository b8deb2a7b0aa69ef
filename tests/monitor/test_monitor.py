"""The loop, and windows of one's own."""

import asyncio
import os
import threading
import time

import pytest

from k12ai.models import Disk, Part, SourceHealth, UserUsage
from k12ai.monitor import monitor as module
from k12ai.monitor.gpu import GpuReading, NoGpu, ProcessSample
from k12ai.monitor.monitor import Monitor
from tests.support.fakes import AWAY, FakeGpus, FakeRuntime, gpu_sample, unit

NEVER_S = 1e9  # beats are counted from when the machine started: ten seconds may end at any moment


def monitor(*runtimes: FakeRuntime, interval_s: float = 0.05) -> Monitor:
    return Monitor(runtimes, interval_s=interval_s, gpu_probe=FakeGpus)


async def test_the_first_snapshot_is_complete() -> None:
    async with monitor(FakeRuntime(unit(1), unit(2)), interval_s=NEVER_S) as running:
        message = running.latest.message(Part.PUBLISHED, "en")
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
        FakeRuntime(unit(1), name="a"), FakeRuntime(unit(2), name="b"), interval_s=NEVER_S
    ) as running:
        assert len(running.latest.containers) == 2


async def test_callers_who_wait_for_the_same_window_share_it() -> None:
    runtime = FakeRuntime(unit())
    async with monitor(runtime, interval_s=NEVER_S) as running:
        reads = runtime.reads
        snapshots = await asyncio.gather(*(running.measure() for _ in range(20)))
    assert len({id(each) for each in snapshots}) == 1
    assert runtime.reads - reads == 2


async def test_a_window_starts_after_the_call_and_lasts_half_a_second() -> None:
    async with monitor(FakeRuntime(unit()), interval_s=NEVER_S) as running:
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
        message = latest.message(Part.PUBLISHED, "en")
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


async def test_a_driver_that_is_loaded_later_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that starts with the machine may be there before the driver."""
    monkeypatch.setattr(module, "REOPEN_S", 0.05)
    probes = iter([NoGpu(AWAY), NoGpu(AWAY), FakeGpus()])
    async with Monitor([FakeRuntime()], interval_s=0.05, gpu_probe=lambda: next(probes)) as running:
        assert running.latest.gpus == []
        assert running.latest.reading.gpus.notes == (AWAY,)
        async with asyncio.timeout(5):
            while not running.latest.gpus:
                await asyncio.sleep(0.01)


async def test_what_holds_a_gpus_memory_is_shown_with_its_container_and_its_user() -> None:
    """pid → unit → user; the process is this one, which the fake runtime takes for its unit's."""
    owned = unit(pid=os.getpid(), user="alice")

    class Busy(FakeGpus):
        def read(self) -> GpuReading:
            on_it = (ProcessSample(os.getpid(), 1 << 30),)
            return GpuReading((gpu_sample(memory_usage=3 << 30, processes=on_it, shares={os.getpid(): 40.0}),))

    async with Monitor([FakeRuntime(owned)], interval_s=NEVER_S, gpu_probe=Busy) as running:
        message = running.latest.message(Part.CONTAINERS | Part.USERS | Part.NODES, "en")
    assert isinstance(message.containers, list)
    assert isinstance(message.users, list)
    assert isinstance(message.nodes, list)
    assert [(each.gpu_memory_usage, each.gpu_percent) for each in message.containers] == [(1 << 30, 40.0)]
    assert message.users == [UserUsage("alice", 1, 25.0, 64 << 20, 1 << 30, 40.0)]
    (node,) = message.nodes
    assert (node.gpu_count, node.gpu_memory_usage, node.containers) == (1, 3 << 30, 1)
    assert node.runtimes == {"fake": SourceHealth(available=True, reason=None)}

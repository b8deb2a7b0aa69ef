"""The monitor: one drift-free loop that measures, and a snapshot that everyone reads."""

import asyncio
import contextlib
import datetime
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self, TypeVar

import structlog

from k12ai.background import Background, every
from k12ai.models import Disk, Part
from k12ai.monitor.gpu import GpuProbe, GpuReading, NoGpu
from k12ai.monitor.host import Disks, read_host
from k12ai.monitor.note import Note
from k12ai.monitor.nvml import open_gpu_probe
from k12ai.monitor.processes import Process, look_up
from k12ai.monitor.snapshot import Reading, Snapshot, derive
from k12ai.runtimes.base import Runtime
from k12ai.runtimes.cgroups import Usage
from k12ai.texts import Text
from k12ai.worker import Worker

T = TypeVar("T")

_Gpus = tuple[GpuReading, Mapping[int, Process]]

WINDOW_S = 0.5
FIRST_WINDOW_S = 0.1
SOURCE_DEADLINE_S = 0.4
OPENING_DEADLINE_S = 10.0
CLOSING_DEADLINE_S = 1.0
REOPEN_S = 60.0

log = structlog.stdlib.get_logger(__name__)


class Monitor:
    """Measures the host, its GPUs and the containers of every runtime.

    `latest` is a memory read. `measure` gives a window of its own to callers who want one.
    """

    def __init__(
        self,
        runtimes: Sequence[Runtime],
        *,
        interval_s: float = 1.0,
        gpu_probe: Callable[[], GpuProbe] = open_gpu_probe,
    ) -> None:
        self._runtimes = runtimes
        self.interval_s = interval_s
        self._open_gpu_probe = gpu_probe
        self._disks = Disks()
        self._exits = contextlib.AsyncExitStack()
        self._next_window: asyncio.Task[Snapshot] | None = None
        self._window_free = asyncio.Lock()

    async def __aenter__(self) -> Self:
        self._workers = {
            name: await self._exits.enter_async_context(Worker(f"k12ai-{name}"))
            for name in (_name(Part.DISKS), _name(Part.GPUS))
        }
        self._gpu_probe = await self._open_gpus()
        self._exits.push_async_callback(self._close_gpus)
        self._background = await self._exits.enter_async_context(Background())
        self._last_disks: list[Disk] = []
        self._last_gpus: _Gpus = GpuReading(()), {}
        self._reading = await self._read()
        await asyncio.sleep(FIRST_WINDOW_S)
        self._latest: Snapshot | None = None
        await self._tick()
        self._background.keep_running("monitor", lambda: every(self.interval_s, self._tick))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._exits.aclose()

    @property
    def latest(self) -> Snapshot:
        """The latest snapshot; never blocks."""
        assert self._latest is not None
        return self._latest

    @property
    def age_s(self) -> float:
        """How old the latest snapshot is, in seconds."""
        return time.monotonic() - self.latest.reading.at_s

    async def measure(self) -> Snapshot:
        """Return a snapshot of a window of at least `WINDOW_S` that starts after this call.

        Callers who wait for the same start share it; one window is measured at a time.
        """
        if self._next_window is None:
            self._next_window = self._background.start("monitor-window", self._window())
        return await asyncio.shield(self._next_window)

    async def _window(self) -> Snapshot:
        async with self._window_free:
            self._next_window = None  # whoever comes from here on needs a later start
            before = await self._read(fresh=True)
            await asyncio.sleep(WINDOW_S)
            return derive(before, await self._read(fresh=True), self._latest)

    async def _tick(self) -> None:
        too_short = time.monotonic() - self._reading.at_s < min(FIRST_WINDOW_S, self.interval_s / 4)
        if too_short and self._latest is not None:
            return  # the first beat may come right after the start: too short a window to say anything
        reading = await self._read()
        self._latest = derive(self._reading, reading, self._latest)
        self._reading = reading

    async def _read(self, *, fresh: bool = False) -> Reading:
        notes: list[Note] = []
        host = read_host()  # two small files of the kernel's: less than handing it to a thread
        disks, gpus, usage = await asyncio.gather(
            self._from(Part.DISKS, self._disks.read, self._last_disks, notes),
            self._read_gpus(notes),
            self._usage(notes, fresh=fresh),
        )
        self._last_disks, self._last_gpus = disks, gpus
        return Reading(
            at=datetime.datetime.now(datetime.UTC),
            at_s=time.monotonic(),
            host=host,
            disks=disks,
            gpus=gpus[0],
            processes=gpus[1],
            units={key: unit for runtime in self._runtimes for key, unit in runtime.units.items()},
            usage=usage,
            conditions={runtime.name: runtime.condition for runtime in self._runtimes},
            notes=tuple(notes),
        )

    async def _read_gpus(self, notes: list[Note]) -> _Gpus:
        if isinstance(self._gpu_probe, NoGpu):
            if time.monotonic() < self._open_gpus_at:
                return self._gpu_probe.read(), {}
            self._gpu_probe = await self._open_gpus()  # a driver may be loaded later than this server
        return await self._from(Part.GPUS, self._gpus_and_processes, self._last_gpus, notes)

    def _gpus_and_processes(self) -> _Gpus:
        reading = self._gpu_probe.read()
        return reading, look_up(reading.pids, self._runtimes)

    async def _open_gpus(self) -> GpuProbe:
        self._open_gpus_at = time.monotonic() + REOPEN_S
        try:
            return await self._workers[_name(Part.GPUS)].run(
                self._open_gpu_probe, deadline_s=OPENING_DEADLINE_S
            )
        except TimeoutError:
            return NoGpu(Text("gpus: the NVIDIA driver does not answer", "gpus：NVIDIA 驱动没有应答"))

    async def _close_gpus(self) -> None:
        with contextlib.suppress(TimeoutError):
            await self._workers[_name(Part.GPUS)].run(self._gpu_probe.close, deadline_s=CLOSING_DEADLINE_S)

    async def _from(self, part: Part, read: Callable[[], T], last: T, notes: list[Note]) -> T:
        """Read a source that may hang; then its last figures come with a note."""
        try:
            return await self._workers[_name(part)].run(read, deadline_s=SOURCE_DEADLINE_S)
        except TimeoutError:
            notes.append(Note(part, _no_answer(_name(part))))
            return last

    async def _usage(self, notes: list[Note], *, fresh: bool) -> dict[str, Usage]:
        usage: dict[str, Usage] = {}
        for runtime in self._runtimes:
            try:
                usage.update(await runtime.usage(fresh=fresh))
            except TimeoutError:
                notes.append(Note(Part.CONTAINERS, _no_answer(f"containers ({runtime.name})")))
        return usage


def _name(part: Part) -> str:
    return (part.name or "").lower()


def _no_answer(name: str) -> Text:
    return Text(
        f"{name}: no answer in time; these are the last known figures",
        f"{name}：未及时应答，这是最后一次得知的数值",
    )

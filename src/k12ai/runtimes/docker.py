"""The Docker runtime: membership by list and events, usage by cgroup files, stop by the Engine."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import Any, Self

import structlog

from k12ai.background import Background
from k12ai.errors import ContainerNotFound, EngineUnavailable, K12AIError, Unavailable
from k12ai.runtimes.base import ALL, Among, Condition, Runtime, Unit, is_id_or_prefix
from k12ai.runtimes.cgroups import CgroupReader, Cgroups, CgroupUnreachable, Usage
from k12ai.runtimes.engine import Engine, Listed, NoSuchContainer
from k12ai.texts import Text
from k12ai.worker import Worker

HEARTBEAT_S = 5.0
RETRY_S = 1.0
USAGE_DEADLINE_S = 0.8

log = structlog.stdlib.get_logger(__name__)


class DockerRuntime(Runtime):
    """Containers of one Docker Engine, known to this machine or not.

    The Engine is asked once for the list; from then on it tells what changes, a heartbeat notices
    when it hangs, and a slow list catches what the events did not say. The number of calls does not
    depend on how many clients look.
    """

    name = "docker"

    def __init__(
        self,
        address: str,
        *,
        relist_s: float = 60.0,
        heartbeat_s: float = HEARTBEAT_S,
        cgroups: Cgroups | None = None,
    ) -> None:
        self._address = address
        self._relist_s = relist_s
        self._heartbeat_s = heartbeat_s
        self._cgroups = cgroups or Cgroups()
        self._units: dict[str, Unit] = {}
        self._readers: dict[str, CgroupReader] = {}
        self._remote: dict[str, Usage] = {}
        self._beyond_reach: set[str] = set()
        self._some_beyond_reach = asyncio.Event()
        self._stops: dict[str, _Stop] = {}
        self._condition = Condition(
            available=False, listed=False, reason=Text("it was not asked yet", "尚未查询")
        )
        self._first_answer = asyncio.Event()
        self._exits = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        self.engine = Engine(self._address)
        self._exits.push_async_callback(self.engine.close)
        self._worker = await self._exits.enter_async_context(Worker("k12ai-cgroups"))
        # The Engine goes on with a stop that was asked for; only the waiting for it ends here.
        self._background = await self._exits.enter_async_context(Background())
        self._background.keep_running("docker-follow", self._follow_events)
        self._background.keep_running("docker-measure-remote", self._measure_remote)
        # So that the first answer after the start is complete where the Engine is well.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._first_answer.wait(), timeout=3)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._exits.aclose()
        for container_id in list(self._readers):
            self._close_reader(container_id)

    @property
    def condition(self) -> Condition:
        """See `Runtime.condition`."""
        return self._condition

    @property
    def units(self) -> Mapping[str, Unit]:
        """See `Runtime.units`."""
        return MappingProxyType(self._units)

    async def usage(self, *, fresh: bool = False) -> Mapping[str, Usage]:
        """See `Runtime.usage`; read from cgroup files, or by the Engine where they are out of reach."""
        near = [unit for unit in self._units.values() if unit.container_id not in self._beyond_reach]
        usages: dict[str, Usage] = {}
        if near:
            usages = await self._read_near(near)
        if fresh and self._beyond_reach:
            await self._ask_for_remote()
        return {**self._remote, **usages}

    def unit_of(self, pid: int) -> str | None:
        """See `Runtime.unit_of`."""
        return next((each for each in self._cgroups.container_ids(pid) if each in self._units), None)

    async def stop(self, container_id: str, *, grace_s: int, among: Among = ALL) -> str:
        """See `Runtime.stop`."""
        found = await self._resolve(container_id, among)
        full_id = found.container_id
        if not found.running:
            return full_id[:12]
        stop = self._stops.get(full_id)
        ends_at = time.monotonic() + grace_s
        if stop is None or stop.ends_at > ends_at + 1:
            # A shorter grace than the running stop's does not wait for the longer one.
            task = self._background.start(f"stop-{full_id[:12]}", self._stop(full_id, grace_s))
            stop = self._stops[full_id] = _Stop(task, ends_at)
            task.add_done_callback(lambda done: self._forget_stop(full_id, done))
        await asyncio.shield(stop.task)
        return full_id[:12]

    # --- stopping --------------------------------------------------------------------------------

    async def _resolve(self, container_id: str, among: Among) -> Listed:
        """Return the one unit that is meant; one that never ran is none."""
        if not is_id_or_prefix(container_id):
            raise ContainerNotFound(container_id)
        found = [
            row
            for row in await self.engine.labelled(id_part=container_id)
            if row.container_id.startswith(container_id)
            and among.has(row.service_name, row.user)
            and row.state != "created"
        ]
        if len(found) != 1:
            raise ContainerNotFound(container_id)
        return found[0]

    async def _stop(self, container_id: str, grace_s: int) -> None:
        log.info("container.stop", container=container_id[:12], grace_s=grace_s)
        with contextlib.suppress(NoSuchContainer):  # removed by itself, or by somebody else
            await self.engine.stop(container_id, grace_s)
        if await self.engine.is_alive(container_id):
            raise EngineUnavailable(Text("the container was started again", "容器又被启动了"))
        self._forget(container_id)

    def _forget_stop(self, container_id: str, task: "asyncio.Task[Any]") -> None:
        if (stop := self._stops.get(container_id)) and stop.task is task:
            del self._stops[container_id]

    # --- membership ------------------------------------------------------------------------------

    async def _follow_events(self) -> None:
        while True:
            try:
                async with self.engine.events() as next_id:
                    await self._relist()
                    self._answers()
                    await self._apply_changes(next_id)
            except (Unavailable, NoSuchContainer) as error:
                self._does_not_answer(error)
            await asyncio.sleep(RETRY_S)

    async def _apply_changes(self, next_id: Callable[[], Awaitable[str]]) -> None:
        listed_at = time.monotonic()
        while True:
            try:
                async with asyncio.timeout(self._heartbeat_s):
                    changed = await next_id()
            except TimeoutError:
                await self.engine.ping()
            else:
                await self._refresh(changed)
            if time.monotonic() - listed_at > self._relist_s:
                await self._relist()
                listed_at = time.monotonic()

    async def _relist(self) -> None:
        running = {row.container_id for row in await self.engine.labelled() if row.running}
        for gone in self._units.keys() - running:
            self._forget(gone)
        self._beyond_reach.clear()  # so that what was out of reach for a moment is tried again
        for container_id in running:
            await self._refresh(container_id)

    async def _refresh(self, container_id: str) -> None:
        """Look again: an event is a hint that something changed, the Engine's word is what it is now."""
        try:
            unit = await self.engine.running_unit(container_id)
        except Unavailable as error:
            # One stuck container must not hide the others; an Engine that is away raises here.
            await self.engine.ping()
            log.warning("engine.inspect_failed", container=container_id[:12], reason=str(error))
            return
        if unit is None:
            self._forget(container_id)
            return
        known = self._units.get(container_id)
        if known is not None and known.pid != unit.pid:
            self._beyond_reach.discard(container_id)
            self._remote.pop(container_id, None)
            self._close_reader(container_id)
        self._units[container_id] = unit

    def _forget(self, container_id: str) -> None:
        self._units.pop(container_id, None)
        self._close_reader(container_id)
        self._remote.pop(container_id, None)
        self._beyond_reach.discard(container_id)

    def _answers(self) -> None:
        if not self._condition.available:
            log.info("engine.available", address=self._address, units=len(self._units))
        self._condition = Condition(available=True, listed=True)
        self._first_answer.set()

    def _does_not_answer(self, error: Exception) -> None:
        reason = error.detail if isinstance(error, K12AIError) else Text(str(error), str(error))
        if self._condition.available or not self._first_answer.is_set():
            log.warning("engine.unavailable", address=self._address, reason=reason.en)
        self._condition = Condition(available=False, listed=self._condition.listed, reason=reason)
        self._first_answer.set()

    # --- measuring -------------------------------------------------------------------------------

    async def _read_near(self, units: Sequence[Unit]) -> dict[str, Usage]:
        """Read the units' files in the worker; everything else about them is decided here, in the loop."""
        readers = {unit.container_id: self._readers.get(unit.container_id) for unit in units}
        found = await self._worker.run(lambda: self._read_files(units, readers), deadline_s=USAGE_DEADLINE_S)
        usages = {}
        for unit, (reader, usage) in zip(units, found, strict=True):
            container_id = unit.container_id
            current = self._units.get(container_id)
            if current is None or current.pid != unit.pid:
                if reader is not None:
                    reader.close()
            elif reader is None or usage is None:
                # It has just ended, and then the Engine says so soon; or its files are not for us.
                self._close_reader(container_id)
                self._beyond_reach.add(container_id)
                self._some_beyond_reach.set()
            else:
                self._readers[container_id] = reader
                usages[container_id] = usage
        return usages

    def _read_files(
        self, units: Sequence[Unit], readers: Mapping[str, CgroupReader | None]
    ) -> list[tuple[CgroupReader | None, Usage | None]]:
        found: list[tuple[CgroupReader | None, Usage | None]] = []
        for unit in units:
            reader = readers[unit.container_id]
            try:
                if reader is None:
                    reader = self._cgroups.reader(unit.pid, unit.container_id)
                found.append((reader, reader.read()))
            except CgroupUnreachable:
                found.append((reader, None))
        return found

    def _close_reader(self, container_id: str) -> None:
        if (reader := self._readers.pop(container_id, None)) is not None:
            reader.close()

    async def _measure_remote(self) -> None:
        """Ask the Engine again and again for the units whose files cannot be read here."""
        while True:
            await self._some_beyond_reach.wait()
            if self._condition.available:
                await self._ask_for_remote()
            if not self._beyond_reach:
                self._some_beyond_reach.clear()
            await asyncio.sleep(RETRY_S)

    async def _ask_for_remote(self) -> None:
        wanted = [container_id for container_id in self._beyond_reach if container_id in self._units]
        self._beyond_reach.intersection_update(self._units)
        answers = await asyncio.gather(*(self.engine.usage(each) for each in wanted), return_exceptions=True)
        for container_id, answer in zip(wanted, answers, strict=True):
            if isinstance(answer, Usage) and container_id in self._units:
                self._remote[container_id] = answer
            elif isinstance(answer, BaseException) and not isinstance(answer, (Unavailable, NoSuchContainer)):
                raise answer


class _Stop:
    """A stop under way, and when its grace is over on the monotonic clock."""

    def __init__(self, task: "asyncio.Task[Any]", ends_at: float) -> None:
        self.task = task
        self.ends_at = ends_at

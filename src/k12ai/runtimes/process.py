"""The process runtime: tasks as processes of this machine, each below a shim of its own.

The server writes down what is to be run, starts the shim, and from then on only reads files; the shim
outlives it. A lock that the shim inherits tells, after a restart of the server, whether a task has
been taken on already: so it is never started twice, whenever the server died.
"""

import asyncio
import contextlib
import fcntl
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

import msgspec
import structlog
from msgspec import Struct

from k12ai.background import Background
from k12ai.errors import ContainerNotFound, Unavailable
from k12ai.runtimes import process_tree, shim
from k12ai.runtimes.accounts import Account
from k12ai.runtimes.base import ALL, Among, Condition, End, Launch, Unit, is_id_or_prefix, signal_told_by
from k12ai.runtimes.cgroups import CgroupReader, Cgroups, CgroupUnreachable, Usage
from k12ai.runtimes.followed import FollowedRuntime
from k12ai.runtimes.task_cgroups import TaskCgroups
from k12ai.runtimes.task_dirs import LOG_BYTES, Kept, TaskDir
from k12ai.runtimes.walls import Walls
from k12ai.worker import Worker

USAGE_DEADLINE_S = 0.8
START_DEADLINE_S = 30.0
FIRST_SIGN_POLL_S = 0.005
TIMEOUT_GRACE_S = 10
MAX_OPEN_FILES = 4096

_LOCK_DESCRIPTOR = 3

log = structlog.stdlib.get_logger(__name__)


class _Started(Struct, frozen=True):
    """``shim.json``: which processes a task has; start times tell them from later ones of the same number."""

    shim_pid: int
    shim_start: int
    pid: int
    started_at: float


class _Exit(Struct, frozen=True, kw_only=True):
    """``exit.json``: how a task ended."""

    reason: str
    exit_code: int | None = None
    signal: int | None = None
    oom: bool = False
    detail: str = ""
    killed: bool = False
    survivors: list[int] = []
    ended_at: float = 0.0


class ProcessRuntime(FollowedRuntime):
    """Tasks below ``data_dir/tasks``, each in a directory of its own that its shim and the server share."""

    name = "process"
    marker = "spec.json"

    def __init__(self, data_dir: Path, *, cgroups: Cgroups | None = None, sandbox: bool = True) -> None:
        super().__init__(data_dir)
        self._host_cgroups = cgroups or Cgroups()
        self._sandbox = sandbox
        self._units: dict[str, Unit] = {}
        self._kept: dict[str, Kept] = {}
        self._started: dict[str, _Started] = {}
        self._readers: dict[str, CgroupReader] = {}
        self._exits = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._cgroups = await asyncio.to_thread(TaskCgroups, self._host_cgroups)
        self.walls = await asyncio.to_thread(
            Walls, self._data_dir, cgroups=self._cgroups.wall, sandbox=self._sandbox
        )
        self._make_directories(passable=self.walls.account(0) is not None)
        self._worker = await self._exits.enter_async_context(Worker("k12ai-processes"))
        self._background = await self._exits.enter_async_context(Background())
        for directory in sorted(self._tasks_dir.iterdir()):
            if self.has(directory.name) and not (directory / "exit.json").exists():
                self._follow(directory.name)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._exits.aclose()
        for reader in self._readers.values():
            reader.close()

    # --- as every runtime ------------------------------------------------------------------------

    @property
    def condition(self) -> Condition:
        """See `Runtime.condition`; it is the machine itself, and always there."""
        return Condition(available=True, listed=True)

    @property
    def units(self) -> Mapping[str, Unit]:
        """See `Runtime.units`."""
        return MappingProxyType(self._units)

    async def usage(self, *, fresh: bool = False) -> Mapping[str, Usage]:
        """See `Runtime.usage`; from cgroups, or from ``/proc`` where there are none."""
        if not self._units:
            return {}
        shims = {task_id: started.shim_pid for task_id, started in self._started.items()}
        readers = dict(self._readers)
        usages = await self._worker.run(lambda: _read(readers, shims), deadline_s=USAGE_DEADLINE_S)
        return {task_id: self._limited(task_id, usage) for task_id, usage in usages.items()}

    def unit_of(self, pid: int) -> str | None:
        """See `Runtime.unit_of`."""
        if not self._started:
            return None
        by_shim = {started.shim_pid: task_id for task_id, started in self._started.copy().items()}
        return next((by_shim[each] for each in process_tree.ancestors(pid) if each in by_shim), None)

    async def stop(self, container_id: str, *, grace_s: int, among: Among = ALL) -> str:
        """See `Runtime.stop`."""
        task_id = self._resolve(container_id, among)
        await self.ask_to_stop(task_id, grace_s)
        await asyncio.shield(self._follow(task_id))
        return task_id

    # --- tasks -----------------------------------------------------------------------------------

    async def ask_to_stop(self, task_id: str, grace_s: float) -> None:
        """See `TaskRuntime.ask_to_stop`."""
        directory = self._dir(task_id)
        if directory.has("exit.json"):
            return
        with contextlib.suppress(OSError):  # on a full disk the shim takes the signal alone for a stop
            directory.write("stop.json", msgspec.json.encode({"grace_s": grace_s}))
        # The shim looks for this file after it has written its own, so one of the two sees the other's.
        started = directory.read("shim.json", _Started)
        if started is not None and process_tree.start_of(started.shim_pid) == started.shim_start:
            os.kill(started.shim_pid, signal.SIGTERM)

    def container_of(self, task_id: str) -> str:
        """See `TaskRuntime.container_of`; here a task is its own container."""
        return task_id if task_id in self._units else ""

    async def trouble(self, task_id: str) -> Unavailable:
        """See `TaskRuntime.trouble`; the machine itself is always there."""
        never: asyncio.Future[Unavailable] = asyncio.get_running_loop().create_future()
        return await never

    async def settle(self, task_id: str) -> None:
        """See `TaskRuntime.settle`."""

    async def tidy(self, is_alive: Callable[[str], Awaitable[bool]]) -> None:
        """See `TaskRuntime.tidy`; a task that is on nobody's record is stopped."""
        for task_id in list(self._units):
            if not await is_alive(task_id):
                log.warning("process.stray", task=task_id)
                await self.ask_to_stop(task_id, 0)

    async def remove(self, task_id: str) -> None:
        """See `TaskRuntime.remove`."""
        self._cgroups.remove(task_id)
        await super().remove(task_id)

    # --- starting --------------------------------------------------------------------------------

    def _prepare(self, launch: Launch) -> None:
        """Write down what is to be run; the last file is the one that makes it the runtime's."""
        directory = self._dir(launch.task_id)
        account = None if launch.account_number is None else self.walls.account(launch.account_number)
        directory.create(launch, account, sandboxed=self.walls.sandboxed)
        directory.write("spec.json", msgspec.json.encode(self._spec(launch, directory, account)))

    def _spec(self, launch: Launch, directory: TaskDir, account: Account | None) -> dict[str, Any]:
        cgroups = self._cgroups.create(launch.task_id, launch.limits)
        command = self.walls.command(
            [sys.executable, *launch.arguments],
            project_dir=launch.project_dir,
            readable=[directory.params],
            writable=[directory.journal],
            account=account,
            network=launch.network,
            gpus=bool(launch.gpus),
        )
        return {
            "argv": command,
            "env": {
                "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
                **directory.environment(launch),
                # Cooperative: without it, a program that was given no GPU would take the first.
                "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # as the driver counts them
                "CUDA_VISIBLE_DEVICES": ",".join(map(str, launch.gpus)),
            },
            "cwd": str(launch.project_dir),
            "uid": None,
            "gid": None,
            "wall_time_s": launch.limits.wall_time_s,
            "grace_s": TIMEOUT_GRACE_S,
            "log_bytes": LOG_BYTES,
            "rlimits": {
                "nofile": MAX_OPEN_FILES,
                # Of an account of its own; of a shared one it would count everybody's.
                "nproc": launch.limits.processes if account is not None else None,
                "data_bytes": None if cgroups else launch.limits.memory_bytes,
                "core": 0,
                "fsize_bytes": None,
            },
            "cgroups": cgroups,
        }

    def _spawn(self, task_id: str) -> int | None:
        """Start a task's shim and return its pid; None where one is there already: the lock tells."""
        directory = self._dir(task_id)
        with (directory.path / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return None  # a shim has inherited it
            if directory.has("shim.json") or directory.has("exit.json"):
                return None  # it was there, and is no more
            command = shim.command(str(directory.path), _LOCK_DESCRIPTOR)
            # Not through asyncio: its transports kill what still runs when they are collected.
            return os.posix_spawn(
                command[0],
                command,
                {},
                file_actions=[
                    *((os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1, 2)),
                    (os.POSIX_SPAWN_DUP2, lock.fileno(), _LOCK_DESCRIPTOR),
                ],
                setsid=True,
            )

    # --- following -------------------------------------------------------------------------------

    async def _live(self, task_id: str) -> End:
        directory = self._dir(task_id)
        if (exit_ := _exit_of(directory)) is not None:  # while no server was there
            self._cgroups.remove(task_id)
            return exit_
        shim_pid = self._spawn(task_id)
        started = await self._first_sign(directory, shim_pid)
        if started is not None:
            self._appear(task_id, started)
            try:
                await _gone(started.shim_pid, started.shim_start)
            finally:
                self._disappear(task_id)
        end = _exit_of(directory)
        if end is None and started is None and directory.has("stop.json"):
            end = End(reason="stopped", ended_at=datetime.now(UTC))  # before it had begun
        if end is None:
            # The shim was killed; what it started goes with it.
            self._cgroups.kill(task_id)
            end = End(reason="lost", detail="its shim has vanished", ended_at=datetime.now(UTC))
        self._cgroups.remove(task_id)
        return end

    async def _first_sign(self, directory: TaskDir, shim_pid: int | None) -> _Started | None:
        """Wait until the shim says which processes a task has; None where it ended without that."""
        deadline = time.monotonic() + START_DEADLINE_S
        while not directory.has("exit.json"):
            if (started := directory.read("shim.json", _Started)) is not None:
                return started
            if shim_pid is not None and _reap(shim_pid):
                return directory.read("shim.json", _Started)
            if time.monotonic() > deadline:
                log.error("process.no_shim", task=directory.task_id)
                return None
            await asyncio.sleep(FIRST_SIGN_POLL_S)
        if shim_pid is not None:  # it has written its last word, and is about to end
            await _gone(shim_pid, process_tree.start_of(shim_pid))
        return None

    def _appear(self, task_id: str, started: _Started) -> None:
        kept = self._dir(task_id).kept
        assert kept is not None, task_id  # written before the task was taken on
        self._kept[task_id], self._started[task_id] = kept, started
        with contextlib.suppress(CgroupUnreachable):
            self._readers[task_id] = self._cgroups.reader(task_id)
        self._units[task_id] = Unit(
            container_id=task_id,
            pid=started.pid,
            service_name=kept.framework,
            op=kept.op,
            user=kept.user,
            service_uuid=kept.service_uuid,
            status="running",
            started_at=datetime.fromtimestamp(started.started_at, UTC).isoformat().replace("+00:00", "Z"),
            gpus=tuple(map(str, kept.gpus)),
        )
        self._appeared[task_id].set()

    def _disappear(self, task_id: str) -> None:
        for table in (self._units, self._kept, self._started):
            table.pop(task_id, None)
        if (reader := self._readers.pop(task_id, None)) is not None:
            reader.close()

    def _limited(self, task_id: str, usage: Usage) -> Usage:
        kept = self._kept.get(task_id)
        return usage._replace(memory_limit_bytes=kept.memory_bytes) if kept is not None else usage

    def _resolve(self, wanted: str, among: Among) -> str:
        """Return the one task that is meant, running or ended."""
        if not is_id_or_prefix(wanted):
            raise ContainerNotFound(wanted)
        found = []
        for path in self._tasks_dir.glob(f"{wanted}*"):
            kept = self._dir(path.name).kept
            if self.has(path.name) and kept is not None and among.has(kept.framework, kept.user):
                found.append(path.name)
        if len(found) != 1:
            raise ContainerNotFound(wanted)
        return found[0]


def _exit_of(directory: TaskDir) -> End | None:
    found, kept = directory.read("exit.json", _Exit), directory.kept
    if found is None or kept is None:
        return None
    exit_code, number, reason = found.exit_code, found.signal, found.reason
    if kept.sandboxed and (told := signal_told_by(exit_code)) is not None:
        exit_code, number = None, told
        reason = "signal" if reason == "exited" else reason
    return msgspec.convert(
        {
            "reason": reason,
            "exit_code": exit_code,
            "signal": number,
            "oom_kills": int(found.oom),
            "killed": found.killed,
            "survivors": found.survivors,
            "detail": found.detail,
            "ended_at": datetime.fromtimestamp(found.ended_at, UTC),
        },
        End,
    )


async def _gone(shim_pid: int, shim_start: int | None) -> None:
    """Return when a shim has ended, a child of this server or of an earlier one."""
    try:
        descriptor = os.pidfd_open(shim_pid)
    except ProcessLookupError:
        return
    try:
        if process_tree.start_of(shim_pid) != shim_start:
            return  # the number is somebody else's by now
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(descriptor, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(descriptor)
        _reap(shim_pid)
    finally:
        os.close(descriptor)


def _reap(pid: int) -> bool:
    """Take leave of a shim of ours that has ended; say whether it has."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:  # of an earlier server, whose children init has; or taken leave of before
        return False


def _read(readers: Mapping[str, CgroupReader], shims: Mapping[str, int]) -> dict[str, Usage]:
    usages: dict[str, Usage] = {}
    for task_id, reader in readers.items():
        with contextlib.suppress(CgroupUnreachable):
            usages[task_id] = reader.read()
    others = {shim: task_id for task_id, shim in shims.items() if task_id not in readers}
    if others:
        usages |= {others[shim]: usage for shim, usage in process_tree.usage_below(others).items()}
    return usages

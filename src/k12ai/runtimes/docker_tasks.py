"""Tasks as containers of a Docker Engine: started once, stopped with proof, found again after any crash.

What is to be run is written down first; the container's name is made from the task's id, so that a start
which is tried again finds the container of the first try. A container that ran is never started again:
its id is written down between making and starting it. The Engine's word on it is asked for whenever
something may have changed, events only say when to ask. An Engine that cannot be reached says nothing
about its containers: then a task is as it was, and waited for.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import msgspec
import structlog
from msgspec import Struct

from k12ai.background import until_either, until_or
from k12ai.errors import ContainerNotFound, Unavailable
from k12ai.failpoints import reach
from k12ai.models import LABEL_INSTANCE, LABEL_TASK_ID
from k12ai.runtimes import task_log
from k12ai.runtimes.accounts import Account, account_of
from k12ai.runtimes.base import ALL, Among, End, Launch, is_id_or_prefix
from k12ai.runtimes.container_end import (
    GONE,
    Circumstances,
    Stop,
    end_of,
    lost_at_start,
    may_be_the_engines,
    never_started,
    refused,
)
from k12ai.runtimes.container_init import AGAIN, ENDED
from k12ai.runtimes.container_profile import container_name, profile
from k12ai.runtimes.docker import DockerRuntime
from k12ai.runtimes.engine import ContainerState, LaunchRefused, NoSuchContainer
from k12ai.runtimes.followed import FollowedRuntime
from k12ai.runtimes.instance import instance_name
from k12ai.runtimes.task_dirs import TaskDir, boot_id

RETRY_S = 1.0
# The net below the events, which can be missed.
LOOK_AGAIN_S = 15.0
TIMEOUT_GRACE_S = 10
STRAY_GRACE_S = 60.0

log = structlog.stdlib.get_logger(__name__)


class _Made(Struct, frozen=True):
    """``container.json``: the container of a task, written before it is started."""

    container_id: str


class _Life:
    """A task that is being followed."""

    def __init__(self, stop: Stop | None) -> None:
        self.stop = stop
        self.container_id = ""
        self.changed = asyncio.Event()
        self.stop_wanted = asyncio.Event()
        if stop is not None:
            self.stop_wanted.set()
        self.stopping: asyncio.Task[None] | None = None
        self.engine_was_away = self.engine_was_ever_away = False
        self._trouble: Unavailable | None = None
        self._troubled = asyncio.Event()

    @property
    def is_to_stop(self) -> bool:
        """Whether somebody wants it to end."""
        return self.stop_wanted.is_set()

    def is_out_of_reach(self, error: Unavailable) -> None:
        """Tell whoever waits for the task that the Engine does not answer."""
        self.engine_was_away = self.engine_was_ever_away = True
        self._trouble = error
        self._troubled.set()

    def is_reached(self) -> None:
        """Take that back."""
        self._troubled.clear()

    async def trouble(self) -> Unavailable:
        """Return why it cannot be reached, once that is so."""
        await self._troubled.wait()
        assert self._trouble is not None
        return self._trouble


class DockerTasks(DockerRuntime, FollowedRuntime):
    """Tasks below ``data_dir/tasks`` as containers; their directories are mounted into them."""

    marker = "create.json"

    def __init__(self, address: str, data_dir: Path, **options: Any) -> None:
        """``options`` are those of `DockerRuntime`."""
        DockerRuntime.__init__(self, address, **options)
        FollowedRuntime.__init__(self, data_dir)
        self._lives: dict[str, _Life] = {}

    async def __aenter__(self) -> Self:
        self._make_directories(passable=os.geteuid() == 0)
        self.instance = await asyncio.to_thread(instance_name, self._data_dir)
        await super().__aenter__()
        return self

    # --- tasks -----------------------------------------------------------------------------------

    async def ask_to_stop(self, task_id: str, grace_s: float) -> None:
        """See `TaskRuntime.ask_to_stop`."""
        self._want_stop(task_id, Stop(grace_s, "stopped", time.time()))

    def container_of(self, task_id: str) -> str:
        """See `TaskRuntime.container_of`."""
        life = self._lives.get(task_id)
        return life.container_id[:12] if life is not None else ""

    async def trouble(self, task_id: str) -> Unavailable:
        """See `TaskRuntime.trouble`."""
        return await self._lives.get(task_id, _Life(None)).trouble()

    async def settle(self, task_id: str) -> None:
        """See `TaskRuntime.settle`; where the Engine is away, `tidy` does it later."""
        made = self._dir(task_id).read("container.json", _Made)
        with contextlib.suppress(Unavailable):
            if made is not None:
                await self.engine.remove(made.container_id)
                return
            # One that was made while nobody wanted it any more is known by its labels alone.
            for row in await self.engine.labelled(f"{LABEL_TASK_ID}={task_id}"):
                if row.labels.get(LABEL_INSTANCE) == self.instance:
                    await self.engine.remove(row.container_id)

    async def remove(self, task_id: str) -> None:
        """See `TaskRuntime.remove`."""
        await self.settle(task_id)
        await super().remove(task_id)

    async def tidy(self, is_alive: Callable[[str], Awaitable[bool]]) -> None:
        """See `TaskRuntime.tidy`; a container of this installation is given a minute to get on record."""
        with contextlib.suppress(Unavailable):
            for row in await self.engine.labelled(f"{LABEL_INSTANCE}={self.instance}"):
                task_id = row.labels.get(LABEL_TASK_ID, "")
                if time.time() - row.created_at > STRAY_GRACE_S and not await is_alive(task_id):
                    log.warning("docker.stray", container=row.container_id[:12], task=task_id)
                    await self.engine.remove(row.container_id)

    async def stop(self, container_id: str, *, grace_s: int, among: Among = ALL) -> str:
        """See `Runtime.stop`; a task is also known by its own id."""
        task_id = self._followed(container_id)
        if task_id is not None:
            kept = self._dir(task_id).kept
            if kept is None or not among.has(kept.framework, kept.user):
                raise ContainerNotFound(container_id)
            short_id = self.container_of(task_id) or task_id
            await self.ask_to_stop(task_id, grace_s)
            await until_or(asyncio.shield(self._follow(task_id)), self.trouble(task_id))
            return short_id
        try:
            return await super().stop(container_id, grace_s=grace_s, among=among)
        except ContainerNotFound:
            # Its container is gone by now; to stop what has ended is no error.
            return await asyncio.to_thread(self._ended, container_id, among)

    def _followed(self, wanted: str) -> str | None:
        """Return the task that is meant, by its own id or by its container's or a beginning of that."""
        if wanted in self._lives:
            return wanted
        if not is_id_or_prefix(wanted):
            return None
        found = [each for each, life in self._lives.items() if life.container_id.startswith(wanted)]
        return found[0] if len(found) == 1 else None

    def _ended(self, wanted: str, among: Among) -> str:
        """Return the 12 digits of a container that a task had. Raises `ContainerNotFound`."""
        found = set()
        for path in self._tasks_dir.iterdir() if is_id_or_prefix(wanted) else ():
            directory = self._dir(path.name)
            made, kept = directory.read("container.json", _Made), directory.kept
            if made is None or kept is None or not among.has(kept.framework, kept.user):
                continue
            if wanted == path.name or made.container_id.startswith(wanted):
                found.add(made.container_id[:12])
        if len(found) != 1:
            raise ContainerNotFound(wanted)
        return found.pop()

    # --- starting --------------------------------------------------------------------------------

    def _prepare(self, launch: Launch) -> None:
        directory = self._dir(launch.task_id)
        account = _account(launch.account_number)
        directory.create(launch, account)
        directory.log.mkdir(mode=0o700)
        os.chown(directory.log, *account)
        body = profile(launch, directory, account, self.instance)
        wanted = {"body": body, "wall_time_s": launch.limits.wall_time_s}
        directory.write(self.marker, msgspec.json.encode(wanted))

    async def _live(self, task_id: str) -> End:
        directory = self._dir(task_id)
        life = self._lives[task_id] = _Life(directory.read("stop.json", Stop))
        try:
            return await self._lived(directory, life)
        except (LaunchRefused, OSError) as error:  # OSError: the disk is full
            if not life.engine_was_away:
                return refused(str(error))
            # An Engine that was killed may have started it all the same, and have no record of that.
            with contextlib.suppress(OSError):
                directory.tell_stop(0)
            return lost_at_start(str(error))
        finally:
            if life.stopping is not None:
                life.stopping.cancel()
            del self._lives[task_id]

    async def _lived(self, directory: TaskDir, life: _Life) -> End:
        wanted = directory.read(self.marker, _Wanted)
        assert wanted is not None, directory.task_id  # the marker made the task ours
        made = directory.read("container.json", _Made)
        if made is None:
            reach("before_create")
            container_id = await self._made(directory, life, wanted.body)
            if container_id is None:
                return never_started()
            reach("after_create")
            made = _Made(container_id)
            directory.write("container.json", msgspec.json.encode(made))
        life.container_id = made.container_id
        reach("before_start")
        state = await self._started(directory, life)
        if state is None:
            return never_started()
        reach("after_start")
        self._appeared[directory.task_id].set()
        return await self._until_its_end(directory, life, state, wanted.wall_time_s)

    async def _started(self, directory: TaskDir, life: _Life) -> ContainerState | None:
        """Start the container where it never ran, and return what it is now; None where it is not to run."""
        tried = False
        while True:
            state = await self._state(life)
            # An error of a try that the Engine did not see to its end may be gone with the next.
            if state is None or state.status != "created" or (state.error and not tried):
                return state or GONE
            if life.is_to_stop:
                return None
            try:
                await self.engine.start(life.container_id)
                await self._refresh(life.container_id)  # so that it is shown at once
            except Unavailable as error:  # whether it has started is then not known: look
                tried = True
                life.is_out_of_reach(error)
                log.warning("docker.start_retry", task=directory.task_id, reason=str(error))
                await asyncio.sleep(RETRY_S)
            except NoSuchContainer:
                return GONE
            # A stop that came meanwhile found nothing that runs; it is looked for once more behind this.

    async def _made(self, directory: TaskDir, life: _Life, body: dict[str, Any]) -> str | None:
        """Make the container and return its id; None where the task is to be stopped before that."""
        name = container_name(self.instance, directory.task_id)
        while not life.is_to_stop:
            making: asyncio.Task[str] = self._background.start(
                f"making-{directory.task_id}", self.engine.create(name, body)
            )
            try:
                await until_either(making, life.stop_wanted.wait())
                if making.done():
                    return making.result()
            except Unavailable as error:
                life.is_out_of_reach(error)
                log.warning("docker.waits", task=directory.task_id, reason=str(error))
                await asyncio.sleep(RETRY_S)
            except NoSuchContainer:  # removed while it was looked at
                await asyncio.sleep(RETRY_S)
            else:
                self._background.start(f"unmake-{directory.task_id}", self._unmake(making))
        return None

    async def _unmake(self, making: "asyncio.Task[str]") -> None:
        """Remove a container that nobody wants any more, once the Engine has made it."""
        with contextlib.suppress(Unavailable, NoSuchContainer, LaunchRefused):
            await self.engine.remove(await making)

    async def _state(self, life: _Life) -> ContainerState | None:
        while True:
            life.changed.clear()  # what has changed by now is seen by this look
            try:
                state = await self.engine.state(life.container_id)
            except Unavailable as error:
                life.is_out_of_reach(error)
                await asyncio.sleep(RETRY_S)
            else:
                life.is_reached()
                return state

    # --- following -------------------------------------------------------------------------------

    async def _until_its_end(
        self, directory: TaskDir, life: _Life, state: ContainerState, wall_time_s: int | None
    ) -> End:
        deadline = None
        if wall_time_s is not None and state.running:
            # What has passed already is known by the wall clock; what is left is counted by the other.
            passed_s = max(0.0, (datetime.now(UTC) - state.began_at).total_seconds())
            deadline = time.monotonic() + wall_time_s - passed_s
        while state.running or state.restarting:
            if deadline is not None and time.monotonic() >= deadline:
                deadline = None
                self._want_stop(directory.task_id, Stop(TIMEOUT_GRACE_S, "timeout", time.time()))
            self._stop_where_asked(directory.task_id, life)
            rest_s = LOOK_AGAIN_S if deadline is None else min(LOOK_AGAIN_S, deadline - time.monotonic())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, rest_s)):
                    await life.changed.wait()
            state = await self._state(life) or GONE
            if state.running:
                life.engine_was_away = False  # it has outlived that
        self._forget(life.container_id)
        # An Engine that is about to end tells of the ends of its containers before its own is seen.
        is_ending = may_be_the_engines(state) and life.stop is None and await self.engine.is_ending()
        return end_of(state, life.stop, _circumstances(directory, life, engine_was_ending=is_ending))

    def _want_stop(self, task_id: str, stop: Stop) -> None:
        """Write down that a task is to end; asking again can only shorten the grace."""
        directory, life = self._dir(task_id), self._lives.get(task_id)
        earlier = directory.read("stop.json", Stop) if life is None else life.stop
        if earlier is not None:
            if stop.grace_s >= earlier.grace_s:
                return
            stop = msgspec.structs.replace(earlier, grace_s=stop.grace_s)
        with contextlib.suppress(OSError):  # the disk is full, or it has long ended and was removed
            directory.write("stop.json", msgspec.json.encode(stop))
            # For the first process of the container, which may not hear signals yet.
            directory.tell_stop(stop.grace_s)
        if life is not None:
            life.stop = stop
            life.stop_wanted.set()
            if life.stopping is not None:
                life.stopping.cancel()
                life.stopping = None
            life.changed.set()

    def _stop_where_asked(self, task_id: str, life: _Life) -> None:
        if life.stop is not None and life.stopping is None:
            stopping = self._stop_it(life, life.stop.grace_s)
            life.stopping = self._background.start(f"stopping-{task_id}", stopping)

    async def _stop_it(self, life: _Life, grace_s: float) -> None:
        """Have the Engine stop a container; again, while it cannot be reached."""
        while True:
            try:
                await self._stop(life.container_id, round(grace_s))
            except Unavailable as error:
                life.is_out_of_reach(error)
                log.warning("docker.stop_retry", container=life.container_id[:12], reason=str(error))
                await asyncio.sleep(RETRY_S)
            else:
                life.changed.set()
                return

    # --- what the Engine says --------------------------------------------------------------------

    async def _refresh(self, container_id: str) -> None:
        await super()._refresh(container_id)
        for life in self._lives.values():
            if life.container_id == container_id:
                life.changed.set()

    def _answers(self) -> None:
        super()._answers()
        for life in self._lives.values():
            life.changed.set()

    def _does_not_answer(self, error: Exception) -> None:
        super()._does_not_answer(error)
        for life in self._lives.values():
            life.engine_was_away = life.engine_was_ever_away = True


class _Wanted(Struct, frozen=True):
    """``create.json``: what the Engine is asked to make, and how long it may run."""

    body: dict[str, Any]
    wall_time_s: int | None = None


def _circumstances(directory: TaskDir, life: _Life, *, engine_was_ending: bool) -> Circumstances:
    kept = directory.kept
    return Circumstances(
        engine_was_ending=engine_was_ending,
        booted_again=kept is not None and kept.boot_id != boot_id(),
        started_again=os.path.lexists(directory.log / AGAIN),
        engine_was_away=life.engine_was_away,
        engine_was_ever_away=life.engine_was_ever_away,
        noted_code=_noted_code(directory.log / ENDED),
    )


def _noted_code(path: Path) -> int | None:
    """Return what the first process has noted, in a directory that the task itself can write in."""
    with contextlib.suppress(ValueError):
        code = int(task_log.read_plain(path, 0, 8))
        return code if 0 <= code <= 255 else None
    return None


def _account(number: int | None) -> Account:
    """Return whom a task runs as: its student's own account, or the server's where that is not root."""
    if os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    return account_of(number or 0)

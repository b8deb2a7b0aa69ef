"""The task manager: from an intent in the store to an end in the store, and every word in between."""

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import structlog

from k12ai.background import Background, until_or
from k12ai.catalogue import CATALOGUE
from k12ai.errors import K12AIError, TaskNotFound
from k12ai.failpoints import reach
from k12ai.images import image_of
from k12ai.runtimes.base import End, Launch, LogPiece, TaskRuntime, is_id_or_prefix
from k12ai.settings import Settings
from k12ai.stores.base import Store
from k12ai.task import TASK_ID_DIGITS, Limits, Reason, Stopper, Task, TaskRequest, key_of
from k12ai.tasks import messages
from k12ai.tasks.admission import Start
from k12ai.tasks.fitting import check_fits
from k12ai.tasks.journal import Journal, Line, Piece
from k12ai.tasks.proof import GpuWitness
from k12ai.tasks.queue import Queue
from k12ai.tasks.quota import WaitingQuota
from k12ai.tasks.registry import Registry
from k12ai.tasks.transitions import advance, ended

TAIL_S = 0.05
RETRY_S = 1.0
# How often those that wait are looked at where nothing has started or ended: memory can become free.
LOOK_AGAIN_S = 1.0
# Ended tasks that tell how long their like take.
HISTORY = 500
STANDINGS_S = 0.5
NOBODY = Stopper()

log = structlog.stdlib.get_logger(__name__)


class _Life:
    """A task that has not ended, and who wants it to end."""

    def __init__(self, task: Task) -> None:
        self.task = task
        # An earlier run of the server may have been told.
        told = task.reason if task.reason == "stopped_by_teacher" else "stopped_by_user"
        self.stopper = Stopper(task.stopped_by, told)
        self.gpu_pids: frozenset[int] = frozenset()  # its processes on GPUs, when it was asked to stop
        self.changing = asyncio.Lock()  # who changes the task and its record; one at a time, in order
        self.stop_asked = asyncio.Event()
        self.grace_s = 0.0
        self.over = asyncio.Event()
        self.end_unrecorded: Task | None = None  # how it ended, while the store does not take it

    def note(self, stopper: Stopper) -> None:
        """Note who asks for its end; the first one to ask counts."""
        if not self.stopper.user:
            self.stopper = stopper

    @property
    def shown(self) -> Task:
        """The task as everyone should see it."""
        return self.end_unrecorded or self.task


class _Reader:
    """How far a task's journal has been read."""

    def __init__(self, journal: Journal | None, offset: int) -> None:
        self.journal = journal
        self.offset = offset

    def next(self) -> Piece | None:
        """Return what is new, None where nothing is."""
        piece = None if self.journal is None else self.journal.read(self.offset)
        return None if piece is None or piece.offset == self.offset else piece


class TaskManager:
    """Starts, watches and stops tasks. Leaving its block leaves them running."""

    def __init__(
        self,
        store: Store,
        runtimes: Mapping[str, TaskRuntime],
        frameworks: Registry,
        queue: Queue,
        project_dir: Callable[[str, str], Path],
        background: Background,
        settings: Settings,
        witness: GpuWitness,
    ) -> None:
        self._store = store
        self._runtimes = runtimes
        self._frameworks = frameworks
        self._queue = queue
        self._project_dir = project_dir
        self._background = background
        self._witness = witness
        self._keep_s = settings.result_retention_s
        self._task_keep_s = settings.task_retention_s
        self._defaults = Limits(
            wall_time_s=settings.task_wall_time_s,
            memory_bytes=settings.task_memory_bytes,
            processes=settings.task_processes,
        )
        self._quota = WaitingQuota(settings.max_waiting_tasks_per_user)
        self._lives: dict[str, _Life] = {}
        self._standings: Mapping[str, tuple[int, float | None]] = {}
        self._standings_until = float("-inf")

    # --- asking ----------------------------------------------------------------------------------

    async def submit(self, wanted: TaskRequest, runtime: str, *, idempotency_key: str | None = None) -> Task:
        """Record a task durably and let it start when it is its turn; return it as it was recorded.

        With a key that the user sent before, the task of then. Raises `TaskRunning`, `QuotaExceeded`,
        `InvalidValue` for what this machine does not have, and the store's errors.
        """
        check_fits(wanted.limits, self._queue.machine)
        with self._quota.place(wanted.user, self._queue):
            return await self._submit(wanted, runtime, idempotency_key)

    async def _submit(self, wanted: TaskRequest, runtime: str, idempotency_key: str | None) -> Task:
        task = Task(
            task_id=secrets.token_hex(TASK_ID_DIGITS // 2),
            user=wanted.user,
            service_uuid=wanted.service_uuid,
            framework=wanted.framework,
            op=wanted.op,
            key=key_of(wanted.user, wanted.service_uuid, wanted.op),
            runtime=runtime,
            limits=_filled(wanted.limits, self._defaults),
            params=wanted.params,
            created_at=datetime.now(UTC),
        )
        task = msgspec.structs.replace(task, reason=self._queue.reason_to_wait(task))
        stored = await self._store.create_task(
            task, [messages.status(task)], idempotency_key=idempotency_key, keep_s=self._keep_s
        )
        reach("after_intent")
        if stored.task_id == task.task_id:
            self._lives[stored.task_id] = _Life(stored)
            self._queue.add(stored)
            self._dispatch()
        return stored

    async def stop(self, task_id: str, *, grace_s: float, stopper: Stopper = NOBODY) -> Task:
        """Have a task end and return it once it has; one that has ended already is returned as it is.

        Raises `TaskNotFound`, and `Unavailable` where its runtime does not answer: the stop is carried out
        when it does. Cancelling the call does not cancel the stop either.
        """
        life = self._lives.get(task_id)
        if life is not None:
            if not life.stop_asked.is_set() or grace_s < life.grace_s:
                life.note(stopper)
                life.grace_s = grace_s
                life.stop_asked.set()
                if task_id in self._queue:
                    self._queue.leave(task_id)
                    self._background.start(f"call-off-{task_id}", self._call_off(life))
                elif life.task.state == "stopping":
                    await self._runtime(life.task).ask_to_stop(task_id, grace_s)
            await until_or(life.over.wait(), self._runtime(life.task).trouble(task_id))
        return await self.task(task_id)

    def owner_of(self, container_id: str, service_name: str | None) -> str | None:
        """Return whose task of a service a container is; None for none that lives, or an ambiguous id."""
        life = self._life_of(container_id)
        if life is None or service_name not in (None, life.task.framework):
            return None
        return life.task.user

    def note_stop(self, container_id: str, stopper: Stopper) -> None:
        """Note who is about to stop a task's container."""
        life = self._life_of(container_id)
        if life is not None:
            life.note(stopper)

    def _life_of(self, container_id: str) -> _Life | None:
        found = [
            life
            for life in self._lives.values()
            if container_id == life.task.task_id
            or (is_id_or_prefix(container_id) and _begins(container_id, life.task))
        ]
        return found[0] if len(found) == 1 else None

    async def settled(self, container_id: str) -> None:
        """Return once the record of a container's task says that it has ended; at once for what is no task."""
        for life in list(self._lives.values()):
            if container_id in (life.task.task_id, life.task.container_id):
                await life.over.wait()

    async def task(self, task_id: str) -> Task:
        """Return a task. Raises `TaskNotFound`."""
        life = self._lives.get(task_id)
        found = life.shown if life is not None else await self._store.task(task_id)
        if found is None:
            raise TaskNotFound(task_id)
        return self._with_standing(found)

    async def tasks(
        self, users: Collection[str] | None, service_uuid: str | None, active: bool | None
    ) -> Sequence[Task]:
        """Return the tasks that fit, newest first; of these users, or of all."""
        found = await self._store.tasks(users=users, service_uuid=service_uuid, active=active)
        return [self._with_standing(each) for each in found]

    def running(self, user: str, service_uuid: str, op: str) -> Task:
        """Return the task that works on a project's op. Raises `TaskNotFound`."""
        for life in self._lives.values():
            task = life.task
            if (task.user, task.service_uuid, task.op) == (user, service_uuid, op):
                return task
        raise TaskNotFound(f"{user}/{service_uuid} {op}")

    async def read_log(self, task: Task, offset: int, limit_bytes: int) -> LogPiece:
        """Return a piece of a task's output."""
        runtime = self._runtimes.get(task.runtime)
        if runtime is None:
            return LogPiece(offset, b"")
        return await asyncio.to_thread(runtime.read_log, task.task_id, offset, limit_bytes)

    def _with_standing(self, task: Task) -> Task:
        """Return a task that waits with its position and how long it should have to wait."""
        if task.task_id not in self._queue:
            return task
        now = asyncio.get_running_loop().time()
        if now >= self._standings_until or task.task_id not in self._standings:
            # Forty notebooks that wait ask all the time.
            self._standings, self._standings_until = self._queue.standings(), now + STANDINGS_S
        position, wait_s = self._standings[task.task_id]
        return msgspec.structs.replace(
            task, position=position, expected_wait_s=None if wait_s is None else round(wait_s, 1)
        )

    # --- living ----------------------------------------------------------------------------------

    async def resume(self) -> None:
        """Take up what an earlier run of the server left: adopt what runs, collect what has ended."""
        for task in reversed(await self._store.tasks(active=False, limit=HISTORY)):
            self._queue.durations.add(task)
        for task in reversed(await self._store.tasks(active=True, limit=100_000)):
            log.info("task.adopted", task=task.task_id, state=task.state)
            life = self._lives[task.task_id] = _Life(task)
            runtime = self._runtimes.get(task.runtime)
            if task.state == "queued" and (runtime is None or not runtime.has(task.task_id)):
                self._queue.add(task)
            else:  # it had its turn
                self._queue.occupy(task)
                self._begin(life)
        self._dispatch()

    async def watch_queue(self) -> None:
        """Look after those that wait, again and again; for the background."""
        while True:
            await asyncio.sleep(LOOK_AGAIN_S)
            if len(self._queue):
                self._dispatch()

    async def sweep(self) -> None:
        """Delete the records and the leftovers of tasks that ended too long ago; projects stay."""
        before = datetime.now(UTC) - timedelta(seconds=self._task_keep_s)
        for task_id in await self._store.forget_tasks(before):
            for runtime in self._runtimes.values():
                await runtime.remove(task_id)

    async def tidy(self) -> None:
        """Remove what runs for this server and is on no record."""
        for runtime in self._runtimes.values():
            await runtime.tidy(self._is_alive)

    async def _is_alive(self, task_id: str) -> bool:
        if task_id in self._lives:
            return True
        task = await self._store.task(task_id)
        return task is not None and not task.ended

    def _runtime(self, task: Task) -> TaskRuntime:
        """Return a task's runtime, or where this server has it no more, one that knows nothing of the task."""
        return self._runtimes.get(task.runtime) or next(iter(self._runtimes.values()))

    def _dispatch(self) -> None:
        """Start those whose turn it is, and tell the others what they wait for."""
        for decision in self._queue.next():
            life = self._lives[decision.task_id]
            if isinstance(decision, Start):
                self._begin(life, decision.gpus)
            else:
                self._background.start(f"waits-{decision.task_id}", self._tell_reason(life, decision.reason))

    async def _tell_reason(self, life: _Life, reason: Reason) -> None:
        def change(task: Task) -> Task:
            return msgspec.structs.replace(task, reason=reason) if task.task_id in self._queue else task

        await self._record(life, change)

    def _begin(self, life: _Life, gpus: Sequence[int] = ()) -> None:
        self._background.start(f"task-{life.task.task_id}", self._live(life, gpus))

    async def _live(self, life: _Life, gpus: Sequence[int]) -> None:
        try:
            await self._run(life, gpus)
        finally:
            self._over(life)
        self._queue.durations.add(life.task)
        self._dispatch()  # not where this is cancelled: the server stops
        if (runtime := self._runtimes.get(life.task.runtime)) is not None:
            await runtime.settle(life.task.task_id)

    async def _call_off(self, life: _Life) -> None:
        """End a task that has not had its turn."""
        try:
            await self._finish_unstarted(life)
        finally:
            self._over(life)
        self._dispatch()  # who waited behind it may not have to wait

    async def _finish_unstarted(self, life: _Life) -> None:
        await self._finish(life, End(reason="stopped"))

    def _over(self, life: _Life) -> None:
        self._queue.leave(life.task.task_id)
        self._lives.pop(life.task.task_id)
        life.over.set()

    async def _run(self, life: _Life, gpus: Sequence[int]) -> None:
        task_id = life.task.task_id
        if life.task.state == "queued":  # else the server died after this record
            await self._record(life, lambda task: advance(task, "starting", gpus=list(gpus)))
        runtime = self._runtimes.get(life.task.runtime)
        if runtime is None:
            detail = f"this server has no runtime {life.task.runtime!r}"
            await self._finish(life, End(reason="lost", detail=detail))
            return
        try:
            if not runtime.has(task_id):
                if life.stop_asked.is_set():
                    await self._finish_unstarted(life)
                    return
                await runtime.take_on(await self._launch(life.task))
        except (K12AIError, OSError) as error:  # its framework is gone, its disk is full, …
            log.warning("task.start_failed", task=task_id, reason=str(error))
            await self._finish(life, End(reason="start_failed", detail=str(error)))
        else:
            await self._watch(life, runtime)

    async def _launch(self, task: Task) -> Launch:
        framework = self._frameworks.get(task.framework)
        project_dir = await asyncio.to_thread(self._project_dir, task.user, task.service_uuid)
        return Launch(
            task_id=task.task_id,
            user=task.user,
            service_uuid=task.service_uuid,
            framework=task.framework,
            op=task.op,
            arguments=tuple(framework.command(task.op)),
            params=msgspec.json.encode(task.params),
            project_dir=project_dir,
            limits=task.limits,
            account_number=await self._store.account_number(task.user),
            network=framework.network,
            image=image_of(framework),
            gpus=tuple(task.gpus),
        )

    async def _watch(self, life: _Life, runtime: TaskRuntime) -> None:
        """Pass on what a task says until it has ended, then how it ended."""
        task_id = life.task.task_id
        journal = Journal.open(runtime.journal_path(task_id))
        reader = _Reader(journal, await self._store.journal_offset(task_id))
        has_ended = asyncio.Event()
        try:
            async with Background() as helpers:
                helpers.start(f"stop-{task_id}", self._pass_on_stop(life))
                tail = helpers.start(f"journal-{task_id}", self._tail(life, reader, has_ended))
                await runtime.started(task_id)
                if life.task.state == "starting":
                    container_id = runtime.container_of(task_id)
                    await self._record(life, lambda task: _begun(task, container_id))
                end = await runtime.wait(task_id)
                has_ended.set()
                await tail  # not cancelled: what it has handed to the store must not be read again
            left_bytes = await self._witness.memory_left_bytes(life.gpu_pids)
            await self._finish(life, end, reader, gpu_memory_left_bytes=left_bytes)
        finally:
            if journal is not None:
                journal.close()

    async def _pass_on_stop(self, life: _Life) -> None:
        if life.task.state == "stopping":
            # An earlier run of the server has asked, and the runtime has that and its grace in writing.
            life.gpu_pids = self._witness.pids(life.task.container_id)
            return
        await life.stop_asked.wait()
        life.gpu_pids = self._witness.pids(life.task.container_id)
        # First the deed, then the record: a full disk must not keep anybody from stopping.
        await self._runtime(life.task).ask_to_stop(life.task.task_id, life.grace_s)
        await self._record(
            life,
            lambda task: advance(task, "stopping", life.stopper.reason, stopped_by=life.stopper.user),
        )

    async def _finish(
        self, life: _Life, end: End, reader: _Reader | None = None, *, gpu_memory_left_bytes: int = 0
    ) -> None:
        """Record the end behind the last word; while the store is full or away, try again until it is written.

        Meanwhile everyone is told: whoever stops a task on a full disk must not wait for the disk.
        """
        reach("before_end")
        while True:
            try:
                if reader is not None:
                    await self._absorb(life, reader)
                task = ended(life.task, end, life.stopper, gpu_memory_left_bytes=gpu_memory_left_bytes)
                explained = task.state != "failed" or life.task.code is not None
                said = [] if explained else [messages.ended_badly(task)]
                await self._store.record_task(task, [*said, messages.status(task)], keep_s=self._keep_s)
            except K12AIError as error:
                log.warning("task.record_retry", task=life.task.task_id, reason=str(error))
                life.end_unrecorded = ended(
                    life.task, end, life.stopper, gpu_memory_left_bytes=gpu_memory_left_bytes
                )
                life.over.set()
                await asyncio.sleep(RETRY_S)
            else:
                life.task = task
                log.info("task.ended", task=task.task_id, state=task.state, reason=task.reason)
                return

    async def _tail(self, life: _Life, reader: _Reader, has_ended: asyncio.Event) -> None:
        """Absorb the journal again and again until the task has ended."""
        loop = asyncio.get_running_loop()
        while not has_ended.is_set():
            try:
                await self._absorb(life, reader)
            except K12AIError as error:
                log.warning("task.journal_waits", task=life.task.task_id, reason=str(error))
            # All tasks at the same beats: one waking of the process for all of them.
            beat = (loop.time() // TAIL_S + 1) * TAIL_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(beat):
                    await has_ended.wait()

    async def _absorb(self, life: _Life, reader: _Reader) -> None:
        """Make messages of what the journal has got since the last time."""
        while (piece := reader.next()) is not None:
            said = [messages.of_line(life.task, line) for line in piece.lines]
            if piece.bad:
                said.append(messages.unreadable_lines(life.task, piece.bad))
            code = _last_code(piece.lines)
            async with life.changing:
                task = life.task if code is None else msgspec.structs.replace(life.task, code=code)
                await self._store.record_task(task, said, journal_offset=piece.offset, keep_s=self._keep_s)
                life.task = task
            reader.offset = piece.offset

    async def _record(self, life: _Life, change: Callable[[Task], Task]) -> None:
        """Write a task's next state; while the store is full or away, try again until it is written."""
        async with life.changing:
            task = change(life.task)
            while task is not life.task:
                try:
                    await self._store.record_task(task, [messages.status(task)], keep_s=self._keep_s)
                except K12AIError as error:
                    log.warning("task.record_retry", task=task.task_id, reason=str(error))
                    await asyncio.sleep(RETRY_S)
                else:
                    life.task = task
                    self._queue.update(task)
                    return


def _begins(prefix: str, task: Task) -> bool:
    """Whether a container's id, or a beginning or the whole of it, is that of a task."""
    shown = task.container_id or task.task_id
    return shown.startswith(prefix) or prefix.startswith(shown)


def _begun(task: Task, container_id: str) -> Task:
    """Return the task as it is once it has begun; a stop can have come before that."""
    return task if task.state != "starting" else advance(task, "running", container_id=container_id)


def _filled(limits: Limits, defaults: Limits) -> Limits:
    given = {name: value for name in Limits.__struct_fields__ if (value := getattr(limits, name)) is not None}
    return msgspec.structs.replace(defaults, **given)


def _last_code(lines: Sequence[Line]) -> int | None:
    """Return the code of the last error that the program reported; its word, so it is checked."""
    codes = (line.data.get("code") for line in reversed(lines) if line.type == "error")
    return next((code for code in codes if isinstance(code, int) and code in CATALOGUE), None)

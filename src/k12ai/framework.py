"""The operations on tasks, for the published interface and for the modern one alike."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec

from k12ai.access.principal import Principal
from k12ai.envelope import decode_object
from k12ai.errors import BadParameter, InvalidValue, TaskNotFound
from k12ai.frameworks.base import Schema
from k12ai.models import DEFAULT_GRACE_S, Answer, FrameworkRequest
from k12ai.placement import Placement
from k12ai.projects import ProjectFiles
from k12ai.runtimes.base import LogPiece
from k12ai.task import FrameworkInfo, Limits, StartedMessage, Task, TaskRequest
from k12ai.tasks.manager import TaskManager
from k12ai.tasks.registry import Registry
from k12ai.texts import Language, Text

OPS = tuple(
    f"{what}.{verb}" for what in ("train", "evaluate", "predict", "runcode") for verb in ("start", "stop")
)
MAX_IDEMPOTENCY_KEY = 128

_STOPPED = Text("task service success", "任务服务成功")


class FrameworkService:
    """Starts and stops tasks for whoever asks."""

    def __init__(
        self, manager: TaskManager, registry: Registry, placement: Placement, files: ProjectFiles
    ) -> None:
        self._manager = manager
        self._registry = registry
        self._placement = placement
        self._files = files

    async def execute(
        self, request: FrameworkRequest, language: Language, principal: Principal, idempotency_key: str | None
    ) -> tuple[int, Answer]:
        """Carry out a published request; return the HTTP status and the answer."""
        if request.op.endswith(".stop"):
            task = await self.stop(request, principal)
            return 200, Answer(100000, _STOPPED.pick(language), StartedMessage.of(task))
        task = await self.start(request, principal, idempotency_key)
        return 202, Answer.success(StartedMessage.of(task), language)

    async def start(
        self, request: FrameworkRequest, principal: Principal, idempotency_key: str | None = None
    ) -> Task:
        """Submit a task; nothing of a request that is refused is started or recorded."""
        params = decode_object(request.service_params, BadParameter)
        wanted = TaskRequest(
            framework=request.service_name,
            op=request.op,
            user=request.user,
            service_uuid=request.service_uuid,
            params=params,
            limits=request.limits or Limits(),
        )
        return await self.submit(wanted, principal, idempotency_key)

    async def submit(
        self, wanted: TaskRequest, principal: Principal, idempotency_key: str | None = None
    ) -> Task:
        """Check what is wanted, and submit it.

        Raises `NotAllowed` where it is for somebody else, `QuotaExceeded` where that one has too much.
        """
        principal.require(wanted.user)
        if idempotency_key is not None and not 1 <= len(idempotency_key) <= MAX_IDEMPOTENCY_KEY:
            allowed = Text(f"1 to {MAX_IDEMPOTENCY_KEY} characters", f"1 到 {MAX_IDEMPOTENCY_KEY} 个字符")
            raise InvalidValue("Idempotency-Key", allowed)
        params = self._registry.check(wanted.framework, wanted.op, wanted.params)
        if self._files.limits_users:
            await asyncio.to_thread(self._files.require_room, wanted.user)
        runtime = await self._placement.runtime_for(self._registry.get(wanted.framework))
        checked = msgspec.structs.replace(wanted, params=params)
        return await self._manager.submit(checked, runtime, idempotency_key=idempotency_key)

    async def tasks(
        self, principal: Principal, user: str | None, service_uuid: str | None, active: bool | None
    ) -> Sequence[Task]:
        """Return the tasks that fit and exist for somebody, newest first."""
        users = principal.users
        if user is not None:
            users = frozenset({user} if principal.acts_for(user) else ())
        return await self._manager.tasks(users, service_uuid, active)

    async def task(self, task_id: str, principal: Principal) -> Task:
        """Return a task. Raises `TaskNotFound`, also for what is somebody else's."""
        task = await self._manager.task(task_id)
        if not principal.acts_for(task.user):
            raise TaskNotFound(task_id)
        return task

    async def has_ended(self, task_id: str) -> bool:
        """Whether a task has ended."""
        return (await self._manager.task(task_id)).ended

    async def stop_task(self, task_id: str, grace_s: float, principal: Principal, by: str = "") -> Task:
        """Stop a task and return it once it has ended. Raises `TaskNotFound`.

        ``by`` says who asks where no token does.
        """
        task = await self.task(task_id, principal)
        return await self._manager.stop(task_id, grace_s=grace_s, stopper=principal.stopper(task.user, by))

    async def read_log(self, task: Task, offset: int, limit_bytes: int) -> LogPiece:
        """Return a piece of a task's output."""
        return await self._manager.read_log(task, offset, limit_bytes)

    def frameworks(self, language: Language) -> list[FrameworkInfo]:
        """Return every framework, and what to install for those that cannot run yet."""
        return [
            FrameworkInfo(
                each.name,
                each.title.pick(language),
                list(each.ops),
                not each.missing,
                f"pip install 'k12ai[{each.extra}]'" if each.missing else "",
            )
            for each in self._registry
        ]

    async def stop(self, request: FrameworkRequest, principal: Principal) -> Task:
        """Stop the task that works on what the request names, and return it once it has ended."""
        principal.require(request.user)
        grace_s = _grace_s(decode_object(request.service_params, BadParameter))
        self._registry.get(request.service_name)
        start_op = request.op.removesuffix(".stop") + ".start"
        task = self._manager.running(request.user, request.service_uuid, start_op)
        stopper = principal.stopper(task.user, request.user)
        return await self._manager.stop(task.task_id, grace_s=grace_s, stopper=stopper)

    def schema(self, request: FrameworkRequest) -> Schema:
        """Return the JSON Schema of an op's parameters."""
        return self._registry.schema(request.service_name, request.op)


def _grace_s(params: dict[str, Any]) -> float:
    grace_s = params.get("timeout", DEFAULT_GRACE_S)
    if not isinstance(grace_s, (int, float)) or isinstance(grace_s, bool) or not 0 <= grace_s <= 600:
        raise BadParameter(
            "service_params.timeout", Text("a number of seconds from 0 to 600", "0 到 600 之间的秒数")
        )
    return float(grace_s)

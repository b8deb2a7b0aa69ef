"""The operations on tasks, for the published interface and for the modern one alike."""

from collections.abc import Sequence
from typing import Any

import msgspec

from k12ai.envelope import decode_framework_request, decode_object
from k12ai.errors import BadParameter, InvalidValue
from k12ai.frameworks.base import Schema
from k12ai.models import DEFAULT_GRACE_S, Answer, FrameworkRequest
from k12ai.placement import Placement
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

    def __init__(self, manager: TaskManager, registry: Registry, placement: Placement) -> None:
        self._manager = manager
        self._registry = registry
        self._placement = placement

    async def execute(self, body: bytes, language: Language, idempotency_key: str | None) -> tuple[int, Answer]:
        """Carry out a published request; return the HTTP status and the answer."""
        request = decode_framework_request(body, OPS)
        if request.op.endswith(".stop"):
            task = await self.stop(request)
            return 200, Answer(100000, _STOPPED.pick(language), StartedMessage.of(task))
        task = await self.start(request, idempotency_key)
        return 202, Answer.success(StartedMessage.of(task), language)

    async def start(self, request: FrameworkRequest, idempotency_key: str | None = None) -> Task:
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
        return await self.submit(wanted, idempotency_key)

    async def submit(self, wanted: TaskRequest, idempotency_key: str | None = None) -> Task:
        """Check what is wanted, and submit it."""
        if idempotency_key is not None and not 1 <= len(idempotency_key) <= MAX_IDEMPOTENCY_KEY:
            allowed = Text(f"1 to {MAX_IDEMPOTENCY_KEY} characters", f"1 到 {MAX_IDEMPOTENCY_KEY} 个字符")
            raise InvalidValue("Idempotency-Key", allowed)
        params = self._registry.check(wanted.framework, wanted.op, wanted.params)
        runtime = await self._placement.runtime_for(self._registry.get(wanted.framework))
        checked = msgspec.structs.replace(wanted, params=params)
        return await self._manager.submit(checked, runtime, idempotency_key=idempotency_key)

    async def tasks(self, user: str | None, service_uuid: str | None, active: bool | None) -> Sequence[Task]:
        """Return the tasks that fit, newest first."""
        return await self._manager.tasks(user, service_uuid, active)

    async def task(self, task_id: str) -> Task:
        """Return a task. Raises `TaskNotFound`."""
        return await self._manager.task(task_id)

    async def stop_task(self, task_id: str, grace_s: float, by: str = "") -> Task:
        """Stop a task and return it once it has ended; ``by`` says who asks. Raises `TaskNotFound`."""
        return await self._manager.stop(task_id, grace_s=grace_s, by=by)

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

    async def stop(self, request: FrameworkRequest) -> Task:
        """Stop the task that works on what the request names, and return it once it has ended."""
        grace_s = _grace_s(decode_object(request.service_params, BadParameter))
        self._registry.get(request.service_name)
        start_op = request.op.removesuffix(".stop") + ".start"
        task = self._manager.running(request.user, request.service_uuid, start_op)
        return await self._manager.stop(task.task_id, grace_s=grace_s, by=request.user)

    def schema(self, body: bytes) -> Schema:
        """Return the JSON Schema of an op's parameters."""
        request = decode_framework_request(body, OPS)
        return self._registry.schema(request.service_name, request.op)


def _grace_s(params: dict[str, Any]) -> float:
    grace_s = params.get("timeout", DEFAULT_GRACE_S)
    if not isinstance(grace_s, (int, float)) or isinstance(grace_s, bool) or not 0 <= grace_s <= 600:
        raise BadParameter(
            "service_params.timeout", Text("a number of seconds from 0 to 600", "0 到 600 之间的秒数")
        )
    return float(grace_s)

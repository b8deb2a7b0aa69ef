"""``/k12ai/framework``: starting and stopping tasks, and what their parameters may be, as published."""

import msgspec
from litestar.types import HTTPScope, Receive, Send

from k12ai.api import wire
from k12ai.api.answers import language_of, published
from k12ai.api.audit import about
from k12ai.api.roles import principal_of
from k12ai.closing import Closing
from k12ai.envelope import decode_framework_request
from k12ai.framework import OPS, FrameworkService
from k12ai.models import Answer, FrameworkRequest


class FrameworkRoutes:
    """The published routes of frameworks. Each reads the envelope, calls one thing and answers."""

    def __init__(self, service: FrameworkService, closing: Closing, *, max_body_bytes: int) -> None:
        self._service = service
        self._closing = closing
        self._max_body_bytes = max_body_bytes

    def routes(self) -> dict[str, wire.HttpApp]:
        """Return the routes by path; the older paths take the same body."""
        execute = published("POST")(self.execute)
        paths = ("execute", "train", "evaluate", "predict")
        return {
            **{f"/k12ai/framework/{path}": execute for path in paths},
            "/k12ai/framework/schema": published("POST")(self.schema),
        }

    async def execute(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        """Start a task, or stop one and answer when it is gone."""
        request = await self._request(scope, receive)
        action = "task.stop" if request.op.endswith(".stop") else "task.submit"
        work = f"{request.user}/{request.service_uuid} {request.op}"
        about(scope, action, work)
        key = wire.header(scope, b"idempotency-key")
        status, answer = await self._closing.unless(
            self._service.execute(
                request, language_of(scope), principal_of(scope), None if key is None else key.decode("latin-1")
            )
        )
        about(scope, action, f"{answer.message.task_id} {work}")
        await wire.send_answer(send, status, msgspec.json.encode(answer))

    async def schema(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        """Answer with the JSON Schema of a framework's parameters."""
        schema = self._service.schema(await self._request(scope, receive))
        await wire.send_answer(send, 200, msgspec.json.encode(Answer.success(schema, language_of(scope))))

    async def _request(self, scope: HTTPScope, receive: Receive) -> FrameworkRequest:
        wire.require_json(scope)
        body = await wire.read_body(scope, receive, self._max_body_bytes)
        return decode_framework_request(body, OPS)

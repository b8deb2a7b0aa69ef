"""``/api/v1``: tasks as resources: submit, look, stop, follow what they say and what they print."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
from litestar import HttpMethod, MediaType, Request, Response, get, post, route
from litestar.handlers import HTTPRouteHandler
from litestar.response import Stream
from litestar.types import HTTPScope

from k12ai.api import wire
from k12ai.api.answers import language_of
from k12ai.api.audit import about
from k12ai.api.parameters import flag, json_response, number, whole
from k12ai.api.roles import principal_of, still_stands
from k12ai.closing import Closing
from k12ai.envelope import decode_body
from k12ai.errors import InvalidValue
from k12ai.framework import FrameworkService
from k12ai.models import DEFAULT_GRACE_S, MAX_GRACE_S
from k12ai.platform import Platform
from k12ai.projects import check_identifier
from k12ai.task import ENDED, Message, MessageType, Task, TaskRequest
from k12ai.tasks.feed import MAX_WAIT_S, TYPES, Feed
from k12ai.texts import Text

_LOG_PIECE_BYTES = 256 * 1024
_FOLLOW_S = 0.2
_HEARTBEAT_S = 15.0

AnyRequest = Request[Any, Any, Any]


class TaskRoutes:
    """The resources of tasks, and of the host and the frameworks they run on."""

    def __init__(self, service: FrameworkService, feed: Feed, platform: Platform, closing: Closing) -> None:
        self._service = service
        self._feed = feed
        self._platform = platform
        self._closing = closing

    def handlers(self) -> Sequence[HTTPRouteHandler]:
        """Return the routes for the application."""

        # One handler for both: Allow, in the answer to OPTIONS, names the methods of one.
        @route("/api/v1/tasks", http_method=[HttpMethod.GET, HttpMethod.POST])
        async def tasks(request: AnyRequest) -> Response[bytes]:
            return await (self._submit if request.method == HttpMethod.POST else self._list)(request)

        @get("/api/v1/tasks/{task_id:str}")
        async def task(request: AnyRequest) -> Response[bytes]:
            return json_response(await self._task(request))

        @post("/api/v1/tasks/{task_id:str}/stop")
        async def stop(request: AnyRequest) -> Response[bytes]:
            return json_response(await self._stop(request))

        @get("/api/v1/tasks/{task_id:str}/messages")
        async def messages(request: AnyRequest) -> Response[bytes]:
            query = request.query_params
            after = whole(query.get("after"), "after")
            wait_s = number(query.get("wait"), "wait", 0, MAX_WAIT_S)
            task = await self._task(request)
            types = _types(query.get("type"))
            return json_response(await self._feed.after(task, after, types=types, wait_s=wait_s))

        @get("/api/v1/tasks/{task_id:str}/events")
        async def events(request: AnyRequest) -> Stream:
            after = whole(request.query_params.get("after"), "after")
            if last := request.headers.get("last-event-id"):
                after = whole(last, "Last-Event-ID")
            task = await self._task(request)
            return Stream(self._events(request.scope, task, after), media_type="text/event-stream")

        @get("/api/v1/tasks/{task_id:str}/logs")
        async def logs(request: AnyRequest) -> Stream:
            query = request.query_params
            offset = whole(query.get("offset"), "offset")
            follow = flag(query.get("follow"), "follow") or False
            task = await self._task(request)
            return Stream(self._output(request.scope, task, offset, follow=follow), media_type=MediaType.TEXT)

        @get("/api/v1/frameworks")
        async def frameworks(request: AnyRequest) -> Response[bytes]:
            return json_response({"frameworks": self._service.frameworks(language_of(request.scope))})

        @get("/api/v1/host")
        async def host(request: AnyRequest) -> Response[bytes]:
            body = self._platform.everything(language_of(request.scope), principal_of(request.scope))
            return Response(body, media_type=MediaType.JSON)

        return [tasks, task, stop, messages, events, logs, frameworks, host]

    async def _list(self, request: AnyRequest) -> Response[bytes]:
        query = request.query_params
        active = flag(query.get("active"), "active")
        found = await self._service.tasks(
            principal_of(request.scope), query.get("user"), query.get("service_uuid"), active
        )
        return json_response({"tasks": found})

    async def _submit(self, request: AnyRequest) -> Response[bytes]:
        wire.require_json(request.scope)
        wanted = decode_body(await request.body(), TaskRequest)
        check_identifier("user", wanted.user)
        check_identifier("service_uuid", wanted.service_uuid)
        principal = principal_of(request.scope)
        about(request.scope, "task.submit", f"{wanted.user}/{wanted.service_uuid} {wanted.op}")
        task = await self._service.submit(wanted, principal, request.headers.get("idempotency-key"))
        about(request.scope, "task.submit", f"{task.task_id} {task.user}/{task.service_uuid} {task.op}")
        return json_response(task, 202, {"Location": f"/api/v1/tasks/{task.task_id}"})

    async def _stop(self, request: AnyRequest) -> Task:
        query = request.query_params
        grace_s = number(query.get("timeout"), "timeout", DEFAULT_GRACE_S, MAX_GRACE_S)
        by = query.get("user", "")
        if "user" in query:
            check_identifier("user", by)
        principal = principal_of(request.scope)
        stopping = self._service.stop_task(request.path_params["task_id"], grace_s, principal, by)
        return await self._closing.unless(stopping)

    async def _task(self, request: AnyRequest) -> Task:
        return await self._service.task(request.path_params["task_id"], principal_of(request.scope))

    async def _events(self, scope: HTTPScope, task: Task, after: int) -> AsyncIterator[bytes]:
        """Yield server-sent events: each message as it comes, a comment now and then, an end with the task.

        It ends with the caller's token, too.
        """
        ended = False
        while not self._closing.started and still_stands(scope):
            ended = ended or await self._service.has_ended(task.task_id)  # before reading, as in `_output`
            found = await self._feed.after(task, after, wait_s=0.0 if ended else _HEARTBEAT_S)
            for each in found.messages:
                yield b"id: %d\nevent: %b\ndata: %b\n\n" % (
                    each.sequence,
                    each.type.encode(),
                    msgspec.json.encode(each),
                )
                ended = ended or _tells_of_the_end(each)
            after = found.cursor
            if not found.messages:
                if ended:
                    return
                yield b": still here\n\n"

    async def _output(self, scope: HTTPScope, task: Task, offset: int, *, follow: bool) -> AsyncIterator[bytes]:
        """Yield a task's output from ``offset`` on; with ``follow``, until it or the token has ended."""
        while still_stands(scope):
            ended = await self._service.has_ended(task.task_id)  # before reading: nothing comes after it
            piece = await self._service.read_log(task, offset, _LOG_PIECE_BYTES)
            if piece.data:
                offset = piece.offset + len(piece.data)
                yield piece.data
            elif not follow or ended or self._closing.started:
                return
            else:
                await asyncio.sleep(_FOLLOW_S)


def _tells_of_the_end(message: Message) -> bool:
    """Whether it is the last one of a task; it can be read just before the task itself says so."""
    body = message.body
    return message.type == "status" and isinstance(body, dict) and body.get("value") in ENDED


def _types(given: str | None) -> Sequence[MessageType]:
    if given is None:
        return TYPES
    wanted = [kind for kind in TYPES if kind in given.split(",")]
    if len(wanted) != len(set(given.split(","))):
        names = ", ".join(TYPES)
        raise InvalidValue("type", Text(f"of {names}", f"以下之一：{names}"))
    return wanted

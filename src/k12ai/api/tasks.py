"""``/api/v1``: tasks as resources: submit, look, stop, follow what they say and what they print."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
from litestar import MediaType, Request, Response, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.response import Stream

from k12ai.api.answers import language_of
from k12ai.closing import Closing
from k12ai.envelope import decode_body
from k12ai.errors import InvalidValue
from k12ai.framework import FrameworkService
from k12ai.models import DEFAULT_GRACE_S, MAX_GRACE_S, Part
from k12ai.monitor.monitor import Monitor
from k12ai.task import MessageType, Task, TaskRequest
from k12ai.tasks.feed import TYPES, Feed
from k12ai.texts import Text

_LOG_PIECE_BYTES = 256 * 1024
_FOLLOW_S = 0.2
_HEARTBEAT_S = 15.0

AnyRequest = Request[Any, Any, Any]


class TaskRoutes:
    """The resources of tasks, and of the host and the frameworks they run on."""

    def __init__(self, service: FrameworkService, feed: Feed, monitor: Monitor, closing: Closing) -> None:
        self._service = service
        self._feed = feed
        self._monitor = monitor
        self._closing = closing

    def handlers(self) -> Sequence[HTTPRouteHandler]:
        """Return the routes for the application."""

        @get("/api/v1/tasks")
        async def tasks(request: AnyRequest) -> Response[bytes]:
            query = request.query_params
            active = _flag(query.get("active"), "active")
            found = await self._service.tasks(query.get("user"), query.get("service_uuid"), active)
            return _json({"tasks": found})

        @post("/api/v1/tasks")
        async def submit(request: AnyRequest) -> Response[bytes]:
            wanted = decode_body(await request.body(), TaskRequest)
            task = await self._service.submit(wanted, request.headers.get("idempotency-key"))
            return _json(task, 202, {"Location": f"/api/v1/tasks/{task.task_id}"})

        @get("/api/v1/tasks/{task_id:str}")
        async def task(request: AnyRequest) -> Response[bytes]:
            return _json(await self._task(request))

        @post("/api/v1/tasks/{task_id:str}/stop")
        async def stop(request: AnyRequest) -> Response[bytes]:
            grace_s = _number(request.query_params.get("timeout"), "timeout", DEFAULT_GRACE_S, MAX_GRACE_S)
            stopping = self._service.stop_task(request.path_params["task_id"], grace_s)
            return _json(await self._closing.unless(stopping))

        @get("/api/v1/tasks/{task_id:str}/messages")
        async def messages(request: AnyRequest) -> Response[bytes]:
            query = request.query_params
            after = int(_number(query.get("after"), "after", 0, 1 << 62))
            wait_s = _number(query.get("wait"), "wait", 0, 600)
            task = await self._task(request)
            types = _types(query.get("type"))
            return _json(await self._feed.after(task, after, types=types, wait_s=wait_s))

        @get("/api/v1/tasks/{task_id:str}/events")
        async def events(request: AnyRequest) -> Stream:
            last = request.headers.get("last-event-id") or request.query_params.get("after")
            after = int(_number(last, "after", 0, 1 << 62))
            task = await self._task(request)
            return Stream(self._events(task, after), media_type="text/event-stream")

        @get("/api/v1/tasks/{task_id:str}/logs")
        async def logs(request: AnyRequest) -> Stream:
            query = request.query_params
            offset = int(_number(query.get("offset"), "offset", 0, 1 << 62))
            follow = _flag(query.get("follow"), "follow") or False
            task = await self._task(request)
            return Stream(self._output(task, offset, follow=follow), media_type="text/plain; charset=utf-8")

        @get("/api/v1/frameworks")
        async def frameworks(request: AnyRequest) -> Response[bytes]:
            return _json({"frameworks": self._service.frameworks(language_of(request.scope))})

        @get("/api/v1/host")
        async def host(request: AnyRequest) -> Response[bytes]:
            every_part = Part.PUBLISHED | Part.NODES | Part.USERS
            body = self._monitor.latest.encoded(every_part, language_of(request.scope))
            return Response(body, media_type=MediaType.JSON)

        return [tasks, submit, task, stop, messages, events, logs, frameworks, host]

    async def _task(self, request: AnyRequest) -> Task:
        return await self._service.task(request.path_params["task_id"])

    async def _events(self, task: Task, after: int) -> AsyncIterator[bytes]:
        """Yield server-sent events: each message as it comes, a comment now and then, an end with the task."""
        while not self._closing.started:
            found = await self._feed.after(task, after, wait_s=_HEARTBEAT_S)
            for each in found.messages:
                yield b"id: %d\nevent: %b\ndata: %b\n\n" % (
                    each.sequence,
                    each.type.encode(),
                    msgspec.json.encode(each),
                )
            after = found.cursor
            if not found.messages:
                if (await self._service.task(task.task_id)).ended:
                    return
                yield b": still here\n\n"

    async def _output(self, task: Task, offset: int, *, follow: bool) -> AsyncIterator[bytes]:
        """Yield a task's output from ``offset`` on; with ``follow``, until it has ended."""
        while True:
            ended = (await self._service.task(task.task_id)).ended  # before reading: nothing comes after it
            piece = await self._service.read_log(task, offset, _LOG_PIECE_BYTES)
            if piece.data:
                offset = piece.offset + len(piece.data)
                yield piece.data
            elif not follow or ended or self._closing.started:
                return
            else:
                await asyncio.sleep(_FOLLOW_S)


def _json(body: object, status: int = 200, headers: dict[str, str] | None = None) -> Response[bytes]:
    return Response(
        msgspec.json.encode(body), status_code=status, media_type=MediaType.JSON, headers=headers or {}
    )


def _number(given: str | None, name: str, default: float, highest: float) -> float:
    try:
        number = default if given is None else float(given)
    except ValueError:
        number = -1.0
    if not 0 <= number <= highest:
        raise InvalidValue(name, Text(f"a number from 0 to {highest:g}", f"0 到 {highest:g} 之间的数"))
    return number


def _flag(given: str | None, name: str) -> bool | None:
    if given is None:
        return None
    if given not in ("true", "false", ""):
        raise InvalidValue(name, Text("true or false", " true 或 false"))
    return given != "false"


def _types(given: str | None) -> Sequence[MessageType]:
    if given is None:
        return TYPES
    wanted = [kind for kind in TYPES if kind in given.split(",")]
    if len(wanted) != len(set(given.split(","))):
        names = ", ".join(TYPES)
        raise InvalidValue("type", Text(f"of {names}", f"以下之一：{names}"))
    return wanted

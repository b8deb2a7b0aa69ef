"""What the OpenAPI document says of tasks, and of the frameworks and the host that they run on."""

from collections.abc import Sequence

from k12ai import errors
from k12ai.api.openapi_parts import (
    IDENTIFIER,
    JSON,
    OF_THE_ENVELOPE,
    OF_THE_STORE,
    TEXT,
    Error,
    Part,
    answer,
    envelope,
    field,
    links,
    listed,
    path,
    query,
    refusals,
    resource,
    response,
    shape,
    whole,
)
from k12ai.api.parameters import MAX_CURSOR
from k12ai.framework import MAX_IDEMPOTENCY_KEY, OPS
from k12ai.models import DEFAULT_GRACE_S, MAX_GRACE_S, FrameworkRequest
from k12ai.task import TASK_ID_DIGITS, FrameworkInfo, Message, Messages, StartedMessage, Task, TaskRequest
from k12ai.tasks.feed import MAX_WAIT_S, TYPES

SHAPES = (
    FrameworkRequest, StartedMessage, Task, TaskRequest, Message, Messages, FrameworkInfo,
)  # fmt: skip

TAG = {"name": "Tasks", "description": "Training, evaluating, predicting, and running programs."}

_STARTS = [op for op in OPS if op.endswith(".start")]
_PROGRAM = {"code": "print('hello')\n"}
_KEY = field(
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": MAX_IDEMPOTENCY_KEY},
    "Sent again with the same key, a request starts nothing: it is answered with the task of then",
)

_OF_STARTING: tuple[Error, ...] = (
    errors.BadParameter, errors.TaskRunning, errors.FrameworkNotInstalled, errors.ImageMissing, *OF_THE_STORE,
)  # fmt: skip
# The stop is kept where the Engine is away, and the answer says so.
_OF_STOPPING: tuple[Error, ...] = (errors.ServerStopping, errors.EngineUnavailable, errors.EngineTimeout)
# An id with a '/' in it is a path that is not there.
_OF_ONE_TASK: tuple[Error, ...] = (
    errors.InvalidValue, errors.TaskNotFound, errors.ResourceNotFound, errors.StorageUnavailable,
)  # fmt: skip

_TASK_ID = path(
    "task_id",
    {"type": "string", "pattern": rf"^[0-9a-f]{{{TASK_ID_DIGITS}}}$(?!\n)"},
    "The id that the start was answered with",
)
_FLAG = {"enum": ["true", "false", ""]}  # empty: true
_CURSOR = whole(MAX_CURSOR)


def paths() -> Part:
    """Return the operations by path and method."""
    task = "/api/v1/tasks/{task_id}"
    return {
        "/k12ai/framework/execute": {"post": _execute("execute", "Start a task, or stop one")},
        "/k12ai/framework/train": {"post": _execute("train", "The same, under an older name")},
        "/k12ai/framework/evaluate": {"post": _execute("evaluate", "The same, under an older name")},
        "/k12ai/framework/predict": {"post": _execute("predict", "The same, under an older name")},
        "/k12ai/framework/schema": {"post": _schema()},
        "/api/v1/tasks": {"get": _tasks(), "post": _submit()},
        task: {"parameters": [_TASK_ID], "get": _task()},
        f"{task}/stop": {"parameters": [_TASK_ID], "post": _stop()},
        f"{task}/messages": {"parameters": [_TASK_ID], "get": _messages()},
        f"{task}/events": {"parameters": [_TASK_ID], "get": _events()},
        f"{task}/logs": {"parameters": [_TASK_ID], "get": _logs()},
        "/api/v1/frameworks": {"get": _frameworks()},
        "/api/v1/host": {"get": _host()},
    }


# --- tasks, as published -------------------------------------------------------------------------


def _execute(name: str, summary: str) -> Part:
    started = _started("Started, or waiting for its turn; what it says is published below the key")
    started["links"] = _task_links("$response.body#/message/task_id")
    return {
        "operationId": name,
        "summary": summary,
        "tags": ["Tasks"],
        "parameters": [_KEY],
        "requestBody": _request(OPS, _PROGRAM),
        "responses": {
            "200": _started("Stopped: it has ended"),
            "202": started,
            **refusals(envelope, (*OF_THE_ENVELOPE, *_OF_STARTING, errors.TaskNotFound, *_OF_STOPPING)),
        },
    }


def _schema() -> Part:
    return {
        "operationId": "schema",
        "summary": "What the parameters of an op may be, as JSON Schema",
        "tags": ["Tasks"],
        "requestBody": _request(_STARTS, None),
        "responses": {
            "200": response("The JSON Schema", JSON, answer([100000], {"type": "object"})),
            **refusals(envelope, OF_THE_ENVELOPE),
        },
    }


def _request(ops: Sequence[str], params: Part | None) -> Part:
    schema = {"allOf": [shape("FrameworkRequest")], "properties": {"op": {"enum": list(ops)}}}
    filled: Part = {"op": "runcode.start", "user": "test", "service_name": "k12py", "service_uuid": "uuid"}
    if params is not None:
        filled |= {"service_params": params}
    return {"required": True, "content": {JSON: {"schema": schema, "examples": {"k12py": {"value": filled}}}}}


def _started(description: str) -> Part:
    return response(description, JSON, answer([100000], shape("StartedMessage")))


# --- tasks as resources --------------------------------------------------------------------------


def _tasks() -> Part:
    parameters = [
        query("user", {"type": "string"}, "Only this user's"),
        query("service_uuid", {"type": "string"}, "Only this project's"),
        query("active", _FLAG, "Only those that have not ended, or that have"),
    ]
    return _resource(
        "tasks",
        "The tasks, newest first",
        {"200": response("The tasks", JSON, listed("tasks", "Task"))},
        (errors.InvalidValue, errors.StorageUnavailable),
        parameters,
    )


def _submit() -> Part:
    submitted = response("Recorded; it starts when it is its turn", JSON, shape("Task"), ("Location",))
    submitted["links"] = _task_links("$response.body#/task_id")
    filled = {"framework": "k12py", "op": "runcode.start", "user": "test", "service_uuid": "uuid"}
    schema = {
        "allOf": [shape("TaskRequest")],
        "properties": {"op": {"enum": _STARTS}, "user": IDENTIFIER, "service_uuid": IDENTIFIER},
    }
    operation = _resource(
        "task_submit",
        "Start a task",
        {"202": submitted},
        (*OF_THE_ENVELOPE, *_OF_STARTING),
        [_KEY],
    )
    operation["requestBody"] = {
        "required": True,
        "content": {
            JSON: {
                "schema": schema,
                "examples": {"k12py": {"value": filled | {"params": _PROGRAM}}},
            }
        },
    }
    return operation


def _task() -> Part:
    return _resource("task", "A task", {"200": response("The task", JSON, shape("Task"))}, _OF_ONE_TASK)


def _stop() -> Part:
    seconds = {"type": "number", "minimum": 0, "maximum": MAX_GRACE_S, "default": DEFAULT_GRACE_S}
    return _resource(
        "task_stop",
        "Stop a task and answer when it has ended",
        {"200": response("The task, which has ended", JSON, shape("Task"))},
        (*_OF_ONE_TASK, *_OF_STOPPING),
        [
            query("timeout", seconds, "Seconds between SIGTERM and SIGKILL"),
            query("user", IDENTIFIER, "Who asks; the task says it as `stopped_by`"),
        ],
    )


def _messages() -> Part:
    types = {"type": "string", "pattern": rf"^(?:{'|'.join(TYPES)})(?:,(?:{'|'.join(TYPES)}))*$(?!\n)"}
    seconds = {"type": "number", "minimum": 0, "maximum": MAX_WAIT_S}
    parameters = [
        query("after", _CURSOR, "Only those behind this cursor"),
        query("wait", seconds, "Seconds to wait for one where there is none"),
        query("type", types, "Only of these types, separated by ','"),
    ]
    return _resource(
        "task_messages",
        "What a task has said",
        {"200": response("The messages, and the cursor to go on from", JSON, shape("Messages"))},
        _OF_ONE_TASK,
        parameters,
    )


def _events() -> Part:
    last_seen = {"anyOf": [_CURSOR, {"const": ""}]}
    parameters = [
        query("after", _CURSOR, "Only messages behind this cursor"),
        field("Last-Event-ID", last_seen, "The same, as browsers send it; goes before `after`"),
    ]
    event = {  # each of the stream's
        "type": "object",
        "properties": {
            "id": {"type": "string", "pattern": "^[0-9]+$"},
            "event": {"enum": list(TYPES)},
            "data": {"type": "string", "contentMediaType": JSON, "contentSchema": shape("Message")},
        },
        "required": ["id", "event", "data"],
    }
    return _resource(
        "task_events",
        "What a task says, as server-sent events, until it has ended",
        {"200": response("A message an event; its id is the cursor", "text/event-stream", event)},
        _OF_ONE_TASK,
        parameters,
    )


def _logs() -> Part:
    parameters = [
        query("offset", _CURSOR, "From this byte on"),
        query("follow", _FLAG, "Whether to go on until the task has ended"),
    ]
    printed = response("What the task printed, byte for byte", TEXT, {})
    printed["content"][TEXT] = {}
    return _resource("task_logs", "What a task has printed", {"200": printed}, _OF_ONE_TASK, parameters)


def _frameworks() -> Part:
    return _resource(
        "frameworks",
        "What tasks can run",
        {"200": response("The frameworks", JSON, listed("frameworks", "FrameworkInfo"))},
        (),
    )


def _host() -> Part:
    return _resource(
        "host",
        "The host, its GPUs, nodes, users and containers",
        {"200": response("The latest measurement", JSON, shape("StatsMessage"))},
        (),
    )


def _resource(
    name: str, summary: str, success: Part, refuses: Sequence[Error], parameters: Sequence[Part] = ()
) -> Part:
    return resource("Tasks", name, summary, success, refuses, parameters)


def _task_links(task_id: str) -> Part:
    follow = ("task", "task_stop", "task_messages", "task_events", "task_logs")
    return links({"path.task_id": task_id}, *follow)

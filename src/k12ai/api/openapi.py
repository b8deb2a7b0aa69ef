"""The OpenAPI 3.1 document: the routes by hand, the shapes from the classes that are sent.

What an operation refuses is listed as the errors it raises: their statuses, codes and header fields
are taken from the classes. Faults (500) and methods that a path does not have (405) belong to no
operation, so the description names them for all.
"""

from collections.abc import Sequence

import msgspec

from k12ai import errors
from k12ai._version import __version__
from k12ai.api import openapi_access, openapi_files, openapi_tasks
from k12ai.api.kv import MAX_KEY_LENGTH, BadKvRequest, EntryBody, LocksNotSupported
from k12ai.api.openapi_parts import (
    BYTES,
    HEADERS,
    JSON,
    OF_THE_ENVELOPE,
    OF_THE_STORE,
    TEXT,
    Error,
    Part,
    answer,
    envelope,
    flag,
    links,
    path,
    plain,
    problem,
    query,
    refusals,
    response,
    shape,
    whole,
)
from k12ai.models import (
    SERVICES,
    AcceptedMessage,
    Answer,
    Health,
    PlatformRequest,
    Problem,
    ResultEnvelope,
    StatsMessage,
    StatsParams,
    StopParams,
)

_SHAPES = (
    PlatformRequest, StatsParams, StopParams, StatsMessage, AcceptedMessage, Answer, ResultEnvelope,
    EntryBody, Health, Problem, *openapi_tasks.SHAPES,
    *openapi_files.SHAPES, *openapi_access.SHAPES,
)  # fmt: skip

_DESCRIPTION = """\
What the machine is doing, control, results under keys, tasks and the files of projects.

Errors under `/k12ai` are envelopes, under `/v1/kv` plain text, elsewhere problem documents. Beside
what each operation lists, in the same forms: a path answers 405, with the field `Allow`, to methods
it does not have, and a fault of the server is a 500. The server's log has the cause of every answer
under its `X-Request-Id`."""

_OF_ACCEPTING: tuple[Error, ...] = (errors.TooManyRequestsPending, *OF_THE_STORE)

_UINT64 = whole((1 << 64) - 1)
_DURATION = {
    "type": "string",
    "maxLength": 64,
    "pattern": r"^(?:0?|[+-]?(?:(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h))+)$(?!\n)",
    "examples": ["10s", "5m"],
}


def document() -> Part:
    """Return the document."""
    _, shapes = msgspec.json.schema_components(_SHAPES, ref_template="#/components/schemas/{name}")
    return {
        "openapi": "3.1.0",
        "info": {"title": "K12AI", "version": __version__, "description": _DESCRIPTION},
        "tags": [
            {"name": "Platform", "description": "What the machine is doing, and control."},
            openapi_tasks.TAG,
            openapi_files.TAG,
            openapi_access.TAG,
            {"name": "Results", "description": "Keys and values, as Consul serves them."},
            {"name": "Server", "description": "For operators."},
        ],
        "paths": {
            "/k12ai/platform/stats": {"post": _stats()},
            "/k12ai/platform/control": {"post": _control()},
            **openapi_tasks.paths(),
            **openapi_files.paths(),
            **openapi_access.paths(),
            "/v1/kv/{key}": {
                "parameters": [_KEY],
                "get": _kv_get(),
                "put": _kv_put(),
                "delete": _kv_delete(),
            },
            "/health": {"get": _health()},
            "/metrics": {"get": _metrics()},
        },
        "security": [{"token": []}, {}],
        "components": {
            "schemas": shapes,
            "headers": HEADERS,
            "securitySchemes": openapi_access.SECURITY_SCHEMES,
        },
    }


_KEY = path(
    "key",
    {
        "type": "string",
        "maxLength": MAX_KEY_LENGTH,
        # No '/' at the beginning, no segment '.' or '..', no control characters. `(?!\n)`: some
        # dialects' `$` also matches before a line feed at the end.
        "pattern": r"^(?!/)(?!(?:.*/)?\.{1,2}(?:/|$))[^\x00-\x1f\x7f]*$(?!\n)",
    },
    "The key; a '/' in it is a character like others. May be empty with `recurse` or `keys`.",
)
_SAME_KEY = {"path.key": "$request.path.key"}
_INDEX = ("X-Consul-Index", "X-Consul-KnownLeader", "X-Consul-LastContact")


# --- the operations ------------------------------------------------------------------------------


def _stats() -> Part:
    schema = {"anyOf": [*_params("StatsParams"), {"type": "null"}]}
    return _platform_operation(
        "stats",
        "The host, its GPUs and the containers",
        _request("query", schema, {"cpus": True, "gpus": True, "disks": False, "containers": True}),
        shape("StatsMessage"),
        (*OF_THE_ENVELOPE, *_OF_ACCEPTING),
    )


def _control() -> Part:
    request = _request("container.stop", {"anyOf": _params("StopParams")}, {"id": "f3726eae19d6"})
    request["content"][JSON]["schema"]["required"] = ["service_params"]
    engine = (errors.ContainerNotFound, errors.EngineUnavailable, errors.EngineTimeout, errors.ServerStopping)
    return _platform_operation(
        "control",
        "Stop a container",
        request,
        {"type": "string"},
        (*OF_THE_ENVELOPE, *_OF_ACCEPTING, *engine),
    )


def _params(name: str) -> list[Part]:
    text = {"type": "string", "contentMediaType": JSON, "contentSchema": shape(name)}
    return [shape(name), text | {"description": "A string that holds the object"}]


def _request(op: str, params: Part, example: Part) -> Part:
    schema = {
        "allOf": [shape("PlatformRequest")],
        "properties": {
            "op": {"const": op},
            "service_name": {"enum": list(SERVICES)},
            "service_params": params,
        },
    }
    # In the order of the published request; the page fills its form with it.
    filled: Part = {"op": op, "user": "test", "service_name": "k12platform", "service_uuid": "uuid"}
    filled |= {"service_params": example, "async": False}
    return {"required": True, "content": {JSON: {"schema": schema, "examples": {op: {"value": filled}}}}}


def _platform_operation(
    name: str, summary: str, request: Part, message: Part, refuses: Sequence[Error]
) -> Part:
    accepted = response(
        "Accepted: the result is published below the key", JSON, answer([100000], shape("AcceptedMessage"))
    )
    accepted["links"] = {
        "result": {"operationId": "kv_get", "parameters": {"path.key": "{$response.body#/message/key}/result"}}
    }
    return {
        "operationId": name,
        "summary": summary,
        "tags": ["Platform"],
        "requestBody": request,
        "responses": {
            "200": response("Done", JSON, answer([100000], message)),
            "202": accepted,
            **refusals(envelope, refuses),
        },
    }


def _kv_get() -> Part:
    parameters = [
        flag("recurse", "Every entry whose key starts with `key`"),
        flag("keys", "Only the names"),
        flag("raw", "The value's bytes alone"),
        query("separator", {"type": "string"}, "With `keys`: cut names after their first separator"),
        query("index", _UINT64, "Answer once something is newer than this index") | {"allowEmptyValue": True},
        query("wait", _DURATION, "How long to wait for that, as Go writes durations; at most 10m"),
    ]
    entries = {
        "anyOf": [
            {"type": "array", "items": shape("EntryBody"), "minItems": 1},
            {"type": "array", "items": {"type": "string"}},
        ]
    }
    found = response("The entries, or the names with `keys`", JSON, entries, _INDEX)
    found["content"][TEXT] = {}  # the value's bytes, whatever they are
    missing = response("Nothing is there; the body is empty", TEXT, {"type": "string", "maxLength": 0}, _INDEX)
    operation = _kv_operation(
        "kv_get",
        "Read entries, waiting for a change where asked",
        parameters,
        found,
        (errors.StorageUnavailable,),
    )
    operation["responses"] = dict(sorted((operation["responses"] | {"404": missing}).items()))
    return operation


def _kv_put() -> Part:
    parameters = [
        query("flags", _UINT64, "A number kept with the value"),
        query("cas", _UINT64, "Write only if this is the entry's ModifyIndex; 0: only if new"),
    ]
    written = response("Whether it was written", JSON, {"type": "boolean"})
    written["links"] = links(_SAME_KEY, "kv_get", "kv_delete")
    operation = _kv_operation(
        "kv_put",
        "Write a value of at most 512 KiB",
        parameters,
        written,
        (errors.TooLarge, LocksNotSupported, *OF_THE_STORE),
    )
    operation["requestBody"] = {"content": {BYTES: {}}}
    return operation


def _kv_delete() -> Part:
    parameters = [
        flag("recurse", "Every key that starts with `key`, as a plain string prefix; not with `cas`"),
        query("cas", _UINT64, "Delete only if this is the entry's ModifyIndex"),
    ]
    deleted = response("Whether it is gone", JSON, {"type": "boolean"})
    deleted["links"] = links(_SAME_KEY, "kv_get")
    return _kv_operation("kv_delete", "Delete entries", parameters, deleted, OF_THE_STORE)


def _kv_operation(
    name: str,
    summary: str,
    parameters: list[Part],
    success: Part,
    refuses: Sequence[Error],
) -> Part:
    return {
        "operationId": name,
        "summary": summary,
        "tags": ["Results"],
        "parameters": parameters,
        "responses": {"200": success, **refusals(plain, (BadKvRequest, *refuses))},
    }


def _health() -> Part:
    operation = _server_operation(
        "health", "Whether the server and its sources are well", JSON, shape("Health")
    )
    operation["responses"]["503"] = response("The server is stopping", JSON, shape("Health"))
    operation["security"] = []
    return operation


def _metrics() -> Part:
    return _server_operation("metrics", "The figures for Prometheus", TEXT, {"type": "string"})


def _server_operation(name: str, summary: str, media: str, schema: Part) -> Part:
    return {
        "operationId": name,
        "summary": summary,
        "tags": ["Server"],
        "responses": {"200": response(summary, media, schema), **refusals(problem, ())},
    }

"""The OpenAPI 3.1 document: the routes by hand, the shapes from the classes that are sent.

What an operation refuses is listed as the errors it raises: their statuses, codes and header fields
are taken from the classes. Faults (500) and methods that a path does not have (405) belong to no
operation, so the description names them for all.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from k12ai import errors
from k12ai._version import __version__
from k12ai.api.kv import MAX_KEY_LENGTH, BadKvRequest, EntryBody, LocksNotSupported
from k12ai.catalogue import CATALOGUE
from k12ai.errors import K12AIError
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

_JSON = "application/json"
_TEXT = "text/plain"
_PROBLEM = "application/problem+json"

_SHAPES = (
    PlatformRequest, StatsParams, StopParams, StatsMessage, AcceptedMessage, Answer, ResultEnvelope,
    EntryBody, Health, Problem,
)  # fmt: skip

_DESCRIPTION = """\
What the machine is doing, control, and results under keys.

Errors under `/k12ai` are envelopes, under `/v1/kv` plain text, elsewhere problem documents. Beside
what each operation lists, in the same forms: a path answers 405, with the field `Allow`, to methods
it does not have, and a fault of the server is a 500. The server's log has the cause of every answer
under its `X-Request-Id`."""

Error = type[K12AIError]

# What every path may answer before its operation begins.
_AT_THE_DOOR: tuple[Error, ...] = (
    errors.MalformedRequest, errors.OriginRefused, errors.RequestTooSlow, errors.UrlTooLong,
    errors.HostRefused, errors.HeadersTooLarge, errors.CodingNotSupported,
)  # fmt: skip
_OF_THE_ENVELOPE: tuple[Error, ...] = (
    errors.MissingField, errors.InvalidValue, errors.MalformedJson, errors.NotJson, errors.ServiceNotFound,
    errors.TooLarge,
)  # fmt: skip
_OF_THE_STORE: tuple[Error, ...] = (errors.StorageUnavailable, errors.StorageFull)
_OF_ACCEPTING: tuple[Error, ...] = (errors.TooManyRequestsPending, *_OF_THE_STORE)

_MAX_UINT64 = (1 << 64) - 1


def document() -> dict[str, Any]:
    """Return the document."""
    _, shapes = msgspec.json.schema_components(_SHAPES, ref_template="#/components/schemas/{name}")
    return {
        "openapi": "3.1.0",
        "info": {"title": "K12AI", "version": __version__, "description": _DESCRIPTION},
        "tags": [
            {"name": "Platform", "description": "What the machine is doing, and control."},
            {"name": "Results", "description": "Keys and values, as Consul serves them."},
            {"name": "Server", "description": "For operators."},
        ],
        "paths": {
            "/k12ai/platform/stats": {"post": _stats()},
            "/k12ai/platform/control": {"post": _control()},
            "/v1/kv/{key}": {
                "parameters": [_KEY],
                "get": _kv_get(),
                "put": _kv_put(),
                "delete": _kv_delete(),
            },
            "/health": {"get": _health()},
            "/metrics": {"get": _metrics()},
        },
        "components": {"schemas": shapes, "headers": _HEADERS},
    }


_KEY = {
    "name": "key",
    "in": "path",
    "required": True,
    "description": "The key; a '/' in it is a character like others. May be empty with `recurse` or `keys`.",
    "schema": {
        "type": "string",
        "maxLength": MAX_KEY_LENGTH,
        # No '/' at the beginning, no segment '.' or '..', no control characters. `(?!\n)`: some
        # dialects' `$` also matches before a line feed at the end.
        "pattern": r"^(?!/)(?!(?:.*/)?\.{1,2}(?:/|$))[^\x00-\x1f\x7f]*$(?!\n)",
    },
}

_HEADERS: dict[str, dict[str, Any]] = {
    "X-Request-Id": {
        "description": "The id of this request: the caller's, where it sent a usable one",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
    },
    "X-Content-Type-Options": {"required": True, "schema": {"const": "nosniff"}},
    "Retry-After": {
        "description": "Seconds to wait before the request is sent again",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    },
    "X-Consul-Index": {
        "description": "What to wait on with `index`",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    },
    "X-Consul-KnownLeader": {"required": True, "schema": {"const": "true"}},
    "X-Consul-LastContact": {"required": True, "schema": {"const": "0"}},
}
_ALWAYS = ("X-Request-Id", "X-Content-Type-Options")
_INDEX = ("X-Consul-Index", "X-Consul-KnownLeader", "X-Consul-LastContact")


# --- the operations ------------------------------------------------------------------------------


def _stats() -> dict[str, Any]:
    schema = {"anyOf": [*_params("StatsParams"), {"type": "null"}]}
    return _platform_operation(
        "stats",
        "The host, its GPUs and the containers",
        _request("query", schema, {"cpus": True, "gpus": True, "disks": False, "containers": True}),
        _shape("StatsMessage"),
        (*_OF_THE_ENVELOPE, *_OF_ACCEPTING),
    )


def _control() -> dict[str, Any]:
    request = _request("container.stop", {"anyOf": _params("StopParams")}, {"id": "f3726eae19d6"})
    request["content"][_JSON]["schema"]["required"] = ["service_params"]
    engine = (errors.ContainerNotFound, errors.EngineUnavailable, errors.EngineTimeout, errors.ServerStopping)
    return _platform_operation(
        "control",
        "Stop a container",
        request,
        {"type": "string"},
        (*_OF_THE_ENVELOPE, *_OF_ACCEPTING, *engine),
    )


def _params(name: str) -> list[dict[str, Any]]:
    text = {"type": "string", "contentMediaType": _JSON, "contentSchema": _shape(name)}
    return [_shape(name), text | {"description": "A string that holds the object"}]


def _request(op: str, params: dict[str, Any], example: dict[str, Any]) -> dict[str, Any]:
    schema = {
        "allOf": [_shape("PlatformRequest")],
        "properties": {
            "op": {"const": op},
            "service_name": {"enum": list(SERVICES)},
            "service_params": params,
        },
    }
    # In the order of the published request; the page fills its form with it.
    filled: dict[str, Any] = {"op": op, "user": "test", "service_name": "k12platform", "service_uuid": "uuid"}
    filled |= {"service_params": example, "async": False}
    return {"required": True, "content": {_JSON: {"schema": schema, "examples": {op: {"value": filled}}}}}


def _platform_operation(
    name: str, summary: str, request: dict[str, Any], message: dict[str, Any], refuses: Sequence[Error]
) -> dict[str, Any]:
    accepted = _response(
        "Accepted: the result is published below the key", _JSON, _answer([100000], _shape("AcceptedMessage"))
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
            "200": _response("Done", _JSON, _answer([100000], message)),
            "202": accepted,
            **_refusals(_envelope, refuses),
        },
    }


def _kv_get() -> dict[str, Any]:
    parameters = [
        _flag("recurse", "Every entry whose key starts with `key`"),
        _flag("keys", "Only the names"),
        _flag("raw", "The value's bytes alone"),
        _query("separator", {"type": "string"}, "With `keys`: cut names after their first separator"),
        _query("index", _uint64(), "Answer once something is newer than this index")
        | {"allowEmptyValue": True},
        _query("wait", _DURATION, "How long to wait for that, as Go writes durations; at most 10m"),
    ]
    entries = {
        "anyOf": [
            {"type": "array", "items": _shape("EntryBody"), "minItems": 1},
            {"type": "array", "items": {"type": "string"}},
        ]
    }
    found = _response("The entries, or the names with `keys`", _JSON, entries, _INDEX)
    found["content"][_TEXT] = {}  # the value's bytes, whatever they are
    missing = _response(
        "Nothing is there; the body is empty", _TEXT, {"type": "string", "maxLength": 0}, _INDEX
    )
    operation = _kv_operation(
        "kv_get",
        "Read entries, waiting for a change where asked",
        parameters,
        found,
        (errors.StorageUnavailable,),
    )
    operation["responses"] = dict(sorted((operation["responses"] | {"404": missing}).items()))
    return operation


def _kv_put() -> dict[str, Any]:
    parameters = [
        _query("flags", _uint64(), "A number kept with the value"),
        _query("cas", _uint64(), "Write only if this is the entry's ModifyIndex; 0: only if new"),
    ]
    written = _response("Whether it was written", _JSON, {"type": "boolean"})
    written["links"] = _links("kv_get", "kv_delete")
    operation = _kv_operation(
        "kv_put",
        "Write a value of at most 512 KiB",
        parameters,
        written,
        (errors.TooLarge, LocksNotSupported, *_OF_THE_STORE),
    )
    operation["requestBody"] = {"content": {"application/octet-stream": {}}}
    return operation


def _kv_delete() -> dict[str, Any]:
    parameters = [
        _flag("recurse", "Every key that starts with `key`, as a plain string prefix; not with `cas`"),
        _query("cas", _uint64(), "Delete only if this is the entry's ModifyIndex"),
    ]
    deleted = _response("Whether it is gone", _JSON, {"type": "boolean"})
    deleted["links"] = _links("kv_get")
    return _kv_operation("kv_delete", "Delete entries", parameters, deleted, _OF_THE_STORE)


def _kv_operation(
    name: str,
    summary: str,
    parameters: list[dict[str, Any]],
    success: dict[str, Any],
    refuses: Sequence[Error],
) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "tags": ["Results"],
        "parameters": parameters,
        "responses": {"200": success, **_refusals(_plain, (BadKvRequest, *refuses))},
    }


def _health() -> dict[str, Any]:
    operation = _server_operation(
        "health", "Whether the server and its sources are well", _JSON, _shape("Health")
    )
    operation["responses"]["503"] = _response("The server is stopping", _JSON, _shape("Health"))
    return operation


def _metrics() -> dict[str, Any]:
    return _server_operation("metrics", "The figures for Prometheus", _TEXT, {"type": "string"})


def _server_operation(name: str, summary: str, media: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "tags": ["Server"],
        "responses": {"200": _response(summary, media, schema), **_refusals(_problem, ())},
    }


# --- their parts ---------------------------------------------------------------------------------

Form = Callable[[int, list[int]], tuple[str, dict[str, Any]]]


def _refusals(form: Form, refuses: Sequence[Error]) -> dict[str, Any]:
    """Return the responses for these errors and for those of the door, in the form of the path."""
    by_status: dict[int, list[Error]] = {}
    for error in (*_AT_THE_DOOR, *refuses):
        by_status.setdefault(error.status, []).append(error)
    return {str(status): _refusal(status, by_status[status], form) for status in sorted(by_status)}


def _refusal(status: int, kinds: Sequence[Error], form: Form) -> dict[str, Any]:
    codes = sorted({kind.code for kind in kinds})
    causes = " ".join(f"{CATALOGUE[code].cause.en} ({code})" for code in codes)
    again = all(kind.retry_after_s is not None for kind in kinds)
    return _response(causes, *form(status, codes), ("Retry-After",) if again else ())


def _envelope(_status: int, codes: list[int]) -> tuple[str, dict[str, Any]]:
    return _JSON, _answer(codes, {"type": "string"})


def _plain(_status: int, _codes: list[int]) -> tuple[str, dict[str, Any]]:
    return _TEXT, {"type": "string"}


def _problem(status: int, codes: list[int]) -> tuple[str, dict[str, Any]]:
    exact = {"status": {"const": status}, "code": {"enum": codes}}
    return _PROBLEM, {"allOf": [_shape("Problem")], "properties": exact}


def _answer(codes: list[int], message: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"code": {"enum": codes}, "descr": {"type": "string"}, "message": message},
        "required": ["code", "descr", "message"],
        "additionalProperties": False,
    }


def _response(
    description: str, media: str, schema: dict[str, Any], headers: Sequence[str] = ()
) -> dict[str, Any]:
    return {
        "description": description,
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in (*_ALWAYS, *headers)},
        "content": {media: {"schema": schema}},
    }


def _shape(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _links(*operations: str) -> dict[str, Any]:
    """Return the operations on the same key that may follow."""
    return {name: {"operationId": name, "parameters": {"path.key": "$request.path.key"}} for name in operations}


def _query(name: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema, "description": description}


def _flag(name: str, description: str) -> dict[str, Any]:
    # Consul's flags count by their presence: 'recurse=false' recurses.
    return _query(name, {"type": "string"}, f"{description}; with any value or none")


def _uint64() -> dict[str, Any]:
    return {"type": "integer", "minimum": 0, "maximum": _MAX_UINT64}


_DURATION = {
    "type": "string",
    "maxLength": 64,
    "pattern": r"^(?:0?|[+-]?(?:(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h))+)$(?!\n)",
    "examples": ["10s", "5m"],
}

"""The OpenAPI 3.1 document: the routes by hand, the shapes from the classes that are sent."""

from typing import Any

import msgspec

from k12ai import catalogue
from k12ai._version import __version__
from k12ai.api.kv import EntryBody
from k12ai.models import (
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

_SHAPES = (
    PlatformRequest, StatsParams, StopParams, StatsMessage, AcceptedMessage, Answer, ResultEnvelope,
    EntryBody, Health, Problem,
)  # fmt: skip


def document() -> dict[str, Any]:
    """Return the document."""
    _, shapes = msgspec.json.schema_components(_SHAPES, ref_template="#/components/schemas/{name}")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "K12AI",
            "version": __version__,
            "description": "What the machine is doing, control, and results under keys. "
            "Errors under `/k12ai` are envelopes, under `/v1/kv` plain text, elsewhere problem documents.",
        },
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
            "/health": {
                "get": _simple(
                    "health", "Whether the server and its sources are well", _JSON, "Health", ("503",)
                )
            },
            "/metrics": {"get": _simple("metrics", "The figures for Prometheus", _TEXT, None, ())},
        },
        "components": {"schemas": shapes},
    }


_KEY = {
    "name": "key",
    "in": "path",
    "required": True,
    "description": "The key; a '/' in it is a character like others. May be empty with `recurse` or `keys`.",
    "schema": {"type": "string"},
}


def _stats() -> dict[str, Any]:
    return _platform_operation(
        "stats",
        "The host, its GPUs and the containers",
        "StatsParams",
        "query",
        {"$ref": "#/components/schemas/StatsMessage"},
        ("400", "404", "413", "415", "408", "429", "503", "507"),
        {"cpus": True, "gpus": True, "disks": False, "containers": True},
    )


def _control() -> dict[str, Any]:
    return _platform_operation(
        "control",
        "Stop a container",
        "StopParams",
        "container.stop",
        {"type": "string"},
        ("400", "404", "413", "415", "408", "429", "503", "504", "507"),
        {"id": "f3726eae19d6"},
    )


def _platform_operation(
    name: str,
    summary: str,
    params: str,
    op: str,
    message: dict[str, Any],
    errors: tuple[str, ...],
    example: dict[str, Any],
) -> dict[str, Any]:
    shape = {
        "allOf": [{"$ref": "#/components/schemas/PlatformRequest"}],
        "properties": {
            "op": {"const": op},
            "service_params": {
                "anyOf": [{"$ref": f"#/components/schemas/{params}"}, {"type": "string"}, {"type": "null"}]
            },
        },
    }
    # In the order of the published request; the page fills its form with it.
    filled: dict[str, Any] = {"op": op, "user": "test", "service_name": "k12platform", "service_uuid": "uuid"}
    filled |= {"service_params": example, "async": False}
    return {
        "operationId": name,
        "summary": summary,
        "tags": ["Platform"],
        "requestBody": {
            "required": True,
            "content": {_JSON: {"schema": shape, "examples": {op: {"value": filled}}}},
        },
        "responses": {
            "200": _response("Done", _JSON, _answer(message)),
            "202": _response(
                "Accepted: the result is published below the key",
                _JSON,
                _answer({"$ref": "#/components/schemas/AcceptedMessage"}),
            ),
            **{status: _response(_why(status), _JSON, _answer({"type": "string"})) for status in errors},
            "default": _response(
                "Refused at the door, or a fault of the server", _JSON, _answer({"type": "string"})
            ),
        },
    }


def _kv_get() -> dict[str, Any]:
    flags = [_flag("recurse", "Every entry whose key starts with `key`"), _flag("keys", "Only the names"),
             _flag("raw", "The value's bytes alone")]  # fmt: skip
    others = [
        _query("separator", {"type": "string"}, "With `keys`: cut names after their first separator"),
        _query("index", {"type": "integer", "minimum": 0}, "Answer once something is newer than this index"),
        _query("wait", {"type": "string", "examples": ["10s", "5m"]}, "How long to wait for that; at most 10m"),
    ]
    entries = {
        "anyOf": [
            {"type": "array", "items": {"$ref": "#/components/schemas/EntryBody"}},
            {"type": "array", "items": {"type": "string"}},
        ]
    }
    found = _response("The entries, or the names with `keys`", _JSON, entries)
    found["content"][_TEXT] = {"schema": {"type": "string"}}
    return _kv_operation(
        "kv_get", "Read entries, waiting for a change where asked", [*flags, *others], found, ("404",)
    )


def _kv_put() -> dict[str, Any]:
    parameters = [
        _query("flags", {"type": "integer", "minimum": 0}, "A number kept with the value"),
        _query(
            "cas",
            {"type": "integer", "minimum": 0},
            "Write only if this is the entry's ModifyIndex; 0: only if new",
        ),
    ]
    written = _response("Whether it was written", _JSON, {"type": "boolean"})
    operation = _kv_operation(
        "kv_put", "Write a value of at most 512 KiB", parameters, written, ("408", "413", "501", "507")
    )
    operation["requestBody"] = {"content": {"application/octet-stream": {"schema": {}}}}
    return operation


def _kv_delete() -> dict[str, Any]:
    parameters = [
        _flag("recurse", "Every key that starts with `key`, as a plain string prefix"),
        _query("cas", {"type": "integer", "minimum": 0}, "Delete only if this is the entry's ModifyIndex"),
    ]
    deleted = _response("Whether it is gone", _JSON, {"type": "boolean"})
    return _kv_operation("kv_delete", "Delete entries", parameters, deleted, ("507",))


def _kv_operation(
    name: str,
    summary: str,
    parameters: list[dict[str, Any]],
    success: dict[str, Any],
    errors: tuple[str, ...],
) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "tags": ["Results"],
        "parameters": parameters,
        "responses": {
            "200": success,
            **{
                status: _response(_why(status), _TEXT, {"type": "string"}) for status in ("400", *errors, "503")
            },
            "default": _response("Refused at the door, or a fault of the server", _TEXT, {"type": "string"}),
        },
    }


def _simple(name: str, summary: str, media: str, shape: str | None, errors: tuple[str, ...]) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{shape}"} if shape else {"type": "string"}
    problem = {"$ref": "#/components/schemas/Problem"}
    return {
        "operationId": name,
        "summary": summary,
        "tags": ["Server"],
        "responses": {
            "200": _response(summary, media, schema),
            **{status: _response(_why(status), media, schema) for status in errors},
            "default": _response("Refused", "application/problem+json", problem),
        },
    }


def _answer(message: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"code": {"type": "integer"}, "descr": {"type": "string"}, "message": message},
        "required": ["code", "descr", "message"],
        "additionalProperties": False,
    }


def _response(description: str, media: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {media: {"schema": schema}}}


def _why(status: str) -> str:
    texts = [row.text.en for row in catalogue.ROWS if str(row.status) == status]
    return "; ".join(texts) or {"408": "The body came too slowly", "415": "Not JSON", "501": "No locks"}.get(
        status, "Error"
    )


def _query(name: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema, "description": description}


def _flag(name: str, description: str) -> dict[str, Any]:
    schema = {"type": "string", "enum": [""]}
    return _query(name, schema, description) | {"allowEmptyValue": True}

"""What the operations of the OpenAPI document are made of."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from k12ai import errors
from k12ai.catalogue import CATALOGUE
from k12ai.errors import K12AIError

JSON = "application/json"
TEXT = "text/plain"
BYTES = "application/octet-stream"
PROBLEM = "application/problem+json"

Part = dict[str, Any]
Error = type[K12AIError]
Form = Callable[[int, list[int]], tuple[str, Part]]

# What every path may answer before its operation begins.
_AT_THE_DOOR: tuple[Error, ...] = (
    errors.MalformedRequest, errors.OriginRefused, errors.RequestTooSlow, errors.UrlTooLong,
    errors.HostRefused, errors.HeadersTooLarge, errors.CodingNotSupported, errors.NotAllowed,
    errors.RateLimited,
)  # fmt: skip
OF_A_BODY: tuple[Error, ...] = (
    errors.MissingField, errors.InvalidValue, errors.MalformedJson, errors.NotJson, errors.TooLarge,
)  # fmt: skip
OF_THE_ENVELOPE: tuple[Error, ...] = (*OF_A_BODY, errors.ServiceNotFound)
OF_THE_STORE: tuple[Error, ...] = (errors.StorageUnavailable, errors.StorageFull)

HEADERS: dict[str, Part] = {
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
    "WWW-Authenticate": {
        "description": "How to say who one is",
        "required": True,
        "schema": {"type": "string", "pattern": "^Bearer "},
    },
    "X-Consul-Index": {
        "description": "What to wait on with `index`",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    },
    "X-Consul-KnownLeader": {"required": True, "schema": {"const": "true"}},
    "X-Consul-LastContact": {"required": True, "schema": {"const": "0"}},
    "Location": {
        "description": "The path of what was made",
        "required": True,
        "schema": {"type": "string", "pattern": "^/"},
    },
    "ETag": {
        "description": "The version of the file",
        "required": True,
        "schema": {"type": "string", "pattern": '^"[^"]+"$'},
    },
    "Content-Range": {
        "description": "Which bytes of how many",
        "required": True,
        "schema": {"type": "string", "pattern": r"^bytes (?:\*|[0-9]+-[0-9]+)/[0-9]+$"},
    },
    "Content-Disposition": {
        "description": "That it is to be saved, under which name",
        "required": True,
        "schema": {"type": "string", "pattern": "^attachment; "},
    },
}
_ALWAYS = ("X-Request-Id", "X-Content-Type-Options")


def refusals(form: Form, refuses: Sequence[Error]) -> Part:
    """Return the responses for these errors and for those of the door, in the form of the path."""
    by_status: dict[int, list[Error]] = {}
    # The store's clients know 403 for every fault of a token.
    unknown = () if form is plain else (errors.NotAuthenticated,)
    for error in (*_AT_THE_DOOR, *unknown, *refuses):
        by_status.setdefault(error.status, []).append(error)
    return {str(status): _refusal(status, by_status[status], form) for status in sorted(by_status)}


def _refusal(status: int, kinds: Sequence[Error], form: Form) -> Part:
    codes = sorted({kind.code for kind in kinds})
    causes = " ".join(f"{CATALOGUE[code].cause.en} ({code})" for code in codes)
    again = all(kind.retry_after_s is not None for kind in kinds)
    headers = ("Retry-After",) if again else ("WWW-Authenticate",) if status == 401 else ()
    return response(causes, *form(status, codes), headers)


def envelope(_status: int, codes: list[int]) -> tuple[str, Part]:
    """Return the form of errors under ``/k12ai``."""
    return JSON, answer(codes, {"type": "string"})


def plain(_status: int, _codes: list[int]) -> tuple[str, Part]:
    """Return the form of errors under ``/v1/kv``."""
    return TEXT, {"type": "string"}


def problem(status: int, codes: list[int]) -> tuple[str, Part]:
    """Return the form of errors elsewhere."""
    exact = {"status": {"const": status}, "code": {"enum": codes}}
    return PROBLEM, {"allOf": [shape("Problem")], "properties": exact}


def answer(codes: list[int], message: Part) -> Part:
    """Return the schema of an answer under ``/k12ai``."""
    return {
        "type": "object",
        "properties": {"code": {"enum": codes}, "descr": {"type": "string"}, "message": message},
        "required": ["code", "descr", "message"],
        "additionalProperties": False,
    }


def response(description: str, media: str, schema: Part, headers: Sequence[str] = ()) -> Part:
    """Return a response with a body."""
    return {**bare(description, headers), "content": {media: {"schema": schema}}}


def bare(description: str, headers: Sequence[str] = ()) -> Part:
    """Return a response without a body."""
    fields = {name: {"$ref": f"#/components/headers/{name}"} for name in (*_ALWAYS, *headers)}
    return {"description": description, "headers": fields}


def shape(name: str) -> Part:
    """Return a reference to a class that is sent."""
    return {"$ref": f"#/components/schemas/{name}"}


def links(parameters: Mapping[str, str], *operations: str) -> Part:
    """Return the operations on the same thing that may follow, and where their parameters come from."""
    return {name: {"operationId": name, "parameters": dict(parameters)} for name in operations}


def path(name: str, schema: Part, description: str) -> Part:
    """Return a parameter that is a part of the path."""
    return {"name": name, "in": "path", "required": True, "schema": schema, "description": description}


def query(name: str, schema: Part, description: str) -> Part:
    """Return a parameter of the query."""
    return {"name": name, "in": "query", "schema": schema, "description": description}


def field(name: str, schema: Part, description: str) -> Part:
    """Return a header field of the request."""
    return {"name": name, "in": "header", "schema": schema, "description": description}


def flag(name: str, description: str) -> Part:
    """Return a parameter that counts by its presence: as with Consul, 'recurse=false' recurses."""
    return query(name, {"type": "string"}, f"{description}; with any value or none")


def listed(name: str, of: str) -> Part:
    """Return the schema of a list of resources."""
    return {
        "type": "object",
        "properties": {name: {"type": "array", "items": shape(of)}},
        "required": [name],
        "additionalProperties": False,
    }


def whole(highest: int) -> Part:
    """Return the schema of a number from 0 on."""
    return {"type": "integer", "minimum": 0, "maximum": highest}


IDENTIFIER: Part = {"type": "string", "pattern": r"^(?!\.{1,2}$)[A-Za-z0-9._@-]{1,64}$(?!\n)"}
"""The name of a user or of a project."""


def resource(
    tag: str,
    name: str,
    summary: str,
    success: Part,
    refuses: Sequence[Error],
    parameters: Sequence[Part] = (),
) -> Part:
    """Return an operation of the modern interface, whose errors are problem documents."""
    return {
        "operationId": name,
        "summary": summary,
        "tags": [tag],
        "parameters": list(parameters),
        "responses": {**success, **refusals(problem, refuses)},
    }

"""Parsing the published request envelope, with an error that names the field and what it must be."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from k12ai.errors import (
    InvalidValue,
    K12AIError,
    MalformedJson,
    MissingField,
    RequestError,
    ServiceNotFound,
)
from k12ai.models import (
    MAX_GRACE_S,
    SERVICES,
    FrameworkRequest,
    PlatformRequest,
    StatsParams,
    StopParams,
)
from k12ai.people import MAX_CLASS, MAX_TOKEN_LIFETIME_S
from k12ai.texts import Text, printable

B = TypeVar("B")
P = TypeVar("P", StatsParams, StopParams)

_IDENTIFIER = Text(
    "1 to 64 of the characters A-Z a-z 0-9 . _ @ -, and not '.' or '..'",
    "1 到 64 个字符，只能用 A-Z a-z 0-9 . _ @ -，且不能是“.”或“..”",
)
_FLAG = Text("true or false", " true 或 false")
_PEOPLE = Text(
    f"a list of at most {MAX_CLASS} users, each {_IDENTIFIER.en}",
    f"不超过 {MAX_CLASS} 个用户的列表，每个用户名为 {_IDENTIFIER.zh}",
)
_EXPECTED: Mapping[str, Text] = {
    "op": Text("a string", "字符串"),
    "user": _IDENTIFIER,
    "service_name": Text("a string", "字符串"),
    "service_uuid": _IDENTIFIER,
    "async": _FLAG,
    "service_params": Text(
        "a JSON object, or a string that holds one", " JSON 对象，或内容为 JSON 对象的字符串"
    ),
    "cpus": _FLAG,
    "gpus": _FLAG,
    "disks": _FLAG,
    "containers": _FLAG,
    "nodes": _FLAG,
    "users": _FLAG,
    "framework": Text("a string", "字符串"),
    "params": Text("a JSON object", " JSON 对象"),
    "limits": Text(
        "an object of wall_time_s, memory_bytes, processes, cpus, gpus, gpu_memory_bytes, "
        "each a number within its range",
        "由 wall_time_s、memory_bytes、processes、cpus、gpus、gpu_memory_bytes（均为允许范围内的数）组成的对象",
    ),
    "role": Text("student, teacher or admin", " student、teacher 或 admin"),
    "note": Text("a string of at most 200 characters", "不超过 200 个字符的字符串"),
    "expires_in_s": Text(
        f"a whole number of seconds from 1 to {MAX_TOKEN_LIFETIME_S}",
        f"从 1 到 {MAX_TOKEN_LIFETIME_S} 的整数（秒）",
    ),
    "students": _PEOPLE,
    "teachers": _PEOPLE,
    "tokens": _FLAG,
    "renew": _FLAG,
    "id": Text("a string of at most 256 characters", "不超过 256 个字符的字符串"),
    "timeout": Text(
        f"a whole number of seconds from 0 to {MAX_GRACE_S}", f"从 0 到 {MAX_GRACE_S} 的整数（秒）"
    ),
}

# msgspec's words for what is wrong: "Object missing required field `op`" and
# "Expected `str`, got `int` - at `$.user`".
_MISSING = re.compile(r"missing required field `(\w+)`")
_UNKNOWN = re.compile(r"contains unknown field `(.{1,100})`(?! - at)")
_PLACE = re.compile(r"at `\$\.(\w+)")


def decode_request(body: bytes, ops: Iterable[str]) -> PlatformRequest:
    """Return the envelope; raise the error of the tree that names the first thing wrong with it."""
    request = decode_body(body, PlatformRequest)
    if request.service_name not in SERVICES:
        raise ServiceNotFound(SERVICES)
    _require_op(request.op, ops)
    return request


def decode_framework_request(body: bytes, ops: Iterable[str]) -> FrameworkRequest:
    """Return the envelope of a framework's request; which frameworks there are is the registry's to know."""
    request = decode_body(body, FrameworkRequest)
    _require_op(request.op, ops)
    return request


def decode_body(body: bytes, kind: type[B]) -> B:
    """Return a body as ``kind``; raise the error of the tree that names the first thing wrong with it."""
    try:
        # In two steps: decoding straight into the class would skip unknown fields without looking
        # whether they are strict JSON.
        return msgspec.convert(msgspec.json.decode(body), kind)
    except msgspec.ValidationError as error:
        raise _explain(error, "") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise MalformedJson from None


def decode_object(params: dict[str, Any] | str | None, kind: type[InvalidValue]) -> dict[str, Any]:
    """Return ``service_params`` as an object, which a string may hold; absent ones are an empty one."""
    try:
        decoded = msgspec.json.decode(params) if isinstance(params, str) else params
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        decoded = False
    if decoded is None:
        return {}
    if not isinstance(decoded, dict):
        raise kind("service_params", _EXPECTED["service_params"])
    return decoded


def _require_op(op: str, ops: Iterable[str]) -> None:
    if op not in ops:
        names = ", ".join(repr(each) for each in ops)
        raise InvalidValue("op", Text(f"one of {names}", f"以下之一：{names}"))


def decode_params(params: dict[str, Any] | str | None, kind: type[P]) -> P:
    """Return ``service_params`` as ``kind``; absent ones count as an empty object."""
    if params is None:
        params = {}
    try:
        if isinstance(params, str):
            params = msgspec.json.decode(params)
        return msgspec.convert(params, kind)
    except msgspec.ValidationError as error:
        raise _explain(error, "service_params") from None
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise InvalidValue("service_params", _EXPECTED["service_params"]) from None


def _explain(error: msgspec.ValidationError, inside: str) -> K12AIError:
    said = str(error)
    prefix = f"{inside}." if inside else ""
    if missing := _MISSING.search(said):
        return MissingField(prefix + missing[1])
    if unknown := _UNKNOWN.search(said):
        field = prefix + printable(unknown[1])
        return RequestError(Text(f"{field}: there is no such field", f"{field}：没有这个字段"))
    place = _PLACE.search(said)
    if place and place[1] in _EXPECTED:
        return InvalidValue(prefix + place[1], _EXPECTED[place[1]])
    if inside:
        return InvalidValue(inside, _EXPECTED[inside])
    return MalformedJson(Text("the body must be a JSON object", "请求体必须是一个 JSON 对象"))

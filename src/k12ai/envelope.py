"""Parsing the published request envelope, with an error that names the field and what it must be."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from k12ai.errors import InvalidValue, K12AIError, MalformedJson, MissingField, ServiceNotFound
from k12ai.models import MAX_GRACE_S, SERVICES, PlatformRequest, StatsParams, StopParams
from k12ai.texts import Text

P = TypeVar("P", StatsParams, StopParams)

_IDENTIFIER = Text(
    "1 to 64 of the characters A-Z a-z 0-9 . _ @ -, and not '.' or '..'",
    "1 到 64 个字符，只能用 A-Z a-z 0-9 . _ @ -，且不能是“.”或“..”",
)
_FLAG = Text("true or false", " true 或 false")
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
    "id": Text("a string of at most 256 characters", "不超过 256 个字符的字符串"),
    "timeout": Text(
        f"a whole number of seconds from 0 to {MAX_GRACE_S}", f"从 0 到 {MAX_GRACE_S} 的整数（秒）"
    ),
}

# msgspec's words for what is wrong: "Object missing required field `op`" and
# "Expected `str`, got `int` - at `$.user`".
_MISSING = re.compile(r"missing required field `(\w+)`")
_PLACE = re.compile(r"at `\$\.(\w+)")


def decode_request(body: bytes, ops: Iterable[str]) -> PlatformRequest:
    """Return the envelope; raise the error of the tree that names the first thing wrong with it."""
    try:
        # In two steps: decoding straight into the class would skip unknown fields without looking
        # whether they are strict JSON.
        request = msgspec.convert(msgspec.json.decode(body), PlatformRequest)
    except msgspec.ValidationError as error:
        raise _explain(error, "") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise MalformedJson from None
    if request.service_name not in SERVICES:
        raise ServiceNotFound(SERVICES)
    if request.op not in ops:
        names = ", ".join(repr(op) for op in ops)
        raise InvalidValue("op", Text(f"one of {names}", f"以下之一：{names}"))
    return request


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
    place = _PLACE.search(said)
    if place and place[1] in _EXPECTED:
        return InvalidValue(prefix + place[1], _EXPECTED[place[1]])
    if inside:
        return InvalidValue(inside, _EXPECTED[inside])
    return MalformedJson(Text("the body must be a JSON object", "请求体必须是一个 JSON 对象"))

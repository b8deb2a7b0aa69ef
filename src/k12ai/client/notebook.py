"""The functions of the published notebook client, by their published names.

They return bodies as they come, good or bad, and read and delete results by key, as the notebooks
that were written against the original expect.
"""

import sys
import time
from typing import Any

import msgspec

from k12ai.client.client import Client
from k12ai.models import PLATFORM

__all__ = [
    "k12ai_count_down",
    "k12ai_del_data",
    "k12ai_get_data",
    "k12ai_get_error_data",
    "k12ai_get_metrics_data",
    "k12ai_get_result_data",
    "k12ai_get_status_data",
    "k12ai_post_cv_request",
    "k12ai_post_nlp_request",
    "k12ai_post_platform_request",
    "k12ai_print",
]

# The longest grace of a synchronous stop, and some.
_POST_TIMEOUT_S = 660.0

Params = dict[str, Any] | str | None


def k12ai_post_platform_request(
    uri: str, op: str, user: str, uuid: str, params: Params = None, isasync: bool = False
) -> dict[str, Any]:
    """Post to the platform; return the request ``req``, the answer ``res`` and the results' ``key``."""
    request = _request(op, user, PLATFORM, uuid, params) | {"async": isasync}
    return _post(uri, request, f"platform/{user}/{uuid}/{op}")


def k12ai_post_cv_request(uri: str, op: str, user: str, uuid: str, params: Params = None) -> dict[str, Any]:
    """Post to the vision framework ``k12cv``; returns as `k12ai_post_platform_request` does."""
    return _post(uri, _request(op, user, "k12cv", uuid, params), f"framework/{user}/{uuid}/{op}")


def k12ai_post_nlp_request(uri: str, op: str, user: str, uuid: str, params: Params = None) -> dict[str, Any]:
    """Post to the language framework ``k12nlp``; returns as `k12ai_post_platform_request` does."""
    return _post(uri, _request(op, user, "k12nlp", uuid, params), f"framework/{user}/{uuid}/{op}")


def k12ai_get_data(
    key: str,
    subkey: str | None = None,
    num: int = 1,
    waitcnt: float = 1,
    rm: bool = False,
    http: bool = False,
) -> list[dict[str, Any]] | None:
    """Return the last ``num`` of what is stored under ``key/subkey``, in key order, or None.

    Waits up to ``waitcnt`` seconds (negative: until there is something) and returns as soon as
    something is there. ``rm`` deletes what was read. ``http`` is accepted and changes nothing.
    """
    with Client() as client:
        found = client.read(f"{key.rstrip('/')}/{subkey}" if subkey else key, wait_s=waitcnt)
        found = found[-num:] if num > 0 else found
        if rm:
            for each in found:
                client.delete_version(each)
    return [{"key": each.key, "value": each.value} for each in found] or None


def k12ai_del_data(key: str, http: bool = False) -> str:
    """Delete ``key`` and everything below it, and say so. ``http`` is accepted and changes nothing."""
    with Client() as client:
        client.delete(key)
    return "success"


def k12ai_get_error_data(key: str, num: int = 1) -> list[dict[str, Any]] | None:
    """Return the last errors under ``key``."""
    return k12ai_get_data(key, "error", num=num)


def k12ai_get_metrics_data(key: str, num: int = 1) -> list[dict[str, Any]] | None:
    """Return the last metrics under ``key``."""
    return k12ai_get_data(key, "metrics", num=num)


def k12ai_get_status_data(key: str, num: int = 1) -> list[dict[str, Any]] | None:
    """Return the last states under ``key``."""
    return k12ai_get_data(key, "status", num=num)


def k12ai_get_result_data(key: str, num: int = 1) -> list[dict[str, Any]] | None:
    """Return the last results under ``key``."""
    return k12ai_get_data(key, "result", num=num)


def k12ai_print(text: Any, indent: int = 4) -> None:
    """Print a value, or a string of JSON, as indented JSON with Chinese as it is; nothing for nothing."""
    if not text:
        return
    try:
        value = msgspec.json.decode(text) if isinstance(text, str) else text
        shown = msgspec.json.format(msgspec.json.encode(value), indent=indent).decode()
    except msgspec.DecodeError:
        shown = str(text)
    sys.stdout.write(shown + "\n")


class k12ai_count_down:
    """Counts seconds down: each call takes one and returns whether the time is over."""

    def __init__(self, secs: int) -> None:
        self._left_s = secs

    def __call__(self) -> bool:
        """Wait a second, unless the time is over; return whether it is."""
        if self._left_s > 0:
            time.sleep(1)
            self._left_s -= 1
        return self._left_s <= 0


def _request(op: str, user: str, service_name: str, uuid: str, params: Params) -> dict[str, Any]:
    """Return the envelope with its fields in the published order."""
    request: dict[str, Any] = {"op": op, "user": user, "service_name": service_name, "service_uuid": uuid}
    if params is not None:
        request["service_params"] = _object(params)
    return request


def _object(params: dict[str, Any] | str) -> Any:
    """Return the object that a JSON string holds; any other string goes as it is, for the server to refuse."""
    if not isinstance(params, str):
        return params
    try:
        return msgspec.json.decode(params)
    except msgspec.DecodeError:
        return params


def _post(uri: str, request: dict[str, Any], key: str) -> dict[str, Any]:
    with Client() as client:
        return {"req": request, "res": client.post(uri, request, timeout_s=_POST_TIMEOUT_S), "key": key}

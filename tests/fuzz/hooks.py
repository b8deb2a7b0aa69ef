"""What an OpenAPI document cannot say, told to schemathesis; schemathesis.toml names this module."""

import re
from typing import Any

import schemathesis

_DURATION = re.compile(r"0?|[+-]?(?:(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h))+")
_PARAMS = {"stats": '{"cpus": true}', "control": '{"id": "f3726eae19d6"}'}


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: Any) -> None:
    """Change a request that is about to be sent, where the document alone lets it go wrong."""
    operation = case.operation.definition.raw.get("operationId")
    query = case.query or {}
    _begin_repeats_wrongly(query)
    if operation == "kv_get":
        _wait_briefly(query)
    if case.meta is None:
        return
    if case.meta.phase.name.value == "stateful":
        _address_one_entry(query)
    if case.meta.generation.mode.is_positive:
        _choose_recurse_or_cas(operation, query)
        _correct_params(operation, case.body)


def _begin_repeats_wrongly(query: dict[str, Any]) -> None:
    """Let the first of a repeated parameter be a wrong one: it is the one that counts, as in Go."""
    for name in ("index", "wait", "flags", "cas"):
        if isinstance(query.get(name), list):
            query[name] = ["x", *query[name]]


def _wait_briefly(query: dict[str, Any]) -> None:
    """Shorten a blocking query, which rightly takes minutes; a `wait` that is no duration stays as it is."""
    given = query.get("wait", "")
    if "index" in query and isinstance(given, str) and _DURATION.fullmatch(given):
        query["wait"] = "10ms"


def _address_one_entry(query: dict[str, Any]) -> None:
    """Let sequences delete and read one entry each, without conditions.

    `use_after_free` takes any 200 to a DELETE for a deletion, and any read after it for one of the
    same entry. With `cas`, Consul's 200 can say `false`; with `recurse` and `keys`, others are read.
    """
    for name in ("cas", "recurse", "keys"):
        query.pop(name, None)


def _choose_recurse_or_cas(operation: str, query: dict[str, Any]) -> None:
    """Send one of the two: together they are a 400, and a document cannot say that parameters conflict."""
    if operation == "kv_delete" and "recurse" in query:
        query.pop("cas", None)


def _correct_params(operation: str, body: Any) -> None:
    """Make `service_params` what the server takes for valid, beyond what JSON Schema asserts.

    A string must hold an object (`contentSchema` only remarks it), and a whole number is written
    without a fraction: to JSON Schema, 10.0 is an integer too.
    """
    if operation not in _PARAMS or not isinstance(body, dict):
        return
    params = body.get("service_params")
    if isinstance(params, str):
        body["service_params"] = _PARAMS[operation]
    elif isinstance(params, dict) and isinstance(params.get("timeout"), float):
        body["service_params"] = params | {"timeout": int(params["timeout"])}

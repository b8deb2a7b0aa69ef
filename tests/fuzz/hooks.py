"""What an OpenAPI document cannot say, told to schemathesis; schemathesis.toml names this module."""

import os
import re
import urllib.parse
from typing import Any

import httpx
import schemathesis

_DURATION = re.compile(r"0?|[+-]?(?:(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h))+")
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_PARAMS = {"stats": '{"cpus": true}', "control": '{"id": "f3726eae19d6"}'}
_EXECUTE = ("execute", "train", "evaluate", "predict")
_HARMLESS = {"code": "pass"}


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: Any) -> None:
    """Change a request that is about to be sent, where the document alone lets it go wrong."""
    operation = case.operation.definition.raw.get("operationId")
    query = case.query or {}
    _begin_repeats_wrongly(query)
    if operation == "kv_get":
        _wait_briefly(query)
    _run_nothing(case.body)
    if operation in ("task_messages", "task_logs"):
        _read_what_is_there(query)
    if operation == "token_revoke":
        _keep_own_token(case.path_parameters)
    if operation == "task_events":
        _end_task(case)
    if case.meta is None:
        return
    if case.meta.phase.name.value == "stateful":
        _address_one_entry(query)
    if case.meta.generation.mode.is_positive:
        _choose_recurse_or_cas(operation, query)
        _correct_params(operation, case.body)
        _correct_task(operation, case.body)
        _correct_lifetime(case.body)
        _correct_key(case.headers)
        _correct_file(case.path_parameters)


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


def _run_nothing(body: Any) -> None:
    """Let no program of chance be run, in whichever request its source has got."""
    if not isinstance(body, dict):
        return
    for name in ("service_params", "params"):
        params = body.get(name)
        if isinstance(params, dict) and "code" in params:
            body[name] = params | _HARMLESS


def _read_what_is_there(query: dict[str, Any]) -> None:
    """Wait for no task: not for its next message, nor for its end. What is no valid value stays as it is."""
    wait = str(query.get("wait", ""))
    if _NUMBER.fullmatch(wait) and float(wait) <= 600:
        query["wait"] = 0
    if query.get("follow") in ("true", ""):
        query["follow"] = "false"


def _end_task(case: Any) -> None:
    """End the task first: its events are a stream that goes on for as long as it does."""
    task_id = (case.path_parameters or {}).get("task_id", "")
    if re.fullmatch("[0-9a-f]{12}", str(task_id)):
        headers = {"Authorization": f"Bearer {os.environ['K12AI_TOKEN']}"}
        url = f"{case.operation.base_url.rstrip('/')}/api/v1/tasks/{task_id}/stop?timeout=0"
        stopped = httpx.post(url, headers=headers, timeout=20)
        assert stopped.status_code in (200, 404), stopped.text  # most ids are no task's


def _correct_task(operation: str, body: Any) -> None:
    """Name a framework and an op that fit each other, with parameters that fit both.

    Which frameworks there are depends on what is installed, and what they take on the framework. All
    starts are of one project, where one at a time can run: others are a 409.
    """
    if not isinstance(body, dict):
        return
    _ask_for_little(body.get("limits"))
    if operation in (*_EXECUTE, "schema"):
        verb = str(body["op"]).rpartition(".")[2]
        body |= {"service_name": "k12py", "op": f"runcode.{verb}", "user": "fuzz", "service_uuid": "fuzz"}
        if "service_params" in body:
            as_text = isinstance(body["service_params"], str)
            body["service_params"] = '{"code": "pass"}' if as_text else dict(_HARMLESS)
    elif operation == "task_submit":
        body |= {"framework": "k12py", "op": "runcode.start", "user": "fuzz", "service_uuid": "fuzz"}
        body["params"] = dict(_HARMLESS)


def _keep_own_token(path: dict[str, Any] | None) -> None:
    """Revoke no token that the fuzzer itself goes on with."""
    if path is not None and path.get("token_id") == os.environ["K12AI_TOKEN"].split("_")[1]:
        path["token_id"] = "00000000"


def _correct_lifetime(body: Any) -> None:
    """Write a whole number without a fraction, as for `timeout`."""
    if isinstance(body, dict) and isinstance(body.get("expires_in_s"), float):
        body["expires_in_s"] = int(body["expires_in_s"])


def _ask_for_little(limits: Any) -> None:
    """Leave whole numbers, and nothing that this machine may not have."""
    if isinstance(limits, dict):
        for name in ("cpus", "gpus", "gpu_memory_bytes", "memory_bytes"):
            limits.pop(name, None)
        limits.update({name: None if given is None else int(given) for name, given in limits.items()})


def _correct_key(headers: Any) -> None:
    """Leave no key of spaces: they are not part of a header field's value, and nothing remains."""
    if headers and not str(headers.get("Idempotency-Key", "x")).strip(" \t"):
        headers["Idempotency-Key"] = "x"


def _correct_file(parameters: Any) -> None:
    """Send the '/' between names as it is, for which OpenAPI 3.1 has no word, and names of few enough bytes.

    What is in a path has been percent-encoded by then.
    """
    if parameters and "path" in parameters:
        names = urllib.parse.unquote(str(parameters["path"])).split("/")[:16]
        cut = [name.encode()[:60].decode(errors="ignore") for name in names]
        parameters["path"] = "/".join(urllib.parse.quote(name, safe="") for name in cut)

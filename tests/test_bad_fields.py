"""B2, B3: a field that is missing, of the wrong type or out of range is named, and nothing is done."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import httpx
import msgspec
import pytest

from tests.support.server import Server, envelope, strict

STATS = "/k12ai/platform/stats"
CONTROL = "/k12ai/platform/control"
NOT_FOUND = {"code": 100202, "descr": "task service start fails", "message": "container id unknow is not found"}
FIELDS = ("op", "user", "service_name", "service_uuid")

# A name for each value, so that a failing test says which one it was.
WRONG = {
    "null": None,
    "0": 0,
    "1": 1,
    "true": True,
    "false": False,
    "1.5": 1.5,
    "[]": [],
    "{}": {},
    "[string]": ["query"],
}
NO_BOOLEANS = {name: value for name, value in WRONG.items() if not isinstance(value, bool)}
ODD_STRINGS = {"empty": "", "space": " ", "300 characters": "a" * 300, "1,000,000 characters": "a" * 1_000_000}

EVERY_ROUTE = pytest.mark.parametrize("path", [STATS, CONTROL])


def by_name(values: dict[str, Any]) -> pytest.MarkDecorator:
    """Parametrize ``value``, each under its readable name."""
    return pytest.mark.parametrize("value", values.values(), ids=values.keys())


def good(path: str, **fields: Any) -> dict[str, Any]:
    """Return a request that the route takes, with these fields instead."""
    request = (
        envelope("query") if path == STATS else envelope("container.stop", service_params={"id": "unknow"})
    )
    if "is_async" in fields:
        fields["async"] = fields.pop("is_async")
    return request | fields


def check_refused(answer: httpx.Response, code: int, *named: str) -> None:
    """The answer is a 400 with this code, short, and its message begins with what is wrong."""
    body = strict(answer)
    assert (answer.status_code, body["code"]) == (400, code)
    assert set(body) == {"code", "descr", "message"}
    assert len(answer.content) < 1024
    assert body["message"].startswith(named), body["message"]


def waiting(server: Server) -> int:
    """Return how many asynchronous requests were ever accepted."""
    with closing(sqlite3.connect(f"file:{server.data_dir / 'k12ai.sqlite3'}?mode=ro", uri=True)) as database:
        found = database.execute("SELECT seq FROM sqlite_sequence WHERE name = 'request'").fetchone()
    return int(found[0]) if found else 0


@pytest.fixture(autouse=True)
def _unharmed(server: Server) -> Iterator[None]:
    """After every test the same server is well."""
    with server.unharmed():
        yield


# --- the envelope --------------------------------------------------------------------------------


@EVERY_ROUTE
@pytest.mark.parametrize("field", FIELDS)
def test_a_missing_field_is_named(server: Server, path: str, field: str) -> None:
    """Without a mandatory field the answer is 100101 and names it."""
    body = good(path)
    del body[field]
    check_refused(server.post(path, body), 100101, f"{field}: ")


@EVERY_ROUTE
@pytest.mark.parametrize("field", FIELDS)
@by_name(WRONG)
def test_a_field_of_the_wrong_type_is_named(server: Server, path: str, field: str, value: Any) -> None:
    """A mandatory field that is not a string is 100102 and named."""
    check_refused(server.post(path, good(path, **{field: value})), 100102, f"{field}: ")


@EVERY_ROUTE
@pytest.mark.parametrize("field", ["op", "user", "service_uuid"])
@by_name(ODD_STRINGS)
def test_an_impossible_string_is_named(server: Server, path: str, field: str, value: str) -> None:
    """A string that the field cannot be is 100102 and named, and is not repeated at length."""
    check_refused(server.post(path, good(path, **{field: value})), 100102, f"{field}: ")


@EVERY_ROUTE
@by_name(
    {
        **ODD_STRINGS,
        "prefix": "k12",
        "capitals": "K12PLATFORM",
        "space after": "k12platform ",
        "line feed after": "k12platform\n",
        "star": "*",
        "framework that is none": "k12nope",
        "two": "k12cv,k12nlp",
    }
)
def test_an_unknown_service_is_not_found(server: Server, path: str, value: str) -> None:
    """A service_name that names no service is 100201, and the message lists those there are."""
    answer = server.post(path, good(path, service_name=value))
    assert (answer.status_code, strict(answer)["code"]) == (404, 100201)
    assert strict(answer)["descr"] == "task service is not found"
    assert "k12platform" in strict(answer)["message"]
    assert len(answer.content) < 1024


@EVERY_ROUTE
@by_name({**NO_BOOLEANS, "empty": "", "the word true": "true", "the word false": "false"})
def test_async_is_true_or_false(server: Server, path: str, value: Any) -> None:
    """Only the two booleans are taken for async; anything else is named and nothing is accepted."""
    before = waiting(server)
    check_refused(server.post(path, good(path, is_async=value)), 100102, "async: ")
    assert waiting(server) == before


@pytest.mark.parametrize("field", [*FIELDS, "service_params"])
def test_a_bad_asynchronous_request_is_refused_at_once(server: Server, field: str) -> None:
    """What is wrong with an asynchronous request is said in its answer; it is not accepted first."""
    before = waiting(server)
    answer = server.post(STATS, good(STATS, **{"is_async": True, field: 5}))
    check_refused(answer, 100102, f"{field}: ")
    assert waiting(server) == before


def test_a_bad_asynchronous_stop_is_refused_at_once(server: Server) -> None:
    """The parameters of an asynchronous stop are checked before it is accepted."""
    before = waiting(server)
    check_refused(
        server.post(CONTROL, good(CONTROL, is_async=True, service_params={"id": "unknow", "timeout": -1})),
        100102,
        "service_params.timeout: ",
    )
    check_refused(
        server.post(CONTROL, good(CONTROL, is_async=True, service_params=None)), 100101, "service_params.id: "
    )
    assert waiting(server) == before


def test_the_python_clients_word_for_async_means_nothing(server: Server) -> None:
    """Only ``async`` counts: ``isasync`` is an unknown field and unknown fields are ignored."""
    assert server.post(STATS, good(STATS, isasync=True)).status_code == 200
    assert server.post(STATS, good(STATS, isasync="nonsense")).status_code == 200


def test_the_first_of_many_faults_is_named(server: Server) -> None:
    """An empty object is told about one field that is missing."""
    check_refused(server.post(STATS, {}), 100101, *(f"{field}: " for field in FIELDS))


# --- op ------------------------------------------------------------------------------------------

NO_OPS = (
    "q",
    "ue",
    "QUERY",
    "Query",
    "query ",
    " query",
    "query\n",
    "query\x00",
    "'query'",
    "query,container.stop",
    "stats",
    "__class__",
    "container",
    "container.",
    "container.stopx",
    "container.stop.x",
    "CONTAINER.STOP",
    "container.start",
    "train.start",
    "ｑuery",
    "q" * 1024,
)


@EVERY_ROUTE
@pytest.mark.parametrize("op", NO_OPS, ids=[ascii(op)[:24] for op in NO_OPS])
def test_an_unknown_op_is_refused_with_the_known_ones(server: Server, path: str, op: str) -> None:
    """No op but the route's own is taken, by its whole name; the message lists it."""
    answer = server.post(path, good(path, op=op))
    check_refused(answer, 100102, "op: ")
    assert repr("query" if path == STATS else "container.stop") in strict(answer)["message"]


@pytest.mark.parametrize(("path", "op"), [(STATS, "container.stop"), (CONTROL, "query")])
def test_an_op_of_the_other_route_is_unknown(server: Server, path: str, op: str) -> None:
    """stats never controls and control never queries."""
    check_refused(server.post(path, good(path, op=op)), 100102, "op: ")


# --- identifiers ---------------------------------------------------------------------------------

BAD_IDENTIFIERS = (
    ".",
    "..",
    "../../etc",
    "/etc",
    "a/b",
    "a\\b",
    "..\\..\\x",
    "%2e%2e%2f",
    "%252e%252e",
    "%00",
    "a\x00b",
    "\x00",
    "a\n",
    "..\n",
    "\na",
    "a\nb",
    "a\r",
    "a\r\nX-Evil: 1",
    "a\t",
    "a\x0b",
    "a\x0c",
    "a\x1c",
    "a\x7f",
    "a\x85",
    "a\u2028",
    "a\u2029",
    " a",
    "a ",
    "a b",
    "*",
    "a*",
    "a,b",
    "a=b",
    "a:b",
    "a;b",
    "a#b",
    "a?b",
    "a&b",
    "a+b",
    "a|b",
    "$HOME",
    "`id`",
    "{user}",
    "%s",
    "'",
    '"',
    "<b>",
    "~",
    "é",
    "e\u0301",
    "ａ",
    "١",
    "K\u212a",
    "ſ",
    "\u202eabc",
    "\u200b",
    "a\u200d",
    "\ufeff",
    "😀",
    "中" * 86,
    "a" * 65,
    "a" * 256,
    "a" * 64 + "\n",
)
GOOD_IDENTIFIERS = ("-rf", "all", "0", "a", "@", "-", "_", "...", "..a", "a..", "a.b@c-d_E", "None", "a" * 64)


@pytest.mark.parametrize("field", ["user", "service_uuid"])
@pytest.mark.parametrize("value", BAD_IDENTIFIERS, ids=[ascii(each)[:24] for each in BAD_IDENTIFIERS])
def test_a_name_with_special_characters_is_refused(server: Server, field: str, value: str) -> None:
    """An identifier that could mean something to a path, a shell, a key or a header is 100102."""
    check_refused(server.stats(**{field: value}), 100102, f"{field}: ")


@pytest.mark.parametrize("field", ["user", "service_uuid"])
@pytest.mark.parametrize("value", GOOD_IDENTIFIERS, ids=[each[:24] for each in GOOD_IDENTIFIERS])
def test_a_plain_name_is_taken_as_it_is(server: Server, field: str, value: str) -> None:
    """Every identifier of the allowed characters is taken and is in the key, unchanged."""
    answer = server.stats(is_async=True, **{"user": "fields", "service_uuid": "fields", field: value})
    names = {"user": "fields", "service_uuid": "fields", field: value}
    assert answer.status_code == 202
    assert strict(answer)["message"] == {"key": f"platform/{names['user']}/{names['service_uuid']}/query"}


# --- service_params of stats ---------------------------------------------------------------------


@by_name({"absent": ..., "null": None, "empty object": {}, "empty object in a string": "{}"})
def test_no_parameters_mean_everything(server: Server, value: Any) -> None:
    """Without service_params, or with empty ones, all four parts come."""
    body = good(STATS) if value is ... else good(STATS, service_params=value)
    message = strict(server.post(STATS, body))["message"]
    assert {"cpu_percent", "gpus", "disks", "containers"} <= set(message)


@by_name({name: value for name, value in WRONG.items() if name not in ("null", "{}")})
def test_parameters_of_the_wrong_type_are_named(server: Server, value: Any) -> None:
    """service_params is an object or a string."""
    check_refused(server.stats(service_params=value), 100102, "service_params: ")


BAD_PARAMS_IN_A_STRING = {
    "empty": "",
    "space": " ",
    "word": "cpus",
    "300 characters": "a" * 300,
    "null": "null",
    "true": "true",
    "number": "1",
    "string": '"x"',
    "array": "[]",
    "array of an object": "[{}]",
    "half an object": "{",
    "two objects": "{} {}",
    "trailing junk": "{}x",
    "BOM": "\ufeff{}",
    "NUL": "\x00{}",
    "Python": "{'cpus': True}",
    "string in a string": '"{\\"cpus\\": true}"',
    "NaN": '{"x": NaN}',
    "lone surrogate": '{"x": "\\ud800"}',
    "100,000 open arrays": "[" * 100_000,
    "100,000 levels": '{"x": ' + "[" * 100_000 + "]" * 100_000 + "}",
}


@by_name(BAD_PARAMS_IN_A_STRING)
def test_a_string_that_holds_no_object_is_refused(server: Server, value: str) -> None:
    """A service_params string holds one strict JSON object and nothing else."""
    check_refused(server.stats(service_params=value), 100102, "service_params: ")


@pytest.mark.parametrize("flag", ["cpus", "gpus", "disks", "containers"])
@pytest.mark.parametrize("as_string", [False, True], ids=["object", "string"])
@by_name({**NO_BOOLEANS, "empty": "", "the word true": "true"})
def test_a_flag_is_true_or_false(server: Server, flag: str, as_string: bool, value: Any) -> None:
    """A flag that is not a boolean is named, in an object and in a string that holds one."""
    params: Any = {flag: value}
    if as_string:
        params = msgspec.json.encode(params).decode()
    check_refused(server.stats(service_params=params), 100102, f"service_params.{flag}: ")


def test_unknown_flags_are_ignored(server: Server) -> None:
    """A flag that the server does not know changes nothing, whatever its value."""
    message = strict(server.stats(service_params={"cpus": True, "fans": 5, "": [], "cpu_percent": {}}))[
        "message"
    ]
    assert set(message) - {"sampled_at", "notes"} == {
        "cpu_percent",
        "cpu_percent_list",
        "cpu_memory_total",
        "cpu_memory_usage",
        "cpu_memory_percent",
    }


# --- service_params of control -------------------------------------------------------------------


@by_name(
    {"absent": ..., "null": None, "empty object": {}, "empty object in a string": "{}", "id as name": {"i": 1}}
)
def test_a_stop_without_an_id_is_refused(server: Server, value: Any) -> None:
    """There is no stop of everything: without an id the answer is 100101."""
    body = good(CONTROL)
    if value is ...:
        del body["service_params"]
    else:
        body["service_params"] = value
    check_refused(server.post(CONTROL, body), 100101, "service_params.id: ")


@pytest.mark.parametrize("as_string", [False, True], ids=["object", "string"])
@by_name({**WRONG, "257 characters": "a" * 257, "257 digits": "0" * 257})
def test_an_id_that_is_no_short_string_is_refused(server: Server, as_string: bool, value: Any) -> None:
    """The id is a string of at most 256 characters."""
    params: Any = {"id": value}
    if as_string:
        params = msgspec.json.encode(params).decode()
    check_refused(server.post(CONTROL, good(CONTROL, service_params=params)), 100102, "service_params.id: ")


NO_IDS = (
    "",
    " ",
    "*",
    "unknow",
    "all",
    "abcde",
    "ABCDEF123456",
    "Abcdef123456",
    "abcdeg",
    " abcdef123456",
    "abcdef123456 ",
    "abcdef123456\n",
    "abcdef123456,abcdef123457",
    "sha256:abcdef123456",
    "k12ai-test",
    "/k12ai-test",
    ".",
    "..",
    "../containers",
    "abcdef/../json",
    "abcdef?force=1",
    "%61bcdef",
    "\x00",
    "abcdef\x00",
    "a\r\nX-Evil: 1",
    "中文",
    "😀",
    "１２３４５６",
    "<script>",
    "%s%n",
    "{0}",
    "{container_id}",
    "0" * 65,
    "a" * 256,
)


@pytest.mark.parametrize("name", NO_IDS, ids=[ascii(each)[:28] for each in NO_IDS])
def test_what_names_no_container_is_not_found(server: Server, name: str) -> None:
    """Names, patterns and too short prefixes get the published body, with the id as it was sent."""
    answer = server.stop(name)
    assert answer.status_code == 404
    assert strict(answer) == NOT_FOUND | {"message": f"container id {name} is not found"}


@pytest.mark.parametrize("as_string", [False, True], ids=["object", "string"])
@by_name(
    {
        "-1": -1,
        "601": 601,
        "1.5": 1.5,
        "true": True,
        "false": False,
        "null": None,
        "the word 10": "10",
        "empty": "",
        "[]": [],
        "{}": {},
        "2**63": 2**63,
        "2**64": 2**64,
        "-2**64": -(2**64),
        "1e300": 1e300,
    }
)
def test_a_timeout_out_of_range_is_refused(server: Server, as_string: bool, value: Any) -> None:
    """The timeout is a whole number of seconds from 0 to 600."""
    params: Any = {"id": "unknow", "timeout": value}
    if as_string:
        params = msgspec.json.encode(params).decode()
    check_refused(
        server.post(CONTROL, good(CONTROL, service_params=params)), 100102, "service_params.timeout: "
    )


@pytest.mark.parametrize("value", [0, 1, 600])
def test_a_timeout_at_the_edge_is_taken(server: Server, value: int) -> None:
    """0 and 600 seconds are allowed; the unknown container is what is wrong then."""
    assert strict(server.stop("unknow", timeout=value)) == NOT_FOUND


@pytest.mark.parametrize("value", ["10.0", "1e1", "-0.0"])
def test_a_number_means_the_same_in_an_object_and_in_a_string(server: Server, value: str) -> None:
    """A timeout such as 10.0 is judged alike in both forms of service_params."""
    params = f'{{"id": "unknow", "timeout": {value}}}'
    in_string = server.post(CONTROL, good(CONTROL, service_params=params))
    in_object = server.post(CONTROL, good(CONTROL, service_params=msgspec.Raw(params.encode())))
    assert strict(in_object) == strict(in_string)


@by_name(BAD_PARAMS_IN_A_STRING)
def test_a_string_that_holds_no_object_stops_nothing(server: Server, value: str) -> None:
    """control takes no other strings as parameters than stats does."""
    answer = server.post(CONTROL, good(CONTROL, service_params=value))
    assert (answer.status_code, strict(answer)["code"]) in ((400, 100101), (400, 100102))


def test_a_refused_request_publishes_nothing(server: Server, eventually: Callable[..., Any]) -> None:
    """A refused asynchronous request leaves no result, although one accepted after it does."""
    assert server.stats(is_async=True, service_uuid="refused", service_params={"cpus": 1}).status_code == 400
    assert server.stats(is_async=True, service_uuid="taken").status_code == 202
    eventually(lambda: server.http.get("/v1/kv/platform/test/taken/query/result").status_code == 200)
    assert server.http.get("/v1/kv/platform/test/refused?recurse").status_code == 404

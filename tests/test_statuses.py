"""Errors: the real HTTP status, the body of the path, a request id, both languages, and never a traceback."""

import http.client
import inspect
import re
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from k12ai import errors
from k12ai.api import answers
from k12ai.api.application import Routes, application
from k12ai.api.files import FilesRoutes
from k12ai.api.framework import FrameworkRoutes
from k12ai.api.kv import KvRoutes
from k12ai.api.pages import Pages
from k12ai.api.platform import PlatformRoutes
from k12ai.api.tasks import TaskRoutes
from k12ai.catalogue import CATALOGUE
from k12ai.closing import Closing
from k12ai.errors import K12AIError
from k12ai.framework import FrameworkService
from k12ai.texts import Text, preferred_language
from tests.support.fakes import open_walls
from tests.support.server import Server, envelope, strict

STATS = "/k12ai/platform/stats"
CONTROL = "/k12ai/platform/control"
JSON = {"Content-Type": "application/json"}
CHINESE = re.compile(r"[\u4e00-\u9fff]")


class Case(msgspec.Struct):
    """A request that fails, and how."""

    method: str
    path: str
    status: int
    code: int
    content: bytes = b""
    headers: dict[str, str] = {}

    def send(self, server: Server, **headers: str) -> httpx.Response:
        return server.http.request(
            self.method, self.path, content=self.content, headers={**self.headers, **headers}
        )


def query(**fields: Any) -> bytes:
    return msgspec.json.encode(envelope("query") | fields)


def stop(**params: Any) -> bytes:
    return msgspec.json.encode(envelope("container.stop", service_params=params))


PLATFORM_ERRORS = {
    "broken JSON": Case("POST", STATS, 400, 100103, b"{", JSON),
    "no object": Case("POST", STATS, 400, 100103, b"[]", JSON),
    "no body": Case("POST", CONTROL, 400, 100103, b"", JSON),
    "no JSON": Case("POST", STATS, 415, 100103, query(), {"Content-Type": "text/plain"}),
    "missing field": Case("POST", STATS, 400, 100101, b"{}", JSON),
    "missing id": Case("POST", CONTROL, 400, 100101, stop(), JSON),
    "bad op": Case("POST", STATS, 400, 100102, query(op="q"), JSON),
    "op of the wrong type": Case("POST", STATS, 400, 100102, query(op=1), JSON),
    "bad user": Case("POST", STATS, 400, 100102, query(user=".."), JSON),
    "bad service_uuid": Case("POST", STATS, 400, 100102, query(service_uuid="a/b"), JSON),
    "bad async": Case("POST", STATS, 400, 100102, query()[:-1] + b',"async":1}', JSON),
    "bad service_name": Case("POST", STATS, 400, 100102, query(service_name=1), JSON),
    "bad parameters": Case("POST", STATS, 400, 100102, query(service_params=1), JSON),
    "bad flag": Case("POST", STATS, 400, 100102, query(service_params={"gpus": 1}), JSON),
    "bad id": Case("POST", CONTROL, 400, 100102, stop(id=1), JSON),
    "bad timeout": Case("POST", CONTROL, 400, 100102, stop(id="unknow", timeout=601), JSON),
    "unknown service": Case("POST", STATS, 404, 100201, query(service_name="k12"), JSON),
    "unknown container": Case("POST", CONTROL, 404, 100202, stop(id="unknow"), JSON),
    "too large": Case("POST", STATS, 413, 100613, b" " * (1024 * 1024 + 1), JSON),
    "unknown path": Case("POST", "/k12ai/platform/nope", 404, 100616),
    "path below": Case("POST", STATS + "/x", 404, 100616),
    "root of the platform": Case("GET", "/k12ai/", 404, 100616),
    "odd path": Case("GET", "/k12ai/%ff%00%0d%0a%2e%2e", 404, 100616),
    "wrong method": Case("GET", STATS, 405, 100617),
    "preflight": Case("OPTIONS", CONTROL, 405, 100617),
    "wrong host": Case("POST", STATS, 421, 100605, query(), {**JSON, "Host": "evil.test"}),
    "wrong origin": Case("POST", STATS, 403, 100605, query(), {**JSON, "Origin": "null"}),
}
OTHER_ERRORS = {
    "unknown path": Case("GET", "/nope", 404, 100616),
    "root": Case("GET", "/", 404, 100616),
    "root of the platform without a slash": Case("GET", "/k12ai", 404, 100616),
    "path with a prefix": Case("GET", "/x/k12ai/platform/stats", 404, 100616),
    "unknown page": Case("GET", "/docs/nope", 404, 100616),
    "traversal": Case("GET", "/docs/%2e%2e/%2e%2e/etc/passwd", 404, 100616),
    "wrong method": Case("POST", "/health", 405, 100617),
    "delete": Case("DELETE", "/docs", 405, 100617),
    "patch": Case("PATCH", "/metrics", 405, 100617),
    "odd method": Case("PROPFIND", "/health", 405, 100617),
    "trace": Case("TRACE", "/health", 405, 100617),
    "wrong host": Case("GET", "/health", 421, 100605, b"", {"Host": "evil.test"}),
    "wrong origin": Case("GET", "/metrics", 403, 100605, b"", {"Origin": "null"}),
}
KV_ERRORS = {
    "missing key": Case("GET", "/v1/kv/statuses/none", 404, 0),
    "no key": Case("GET", "/v1/kv/", 400, 0),
    "no key to write": Case("PUT", "/v1/kv/", 400, 0, b"x"),
    "no key to delete": Case("DELETE", "/v1/kv/", 400, 0),
    "not UTF-8": Case("GET", "/v1/kv/%ff", 400, 0),
    "control character": Case("GET", "/v1/kv/a%0d%0ab", 400, 0),
    "bad index": Case("GET", "/v1/kv/a?index=x", 400, 0),
    "bad wait": Case("GET", "/v1/kv/a?index=1&wait=x", 400, 0),
    "bad cas": Case("PUT", "/v1/kv/statuses/a?cas=x", 400, 0, b"x"),
    "bad flags": Case("PUT", "/v1/kv/statuses/a?flags=-1", 400, 0, b"x"),
    "locks": Case("PUT", "/v1/kv/statuses/a?acquire=x", 501, 0, b"x"),
    "conflict": Case("DELETE", "/v1/kv/statuses/a?recurse&cas=1", 400, 0),
    "too large": Case("PUT", "/v1/kv/statuses/a", 413, 0, b"x" * (512 * 1024 + 1)),
    "wrong method": Case("POST", "/v1/kv/statuses/a", 405, 0),
    "wrong host": Case("GET", "/v1/kv/statuses/a", 421, 0, b"", {"Host": "evil.test"}),
    "wrong origin": Case("PUT", "/v1/kv/statuses/a", 403, 0, b"x", {"Origin": "null"}),
}
ALL_ERRORS = {
    **{f"k12ai: {name}": case for name, case in PLATFORM_ERRORS.items()},
    **{f"kv: {name}": case for name, case in KV_ERRORS.items()},
    **{f"elsewhere: {name}": case for name, case in OTHER_ERRORS.items()},
}


def cases(table: dict[str, Case]) -> pytest.MarkDecorator:
    """Parametrize ``case``, each under its name."""
    return pytest.mark.parametrize("case", table.values(), ids=table.keys())


@pytest.fixture(autouse=True)
def _unharmed(server: Server) -> Iterator[None]:
    """After every test the same server is well."""
    with server.unharmed():
        yield


# --- the form of the path ------------------------------------------------------------------------


@cases(PLATFORM_ERRORS)
def test_an_error_of_the_platform_is_exactly_the_envelope(server: Server, case: Case) -> None:
    """Under /k12ai an error has its real status and the body {code, descr, message}, nothing more."""
    answer = case.send(server)
    assert answer.status_code == case.status
    assert answer.headers["content-type"] == "application/json"
    body = strict(answer)
    assert list(body) == ["code", "descr", "message"]
    assert body["code"] == case.code
    assert body["descr"] == CATALOGUE[case.code].text.en
    assert isinstance(body["message"], str)
    assert body["message"]


@cases(OTHER_ERRORS)
def test_an_error_elsewhere_is_a_problem_document(server: Server, case: Case) -> None:
    """Outside of the published paths an error is RFC 9457's, with the status that HTTP has."""
    answer = case.send(server)
    assert answer.status_code == case.status
    assert answer.headers["content-type"] == "application/problem+json"
    body = strict(answer)
    assert set(body) == {"type", "title", "status", "detail", "instance", "code", "cause", "next_step"}
    assert body["status"] == answer.status_code
    assert body["code"] == case.code
    assert body["title"] == CATALOGUE[case.code].text.en
    assert body["instance"].endswith(answer.headers["x-request-id"])
    assert body["detail"]


@cases(KV_ERRORS)
def test_an_error_of_the_store_is_plain_text(server: Server, case: Case) -> None:
    """Under /v1/kv an error is plain text, or nothing where Consul says nothing."""
    answer = case.send(server)
    assert answer.status_code == case.status
    assert answer.headers["content-type"].startswith("text/plain")
    assert not answer.text.startswith(("{", "["))
    assert (answer.text == "") == (case is KV_ERRORS["missing key"])


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
@pytest.mark.parametrize("path", ["/v1/kvx", "/v1/kv-x/y"])
def test_what_only_begins_like_the_store_is_elsewhere(server: Server, method: str, path: str) -> None:
    """A path beside the store is not there, and says so as a problem document."""
    answer = server.http.request(method, path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/v1/kv", "/v1/kv/"])
def test_the_store_itself_is_in_the_store(server: Server, path: str) -> None:
    """The root of the store answers in the store's words, with or without a slash."""
    answer = server.http.get(path)
    assert (answer.status_code, answer.text) == (400, "Missing key name")


@cases(ALL_ERRORS)
def test_no_error_shows_the_insides(server: Server, case: Case) -> None:
    """No error body holds a traceback, a file of the server or a Python class."""
    answer = case.send(server)
    for trace in (
        "Traceback",
        "trackback",
        'File "',
        "site-packages",
        "k12ai.",
        "msgspec",
        "object at 0x",
        ".py",
    ):
        assert trace not in answer.text


@cases(ALL_ERRORS)
def test_every_error_may_be_sniffed_by_nobody(server: Server, case: Case) -> None:
    """A browser must not guess the type of an error body."""
    assert case.send(server).headers["x-content-type-options"] == "nosniff"


ALLOWED = {
    STATS: {"POST"},
    CONTROL: {"POST"},
    "/v1/kv/statuses/a": {"GET", "PUT", "DELETE"},
    "/health": {"GET"},
    "/metrics": {"GET"},
    "/docs": {"GET"},
    "/docs/openapi.json": {"GET"},
    "/docs/rapidoc-min.js": {"GET"},
}


@pytest.mark.parametrize("path", ALLOWED)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND"])
def test_a_method_that_a_path_does_not_take_is_405(server: Server, path: str, method: str) -> None:
    """Another method is a 405 whose Allow field names what the path takes."""
    if method in ALLOWED[path]:
        assert server.http.request(method, path).status_code != 405
        return
    answer = server.http.request(method, path)
    assert answer.status_code == 405
    assert {name.strip() for name in answer.headers["allow"].split(",")} >= ALLOWED[path]


@pytest.mark.parametrize("path", ["/health", "/metrics", "/docs"])
def test_allow_is_the_same_in_a_405_and_in_the_answer_to_options(server: Server, path: str) -> None:
    """What OPTIONS says a path takes is what a 405 says it takes."""
    options, refused = server.http.options(path), server.http.post(path)
    assert options.headers["allow"] == refused.headers["allow"]


def test_a_media_type_has_each_parameter_once(server: Server) -> None:
    """The type of /metrics can be read: parsers such as Prometheus's refuse a parameter that comes twice."""
    parameters = server.http.get("/metrics").headers["content-type"].split(";")[1:]
    names = [parameter.split("=")[0].strip() for parameter in parameters]
    assert len(names) == len(set(names))


# --- refused before it was a request -------------------------------------------------------------


class Reply(msgspec.Struct):
    """What http.client got; unlike httpx it sends almost anything."""

    status: int
    headers: dict[str, str]
    body: bytes


def ask(server: Server, method: str, url: str, **headers: str) -> Reply:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        connection.putrequest(method, url)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    finally:
        connection.close()


# A URL too long, header fields too long, and what is no HTTP: what is added to the URL, and which fields.
REFUSED_BY_THE_PARSER: dict[int, tuple[str, dict[str, str]]] = {
    414: ("?" + "a" * 65536, {}),
    431: ("", {"X_Long": "y" * 65536}),
    400: ("", {"Content_Length": "-1"}),
}


@pytest.mark.parametrize("status", REFUSED_BY_THE_PARSER)
@pytest.mark.parametrize("path", [STATS, "/v1/kv/a", "/health"])
def test_what_the_parser_refuses_has_its_status(server: Server, path: str, status: int) -> None:
    """A URL too long is 414, header fields too long are 431, and what is no HTTP is 400."""
    more, headers = REFUSED_BY_THE_PARSER[status]
    assert ask(server, "GET", path + more, **headers).status == status


@pytest.mark.parametrize("status", REFUSED_BY_THE_PARSER)
def test_what_the_parser_refuses_has_the_form_of_its_path(server: Server, status: int) -> None:
    """Also 400, 414 and 431 are envelopes under /k12ai, where the published client reads the body as JSON."""
    more, headers = REFUSED_BY_THE_PARSER[status]
    answer = ask(server, "GET", STATS + more, **headers)
    assert answer.headers["content-type"] == "application/json"
    assert set(msgspec.json.decode(answer.body)) == {"code", "descr", "message"}


@pytest.mark.parametrize("status", REFUSED_BY_THE_PARSER)
@pytest.mark.parametrize("name", ["x-request-id", "x-content-type-options"])
def test_what_the_parser_refuses_has_the_fields_of_every_answer(server: Server, status: int, name: str) -> None:
    """Also 400, 414 and 431 can be found again by their request id, and are sniffed by nobody."""
    more, headers = REFUSED_BY_THE_PARSER[status]
    assert name in ask(server, "GET", STATS + more, **headers).headers


# --- request ids ---------------------------------------------------------------------------------

EVERY_ANSWER = {
    **ALL_ERRORS,
    "stats": Case("POST", STATS, 200, 0, query(), JSON),
    "async stats": Case("POST", STATS, 202, 0, query()[:-1] + b',"async":true}', JSON),
    "health": Case("GET", "/health", 200, 0),
    "metrics": Case("GET", "/metrics", 200, 0),
    "docs": Case("GET", "/docs", 200, 0),
    "document": Case("GET", "/docs/openapi.json", 200, 0),
    "options": Case("OPTIONS", "/health", 204, 0),
    "put": Case("PUT", "/v1/kv/statuses/put", 200, 0, b"x"),
    "list": Case("GET", "/v1/kv/statuses?recurse", 200, 0),
}


@cases(EVERY_ANSWER)
def test_every_answer_has_a_request_id(server: Server, case: Case) -> None:
    """Every answer has an id of its own, and a new one each time."""
    server.http.put("/v1/kv/statuses/put", content=b"x")
    first, second = case.send(server), case.send(server)
    assert first.status_code == case.status
    ids = [answer.headers.get_list("x-request-id") for answer in (first, second)]
    assert [len(each) for each in ids] == [1, 1]
    assert ids[0] != ids[1]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]{1,64}", each[0]) for each in ids)


@cases(EVERY_ANSWER)
def test_a_given_request_id_comes_back(server: Server, case: Case) -> None:
    """The id that a caller gives is the answer's."""
    assert case.send(server, **{"X-Request-Id": "Caller_7.a-b"}).headers["x-request-id"] == "Caller_7.a-b"


HOSTILE_IDS = (
    "",
    " ",
    "a b",
    "a\tb",
    "a" * 65,
    "a" * 4096,
    "a/b",
    "../../etc/passwd",
    "a:b",
    "a;b",
    "a,b",
    'a"b',
    "a'b",
    "a%0d%0aSet-Cookie: x=1",
    "<script>alert(1)</script>",
    "${jndi:ldap://x}",
    "\x1b[31m",
    "\x7f",
    "中文".encode().decode("latin-1"),
    "\xff",
)


@pytest.mark.parametrize("value", HOSTILE_IDS, ids=[ascii(each)[:24] for each in HOSTILE_IDS])
def test_a_hostile_request_id_is_replaced(server: Server, value: str) -> None:
    """An id that could do harm in a log, a page or a header is not repeated anywhere, or is a 400."""
    answer = ask(server, "GET", "/nope", X_Request_Id=value)
    if answer.status == 400:
        return
    given = answer.headers["x-request-id"]
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", given)
    assert given != value
    assert msgspec.json.decode(answer.body)["instance"].endswith(f":{given}")


def test_a_line_feed_in_a_request_id_splits_nothing(server: Server) -> None:
    """No spelling of a line feed gets a field of the caller's choice into the answer."""
    for feed in (b"\n", b"\r", b"\r\n ", b"\x0b", b"\x85"):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as peer:
            head = b"GET /nope HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Request-Id: a"
            peer.sendall(head + feed + b"Set-Cookie: evil=1\r\n\r\n")
            raw = b"".join(iter(lambda peer=peer: peer.recv(65536), b""))
        assert raw.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 404 "))
        assert b"set-cookie" not in raw.lower()


# --- languages -----------------------------------------------------------------------------------


@cases(PLATFORM_ERRORS)
def test_every_error_of_the_platform_is_said_in_chinese(server: Server, case: Case) -> None:
    """With Accept-Language zh, descr and message are Chinese, and the code and status are the same."""
    answer = case.send(server, **{"Accept-Language": "zh"})
    body = strict(answer)
    assert (answer.status_code, body["code"]) == (case.status, case.code)
    assert body["descr"] == CATALOGUE[case.code].text.zh
    assert CHINESE.search(body["message"])
    assert body["message"] != strict(case.send(server))["message"]


@cases(OTHER_ERRORS)
def test_every_problem_is_said_in_chinese(server: Server, case: Case) -> None:
    """With Accept-Language zh, what people read of a problem document is Chinese."""
    body = strict(case.send(server, **{"Accept-Language": "zh"}))
    for field in ("title", "detail", "cause", "next_step"):
        assert CHINESE.search(body[field]), field


@cases({**PLATFORM_ERRORS, **OTHER_ERRORS})
def test_every_error_is_said_in_english_otherwise(server: Server, case: Case) -> None:
    """Without a wish, and with one for a third language, nothing of an error is Chinese."""
    assert not CHINESE.search(case.send(server).text)
    assert not CHINESE.search(case.send(server, **{"Accept-Language": "fr-FR, de;q=0.5"}).text)


@cases(KV_ERRORS)
def test_the_store_speaks_consuls_words_in_every_language(server: Server, case: Case) -> None:
    """Existing clients compare the store's words, so they do not change with the language."""
    assert case.send(server, **{"Accept-Language": "zh"}).text == case.send(server).text


def test_a_success_is_said_in_chinese(server: Server) -> None:
    """With Accept-Language zh a success is, too; the code is what programs read."""
    answer = server.post(STATS, envelope("query"), **{"Accept-Language": "zh-CN"})
    assert strict(answer)["code"] == 100000
    assert CHINESE.search(strict(answer)["descr"])


LANGUAGES = {
    "zh": "zh",
    "zh-CN": "zh",
    "ZH-hant-TW": "zh",
    "en;q=0.5, zh-CN": "zh",
    "zh-CN,zh;q=0.9,en;q=0.8": "zh",
    "en, zh;q=0.9": "en",
    "en-GB;q=0.4,zh;q=0.5": "zh",
    "fr, zh;q=0.1": "zh",
    "zh;q=0": "en",
    "zh;q=0.0, en": "en",
    "zh; q=0.9, en; q=0.8": "zh",
    "en; q=0.8,\tzh": "zh",
    "zh;Q=0.9, en;q=0.5": "zh",
    ",,zh,,": "zh",
    "*": "en",
    "": "en",
    "zhx": "en",
    "english": "en",
    "x-zh": "en",
    "zh;q=nan": "en",
    "zh;q=-1": "en",
    "zh;q=x": "en",
    "zh;" * 4000: "zh",
    "zh;q=" + "9" * 4000: "zh",
    "中文".encode().decode("latin-1"): "en",
}


@pytest.mark.parametrize(("wish", "language"), LANGUAGES.items(), ids=[ascii(each)[:32] for each in LANGUAGES])
def test_the_language_with_the_greatest_weight_is_spoken(server: Server, wish: str, language: str) -> None:
    """Accept-Language is read with its weights; what cannot be read is English, never an error."""
    answer = server.http.get("/nope", headers={b"Accept-Language": wish.encode("latin-1")})
    assert answer.status_code == 404
    assert ("zh" if CHINESE.search(strict(answer)["title"]) else "en") == language


def test_a_wish_may_come_in_two_fields(server: Server) -> None:
    """Two Accept-Language fields mean what one with both values does (RFC 9110, section 5.3)."""
    fields = [("Accept-Language", "en;q=0.1"), ("Accept-Language", "zh")]
    assert CHINESE.search(server.http.get("/nope", headers=fields).json()["title"])


def test_a_space_before_the_semicolon_is_allowed() -> None:
    """A weight may be set off by spaces (RFC 9110, section 12.4.2)."""
    assert preferred_language("zh ; q=0.9, en ; q=0.8") == "zh"


def test_a_parameter_beside_the_weight_is_ignored() -> None:
    """A weight is read where something follows it."""
    assert preferred_language("zh;q=0.9;x=1, en;q=0.1") == "zh"


# --- every error there is ------------------------------------------------------------------------

# What each error of the tree is made from.
MADE_FROM: dict[str, tuple[Any, ...]] = {
    "K12AIError": (Text("something", "某事"),),
    "RequestError": (Text("something", "某事"),),
    "MissingField": ("user",),
    "InvalidValue": ("user", Text("a string", "字符串")),
    "ServiceNotFound": (("k12platform",),),
    "TooLarge": (1024,),
    "RequestTooSlow": (10.0,),
    "MethodNotAllowed": (("GET",),),
    "ContainerNotFound": ("unknow",),
    "TooManyRequestsPending": (1000,),
    "TaskRunning": ("0123456789ab",),
    "TaskNotFound": ("0123456789ab",),
    "FrameworkNotInstalled": ("k12ml", "ml", ("sklearn",)),
    "ImageMissing": ("k12ml", "k12ai/ml:0.1.0"),
    "BadParameter": ("service_params.x", Text("a number", "数字")),
    "BadPath": (Text("a path", "路径"),),
    "BadRange": (10,),
    "NoSuchFile": ("data/a.csv",),
    "PathTaken": ("data/a.csv", Text("it is a directory", "它是目录")),
    "ProjectFull": (1024, 10),
    "Unavailable": (Text("something", "某事"),),
    "EngineUnavailable": (Text("refused", "被拒绝"),),
    "EngineTimeout": ("stop", 3.0),
    "NotAllowed": (Text("something", "某事"),),
    "RateLimited": (3,),
    "TooManyWrongTokens": (3,),
    "NoSuchToken": ("0123abcd",),
    "NoSuchClass": ("2026-3",),
    "QuotaExceeded": (Text("something", "某事"),),
}
TREE = [
    each
    for _, each in inspect.getmembers(errors, inspect.isclass)
    if issubclass(each, K12AIError) and each.__module__ == errors.__name__
]


@pytest.mark.parametrize("kind", TREE, ids=[kind.__name__ for kind in TREE])
@pytest.mark.parametrize("path", ["/k12ai/x", "/v1/kv/x", "/x"])
def test_every_error_of_the_tree_can_be_said_in_both_languages(kind: type[K12AIError], path: str) -> None:
    """Each error has texts in both languages, and its body is what its path promises."""
    error = kind(*MADE_FROM.get(kind.__name__, ()))
    assert not CHINESE.search(error.detail.en)
    assert CHINESE.search(error.detail.zh)
    for language in (b"en", b"zh"):
        scope: Any = {"path": path, "headers": [(b"accept-language", language)], "state": {}}
        rendered = answers.render(error, scope)
        # Consul knows one status for every fault of a token.
        refused = path == "/v1/kv/x" and issubclass(kind, errors.NotAuthenticated)
        assert rendered.status == (403 if refused else kind.status)
        # A project that is full stays full until somebody deletes something: waiting does not help.
        can_wait = rendered.status in (429, 503, 504, 507) and kind is not errors.ProjectFull
        assert (b"retry-after" in dict(rendered.headers)) == can_wait
        if path != "/v1/kv/x":
            assert bool(CHINESE.search(rendered.body.decode())) == (language == b"zh")


@pytest.mark.parametrize("code", CATALOGUE)
def test_every_code_has_words_in_both_languages(code: int) -> None:
    """A code has a text, a cause and a next step, each in English and in Chinese."""
    row = CATALOGUE[code]
    for text in (row.text, row.cause, row.next_step):
        assert text.en
        assert not CHINESE.search(text.en)
        assert CHINESE.search(text.zh)


# --- faults of others and of ours ----------------------------------------------------------------


@pytest.fixture(name="lonely_server", scope="module")
def _lonely_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose Engine is away."""
    data = tmp_path_factory.mktemp("statuses") / "data"
    with Server(data, environ={"K12AI_DOCKER_HOST": f"unix://{data}/no.sock"}) as server:
        yield server


def test_an_engine_that_is_away_is_503_and_says_when_to_try_again(lonely_server: Server) -> None:
    """To stop a container that may exist is 503 with 100610 while the Engine is away, in both languages."""
    for language, words in (("en", "container engine is unavailable"), ("zh", "容器引擎不可用")):
        answer = lonely_server.post(
            CONTROL,
            envelope("container.stop", service_params={"id": "abcdef"}),
            **{"Accept-Language": language},
        )
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        body = strict(answer)
        assert (body["code"], body["descr"]) == (100610, words)
        assert bool(CHINESE.search(body["message"])) == (language == "zh")


def test_what_can_be_no_id_is_404_while_the_engine_is_away(lonely_server: Server) -> None:
    """A name is unknown whether or not the Engine answers."""
    assert strict(lonely_server.stop("unknow"))["code"] == 100202


def test_stats_are_200_while_the_engine_is_away(lonely_server: Server) -> None:
    """A dead Engine does not fail the answer about the rest, and a note says so in the caller's language."""
    message = strict(lonely_server.stats())["message"]
    assert message["containers"] == []
    assert message["notes"]
    answer = lonely_server.post(STATS, envelope("query"), **{"Accept-Language": "zh"})
    assert CHINESE.search("".join(strict(answer)["message"]["notes"]))


class Faulty:
    """Stands for a part of the server with a bug: whatever is asked of it raises."""

    def __getattr__(self, name: str) -> Any:
        raise ZeroDivisionError("a fault that nobody thought of")


def faulty_client() -> httpx.AsyncClient:
    """Return a client of an application in which every part has a bug."""
    closing, faulty = Closing(), Faulty()
    routes = PlatformRoutes(faulty, faulty, closing, max_body_bytes=1024)  # type: ignore[arg-type]
    kv = KvRoutes(faulty, closing)  # type: ignore[arg-type]
    pages = Pages(faulty, closing, CollectorRegistry())  # type: ignore[arg-type]
    service = FrameworkService(faulty, faulty, faulty, faulty)  # type: ignore[arg-type]
    published = routes.routes() | FrameworkRoutes(service, closing, max_body_bytes=1024).routes()
    tasks = TaskRoutes(service, faulty, faulty, closing)  # type: ignore[arg-type]
    files = FilesRoutes(faulty)  # type: ignore[arg-type]
    everything = Routes(published, [kv, files], [*pages.handlers(), *tasks.handlers()])
    app = application(open_walls(), everything)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")  # type: ignore[arg-type]


FAULTS = {
    "stats": Case("POST", STATS, 500, 100199, query(), JSON),
    "async stats": Case("POST", STATS, 500, 100199, query()[:-1] + b',"async":true}', JSON),
    "kv": Case("GET", "/v1/kv/x", 500, 100199),
    "health": Case("GET", "/health", 500, 100199),
    "execute": Case(
        "POST", "/k12ai/framework/execute", 500, 100199, query(op="runcode.start", service_name="k12py"), JSON
    ),
    "tasks": Case("GET", "/api/v1/tasks", 500, 100199),
    "files": Case("GET", "/api/v1/projects/u/p/files", 500, 100199),
}


async def fault(case: Case, **headers: str) -> httpx.Response:
    async with faulty_client() as client:
        return await client.request(
            case.method, case.path, content=case.content, headers={**case.headers, **headers}
        )


@cases(FAULTS)
@pytest.mark.parametrize("accept", ["*/*", "text/html", "text/plain"])
async def test_a_bug_is_a_500_without_a_traceback(case: Case, accept: str) -> None:
    """A fault of ours is a 500 with a request id, and shows nothing of its cause."""
    answer = await fault(case, Accept=accept)
    assert answer.status_code == 500
    assert answer.headers["x-request-id"]
    for trace in ("Traceback", "ZeroDivisionError", "nobody thought", 'File "', ".py"):
        assert trace not in answer.text


@cases(FAULTS)
async def test_a_bug_has_the_form_of_the_path(case: Case) -> None:
    """Also a 500 is an envelope under /k12ai, plain text under /v1/kv and a problem document elsewhere."""
    answer = await fault(case)
    if case.path.startswith("/v1/kv"):
        assert answer.headers["content-type"].startswith("text/plain")
        return
    body = strict(answer)
    assert body["code"] == 100199
    if case.path.startswith("/k12ai/"):
        assert set(body) == {"code", "descr", "message"}
    else:
        assert answer.headers["content-type"] == "application/problem+json"


@cases(FAULTS)
async def test_a_bug_is_logged_under_the_request_id(case: Case) -> None:
    """The cause of a 500 is in the log under the id that the answer has."""
    with capture_logs() as logged:
        answer = await fault(case)
    request_id = answer.headers["x-request-id"]
    assert [entry for entry in logged if entry.get("request_id") == request_id and entry.get("exc_info")]


@pytest.mark.parametrize("variable", ["DEBUG", "PYTHONDEVMODE", "UVICORN_LOG_LEVEL"])
async def test_no_debugging_variable_shows_the_insides(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """No variable that is set for debugging something else makes a 500 show its cause."""
    monkeypatch.setenv(variable, "1")
    assert "ZeroDivisionError" not in (await fault(FAULTS["stats"])).text


async def test_the_frameworks_debugging_variable_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """LITESTAR_DEBUG, set for another service of the same account, does not make a 500 show its cause."""
    monkeypatch.setenv("LITESTAR_DEBUG", "1")
    assert "ZeroDivisionError" not in (await fault(FAULTS["stats"])).text

"""B11: a web page, or a name that was made to point here, gets nowhere, whatever the method and path."""

import http.client
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from litestar.types import HTTPScope, Message, Receive, Send

from k12ai.api.gate import Gate
from tests.support.server import Server, strict

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD")
PATHS = (
    "/k12ai/platform/stats",
    "/k12ai/platform/control",
    "/k12ai/nope",
    "/v1/kv/gate/safe",
    "/v1/kv/?recurse",
    "/health",
    "/metrics",
    "/docs",
    "/docs/openapi.json",
    "/nope",
    "/",
)
STATS_BODY = b'{"op":"query","user":"u","service_name":"k12platform","service_uuid":"gate"}'
JSON = ("Content-Type", "application/json")

Fields = Sequence[tuple[str, str]]


class Answer(msgspec.Struct):
    """What came back, as http.client gives it: unlike httpx it sends any header fields, twice if told so."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> int:
        """The code in an envelope or a problem."""
        return int(msgspec.json.decode(self.body)["code"])


def ask(
    server: Server,
    method: str,
    path: str,
    *fields: tuple[str, str],
    body: bytes = b"",
    port: int | None = None,
) -> Answer:
    """Send a request with exactly these fields; ``Host`` is added where none is among them."""
    connection = http.client.HTTPConnection("127.0.0.1", port or server.port, timeout=20)
    try:
        given = any(name.lower() == "host" for name, _ in fields)
        connection.putrequest(method, path, skip_host=given, skip_accept_encoding=True)
        for name, value in fields:
            connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, headers, answer.read())
    finally:
        connection.close()


def own_origin(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}"


# --- who is refused ------------------------------------------------------------------------------

# What arrives when somebody else's page sends the request; {port} is the server's own.
ATTACKS: dict[str, tuple[int, Fields]] = {
    "rebound name": (421, [("Host", "evil.test")]),
    "rebound name with the port": (421, [("Host", "evil.test:{port}")]),
    "page of another site": (403, [("Origin", "http://evil.test"), ("Sec-Fetch-Site", "cross-site")]),
    "sandboxed page": (403, [("Origin", "null")]),
    "page on another port": (403, [("Origin", "http://127.0.0.1:1"), ("Sec-Fetch-Site", "same-site")]),
    "image, link or script": (403, [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "no-cors")]),
    "preflight": (
        403,
        [
            ("Origin", "http://evil.test"),
            ("Access-Control-Request-Method", "POST"),
            ("Access-Control-Request-Headers", "content-type"),
            ("Access-Control-Request-Private-Network", "true"),
        ],
    ),
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", METHODS)
def test_no_page_gets_through_on_any_method_and_path(server: Server, method: str, path: str) -> None:
    """Every method on every path is refused before anything is looked at, in the form of the path."""
    for name, (status, fields) in ATTACKS.items():
        answer = ask(server, method, path, JSON, *filled(fields, server.port), body=STATS_BODY)
        assert answer.status == status, name
        assert not [field for field in answer.headers if field.startswith("access-control-")], name
        assert answer.headers["connection"] == "close", name
        if method == "HEAD":
            assert answer.body == b"", name
        elif path.startswith("/v1/kv"):
            assert answer.headers["content-type"].startswith("text/plain"), name
        else:
            assert answer.code == 100605, name


def filled(fields: Fields, port: int) -> Fields:
    """Put the port of the server that is asked into an attack's fields."""
    return [(name, value.format(port=port)) for name, value in fields]


BAD_HOSTS = (
    "evil.test",
    "127.0.0.1.evil.test",
    "localhost.evil.test",
    "evil-localhost",
    "evil.test:80",
    "",
    " ",
    ":80",
    "127.0.0.1:",
    "127.0.0.1:x",
    "127.0.0.1:80:80",
    "127.0.0.1:123456",
    "127.0.0.1 evil.test",
    "127.0.0.1,evil.test",
    "evil.test@127.0.0.1",
    "127.0.0.1@evil.test",
    "127.0.0.1/evil.test",
    "127.0.0.1#evil.test",
    "http://127.0.0.1",
    "127.1",
    "127.0.0.1.1",
    "1127.0.0.1",
    "0x7f.0.0.1",
    "2130706433",
    "017700000001",
    "0.0.0.0",
    "[::]",
    "[::1",
    "::1",
    "[::1].evil.test",
    "[::ffff:127.0.0.1]",
    "[::1%25eth0]",
    "localhost.localdomain",
    "ｌocalhost".encode().decode("latin-1"),
    "127。0。0。1".encode().decode("latin-1"),
    "*",
    "unix",
)


@pytest.mark.parametrize("host", BAD_HOSTS, ids=[ascii(each) for each in BAD_HOSTS])
def test_only_the_servers_own_names_are_answered_for(server: Server, host: str) -> None:
    """A Host that is not plainly a loopback name is 421 with 100605."""
    answer = ask(server, "GET", "/health", ("Host", host))
    assert (answer.status, answer.code) == (421, 100605)


GOOD_HOSTS = (
    "127.0.0.1",
    "127.0.0.1:{port}",
    "127.0.0.2",
    "localhost",
    "LOCALHOST:{port}",
    "[::1]",
    "[::1]:{port}",
)


@pytest.mark.parametrize("host", GOOD_HOSTS)
def test_loopback_names_are_answered_for(server: Server, host: str) -> None:
    """Every loopback name is the server's own, with or without a port: an SSH tunnel may have another."""
    assert ask(server, "GET", "/health", ("Host", host.format(port=server.port))).status == 200


@pytest.mark.parametrize(
    "hosts",
    [("127.0.0.1", "evil.test"), ("evil.test", "127.0.0.1"), ("127.0.0.1", "127.0.0.1")],
    ids=["good first", "good last", "both good"],
)
def test_two_hosts_are_refused(server: Server, hosts: tuple[str, str]) -> None:
    """Which of two Host fields counts is not guessed."""
    answer = ask(server, "GET", "/health", *[("Host", host) for host in hosts])
    assert (answer.status, answer.code) == (421, 100605)


def test_no_host_is_refused(server: Server) -> None:
    """A request that names no host is not answered, on HTTP/1.0 neither."""
    for version in (b"1.0", b"1.1"):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as peer:
            peer.sendall(b"GET /health HTTP/%b\r\nConnection: close\r\n\r\n" % version)
            assert peer.recv(65536).startswith(b"HTTP/1.1 421 ")


def test_the_host_of_an_absolute_url_counts(server: Server) -> None:
    """A request target with a host of its own outranks the Host field (RFC 9112, section 3.2.2)."""
    answer = ask(server, "GET", "http://evil.test/health", ("Host", "127.0.0.1"))
    assert answer.status == 421


BAD_ORIGINS = (
    "null",
    "http://evil.test",
    "https://evil.test",
    "http://127.0.0.1:{port}.evil.test",
    "http://evil.test:{port}",
    "http://evil.test/127.0.0.1:{port}",
    "http://127.0.0.1:{port}@evil.test",
    "http://127.0.0.1:1",
    "http://127.0.0.1",
    "http://localhost:{port}",
    "http://[::1]:{port}",
    "http://127.0.0.1:{port}/",
    "http://127.0.0.1:{port} http://evil.test",
    "http://127.0.0.1:{port},http://evil.test",
    "127.0.0.1:{port}",
    "ftp://127.0.0.1:{port}",
    "chrome-extension://127.0.0.1:{port}",
    "file://",
    "*",
    "",
)


@pytest.mark.parametrize("origin", BAD_ORIGINS)
def test_only_the_servers_own_pages_are_trusted(server: Server, origin: str) -> None:
    """An Origin other than that of the address the request was sent to is 403 with 100605."""
    answer = ask(server, "POST", "/k12ai/platform/stats", JSON, ("Origin", origin.format(port=server.port)))
    assert (answer.status, answer.code) == (403, 100605)


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost:{port}", "[::1]:{port}", "localhost"])
def test_the_servers_own_pages_are_trusted(server: Server, host: str) -> None:
    """A page that came from the address it asks is served."""
    host = host.format(port=server.port)
    fields = [("Host", host), ("Origin", f"http://{host}"), ("Sec-Fetch-Site", "same-origin")]
    assert ask(server, "POST", "/k12ai/platform/stats", JSON, *fields, body=STATS_BODY).status == 200


@pytest.mark.parametrize(
    "site", ["cross-site", "same-site", "Cross-Site", "Same-Origin", "", "none, cross-site", "?1"]
)
def test_a_request_from_elsewhere_is_refused_without_an_origin_too(server: Server, site: str) -> None:
    """A Sec-Fetch-Site other than ``same-origin`` and ``none`` is 403: a GET carries no Origin."""
    answer = ask(server, "GET", "/health", ("Sec-Fetch-Site", site))
    assert (answer.status, answer.code) == (403, 100605)


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_the_address_bar_is_served(server: Server, site: str) -> None:
    """What the user typed, and what the server's own page asks for, is served."""
    assert ask(server, "GET", "/docs", ("Sec-Fetch-Site", site)).status == 200


@pytest.mark.parametrize("name", ["Origin", "Sec-Fetch-Site"])
def test_a_second_field_does_not_whitewash_the_first(server: Server, name: str) -> None:
    """Where a field that decides comes twice, the request is refused, as with two Host fields."""
    good, bad = {"Origin": (own_origin(server), "null"), "Sec-Fetch-Site": ("none", "cross-site")}[name]
    for values in ((good, bad), (bad, good)):
        assert ask(server, "GET", "/health", *[(name, value) for value in values]).status == 403


# --- nothing happens -----------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [fields for _, fields in ATTACKS.values()], ids=ATTACKS.keys())
def test_a_refused_write_writes_nothing(server: Server, fields: Fields) -> None:
    """A page can neither write, overwrite nor delete keys, one or all."""
    attack = filled(fields, server.port)
    assert server.http.put("/v1/kv/gate/kept", content=b"kept").content == b"true"
    ask(server, "PUT", "/v1/kv/gate/new", *attack, body=b"evil")
    ask(server, "PUT", "/v1/kv/gate/kept", *attack, body=b"evil")
    ask(server, "DELETE", "/v1/kv/gate/kept", *attack)
    ask(server, "DELETE", "/v1/kv/gate?recurse", *attack)
    assert server.http.get("/v1/kv/gate/new").status_code == 404
    assert server.http.get("/v1/kv/gate/kept?raw").content == b"kept"


def test_a_refused_asynchronous_request_is_not_accepted(server: Server, eventually: Callable[..., Any]) -> None:
    """A page's asynchronous request publishes nothing, although an honest one after it does."""
    body = STATS_BODY[:-1] + b',"async":true}'
    refused = ask(server, "POST", "/k12ai/platform/stats", JSON, ("Origin", "null"), body=body)
    assert refused.status == 403
    assert server.stats(is_async=True, user="u", service_uuid="gate2").status_code == 202
    eventually(lambda: server.http.get("/v1/kv/platform/u/gate2/query/result").status_code == 200)
    assert server.http.get("/v1/kv/platform/u/gate/?recurse").status_code == 404


@pytest.mark.parametrize(
    "content_type", ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain"]
)
@pytest.mark.parametrize("path", ["/k12ai/platform/stats", "/k12ai/platform/control"])
def test_a_form_gets_nowhere_even_past_the_gate(server: Server, path: str, content_type: str) -> None:
    """What a form can send without a preflight is a 415, also from an old browser without Origin."""
    answer = ask(server, "POST", path, ("Content-Type", content_type), body=STATS_BODY)
    assert (answer.status, answer.code) == (415, 100103)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", METHODS)
def test_no_answer_lets_other_origins_read_it(server: Server, method: str, path: str) -> None:
    """No answer to a trusted request carries CORS fields, a preflight's neither."""
    if method == "DELETE" and "recurse" in path:
        path = "/v1/kv/gate/none?recurse"  # the tests share the store
    for fields in ([], [("Origin", own_origin(server)), ("Access-Control-Request-Method", "PUT")]):
        answer = ask(server, method, path, *fields)
        assert not [name for name in answer.headers if name.startswith("access-control-")]
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_page_of_the_documentation_is_locked_in(server: Server) -> None:
    """The page runs only the server's own script, asks only the server and cannot be framed."""
    policy = ask(server, "GET", "/docs").headers["content-security-policy"]
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert directives["default-src"] == "'none'"
    assert directives["script-src"] == "'self'"
    assert directives["connect-src"] == "'self'"
    assert directives["frame-ancestors"] == "'none'"


# --- settings ------------------------------------------------------------------------------------


@pytest.fixture(name="kv_port", scope="module")
def _kv_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(name="open_server", scope="module")
def _open_server(tmp_path_factory: pytest.TempPathFactory, kv_port: int) -> Iterator[Server]:
    """A server that answers for more names and trusts two more origins, with a port for the store alone."""
    environ = {
        "K12AI_ALLOWED_HOSTS": "lab.example, Teach.Example",
        "K12AI_ALLOWED_ORIGINS": "http://localhost:8888, https://Lab.example/",
    }
    data = tmp_path_factory.mktemp("gate") / "data"
    with Server(data, "--kv-port", str(kv_port), environ=environ) as server:
        yield server


@pytest.mark.parametrize("host", ["lab.example", "lab.example:80", "LAB.EXAMPLE", "teach.example", "localhost"])
def test_an_allowed_host_is_answered_for(open_server: Server, host: str) -> None:
    """allowed_hosts adds names, in any case and with any port; loopback stays."""
    assert ask(open_server, "GET", "/health", ("Host", host)).status == 200


@pytest.mark.parametrize(
    "host", ["x.lab.example", "lab.example.evil.test", "labxexample", "lab.example.", "example"]
)
def test_an_allowed_host_allows_no_other(open_server: Server, host: str) -> None:
    """allowed_hosts are whole names: no subdomains, no endings, no patterns."""
    assert ask(open_server, "GET", "/health", ("Host", host)).status == 421


@pytest.mark.parametrize("origin", ["http://localhost:8888", "https://lab.example", "HTTP://LOCALHOST:8888"])
def test_a_page_of_an_allowed_origin_is_served(open_server: Server, origin: str) -> None:
    """allowed_origins may send requests, as cross-site as they are."""
    fields = [("Origin", origin), ("Sec-Fetch-Site", "cross-site")]
    answer = ask(open_server, "POST", "/k12ai/platform/stats", JSON, *fields, body=STATS_BODY)
    assert answer.status == 200
    assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    "origin",
    ["http://localhost:8889", "http://localhost", "https://localhost:8888", "http://lab.example", "null", ""],
)
def test_an_allowed_origin_allows_no_other(open_server: Server, origin: str) -> None:
    """allowed_origins are whole origins: scheme, host and port."""
    assert ask(open_server, "GET", "/health", ("Origin", origin)).status == 403


def test_an_allowed_host_does_not_make_its_pages_trusted_elsewhere(open_server: Server) -> None:
    """A page is the server's own only at the name it came from."""
    fields = [("Host", "127.0.0.1"), ("Origin", "http://lab.example")]
    assert ask(open_server, "GET", "/health", *fields).status == 403
    fields = [("Host", "lab.example"), ("Origin", "http://lab.example")]
    assert ask(open_server, "GET", "/health", *fields).status == 200


@pytest.mark.parametrize("method", METHODS)
def test_the_stores_own_port_has_the_same_gate(open_server: Server, kv_port: int, method: str) -> None:
    """The second port lets no page through either."""
    for name, (status, fields) in ATTACKS.items():
        answer = ask(open_server, method, "/v1/kv/gate", *filled(fields, kv_port), port=kv_port)
        assert answer.status == status, name


def test_a_comma_at_the_end_of_a_setting_allows_nothing(start_server: Callable[..., Server]) -> None:
    """A trailing comma in the environment is no origin and no host."""
    server = start_server(environ={"K12AI_ALLOWED_ORIGINS": "https://lab.example,", "K12AI_ALLOWED_HOSTS": ","})
    assert ask(server, "GET", "/health", ("Host", "")).status == 421
    assert ask(server, "GET", "/health", ("Origin", "")).status == 403


OPEN_ADDRESSES = ("0.0.0.0", "::", "192.0.2.1", "example.test", "")


@pytest.mark.parametrize("host", OPEN_ADDRESSES)
def test_an_address_that_others_can_reach_is_refused(tmp_path: Path, host: str) -> None:
    """Without access control the server does not start on anything but loopback."""
    ended = subprocess.run(
        [sys.executable, "-m", "k12ai", "serve", "--port", "0", "--data-dir", str(tmp_path), "--host", host],
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stdout == b""
    assert b"host" in ended.stderr
    assert b"Traceback" not in ended.stderr


# --- the gate alone ------------------------------------------------------------------------------


async def passes(gate_fields: list[tuple[bytes, bytes]], **allowed: list[str]) -> bool:
    """Tell whether a gate hands a request with these header fields on to its application."""
    reached = []

    async def app(scope: HTTPScope, receive: Receive, send: Send) -> None:
        reached.append(scope)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        pass

    scope: Any = {"type": "http", "method": "GET", "path": "/", "headers": gate_fields, "state": {}}
    await Gate(app, **allowed)(scope, receive, send)
    return bool(reached)


async def test_the_gate_reaches_the_application_only_when_it_is_open() -> None:
    """A refusal never touches the application."""
    assert await passes([(b"host", b"localhost")])
    assert not await passes([(b"host", b"evil.test")])
    assert not await passes([(b"host", b"localhost"), (b"origin", b"null")])
    assert not await passes([])


async def test_a_star_is_no_wildcard() -> None:
    """There is no setting that opens the gate for everybody by accident."""
    assert not await passes([(b"host", b"evil.test")], hosts=["*"])
    assert not await passes([(b"host", b"localhost"), (b"origin", b"http://evil.test")], origins=["*"])


async def test_remembered_hosts_stay_few_and_right() -> None:
    """Thousands of good and bad names later the gate still tells them apart, in bounded memory."""

    async def app(scope: HTTPScope, receive: Receive, send: Send) -> None:
        reached.append(scope)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        pass

    reached: list[HTTPScope] = []
    gate = Gate(app)
    for number in range(2000):
        for host in (b"localhost:%d" % number, b"evil%d.test" % number):
            scope: Any = {
                "type": "http",
                "method": "GET",
                "path": "/",
                "headers": [(b"host", host)],
                "state": {},
            }
            await gate(scope, receive, send)
    assert len(reached) == 2000
    assert len(gate._known_hosts) < 100


def test_a_refusal_of_the_platform_is_its_envelope(server: Server) -> None:
    """The refusals under /k12ai are envelopes, too."""
    answer = server.http.post("/k12ai/platform/stats", content=STATS_BODY, headers={"Host": "evil.test"})
    assert strict(answer) == {
        "code": 100605,
        "descr": "host or origin refused",
        "message": "the Host header names a host that this server does not answer for",
    }

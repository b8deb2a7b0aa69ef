"""B4, B5: requests too large, too long, lying about their length or never ending; spoken to a bare socket."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import httpx
import pytest

from tests.support.process import open_files, resident_bytes
from tests.support.server import Server, strict

STATS = "/k12ai/platform/stats"
GOOD = b'{"op":"query","user":"u","service_name":"k12platform","service_uuid":"big"}'
JSON = b"Content-Type: application/json"
CHUNKED = b"Transfer-Encoding: chunked"
LIMIT = 1024 * 1024
VALUE_LIMIT = 512 * 1024
MIB = 1024 * 1024
# What the kernel's buffers of both sides may swallow of a flood that nobody reads.
BUFFERED = 24 * MIB
DOES_NOT_HANG_S = 20.0
# The body's deadline is 10 s; a refused connection lingers 1 s for the client's sake.
SLOW_S = 15.0


class Reply(NamedTuple):
    """What came back over a socket before it was closed."""

    status: int
    headers: dict[str, str]
    body: bytes
    sent: int

    @property
    def response(self) -> httpx.Response:
        return httpx.Response(self.status, headers=self.headers, content=self.body)


def parsed(raw: bytes, sent: int = 0) -> Reply:
    """Split an answer; status 0 stands for none."""
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return Reply(int(first.split(" ")[1]) if first else 0, headers, body, sent)


def connected(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=DOES_NOT_HANG_S)


def exchange(server: Server, *pieces: bytes, expect_all: bool = False) -> Reply:
    """Send first, as far as the server lets us, then read to the end, as a simple client does.

    With ``expect_all``, a server that took everything is not waited for: what was sent never ends.
    """
    sent = 0
    with connected(server) as peer:
        try:
            for piece in pieces:
                peer.sendall(piece)
                sent += len(piece)
        except ConnectionError:
            pass
        else:
            if expect_all:
                return Reply(0, {}, b"", sent)
        return parsed(received(peer), sent)


def received(peer: socket.socket) -> bytes:
    """Return everything up to the end of the connection, however it ends."""
    raw = bytearray()
    with contextlib.suppress(ConnectionError):
        while piece := peer.recv(65536):
            raw += piece
    return bytes(raw)


def head(method: str, path: str, *fields: bytes, version: bytes = b"1.1") -> bytes:
    lines = [b"%b %b HTTP/%b" % (method.encode(), path.encode(), version), b"Host: localhost"]
    return b"\r\n".join([*lines, b"Connection: close", *fields]) + b"\r\n\r\n"


def length(number: int) -> bytes:
    return b"Content-Length: %d" % number


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@pytest.fixture(autouse=True)
def _unharmed(server: Server) -> Iterator[None]:
    """After every test the same server is well and has not grown."""
    assert server.stats().status_code == 200  # warm
    memory_before = resident_bytes(server.process.pid)
    with server.unharmed():
        yield
    assert resident_bytes(server.process.pid) - memory_before < 50 * MIB


# --- slow, or never coming: first, so that they wait while the other tests run ---------------------


class SlowPeers:
    """Connections that are opened together and watched in the background, each until it ends."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._replies: dict[str, Reply | None] = {}
        self._threads: dict[str, threading.Thread] = {}

    def open(self, name: str, begin: bytes, drip: bytes = b"") -> None:
        self._replies[name] = None
        self._threads[name] = threading.Thread(target=self._watch, args=(name, begin, drip))
        self._threads[name].start()

    def reply(self, name: str) -> Reply | None:
        """Return the answer, or None where the server had not closed the connection in time."""
        self._threads[name].join()
        return self._replies[name]

    def close(self) -> None:
        for thread in self._threads.values():
            thread.join()

    def _watch(self, name: str, begin: bytes, drip: bytes) -> None:
        deadline = time.monotonic() + SLOW_S
        raw = bytearray()
        with connected(self._server) as peer:
            peer.sendall(begin)
            peer.settimeout(0.5)
            while time.monotonic() < deadline:
                try:
                    piece = peer.recv(65536)
                except TimeoutError:
                    with contextlib.suppress(ConnectionError):
                        peer.sendall(drip)
                    continue
                except ConnectionError:
                    piece = b""
                if not piece:
                    self._replies[name] = parsed(bytes(raw))
                    return
                raw += piece


SLOW = {
    "half a body": (head("POST", STATS, JSON, length(len(GOOD) + 1)) + GOOD, b""),
    "half a body in Chinese": (head("POST", STATS, JSON, b"Accept-Language: zh", length(100)) + GOOD, b""),
    "half a chunk": (head("POST", STATS, JSON, CHUNKED) + b"ff\r\n" + GOOD, b""),
    "no last chunk": (head("POST", STATS, JSON, CHUNKED) + chunk(GOOD), b""),
    "half a value": (head("PUT", "/v1/kv/big/slow", length(100)) + b"part", b""),
    "dripping body": (head("POST", STATS, JSON, length(1000)) + GOOD, b" "),
    "dripping value": (head("PUT", "/v1/kv/big/slow", CHUNKED) + chunk(b"part"), chunk(b"x")),
}
SLOW_NOW = {
    "no body": (head("POST", STATS, JSON, length(len(GOOD))), b""),
    "no chunk": (head("POST", STATS, JSON, CHUNKED), b""),
    "endless chunk size": (head("POST", STATS, JSON, CHUNKED) + b"0" * 100, b"0"),
    "no value": (head("PUT", "/v1/kv/big/slow-0", length(100)), b""),
    "no value for control": (head("POST", "/k12ai/platform/control", JSON, length(1)), b""),
}
HALF_HEADERS = {
    "nothing at all": (b"", b""),
    "half a request line": (b"GET /hea", b""),
    "half a header": (b"GET /health HTTP/1.1\r\nHost: local", b""),
    "no end of the header": (b"GET /health HTTP/1.1\r\nHost: localhost\r\n", b""),
    "dripping header": (b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: ", b"y"),
}


@pytest.fixture(name="slow_peers", scope="module")
def _slow_peers(server: Server) -> Iterator[SlowPeers]:
    """All slow connections at once, so that they are waited for once."""
    peers = SlowPeers(server)
    for name, (begin, drip) in (SLOW | SLOW_NOW | HALF_HEADERS).items():
        peers.open(name, begin, drip)
    yield peers
    peers.close()


def test_slow_clients_do_not_slow_others_down(server: Server, slow_peers: SlowPeers) -> None:
    """While slow clients wait, good requests are answered."""
    for _ in range(20):
        assert (
            server.http.post(STATS, content=GOOD, headers={"Content-Type": "application/json"}).status_code
            == 200
        )
        assert server.http.put("/v1/kv/big/quick", content=b"x").content == b"true"


# --- bodies over the limit -----------------------------------------------------------------------

TARGETS = {
    "stats": ("POST", STATS),
    "control": ("POST", "/k12ai/platform/control"),
    "kv": ("PUT", "/v1/kv/big/1"),
}
TO_EVERY_TARGET = pytest.mark.parametrize(("method", "path"), TARGETS.values(), ids=TARGETS.keys())


@TO_EVERY_TARGET
def test_100_mib_with_a_length_are_refused_unread(server: Server, method: str, path: str) -> None:
    """A body that says it is 100 MiB is a 413 that can be read, and the server does not take it in."""
    reply = exchange(server, head(method, path, JSON, length(100 * MIB)), *[b"x" * MIB] * 100)
    assert reply.status == 413
    assert reply.sent < BUFFERED


@TO_EVERY_TARGET
def test_100_mib_in_chunks_are_refused_at_the_limit(server: Server, method: str, path: str) -> None:
    """A body without a length is a 413 once it is over the limit, and the rest is not taken in."""
    pieces = [chunk(b"x" * MIB)] * 100
    reply = exchange(server, head(method, path, JSON, CHUNKED), *pieces, chunk(b""))
    assert reply.status == 413
    assert reply.sent < BUFFERED


def test_the_413_of_the_platform_is_its_envelope(server: Server) -> None:
    """The 413 under /k12ai is the envelope with 100613 and closes the connection."""
    reply = exchange(server, head("POST", STATS, JSON, length(2 * MIB)), b"x" * MIB, b"x" * MIB)
    assert strict(reply.response) == {
        "code": 100613,
        "descr": "request is too large",
        "message": f"the body is larger than {LIMIT} bytes",
    }
    assert reply.headers["connection"] == "close"


def test_the_413_of_the_store_is_plain_text(server: Server) -> None:
    """The 413 under /v1/kv is plain text that names the limit, as Consul's does."""
    reply = exchange(server, head("PUT", "/v1/kv/big/1", length(2 * MIB)), b"x" * MIB, b"x" * MIB)
    assert reply.headers["content-type"].startswith("text/plain")
    assert str(VALUE_LIMIT).encode() in reply.body


@TO_EVERY_TARGET
@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_an_ordinary_client_gets_to_read_the_413(server: Server, method: str, path: str, framing: str) -> None:
    """httpx, too, sees a 413 for 100 MiB, and not a broken connection."""
    piece = b"x" * MIB
    content: bytes | Iterable[bytes] = piece * 100 if framing == "length" else (piece for _ in range(100))
    answer = server.http.request(method, path, content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


def test_a_client_that_asks_first_is_refused_before_it_sends(server: Server) -> None:
    """To ``Expect: 100-continue`` with 100 MiB the answer is 413 at once, without a 100 before it."""
    reply = exchange(server, head("POST", STATS, JSON, b"Expect: 100-continue", length(100 * MIB)))
    assert reply.status == 413


def test_a_client_that_asks_first_may_send_what_fits(server: Server) -> None:
    """To ``Expect: 100-continue`` with a good length the answer is 100 and then the result."""
    with connected(server) as peer:
        peer.sendall(head("POST", STATS, JSON, b"Expect: 100-continue", length(len(GOOD))))
        assert peer.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        peer.sendall(GOOD)
        assert parsed(received(peer)).status == 200


@pytest.mark.parametrize("framing", ["length", "one chunk", "small chunks"])
@pytest.mark.parametrize(("size", "status"), [(LIMIT, 200), (LIMIT + 1, 413)])
def test_the_limit_of_a_body_is_exact(server: Server, size: int, status: int, framing: str) -> None:
    """1 MiB is taken and one byte more is not, however the body is framed."""
    assert server.http.post(
        STATS, content=framed(GOOD.ljust(size), framing), headers={"Content-Type": "application/json"}
    ).status_code == (status)


@pytest.mark.parametrize("framing", ["length", "one chunk", "small chunks"])
def test_the_limit_of_a_value_is_exact(server: Server, framing: str) -> None:
    """A value of 524,288 bytes is stored and one of 524,289 is a 413 and changes nothing."""
    key = f"/v1/kv/big/limit/{framing.replace(' ', '-')}"
    assert server.http.put(key, content=framed(b"a" * VALUE_LIMIT, framing)).content == b"true"
    assert server.http.put(key, content=framed(b"b" * (VALUE_LIMIT + 1), framing)).status_code == 413
    assert server.http.get(f"{key}?raw").content == b"a" * VALUE_LIMIT


def framed(body: bytes, framing: str) -> bytes | Iterable[bytes]:
    """Return the body so that httpx sends it with a length, or in chunks."""
    if framing == "length":
        return body
    size = len(body) if framing == "one chunk" else 1000
    return (body[start : start + size] for start in range(0, len(body), size))


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/health", 200),
        ("POST", "/health", 405),
        ("POST", "/nope", 404),
        ("DELETE", "/v1/kv/big/no", 200),
    ],
)
@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_body_that_nobody_reads_costs_nothing(
    server: Server, method: str, path: str, status: int, framing: str
) -> None:
    """100 MiB sent to a route without a body are answered at once and never held in memory."""
    if framing == "length":
        reply = exchange(server, head(method, path, length(100 * MIB)), *[b"x" * MIB] * 100)
    else:
        reply = exchange(server, head(method, path, CHUNKED), *[chunk(b"x" * MIB)] * 100, chunk(b""))
    assert reply.status == status


def test_many_tiny_chunks_are_one_body(server: Server) -> None:
    """A body in chunks of one byte is the same body."""
    chunks = b"".join(chunk(GOOD[start : start + 1]) for start in range(len(GOOD)))
    assert exchange(server, head("POST", STATS, JSON, CHUNKED), chunks + chunk(b"")).status == 200


# --- framing that lies ---------------------------------------------------------------------------

ONE_CHUNK = chunk(GOOD) + chunk(b"")
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"

BAD_FRAMING = {
    "negative length": ([b"Content-Length: -1"], GOOD),
    "length with a plus": ([b"Content-Length: +75"], GOOD),
    "hexadecimal length": ([b"Content-Length: 0x4b"], GOOD),
    "length with a point": ([b"Content-Length: 75.0"], GOOD),
    "empty length": ([b"Content-Length:"], GOOD),
    "word for a length": ([b"Content-Length: many"], GOOD),
    "length of 5,000 digits": ([b"Content-Length: " + b"9" * 5000], GOOD),
    "length of 2**64": ([b"Content-Length: 18446744073709551616"], GOOD),
    "list of lengths": ([b"Content-Length: 75, 75"], GOOD),
    "two equal lengths": ([length(75), length(75)], GOOD),
    "two lengths": ([length(75), length(3)], GOOD),
    "length and chunks": ([length(75), CHUNKED], ONE_CHUNK),
    "chunks and length": ([CHUNKED, length(4)], ONE_CHUNK + SMUGGLED),
    "chunked twice with a length between": ([CHUNKED, length(0), CHUNKED], ONE_CHUNK),
    "unknown coding": ([b"Transfer-Encoding: xchunked"], ONE_CHUNK),
    "chunked not last": ([b"Transfer-Encoding: chunked, identity"], ONE_CHUNK),
    "space before the colon": ([b"Transfer-Encoding : chunked"], ONE_CHUNK),
    "chunk of bad size": ([CHUNKED], b"xyz\r\n" + GOOD),
    "chunk of negative size": ([CHUNKED], b"-1\r\n" + GOOD),
    "chunk of 2**80 bytes": ([CHUNKED], b"f" * 20 + b"\r\n" + GOOD),
    "chunk longer than its size": ([CHUNKED], b"3\r\n" + GOOD + b"\r\n0\r\n\r\n"),
    "chunk without its line feed": ([CHUNKED], b"4b\n" + GOOD + b"\n0\n\n"),
}


@pytest.mark.parametrize(("fields", "body"), BAD_FRAMING.values(), ids=BAD_FRAMING.keys())
def test_framing_that_can_be_read_in_two_ways_is_refused(
    server: Server, fields: list[bytes], body: bytes
) -> None:
    """A length that is wrong, doubled or beside chunks is refused, and the connection is closed."""
    reply = exchange(server, head("POST", STATS, JSON, *fields), body)
    assert reply.status in (400, 501)
    assert reply.headers["connection"] == "close"


def test_a_transfer_coding_that_is_not_undone_is_refused(server: Server) -> None:
    """A body with a transfer coding the server does not undo is refused, not taken for the content."""
    reply = exchange(server, head("POST", STATS, JSON, b"Transfer-Encoding: gzip, chunked"), ONE_CHUNK)
    assert reply.status in (400, 415, 501)


def test_what_comes_after_the_length_is_not_part_of_the_body(server: Server) -> None:
    """A body longer than its length is cut there; the rest is at most another request."""
    reply = exchange(server, head("POST", STATS, JSON, length(len(GOOD))), GOOD + b"junk" * 1000)
    assert reply.status == 200


def test_no_request_is_hidden_in_a_refused_one(server: Server) -> None:
    """After a refusal the connection is closed: what follows on it is never answered."""
    reply = exchange(server, head("POST", "/nope", length(0)), SMUGGLED, SMUGGLED)
    assert reply.status == 404
    assert b"HTTP/1.1" not in reply.body


def test_a_good_request_is_answered_before_the_bad_one_behind_it(server: Server) -> None:
    """A refusal is not sent in the place of the answer to an earlier request on the connection."""
    good = head("GET", "/health").replace(b"Connection: close\r\n", b"")
    assert exchange(server, good + head("GET", "/" + "a" * 65536)).status == 200


@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
def test_a_body_where_none_belongs_is_not_the_next_request(server: Server, method: str) -> None:
    """A request in the body of another one is not carried out."""
    key = f"/v1/kv/big/smuggled/{method}"
    inner = head("PUT", key, length(1)) + b"x"
    with connected(server) as peer:
        request = head(method, "/health", length(len(inner))).replace(b"Connection: close\r\n", b"")
        peer.sendall(request + inner + head("GET", "/health"))
        answers = received(peer)
    assert answers.count(b"HTTP/1.1 ") == 2
    assert server.http.get(key).status_code == 404


@pytest.mark.parametrize(
    ("name", "request_"),
    [
        ("length", head("PUT", "/v1/kv/big/cut/length", length(100)) + b"only a part"),
        ("nothing", head("PUT", "/v1/kv/big/cut/nothing", length(100))),
        ("chunk", head("PUT", "/v1/kv/big/cut/chunk", CHUNKED) + b"40\r\nonly a part"),
        ("last-chunk", head("PUT", "/v1/kv/big/cut/last-chunk", CHUNKED) + chunk(b"only a part")),
        ("bad-chunk", head("PUT", "/v1/kv/big/cut/bad-chunk", CHUNKED) + chunk(b"only a part") + b"xyz\r\n"),
    ],
    ids=["part of the length", "nothing of the length", "part of a chunk", "no last chunk", "a bad chunk"],
)
def test_a_value_that_was_cut_off_is_not_stored(server: Server, name: str, request_: bytes) -> None:
    """A client that dies while it sends a value leaves the old value as it was."""
    key = f"/v1/kv/big/cut/{name}"
    assert server.http.put(key, content=b"whole").content == b"true"
    with connected(server) as peer:
        peer.sendall(request_)
        peer.shutdown(socket.SHUT_WR)
        received(peer)  # until the server has closed too: by then it has acted
    # The write, if there is one, goes through the same queue as this one.
    assert server.http.put(f"{key}.after", content=b"").content == b"true"
    assert server.http.get(f"{key}?raw").content == b"whole"


def test_an_offer_to_upgrade_does_not_lose_the_body(server: Server) -> None:
    """A PUT that offers HTTP/2 (curl --http2, Java) stores its body or is refused, not an empty value."""
    key = "/v1/kv/big/h2c"
    assert server.http.put(key, content=b"old").content == b"true"
    offer = [b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__"]
    request = head("PUT", key, *offer, length(5)).replace(b"Connection: close\r\n", b"")
    with connected(server) as peer:
        peer.sendall(request + b"value")
        status = parsed(peer.recv(65536)).status
    assert server.http.get(f"{key}?raw").content == (b"value" if status == 200 else b"old")


def test_an_offer_to_upgrade_a_get_is_ignored(server: Server) -> None:
    """A GET that offers WebSocket or HTTP/2 is answered as if it did not."""
    for protocol in (b"websocket", b"h2c"):
        fields = [b"Connection: Upgrade", b"Upgrade: " + protocol]
        assert exchange(server, head("GET", "/health", *fields)).status == 200


# --- trailers ------------------------------------------------------------------------------------


def with_trailers(request: bytes, *trailers: bytes) -> bytes:
    return request + chunk(GOOD) + b"0\r\n" + b"".join(each + b"\r\n" for each in trailers) + b"\r\n"


def test_a_trailer_is_ignored(server: Server) -> None:
    """Fields after the last chunk are legal and change nothing."""
    request = with_trailers(head("POST", STATS, JSON, CHUNKED), b"X-Checksum: 1")
    assert exchange(server, request).status == 200


def test_a_trailer_does_not_pass_the_gate(server: Server) -> None:
    """A request without a Host is refused, also where a trailer names one."""
    request = head("POST", STATS, JSON, CHUNKED).replace(b"Host: localhost\r\n", b"")
    assert exchange(server, with_trailers(request, b"Host: localhost")).status == 421


def test_a_trailer_does_not_declare_the_type(server: Server) -> None:
    """A body without a media type is a 415, also where a trailer names one."""
    request = with_trailers(head("POST", STATS, CHUNKED), b"Content-Type: application/json")
    assert exchange(server, request).status == 415


def test_20_000_trailers_are_refused(server: Server) -> None:
    """Trailers are counted as header fields are."""
    request = with_trailers(head("POST", STATS, JSON, CHUNKED), *[b"X: y"] * 20_000)
    assert exchange(server, request).status == 431


# --- URLs and header fields ----------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/health?", "/health#", "/v1/kv/", "/k12ai/", "/", f"{STATS}?x="])
def test_a_url_of_64_kib_is_refused(server: Server, path: str) -> None:
    """A URL of 64 KiB is a 414 that can be read, on every path."""
    assert exchange(server, head("GET", path + "a" * 65536)).status == 414


def test_a_url_of_8_kib_is_taken(server: Server) -> None:
    """A long URL within the limit is an ordinary request."""
    assert exchange(server, head("GET", "/health?" + "a" * 8000)).status == 200


BIG_HEADERS = {
    "20,000 fields": [b"X-%d: y" % number for number in range(20_000)],
    "101 fields": [b"X-%d: y" % number for number in range(101)],
    "20,000 empty fields": [b"X:"] * 20_000,
    "one value of 64 KiB": [b"X: " + b"y" * 65536],
    "one name of 64 KiB": [b"x" * 65536 + b": y"],
    "90 values of 1 KiB": [b"X: " + b"y" * 1024] * 90,
    "a cookie of 40 KiB": [b"Cookie: " + b"a=b; " * 8192],
}


@pytest.mark.parametrize("fields", BIG_HEADERS.values(), ids=BIG_HEADERS.keys())
@TO_EVERY_TARGET
def test_too_many_header_fields_are_refused(
    server: Server, method: str, path: str, fields: list[bytes]
) -> None:
    """Header fields too many or too long are a 431 that can be read."""
    assert exchange(server, head(method, path, *fields)).status == 431


def test_90_header_fields_of_30_kib_are_taken(server: Server) -> None:
    """Many header fields within the limits are an ordinary request."""
    assert exchange(server, head("GET", "/health", *[b"X: " + b"y" * 300] * 90)).status == 200


ENDLESS = {
    "URL": b"GET /",
    "query": b"GET /health?",
    "method": b"",
    "URL of the store": b"PUT /v1/kv/",
}
ENDLESS_NOW = {
    "value": b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: ",
    "name": b"GET /health HTTP/1.1\r\nHost: localhost\r\n",
    "trailer": head("POST", STATS, JSON, CHUNKED) + chunk(GOOD) + b"0\r\nX: ",
    "chunk extension": head("POST", STATS, JSON, CHUNKED) + b"1;x=",
}


@pytest.mark.parametrize("begin", ENDLESS.values(), ids=ENDLESS.keys())
def test_a_request_line_without_an_end_is_refused(server: Server, begin: bytes) -> None:
    """A request line that never ends is refused at the limit, and the rest is not taken in."""
    reply = exchange(server, begin, *[b"y" * MIB] * 32, expect_all=True)
    assert reply.status in (400, 414)
    assert reply.sent < BUFFERED


@pytest.mark.parametrize("begin", ENDLESS_NOW.values(), ids=ENDLESS_NOW.keys())
def test_a_header_without_an_end_is_refused(server: Server, begin: bytes) -> None:
    """A field that never ends is refused at the limit, and the rest is not taken in."""
    reply = exchange(server, begin, *[b"y" * MIB] * 32, expect_all=True)
    assert reply.status in (400, 413, 431)
    assert reply.sent < BUFFERED


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x00" * 4096,
        b"GET /health\r\n\r\n",
        b"GET /health HTTP/3.0\r\nHost: localhost\r\n\r\n",
        b"GET /health HTTP/1.1\nHost: localhost\n\n",
        b"FROB /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /hea lth HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /中文 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(),
        b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET http://localhost HTTP/1.1\r\nHost: localhost\r\n\r\n",
        head("GET", "/health", b"X: a\x00b"),
        head("GET", "/health", b"X: a\r\n folded"),
        head("GET", "/health", b"X : a"),
        head("GET", "/health", b": a"),
        head("GET", "/health", b"no colon"),
        head("GET", "/health", b"X\x01: a"),
    ],
    ids=[
        "TLS",
        "HTTP/2",
        "NULs",
        "HTTP/0.9",
        "HTTP/3",
        "bare line feeds",
        "unknown method",
        "space in the path",
        "raw Chinese",
        "CONNECT",
        "URL without a path",
        "NUL in a value",
        "folded value",
        "space before the colon",
        "no name",
        "no colon",
        "control character in a name",
    ],
)
def test_what_is_not_http_1_is_refused(server: Server, raw: bytes) -> None:
    """Whatever the parser cannot read as HTTP/1.1 gets a short 4xx, and the connection is closed."""
    reply = exchange(server, raw)
    assert 400 <= reply.status < 500
    assert len(reply.body) < 1024


# --- slow, or never coming: how it ended ---------------------------------------------------------


@pytest.mark.parametrize("name", SLOW)
def test_a_body_that_does_not_end_is_given_up(server: Server, slow_peers: SlowPeers, name: str) -> None:
    """A body that stops or drips gets a 408 and the connection is closed, within 15 s."""
    reply = slow_peers.reply(name)
    assert reply is not None, "the server still waits"
    assert reply.status == 408


@pytest.mark.parametrize("name", SLOW_NOW)
def test_a_body_that_does_not_begin_is_given_up(server: Server, slow_peers: SlowPeers, name: str) -> None:
    """A body of which nothing comes gets a 408 and the connection is closed, within 15 s."""
    reply = slow_peers.reply(name)
    assert reply is not None, "the server still waits"
    assert reply.status == 408


@pytest.mark.parametrize("name", HALF_HEADERS)
def test_a_header_that_does_not_come_is_given_up(server: Server, slow_peers: SlowPeers, name: str) -> None:
    """A connection on which no whole header comes is closed within 15 s."""
    assert slow_peers.reply(name) is not None, "the server still waits"


def test_the_408_is_an_envelope_in_the_callers_language(server: Server, slow_peers: SlowPeers) -> None:
    """The 408 under /k12ai is the envelope, in Chinese where that was asked for."""
    english, chinese = slow_peers.reply("half a body"), slow_peers.reply("half a body in Chinese")
    assert english is not None
    assert chinese is not None
    assert strict(english.response) == {
        "code": 100618,
        "descr": "request took too long",
        "message": "the request did not arrive within 10 s",
    }
    assert strict(chinese.response)["message"] == "请求未在 10 秒内到达"


def test_a_value_that_did_not_come_whole_is_not_stored(server: Server, slow_peers: SlowPeers) -> None:
    """What a slow client sent before it was given up is not written."""
    for name in ("half a value", "dripping value"):
        slow_peers.reply(name)
    assert server.http.get("/v1/kv/big/slow").status_code == 404


# --- at the end ----------------------------------------------------------------------------------


def test_no_abuse_leaves_memory_or_connections_behind(
    server: Server, eventually: Callable[..., object]
) -> None:
    """Ten rounds of every kind of refusal later, memory and open files are what they were."""

    def abuse() -> None:
        exchange(server, head("POST", STATS, JSON, length(100 * MIB)), *[b"x" * MIB] * 8)
        exchange(server, head("PUT", "/v1/kv/big/1", CHUNKED), *[chunk(b"x" * MIB)] * 8)
        exchange(server, head("GET", "/health", *[b"X: y"] * 20_000))
        exchange(server, head("GET", "/" + "a" * 65536))
        exchange(server, head("POST", STATS, JSON, length(75), CHUNKED), ONE_CHUNK)
        exchange(server, head("POST", STATS, JSON, length(200_000)), b"[" * 200_000)

    abuse()
    eventually(lambda: settled(server))
    files, resident = open_files(server.process.pid), resident_bytes(server.process.pid)
    for _ in range(10):
        abuse()
    eventually(lambda: open_files(server.process.pid) <= files)
    assert resident_bytes(server.process.pid) - resident < 10 * MIB


def settled(server: Server) -> bool:
    before = open_files(server.process.pid)
    time.sleep(0.2)
    return open_files(server.process.pid) == before

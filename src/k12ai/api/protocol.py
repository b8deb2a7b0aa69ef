"""HTTP/1.1 with bounds: what a peer may send before its request is understood, and how slowly."""

import asyncio
import os
from collections import Counter
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from k12ai.access.limits import is_loopback, network_of
from k12ai.api.answers import REQUEST_ID, render
from k12ai.errors import (
    CodingNotSupported,
    HeadersTooLarge,
    K12AIError,
    MalformedRequest,
    RequestTooSlow,
    TooManyConnections,
    UrlTooLong,
)

MAX_URL_BYTES = 8 * 1024
MAX_HEADER_BYTES = 32 * 1024
MAX_HEADERS = 100
# What the parser may take in without handing over a head or a piece of a body.
MAX_UNREAD_BYTES = 64 * 1024
DEADLINE_S = 10.0
# A body gets a second more for each of these, so that large ones have their time and drips do not.
SLOWEST_BODY_BYTES_PER_S = 1024


class ConnectionLimit:
    """How many connections each address of another machine may have at once, on all ports together."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: Counter[str] = Counter()

    def take(self, address: str) -> bool:
        """Count a connection, unless it is one too many."""
        if self._open[address] >= self._limit:
            return False
        self._open[address] += 1
        return True

    def release(self, address: str) -> None:
        """Count a connection no more."""
        self._open[address] -= 1
        if not self._open[address]:
            del self._open[address]


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with limits.

    By itself it takes header fields without end and waits for the rest of a request for ever, adds
    trailers to the header fields, overlooks the host of an absolute request target, loses the body
    of a request that offers an upgrade, and takes transfer codings for content that nobody undoes.
    What is checked here is checked once a request, not once a field: this is the hottest path.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limit: "ConnectionLimit | None" = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.url = b""
        self.headers = []
        self._in_head = False
        self._since = self.loop.time()  # the connection, the head or the body began
        self._piece_bytes = 0
        self._unread_bytes = 0
        self._body_bytes = 0
        self._refusal: K12AIError | None = None
        self._limit = limit
        self._counted = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, unless its address has as many as it may have."""
        peer = transport.get_extra_info("peername")
        address = peer[0] if isinstance(peer, tuple) else ""
        super().connection_made(transport)
        if self._limit is None or is_loopback(address):
            return
        network = network_of(address)
        if self._limit.take(network):
            self._counted = network
        else:
            self._give_up(TooManyConnections())

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of a connection."""
        if self._limit is not None and self._counted:
            self._limit.release(self._counted)
        super().connection_lost(exc)

    def expire(self, now: float) -> None:
        """Refuse the request, and close the connection, if its head or body takes too long."""
        cycle = self._cycle
        if cycle is None or self._in_head:
            late = now - self._since > DEADLINE_S
        else:
            late = (
                cycle.more_body and now - self._since > DEADLINE_S + self._body_bytes / SLOWEST_BODY_BYTES_PER_S
            )
        if late and not self.transport.is_closing():
            self._give_up(RequestTooSlow(DEADLINE_S))

    def data_received(self, data: bytes) -> None:
        """Take what the peer sent."""
        self._piece_bytes = len(data)
        self._unread_bytes += len(data)
        super().data_received(data)
        if self._unread_bytes > MAX_UNREAD_BYTES and not self.transport.is_closing():
            # A field, a chunk's extension or a trailer that does not end.
            self._give_up(UrlTooLong() if len(self.url) > MAX_URL_BYTES else HeadersTooLarge())

    def on_message_begin(self) -> None:
        """Begin to count for the next request."""
        self._in_head = True
        # Where in the piece the request begins is not known; at most all of it is this request's.
        self._unread_bytes = min(self._piece_bytes, MAX_UNREAD_BYTES)
        self._body_bytes = 0
        self._since = self.loop.time()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Check the head as a whole, and begin to answer."""
        if (refusal := self._head_refusal()) is not None:
            self._refusal = refusal
            raise ValueError(str(refusal))  # ends the parsing; the parser reports it as its own error
        if not self.url.startswith(b"/"):
            self._take_host_of_target()
        self._in_head = False
        self._unread_bytes = 0
        self._since = self.loop.time()
        super().on_headers_complete()
        # Trailers come as header fields do; they go into a list that nobody reads.
        self.headers = []

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._unread_bytes = 0
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Take the end of the request, and of its trailers."""
        if len(self.headers) > MAX_HEADERS:
            self._refusal = HeadersTooLarge()
            raise ValueError(str(self._refusal))
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what could not be parsed or was refused, in the form of its path, and close."""
        error, self._refusal = self._refusal or MalformedRequest(), None
        cycle = self._cycle
        if cycle is not None and not cycle.response_complete and (self._in_head or not cycle.more_body):
            # An earlier request's answer is under way: it comes first, and is the last one.
            cycle.keep_alive = False
        elif cycle is None or cycle.response_complete or not cycle.response_started:
            self._write_error(error)
        else:
            self.transport.close()
        self._in_head = False

    @property
    def _cycle(self) -> RequestResponseCycle | None:
        """The newest request, None before the first; uvicorn's annotation leaves the None out."""
        return self.cycle

    def _give_up(self, error: K12AIError) -> None:
        self._refusal = error
        self.send_400_response("")

    def _head_refusal(self) -> K12AIError | None:
        if len(self.url) > MAX_URL_BYTES:
            return UrlTooLong()
        if len(self.headers) > MAX_HEADERS or self._unread_bytes > MAX_HEADER_BYTES:
            size = sum(len(name) + len(value) for name, value in self.headers)
            if len(self.headers) > MAX_HEADERS or size > MAX_HEADER_BYTES:
                return HeadersTooLarge()
        has_body = False
        for name, value in self.headers:
            if name == b"transfer-encoding":
                has_body = True
                if value.strip().lower() != b"chunked":
                    return CodingNotSupported()
            elif name == b"content-length":
                has_body = has_body or bool(value.strip(b"0 "))
        # The parser would take the body for the other protocol's, and the request for empty.
        return CodingNotSupported() if has_body and self.parser.should_upgrade() else None

    def _take_host_of_target(self) -> None:
        """Let the host of an absolute target stand for the Host field, which it outranks (RFC 9112, 3.2.2)."""
        target = httptools.parse_url(self.url)
        host: bytes | None = target.host
        if host is None:
            return
        if b":" in host:
            host = b"[%b]" % host
        if target.port is not None:
            host = b"%b:%d" % (host, target.port)
        self.headers[:] = [(b"host", host), *(field for field in self.headers if field[0] != b"host")]

    def _write_error(self, error: K12AIError) -> None:
        request_id = os.urandom(6).hex()
        path = self.url.split(b"?", 1)[0].decode("latin-1") or "/"
        # Of the request that is refused, or of the one whose body is.
        sent = self.headers or (self._cycle.scope["headers"] if self._cycle else [])
        scope: Any = {"path": path, "headers": sent, "state": {REQUEST_ID: request_id}}
        status, body, content_type, headers = render(error, scope)
        fields = [
            *headers,
            (b"content-type", content_type),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", request_id.encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"connection", b"close"),
        ]
        head = b"".join(b"%b: %b\r\n" % field for field in fields)
        self.transport.write(STATUS_LINE[status] + head + b"\r\n" + body)
        self.transport.close()

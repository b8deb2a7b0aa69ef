"""HTTP/1.1 with bounds: what a peer may send before its request is understood, and how slowly."""

import asyncio
import os
from collections.abc import MutableMapping
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from k12ai.api.answers import REQUEST_ID, render
from k12ai.errors import (
    CodingNotSupported,
    HeadersTooLarge,
    K12AIError,
    MalformedRequest,
    RequestTooSlow,
    UrlTooLong,
)

MAX_URL_BYTES = 8 * 1024
MAX_HEADER_BYTES = 32 * 1024
MAX_HEADERS = 100
MAX_HEAD_BYTES = 64 * 1024
HEAD_DEADLINE_S = 10.0


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with limits on the head of a request.

    By itself it takes header fields without end and waits for them for ever, adds trailers to the
    header fields, overlooks the host of an absolute request target, loses the body of a request that
    offers an upgrade, and takes codings for content that nobody undoes.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.url = b""
        self.headers = []
        self._in_head = False
        self._unread_bytes = 0
        self._header_bytes = 0
        self._header_count = 0
        self._head_since = self.loop.time()
        self._refusal: K12AIError | None = None

    def expire(self, now: float) -> None:
        """Close the connection if it has been sending the head of a request for too long."""
        if (self._cycle is None or self._in_head) and now - self._head_since > HEAD_DEADLINE_S:
            self._refusal = RequestTooSlow(HEAD_DEADLINE_S)
            self.send_400_response("")

    def data_received(self, data: bytes) -> None:
        """Take what the peer sent."""
        # The parser collects a field of any length before it hands it over, so what it has taken in
        # since it last handed something over is counted here.
        self._unread_bytes += len(data)
        super().data_received(data)
        if self._unread_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refusal = HeadersTooLarge()
            self.send_400_response("")

    def on_message_begin(self) -> None:
        """Begin to count for the next request."""
        self._in_head = True
        self._unread_bytes = self._header_bytes = self._header_count = 0
        self._head_since = self.loop.time()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Take a piece of the URL."""
        super().on_url(url)
        if len(self.url) > MAX_URL_BYTES:
            self._refuse(UrlTooLong())

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header field; trailers, which come after the body, are none."""
        self._header_count += 1
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > MAX_HEADER_BYTES or self._header_count > MAX_HEADERS:
            self._refuse(HeadersTooLarge())
        if not self._in_head:
            return
        if name.lower() == b"transfer-encoding" and value.strip().lower() != b"chunked":
            self._refuse(CodingNotSupported())
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Take the head as a whole."""
        if self.parser.should_upgrade() and self._announces_body():
            # The parser would take the body for the other protocol's, and the request for empty.
            self._refuse(CodingNotSupported())
        if not self.url.startswith(b"/"):
            self._take_host_of_target()
        self._in_head = False
        self._unread_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._unread_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Take the end of the request."""
        self._unread_bytes = 0
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

    def _write_error(self, error: K12AIError) -> None:
        request_id = os.urandom(6).hex()
        path = self.url.split(b"?", 1)[0].decode("latin-1") or "/"
        scope: MutableMapping[str, Any] = {
            "path": path,
            "headers": self.headers,
            "state": {REQUEST_ID: request_id},
        }
        status, body, content_type, headers = render(error, scope)  # type: ignore[arg-type]
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

    def _refuse(self, error: K12AIError) -> None:
        self._refusal = error
        raise ValueError(str(error))  # ends the parsing; the parser reports it as an error of its own

    def _announces_body(self) -> bool:
        return any(
            name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0 "))
            for name, value in self.headers
        )

    def _take_host_of_target(self) -> None:
        """Let the host of an absolute target stand for the Host field, which it outranks (RFC 9112, 3.2.2)."""
        target = httptools.parse_url(self.url)
        host: bytes | None = target.host
        if host is None:
            return
        if target.port is not None:
            host = b"%b:%d" % (host, target.port)
        self.headers[:] = [(b"host", host), *(field for field in self.headers if field[0] != b"host")]

"""HTTP/1.1 with bounds: what a peer may send before its request is understood."""

import asyncio
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

MAX_URL_BYTES = 8 * 1024
MAX_HEADER_BYTES = 32 * 1024
MAX_HEADERS = 100


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which by itself takes header fields without end, with limits on them.

    The answer is 414 or 431 as soon as the limit is passed, and the connection is closed.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._header_bytes = 0
        self._refusal: int | None = None

    def on_message_begin(self) -> None:
        """Start to count for the next request."""
        self._header_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Take a piece of the URL."""
        super().on_url(url)
        if len(self.url) > MAX_URL_BYTES:
            self._refuse(414)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header field."""
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > MAX_HEADER_BYTES or len(self.headers) >= MAX_HEADERS:
            self._refuse(431)
        super().on_header(name, value)

    def _refuse(self, status: int) -> None:
        self._refusal = status
        raise ValueError("over the limit")  # ends the parsing; the parser reports it as its own error

    def send_400_response(self, msg: str) -> None:
        """Answer what could not be parsed, or was refused while it was."""
        if self._refusal is None:
            super().send_400_response(msg)
            return
        body = {414: b"the URL is too long", 431: b"the header fields are too large"}[self._refusal]
        self.transport.write(
            STATUS_LINE[self._refusal]
            + b"content-type: text/plain; charset=utf-8\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
            % len(body)
            + body
        )
        self.transport.close()

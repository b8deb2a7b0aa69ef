"""Reading requests from and writing answers to the wire, for the routes that speak ASGI themselves.

The published routes do so because they are the hot ones: an answer costs half of what it costs
through the framework's request and response objects (``make bench``).
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import NamedTuple

from litestar.types import HTTPScope, Receive, Send

from k12ai.errors import NotJson, TooLarge

# After an early refusal, so much of a body is still read that the client gets to see the answer.
_LINGER_BYTES = 1024 * 1024
_LINGER_S = 1.0

JSON = b"application/json"
PLAIN_TEXT = b"text/plain; charset=utf-8"

# Set in a request's state once its whole body was taken: then there is nothing to linger for.
BODY_READ = "k12ai.body_read"
_FIELDS = "k12ai.fields"


class _Fields(NamedTuple):
    """The header fields by name, and whether any name comes more than once."""

    by_name: dict[bytes, bytes]
    some_repeat: bool


class CallerGone(Exception):
    """The caller closed the connection before the request was complete: there is nobody to answer."""


HttpApp = Callable[[HTTPScope, Receive, Send], Awaitable[None]]
Headers = Sequence[tuple[bytes, bytes]]


def header(scope: HTTPScope, name: bytes) -> bytes | None:
    """Return the header field with this lower-case name; of several, the last."""
    return _fields(scope).by_name.get(name)


def repeated(scope: HTTPScope, name: bytes) -> bool:
    """Whether a field comes more than once: which of them would the next program believe?"""
    return _fields(scope).some_repeat and sum(each == name for each, _ in scope["headers"]) > 1


def _fields(scope: HTTPScope) -> _Fields:
    """Look at the header fields once a request, whoever asks first."""
    found: _Fields | None = scope["state"].get(_FIELDS)
    if found is None:
        headers = list(scope["headers"])
        by_name = dict(headers)
        found = scope["state"][_FIELDS] = _Fields(by_name, len(by_name) != len(headers))
    return found


def require_json(scope: HTTPScope) -> None:
    """Raise `NotJson` where the body is not declared as JSON."""
    media_type = (header(scope, b"content-type") or b"").split(b";", 1)[0].strip().lower()
    if media_type != JSON or repeated(scope, b"content-type"):
        raise NotJson


async def read_body(scope: HTTPScope, receive: Receive, limit_bytes: int) -> bytes:
    """Return the whole body.

    Raises `TooLarge` before or while it grows past the limit, and `CallerGone` where the connection
    ends before the body does: a part of a body is not a body. How long a body may take is the
    protocol's concern, which then ends the connection.
    """
    declared = header(scope, b"content-length")
    if declared is not None and int(declared) > limit_bytes:
        raise TooLarge(limit_bytes)
    body = b""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise CallerGone
        piece: bytes = message.get("body", b"")  # type: ignore[assignment]
        body = body + piece if body else piece
        if len(body) > limit_bytes:
            raise TooLarge(limit_bytes)
        more = bool(message.get("more_body"))
    scope["state"][BODY_READ] = True
    return body


async def gone(receive: Receive) -> None:
    """Return when the caller has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def send_answer(
    send: Send,
    status: int,
    body: bytes,
    content_type: bytes = JSON,
    headers: Iterable[tuple[bytes, bytes]] = (),
) -> None:
    """Send a whole answer."""
    fields = [(b"content-type", content_type), (b"content-length", b"%d" % len(body)), *headers]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def send_refusal(
    receive: Receive, send: Send, status: int, body: bytes, content_type: bytes, headers: Headers
) -> None:
    """Answer before the body has been read, and close the connection.

    Closing at once would reset the connection while the client still sends, and the answer could
    be lost with it; so the connection lingers for a little of the body first.
    """
    fields = [
        (b"content-type", content_type),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
        *headers,
    ]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    try:
        async with asyncio.timeout(_LINGER_S):
            left = _LINGER_BYTES
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))  # type: ignore[arg-type]
                if not message.get("more_body"):
                    break
    except TimeoutError:
        pass
    await send({"type": "http.response.body", "body": b"", "more_body": False})

"""How an error becomes a body: an envelope, a problem document or plain text, as the path asks for."""

from collections.abc import Callable
from typing import NamedTuple

import msgspec
from litestar.types import HTTPScope, Receive, Send

from k12ai.api import wire
from k12ai.deferred import answer_of
from k12ai.errors import InvalidToken, K12AIError, MethodNotAllowed, NotAuthenticated, RequestError
from k12ai.models import Problem
from k12ai.texts import Language, preferred_language

REQUEST_ID = "k12ai.request_id"
PROBLEM_JSON = b"application/problem+json"
_CONSUL_REFUSALS = (b"Permission denied", b"ACL not found")


class Rendered(NamedTuple):
    """An answer, ready to be sent."""

    status: int
    body: bytes
    content_type: bytes
    headers: list[tuple[bytes, bytes]]


def language_of(scope: HTTPScope) -> Language:
    """Return the language that the caller prefers."""
    if wire.header(scope, b"accept-language") is None:
        return "en"
    accepted = [value for name, value in scope["headers"] if name == b"accept-language"]
    return preferred_language(b",".join(accepted).decode("latin-1"))


def render(error: K12AIError, scope: HTTPScope) -> Rendered:
    """Return the error in the form of the path: ``/k12ai`` and ``/v1/kv`` have published ones."""
    path = scope["path"]
    language = language_of(scope)
    headers = _headers(error, path)
    if path.startswith("/k12ai/"):
        body = msgspec.json.encode(answer_of(error, language))
        return Rendered(error.status, body, wire.JSON, headers)
    if path == "/v1/kv" or path.startswith("/v1/kv/"):
        # Consul's words, which existing clients may compare with, and its status for any fault of a token.
        if isinstance(error, NotAuthenticated):
            return Rendered(403, _CONSUL_REFUSALS[isinstance(error, InvalidToken)], wire.PLAIN_TEXT, [])
        return Rendered(error.status, error.detail.en.encode(), wire.PLAIN_TEXT, headers)
    return Rendered(error.status, msgspec.json.encode(_problem(error, scope, language)), PROBLEM_JSON, headers)


def published(*methods: str) -> Callable[[wire.HttpApp], wire.HttpApp]:
    """Make a route that takes these methods and answers errors of the tree in its path's form."""

    def decorate(endpoint: wire.HttpApp) -> wire.HttpApp:
        async def answering(scope: HTTPScope, receive: Receive, send: Send) -> None:
            try:
                if scope["method"] not in methods:
                    raise MethodNotAllowed(methods)
                await endpoint(scope, receive, send)
            except wire.CallerGone:
                pass
            except K12AIError as error:
                await send_error(error, scope, receive, send)

        return answering

    return decorate


async def send_error(error: K12AIError, scope: HTTPScope, receive: Receive, send: Send) -> None:
    """Send an error as the whole answer."""
    status, body, content_type, headers = render(error, scope)
    if isinstance(error, RequestError) and wire.BODY_READ not in scope["state"]:
        await wire.send_refusal(receive, send, status, body, content_type, headers)
    else:
        await wire.send_answer(send, status, body, content_type, headers)


def _headers(error: K12AIError, path: str) -> list[tuple[bytes, bytes]]:
    headers = []
    if error.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % error.retry_after_s))
    if isinstance(error, NotAuthenticated):
        headers.extend((b"www-authenticate", each) for each in _challenges(error, path))
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", ", ".join(error.allowed).encode()))
    return headers


def is_page(path: str) -> bool:
    """Whether a path is something that a browser opens by itself."""
    return path == "/metrics" or path == "/docs" or path.startswith("/docs/")


def _challenges(error: NotAuthenticated, path: str) -> list[bytes]:
    """Return how to say who one is (RFC 6750); where a browser opens the page itself, by a password, too."""
    why = b', error="invalid_token"' if isinstance(error, InvalidToken) else b""
    challenges = [b'Bearer realm="k12ai"' + why]
    if is_page(path):
        challenges.append(b'Basic realm="k12ai: any name, and your token as the password", charset="UTF-8"')
    return challenges


def _problem(error: K12AIError, scope: HTTPScope, language: Language) -> Problem:
    row = error.row
    return Problem(
        type=f"urn:k12ai:error:{error.code}",
        title=row.text.pick(language),
        status=error.status,
        detail=error.detail.pick(language),
        instance=f"urn:k12ai:request:{scope['state'].get(REQUEST_ID, '')}",
        code=error.code,
        cause=row.cause.pick(language),
        next_step=row.next_step.pick(language),
    )

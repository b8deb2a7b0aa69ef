"""The door: which hosts and web pages a request may come through, on every path and method alike.

The server listens on loopback, but every web page in the teacher's browser can send requests there.
A page that rebinds its own name to 127.0.0.1 is caught by the Host header, one that sends requests
across origins by Origin and Sec-Fetch-Site. Everything not listed is refused.
"""

import re
from collections.abc import Iterable

from litestar.types import HTTPScope, Receive, Send

from k12ai.api import wire
from k12ai.api.answers import send_error
from k12ai.api.wire import HttpApp
from k12ai.errors import HostRefused, K12AIError, OriginRefused
from k12ai.settings import Settings

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:/@\s]+)(?::([0-9]{1,5}))?")
_LOOPBACK_NAME = re.compile(r"localhost|127(?:\.[0-9]{1,3}){3}|\[::1\]")
_REMEMBERED = 64


def hosts_of(settings: Settings) -> list[str]:
    """Return the host names that requests may name, besides loopback ones."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return [host, *settings.allowed_hosts]


class Gate:
    """Lets a request through, or answers 421 (host) or 403 (origin) without touching the application."""

    def __init__(self, app: HttpApp, *, hosts: Iterable[str] = (), origins: Iterable[str] = ()) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)
        self._origins = frozenset(origin.lower().rstrip("/").encode() for origin in origins)
        self._known_hosts: set[bytes] = set()  # header values that passed; few, but sent with each request

    async def __call__(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        """Check the header fields, then hand the request on."""
        if (refusal := self._refusal(scope)) is not None:
            await send_error(refusal, scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, scope: HTTPScope) -> K12AIError | None:
        host = wire.header(scope, b"host")
        if host is None or not self._answers_for(host) or wire.repeated(scope, b"host"):
            return HostRefused()
        origin = wire.header(scope, b"origin")
        site = wire.header(scope, b"sec-fetch-site")
        if origin is not None:
            trusted = self._trusts(origin, host) and not wire.repeated(scope, b"origin")
        else:
            trusted = site in (None, b"same-origin", b"none")
        return None if trusted and not wire.repeated(scope, b"sec-fetch-site") else OriginRefused()

    def _answers_for(self, host: bytes) -> bool:
        if host in self._known_hosts:
            return True
        match = _HOST.fullmatch(host.decode("latin-1").lower())
        if match is None or not (_LOOPBACK_NAME.fullmatch(match[1]) or match[1] in self._hosts):
            return False
        if len(self._known_hosts) < _REMEMBERED:
            self._known_hosts.add(host)
        return True

    def _trusts(self, origin: bytes, host: bytes) -> bool:
        origin = origin.lower()
        # The server's own pages, whichever of its names the browser used.
        return origin in (b"http://" + host.lower(), b"https://" + host.lower()) or origin in self._origins

"""The outermost layer: request ids, counts and times, and the last resort for a fault of ours."""

import bisect
import itertools
import os
import re
import time
from collections import Counter
from collections.abc import Iterator

import structlog
from litestar.types import HTTPScope, Message, Receive, Send

from k12ai.api import wire
from k12ai.api.answers import REQUEST_ID, send_error
from k12ai.api.roles import RULES
from k12ai.api.wire import HttpApp
from k12ai.errors import InternalError

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

_GIVEN_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_KNOWN_METHODS = frozenset({"GET", "PUT", "POST", "DELETE", "PATCH", "HEAD", "OPTIONS"})

log = structlog.stdlib.get_logger(__name__)


class HttpCounts:
    """How many requests each route answered, with what, and how long it took."""

    def __init__(self) -> None:
        self.answers: Counter[tuple[str, str, int]] = Counter()
        self.buckets: dict[str, list[int]] = {}
        self.seconds: Counter[str] = Counter()

    def add(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answer."""
        self.answers[route, method, status] += 1
        buckets = self.buckets.get(route)
        if buckets is None:
            buckets = self.buckets[route] = [0] * (len(BUCKETS_S) + 1)
        buckets[bisect.bisect_left(BUCKETS_S, seconds)] += 1
        self.seconds[route] += seconds  # type: ignore[assignment]


class Observe:
    """Gives every answer an ``X-Request-Id``, counts it, and turns a fault into a 500 without a traceback."""

    def __init__(self, app: HttpApp, counts: HttpCounts) -> None:
        self._app = app
        self._counts = counts
        self._ids = _request_ids()

    async def __call__(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        """Hand the request on and watch the answer."""
        state = scope.setdefault("state", {})
        request_id = state[REQUEST_ID] = self._request_id(scope)
        started = time.perf_counter()
        status = 0

        async def send_observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", request_id.encode()),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        try:
            await self._app(scope, receive, send_observed)
        except Exception:
            log.exception("request.failed", request_id=request_id, path=scope["path"])
            if status == 0:
                await send_error(InternalError(), scope, receive, send_observed)
        finally:
            method = scope["method"] if scope["method"] in _KNOWN_METHODS else "other"
            self._counts.add(route_of(scope["path"]), method, status, time.perf_counter() - started)

    def _request_id(self, scope: HTTPScope) -> str:
        given = wire.header(scope, b"x-request-id")
        return given.decode("ascii") if given and _GIVEN_ID.fullmatch(given) else next(self._ids)


_ROUTES = frozenset(rule.path for rule in RULES if "{" not in rule.path and not rule.path.startswith("/docs/"))
_FAMILIES = ("/docs/", *sorted({rule.path.partition("{")[0] for rule in RULES if "{" in rule.path}))


def route_of(path: str) -> str:
    """Return the route of a path for counting; few values, whatever clients ask for."""
    if path in _ROUTES or f"{path}/" in _FAMILIES:
        return path
    return next((family.rstrip("/") for family in _FAMILIES if path.startswith(family)), "other")


def _request_ids() -> Iterator[str]:
    run = os.urandom(4).hex()
    for number in itertools.count(1):
        yield f"{run}-{number}"

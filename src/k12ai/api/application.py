"""The routes in one place, behind the gate."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import structlog
from litestar import Litestar, Request, Response
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.types import HTTPScope, Receive, Send

from k12ai.api.answers import REQUEST_ID, render
from k12ai.api.gate import Gate
from k12ai.api.observe import HttpCounts, Observe
from k12ai.api.wire import HttpApp
from k12ai.errors import (
    InternalError,
    K12AIError,
    MethodNotAllowed,
    RequestError,
    ResourceNotFound,
    TooLarge,
)
from k12ai.settings import Settings
from k12ai.texts import Text

log = structlog.stdlib.get_logger(__name__)


class Mount(Protocol):
    """An ASGI application for some paths."""

    def serves(self, scope: HTTPScope) -> bool:
        """Whether the request's path is one of these."""

    async def handle(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        """Answer one request."""


class Routes(NamedTuple):
    """Everything that is served on the main port.

    ``published`` are ASGI applications by their exact path, ``mounts`` those that say themselves what
    they serve, ``handlers`` the framework's.
    """

    published: Mapping[str, HttpApp]
    mounts: Sequence[Mount]
    handlers: Sequence[HTTPRouteHandler]


def application(settings: Settings, counts: HttpCounts, routes: Routes) -> HttpApp:
    """Return the application of the main port."""
    framework = Litestar(
        route_handlers=routes.handlers,
        request_max_body_size=settings.max_body_bytes,
        exception_handlers={
            HTTPException: _answer_http_exception,
            K12AIError: _answer_known,
            Exception: _answer_fault,
        },
        openapi_config=None,
        # Not from the environment: with LITESTAR_DEBUG, tracebacks would go to clients.
        debug=False,
        pdb_on_exception=False,
        logging_config=None,
    )
    return guarded(_dispatch(routes.published, routes.mounts, framework), settings, counts)


def _dispatch(published: Mapping[str, HttpApp], mounts: Sequence[Mount], framework: HttpApp) -> HttpApp:
    """Send the published paths to their ASGI applications at once, and all others through the framework."""

    async def dispatch(scope: HTTPScope, receive: Receive, send: Send) -> None:
        route = published.get(scope["path"].rstrip("/"))
        if route is None:
            mount = next((each for each in mounts if each.serves(scope)), None)
            route = framework if mount is None else mount.handle
        await route(scope, receive, send)

    return dispatch


def guarded(app: HttpApp, settings: Settings, counts: HttpCounts) -> HttpApp:
    """Put an application behind the gate, and watch both."""
    return Observe(Gate(app, hosts=settings.allowed_hosts, origins=settings.allowed_origins), counts)


def _answer_http_exception(request: Request, error: HTTPException) -> Response[bytes]:  # type: ignore[type-arg]
    """Answer what the framework refuses in the same forms as everything else."""
    problem: K12AIError
    if error.status_code == 404:
        problem = ResourceNotFound()
    elif error.status_code == 405:
        allowed = (error.headers or {}).get("allow", "")
        problem = MethodNotAllowed(tuple(part.strip() for part in allowed.split(",")))
    elif error.status_code == 413:
        limit = request.app.request_max_body_size
        problem = TooLarge(limit if isinstance(limit, int) else 0)
    else:
        problem = RequestError(Text(error.detail, error.detail))
    return _response(problem, request)


def _answer_known(request: Request, error: K12AIError) -> Response[bytes]:  # type: ignore[type-arg]
    """Answer an error of the tree in the form of its path."""
    return _response(error, request)


def _answer_fault(request: Request, error: Exception) -> Response[bytes]:  # type: ignore[type-arg]
    """Answer a fault of ours: the log has all of it, the caller the id to find it by."""
    log.error(
        "request.failed",
        request_id=request.scope["state"][REQUEST_ID],
        path=request.scope["path"],
        exc_info=error,
    )
    return _response(InternalError(), request)


def _response(problem: K12AIError, request: Request) -> Response[bytes]:  # type: ignore[type-arg]
    status, body, content_type, headers = render(problem, request.scope)
    return Response(
        body,
        status_code=status,
        media_type=content_type.decode(),
        headers={name.decode(): value.decode() for name, value in headers},
    )

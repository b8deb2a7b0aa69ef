"""The routes in one place, behind the gate."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, cast

import structlog
from litestar import Litestar, Request, Response
from litestar.connection import ASGIConnection
from litestar.exceptions import HTTPException
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
from litestar.types import HTTPScope, Receive, Send

from k12ai.api.answers import REQUEST_ID, render, send_error
from k12ai.api.audit import Audit
from k12ai.api.gate import Gate, hosts_of
from k12ai.api.identify import Doorkeeper, Identify
from k12ai.api.observe import HttpCounts, Observe
from k12ai.api.roles import permit, principal_of
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
from k12ai.stores.base import Store
from k12ai.texts import Text

log = structlog.stdlib.get_logger(__name__)


class Mount(Protocol):
    """An ASGI application for some paths."""

    def serves(self, scope: HTTPScope) -> bool:
        """Whether the request's path is one of these."""

    def route(self, scope: HTTPScope) -> str | None:
        """Return the request's route in the role table, None for what is not there."""

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


class Walls(NamedTuple):
    """What stands around every application: who may come in, who it is, and what is written down."""

    settings: Settings
    counts: HttpCounts
    doorkeeper: Doorkeeper
    store: Store


def application(walls: Walls, routes: Routes) -> HttpApp:
    """Return the application of the main port."""
    settings = walls.settings
    framework = Litestar(
        route_handlers=routes.handlers,
        request_max_body_size=settings.max_body_bytes,
        exception_handlers={
            HTTPException: _answer_http_exception,
            K12AIError: _answer_known,
            Exception: _answer_fault,
        },
        guards=[_permit],
        openapi_config=None,
        # Not from the environment: with LITESTAR_DEBUG, tracebacks would go to clients.
        debug=False,
        pdb_on_exception=False,
        logging_config=None,
    )
    return guarded(_dispatch(routes.published, routes.mounts, framework), walls)


def kv_application(walls: Walls, kv: Mount) -> HttpApp:
    """Return the application of the key-value store's own port."""
    return guarded(_dispatch({}, [kv], None), walls)


def _dispatch(published: Mapping[str, HttpApp], mounts: Sequence[Mount], framework: HttpApp | None) -> HttpApp:
    """Send the published paths to their ASGI applications at once, and all others through the framework.

    Nothing is handed on before the role table has let it through; the framework asks the table itself
    (`_permit`), once it knows which of its routes is meant.
    """

    async def dispatch(scope: HTTPScope, receive: Receive, send: Send) -> None:
        try:
            route = _permitted(scope)
        except K12AIError as error:
            await send_error(error, scope, receive, send)
        else:
            await route(scope, receive, send)

    def _permitted(scope: HTTPScope) -> HttpApp:
        path = scope["path"].rstrip("/")
        if (route := published.get(path)) is not None:
            permit(scope, path)
            return route
        for mount in mounts:
            if mount.serves(scope):
                permit(scope, mount.route(scope))
                return mount.handle
        if framework is None:
            permit(scope, None)
            raise ResourceNotFound
        if path != "/health":
            principal_of(scope)  # who has no token is not told which routes there are
        return framework

    return dispatch


def _permit(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """Ask the role table about a route of the framework's."""
    scope = cast("HTTPScope", connection.scope)
    if scope["method"] == "OPTIONS":
        principal_of(scope)
    else:
        permit(scope, scope["path_template"])


def guarded(app: HttpApp, walls: Walls) -> HttpApp:
    """Put an application behind the walls."""
    settings = walls.settings
    known = Identify(app, walls.doorkeeper)
    gate = Gate(Audit(known, walls.store), hosts=hosts_of(settings), origins=settings.allowed_origins)
    return Observe(gate, walls.counts)


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

"""The routes in one place, behind the gate."""

from collections.abc import Mapping

import structlog
from litestar import Litestar, Request, Response
from litestar.exceptions import HTTPException
from litestar.types import HTTPScope, Receive, Send

from k12ai.api.answers import REQUEST_ID, render
from k12ai.api.gate import Gate
from k12ai.api.kv import KvRoutes
from k12ai.api.observe import HttpCounts, Observe
from k12ai.api.pages import Pages
from k12ai.api.platform import PlatformRoutes
from k12ai.api.wire import HttpApp
from k12ai.errors import InternalError, K12AIError, MethodNotAllowed, RequestError, ResourceNotFound
from k12ai.settings import Settings
from k12ai.texts import Text

log = structlog.stdlib.get_logger(__name__)


def application(
    settings: Settings, counts: HttpCounts, platform: PlatformRoutes, kv: KvRoutes, pages: Pages
) -> HttpApp:
    """Return everything that is served on the main port."""

    framework = Litestar(
        route_handlers=pages.handlers(),
        exception_handlers={HTTPException: _answer_http_exception, Exception: _answer_fault},
        openapi_config=None,
        # Not from the environment: with LITESTAR_DEBUG, tracebacks would go to clients.
        debug=False,
        pdb_on_exception=False,
        logging_config=None,
    )
    return guarded(_dispatch(platform.routes(), kv, framework), settings, counts)


def _dispatch(published: Mapping[str, HttpApp], kv: KvRoutes, framework: HttpApp) -> HttpApp:
    """Send the published paths to their ASGI applications at once, and all others through the framework."""

    async def dispatch(scope: HTTPScope, receive: Receive, send: Send) -> None:
        route = published.get(scope["path"].rstrip("/"))
        if route is not None:
            await route(scope, receive, send)
        elif kv.serves(scope):
            await kv(scope, receive, send)
        else:
            await framework(scope, receive, send)

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
    else:
        problem = RequestError(Text(error.detail, error.detail))
    return _response(problem, request)


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

"""The routes in one list, behind the gate."""

from collections.abc import Sequence

from litestar import Litestar, Request, Response
from litestar.exceptions import HTTPException
from litestar.handlers import BaseRouteHandler, asgi
from litestar.types import HTTPScope, Receive, Send

from k12ai.api.answers import render
from k12ai.api.gate import Gate
from k12ai.api.kv import KvRoutes
from k12ai.api.observe import HttpCounts, Observe
from k12ai.api.pages import Pages
from k12ai.api.platform import PlatformRoutes
from k12ai.api.wire import HttpApp
from k12ai.errors import K12AIError, MethodNotAllowed, RequestError, ResourceNotFound
from k12ai.settings import Settings
from k12ai.texts import Text


def application(
    settings: Settings, counts: HttpCounts, platform: PlatformRoutes, kv: KvRoutes, pages: Pages
) -> HttpApp:
    """Return everything that is served on the main port."""

    @asgi("/v1/kv", is_mount=True, copy_scope=True)
    async def kv_routes(scope: HTTPScope, receive: Receive, send: Send) -> None:
        scope["path"] = scope["raw_path"].decode("latin-1")  # the framework cuts a mount's own path off
        await kv(scope, receive, send)

    routes: Sequence[BaseRouteHandler] = [*platform.handlers(), kv_routes, *pages.handlers()]
    framework = Litestar(
        route_handlers=routes,
        exception_handlers={HTTPException: _answer_http_exception},
        openapi_config=None,
        logging_config=None,
    )
    return guarded(framework, settings, counts)


def guarded(app: HttpApp, settings: Settings, counts: HttpCounts) -> HttpApp:
    """Put an application behind the gate, and watch both."""
    return Observe(Gate(app, hosts=settings.allowed_hosts, origins=settings.allowed_origins), counts)


def _answer_http_exception(request: Request, error: HTTPException) -> Response[bytes]:  # type: ignore[type-arg]
    """Answer what the framework refuses in the same forms as everything else."""
    problem: K12AIError
    if error.status_code == 404:
        problem = ResourceNotFound()
    elif error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "GET")
        problem = MethodNotAllowed(tuple(part.strip() for part in allowed.split(",")))
    else:
        problem = RequestError(Text(error.detail, error.detail))
    status, body, content_type, headers = render(problem, request.scope)
    return Response(
        body,
        status_code=status,
        media_type=content_type.decode(),
        headers={name.decode(): value.decode() for name, value in headers},
    )

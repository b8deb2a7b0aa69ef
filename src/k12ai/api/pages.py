"""``/health``, ``/metrics`` and ``/docs``: for operators and newcomers."""

import time
from importlib import resources
from typing import Any

import msgspec
from litestar import MediaType, Request, Response, get
from litestar.handlers import HTTPRouteHandler
from prometheus_client import CollectorRegistry

from k12ai._version import __version__
from k12ai.access.principal import OPEN
from k12ai.api import metrics, openapi
from k12ai.api.roles import PRINCIPAL
from k12ai.closing import Closing
from k12ai.models import Health, SourceHealth
from k12ai.monitor.monitor import Monitor

# The page runs one script of ours and asks this server alone.
_DOCS_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; connect-src 'self'; "
    "img-src 'self' data:; font-src 'self'; frame-ancestors 'none'; base-uri 'none'"
)


class Pages:
    """Routes that show rather than do."""

    def __init__(self, monitor: Monitor, closing: Closing, registry: CollectorRegistry) -> None:
        self._monitor = monitor
        self._closing = closing
        self._registry = registry
        self._started = time.monotonic()

    def handlers(self) -> list[HTTPRouteHandler]:
        """Return the routes for the application."""
        assets = resources.files("k12ai.api") / "assets"
        page = (assets / "docs.html").read_bytes()
        script = (assets / "rapidoc-min.js").read_bytes()
        document = msgspec.json.encode(openapi.document())

        @get("/health", sync_to_thread=False)
        def health(request: Request[Any, Any, Any]) -> Response[bytes]:
            found = self._health()
            if request.scope["state"].get(PRINCIPAL, OPEN) is None:
                # Which sources a machine has, and what is wrong with them, is not everybody's business.
                found = msgspec.structs.replace(found, sources={})
            return Response(
                msgspec.json.encode(found),
                media_type=MediaType.JSON,
                status_code=503 if found.status == "stopping" else 200,
            )

        @get("/metrics", sync_to_thread=False)
        def prometheus() -> Response[bytes]:
            return Response(metrics.exposition(self._registry), media_type=metrics.CONTENT_TYPE)

        @get("/docs", sync_to_thread=False)
        def docs() -> Response[bytes]:
            return Response(page, media_type=MediaType.HTML, headers={"Content-Security-Policy": _DOCS_CSP})

        @get("/docs/rapidoc-min.js", sync_to_thread=False)
        def docs_script() -> Response[bytes]:
            return Response(script, media_type="text/javascript", headers={"Cache-Control": "max-age=86400"})

        @get("/docs/openapi.json", sync_to_thread=False)
        def docs_document() -> Response[bytes]:
            return Response(document, media_type=MediaType.JSON)

        return [health, prometheus, docs, docs_script, docs_document]

    def _health(self) -> Health:
        reading = self._monitor.latest.reading
        sources = {
            name: SourceHealth(condition.available, condition.reason.en if condition.reason else None)
            for name, condition in reading.conditions.items()
        }
        gpu_notes = [note.en for note in reading.gpus.notes]
        sources["gpus"] = SourceHealth(bool(reading.gpus.gpus), "; ".join(gpu_notes) or None)
        late = self._monitor.age_s > max(5.0, 3 * self._monitor.interval_s)
        return Health(
            status="stopping" if self._closing.started else "degraded" if late else "ok",
            version=__version__,
            uptime_seconds=round(time.monotonic() - self._started, 1),
            sample_age_seconds=round(self._monitor.age_s, 3),
            sources=sources,
        )

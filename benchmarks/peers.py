"""What the server is compared with: a plain route of the same framework, and no framework at all.

``python -m benchmarks.peers litestar|asgi FILE`` serves the bytes of ``FILE`` on a free port and prints it.
"""

import asyncio
import socket
import sys
from pathlib import Path
from typing import Any

import uvicorn
from litestar import Litestar, MediaType, Response, post

from benchmarks.load import HOST


def litestar_app(answer: bytes) -> Any:
    """Return an application with one route that always answers the same bytes."""

    @post("/plain", status_code=200)
    async def plain() -> Response[bytes]:
        return Response(answer, media_type=MediaType.JSON)

    return Litestar(route_handlers=[plain], openapi_config=None, logging_config=None)


def asgi_app(answer: bytes) -> Any:
    """Return the least an ASGI server can run: one answer for all, and a signal to wait for.

    ``GET /signal?index=`` is answered at the next ``PUT /signal``, from memory: the floor of a blocking
    read.
    """
    head = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
    signal = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/signal":
            if scope["method"] == "PUT":
                signal.set()
                signal.clear()  # the waiters are on their way, and the next ones wait again
            elif scope["query_string"]:
                await signal.wait()
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": answer})

    return app


def serve(name: str, answer: bytes) -> None:
    """Serve one of the applications until SIGTERM, in the way the K12AI server is served."""
    listener = socket.create_server((HOST, 0))
    app = {"litestar": litestar_app, "asgi": asgi_app}[name](answer)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )
    # The socket listens already: whoever reads the port can connect.
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    serve(sys.argv[1], Path(sys.argv[2]).read_bytes())

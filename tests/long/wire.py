"""HTTP on plain sockets, thousands at a time: a client library would get in the way of counting them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, NamedTuple, Self

import msgspec

from tests.support.server import Server, envelope


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def kv_index(self) -> int:
        return int(self.headers["x-consul-index"])


class Peer:
    """One connection to a server."""

    def __init__(self, server: Server) -> None:
        self._port = server.port

    async def __aenter__(self) -> Self:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()

    async def send(self, request: bytes) -> None:
        self.writer.write(request)
        await self.writer.drain()

    async def receive(self) -> Reply:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").splitlines()
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)
        }
        body = await self.reader.readexactly(int(headers["content-length"]))
        return Reply(int(head[0].split()[1]), headers, body)

    async def ask(self, request: bytes) -> Reply:
        await self.send(request)
        return await self.receive()


@contextlib.asynccontextmanager
async def peers(server: Server, count: int) -> AsyncIterator[list[Peer]]:
    """Open so many connections at once; close those that are still open."""
    async with contextlib.AsyncExitStack() as exits:
        opened = [Peer(server) for _ in range(count)]
        await asyncio.gather(*(exits.enter_async_context(each) for each in opened))
        yield opened


def request_of(method: str, path: str, body: bytes = b"", content_type: str = "application/json") -> bytes:
    """Return a whole request."""
    head = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    if body:
        head += [f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
    return "\r\n".join([*head, "", ""]).encode() + body


def stats_request(**fields: Any) -> bytes:
    return request_of("POST", "/k12ai/platform/stats", msgspec.json.encode(envelope("query", **fields)))

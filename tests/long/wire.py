"""HTTP on plain sockets, thousands at a time: a client library would get in the way of counting them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

import msgspec

from tests.support.server import Server, envelope

ANSWER_S = 30  # longer than any answer takes: who waits so long has been forgotten


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

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


async def ask(server: Server, request: bytes) -> Reply:
    """Ask over a connection of its own."""
    async with Peer(server) as peer:
        return await peer.ask(request)


async def served(server: Server, over: asyncio.Event) -> int:
    """Ask good questions over new connections until it is over; return how many were answered: all of them."""
    questions = [
        stats_request(),
        request_of("GET", "/health"),
        request_of("PUT", "/v1/kv/good", b"1"),
        request_of("GET", "/v1/kv/good"),
    ]
    count = 0
    while not over.is_set():
        async with asyncio.timeout(ANSWER_S):
            reply = await ask(server, questions[count % len(questions)])
        assert reply.status == 200, reply
        count += 1
        await asyncio.sleep(0.01)
    return count


def request_of(
    method: str,
    path: str,
    body: bytes = b"",
    content_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """Return a whole request."""
    head = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    head += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body:
        head += [f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
    return "\r\n".join([*head, "", ""]).encode() + body


def stats_request(**fields: Any) -> bytes:
    return request_of("POST", "/k12ai/platform/stats", msgspec.json.encode(envelope("query", **fields)))

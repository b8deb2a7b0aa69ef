"""A closed-loop load generator: every connection sends its next request when it has its answer.

Plain non-blocking sockets and `select.poll`, because what generates the load must be much faster than
what is measured. It runs in a process of its own, on a core of its own.
"""

import select
import socket
import statistics
import time
from typing import NamedTuple

HOST = "127.0.0.1"
TIMEOUT_MS = 30_000
_END = b"\r\n\r\n"


class Target(NamedTuple):
    """Where requests go, and the bytes of one."""

    port: int
    request: bytes


class Load(NamedTuple):
    """What came of a load: every answer was a 200."""

    answers: int
    seconds: float
    p50_s: float
    p99_s: float

    @property
    def per_second(self) -> float:
        """The rate of answers."""
        return self.answers / self.seconds


def http_request(method: str, path: str, body: bytes = b"", content_type: str = "application/json") -> bytes:
    """Return the bytes of a request as a notebook's client sends it."""
    fields = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Accept: */*"]
    if body:
        fields += [f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
    return "\r\n".join(fields).encode() + _END + body


class UnexpectedAnswer(Exception):
    """The answer is not what a measurement can be made of."""


class Connection:
    """One keep-alive connection with at most one request on its way."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection((HOST, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self._buffer = bytearray(512 * 1024)
        self._head = b""
        self._missing = 0
        self.sent_at = 0.0

    def send(self, request: bytes) -> None:
        """Send a request; it must fit into the socket's buffer."""
        self.sent_at = time.perf_counter()
        if self.socket.send(request) != len(request):
            raise UnexpectedAnswer("the request does not fit into the socket's buffer")

    def receive(self) -> bool:
        """Take what has arrived and tell whether the answer is complete."""
        count = self.socket.recv_into(self._buffer)
        if count == 0:
            raise UnexpectedAnswer("the connection was closed")
        if self._missing:
            self._missing -= count
            return self._missing == 0
        return self._begin(count)

    def header(self, name: bytes, default: bytes | None = None) -> bytes:
        """Return a header field of the last answer; without a default, it must be there."""
        start = self._head.find(b"\r\n" + name + b":") + len(name) + 3
        if start < len(name) + 3:
            if default is None:
                raise UnexpectedAnswer(f"no {name.decode()} in {self._head.decode('latin-1')}")
            return default
        return self._head[start : self._head.index(b"\r\n", start)].strip()

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()

    def _begin(self, count: int) -> bool:
        end = self._buffer.find(_END, 0, count)
        if end < 0:
            raise UnexpectedAnswer("the header fields came in pieces")
        self._head = bytes(memoryview(self._buffer)[: end + 2]).lower()
        if self._head[9:12] != b"200":
            raise UnexpectedAnswer(self._head.decode("latin-1"))
        self._missing = end + 4 + int(self.header(b"content-length")) - count
        return self._missing == 0


def closed_loop(
    target: Target, *, connections: int = 1, seconds: float = float("inf"), answers: int = 1 << 62
) -> Load:
    """Load a server until either bound is reached, and tell how it answered."""
    poll = select.poll()
    clients = [Connection(target.port) for _ in range(connections)]
    by_descriptor = {client.socket.fileno(): client for client in clients}
    for descriptor in by_descriptor:
        poll.register(descriptor, select.POLLIN)
    started = time.perf_counter()
    for client in clients:
        client.send(target.request)
    latencies: list[float] = []
    try:
        while (now := time.perf_counter()) - started < seconds and len(latencies) < answers:
            ready = poll.poll(TIMEOUT_MS)
            if not ready:
                raise UnexpectedAnswer("no answer in time")
            for descriptor, _ in ready:
                client = by_descriptor[descriptor]
                if client.receive():
                    latencies.append(time.perf_counter() - client.sent_at)
                    client.send(target.request)
    finally:
        for client in clients:
            client.close()
    return Load(
        len(latencies), now - started, statistics.median(latencies), statistics.quantiles(latencies, n=100)[98]
    )

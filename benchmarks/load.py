"""Load generators. In a closed loop, every connection sends its next request when it has its answer.

In an open loop, requests come when they are due, whether or not earlier ones have been answered; in a
burst, all are due at once. Both count from when a request was due, so that a stall shows in the figures
of everyone who would have had to wait, and both count errors instead of ending with the first.

Plain non-blocking sockets and `select.poll`, because what generates the load must be much faster than
what is measured. It runs in a process of its own, on a core of its own.
"""

import itertools
import select
import socket
import statistics
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Self

from tests.support.process import allow_files

HOST = "127.0.0.1"
TIMEOUT_MS = 30_000
_END = b"\r\n\r\n"
_BUFFER_BYTES = 512 * 1024
# For what the process has open besides its connections.
_OTHER_FILES = 64
# An open loop that has so many unanswered requests measures nothing any more.
_MOST_CONNECTIONS = 4_000


class Target(NamedTuple):
    """Where requests go, and the bytes of one."""

    port: int
    request: bytes
    # Where given, they take turns in the place of the request's `%08d`; else all requests are the same.
    numbers: range | None = None

    def requests(self) -> Iterator[bytes]:
        """Yield the bytes of one request after the other, without end."""
        if self.numbers is None:
            return itertools.repeat(self.request)
        return (self.request % number for number in itertools.cycle(self.numbers))


class Load(NamedTuple):
    """What came of a load: every answer was a 200 or a 202, all others are errors."""

    answers: int
    seconds: float
    p50_s: float
    p99_s: float
    longest_s: float
    errors: int = 0

    @classmethod
    def of(cls, latencies: Sequence[float], seconds: float, errors: int = 0) -> Self:
        """Sum up so many answering times."""
        if len(latencies) < 2:
            raise UnexpectedAnswer(f"{len(latencies)} answers and {errors} errors")
        p50_s, p99_s = statistics.median(latencies), statistics.quantiles(latencies, n=100)[98]
        return cls(len(latencies), seconds, p50_s, p99_s, max(latencies), errors)

    @property
    def per_second(self) -> float:
        """The rate of answers."""
        return self.answers / self.seconds


def http_request(
    method: str, path: str, body: bytes = b"", content_type: str = "application/json", token: str = ""
) -> bytes:
    """Return the bytes of a request as a notebook's client sends it."""
    fields = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Accept: */*"]
    if token:
        fields.append(f"Authorization: Bearer {token}")
    if body:
        fields += [f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
    return "\r\n".join(fields).encode() + _END + body


class UnexpectedAnswer(Exception):
    """The answer is not what a measurement can be made of."""


class Connection:
    """One keep-alive connection with at most one request on its way."""

    # One for all: what `receive` takes, it is done with before the next one's turn.
    _buffer = bytearray(_BUFFER_BYTES)

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection((HOST, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
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
        if self._head[9:12] not in (b"200", b"202"):
            raise UnexpectedAnswer(self._head.decode("latin-1"))
        self._missing = end + 4 + int(self.header(b"content-length")) - count
        return self._missing == 0


class Crowd:
    """Connections that are polled together."""

    def __init__(self, port: int, count: int = 0) -> None:
        self._port = port
        self._poll = select.poll()
        self._by_descriptor: dict[int, Connection] = {}
        allow_files(count + _OTHER_FILES)
        for _ in range(count):
            self.open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._by_descriptor.values():
            each.close()

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._by_descriptor.values()))

    def open(self) -> Connection:
        """Add a connection."""
        connection = Connection(self._port)
        self._by_descriptor[connection.socket.fileno()] = connection
        self._poll.register(connection.socket, select.POLLIN)
        return connection

    def drop(self, connection: Connection) -> None:
        """Close a connection and forget it."""
        self._poll.unregister(connection.socket)
        del self._by_descriptor[connection.socket.fileno()]
        connection.close()

    def ready(self, timeout_ms: int = TIMEOUT_MS) -> list[Connection]:
        """Return the connections on which something has arrived; none where nothing does in time."""
        return [self._by_descriptor[descriptor] for descriptor, _ in self._poll.poll(timeout_ms)]

    def answered(self) -> list[Connection]:
        """Wait for something to arrive, and return the connections whose answers it completes."""
        ready = self.ready()
        if not ready:
            raise UnexpectedAnswer("no answer in time")
        return [each for each in ready if each.receive()]


class _Arrivals(Crowd):
    """Requests that are due at their times, and what came of them."""

    def __init__(self, port: int, count: int = 0) -> None:
        super().__init__(port, count)
        self.due_at: dict[Connection, float] = {}
        self.idle = list(self)
        self.latencies: list[float] = []
        self.errors = 0

    def send(self, request: bytes, due_at: float) -> None:
        """Send a request on a connection that is idle, or on a new one."""
        # The last one used comes first: the server closes what has been idle for long.
        client = self.idle.pop() if self.idle else self.open()
        self.due_at[client] = due_at
        try:
            client.send(request)
        except (OSError, UnexpectedAnswer):
            self._fail(client)

    def take(self, timeout_ms: int) -> None:
        """Take what has arrived, or arrives within so long."""
        for client in self.ready(timeout_ms):
            try:
                complete = client.receive()
            except (OSError, UnexpectedAnswer):
                self._fail(client)
                continue
            if complete:
                self.latencies.append(time.perf_counter() - self.due_at.pop(client))
                self.idle.append(client)

    def finish(self) -> None:
        """Take the answers that are still on their way; those that do not come in time are errors."""
        deadline = time.perf_counter() + TIMEOUT_MS / 1000
        while self.due_at and (left_s := deadline - time.perf_counter()) > 0:
            self.take(int(left_s * 1000) + 1)
        for client in list(self.due_at):
            self._fail(client)

    def _fail(self, client: Connection) -> None:
        if self.due_at.pop(client, None) is None:
            self.idle.remove(client)  # the server closed what was idle: that is no error
        else:
            self.errors += 1
        self.drop(client)


def closed_loop(
    target: Target, *, connections: int = 1, seconds: float = float("inf"), answers: int = 1 << 62
) -> Load:
    """Load a server until either bound is reached, and tell how it answered."""
    requests = target.requests()
    latencies: list[float] = []
    with Crowd(target.port, connections) as crowd:
        started = time.perf_counter()
        for client in crowd:
            client.send(next(requests))
        while (now := time.perf_counter()) - started < seconds and len(latencies) < answers:
            for client in crowd.answered():
                latencies.append(time.perf_counter() - client.sent_at)
                client.send(next(requests))
    return Load.of(latencies, now - started)


def open_loop(target: Target, *, per_second: float, seconds: float) -> Load:
    """Send requests at a constant rate, whatever becomes of them, and tell how they were answered."""
    requests = target.requests()
    allow_files(_MOST_CONNECTIONS + _OTHER_FILES)
    with _Arrivals(target.port) as arrivals:
        started = time.perf_counter()
        due = deque(started + number / per_second for number in range(round(seconds * per_second)))
        while due:
            if (left_s := due[0] - time.perf_counter()) <= 0:
                if len(arrivals.due_at) == _MOST_CONNECTIONS:
                    raise UnexpectedAnswer(f"{_MOST_CONNECTIONS:,} requests are waiting")
                arrivals.send(next(requests), due.popleft())
            else:
                # Rounded down: the poll's clock is too coarse for the last millisecond, which is spun away.
                arrivals.take(int(left_s * 1000))
        arrivals.finish()
        return Load.of(arrivals.latencies, time.perf_counter() - started, arrivals.errors)


def burst(target: Target, *, connections: int, rounds: int) -> Load:
    """Send so many requests before any answer is read, some times over, and tell how they were answered."""
    requests = target.requests()
    with _Arrivals(target.port, connections) as arrivals:
        started = time.perf_counter()
        for _ in range(rounds):
            due_at = time.perf_counter()
            for _ in range(connections):
                arrivals.send(next(requests), due_at)
            arrivals.finish()
        return Load.of(arrivals.latencies, time.perf_counter() - started, arrivals.errors)

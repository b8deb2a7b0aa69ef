"""How soon a waiting reader gets what was written."""

import select
import statistics
import time
from typing import NamedTuple

from benchmarks.bench import Bench
from benchmarks.load import TIMEOUT_MS, Connection, UnexpectedAnswer, http_request
from benchmarks.table import Quantity, Row

LATEST_S = 0.005
# The read must be waiting when the write comes: nothing tells when it does, so it gets time.
_HEAD_START_S = 0.005

WAKING = (
    "blocking read p50, from the write's answer (clamped at 0)",
    "blocking read p50, from sending the write (it includes an fsync)",
)


class Wake(NamedTuple):
    """When a waiting reader had its answer, in seconds after the write was sent and after it was answered."""

    after_sent_s: float
    after_answer_s: float


def waking(bench: Bench) -> list[Row]:
    """Half of the waiting readers have the new value 5 ms after the writer knows that it is stored."""
    with bench.server() as server:
        ours = bench.run(wakes, server.port, "/v1/kv/benchmarks/wake", bench.scale.wakes)
    with bench.peer("asgi", b"{}") as peer:
        floor = bench.run(wakes, peer.port, "/signal", bench.scale.wakes)
    after_answer = statistics.median(each.after_answer_s for each in ours)
    return [
        Row(
            WAKING[0],
            Quantity(after_answer, "s"),
            Quantity(statistics.median(each.after_answer_s for each in floor), "s"),
            bar="<= 5 ms",
            met=after_answer <= LATEST_S,
        ),
        Row(
            WAKING[1],
            Quantity(statistics.median(each.after_sent_s for each in ours), "s"),
            Quantity(statistics.median(each.after_sent_s for each in floor), "s"),
        ),
    ]


def wakes(port: int, path: str, rounds: int) -> list[Wake]:
    """Write so many times while a read of the same key waits."""
    reader, writer = Connection(port), Connection(port)
    try:
        _ask(writer, http_request("PUT", path, b"first"))
        _ask(reader, http_request("GET", path))
        return [_wake(reader, writer, path, b"%d" % number) for number in range(rounds)]
    finally:
        reader.close()
        writer.close()


def _wake(reader: Connection, writer: Connection, path: str, value: bytes) -> Wake:
    # The floor knows no indexes: there, the index is empty, and asking for one is what makes it wait.
    index = reader.header(b"x-consul-index", b"").decode()
    reader.send(http_request("GET", f"{path}?index={index}&wait=10s"))
    time.sleep(_HEAD_START_S)
    if _ready(reader, writer, timeout_ms=0):
        raise UnexpectedAnswer("the read did not wait")
    writer.send(http_request("PUT", path, value))
    answered_at: dict[Connection, float] = {}
    while len(answered_at) < 2:
        for each in _ready(reader, writer, timeout_ms=TIMEOUT_MS):
            if each.receive():
                answered_at[each] = time.perf_counter()
    return Wake(
        after_sent_s=answered_at[reader] - writer.sent_at,
        after_answer_s=max(0.0, answered_at[reader] - answered_at[writer]),
    )


def _ask(connection: Connection, request: bytes) -> None:
    connection.send(request)
    while not (_ready(connection, timeout_ms=TIMEOUT_MS) and connection.receive()):
        pass


def _ready(*connections: Connection, timeout_ms: int) -> list[Connection]:
    poll = select.poll()
    by_descriptor = {each.socket.fileno(): each for each in connections}
    for descriptor in by_descriptor:
        poll.register(descriptor, select.POLLIN)
    ready = [by_descriptor[descriptor] for descriptor, _ in poll.poll(timeout_ms)]
    if timeout_ms and not ready:
        raise UnexpectedAnswer("no answer in time")
    return ready

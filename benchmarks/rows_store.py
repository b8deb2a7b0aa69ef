"""How soon a waiting reader gets what was written, and how soon a crowd of them does."""

import statistics
import time
from typing import NamedTuple

from benchmarks.bench import Bench
from benchmarks.load import Connection, Crowd, UnexpectedAnswer, http_request
from benchmarks.table import Quantity, Row

LATEST_S = 0.005
READERS = 500
LATEST_OF_CROWD_S = 0.5
# The read must be waiting when the write comes: nothing tells when it does, so it gets time.
_HEAD_START_S = 0.005
_HEAD_START_OF_CROWD_S = 0.1
_KEY = "/v1/kv/benchmarks/wake"
_SIGNAL = "/signal"

WAKING = (
    "blocking read p50, from the write's answer (clamped at 0)",
    "blocking read p50, from sending the write (it includes an fsync)",
)
CROWD = (
    f"{READERS} blocking reads of a key, from sending the write to the last answer: longest",
    "  p50 of these rounds",
)


class Wake(NamedTuple):
    """When a waiting reader had its answer, in seconds after the write was sent and after it was answered."""

    after_sent_s: float
    after_answer_s: float


def waking(bench: Bench) -> list[Row]:
    """Half of the waiting readers have the new value 5 ms after the writer knows that it is stored."""
    with bench.server() as server:
        ours = bench.run(wakes, server.port, _KEY, bench.scale.wakes)
    with bench.peer("asgi", b"{}") as peer:
        floor = bench.run(wakes, peer.port, _SIGNAL, bench.scale.wakes)
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


def crowd(bench: Bench) -> list[Row]:
    """The last of 500 waiting readers has the new value half a second after it was sent."""
    with bench.server() as server:
        ours = bench.run(crowd_wakes, server.port, _KEY, READERS, bench.scale.crowd_wakes)
    with bench.peer("asgi", b"{}") as peer:
        floor = bench.run(crowd_wakes, peer.port, _SIGNAL, READERS, bench.scale.crowd_wakes)
    longest, p50 = max(ours), statistics.median(ours)
    return [
        Row(
            CROWD[0],
            Quantity(longest, "s"),
            Quantity(max(floor), "s"),
            bar="<= 500 ms",
            met=longest <= LATEST_OF_CROWD_S,
        ),
        Row(CROWD[1], Quantity(p50, "s"), Quantity(statistics.median(floor), "s")),
    ]


def wakes(port: int, path: str, rounds: int) -> list[Wake]:
    """Write so many times while a read of the same key waits."""
    with Crowd(port, 2) as pair:
        reader, writer = pair
        _ask(pair, writer, http_request("PUT", path, b"first"))
        _ask(pair, reader, http_request("GET", path))
        return [_wake(pair, path, b"%d" % number) for number in range(rounds)]


def crowd_wakes(port: int, path: str, readers: int, rounds: int) -> list[float]:
    """Write so many times while a crowd reads the same key; return when the last one had each value."""
    with Crowd(port, 1 + readers) as everyone:
        writer = next(iter(everyone))
        _ask(everyone, writer, http_request("PUT", path, b"first"))
        return [_crowd_wake(everyone, path, b"%d" % number) for number in range(rounds)]


def _wake(pair: Crowd, path: str, value: bytes) -> Wake:
    reader, writer = pair
    reader.send(_read_after(reader, path))
    time.sleep(_HEAD_START_S)
    _require_silence(pair)
    writer.send(http_request("PUT", path, value))
    answered_at: dict[Connection, float] = {}
    while len(answered_at) < 2:
        for each in pair.answered():
            answered_at[each] = time.perf_counter()
    return Wake(
        after_sent_s=answered_at[reader] - writer.sent_at,
        after_answer_s=max(0.0, answered_at[reader] - answered_at[writer]),
    )


def _crowd_wake(everyone: Crowd, path: str, value: bytes) -> float:
    writer, *readers = everyone
    _ask(everyone, writer, http_request("GET", path))
    request = _read_after(writer, path)
    for reader in readers:
        reader.send(request)
    # Its turn comes after theirs: when it has its answer, they have begun to wait, or are about to.
    _ask(everyone, writer, http_request("GET", path))
    time.sleep(_HEAD_START_OF_CROWD_S)
    _require_silence(everyone)
    known = _index_of(writer)
    writer.send(http_request("PUT", path, value))
    missing = {writer, *readers}
    while missing:
        missing.difference_update(everyone.answered())
    took_s = time.perf_counter() - writer.sent_at
    if known and any(int(_index_of(reader)) <= int(known) for reader in readers):
        raise UnexpectedAnswer("a reader was woken without the new value")
    return took_s


def _read_after(known: Connection, path: str) -> bytes:
    """Return the read that waits for something newer than the last answer on that connection."""
    # The floor knows no indexes: there, the index is empty, and asking for one is what makes it wait.
    return http_request("GET", f"{path}?index={_index_of(known)}&wait=10s")


def _index_of(connection: Connection) -> str:
    return connection.header(b"x-consul-index", b"").decode()


def _require_silence(connections: Crowd) -> None:
    if connections.ready(timeout_ms=0):
        raise UnexpectedAnswer("the read did not wait")


def _ask(connections: Crowd, connection: Connection, request: bytes) -> None:
    connection.send(request)
    while connection not in connections.answered():
        pass

"""How much memory the server holds, and whether it grows with what it is asked."""

import time

from tests.support.process import resident_bytes

from benchmarks.bench import CONTAINERS, Bench, answer_of, stats_of
from benchmarks.load import Target, closed_loop
from benchmarks.table import Quantity, Row

MIB = 2**20
MOST_BYTES = 120 * MIB
# Allocators take and give back pages as they see fit.
NOISE_BYTES = 2 * MIB
_CONNECTIONS = 8

RESIDENT = (
    "resident memory, idle (before any load, or after: the larger)",
    "growth of it over 10,000 requests",
)


def resident(bench: Bench) -> list[Row]:
    """At most 120 MiB, and no more of it after 10,000 answers."""
    containers = bench.fleet.resize(CONTAINERS)
    with bench.server(containers) as server:
        answer = answer_of(server)
        time.sleep(bench.scale.settle_s)
        fresh = resident_bytes(server.process.pid)
        _ask(bench, stats_of(server), bench.scale.warm_up_requests)
        warm = resident_bytes(server.process.pid)
        _ask(bench, stats_of(server), bench.scale.requests)
        loaded = resident_bytes(server.process.pid)
    with bench.peer("litestar", answer) as peer:
        _ask(bench, peer.target(b"POST /plain HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"), answers=100)
        floor = Quantity(resident_bytes(peer.pid), "bytes")
    idle, growth = max(fresh, loaded), loaded - warm
    return [
        Row(RESIDENT[0], Quantity(idle, "bytes"), floor, bar="<= 120 MiB", met=idle <= MOST_BYTES),
        Row(RESIDENT[1], Quantity(growth, "bytes"), bar="none (noise: 2 MiB)", met=growth <= NOISE_BYTES),
    ]


def _ask(bench: Bench, target: Target, answers: int) -> None:
    bench.run(closed_loop, target, connections=_CONNECTIONS, answers=answers)
    time.sleep(bench.scale.settle_s)  # also so that the snapshots of the load's time are gone

"""What waiting costs: the decisions of whose turn it is, and the memory of those who wait."""

import time

import psutil
from tests.support.process import resident_bytes
from tests.support.server import Server

from benchmarks.bench import CONNECTIONS, Bench
from benchmarks.load import closed_loop
from benchmarks.table import Quantity, Row
from benchmarks.tasks import SLEEPS, abandon, submit, submits_to, task_server

MOST_SHARE = 0.10
MOST_BYTES = 20 * 1024
_DRAIN_LIMIT_S = 300.0

DRAIN = (
    "deciding whose turn it is, while short tasks drain, as a share of a core",
    "  the whole server meanwhile: recording, starting, listening",
    "  tasks ended per second",
)
WAITING = ("memory of a task that waits",)


def drain(bench: Bench) -> list[Row]:
    """While a thousand short tasks drain, deciding whose turn it is takes at most a tenth of a core."""
    count = bench.scale.queue_tasks
    with task_server(bench, max_tasks=1) as (server, client):
        gate = submit(client, "gate", SLEEPS)
        _submit(bench, server, count)
        process = psutil.Process(server.process.pid)
        decided, used, began = _decided_s(server), sum(process.cpu_times()[:2]), time.perf_counter()
        gate.stop(grace_s=0)
        while _waiting(server) and time.perf_counter() - began < _DRAIN_LIMIT_S:
            time.sleep(0.5)
        elapsed_s = time.perf_counter() - began
        left = _waiting(server)
        share = (_decided_s(server) - decided) / elapsed_s
        whole = (sum(process.cpu_times()[:2]) - used) / elapsed_s
    met = share <= MOST_SHARE and left == 0
    return [
        Row(DRAIN[0], Quantity(share, "cores"), bar=f"<= 10 % of a core, {count:,} tasks", met=met),
        Row(DRAIN[1], Quantity(whole, "cores")),
        Row(DRAIN[2], Quantity(count / elapsed_s, "1/s")),
    ]


def waiting(bench: Bench) -> list[Row]:
    """A task that waits takes at most 20 KiB of the server."""
    count = bench.scale.queue_waiting
    with task_server(bench, max_tasks=1) as (server, client):
        gate = submit(client, "gate", SLEEPS)
        _submit(bench, server, count // 10, first=10**7)  # so that what grows once has grown
        time.sleep(bench.scale.settle_s)
        before = resident_bytes(server.process.pid)
        _submit(bench, server, count)
        time.sleep(bench.scale.settle_s)
        each = (resident_bytes(server.process.pid) - before) / count
        abandon(server, gate)
    return [Row(WAITING[0], Quantity(each, "bytes"), bar="<= 20 KiB", met=each <= MOST_BYTES)]


def _submit(bench: Bench, server: Server, count: int, first: int = 0) -> None:
    bench.run(closed_loop, submits_to(server, first), connections=CONNECTIONS, answers=count)


def _waiting(server: Server) -> float:
    return server.metric("k12ai_tasks_waiting") + server.metric("k12ai_tasks_running")


def _decided_s(server: Server) -> float:
    return server.metric("k12ai_scheduler_seconds_total")

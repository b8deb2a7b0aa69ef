"""What waiting costs: the decisions of whose turn it is, and the memory of those who wait."""

import re
import time

import msgspec
import psutil
from tests.support.server import Server

from benchmarks.bench import CONNECTIONS, Bench
from benchmarks.load import Target, closed_loop, http_request
from benchmarks.machine import resident_bytes
from benchmarks.table import Quantity, Row
from k12ai.client import Client

MOST_SHARE = 0.10
MOST_BYTES = 20 * 1024
_DRAIN_LIMIT_S = 300.0
_SLEEPS = "import time; time.sleep(600)"

DRAIN = (
    "deciding whose turn it is, while short tasks drain, as a share of a core",
    "  the whole server meanwhile: recording, starting, listening",
    "  tasks ended per second",
)
WAITING = ("memory of a task that waits",)


def drain(bench: Bench) -> list[Row]:
    """While a thousand short tasks drain, deciding whose turn it is takes at most a tenth of a core."""
    count = bench.scale.queue_tasks
    with bench.server(0, "--max-tasks", "1") as server, Client(server.url) as client:
        gate = client.submit(
            "k12py", "runcode.start", "gate", {"code": "import time; time.sleep(600)"}, user="b"
        )
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
    with bench.server(0, "--max-tasks", "1") as server, Client(server.url) as client:
        client.submit("k12py", "runcode.start", "gate", {"code": _SLEEPS}, user="b")
        _submit(bench, server, count // 10, first=10**7)  # so that what grows once has grown
        time.sleep(bench.scale.settle_s)
        before = resident_bytes(server.process.pid)
        _submit(bench, server, count)
        time.sleep(bench.scale.settle_s)
        each = (resident_bytes(server.process.pid) - before) / count
        server.kill()  # what waits is not to be started
    with Server(server.data_dir, "--max-tasks", "1") as again, Client(again.url) as client:
        for task in client.tasks(service_uuid="gate", active=True):
            client.stop_task(task.task_id, grace_s=0)
        again.kill()
    return [Row(WAITING[0], Quantity(each, "bytes"), bar="<= 20 KiB", met=each <= MOST_BYTES)]


def _submit(bench: Bench, server: Server, count: int, first: int = 0) -> None:
    body = {"op": "runcode.start", "user": "b", "service_name": "k12py", "service_params": {"code": "pass"}}
    encoded = msgspec.json.encode(body | {"service_uuid": "p%08d"})
    request = http_request("POST", "/k12ai/framework/execute", encoded)
    request = request.replace(b"%d" % len(encoded), b"%d" % (len(encoded) + 4))
    target = Target(server.port, request, range(first, 10**8))
    bench.run(closed_loop, target, connections=CONNECTIONS, answers=count)


def _figure(server: Server, name: str) -> float:
    found = re.search(rf"^{name} ([0-9.e+-]+)$", server.http.get("/metrics").text, re.MULTILINE)
    assert found, name
    return float(found[1])


def _waiting(server: Server) -> float:
    return _figure(server, "k12ai_tasks_waiting") + _figure(server, "k12ai_tasks_running")


def _decided_s(server: Server) -> float:
    return _figure(server, "k12ai_scheduler_seconds_total")

"""What a task costs: to start, to submit, to hear from, to stop, to stand over."""

import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from tests.support.server import Server

from benchmarks.bench import CONNECTIONS, Bench
from benchmarks.load import Target, closed_loop, http_request
from benchmarks.table import Quantity, Row
from k12ai.client import Client, TaskHandle

STARTING_S = 0.150
REPORT_S = 0.150
STOP_S = 0.200
SUBMITS_PER_S = 300
LINES_PER_S = 10_000
SHIM_BYTES = 12 * 2**20

STARTING = (
    "submit to the first line of a program, beyond the same Python by hand (peer: by hand)",
    "  of it the answer to the submit",
)
SUBMITS = (f"submits acknowledged per second, {CONNECTIONS} in flight, each on the disk",)
REPORTS = ("report to the reader at the client, p50",)
JOURNAL = ("messages absorbed per second from one journal",)
STOPPING = ("stop of a task that heeds SIGTERM, p50", "memory of its shim")

_SAYS_WHEN = "import time; print(time.time(), flush=True)"
_SLEEPS = "import time; time.sleep(600)"


def starting(bench: Bench) -> list[Row]:
    """The first line of a program comes at most 150 ms later than when Python is started by hand."""
    ours, answers, hand = [], [], []
    with _task_server(bench) as (server, client):
        project = Path(server.data_dir)
        for number in range(bench.scale.task_rounds):
            began = time.time()
            handle = _run(client, f"p{number}", _SAYS_WHEN)
            answers.append(time.time() - began)
            handle.wait(progress=False)
            ours.append(float("".join(handle.logs())) - began)
            began = time.time()
            command = [sys.executable, "-c", _SAYS_WHEN]
            told = subprocess.run(command, capture_output=True, text=True, check=True, cwd=project)
            hand.append(float(told.stdout) - began)
    beyond = statistics.median(ours) - statistics.median(hand)
    return [
        Row(
            STARTING[0],
            Quantity(beyond, "s"),
            peer=Quantity(statistics.median(hand), "s"),
            bar="<= 150 ms",
            met=beyond <= STARTING_S,
        ),
        Row(STARTING[1], Quantity(statistics.median(answers), "s")),
    ]


def submits(bench: Bench) -> list[Row]:
    """At least 300 tasks a second are on the disk when their submits are answered; they wait their turn."""
    with _task_server(bench, "--max-tasks", "1") as (server, client):
        first = _run(client, "first", _SLEEPS)
        body = msgspec.json.encode(
            {
                "op": "runcode.start",
                "user": "bench",
                "service_name": "k12py",
                "service_uuid": "p%08d",
                "service_params": {"code": "pass"},
            }
        )
        request = http_request("POST", "/k12ai/framework/execute", body)
        target = Target(server.port, request.replace(b"%d" % len(body), b"%d" % (len(body) + 4)), range(10**8))
        load = bench.run(closed_loop, target, connections=CONNECTIONS, seconds=bench.scale.slice_s * 3)
        server.kill()  # what waits is not to be started
    with _again(server) as client:
        client.stop_task(first.task_id, grace_s=0)
    met = load.per_second >= SUBMITS_PER_S
    return [Row(SUBMITS[0], Quantity(load.per_second, "1/s"), bar=">= 300 /s", met=met)]


def reports(bench: Bench) -> list[Row]:
    """Half of what a task says is with a waiting reader 150 ms later."""
    program = (
        "import time\nfrom k12ai import report\n"
        f"for n in range({bench.scale.reports}):\n"
        "    report.metric(sent_at=time.time())\n    time.sleep(0.03)\n"
    )
    with _task_server(bench) as (_, client):
        handle = _run(client, "p", program)
        delays = [time.time() - each.body["sent_at"] for each in handle.messages("metrics")]
    p50_s = statistics.median(delays)
    return [Row(REPORTS[0], Quantity(p50_s, "s"), bar="<= 150 ms", met=p50_s <= REPORT_S)]


def journal(bench: Bench) -> list[Row]:
    """At least 10,000 messages a second come out of one journal, and none is lost."""
    count = bench.scale.journal_lines
    program = (
        'import os\nline = b\'{"type":"metrics","data":{"n":%d}}\\n\'\n'
        f"os.write(os.open(os.environ['K12AI_JOURNAL'], os.O_WRONLY | os.O_APPEND),"
        f" b''.join(line % n for n in range({count})))\n"
        "import time; time.sleep(600)"
    )
    with _task_server(bench) as (server, client):
        handle = _run(client, "p", program)
        prefix = f"/v1/kv/{handle.key}/metrics/"
        began = time.perf_counter()
        while not _names(server, prefix):
            began = time.perf_counter()
        while (found := _names(server, prefix)) < count:
            if time.perf_counter() - began > 60:
                break
            time.sleep(0.2)
        elapsed = time.perf_counter() - began
        handle.stop(grace_s=0)
    rate = found / elapsed
    met = found == count and rate >= LINES_PER_S
    return [Row(JOURNAL[0], Quantity(rate, "1/s"), bar=">= 10,000 /s, none lost", met=met)]


def stopping(bench: Bench) -> list[Row]:
    """A task that heeds SIGTERM is gone 200 ms after it was asked to go; its shim takes at most 12 MiB."""
    times, sizes = [], []
    with _task_server(bench) as (server, client):
        for number in range(bench.scale.task_rounds):
            handle = _run(client, f"p{number}", f"print('up', flush=True); {_SLEEPS}")
            next(handle.logs(follow=True))
            sizes.append(_resident_bytes(_shim_pid(server, handle.task_id)))
            began = time.perf_counter()
            handle.stop()
            times.append(time.perf_counter() - began)
    p50_s, largest = statistics.median(times), max(sizes)
    return [
        Row(STOPPING[0], Quantity(p50_s, "s"), bar="<= 200 ms", met=p50_s <= STOP_S),
        Row(STOPPING[1], Quantity(largest, "bytes"), bar="<= 12 MiB", met=largest <= SHIM_BYTES),
    ]


@contextlib.contextmanager
def _task_server(bench: Bench, *options: str) -> Iterator[tuple[Server, Client]]:
    chosen = options or ("--max-tasks", "4")
    with bench.server(0, *chosen) as server, Client(server.url) as client:
        yield server, client


@contextlib.contextmanager
def _again(server: Server) -> Iterator[Client]:
    """Run a server on the data of one that was killed."""
    with Server(server.data_dir, "--max-tasks", "1") as next_one, Client(next_one.url) as client:
        yield client
        next_one.kill()


def _run(client: Client, project: str, code: str) -> TaskHandle:
    return client.submit("k12py", "runcode.start", project, {"code": code}, user="bench")


def _names(server: Server, prefix: str) -> int:
    answer = server.http.get(prefix, params={"keys": ""})
    return len(msgspec.json.decode(answer.content)) if answer.status_code == 200 else 0


def _shim_pid(server: Server, task_id: str) -> int:
    content = (server.data_dir / "tasks" / task_id / "shim.json").read_bytes()
    found: dict[str, Any] = msgspec.json.decode(content)
    return int(found["shim_pid"])


def _resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")

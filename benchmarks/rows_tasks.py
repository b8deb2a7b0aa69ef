"""What a task costs: to start, to submit, to hear from, to stop, to stand over."""

import statistics
import sys
import time
from typing import Any

import msgspec
from tests.support.process import resident_bytes
from tests.support.server import Server

from benchmarks.bench import CONNECTIONS, Bench
from benchmarks.load import closed_loop
from benchmarks.table import Quantity, Row
from benchmarks.tasks import SAYS_WHEN, SLEEPS, abandon, by_hand_s, said_at, submit, submits_to, task_server

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


def starting(bench: Bench) -> list[Row]:
    """The first line of a program comes at most 150 ms later than when Python is started by hand."""
    ours, answers, hand = [], [], []
    with task_server(bench) as (server, client):
        for number in range(bench.scale.task_rounds):
            began = time.time()
            handle = submit(client, f"p{number}", SAYS_WHEN)
            answers.append(time.time() - began)
            ours.append(said_at(handle) - began)
            hand.append(by_hand_s([sys.executable, "-c", SAYS_WHEN], server.data_dir))
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
    with task_server(bench, max_tasks=1) as (server, client):
        gate = submit(client, "gate", SLEEPS)
        target, seconds = submits_to(server), bench.scale.slice_s * 3
        load = bench.run(closed_loop, target, connections=CONNECTIONS, seconds=seconds)
        abandon(server, gate)
    met = load.per_second >= SUBMITS_PER_S
    return [Row(SUBMITS[0], Quantity(load.per_second, "1/s"), bar=">= 300 /s", met=met)]


def reports(bench: Bench) -> list[Row]:
    """Half of what a task says is with a waiting reader 150 ms later."""
    program = (
        "import time\nfrom k12ai import report\n"
        f"for n in range({bench.scale.reports}):\n"
        "    report.metric(sent_at=time.time())\n    time.sleep(0.03)\n"
    )
    with task_server(bench) as (_, client):
        handle = submit(client, "p", program)
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
        f"{SLEEPS}"
    )
    with task_server(bench) as (server, client):
        handle = submit(client, "p", program)
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
    with task_server(bench) as (server, client):
        for number in range(bench.scale.task_rounds):
            handle = submit(client, f"p{number}", f"print('up', flush=True); {SLEEPS}")
            next(handle.logs(follow=True))
            sizes.append(resident_bytes(_shim_pid(server, handle.task_id)))
            began = time.perf_counter()
            handle.stop()
            times.append(time.perf_counter() - began)
    p50_s, largest = statistics.median(times), max(sizes)
    return [
        Row(STOPPING[0], Quantity(p50_s, "s"), bar="<= 200 ms", met=p50_s <= STOP_S),
        Row(STOPPING[1], Quantity(largest, "bytes"), bar="<= 12 MiB", met=largest <= SHIM_BYTES),
    ]


def _names(server: Server, prefix: str) -> int:
    answer = server.http.get(prefix, params={"keys": ""})
    return len(msgspec.json.decode(answer.content)) if answer.status_code == 200 else 0


def _shim_pid(server: Server, task_id: str) -> int:
    content = (server.data_dir / "tasks" / task_id / "shim.json").read_bytes()
    found: dict[str, Any] = msgspec.json.decode(content)
    return int(found["shim_pid"])

"""Tasks to be measured: how a row starts one, has thousands wait, and is rid of them."""

import contextlib
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from tests.support.server import Server

from benchmarks.bench import Bench
from benchmarks.load import Target, http_request
from k12ai.client import Client, TaskHandle

SAYS_WHEN = "import time; print(time.time(), flush=True)"
SLEEPS = "import time; time.sleep(600)"


@contextlib.contextmanager
def task_server(bench: Bench, *options: str, max_tasks: int = 4) -> Iterator[tuple[Server, Client]]:
    """Run a server with a fresh store that runs so many tasks at once, and yield it with a client."""
    with bench.server(0, "--max-tasks", str(max_tasks), *options) as server, Client(server.url) as client:
        yield server, client


def submit(client: Client, project: str, code: str) -> TaskHandle:
    """Submit a program."""
    return client.submit("k12py", "runcode.start", project, {"code": code}, user="bench")


def submits_to(server: Server, first: int = 0) -> Target:
    """Return submits as the goal of a load: of a short task each, in projects numbered from the first on."""
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
    # The eight digits of a number are four bytes longer than what stands in their place.
    request = request.replace(b"%d" % len(body), b"%d" % (len(body) + 4))
    return Target(server.port, request, range(first, 10**8))


def abandon(server: Server, gate: TaskHandle) -> None:
    """Kill a server whose one running task has all others wait, and end that task; they are not started."""
    server.kill()
    with Server(server.data_dir, "--max-tasks", "1") as again, Client(again.url) as client:
        client.stop_task(gate.task_id, grace_s=0)
        again.kill()


def said_at(handle: TaskHandle) -> float:
    """Return the time that a task's program told, which is `SAYS_WHEN`, once it has ended."""
    handle.wait(progress=False)
    return float("".join(handle.logs()))


def by_hand_s(command: Sequence[str], cwd: Path | None = None) -> float:
    """Run a command whose program is `SAYS_WHEN`, and return how long it took to the first line."""
    began = time.time()
    told = subprocess.run(command, capture_output=True, text=True, check=True, cwd=cwd)
    return float(told.stdout) - began

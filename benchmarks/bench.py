"""What every row needs: how long to measure, where, and the processes that are measured."""

import contextlib
import importlib.util
import multiprocessing
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar

import httpx
import msgspec
from tests.support.server import Server

from benchmarks.fleet import Fleet, Skipped
from benchmarks.load import HOST, Target, closed_loop, http_request
from benchmarks.machine import Cores, pin

P = ParamSpec("P")
T = TypeVar("T")

CONTAINERS = 30
CONNECTIONS = 32
STATS_PATH = "/k12ai/platform/stats"
_READY_S = 60.0

# What the published notebook sends to see everything.
STATS_USER = "16601548608"
STATS_BODY = msgspec.json.encode(
    {
        "op": "query",
        "user": STATS_USER,
        "service_name": "k12platform",
        "service_uuid": "123456",
        "service_params": dict.fromkeys(("cpus", "gpus", "disks", "containers"), True),
    }
)
STATS_REQUEST = http_request("POST", STATS_PATH, STATS_BODY)


class Scale(NamedTuple):
    """How long and how often to measure."""

    latency_s: float = 1.0
    latency_rounds: int = 5
    engine_rounds: int = 5
    load_s: float = 10.0
    slice_s: float = 1.0
    slice_rounds: int = 15
    idle_s: float = 20.0
    idle_rounds: int = 2
    settle_s: float = 5.0
    wakes: int = 500
    crowd_wakes: int = 20
    store_rounds: int = 8
    bursts: int = 10
    task_rounds: int = 15
    reports: int = 100
    journal_lines: int = 50_000
    queue_tasks: int = 1_000
    queue_waiting: int = 5_000
    fit_rows: int = 20_000
    fit_rounds: int = 5
    epoch_rounds: int = 15
    arrivals_s: float = 60.0
    arrivals_floor_s: float = 10.0
    warm_up_requests: int = 2_000
    requests: int = 10_000


FULL = Scale()
QUICK = Scale(
    latency_s=0.3,
    latency_rounds=3,
    engine_rounds=2,
    load_s=3.0,
    slice_s=0.3,
    slice_rounds=3,
    idle_s=5.0,
    idle_rounds=1,
    settle_s=1.0,
    wakes=50,
    crowd_wakes=3,
    store_rounds=2,
    bursts=2,
    task_rounds=4,
    reports=20,
    journal_lines=20_000,
    queue_tasks=100,
    queue_waiting=1_000,
    fit_rows=2_000,
    fit_rounds=3,
    epoch_rounds=3,
    arrivals_s=5.0,
    arrivals_floor_s=2.0,
)


class Bench:
    """Starts what is measured on one core, and measures it from another one."""

    def __init__(
        self, scale: Scale, cores: Cores, fleet: Fleet, directory: Path, generator: ProcessPoolExecutor
    ) -> None:
        self.scale = scale
        self.fleet = fleet
        self._cores = cores
        self._directory = directory
        self._generator = generator
        self._servers = 0

    def start(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have the generator's process do something while the caller goes on."""
        return self._generator.submit(work, *args, **kwargs)

    def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Have the generator's process do something."""
        return self.start(work, *args, **kwargs).result()

    def p50_s(self, target: Target) -> float:
        """Return the median answering time on one keep-alive connection, nobody else asking."""
        return statistics.median(
            self.run(closed_loop, target, seconds=self.scale.latency_s).p50_s
            for _ in range(self.scale.latency_rounds)
        )

    @contextlib.contextmanager
    def whole_machine(self) -> Iterator[None]:
        """Whatever is started or done inside the block may use all cores."""
        with self._cores.all():
            yield

    @contextlib.contextmanager
    def server(self, containers: int = 0, *options: str) -> Iterator[Server]:
        """Run a server with a fresh store, once it shows at least so many containers."""
        self._servers += 1
        with contextlib.ExitStack() as exits:
            with self._cores.server_side():
                server = exits.enter_context(Server(self._directory / f"data{self._servers}", *options))
            _until(lambda: len(server.containers()) >= containers, f"{containers} containers in the stats")
            yield server

    @contextlib.contextmanager
    def peer(self, name: str, answer: bytes) -> Iterator["Peer"]:
        """Run one of the applications in `benchmarks.peers`, serving these bytes."""
        body = self._directory / f"{name}.json"
        body.write_bytes(answer)
        command = [sys.executable, "-m", "benchmarks.peers", name, str(body)]
        with self._running(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            yield Peer(int(process.stdout.readline()), process.pid)

    @contextlib.contextmanager
    def floor(self, answer: bytes) -> Iterator[Target]:
        """Serve these bytes with no framework at all: nothing answers sooner."""
        with self.peer("asgi", answer) as peer:
            yield peer.target(http_request("GET", "/"))

    @contextlib.contextmanager
    def glances(self, containers: int) -> Iterator[Target]:
        """Run Glances' web server with nothing but its containers, once it lists at least so many."""
        if importlib.util.find_spec("glances") is None:
            raise Skipped("Glances is not installed (extra 'bench')")
        port = _free_port()
        config = self._directory / "glances.conf"
        config.touch()  # not the user's own
        command = [
            *(sys.executable, "-m", "glances", "-w", "-B", HOST, "-p", str(port), "-C", str(config)),
            *("--disable-plugin", "all", "--enable-plugin", "containers", "--disable-webui"),
            *("--disable-autodiscover", "--disable-check-update"),
        ]
        with self._running(command, stdout=subprocess.DEVNULL) as process:

            def ready() -> bool:
                if process.poll() is not None:  # without FastAPI it has no web server
                    raise Skipped("Glances does not start (is the whole extra 'bench' installed?)")
                return _listed_by_glances(port) >= containers

            _until(ready, f"{containers} containers in Glances")
            yield Target(port, http_request("GET", "/api/4/containers"))

    @contextlib.contextmanager
    def _running(self, command: Sequence[str], *, stdout: int) -> Iterator["subprocess.Popen[bytes]"]:
        with self._cores.server_side():
            process = subprocess.Popen(command, stdout=stdout, stderr=subprocess.DEVNULL)
        try:
            yield process
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=5)
            process.kill()
            process.communicate()


class Peer(NamedTuple):
    """A running peer."""

    port: int
    pid: int

    def target(self, request: bytes) -> Target:
        """Return the peer as the goal of a load."""
        return Target(self.port, request)


def stats_of(server: Server, token: str | None = None) -> Target:
    """Return the server's stats, all parts, as the goal of a load; with a token as its user."""
    if token is None:
        return Target(server.port, STATS_REQUEST)
    return Target(server.port, http_request("POST", STATS_PATH, STATS_BODY, token=token))


def answer_of(server: Server) -> bytes:
    """Return the bytes that the server answers to `STATS_REQUEST` now."""
    return server.stats(service_params={}).content


@contextlib.contextmanager
def generator(cores: Cores) -> Iterator[ProcessPoolExecutor]:
    """Yield the one process that generates load, on its own core."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=pin, initargs=(cores.generator,)) as pool:
        yield pool


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as listener:
        return int(listener.getsockname()[1])


def _listed_by_glances(port: int) -> int:
    try:
        answer = httpx.get(f"http://{HOST}:{port}/api/4/containers", timeout=30, trust_env=False)
    except httpx.TransportError:  # it does not listen yet
        return 0
    return len(answer.json()) if answer.status_code == 200 else 0


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _READY_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {_READY_S:.0f} s for {what}")
        time.sleep(0.2)

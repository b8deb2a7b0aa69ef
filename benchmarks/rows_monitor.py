"""What the monitor costs, how old its figures get, and what it asks of the Engine."""

import datetime
import time

import msgspec
from msgspec import Struct
from tests.support.server import Server

from benchmarks.bench import CONNECTIONS, CONTAINERS, Bench, stats_of
from benchmarks.load import closed_loop
from benchmarks.machine import CpuClock
from benchmarks.table import Quantity, Row
from k12ai.monitor.host import read_host
from k12ai.runtimes.cgroups import Cgroups, CgroupUnreachable
from k12ai.settings import Settings

OLDEST_S = 1.5
MOST_CORES = 0.005
_SAMPLE_EVERY_S = 0.01
_FLOOR_BEATS = 5

FRESHNESS = ("age of the oldest figures seen, under load",)
COST = (
    f"the monitor with {CONTAINERS} containers and no client",
    "  of it the server itself",
    "  of it dockerd and containerd, above their own",
)
CALLS = ("calls to the Engine under load vs. with no client",)


class _Message(Struct):
    sampled_at: datetime.datetime


class _Answer(Struct):
    message: _Message


_decoder = msgspec.json.Decoder(_Answer)


def freshness(bench: Bench) -> list[Row]:
    """No answer shows figures older than 1.5 s when it arrives, however many ask."""
    containers = bench.fleet.resize(CONTAINERS)
    ages = []
    with bench.server(containers) as server:
        load = bench.start(closed_loop, stats_of(server), connections=CONNECTIONS, seconds=bench.scale.load_s)
        while not load.done():
            sampled_at = _decoder.decode(server.stats(service_params={}).content).message.sampled_at
            ages.append((datetime.datetime.now(datetime.UTC) - sampled_at).total_seconds())
            time.sleep(_SAMPLE_EVERY_S)
        load.result()
    oldest, interval = max(ages), Quantity(Settings().sample_interval_s, "s")
    return [Row(FRESHNESS[0], Quantity(oldest, "s"), interval, bar="<= 1.50 s", met=oldest <= OLDEST_S)]


def cost(bench: Bench) -> list[Row]:
    """Watching costs at most half a percent of a core, what it makes the Engine do included."""
    bench.fleet.require(CONTAINERS)
    floor = _reads_alone_cores(bench)
    server_s = engine_s = 0.0
    for _ in range(bench.scale.idle_rounds):
        engine_s -= _engine_over(bench, bench.scale.idle_s)
        with bench.server(CONTAINERS) as server:
            time.sleep(bench.scale.settle_s)
            clock = CpuClock(server.process.pid)
            before = clock.seconds()
            engine_s += _engine_over(bench, bench.scale.idle_s)
            server_s += clock.seconds() - before
    seconds = bench.scale.idle_s * bench.scale.idle_rounds
    own, engine = server_s / seconds, max(0.0, engine_s / seconds)
    return [
        Row(
            COST[0],
            Quantity(own + engine, "cores"),
            floor,
            bar="<= 0.5% of a core",
            met=own + engine <= MOST_CORES,
        ),
        Row(COST[1], Quantity(own, "cores")),
        Row(COST[2], Quantity(engine, "cores")),
    ]


def calls(bench: Bench) -> list[Row]:
    """Clients do not make the server ask the Engine anything."""
    bench.fleet.require(CONTAINERS)
    with bench.server(CONTAINERS) as server:
        start = _engine_calls(server)
        time.sleep(bench.scale.load_s)
        idle = _engine_calls(server) - start
        bench.run(closed_loop, stats_of(server), connections=CONNECTIONS, seconds=bench.scale.load_s)
        loaded = _engine_calls(server) - start - idle
    # The heartbeat may beat once more in one window than in the other.
    met = loaded <= idle + 1
    return [Row(CALLS[0], Quantity(loaded, "calls"), peer=Quantity(idle, "calls"), bar="no more, ±1", met=met)]


def _reads_alone_cores(bench: Bench) -> Quantity | None:
    """Return what reading the same counters at every beat costs when nothing is done with them."""
    try:
        readers = [Cgroups().reader(pid, container_id) for container_id, pid in bench.fleet.pids().items()]
    except CgroupUnreachable:
        return None
    interval_s, used_s = Settings().sample_interval_s, 0.0
    try:
        for _ in range(_FLOOR_BEATS):
            time.sleep(interval_s)  # in a tight loop the caches stay warm, and the reads cost a third less
            before = time.thread_time()
            read_host()
            for reader in readers:
                reader.read()
            used_s += time.thread_time() - before
    finally:
        for reader in readers:
            reader.close()
    return Quantity(used_s / _FLOOR_BEATS / interval_s, "cores")


def _engine_over(bench: Bench, seconds: float) -> float:
    """Return the processor time that the Engine uses from now on for so long."""
    clocks = [CpuClock(pid) for pid in bench.fleet.engine_pids()]
    before = sum(clock.seconds() for clock in clocks)
    time.sleep(seconds)
    return sum(clock.seconds() for clock in clocks) - before


def _engine_calls(server: Server) -> float:
    return server.metric("k12ai_engine_calls_total")

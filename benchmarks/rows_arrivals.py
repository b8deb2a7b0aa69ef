"""What becomes of the answers when everybody asks at once, and when nobody waits for anybody."""

from benchmarks.bench import CONTAINERS, Bench, answer_of, stats_of
from benchmarks.load import Load, Target, burst, closed_loop, open_loop
from benchmarks.table import Quantity, Row

AT_ONCE = 1_000
PER_SECOND = 200
P99_S = 0.25
LONGEST_S = 1.0
_WARM_UP_CONNECTIONS = 8

BURST = (
    f"{AT_ONCE:,} stats requests in flight at once: p99 of the answering times",
    "  the longest of the burst's",
    "  errors of the burst",
)
OPEN_LOOP = (
    f"{PER_SECOND} stats requests per second, an open loop: p99, from when each was due",
    "  p50 of the open loop's",
    "  the longest of the open loop's",
    "  errors of the open loop",
)


def at_once(bench: Bench) -> list[Row]:
    """A thousand requests that come at once are all answered, 99 % of them in 250 ms, the last in a second."""
    containers = bench.fleet.resize(CONTAINERS)
    with bench.server(containers) as server:
        answer = answer_of(server)
        ours = _burst(bench, stats_of(server))
    with bench.floor(answer) as target:
        floor = _burst(bench, target)
    return [_p99(BURST[0], ours, floor), _longest(BURST[1], ours, floor), _errors(BURST[2], ours)]


def open_loop_minute(bench: Bench) -> list[Row]:
    """For a minute, 200 requests a second are answered as soon, counted from when each was due."""
    containers = bench.fleet.resize(CONTAINERS)
    with bench.server(containers) as server:
        answer = answer_of(server)
        ours = _open_loop(bench, stats_of(server), bench.scale.arrivals_s)
    with bench.floor(answer) as target:
        floor = _open_loop(bench, target, bench.scale.arrivals_floor_s)
    return [
        _p99(OPEN_LOOP[0], ours, floor),
        Row(OPEN_LOOP[1], Quantity(ours.p50_s, "s"), Quantity(floor.p50_s, "s")),
        _longest(OPEN_LOOP[2], ours, floor),
        _errors(OPEN_LOOP[3], ours),
    ]


def _burst(bench: Bench, target: Target) -> Load:
    _warm_up(bench, target)
    return bench.run(burst, target, connections=AT_ONCE, rounds=bench.scale.bursts)


def _open_loop(bench: Bench, target: Target, seconds: float) -> Load:
    _warm_up(bench, target)
    return bench.run(open_loop, target, per_second=PER_SECOND, seconds=seconds)


def _warm_up(bench: Bench, target: Target) -> None:
    answers = bench.scale.warm_up_requests
    bench.run(closed_loop, target, connections=_WARM_UP_CONNECTIONS, answers=answers)


def _p99(name: str, ours: Load, floor: Load) -> Row:
    met = ours.p99_s <= P99_S
    return Row(name, Quantity(ours.p99_s, "s"), Quantity(floor.p99_s, "s"), bar="<= 250 ms", met=met)


def _longest(name: str, ours: Load, floor: Load) -> Row:
    met = ours.longest_s <= LONGEST_S
    return Row(name, Quantity(ours.longest_s, "s"), Quantity(floor.longest_s, "s"), bar="<= 1 s", met=met)


def _errors(name: str, ours: Load) -> Row:
    return Row(name, Quantity(ours.errors, "errors"), bar="none", met=ours.errors == 0)

"""How long a look at the machine takes, against asking the Engine and against Glances' cache."""

from benchmarks.bench import CONTAINERS, Bench, answer_of, stats_of
from benchmarks.table import Quantity, Row

MANY = 100

AGAINST_ENGINE = (f"stats p50 vs. the Engine's {CONTAINERS} one-shot stats at once",)
AGAINST_GLANCES = ("stats p50 vs. Glances' cached /api/4/containers",)
GROWTH = (f"stats p50 with {MANY} containers vs. with 1",)


def against_engine(bench: Bench) -> list[Row]:
    """One answer takes at most 1/500 of what the Engine takes for the containers' part of it."""
    bench.fleet.require(CONTAINERS)
    ours, floor = _ours_and_floor(bench)
    peer = bench.fleet.one_shot_stats_s(bench.scale.engine_rounds)
    return [_row(AGAINST_ENGINE[0], ours, peer, floor, bar=("<= 1/500", ours <= peer / 500))]


def against_glances(bench: Bench) -> list[Row]:
    """One answer takes at most half of what Glances takes to answer from its cache."""
    bench.fleet.require(CONTAINERS)
    ours, floor = _ours_and_floor(bench)
    with bench.glances(CONTAINERS) as target:
        peer = bench.p50_s(target)
    return [_row(AGAINST_GLANCES[0], ours, peer, floor, bar=("<= 0.50", ours <= peer / 2))]


def growth(bench: Bench) -> list[Row]:
    """An answer about 100 containers takes less than twice as long as one about a single container."""
    bench.fleet.require(1)
    with bench.server(1) as server:
        one = bench.p50_s(stats_of(server))
    bench.fleet.require(MANY)
    many, floor = _ours_and_floor(bench, MANY)
    return [_row(GROWTH[0], many, one, floor, bar=("< 2.00", many < 2 * one))]


def _ours_and_floor(bench: Bench, containers: int = CONTAINERS) -> tuple[float, float]:
    """Return the median of our answers, and of the same bytes from no framework at all."""
    with bench.server(containers) as server:
        ours = bench.p50_s(stats_of(server))
        answer = answer_of(server)
    with bench.floor(answer) as target:
        return ours, bench.p50_s(target)


def _row(name: str, ours: float, peer: float, floor: float, bar: tuple[str, bool]) -> Row:
    return Row.compared(name, Quantity(ours, "s"), Quantity(peer, "s"), bar=bar, floor=Quantity(floor, "s"))

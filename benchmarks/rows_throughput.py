"""How many looks per second one core gives, against a plain route and against no framework at all."""

import contextlib
import statistics

from benchmarks.bench import CONNECTIONS, CONTAINERS, STATS_REQUEST, Bench, answer_of, stats_of
from benchmarks.load import Target, closed_loop
from benchmarks.table import Quantity, Row

AGAINST_OTHERS = (
    "stats answers per second vs. a plain Litestar route, same bytes",
    "stats answers per second vs. bare ASGI, same bytes",
)


def against_others(bench: Bench) -> list[Row]:
    """At least 0.9 of the rate of a route that checks nothing and sends the same bytes."""
    containers = bench.fleet.resize(CONTAINERS)
    with contextlib.ExitStack() as exits:
        server = exits.enter_context(bench.server(containers))
        answer = answer_of(server)
        litestar = exits.enter_context(bench.peer("litestar", answer))
        asgi = exits.enter_context(bench.peer("asgi", answer))
        request = STATS_REQUEST.replace(b"POST /k12ai/platform/stats", b"POST /plain")
        rates = _alternately(bench, stats_of(server), litestar.target(request), asgi.target(request))
    ours, plain, bare = (Quantity(statistics.median(each), "1/s") for each in rates)
    return [
        Row.compared(
            AGAINST_OTHERS[0], ours, plain, bar=(">= 0.90", ours.value >= 0.9 * plain.value), floor=bare
        ),
        Row(AGAINST_OTHERS[1], ours, peer=bare, ratio=ours.value / bare.value),
    ]


def _alternately(bench: Bench, *targets: Target) -> list[list[float]]:
    """Return each target's rates in many short slices, taken in turns: a machine's moods hit all alike."""
    rates: list[list[float]] = [[] for _ in targets]
    for target in targets:
        bench.run(closed_loop, target, connections=CONNECTIONS, seconds=bench.scale.slice_s)
    for _ in range(bench.scale.slice_rounds):
        for target, found in zip(targets, rates, strict=True):
            load = bench.run(closed_loop, target, connections=CONNECTIONS, seconds=bench.scale.slice_s)
            found.append(load.per_second)
    return rates

"""How many looks per second one core gives, against a plain route and against no framework at all."""

import contextlib
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.bench import CONNECTIONS, CONTAINERS, STATS_PATH, STATS_REQUEST, Bench, answer_of, stats_of
from benchmarks.load import Target, closed_loop
from benchmarks.machine import CpuClock
from benchmarks.table import Row

AGAINST_OTHERS = (
    "stats answers per second vs. a plain Litestar route, same bytes",
    "stats answers per second vs. bare ASGI, same bytes",
    "  processor time per answer, the same comparison",
)


class Contender(NamedTuple):
    """A server under load, and the clock of the processor time it uses."""

    target: Target
    clock: CpuClock


class Slice(NamedTuple):
    """What one short load found."""

    per_second: float
    cpu_s_per_answer: float


def against_others(bench: Bench) -> list[Row]:
    """At least 0.9 of the rate of a route that checks nothing and sends the same bytes; medians of all."""
    containers = bench.fleet.resize(CONTAINERS)
    plain_request = STATS_REQUEST.replace(STATS_PATH.encode(), b"/plain")
    with contextlib.ExitStack() as exits:
        server = exits.enter_context(bench.server(containers))
        contenders = [Contender(stats_of(server), CpuClock(server.process.pid))]
        answer = answer_of(server)
        for name in ("litestar", "asgi"):
            peer = exits.enter_context(bench.peer(name, answer))
            contenders.append(Contender(peer.target(plain_request), CpuClock(peer.pid)))
        slices = _alternately(bench, contenders)
    rates = [[each.per_second for each in found] for found in slices]
    costs = [[each.cpu_s_per_answer for each in found] for found in slices]
    return [
        Row.of_rounds(AGAINST_OTHERS[0], "1/s", rates[0], rates[1], floor=rates[2], at_least=0.9),
        Row.of_rounds(AGAINST_OTHERS[1], "1/s", rates[0], rates[2]),
        # Where other programs take turns on the core, this comparison is the steadier one.
        Row.of_rounds(AGAINST_OTHERS[2], "s", costs[0], costs[1], floor=costs[2]),
    ]


def _alternately(bench: Bench, contenders: Sequence[Contender]) -> list[list[Slice]]:
    """Load each in many short slices, taken in turns: a machine's moods hit all alike."""
    slices: list[list[Slice]] = [[] for _ in contenders]
    for contender in contenders:
        _slice(bench, contender)
    for _ in range(bench.scale.slice_rounds):
        for contender, found in zip(contenders, slices, strict=True):
            found.append(_slice(bench, contender))
    return slices


def _slice(bench: Bench, contender: Contender) -> Slice:
    before = contender.clock.seconds()
    load = bench.run(closed_loop, contender.target, connections=CONNECTIONS, seconds=bench.scale.slice_s)
    return Slice(load.per_second, (contender.clock.seconds() - before) / load.answers)

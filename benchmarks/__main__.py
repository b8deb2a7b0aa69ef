"""``python -m benchmarks``: measure everything and print one table; the exit code is 1 if a bar was missed."""

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from benchmarks import (
    rows_access,
    rows_arrivals,
    rows_containers,
    rows_epochs,
    rows_kv,
    rows_latency,
    rows_lessons,
    rows_memory,
    rows_monitor,
    rows_queue,
    rows_store,
    rows_tasks,
    rows_throughput,
    rows_training,
)
from benchmarks.bench import FULL, QUICK, Bench, generator
from benchmarks.fleet import Fleet, Skipped, fleet
from benchmarks.machine import Cores, pin
from benchmarks.table import WIDTH, Row, show, write_json


class Measurement(NamedTuple):
    """What gives these rows."""

    rows: Sequence[str]
    measure: Callable[[Bench], list[Row]]


# Ordered so that the fleet of containers changes its size as seldom as possible.
MEASUREMENTS = (
    Measurement(rows_latency.GROWTH, rows_latency.growth),
    Measurement(rows_latency.AGAINST_ENGINE, rows_latency.against_engine),
    Measurement(rows_latency.AGAINST_GLANCES, rows_latency.against_glances),
    Measurement(rows_throughput.AGAINST_OTHERS, rows_throughput.against_others),
    Measurement(rows_access.TOKENS, rows_access.tokens),
    Measurement(rows_monitor.FRESHNESS, rows_monitor.freshness),
    Measurement(rows_monitor.COST, rows_monitor.cost),
    Measurement(rows_monitor.CALLS, rows_monitor.calls),
    Measurement(rows_arrivals.BURST, rows_arrivals.at_once),
    Measurement(rows_arrivals.OPEN_LOOP, rows_arrivals.open_loop_minute),
    Measurement(rows_store.WAKING, rows_store.waking),
    Measurement(rows_store.CROWD, rows_store.crowd),
    Measurement(rows_kv.PUTS, rows_kv.puts),
    Measurement(rows_kv.GETS, rows_kv.gets),
    Measurement(rows_tasks.STARTING, rows_tasks.starting),
    Measurement(rows_tasks.SUBMITS, rows_tasks.submits),
    Measurement(rows_tasks.REPORTS, rows_tasks.reports),
    Measurement(rows_tasks.JOURNAL, rows_tasks.journal),
    Measurement(rows_tasks.STOPPING, rows_tasks.stopping),
    Measurement(rows_queue.DRAIN, rows_queue.drain),
    Measurement(rows_queue.WAITING, rows_queue.waiting),
    Measurement(rows_containers.STARTING, rows_containers.starting),
    Measurement(rows_training.TRAINING, rows_training.training),
    Measurement(rows_epochs.EPOCHS, rows_epochs.epochs),
    Measurement(rows_lessons.DIGITS, rows_lessons.digits),
    Measurement(rows_lessons.REVIEWS, rows_lessons.reviews),
    Measurement(rows_lessons.TUNED, rows_lessons.tuned),
    Measurement(rows_memory.RESIDENT, rows_memory.resident),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suite; return 1 if a bar was missed, else 0."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the containers are removed then, too
    _forget_own_settings()
    chosen = [each for each in MEASUREMENTS if any(options.only in row for row in each.rows)]
    cores = Cores.of_this_process()
    pin(cores.generator)
    with fleet() as containers:
        rows = list(_measured(chosen, cores, containers, quick=options.quick))
    show(rows, Console(width=None if sys.stdout.isatty() else WIDTH))
    if options.json is not None:
        write_json(rows, options.json)
    return int(any(row.met is False for row in rows))


def _measured(chosen: Sequence[Measurement], cores: Cores, containers: Fleet, *, quick: bool) -> Iterator[Row]:
    progress = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="k12ai-bench-") as directory, generator(cores) as pool:
        bench = Bench(QUICK if quick else FULL, cores, containers, Path(directory), pool)
        for each in chosen:
            progress.print(f"[dim]measuring: {each.rows[0]}[/]")
            try:
                yield from each.measure(bench)
            except Skipped as reason:
                yield from (Row(row, None, skipped=str(reason)) for row in each.rows)


def _forget_own_settings() -> None:
    """Measure the defaults, not what this shell happens to set."""
    for name in list(os.environ):
        if name.startswith("K12AI_"):
            del os.environ[name]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter windows: a check that all works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to FILE")
    parser.add_argument("--only", default="", metavar="TEXT", help="only what has TEXT in the name of a row")
    return parser


if __name__ == "__main__":
    sys.exit(main())

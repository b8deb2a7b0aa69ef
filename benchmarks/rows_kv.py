"""What a durable put and a get cost over HTTP, beside SQLite used directly on the same disk."""

import contextlib
import itertools
import os
import sqlite3
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.support.server import Server

from benchmarks.bench import CONNECTIONS, Bench
from benchmarks.load import Load, Target, closed_loop, http_request
from benchmarks.table import Quantity, Row

PUTS = (
    f"durable puts per second, {CONNECTIONS} in flight, vs. bare SQLite, a commit each",
    "  one durable put at a time: p50 (floor: a page written and synced)",
    "  what the disk does: 4 KiB pages written and synced, one at a time",
)
GETS = (f"gets per second, {CONNECTIONS} in flight, vs. a bare SQLite loop (floor: bare ASGI)",)

_VALUE = b"v" * 100
_KNOWN = range(1_000)
_ENDLESS = range(10**8)
_PAGE = b"\0" * 4096
# SQLite's log has so many when it begins anew; from then on it is written in place.
_PAGES = 1_000


class PutRound(NamedTuple):
    """What was measured in turns."""

    together: Load
    alone: Load
    bare: Load
    disk: Load


class GetRound(NamedTuple):
    """What was measured in turns."""

    ours: Load
    bare: Load
    asgi: Load


def puts(bench: Bench) -> list[Row]:
    """Puts are on the disk when they are answered; those that come together share its syncs."""
    with bench.server() as server:
        rounds = [_put_round(bench, server, number) for number in range(bench.scale.store_rounds)]
    disk = [each.disk for each in rounds]
    return [
        Row.of_rounds(
            PUTS[0],
            "1/s",
            [each.together.per_second for each in rounds],
            [each.bare.per_second for each in rounds],
        ),
        Row.of_rounds(
            PUTS[1],
            "s",
            [each.alone.p50_s for each in rounds],
            [each.bare.p50_s for each in rounds],
            floor=[each.p50_s for each in disk],
        ),
        Row(PUTS[2], Quantity(statistics.median(each.per_second for each in disk), "1/s")),
    ]


def gets(bench: Bench) -> list[Row]:
    """A get costs a request and a SELECT; beside it are the one alone and the other alone."""
    with bench.server() as server:
        # Each twice: whatever is cut off in the end, no key is missing.
        filling = _put_target(server, "known", _KNOWN)
        bench.run(closed_loop, filling, connections=CONNECTIONS, answers=2 * len(_KNOWN))
        answer = server.http.get(_path("known") % 0).content
        with bench.peer("asgi", answer) as peer:
            get = http_request("GET", _path("known"))
            targets = Target(server.port, get, _KNOWN), Target(peer.port, get, _KNOWN)
            rounds = [_get_round(bench, *targets, _bare(server)) for _ in range(bench.scale.store_rounds)]
    return [
        Row.of_rounds(
            GETS[0],
            "1/s",
            [each.ours.per_second for each in rounds],
            [each.bare.per_second for each in rounds],
            floor=[each.asgi.per_second for each in rounds],
        )
    ]


def bare_puts(file: Path, seconds: float) -> Load:
    """Commit one row after the other, for so long."""
    with _opened(file) as database:
        (known,) = database.execute("SELECT count(*) FROM bare").fetchone()
        insert = "INSERT INTO bare VALUES (?, ?)"
        return _timed(lambda number: database.execute(insert, (f"{known + number:08}", _VALUE)), seconds)


def bare_gets(file: Path, seconds: float) -> Load:
    """Read one row after the other, for so long."""
    with _opened(file) as database:
        keys = [f"{number:08}" for number in _KNOWN]
        database.execute("BEGIN")
        database.executemany("INSERT OR REPLACE INTO bare VALUES (?, ?)", ((key, _VALUE) for key in keys))
        database.execute("COMMIT")
        select = "SELECT value FROM bare WHERE key = ?"
        return _timed(lambda number: database.execute(select, (keys[number % len(keys)],)).fetchone(), seconds)


def synced_pages(file: Path, seconds: float) -> Load:
    """Write one page after the other and wait for the disk each time, for so long."""
    sync = getattr(os, "fdatasync", os.fsync)  # what SQLite uses
    with file.open("wb", buffering=0) as pages:
        pages.write(_PAGE * _PAGES)
        os.fsync(pages.fileno())

        def write(number: int) -> None:
            os.pwrite(pages.fileno(), _PAGE, number % _PAGES * len(_PAGE))
            sync(pages.fileno())

        return _timed(write, seconds)


def _put_round(bench: Bench, server: Server, number: int) -> PutRound:
    seconds = bench.scale.slice_s
    together = _put_target(server, f"together{number}", _ENDLESS)
    alone = _put_target(server, f"alone{number}", _ENDLESS)
    return PutRound(
        bench.run(closed_loop, together, connections=CONNECTIONS, seconds=seconds),
        bench.run(closed_loop, alone, seconds=seconds),
        bench.run(bare_puts, _bare(server), seconds),
        bench.run(synced_pages, server.data_dir / "bare.pages", seconds),
    )


def _get_round(bench: Bench, ours: Target, asgi: Target, bare: Path) -> GetRound:
    seconds = bench.scale.slice_s
    return GetRound(
        bench.run(closed_loop, ours, connections=CONNECTIONS, seconds=seconds),
        bench.run(bare_gets, bare, seconds),
        bench.run(closed_loop, asgi, connections=CONNECTIONS, seconds=seconds),
    )


def _put_target(server: Server, name: str, numbers: range) -> Target:
    return Target(server.port, http_request("PUT", _path(name), _VALUE), numbers)


def _path(name: str) -> str:
    return f"/v1/kv/benchmarks/{name}/%08d"


def _bare(server: Server) -> Path:
    # In the server's own directory: the same disk, and the same file system.
    return server.data_dir / "bare.sqlite3"


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[sqlite3.Connection]:
    """Open a database as safe as the server's, in which every statement is a transaction."""
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.execute("CREATE TABLE IF NOT EXISTS bare (key TEXT PRIMARY KEY, value BLOB NOT NULL)")
        yield database


def _timed(work: Callable[[int], object], seconds: float) -> Load:
    """Do something again and again for so long; it is given its number."""
    latencies: list[float] = []
    started = ended = time.perf_counter()
    for number in itertools.count():
        if ended - started >= seconds:
            break
        began = ended
        work(number)
        ended = time.perf_counter()
        latencies.append(ended - began)
    return Load.of(latencies, ended - started)

"""The wall clock jumps (B27): what waits is not disturbed, and order and indexes stay what they were.

libfaketime moves the server's wall clock, and only that one, while the server runs.
"""

import contextlib
import datetime
import glob
import os
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest

from k12ai.client import Client
from tests.support.engine import IGNORES_TERM, EngineClient
from tests.support.server import Server, strict

pytestmark = [pytest.mark.slow, pytest.mark.faketime]

Record = Callable[[str, object], None]
Eventually = Callable[..., Any]

HOUR, DAY = 3600, 24 * 3600
JUMPS = [
    pytest.param(HOUR, id="an hour ahead"),
    pytest.param(-HOUR, id="an hour back"),
    pytest.param(DAY, id="a day ahead"),
    pytest.param(-DAY, id="a day back"),
]
LATE_S = 3


class WallClock:
    """The wall clock of the processes that are started with its environment."""

    def __init__(self, library: str, file: Path) -> None:
        self._file = file
        self.environ = {
            "LD_PRELOAD": library,
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        self.jump(0)

    def jump(self, seconds: int) -> None:
        """Set the clock so far from the right time, at once."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{seconds:+d}\n")
        fresh.replace(self._file)


@pytest.fixture(name="clock")
def _clock(absent: Callable[[str, str], NoReturn], tmp_path: Path) -> WallClock:
    found = glob.glob("/usr/lib/*/faketime/libfaketime.so.1")
    if not found:
        absent("faketime", "the clock is moved by libfaketime.so.1, of Debian's package libfaketime")
    return WallClock(found[0], tmp_path / "clock")


@pytest.fixture(name="server")
def _server(clock: WallClock, start_server: Callable[..., Server]) -> Server:
    return start_server(environ=clock.environ)


@pytest.fixture(name="pool")
def _pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def index_of(server: Server, key: str) -> int:
    return int(server.http.get(f"/v1/kv/{key}").headers["X-Consul-Index"])


def blocking(server: Server, key: str, wait_s: int) -> tuple[float, str]:
    """Wait for a change of a key; return how long that took and the value."""
    params = {"raw": "", "wait": f"{wait_s}s", "index": str(index_of(server, key))}
    with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as http:
        began = time.monotonic()
        answer = http.get(f"/v1/kv/{key}", params=params)
        waited = time.monotonic() - began
    assert answer.status_code == 200
    return waited, answer.text


def off_by(server: Server) -> float:
    """Return how far the server's wall clock is from this process's, as its figures have it."""
    message = strict(server.stats())["message"]
    at = datetime.datetime.fromisoformat(message["sampled_at"])
    return (at - datetime.datetime.now(datetime.UTC)).total_seconds()


def jumped(server: Server, seconds: int, eventually: Eventually) -> None:
    eventually(lambda: abs(off_by(server) - seconds) < 60)


@pytest.mark.parametrize("seconds", JUMPS)
def test_blocking_queries_end_and_wake_as_if_the_clock_had_not_jumped(
    server: Server,
    clock: WallClock,
    pool: ThreadPoolExecutor,
    eventually: Eventually,
    seconds: int,
    record_property: Record,
) -> None:
    for key in ("stays", "changes"):
        server.http.put(f"/v1/kv/{key}", content=b"before")
    ends = [pool.submit(blocking, server, "stays", 5) for _ in range(3)]
    wakes = [pool.submit(blocking, server, "changes", 60) for _ in range(3)]
    time.sleep(1)
    clock.jump(seconds)
    jumped(server, seconds, eventually)
    time.sleep(1)
    assert not any(each.done() for each in ends + wakes), "the jump itself ends no wait"
    server.http.put("/v1/kv/changes", content=b"after")
    assert {each.result()[1] for each in wakes} == {"after"}
    assert max(each.result()[0] for each in wakes) < 5 + LATE_S
    waited = [each.result()[0] for each in ends]
    assert {each.result()[1] for each in ends} == {"before"}
    assert min(waited) >= 5
    assert max(waited) < 5 * 17 / 16 + LATE_S
    record_property("waits of 5 s", ", ".join(f"{each:.2f} s" for each in sorted(waited)))


@pytest.mark.parametrize("seconds", JUMPS)
def test_indexes_go_on_and_results_come_after_the_clock_has_jumped(
    server: Server, clock: WallClock, eventually: Eventually, seconds: int, record_property: Record
) -> None:
    indexes = []
    asked: list[str] = []
    for number, offset in enumerate((0, seconds, 0, -seconds, 0)):
        # Accepted before the jump, carried out after it.
        accepted = server.stats(is_async=True, user=f"u{number}", service_params={"cpus": True})
        asked.append(strict(accepted)["message"]["key"])
        clock.jump(offset)
        jumped(server, offset, eventually)
        for step in range(5):
            server.http.put("/v1/kv/counts", content=b"%d/%d" % (number, step))
            indexes.append(index_of(server, "counts"))
        server.http.delete("/v1/kv/counts")
        indexes.append(int(server.http.get("/v1/kv/counts", params={"recurse": ""}).headers["X-Consul-Index"]))
    assert indexes == sorted(set(indexes)), "each change has a higher index"
    with Client(server.url) as client:
        for key in asked:
            assert client.read(key, wait_s=10), key
    record_property("jumps", 4)
    record_property("indexes", f"{indexes[0]} to {indexes[-1]}")
    record_property("results", len(asked))


@pytest.mark.parametrize("seconds", JUMPS)
def test_the_servers_uptime_goes_on_after_the_clock_has_jumped(
    server: Server, clock: WallClock, eventually: Eventually, seconds: int, record_property: Record
) -> None:
    before = strict(server.http.get("/health"))["uptime_seconds"]
    clock.jump(seconds)
    jumped(server, seconds, eventually)
    health = strict(server.http.get("/health"))
    record_property("uptime", f"{before} to {health['uptime_seconds']} s")
    assert 0 <= before <= health["uptime_seconds"] < before + 60
    assert 0 <= health["sample_age_seconds"] < 60
    assert 0 <= strict(server.stats())["message"]["cpu_percent"] <= 100


@pytest.mark.parametrize("seconds", JUMPS)
def test_the_machines_uptime_goes_on_after_the_clock_has_jumped(
    server: Server, clock: WallClock, eventually: Eventually, seconds: int, record_property: Record
) -> None:
    def uptime() -> int:
        (node,) = strict(server.stats(service_params={"nodes": True}))["message"]["nodes"]
        return int(node["uptime_seconds"])

    before = uptime()
    clock.jump(seconds)
    jumped(server, seconds, eventually)
    after = uptime()
    record_property("uptime", f"{before} to {after} s")
    assert 0 <= before <= after < before + 60


@pytest.mark.parametrize("seconds", JUMPS[2:])
def test_a_connection_that_says_nothing_is_neither_closed_sooner_nor_kept_longer(
    server: Server, clock: WallClock, eventually: Eventually, seconds: int, record_property: Record
) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as slow:
        began = time.monotonic()
        slow.sendall(b"GET /health HTTP/1.1\r\nHost: 127")
        clock.jump(seconds)
        jumped(server, seconds, eventually)
        with contextlib.suppress(ConnectionError):
            while slow.recv(65536):
                pass
        closed_s = time.monotonic() - began
    assert 10 <= closed_s < 15
    record_property("closed after", f"{closed_s:.1f} s")


@pytest.mark.docker
@pytest.mark.parametrize("seconds", JUMPS)
def test_the_grace_of_a_stop_is_as_long_as_it_was_promised(
    server: Server,
    clock: WallClock,
    engine: EngineClient,
    pool: ThreadPoolExecutor,
    eventually: Eventually,
    seconds: int,
    record_property: Record,
) -> None:
    started = engine.run(IGNORES_TERM)
    eventually(lambda: started[:12] in server.containers())
    began = time.monotonic()
    stop = pool.submit(server.stop, started, timeout=4)
    time.sleep(1)
    clock.jump(seconds)
    jumped(server, seconds, eventually)
    assert engine.state(started)["Running"]
    assert 0 <= server.containers()[started[:12]]["cpu_percent"] <= 100 * (os.cpu_count() or 1) * 2
    assert strict(stop.result())["message"] == f"container id {started[:12]} stop success"
    took = time.monotonic() - began
    assert 4 <= took < 4 + LATE_S
    eventually(lambda: started[:12] not in server.containers())
    record_property("a grace of 4 s took", f"{took:.2f} s")


# A store under the moved clock: it does one thing for each line it is sent, and says what came of it.
_STORE = """
    import asyncio, pathlib, sys, time
    from k12ai.stores.sql import SqlStore

    async def main():
        async with SqlStore(pathlib.Path(sys.argv[1])) as store:
            await store.put("result", b"kept", keep_s=5 * 24 * 3600)
            await store.put("prefix/gone", b"x")
            await store.delete("prefix/gone")
            while line := await asyncio.to_thread(sys.stdin.readline):
                keys = await store.append("m", [line.encode()], keep_s=5 * 24 * 3600)
                await store.sweep()
                found = await store.get("result")
                below = (await store.list("prefix/")).index
                print(int(time.time()), keys[0], len(found.entries), below, flush=True)

    asyncio.run(main())
"""


@pytest.mark.parametrize("seconds", JUMPS)
def test_messages_keep_their_order_and_results_are_not_swept_before_their_time(
    clock: WallClock, tmp_path: Path, seconds: int, record_property: Record
) -> None:
    store = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(_STORE), str(tmp_path / "store")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **clock.environ},
    )
    assert store.stdin is not None
    assert store.stdout is not None
    keys: list[str] = []
    belows: list[int] = []
    with store, store.stdin:
        for offset in (0, 0, seconds, seconds, 0, -seconds, -seconds, 0):
            clock.jump(offset)
            store.stdin.write(f"{offset}\n")
            store.stdin.flush()
            now, key, results, below = store.stdout.readline().split()
            assert abs(int(now) - time.time() - offset) < 60, "the clock has jumped"
            assert results == "1", "it has days left"
            keys.append(key)
            belows.append(int(below))
    assert store.returncode == 0
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys)
    assert belows == sorted(belows), "also where a day ahead lets the traces of deletes be cleared"
    record_property("messages", len(keys))
    record_property("swept before their time", 0)

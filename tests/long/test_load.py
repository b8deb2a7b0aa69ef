"""A thousand callers at once, callers that wait, callers that leave and callers that dawdle (B28, B29)."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec
import pytest

from tests.long.wire import Peer, Reply, peers, request_of, served, stats_request
from tests.support.process import allow_files, open_files, resident_bytes
from tests.support.server import Server

pytestmark = pytest.mark.slow

StartServer = Callable[..., Server]
Record = Callable[[str, object], None]

IN_FLIGHT = 1000
WAITERS = 500
SLOW = 500
CLOSED_S = 15
BACK_S = 10
GROWTH_BYTES = 50 << 20
FEW_FILES = 5


@pytest.fixture(name="server")
def _server(start_server: StartServer) -> Server:
    allow_files(8192)
    return start_server()


class Level:
    """What the server holds when nobody calls."""

    def __init__(self, server: Server, record: Record) -> None:
        self._pid = server.process.pid
        self._record = record
        self._files, self._memory = open_files(self._pid), resident_bytes(self._pid)

    async def check(self) -> None:
        """Return once it is back where it was, soon after the callers have gone."""
        deadline = time.monotonic() + BACK_S
        while (left := open_files(self._pid) - self._files) > FEW_FILES:
            assert time.monotonic() < deadline, f"{left} files are still open"
            await asyncio.sleep(0.1)
        grown = resident_bytes(self._pid) - self._memory
        self._record("grown", f"{grown // 1024} KiB and {left} files")
        assert grown <= GROWTH_BYTES


@pytest.fixture(name="level")
async def _level(server: Server, record_property: Record) -> Level:
    async with Peer(server) as peer:  # so that everything is loaded that an answer needs
        for _ in range(200):
            await peer.ask(stats_request())
    await put(server, b"0")
    await asyncio.sleep(1)
    return Level(server, record_property)


async def put(server: Server, value: bytes, key: str = "key") -> None:
    async with Peer(server) as peer:
        reply = await peer.ask(request_of("PUT", f"/v1/kv/{key}", value))
    assert (reply.status, reply.body) == (200, b"true")


async def index_of(server: Server, key: str = "key") -> int:
    async with Peer(server) as peer:
        return (await peer.ask(request_of("GET", f"/v1/kv/{key}"))).kv_index


def blocking_request(index: int, wait: str, key: str = "key") -> bytes:
    return request_of("GET", f"/v1/kv/{key}?raw&index={index}&wait={wait}")


async def connected(server: Server, count: int) -> None:
    """Return when the server has taken so many connections, and had a moment to read from them."""
    deadline = time.monotonic() + 30
    while open_files(server.process.pid) < count:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    await asyncio.sleep(1)


async def test_1000_stats_requests_in_flight_at_once_are_all_answered(
    server: Server, level: Level, record_property: Record
) -> None:
    forms = [{}, {"containers": True}, {"cpus": True, "gpus": True}, {"disks": True}, {"users": True}]
    requests = [stats_request(service_params=forms[number % len(forms)]) for number in range(IN_FLIGHT)]
    rounds = 5
    async with asyncio.timeout(120), peers(server, IN_FLIGHT) as callers:
        for _ in range(rounds):
            # All of them are sent before the first answer is read.
            await asyncio.gather(*(each.send(sent) for each, sent in zip(callers, requests, strict=True)))
            replies = await asyncio.gather(*(each.receive() for each in callers))
            for reply in replies:
                assert reply.status == 200, reply.body
                assert msgspec.json.decode(reply.body)["code"] == 100000
    record_property("in flight", IN_FLIGHT)
    record_property("answered", rounds * IN_FLIGHT)
    record_property("errors", 0)
    await level.check()


async def test_one_write_wakes_all_of_500_readers_with_the_new_value(
    server: Server, level: Level, record_property: Record
) -> None:
    rounds = 5
    async with asyncio.timeout(120), peers(server, WAITERS) as callers:
        await connected(server, WAITERS)
        for number in range(1, rounds + 1):
            request = blocking_request(index := await index_of(server), "60s")
            await asyncio.gather(*(each.send(request) for each in callers))
            if number % 2:  # else the write comes while they come
                await asyncio.sleep(1)
            answers = asyncio.gather(*(each.receive() for each in callers))
            await put(server, b"%d" % number)
            for reply in await answers:
                assert (reply.status, reply.body) == (200, b"%d" % number)
                assert reply.kv_index > index
    record_property("readers", WAITERS)
    record_property("woken", rounds * WAITERS)
    record_property("lost", 0)
    await level.check()


async def test_a_write_of_another_key_wakes_none_of_500_readers(server: Server, level: Level) -> None:
    request = blocking_request(await index_of(server), "3s")

    async def wait(caller: Peer) -> float:
        began = time.monotonic()
        reply = await caller.ask(request)
        assert (reply.status, reply.body) == (200, b"0")
        return time.monotonic() - began

    async with asyncio.timeout(60), peers(server, WAITERS) as callers:
        waits = asyncio.gather(*(wait(each) for each in callers))
        for number in range(20):
            await asyncio.sleep(0.1)
            await put(server, b"%d" % number, key="key2")
        assert min(await waits) >= 3
    await level.check()


async def test_a_wait_of_1_s_is_never_shorter_and_ends_with_the_state(
    server: Server, level: Level, record_property: Record
) -> None:
    request = blocking_request(index := await index_of(server), "1s")

    async def wait(caller: Peer) -> tuple[float, Reply]:
        began = time.monotonic()
        reply = await caller.ask(request)
        return time.monotonic() - began, reply

    waited: list[float] = []
    async with asyncio.timeout(60), peers(server, WAITERS) as callers:
        for _ in range(3):
            for seconds, reply in await asyncio.gather(*(wait(each) for each in callers)):
                waited.append(seconds)
                assert (reply.status, reply.body, reply.kv_index) == (200, b"0", index)
    assert min(waited) >= 1
    record_property("waits", len(waited))
    record_property("shortest", f"{min(waited):.3f} s")
    record_property("longest", f"{max(waited):.3f} s")
    await level.check()


async def test_500_readers_that_go_away_leave_nothing_behind(
    server: Server, level: Level, record_property: Record
) -> None:
    pid = server.process.pid
    before = open_files(pid)
    rounds = 5
    took: list[float] = []
    async with asyncio.timeout(120):
        for number in range(rounds):
            async with peers(server, WAITERS) as callers:
                request = blocking_request(await index_of(server), "10m")
                await asyncio.gather(*(each.send(request) for each in callers))
                await connected(server, WAITERS)
                if number % 2:  # without a word, as a program that is killed
                    for each in callers:
                        each.writer.transport.abort()
            gone_at = time.monotonic()
            while open_files(pid) > before + FEW_FILES:
                assert time.monotonic() - gone_at < BACK_S
                await asyncio.sleep(0.02)
            took.append(time.monotonic() - gone_at)
            await put(server, b"after %d" % number)
    record_property("gone", rounds * WAITERS)
    record_property("let go within", f"{max(took):.2f} s")
    await level.check()


# --- the slow ------------------------------------------------------------------------------------


async def idle(peer: Peer) -> None:
    """Say nothing."""


async def half_head(peer: Peer) -> None:
    await peer.send(b"GET /health HTTP/1.1\r\nHost: 127")


async def dripping_head(peer: Peer) -> None:
    await peer.send(b"GET /health HTTP/1.1\r\nX-Slow: ")
    await drip(peer)


async def slow_body(peer: Peer) -> None:
    await peer.send(b"PUT /v1/kv/slow HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n")
    await drip(peer)


async def drip(peer: Peer) -> None:
    while True:
        await peer.send(b"x")
        await asyncio.sleep(1)


SLOW_ONES = [idle, half_head, dripping_head, slow_body]


async def closed_after(server: Server, dawdle: Callable[[Peer], Coroutine[Any, Any, None]]) -> float:
    """Be slow in one of the ways; return how long it took the server to close the connection."""
    async with Peer(server) as peer:
        began = time.monotonic()
        slow = asyncio.create_task(dawdle(peer))
        try:
            with contextlib.suppress(ConnectionError):
                while await peer.reader.read(65536):
                    pass
            return time.monotonic() - began
        finally:
            slow.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await slow


async def finished(work: Awaitable[list[float]], over: asyncio.Event) -> list[float]:
    try:
        return await work
    finally:
        over.set()


async def test_2000_slow_connections_are_closed_and_good_requests_are_answered_meanwhile(
    server: Server, level: Level, record_property: Record
) -> None:
    over = asyncio.Event()
    slow = [closed_after(server, dawdle) for dawdle in SLOW_ONES for _ in range(SLOW)]
    async with asyncio.timeout(90):
        seconds, good = await asyncio.gather(
            finished(asyncio.gather(*slow), over), asyncio.gather(*(served(server, over) for _ in range(4)))
        )
    for number, dawdle in enumerate(SLOW_ONES):
        of_kind = seconds[number * SLOW : (number + 1) * SLOW]
        assert max(of_kind) < CLOSED_S, dawdle.__name__
        record_property(f"{dawdle.__name__} closed after", f"{min(of_kind):.1f} to {max(of_kind):.1f} s")
    assert min(good) > 0
    record_property("slow", len(seconds))
    record_property("good requests, all answered", sum(good))
    async with Peer(server) as peer:
        assert (await peer.ask(request_of("GET", "/v1/kv/slow"))).status == 404, "no part of a body is stored"
    await level.check()

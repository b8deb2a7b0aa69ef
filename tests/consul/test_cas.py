"""``cas`` under contention: of all who write on the same index, one wins."""

import base64
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import httpx
import pytest

from tests.support.server import Server, strict

THREADS = 8
HANG_S = 60


class Round(NamedTuple):
    """One read, modify and write: what was read, at which index, and whether the write won."""

    index: int
    value: int
    won: bool


def read(http: httpx.Client, key: str) -> tuple[int, int]:
    """Return a counter's index and value."""
    (entry,) = strict(http.get(f"/v1/kv/{key}"))
    return entry["ModifyIndex"], int(base64.b64decode(entry["Value"]))


def write(http: httpx.Client, key: str, value: int, cas: int) -> bool:
    """Write a counter on an index; return whether that won. A lost ``cas`` is no error."""
    answer = http.put(f"/v1/kv/{key}", content=b"%d" % value, params={"cas": str(cas)})
    assert answer.status_code == 200, answer.text
    won: Any = strict(answer)
    assert isinstance(won, bool)
    return won


def count(server: Server, key: str, rounds: int, start: threading.Barrier) -> list[Round]:
    """Try so many times to add one to the counter; whoever loses a round goes on with the next."""
    with httpx.Client(base_url=server.url, timeout=HANG_S, trust_env=False) as http:
        start.wait(HANG_S)
        done = []
        for _ in range(rounds):
            index, value = read(http, key)
            done.append(Round(index, value, write(http, key, value + 1, index)))
        return done


def contend(server: Server, key: str, rounds: int) -> int:
    """Let the threads count, check that what they did is one history, and return the number of wins."""
    assert write(server.http, key, 0, 0)
    created, _ = read(server.http, key)
    start = threading.Barrier(THREADS)
    with ThreadPoolExecutor(THREADS) as pool:
        running = [pool.submit(count, server, key, rounds, start) for _ in range(THREADS)]
        done = [each for thread in running for each in thread.result()]
    wins = sorted(each for each in done if each.won)
    last, total = read(server.http, key)

    assert len(done) == THREADS * rounds
    assert total == len(wins), "each win counts once"
    assert len({each.index for each in wins}) == len(wins), "one winner an index"
    assert [each.value for each in wins] == list(range(total)), "each win follows on the one before"
    assert wins[0].index == created < last
    values = {each.index: each.value for each in wins} | {last: total}
    assert all(values.get(each.index) == each.value for each in done), "an index stands for one value"
    # A round is lost only to a win within it, and a win is within one round of each other thread.
    assert len(wins) >= rounds
    return len(wins)


def test_of_100_rounds_in_8_threads_each_index_has_one_winner(server: Server) -> None:
    contend(server, "cas/quick", 100)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_of_1000_rounds_in_8_threads_each_index_has_one_winner(
    server: Server, record_property: Callable[[str, object], None]
) -> None:
    wins = contend(server, "cas/slow", 1000)
    record_property("rounds", THREADS * 1000)
    record_property("wins", wins)
    record_property("losses", THREADS * 1000 - wins)


def create(server: Server, keys: list[str], name: int, start: threading.Barrier) -> list[bool]:
    """Try to be the first to write each of the keys."""
    with httpx.Client(base_url=server.url, timeout=HANG_S, trust_env=False) as http:
        won = []
        for key in keys:
            start.wait(HANG_S)
            won.append(write(http, key, name, 0))
        return won


def test_a_key_that_8_threads_create_at_once_belongs_to_one_of_them(server: Server) -> None:
    keys = [f"cas/created/{number}" for number in range(25)]
    start = threading.Barrier(THREADS)
    with ThreadPoolExecutor(THREADS) as pool:
        running = [pool.submit(create, server, keys, name, start) for name in range(THREADS)]
        won = [thread.result() for thread in running]
    for place, key in enumerate(keys):
        winners = [name for name in range(THREADS) if won[name][place]]
        assert winners == [read(server.http, key)[1]]

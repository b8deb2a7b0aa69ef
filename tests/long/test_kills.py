"""The server is killed again and again (B23): what was acknowledged is there, and the index only grows."""

import base64
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from k12ai.client import Client
from tests.support.server import Server, strict

pytestmark = pytest.mark.slow

StartServer = Callable[..., Server]
Record = Callable[[str, object], None]
ROUNDS = 20
WRITERS = 8


class Writer:
    """Writes, overwrites and deletes keys of its own, and remembers what it was told.

    What was asked for and not answered may have happened: then both values are right.
    """

    def __init__(self, name: int) -> None:
        self._prefix = f"w/{name}/"
        self.told: dict[str, bytes | None] = {}
        self.unsure: dict[str, bytes | None] = {}
        self.acknowledged = 0
        self.deleted = 0

    def write(self, url: str) -> None:
        """Go on until the server is gone."""
        with httpx.Client(base_url=url, trust_env=False, timeout=5) as http:
            while True:
                number = self.acknowledged
                if number % 10 == 9:
                    key, value = f"{self._prefix}{number - 5}", None
                elif number % 10 == 6:
                    key, value = f"{self._prefix}{number - 3}", b"again %d" % number
                else:
                    key, value = f"{self._prefix}{number}", b"%d " % number + b"x" * 100
                self.unsure = {key: value}
                try:
                    if value is None:
                        answer = http.delete(f"/v1/kv/{key}")
                    else:
                        answer = http.put(f"/v1/kv/{key}", content=value)
                except httpx.TransportError:
                    return
                assert (answer.status_code, answer.text) == (200, "true")
                self.told[key] = value
                self.unsure = {}
                self.acknowledged += 1
                self.deleted += value is None

    def check(self, found: dict[str, bytes]) -> None:
        """Compare with what the store has, and learn what became of the unanswered write."""
        for key, value in self.unsure.items():
            assert found.get(key) in (value, self.told.get(key)), key
            self.told[key] = found.get(key)
        self.unsure = {}
        mine = {key: value for key, value in found.items() if key.startswith(self._prefix)}
        assert mine == {key: value for key, value in self.told.items() if value is not None}


class Watcher:
    """Counts a key up in one thread and watches it with blocking reads in another, over all the kills."""

    def __init__(self) -> None:
        self.url = ""
        self.over = threading.Event()
        self.seen: list[tuple[int, int]] = []  # index and value of each answer
        self.counted = 0

    def count(self) -> None:
        while not self.over.is_set():
            try:
                answer = httpx.put(
                    f"{self.url}/v1/kv/count", content=b"%d" % (self.counted + 1), trust_env=False, verify=False
                )
            except httpx.TransportError:
                self.over.wait(0.05)
            else:
                assert answer.text == "true"
                self.counted += 1

    def watch(self) -> None:
        index = 1
        while not self.over.is_set():
            # What was acknowledged before this was asked must be in the answer.
            counted = self.counted
            try:
                params = {"raw": "", "wait": "1s", "index": str(index)}
                answer = httpx.get(f"{self.url}/v1/kv/count", params=params, trust_env=False, verify=False)
            except httpx.TransportError:
                self.over.wait(0.05)
                continue
            if answer.status_code == 200:
                index = int(answer.headers["X-Consul-Index"])
                assert int(answer.text) >= counted
                self.seen.append((index, int(answer.text)))


def test_20_kills_under_8_writers_lose_nothing_and_the_index_never_goes_back(
    start_server: StartServer, record_property: Record
) -> None:
    writers = [Writer(name) for name in range(WRITERS)]
    watcher = Watcher()
    index = 0
    server = start_server(name="kills")
    watcher.url = server.url
    with ThreadPoolExecutor(WRITERS + 2) as pool:
        watching = [pool.submit(watcher.count), pool.submit(watcher.watch)]
        try:
            for round_number in range(ROUNDS):
                writing = [pool.submit(writer.write, server.url) for writer in writers]
                time.sleep(0.3 + 0.03 * round_number)
                server.kill()
                for each in writing:
                    each.result(timeout=30)
                server = start_server(name="kills")
                found, latest = everything(server)
                assert latest >= index, f"round {round_number}"
                index = latest
                for writer in writers:
                    writer.check(found)
                assert integrity(server) == "ok", f"round {round_number}"
                watcher.url = server.url
        finally:
            watcher.over.set()
        for each in watching:
            each.result(timeout=30)
    assert watcher.seen == sorted(watcher.seen)
    assert len({value for _, value in watcher.seen}) > ROUNDS
    record_property("kills", ROUNDS)
    record_property("acknowledged", sum(writer.acknowledged for writer in writers) + watcher.counted)
    record_property("deletes among them", sum(writer.deleted for writer in writers))
    record_property("lost", 0)
    record_property("blocking reads", len(watcher.seen))
    record_property("index", index)


def test_every_accepted_request_has_its_result_after_20_kills(
    start_server: StartServer, record_property: Record
) -> None:
    accepted: set[str] = set()
    for round_number in range(ROUNDS):
        server = start_server(name="accepted")
        for number in range(10):
            user = f"u{round_number}-{number}"
            if server.stats(is_async=True, user=user, service_params={"cpus": True}).status_code == 202:
                accepted.add(f"platform/{user}/uuid/query")
        time.sleep(0.06 * round_number)  # some results are out by now, some are not
        server.kill()
    server = start_server(name="accepted")
    assert len(accepted) == ROUNDS * 10
    with Client(server.url) as client:
        for key in accepted:
            assert client.read(key, wait_s=10), key
    record_property("kills", ROUNDS)
    record_property("accepted", len(accepted))
    record_property("without a result", 0)


def everything(server: Server) -> tuple[dict[str, bytes], int]:
    """Return every key with its value, and the index of it all."""
    answer = server.http.get("/v1/kv/", params={"recurse": ""})
    rows: list[dict[str, Any]] = strict(answer)
    assert len({row["Key"] for row in rows}) == len(rows)
    index = int(answer.headers["X-Consul-Index"])
    assert all(row["CreateIndex"] <= row["ModifyIndex"] <= index for row in rows)
    return {row["Key"]: base64.b64decode(row["Value"] or "") for row in rows}, index


def integrity(server: Server) -> str:
    """Return what SQLite says about the file while the server has it open."""
    database = sqlite3.connect(server.data_dir / "k12ai.sqlite3")
    try:
        (found,) = database.execute("PRAGMA integrity_check").fetchone()
    finally:
        database.close()
    return str(found)

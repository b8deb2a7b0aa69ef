"""Long runs of what the other tests do once (``make torture``)."""

import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from k12ai.client import Client
from tests.support.engine import EngineClient, OwnDockerd
from tests.support.server import Server, envelope, strict

pytestmark = pytest.mark.slow

StartServer = Callable[..., Server]
ROUNDS = 20


def test_20_kills_under_8_writers_lose_nothing_and_the_index_never_goes_back(start_server: StartServer) -> None:
    """B23: what was acknowledged is readable after every kill."""
    acknowledged: set[str] = set()
    index = 0
    for round_number in range(ROUNDS):
        server = start_server(name="kills")

        def write(writer: int, url: str = server.url, number: int = round_number) -> list[str]:
            done: list[str] = []
            with httpx.Client(base_url=url, trust_env=False, timeout=5) as http:
                while True:
                    key = f"{number}/{writer}/{len(done)}"
                    try:
                        answer = http.put(f"/v1/kv/{key}", content=b"x" * 100)
                    except httpx.TransportError:
                        return done
                    if answer.text == "true":
                        done.append(key)

        with ThreadPoolExecutor(8) as pool:
            writers = [pool.submit(write, writer) for writer in range(8)]
            time.sleep(0.3 + 0.05 * round_number)
            server.kill()
            for writer in writers:
                acknowledged.update(writer.result())
        again = start_server(name="kills")
        answer = again.http.get("/v1/kv/", params={"keys": ""})
        assert acknowledged <= set(strict(answer)), f"round {round_number}"
        assert int(answer.headers["X-Consul-Index"]) >= index
        index = int(answer.headers["X-Consul-Index"])
        again.kill()
    assert len(acknowledged) > ROUNDS * 8


def test_every_accepted_request_has_its_result_after_20_kills(start_server: StartServer) -> None:
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


def test_memory_and_files_do_not_grow_over_10_000_requests(start_server: StartServer) -> None:
    server = start_server()
    process = Path(f"/proc/{server.process.pid}")

    def resident_kib() -> int:
        return int(
            next(line.split()[1] for line in (process / "status").read_text().splitlines() if "VmRSS" in line)
        )

    def ask(count: int) -> None:
        for number in range(count):
            server.stats()
            if number % 10 == 0:
                server.stop("unknow")
                server.http.put("/v1/kv/same", content=b"%d" % number)
                server.http.get("/v1/kv/same")

    ask(2000)
    before, files = resident_kib(), len(list((process / "fd").iterdir()))
    ask(10_000)
    assert resident_kib() - before < 4096
    assert len(list((process / "fd").iterdir())) <= files + 2


@pytest.mark.docker
@pytest.mark.parametrize("live_restore", [True, False])
def test_an_engine_that_dies_again_and_again_is_found_again(
    own_dockerd: Callable[..., OwnDockerd],
    start_server: StartServer,
    eventually: Callable[..., Any],
    live_restore: bool,
) -> None:
    """B21, with readers, stops and asynchronous requests going on all the time."""
    dockerd = own_dockerd(live_restore=live_restore)
    server = start_server("--docker-host", dockerd.address)
    engine = EngineClient(dockerd.address)
    statuses: set[int] = set()
    for number in range(5):
        started = engine.run()
        eventually(lambda started=started: started[:12] in server.containers(), within_s=20)
        accepted = server.post(
            "/k12ai/platform/control",
            envelope(
                "container.stop", is_async=True, user=f"r{number}", service_params={"id": started, "timeout": 5}
            ),
        )
        dockerd.signal(signal.SIGKILL)
        statuses |= {server.stats().status_code for _ in range(20)}
        statuses.add(server.stop(started).status_code)
        with Client(server.url) as client:
            (outcome,) = client.read(strict(accepted)["message"]["key"], wait_s=20)
        assert outcome.value["result"]["code"] in (100000, 100610, 100611)
        dockerd.start()
        alive = {started[:12]} if engine.state(started)["Running"] else set()
        eventually(lambda alive=alive: alive <= set(server.containers()), within_s=20)
    assert statuses == {200, 503}
    engine.close()

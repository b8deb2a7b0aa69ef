"""The Engine dies, hangs and comes back (B21); what it runs meanwhile is unknown, not gone.

Each test has an Engine of its own and kills only that one.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.support.engine import IGNORES_TERM, EngineClient, OwnDockerd
from tests.support.server import Server, strict

pytestmark = [pytest.mark.docker, pytest.mark.timeout(180)]

Eventually = Callable[..., Any]


@pytest.fixture(name="dockerd", params=[True, False], ids=["live-restore", "no live-restore"])
def _dockerd(request: pytest.FixtureRequest, own_dockerd: Callable[..., OwnDockerd]) -> OwnDockerd:
    return own_dockerd(live_restore=request.param)


@pytest.fixture(name="containers")
def _containers(dockerd: OwnDockerd) -> Iterator[EngineClient]:
    client = EngineClient(dockerd.address)
    yield client
    client.close()


@pytest.fixture(name="watcher")
def _watcher(dockerd: OwnDockerd, start_server: Callable[..., Server]) -> Server:
    return start_server("--docker-host", dockerd.address)


def shown(server: Server) -> dict[str, Any]:
    """Return the containers' part of the stats, which must come within a second whatever happens."""
    began = time.monotonic()
    answer = server.stats(service_params={"containers": True})
    assert answer.status_code == 200
    assert time.monotonic() - began < 1
    message: dict[str, Any] = strict(answer)["message"]
    return message


def ids(message: dict[str, Any]) -> set[str]:
    return {each["id"] for each in message["containers"]}


@pytest.mark.slow
def test_killed_and_started_again(
    dockerd: OwnDockerd,
    containers: EngineClient,
    watcher: Server,
    eventually: Eventually,
    request: pytest.FixtureRequest,
) -> None:
    stays, ends = containers.run(), containers.run("sleep 6; exit 5")
    both = {stays[:12], ends[:12]}
    eventually(lambda: ids(shown(watcher)) == both)
    assert "containers_stale" not in shown(watcher)

    dockerd.signal(signal.SIGKILL)
    stale = eventually(lambda: (found := shown(watcher)).get("containers_stale") and found)
    assert ids(stale) == both, "the last known list"
    assert any("last known list of docker" in note for note in stale["notes"])
    stop = watcher.stop(stays)
    assert (stop.status_code, strict(stop)["code"]) == (503, 100610)
    assert "retry-after" in stop.headers
    assert watcher.http.put("/v1/kv/meanwhile", content=b"x").text == "true"
    assert watcher.http.get("/health").status_code == 200
    time.sleep(6)  # one container ends while nobody looks

    dockerd.start()
    survivors = {stays[:12]} if "no live-restore" not in request.node.name else set()
    eventually(
        lambda: "containers_stale" not in (found := shown(watcher)) and ids(found) == survivors, within_s=20
    )
    if survivors:
        assert containers.state(ends)["ExitCode"] == 5
        assert strict(watcher.stop(stays))["message"] == f"container id {stays[:12]} stop success"


@pytest.mark.slow
def test_stopped_in_order_and_started_again(
    dockerd: OwnDockerd, containers: EngineClient, watcher: Server, eventually: Eventually
) -> None:
    started = containers.run()
    eventually(lambda: ids(shown(watcher)) == {started[:12]})
    dockerd.signal(signal.SIGTERM)
    eventually(lambda: shown(watcher).get("containers_stale"), within_s=30)
    dockerd.start()
    eventually(lambda: "containers_stale" not in shown(watcher), within_s=20)
    assert ids(shown(watcher)) == ({started[:12]} if containers.state(started)["Running"] else set())


@pytest.mark.slow
def test_hung_and_awake_again(
    dockerd: OwnDockerd, containers: EngineClient, watcher: Server, eventually: Eventually
) -> None:
    started = containers.run()
    eventually(lambda: ids(shown(watcher)) == {started[:12]})
    dockerd.signal(signal.SIGSTOP)
    began = time.monotonic()
    stop = watcher.stop(started)
    assert (stop.status_code, strict(stop)["code"]) == (504, 100611)
    assert time.monotonic() - began < 5
    stale = eventually(lambda: (found := shown(watcher)).get("containers_stale") and found, within_s=15)
    assert ids(stale) == {started[:12]}
    dockerd.signal(signal.SIGCONT)
    eventually(lambda: "containers_stale" not in shown(watcher), within_s=20)
    assert containers.state(started)["Running"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_stop_in_flight_answers_within_5_s_when_the_engine_goes(
    dockerd: OwnDockerd, containers: EngineClient, watcher: Server, number: signal.Signals
) -> None:
    started = containers.run(IGNORES_TERM)
    answers: list[httpx.Response] = []
    waiting = threading.Thread(target=lambda: answers.append(watcher.stop(started, timeout=60)))
    waiting.start()
    time.sleep(1.5)
    dockerd.signal(number)
    waiting.join(timeout=6)
    assert answers, "the stop still waits"
    assert answers[0].status_code in (503, 504)
    assert strict(answers[0])["code"] in (100610, 100611)
    dockerd.signal(signal.SIGCONT)


def test_a_server_that_starts_before_its_engine_finds_it(
    own_dockerd: Callable[..., OwnDockerd], start_server: Callable[..., Server], eventually: Eventually
) -> None:
    dockerd = own_dockerd(live_restore=True)
    dockerd.signal(signal.SIGKILL)
    server = start_server("--docker-host", dockerd.address)
    found = shown(server)
    assert found["containers"] == []
    assert "containers_stale" not in found
    assert any("unknown, docker is unavailable" in note for note in found["notes"])
    dockerd.start()
    client = EngineClient(dockerd.address)
    started = client.run()
    client.close()
    eventually(lambda: ids(shown(server)) == {started[:12]}, within_s=15)

"""The Engine dies, ends or hangs while everything goes on at once (B21), and comes back.

Each test has an Engine of its own and takes only that one down. While it is away there are stops
under way, containers being started, readers of the stats and writers of keys.
"""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import msgspec
import pytest

from k12ai.client import Client
from tests.support.engine import IGNORES_TERM, EngineClient, OwnDockerd
from tests.support.server import Server, envelope, strict

pytestmark = [pytest.mark.slow, pytest.mark.docker]

StartServer = Callable[..., Server]
StartEngine = Callable[..., OwnDockerd]
Eventually = Callable[..., Any]
Record = Callable[[str, object], None]

GROWS_IN_4_S = """sleep 4; awk 'BEGIN { s = "x"; while (1) s = s s }'"""
STUBBORN = 3
READERS = 3
AWAY_S = 10
ANSWER_S = 5
BACK_S = 20


class Looker(EngineClient):
    """Asks the Engine itself what there is."""

    def running(self) -> set[str]:
        """Return the short ids of the running containers that carry the platform's label."""
        filters = msgspec.json.encode({"label": ["k12ai.service.name"]}).decode()
        rows = self._http.get("/containers/json", params={"filters": filters}).json()
        return {row["Id"][:12] for row in rows}


class Traffic:
    """Readers of the stats, a writer of keys, and somebody who starts containers, until it is over."""

    def __init__(self, server: Server, dockerd: OwnDockerd) -> None:
        self.listed: list[tuple[bool, list[str]]] = []  # stale or not, and the ids, of each answer
        self.keys = 0
        self.starts = 0
        self._server = server
        self._dockerd = dockerd
        self._over = threading.Event()
        self._pool = ThreadPoolExecutor(READERS + 2)

    def __enter__(self) -> "Traffic":
        work = [*[self._read] * READERS, self._write, self._start]
        self._running = [self._pool.submit(each) for each in work]
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._pool.shutdown()

    def check(self) -> None:
        """Raise what went wrong for one of them."""
        for each in self._running:
            each.result()

    def _read(self) -> None:
        body = msgspec.json.encode(envelope("query", service_params={"containers": True}))
        headers = {"Content-Type": "application/json"}
        with httpx.Client(base_url=self._server.url, trust_env=False, timeout=ANSWER_S) as http:
            while not self._over.wait(0.02):
                answer = http.post("/k12ai/platform/stats", content=body, headers=headers)
                assert answer.status_code == 200, answer.text
                message = strict(answer)["message"]
                ids = [each["id"] for each in message["containers"]]
                assert len(ids) == len(set(ids)), "a container is listed twice"
                self.listed.append((bool(message.get("containers_stale")), ids))

    def _write(self) -> None:
        with httpx.Client(base_url=self._server.url, trust_env=False, timeout=ANSWER_S) as http:
            while not self._over.wait(0.02):
                value = b"%d" % self.keys
                assert http.put("/v1/kv/meanwhile", content=value).text == "true"
                assert http.get("/v1/kv/meanwhile", params={"raw": ""}).content == value
                self.keys += 1

    def _start(self) -> None:
        client = EngineClient(self._dockerd.address)
        while not self._over.wait(0.1):
            # Nobody knows what became of those that the Engine did not answer; it will say.
            with contextlib.suppress(httpx.HTTPError, AssertionError):
                client.run("sleep 600", user="starts")
                self.starts += 1
        client.close()


class Stops:
    """Stops that are under way when the Engine goes, and what each of them was answered and when."""

    def __init__(self, server: Server, container_ids: list[str]) -> None:
        self.answers: dict[str, tuple[float, httpx.Response]] = {}
        self._server = server
        self._threads = [threading.Thread(target=self._stop, args=(each,)) for each in container_ids]
        for thread in self._threads:
            thread.start()

    def _stop(self, container_id: str) -> None:
        body = msgspec.json.encode(
            envelope("container.stop", service_params={"id": container_id, "timeout": 300})
        )
        answer = httpx.post(
            f"{self._server.url}/k12ai/platform/control",
            content=body,
            headers={"Content-Type": "application/json"},
            trust_env=False,
            timeout=60,
        )
        self.answers[container_id] = time.monotonic(), answer

    def wait(self) -> None:
        for thread in self._threads:
            thread.join(timeout=60)
            assert not thread.is_alive(), "a stop still waits"


def shown(server: Server) -> tuple[bool, list[str]]:
    """Return whether the list is old, and the ids on it."""
    answer = server.stats(service_params={"containers": True})
    assert answer.status_code == 200
    message = strict(answer)["message"]
    return bool(message.get("containers_stale")), [each["id"] for each in message["containers"]]


def agreed(server: Server, looker: Looker) -> set[str] | None:
    """Return the list where the server and the Engine have the same one, else None."""
    stale, ids = shown(server)
    return set(ids) if not stale and sorted(ids) == sorted(looker.running()) else None


def check_refusal(answer: httpx.Response) -> None:
    assert (answer.status_code, strict(answer)["code"]) in ((503, 100610), (504, 100611))
    assert answer.status_code == 504 or "retry-after" in answer.headers


@pytest.fixture(name="dockerd", params=[True, False], ids=["live-restore", "no live-restore"])
def _dockerd(request: pytest.FixtureRequest, own_dockerd: StartEngine) -> Iterator[OwnDockerd]:
    dockerd = own_dockerd(live_restore=request.param)
    yield dockerd
    dockerd.signal(signal.SIGKILL)  # asked to end, it would give each container its 10 s


@pytest.fixture(name="survives")
def _survives(request: pytest.FixtureRequest, dockerd: OwnDockerd, how: signal.Signals) -> bool:
    """Whether containers outlive this end of this Engine."""
    return how is signal.SIGSTOP or "no live-restore" not in request.node.name


@pytest.fixture(name="looker")
def _looker(dockerd: OwnDockerd) -> Iterator[Looker]:
    looker = Looker(dockerd.address)
    yield looker
    looker.close()


@pytest.fixture(name="watcher")
def _watcher(dockerd: OwnDockerd, start_server: StartServer) -> Server:
    return start_server("--docker-host", dockerd.address)


# Whoever starts containers meets an Engine that is away; httpcore leaves such sockets to the collector.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "how",
    [
        pytest.param(signal.SIGKILL, id="killed"),
        pytest.param(signal.SIGTERM, id="ended"),
        pytest.param(signal.SIGSTOP, id="hung"),
    ],
)
def test_an_engine_that_goes_during_stops_starts_and_stats_is_unknown_not_empty_and_is_found_again(
    dockerd: OwnDockerd,
    looker: Looker,
    watcher: Server,
    eventually: Eventually,
    how: signal.Signals,
    survives: bool,
    record_property: Record,
) -> None:
    stays, ends = looker.run(), looker.run("sleep 5; exit 5")
    stubborn = [looker.run(IGNORES_TERM) for _ in range(STUBBORN)]
    eventually(lambda: len(agreed(watcher, looker) or ()) == 2 + STUBBORN)
    stops = Stops(watcher, stubborn)
    with Traffic(watcher, dockerd) as traffic:
        time.sleep(1.5)
        assert not stops.answers
        gone_at = time.monotonic()
        dockerd.signal(how)
        down_at = time.monotonic()

        # A stop that is asked for now is refused in time.
        asked_at = time.monotonic()
        check_refusal(watcher.stop(stays))
        assert time.monotonic() - asked_at < ANSWER_S
        stops.wait()
        stopped = set()
        for container_id, (answered_at, answer) in stops.answers.items():
            assert answered_at - down_at < ANSWER_S
            if how is signal.SIGTERM and answer.status_code == 200:
                stopped.add(container_id)  # an Engine that is asked to end still answers, and may stop them all
            else:
                check_refusal(answer)
        eventually(lambda: shown(watcher)[0], within_s=15)
        time.sleep(max(0.0, gone_at + AWAY_S - time.monotonic()))
        assert shown(watcher)[0], "it is still away"

        dockerd.bring_back(how)
        began = time.monotonic()
        eventually(lambda: not shown(watcher)[0], within_s=BACK_S)
        back_s = time.monotonic() - began
    traffic.check()
    eventually(lambda: agreed(watcher, looker) is not None, within_s=BACK_S)
    alive = looker.running()
    assert not any(looker.state(each)["Running"] for each in stopped), "it was said to be stopped"

    if survives:
        assert stays[:12] in alive
        assert ends[:12] not in alive
        assert looker.state(ends)["ExitCode"] == 5
        # Neither the last known list nor any other was without what ran all the time.
        assert all(stays[:12] in ids for _, ids in traffic.listed)
        assert strict(watcher.stop(stays))["message"] == f"container id {stays[:12]} stop success"
        assert not looker.state(stays)["Running"]
    elif how is signal.SIGKILL:
        assert all(stays[:12] in ids for stale, ids in traffic.listed if stale)
    eventually(lambda: agreed(watcher, looker) is not None, within_s=BACK_S)
    record_property("in flight", sorted(answer.status_code for _, answer in stops.answers.values()))
    record_property("last of them after", f"{max(at for at, _ in stops.answers.values()) - gone_at:.1f} s")
    record_property("took to go", f"{down_at - gone_at:.1f} s")
    record_property("found again after", f"{back_s:.1f} s")
    record_property("stats", len(traffic.listed))
    record_property("of them stale", sum(stale for stale, _ in traffic.listed))
    record_property("keys", traffic.keys)
    record_property("starts", traffic.starts)


@pytest.mark.parametrize("dockerd", [True], ids=["live-restore"], indirect=True)
@pytest.mark.parametrize(
    "how", [pytest.param(signal.SIGKILL, id="killed"), pytest.param(signal.SIGSTOP, id="hung")]
)
def test_a_container_that_runs_out_of_memory_while_the_engine_is_away_is_not_listed_afterwards(
    dockerd: OwnDockerd,
    looker: Looker,
    watcher: Server,
    eventually: Eventually,
    how: signal.Signals,
    record_property: Record,
) -> None:
    limit = 32 << 20
    probe = looker.run("""awk 'BEGIN { s = "x"; while (length(s) < 268435456) s = s s }'""", memory=limit)
    eventually(lambda: not looker.state(probe)["Running"], within_s=30)
    if not looker.state(probe)["OOMKilled"]:
        pytest.skip(
            f"the Engine here enforces no memory limit: it ended with {looker.state(probe)['ExitCode']}"
        )
    stays, grows = looker.run(), looker.run(GROWS_IN_4_S, memory=limit)
    eventually(lambda: agreed(watcher, looker) == {stays[:12], grows[:12]})
    dockerd.signal(how)
    eventually(lambda: shown(watcher)[0], within_s=15)
    time.sleep(6)
    assert sorted(shown(watcher)[1]) == sorted({stays[:12], grows[:12]}), "the last known list"
    dockerd.bring_back(how)
    eventually(lambda: agreed(watcher, looker) == {stays[:12]}, within_s=BACK_S)
    state = looker.state(grows)
    assert state["ExitCode"] == 137
    # The Engine forgets why when it was not there to see it; nobody else may make it up.
    record_property("the Engine says", f"exit {state['ExitCode']}, OOMKilled {state['OOMKilled']}")


@pytest.mark.parametrize("dockerd", [True, False], ids=["live-restore", "no live-restore"], indirect=True)
def test_an_engine_that_dies_again_and_again_is_found_again(
    dockerd: OwnDockerd, looker: Looker, watcher: Server, eventually: Eventually, record_property: Record
) -> None:
    statuses: list[int] = []
    codes: list[int] = []
    for number in range(5):
        started = looker.run()
        eventually(lambda started=started: started[:12] in shown(watcher)[1], within_s=BACK_S)
        accepted = watcher.post(
            "/k12ai/platform/control",
            envelope(
                "container.stop", is_async=True, user=f"r{number}", service_params={"id": started, "timeout": 5}
            ),
        )
        dockerd.signal(signal.SIGKILL)
        statuses += [watcher.stats().status_code for _ in range(20)]
        statuses.append(watcher.stop(started).status_code)
        with Client(watcher.url) as client:
            (outcome,) = client.read(strict(accepted)["message"]["key"], wait_s=20)
        codes.append(outcome.value["result"]["code"])
        dockerd.start()
        eventually(lambda: agreed(watcher, looker) is not None, within_s=BACK_S)
    assert set(codes) <= {100000, 100610, 100611}
    assert set(statuses) == {200, 503}
    record_property("deaths", 5)
    record_property("answers", {status: statuses.count(status) for status in sorted(set(statuses))})
    record_property("asynchronous stops", codes)

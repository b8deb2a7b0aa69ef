"""The published routes, over HTTP, on a real server."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import httpx
import psutil
import pytest

from k12ai.client import Client
from tests.support.engine import EngineClient
from tests.support.server import Server, envelope, strict

Eventually = Callable[..., Any]


def message(response: httpx.Response) -> Any:
    body = strict(response)
    assert (response.status_code, body["code"], body["descr"]) == (200, 100000, "success")
    return body["message"]


def test_the_host_figures_are_this_machines(server: Server) -> None:
    found = message(server.stats(service_params={"cpus": True}))
    assert set(found) == {
        "cpu_percent",
        "cpu_percent_list",
        "cpu_memory_total",
        "cpu_memory_usage",
        "cpu_memory_percent",
        "sampled_at",
    }
    assert len(found["cpu_percent_list"]) == psutil.cpu_count()
    assert found["cpu_memory_total"] == psutil.virtual_memory().total
    assert 0 <= found["cpu_percent"] <= 100


@pytest.mark.parametrize(
    "params",
    [
        pytest.param({}, id="absent"),
        pytest.param({"service_params": None}, id="null"),
        pytest.param({"service_params": {}}, id="empty"),
        pytest.param({"service_params": "{}"}, id="a string with an empty object"),
    ],
)
def test_without_flags_every_part_comes(server: Server, params: dict[str, Any]) -> None:
    assert {"cpu_percent", "gpus", "disks", "containers"} <= set(message(server.stats(**params)))


def test_flags_may_come_in_a_string(server: Server) -> None:
    found = message(server.stats(service_params='{"disks": true}'))
    assert set(found) == {"disks", "sampled_at"}
    assert found["disks"][0].keys() == {"path", "disk_total", "disk_usage", "disk_percent"}


def test_added_fields_of_the_envelope_are_ignored(server: Server) -> None:
    message(server.stats(isasync=True, appId="x", service_params={"cpus": True, "unheard_of": 1}))


@pytest.mark.docker
def test_a_labelled_container_has_exactly_the_published_fields(
    server: Server, engine: EngineClient, eventually: Eventually
) -> None:
    started = engine.run("while :; do :; done", user="u", service_uuid="p", op="train.start", memory=32 << 20)
    shown = eventually(
        lambda: (found := server.containers().get(started[:12])) and found["cpu_percent"] > 1 and found
    )
    published = (
        "id",
        "cpu_percent",
        "cpu_memory_total",
        "cpu_memory_usage",
        "cpu_memory_percent",
        "op",
        "user",
        "service_uuid",
    )
    assert tuple(shown)[:8] == published
    assert (shown["op"], shown["user"], shown["service_uuid"]) == ("train.start", "u", "p")
    assert shown["cpu_memory_total"] == 32 << 20
    assert shown["cpu_percent"] < 110
    assert shown["started_at"] == engine.state(started)["StartedAt"]


@pytest.mark.docker
def test_a_frameworks_name_shows_only_its_containers(
    server: Server, engine: EngineClient, eventually: Eventually
) -> None:
    vision, language = engine.run(service_name="k12cv"), engine.run(service_name="k12nlp")
    eventually(lambda: {vision[:12], language[:12]} <= set(server.containers()))
    found = message(server.stats(service_name="k12nlp"))
    assert {each["service_name"] for each in found["containers"]} == {"k12nlp"}
    assert "cpu_percent" in found


@pytest.mark.docker
def test_stop_says_the_published_sentence_twice(server: Server, engine: EngineClient) -> None:
    started = engine.run()
    expected = {
        "code": 100000,
        "descr": "task service success",
        "message": f"container id {started[:12]} stop success",
    }
    for _ in range(2):
        answer = server.stop(started[:12])
        assert (answer.status_code, strict(answer)) == (200, expected)
    assert engine.state(started)["ExitCode"] == 7


def test_an_unknown_container_has_the_published_error_to_the_letter(server: Server) -> None:
    answer = server.stop("unknow")
    assert answer.status_code == 404
    assert answer.content == (
        b'{"code":100202,"descr":"task service start fails","message":"container id unknow is not found"}'
    )


@pytest.mark.docker
def test_foreign_containers_are_unknown_and_untouched(server: Server, engine: EngineClient) -> None:
    foreign = engine.run(service_name=None)
    before = engine.state(foreign)["StartedAt"]
    for attempt in (foreign, foreign[:12], foreign[:6]):
        answer = server.stop(attempt)
        assert answer.status_code == 404
        assert strict(answer)["message"] == f"container id {attempt} is not found"
    assert engine.state(foreign)["Running"]
    assert engine.state(foreign)["StartedAt"] == before


# --- asynchronous -----------------------------------------------------------------------------


def test_an_asynchronous_query_is_answered_with_its_key_and_published_below_it(server: Server) -> None:
    answer = server.stats(is_async=True, user="asker", service_params={"cpus": True})
    assert answer.status_code == 202
    assert strict(answer) == {
        "code": 100000,
        "descr": "success",
        "message": {"key": "platform/asker/uuid/query"},
    }
    with Client(server.url) as client:
        (stored,) = client.read("platform/asker/uuid/query", wait_s=10)
    assert stored.key == "platform/asker/uuid/query/result"
    published = stored.value
    assert list(published) == [
        "version", "type", "tag", "user", "service_uuid", "op", "timestamp", "datetime", "result",
    ]  # fmt: skip
    assert (published["tag"], published["type"], published["op"]) == ("platform", "result", "query")
    assert abs(published["timestamp"] - time.time() * 1000) < 60_000
    assert set(published["result"]) == {"code", "descr", "message"}
    assert "cpu_percent" in published["result"]["message"]
    assert "disks" not in published["result"]["message"]


def test_post_then_delete_then_read_finds_the_new_result_every_time(server: Server) -> None:
    with Client(server.url) as client:
        for _ in range(5):
            server.stats(is_async=True, user="racer")
            client.delete("platform/racer/uuid/query")
            assert client.read("platform/racer/uuid/query", wait_s=10)


def test_an_asynchronous_stop_of_an_unknown_container_publishes_the_error(server: Server) -> None:
    body = envelope("container.stop", is_async=True, user="stopper", service_params={"id": "unknow"})
    assert server.post("/k12ai/platform/control", body).status_code == 202
    with Client(server.url) as client:
        (stored,) = client.read("platform/stopper/uuid/container.stop", wait_s=10)
    assert stored.key == "platform/stopper/uuid/container.stop/result"
    assert stored.value["result"] == {
        "code": 100202,
        "descr": "task service start fails",
        "message": "container id unknow is not found",
    }


@pytest.mark.docker
def test_an_asynchronous_stop_stops(server: Server, engine: EngineClient) -> None:
    started = engine.run()
    body = envelope("container.stop", is_async=True, user="stopper2", service_params={"id": started[:12]})
    server.post("/k12ai/platform/control", body)
    with Client(server.url) as client:
        (stored,) = client.read("platform/stopper2/uuid/container.stop", wait_s=10)
    assert stored.value["result"]["message"] == f"container id {started[:12]} stop success"
    assert not engine.state(started)["Running"]


@pytest.mark.parametrize("params", [{}, {"id": 5}, {"id": "abcdef", "timeout": -1}])
def test_a_bad_asynchronous_request_is_refused_before_it_is_accepted(
    server: Server, params: dict[str, Any]
) -> None:
    body = envelope("container.stop", is_async=True, service_params=params)
    assert server.post("/k12ai/platform/control", body).status_code == 400


# --- for operators ----------------------------------------------------------------------------


def test_the_number_of_engine_calls_does_not_depend_on_the_clients(server: Server) -> None:
    async def ask() -> None:
        async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:
            answers = await asyncio.gather(
                *(client.post("/k12ai/platform/stats", json=envelope("query")) for _ in range(300))
            )
            assert {answer.status_code for answer in answers} == {200}

    before = server.metric("k12ai_engine_calls_total")
    asyncio.run(ask())
    # The heartbeat may fall into the burst; nothing else may.
    assert server.metric("k12ai_engine_calls_total") - before <= 2


def test_prometheus_reads_the_same_figures_in_base_units(server: Server) -> None:
    answer = server.http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    families = {line.split()[2] for line in answer.text.splitlines() if line.startswith("# TYPE")}
    assert {
        "k12ai_host_cpu_usage_ratio",
        "k12ai_host_memory_usage_bytes",
        "k12ai_disk_usage_bytes",
        "k12ai_container_memory_usage_bytes",
        "k12ai_http_requests_total",
        "k12ai_http_request_duration_seconds",
    } <= families
    total = next(line for line in answer.text.splitlines() if line.startswith("k12ai_host_memory_total_bytes"))
    assert float(total.split()[1]) == psutil.virtual_memory().total


def test_health_tells_which_sources_answer(server: Server) -> None:
    answer = server.http.get("/health")
    body = strict(answer)
    assert (answer.status_code, body["status"]) == (200, "ok")
    assert {"docker", "gpus"} <= set(body["sources"])


def test_the_api_page_needs_nothing_from_elsewhere(server: Server) -> None:
    page = server.http.get("/docs")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert "http://" not in page.text
    assert "https://" not in page.text
    script = server.http.get("/docs/rapidoc-min.js")
    assert script.headers["content-type"].startswith("text/javascript")
    assert len(script.content) > 500_000


def test_the_api_document_defines_every_shape_that_it_names(server: Server) -> None:
    document = strict(server.http.get("/docs/openapi.json"))
    assert document["openapi"] == "3.1.0"
    references = [part for part in str(document).split("'") if part.startswith("#/components/schemas/")]
    assert {part.rsplit("/", 1)[1] for part in references} <= set(document["components"]["schemas"])

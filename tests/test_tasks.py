"""Tasks over HTTP: the published routes, the modern ones, and the two seeing the same."""

import contextlib
import os
import subprocess
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from k12ai.client import Client, RequestRefused, TaskFailed
from tests.support.programs import SLEEP
from tests.support.server import Server, strict

Eventually = Callable[..., Any]
USER = ""  # see the fixture `user`


@pytest.fixture(name="machine", scope="module", params=["process", "docker"])
def _machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with room for a few tasks at once, without an Engine or with every task in a container."""
    engine = "unix:///nonexistent/docker.sock"
    if request.param == "docker":
        request.getfixturevalue("task_images")
        engine = request.getfixturevalue("docker_host")
    options = ("--max-tasks", "8", "--runtime", request.param, "--docker-host", engine)
    with Server(tmp_path_factory.mktemp("tasks") / "data", *options) as server:
        yield server


@pytest.fixture(name="user", autouse=True)
def _user(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A user of the test's own: what other tests have said is not under its keys."""
    user = f"u{zlib.crc32(request.node.nodeid.encode()):08x}"
    monkeypatch.setattr("tests.test_tasks.USER", user)
    return user


@pytest.fixture(name="client")
def _client(machine: Server) -> Any:
    with Client(machine.url) as client:
        yield client


def execute(server: Server, op: str, *, path: str = "execute", **fields: Any) -> httpx.Response:
    body = {"op": op, "user": USER, "service_name": "k12py", "service_uuid": "p1", **fields}
    return server.post(f"/k12ai/framework/{path}", body)


def start(server: Server, code: str, **fields: Any) -> dict[str, Any]:
    answer = execute(server, "runcode.start", service_params={"code": code}, **fields)
    assert answer.status_code == 202, answer.text
    message: dict[str, Any] = strict(answer)["message"]
    return message


# --- the published routes ---------------------------------------------------------------------


def test_a_start_answers_with_the_id_the_key_and_the_state(machine: Server, client: Client) -> None:
    answer = execute(machine, "runcode.start", service_params={"code": "print('hello')"})
    body = strict(answer)
    assert (answer.status_code, body["code"], body["descr"]) == (202, 100000, "success")
    assert body["message"]["key"] == f"framework/{USER}/p1/runcode.start"
    assert body["message"]["state"] == "queued"
    assert len(body["message"]["task_id"]) == 12
    client.handle(body["message"]["task_id"]).wait(progress=False)
    statuses = client.read(f"{body['message']['key']}/status")
    assert [each.value["status"]["value"] for each in statuses] == [
        "queued",
        "starting",
        "running",
        "succeeded",
    ]
    first = statuses[0].value
    assert {name: first[name] for name in ("version", "type", "tag", "user", "service_uuid", "op")} == {
        "version": "0.1.0",
        "type": "status",
        "tag": "framework",
        "user": USER,
        "service_uuid": "p1",
        "op": "runcode.start",
    }
    assert isinstance(first["timestamp"], int)


def test_what_a_program_reports_is_under_its_key(machine: Server, client: Client) -> None:
    code = "from k12ai import report\nreport.metric(loss=0.25, step=1)\nreport.result(answer='四十二')"
    key = start(machine, code)["key"]
    (result,) = client.read(f"{key}/result", wait_s=30)
    assert result.value["result"]["answer"] == "四十二"
    (metric,) = client.read(f"{key}/metrics")
    assert metric.value["metrics"]["loss"] == 0.25
    assert result.key.rsplit("/", 1)[1].isdigit()


def test_a_second_start_while_one_runs_is_409(machine: Server) -> None:
    task_id = start(machine, SLEEP)["task_id"]
    answer = execute(machine, "runcode.start", service_params={"code": "pass"})
    body = strict(answer)
    assert (answer.status_code, body["code"], body["descr"]) == (409, 100204, "task is running")
    assert task_id in body["message"]
    execute(machine, "runcode.stop")


def test_a_stop_answers_when_it_is_gone_and_then_there_is_nothing_to_stop(
    machine: Server, client: Client
) -> None:
    started = start(machine, SLEEP)
    answer = execute(machine, "runcode.stop")
    body = strict(answer)
    assert (answer.status_code, body["code"]) == (200, 100000)
    assert body["message"] == {"task_id": started["task_id"], "key": started["key"], "state": "stopped"}
    again = execute(machine, "runcode.stop")
    assert (again.status_code, strict(again)["code"]) == (404, 100205)
    last = client.read(f"{started['key']}/status")[-1].value["status"]
    assert (last["value"], last["reason"], last["code"]) == ("stopped", "stopped_by_user", 100004)


@pytest.mark.parametrize("path", ["train", "evaluate", "predict"])
def test_the_older_paths_take_the_same_body(machine: Server, client: Client, path: str) -> None:
    answer = execute(machine, "runcode.start", path=path, service_params='{"code": "pass"}')
    assert answer.status_code == 202
    client.handle(strict(answer)["message"]["task_id"]).wait(progress=False)


def test_a_start_that_is_sent_again_with_its_key_is_the_same_task(machine: Server) -> None:
    body = {
        "op": "runcode.start",
        "user": USER,
        "service_name": "k12py",
        "service_uuid": "p1",
        "service_params": {"code": SLEEP},
    }
    ids = {
        strict(machine.post("/k12ai/framework/execute", body, **{"Idempotency-Key": "once"}))["message"][
            "task_id"
        ]
        for _ in range(3)
    }
    assert len(ids) == 1
    execute(machine, "runcode.stop")


@pytest.mark.parametrize(
    ("op", "fields", "status", "code", "words"),
    [
        ("runcode", {}, 400, 100102, "op: must be one of"),
        ("train.start", {}, 400, 100102, "op: must be one of runcode.start"),
        ("runcode.start", {"service_name": "k12nothing"}, 404, 100201, "service_name"),
        ("runcode.start", {"user": "../../etc"}, 400, 100102, "user: must be 1 to 64"),
        ("runcode.start", {"service_uuid": ""}, 400, 100102, "service_uuid: must be 1 to 64"),
        ("runcode.start", {"service_params": {"code": 7}}, 400, 100203, "service_params.code"),
        ("runcode.start", {"service_params": {"code": "pass", "what": 1}}, 400, 100203, "service_params.what"),
        ("runcode.start", {"service_params": "[1]"}, 400, 100203, "service_params: must be a JSON object"),
        ("runcode.start", {"service_params": {"script": "../x.py"}}, 400, 100203, "service_params.script"),
        ("runcode.start", {"limits": {"wall_time_s": 0}}, 400, 100102, "limits: must be an object"),
        ("runcode.stop", {"service_params": {"timeout": -1}}, 400, 100203, "service_params.timeout"),
    ],
)
def test_what_is_refused_starts_nothing_and_names_the_field(
    machine: Server, client: Client, op: str, fields: dict[str, Any], status: int, code: int, words: str
) -> None:
    answer = execute(machine, op, **({"service_params": {"code": "pass"}} | fields))
    body = strict(answer)
    assert (answer.status_code, body["code"]) == (status, code), body
    assert words in body["message"]
    assert client.tasks(user=USER) == []
    chinese = machine.post(
        "/k12ai/framework/execute",
        {"op": op, "user": USER, "service_name": "k12py", "service_uuid": "p1", "service_params": {}} | fields,
        **{"Accept-Language": "zh"},
    )
    assert any("\u4e00" <= character <= "\u9fff" for character in strict(chinese)["message"])


def test_the_schema_has_titles_in_both_languages(machine: Server) -> None:
    answer = execute(machine, "runcode.start", path="schema")
    schema = strict(answer)["message"]
    for part in schema["properties"].values():
        assert part["title"]
        assert any("\u4e00" <= character <= "\u9fff" for character in part["x-title-zh"])


# --- as containers ----------------------------------------------------------------------------


def test_a_task_is_a_container_in_the_stats_and_container_stop_stops_it(
    machine: Server, client: Client, eventually: Eventually
) -> None:
    started = start(machine, SLEEP)
    container_id = eventually(lambda: client.task(started["task_id"]).container_id, within_s=20)
    shown = eventually(lambda: machine.containers().get(container_id), within_s=20)
    assert (shown["op"], shown["user"], shown["service_uuid"]) == ("runcode.start", USER, "p1")
    assert shown["service_name"] == "k12py"
    stopped = machine.stop(container_id, timeout=10)
    assert strict(stopped)["message"] == f"container id {container_id} stop success"
    assert client.task(started["task_id"]).state == "stopped"
    assert strict(machine.stop(container_id))["message"].endswith("stop success")
    eventually(lambda: container_id not in machine.containers())


# --- the modern routes ------------------------------------------------------------------------


def test_a_handle_submits_follows_and_returns_the_result(client: Client) -> None:
    code = "from k12ai import report\nfor n in range(3):\n    report.metric(n=n)\nreport.result(total=3)"
    handle = client.submit("k12py", "runcode.start", "p1", {"code": code}, user=USER)
    assert [each.body["n"] for each in handle.messages("metrics")] == [0, 1, 2]
    assert handle.result()["total"] == 3
    assert handle.state == "succeeded"
    assert [each.task_id for each in client.tasks(user=USER)] == [handle.task_id]
    assert client.tasks(user=USER, active=True) == []


def test_a_failure_is_raised_with_its_explanation(client: Client) -> None:
    handle = client.submit("k12py", "runcode.start", "p1", {"code": "import nonsense_module"}, user=USER)
    with pytest.raises(TaskFailed) as failed:
        handle.result()
    assert failed.value.task.code == 100910
    assert "nonsense_module" in failed.value.error["zh"]


def test_output_is_followed_while_it_is_printed(client: Client) -> None:
    code = "import time\nfor n in range(3):\n    print('line', n, flush=True)\n    time.sleep(0.3)"
    handle = client.submit("k12py", "runcode.start", "p1", {"code": code}, user=USER)
    seen: list[tuple[float, str]] = [(time.monotonic(), piece) for piece in handle.logs(follow=True)]
    assert "".join(piece for _, piece in seen) == "line 0\nline 1\nline 2\n"
    assert seen[-1][0] - seen[0][0] > 0.3, "it came while the task ran"


def test_messages_wait_for_the_next_one(client: Client) -> None:
    code = "import time; time.sleep(1)\nfrom k12ai import report; report.metric(n=1)"
    handle = client.submit("k12py", "runcode.start", "p1", {"code": code}, user=USER)
    found = client.messages(handle.task_id, 0, types=("metrics",), wait_s=30)
    assert [each.body["n"] for each in found.messages] == [1]
    assert client.messages(handle.task_id, found.cursor, types=("metrics",)).messages == []
    handle.wait(progress=False)


def test_events_are_streamed_until_the_end(machine: Server, client: Client) -> None:
    handle = client.submit("k12py", "runcode.start", "p1", {"code": "pass"}, user=USER)
    handle.wait(progress=False)
    lines: list[str] = []
    with machine.http.stream("GET", f"/api/v1/tasks/{handle.task_id}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            lines.append(line)
            if '"succeeded"' in line:
                break
    kinds = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    assert kinds == ["status"] * 4


def test_stopping_by_id_returns_the_ended_task(client: Client) -> None:
    handle = client.submit("k12py", "runcode.start", "p1", {"code": SLEEP}, user=USER)
    assert handle.stop(grace_s=5).state == "stopped"
    assert client.stop_task(handle.task_id).state == "stopped", "stopping it again says the same"


@pytest.mark.parametrize(
    "path", ["tasks/ffffffffffff", "tasks/ffffffffffff/logs", "tasks/ffffffffffff/messages"]
)
def test_an_unknown_task_is_a_404_problem(machine: Server, path: str) -> None:
    answer = machine.http.get(f"/api/v1/{path}")
    problem = strict(answer)
    assert (answer.status_code, problem["code"]) == (404, 100205)
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("query", ["after=x", "wait=-1", "wait=1e9", "type=everything", "after=-5"])
def test_a_bad_query_is_a_400_problem(machine: Server, client: Client, query: str) -> None:
    handle = client.submit("k12py", "runcode.start", "p1", {"code": "pass"}, user=USER)
    answer = machine.http.get(f"/api/v1/tasks/{handle.task_id}/messages?{query}")
    assert (answer.status_code, strict(answer)["code"]) == (400, 100102)
    handle.wait(progress=False)


def test_frameworks_say_what_they_are_in_the_callers_language(machine: Server) -> None:
    english = strict(machine.http.get("/api/v1/frameworks"))["frameworks"]
    chinese = strict(machine.http.get("/api/v1/frameworks", headers={"Accept-Language": "zh"}))["frameworks"]
    assert "k12py" in {each["name"] for each in english}
    assert all(one["title"] != other["title"] for one, other in zip(english, chinese, strict=True))


def test_the_host_is_a_resource_with_every_part(machine: Server) -> None:
    host = strict(machine.http.get("/api/v1/host"))
    assert {"cpu_percent", "gpus", "disks", "containers", "nodes", "users", "sampled_at"} <= set(host)
    assert set(host["nodes"][0]["runtimes"]) == {"docker", "process"}


# --- bad days ---------------------------------------------------------------------------------


def test_tasks_outlive_the_server_and_the_next_one_knows_them(
    start_server: Callable[..., Server], eventually: Eventually
) -> None:
    first = start_server("--max-tasks", "8", name="restart")
    lives = start(first, SLEEP)["task_id"]
    ends = start(first, "import time; time.sleep(0.5); raise SystemExit(5)", service_uuid="p2")["task_id"]
    eventually(lambda: lives in first.containers(), within_s=20)
    first.kill()
    time.sleep(1)
    second = start_server("--max-tasks", "8", name="restart")
    with Client(second.url) as client:
        assert client.handle(ends).wait(progress=False).exit_code == 5
        assert client.task(lives).state == "running"
        assert client.stop_task(lives).state == "stopped"


def test_a_stop_that_waits_is_503_when_the_server_stops_and_goes_on(
    start_server: Callable[..., Server],
) -> None:
    server = start_server("--max-tasks", "8", name="closing")
    ignores = f"import signal; signal.signal(15, signal.SIG_IGN); {SLEEP}"
    task_id = start(server, ignores)["task_id"]
    with Client(server.url) as client:
        assert next(client.logs(task_id, follow=True)).startswith("up")
    answers: list[httpx.Response] = []

    def stop() -> None:
        answers.append(execute(server, "runcode.stop", service_params={"timeout": 3}))

    waiting = threading.Thread(target=stop)
    waiting.start()
    time.sleep(0.5)
    assert server.terminate() == 0
    waiting.join(10)
    assert (answers[0].status_code, strict(answers[0])["code"]) == (503, 100615)
    again = start_server("--max-tasks", "8", name="closing")
    with Client(again.url) as client:
        assert client.handle(task_id).wait(progress=False).state == "stopped"


def test_twenty_starts_at_once_are_one_task(machine: Server) -> None:
    """B18."""
    statuses: list[int] = []

    def ask() -> None:
        with httpx.Client(base_url=machine.url, trust_env=False, timeout=30) as http:
            body = {
                "op": "runcode.start",
                "user": USER,
                "service_name": "k12py",
                "service_uuid": "p1",
                "service_params": {"code": SLEEP},
            }
            content = msgspec.json.encode(body)
            headers = {"Content-Type": "application/json"}
            statuses.append(http.post("/k12ai/framework/execute", content=content, headers=headers).status_code)

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(statuses) == [202] + [409] * 19
    execute(machine, "runcode.stop")


def test_a_refusal_reaches_the_client_as_an_error_with_its_code(client: Client) -> None:
    with pytest.raises(RequestRefused) as refused:
        client.submit("k12py", "runcode.start", "p1", {"code": "pass", "wrong": 1}, user=USER)
    assert refused.value.code == 100203


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_on_a_full_disk_a_stop_still_works_and_nothing_acknowledged_is_lost(
    tmp_path: Path, start_server: Callable[..., Server], request: pytest.FixtureRequest
) -> None:
    """B26."""
    disk = tmp_path / "small"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)], check=True)
    request.addfinalizer(lambda: subprocess.run(["umount", "-l", str(disk)], check=True))
    server = start_server("--max-tasks", "8", name="small/data")
    task_id = start(server, SLEEP)["task_id"]
    with Client(server.url) as client:
        assert next(client.logs(task_id, follow=True)).startswith("up")
        ballast = disk / "ballast"
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 4096)
        assert server.http.put("/v1/kv/x", content=b"x" * 100_000).status_code == 507
        refused = execute(server, "runcode.start", service_uuid="p2", service_params={"code": "pass"})
        assert refused.status_code == 507
        assert client.task(task_id).state == "running", "reading works"
        answer = execute(server, "runcode.stop", service_params={"timeout": 5})
        assert (answer.status_code, strict(answer)["message"]["state"]) == (200, "stopped")
        ballast.unlink()
        deadline = time.monotonic() + 15
        while (
            client.read(f"framework/{USER}/p1/runcode.start/status")[-1].value["status"]["value"] != "stopped"
        ):
            assert time.monotonic() < deadline, "it heals by itself"
            time.sleep(0.1)


def test_a_flood_of_output_is_kept_within_bounds_and_blocks_nobody(client: Client, machine: Server) -> None:
    """B26: the newest 10 MiB are there, whatever is printed."""
    code = "line = 'x' * 1023\nfor n in range(50_000): print(line)\nprint('the end')"
    handle = client.submit("k12py", "runcode.start", "p1", {"code": code}, user=USER)
    assert handle.wait(progress=False).state == "succeeded"
    output = "".join(handle.logs())
    assert output.endswith("the end\n")
    assert 5 << 20 < len(output) <= 10 << 20


def test_a_stop_says_who_asked_for_it(client: Client, machine: Server) -> None:
    handle = client.submit("k12py", "runcode.start", "p1", {"code": SLEEP}, user=USER)
    path = f"/api/v1/tasks/{handle.task_id}/stop"
    refused = machine.post(f"{path}?user=../x", {})
    assert (refused.status_code, strict(refused)["code"]) == (400, 100102)
    assert strict(machine.post(f"{path}?user=teacher&timeout=0", {}))["stopped_by"] == "teacher"
    assert list(handle.messages("status"))[-1].body["stopped_by"] == "teacher"


@pytest.mark.parametrize(
    ("field", "value"), [("framework", 1), ("op", None), ("params", []), ("limits", "none")]
)
def test_a_field_of_a_wrong_type_is_named(machine: Server, field: str, value: object) -> None:
    wanted = {"framework": "k12py", "op": "runcode.start", "user": USER, "service_uuid": "p1"}
    answer = machine.post("/api/v1/tasks", wanted | {"params": {"code": "pass"}, field: value})
    problem = strict(answer)
    assert (answer.status_code, problem["code"]) == (400, 100102)
    assert problem["detail"].startswith(f"{field}: must be ")


@pytest.mark.parametrize("field", ["user", "service_uuid"])
@pytest.mark.parametrize("value", ["../x", "a/b", "", ".", "x" * 65])
def test_the_modern_route_takes_no_other_names_than_the_published_one(
    machine: Server, client: Client, field: str, value: str
) -> None:
    wanted = {"framework": "k12py", "op": "runcode.start", "user": USER, "service_uuid": "p1"}
    answer = machine.post("/api/v1/tasks", wanted | {"params": {"code": "pass"}, field: value})
    assert (answer.status_code, strict(answer)["code"]) == (400, 100102)
    assert client.tasks(user=USER) == []

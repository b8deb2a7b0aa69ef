"""The process: it starts, it stops, it comes back."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from k12ai.client import Client
from tests.support.engine import IGNORES_TERM, EngineClient
from tests.support.process import resident_bytes
from tests.support.server import Server, envelope, strict

StartServer = Callable[..., Server]


def run(
    *arguments: str, environ: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "k12ai", *arguments]
    return subprocess.run(
        command, env={**os.environ, **(environ or {})}, cwd=cwd, capture_output=True, text=True, timeout=30
    )


def test_standard_output_is_the_ready_line_alone(start_server: StartServer) -> None:
    server = start_server()
    assert server.terminate() == 0
    assert server.process.stdout is not None
    assert server.process.stdout.read() == b""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_0(start_server: StartServer, number: signal.Signals) -> None:
    server = start_server()
    server.process.send_signal(number)
    assert server.process.wait(timeout=15) == 0


def test_a_waiting_read_answers_at_once_when_the_server_stops(start_server: StartServer) -> None:
    server = start_server()
    answers: list[httpx.Response] = []
    reader = threading.Thread(
        target=lambda: answers.append(server.http.get("/v1/kv/nothing", params={"index": "99", "wait": "60s"}))
    )
    reader.start()
    time.sleep(0.5)
    assert server.terminate() == 0
    reader.join(timeout=5)
    assert answers[0].status_code == 404
    assert int(answers[0].headers["X-Consul-Index"]) >= 1


@pytest.mark.docker
def test_a_waiting_stop_answers_503_when_the_server_stops_and_goes_on(
    start_server: StartServer, engine: EngineClient, eventually: Callable[..., Any]
) -> None:
    server = start_server()
    started = engine.run(IGNORES_TERM)
    answers: list[httpx.Response] = []
    waiting = threading.Thread(target=lambda: answers.append(server.stop(started, timeout=3)))
    waiting.start()
    time.sleep(1)
    assert server.terminate() == 0
    waiting.join(timeout=5)
    assert (answers[0].status_code, strict(answers[0])["code"]) == (503, 100615)
    assert "retry-after" in answers[0].headers
    eventually(lambda: not engine.state(started)["Running"], within_s=15)


def test_what_was_accepted_before_a_kill_is_published_after_the_next_start(start_server: StartServer) -> None:
    server = start_server()
    answer = server.stats(is_async=True, user="patient")
    server.kill()
    assert answer.status_code == 202
    again = start_server()
    with Client(again.url) as client:
        (stored,) = client.read(strict(answer)["message"]["key"], wait_s=10)
    assert stored.value["result"]["code"] == 100000


def test_results_are_still_there_after_a_kill_and_the_index_has_not_gone_back(
    start_server: StartServer,
) -> None:
    server = start_server()
    for number in range(20):
        assert server.http.put(f"/v1/kv/kept/{number}", content=b"x").text == "true"
    index = int(server.http.get("/v1/kv/kept/", params={"recurse": ""}).headers["X-Consul-Index"])
    server.kill()
    again = start_server()
    answer = again.http.get("/v1/kv/kept/", params={"recurse": ""})
    assert len(strict(answer)) == 20
    assert int(answer.headers["X-Consul-Index"]) >= index


def test_the_second_port_serves_the_results_and_nothing_else(start_server: StartServer) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = start_server("--kv-port", str(port))
    server.http.put("/v1/kv/a", content=b"1")
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as consul:
        assert consul.get("/v1/kv/a", params={"raw": ""}).content == b"1"
        assert consul.post("/k12ai/platform/stats", json=envelope("query")).status_code == 404
        assert consul.get("/health").status_code == 404
        assert consul.get("/v1/kv/a", headers={"Host": "evil.test"}).status_code == 421


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_it_refuses_to_listen_where_others_can_reach_it(host: str, tmp_path: Path) -> None:
    refused = run("serve", "--host", host, "--port", "0", "--data-dir", str(tmp_path))
    assert refused.returncode == 2
    assert "refusing to listen" in refused.stderr
    assert "ssh -L" in refused.stderr
    assert refused.stdout == ""


def test_it_refuses_in_chinese_where_the_terminal_is(tmp_path: Path) -> None:
    refused = run("serve", "--host", "0.0.0.0", "--data-dir", str(tmp_path), environ={"LANG": "zh_CN.UTF-8"})
    assert "拒绝在" in refused.stderr


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = run("serve", "--port", str(port), "--data-dir", str(tmp_path))
    assert refused.returncode == 2
    assert f"port {port}" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_directory_that_is_in_use_is_named(start_server: StartServer) -> None:
    server = start_server()
    refused = run("serve", "--port", "0", "--data-dir", str(server.data_dir))
    assert refused.returncode == 2
    assert "in use by another" in refused.stderr


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused = run("serve", "--port", "0", "--data-dir", str(tmp_path / "file" / "below"))
    assert refused.returncode == 2
    assert "data_dir" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_settings_come_from_the_file_in_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "k12ai.toml").write_text('host = "0.0.0.0"\n')
    refused = run("serve", cwd=tmp_path, environ={"K12AI_DATA_DIR": str(tmp_path)})
    assert (refused.returncode, "refusing to listen" in refused.stderr) == (2, True)


def test_its_memory_does_not_grow_with_requests(start_server: StartServer) -> None:
    server = start_server()
    for _ in range(500):
        server.stats()
    before = resident_bytes(server.process.pid)
    for _ in range(2000):
        server.stats()
    assert resident_bytes(server.process.pid) - before < 4 << 20

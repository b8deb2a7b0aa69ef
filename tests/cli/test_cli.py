"""The command line: what it prints, where, and with which exit code."""

import functools
import http.server
import io
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest
from rich.console import Console, RenderableType

from k12ai.cli import stats as view
from k12ai.cli.words import language
from k12ai.models import Container, Gpu, GpuHolder, GpuLedger, StatsMessage, UserUsage
from k12ai.monitor import ledger
from k12ai.monitor.gpu import ProcessSample
from k12ai.monitor.processes import Process
from k12ai.texts import printable
from tests.support.engine import EngineClient
from tests.support.fakes import gpu_sample
from tests.support.server import Server


def k12ai(*arguments: str, url: str | None = None, lang: str = "C.UTF-8") -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "LANG": lang, "COLUMNS": "120", **({"K12AI_SERVER_URL": url} if url else {})}
    return subprocess.run(
        [sys.executable, "-m", "k12ai", *arguments], env=environ, capture_output=True, text=True, timeout=60
    )


def test_stats_shows_a_picture(server: Server) -> None:
    shown = k12ai("stats", url=server.url)
    assert shown.returncode == 0, shown.stderr
    assert server.url in shown.stdout
    assert "CPU" in shown.stdout
    assert "Containers" in shown.stdout


def test_stats_speaks_the_terminals_language(server: Server) -> None:
    assert "处理器" in k12ai("stats", url=server.url, lang="zh_CN.UTF-8").stdout


def test_stats_json_is_the_published_message(server: Server) -> None:
    shown = k12ai("stats", "--json", "--server", server.url)
    message = msgspec.json.decode(shown.stdout)
    assert {"cpu_percent", "gpus", "disks", "containers", "sampled_at"} <= set(message)


@pytest.mark.docker
def test_stop_stops_and_says_so(server: Server, engine: EngineClient) -> None:
    started = engine.run()
    shown = k12ai("stop", started[:12], "--grace", "5", url=server.url)
    assert (shown.returncode, shown.stdout) == (0, f"container id {started[:12]} stop success\n")
    assert not engine.state(started)["Running"]


def test_a_refusal_is_1_with_the_words_and_the_next_step_on_standard_error(server: Server) -> None:
    shown = k12ai("stop", "unknow", url=server.url)
    assert (shown.returncode, shown.stdout) == (1, "")
    assert shown.stderr == (
        "task service start fails: container id unknow is not found\n"
        "Ask for the current list and use an id from it.\n"
    )
    chinese = k12ai("stop", "unknow", url=server.url, lang="zh_CN.UTF-8").stderr
    assert chinese == "任务服务启动失败: 找不到 id 为 unknow 的容器\n查询当前列表，使用其中的 id。\n"


@pytest.mark.parametrize(
    "arguments", [("stop",), ("stop", "x", "--grace", "601"), ("nonsense",), ("stats", "--what")]
)
def test_wrong_usage_is_2(arguments: tuple[str, ...]) -> None:
    assert k12ai(*arguments).returncode == 2


@pytest.mark.parametrize(
    "arguments", [("stats",), ("stop", "abcdef"), ("stats", "--json"), ("stats", "--watch")]
)
def test_no_server_is_3_and_says_how_to_start_one(arguments: tuple[str, ...]) -> None:
    shown = k12ai(*arguments, "--server", "http://127.0.0.1:1")
    assert shown.returncode == 3
    assert "k12ai serve" in shown.stderr
    assert "Traceback" not in shown.stderr


def test_something_else_at_the_address_is_3_and_not_a_traceback(tmp_path: Path) -> None:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        shown = k12ai("stats", "--server", f"http://127.0.0.1:{other.server_port}")
        other.shutdown()
    assert shown.returncode == 3
    assert "not K12AI's answer" in shown.stderr
    assert "Traceback" not in shown.stderr


def test_the_module_is_the_command() -> None:
    assert k12ai("--version").stdout.startswith("k12ai ")


def test_watch_draws_again_and_ends_with_ctrl_c(server: Server) -> None:
    controller, terminal = pty.openpty()
    environ = {
        **os.environ,
        "K12AI_SERVER_URL": server.url,
        "TERM": "xterm-256color",
        "COLUMNS": "120",
        "LINES": "40",
    }
    watching = subprocess.Popen(
        [sys.executable, "-m", "k12ai", "stats", "--watch"],
        stdout=terminal,
        stdin=terminal,
        stderr=terminal,
        env=environ,
    )
    os.close(terminal)
    drawn = bytearray()

    def read() -> None:
        try:
            while chunk := os.read(controller, 65536):
                drawn.extend(chunk)
        except OSError:
            pass  # the other end is closed

    reader = threading.Thread(target=read)
    reader.start()
    deadline = time.monotonic() + 20
    while drawn.count(b"K12AI") < 3 and time.monotonic() < deadline:
        time.sleep(0.1)
    watching.send_signal(signal.SIGINT)
    try:
        assert watching.wait(timeout=10) == 0, drawn[-1000:]
    finally:
        watching.kill()
        watching.wait()
    reader.join(timeout=5)
    os.close(controller)
    assert drawn.count(b"K12AI") >= 3
    assert b"Traceback" not in drawn


# --- the picture ------------------------------------------------------------------------------


def drawn(picture: RenderableType, width: int = 100) -> str:
    out = io.StringIO()
    Console(file=out, width=width, color_system=None, force_terminal=False).print(picture)
    return out.getvalue()


def container(**fields: object) -> Container:
    values: dict[str, object] = {
        "id": "8b6ffc639aaa",
        "cpu_percent": 99.5,
        "cpu_memory_total": 1 << 30,
        "cpu_memory_usage": 512 << 20,
        "cpu_memory_percent": 50.0,
        "op": "train.start",
        "user": "student-with-a-very-long-name@school.example",
        "service_uuid": "project",
        "service_name": "k12cv",
        "status": "running",
        "started_at": "2026-01-01T00:00:00.123456789Z",
        "gpus": [],
        "gpu_memory_usage": 0,
        "gpu_percent": 0.0,
    }
    return msgspec.convert(values | fields, Container)


def gpu(**fields: object) -> Gpu:
    sample = gpu_sample(name="Tesla P40", memory_usage=6 << 30, **fields)
    return ledger.account(sample, {7: Process("Xorg", "root", None)}, {}).gpu


def test_an_id_is_never_cut_because_it_is_what_one_types() -> None:
    for width in (80, 100, 200):
        assert "8b6ffc639aaa" in drawn(view.picture(StatsMessage(containers=[container()]), "http://x"), width)


def test_the_busiest_container_comes_first() -> None:
    idle = container(id="0" * 12, cpu_percent=0.1)
    shown = drawn(view.picture(StatsMessage(containers=[idle, container()]), "http://x"))
    assert shown.index("8b6ffc639aaa") < shown.index("0" * 12)


def test_what_strangers_wrote_into_labels_is_shown_and_not_obeyed() -> None:
    hostile = container(user="[red]x[/red]\x1b[2J\x07", op="\x9b31m")
    shown = drawn(view.picture(StatsMessage(containers=[hostile]), "http://x"), 200)
    assert "[red]x[/red]" in shown
    assert "\x1b" not in shown
    assert "\x9b" not in shown
    assert printable("a\nb\x00") == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}"


def test_a_stale_list_and_notes_are_said() -> None:
    shown = drawn(view.picture(StatsMessage(containers=[], containers_stale=True, notes=["why"]), "http://x"))
    assert "last known" in shown
    assert "why" in shown


def test_gpus_are_drawn_also_where_figures_are_missing() -> None:
    shown = drawn(view.picture(StatsMessage(gpus=[gpu()]), "http://x"))
    assert "Tesla P40" in shown
    assert "6.0 GiB / 24.0 GiB" in shown


def test_the_holders_of_a_gpus_memory_are_drawn_and_the_rest_is_named() -> None:
    owned = gpu(processes=(ProcessSample(7, 1 << 30),))
    holders = [GpuHolder("8b6ffc639aaa", "alice", "digits", 4 << 30)]
    shared = msgspec.structs.replace(owned, ledger=GpuLedger(holders, 2 << 30))
    shown = drawn(view.picture(StatsMessage(gpus=[shared]), "http://x"))
    assert "alice 4.0 GiB · unattributed 2.0 GiB (Xorg 7)" in shown


def test_users_are_drawn_with_the_one_who_holds_most_of_the_gpus_first() -> None:
    users = [UserUsage("alice", 1, 99.0, 1 << 30, 0, 0.0), UserUsage("bob", 2, 1.0, 1 << 30, 3 << 30, 10.0)]
    shown = drawn(view.picture(StatsMessage(gpus=[gpu()], users=users), "http://x"))
    assert "Users 2" in shown
    assert shown.index("bob") < shown.index("alice")
    assert "3.0 GiB" in shown


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "en_US.UTF-8", "LC_ALL": "zh_TW.UTF-8"}, "zh"),
        ({"LANG": "C"}, "en"),
        ({}, "en"),
    ],
)
def test_the_language_is_the_locales(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], expected: str
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert language() == expected

"""``k12ai submit``, ``ps``, ``logs``, ``stop``, ``frameworks``: tasks from the terminal."""

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from k12ai.cli.tasks import BadParam, params_of
from tests.support.programs import SLEEP
from tests.support.server import Server

REPORTS = (
    "from k12ai import report\nfor n in range(3): report.metric(loss=1 / (n + 1))\nreport.result(answer=42)"
)


@pytest.fixture(name="machine")
def _machine(start_server: Callable[..., Server]) -> Server:
    return start_server("--max-tasks", "8", "--docker-host", "unix:///nonexistent/docker.sock")


def k12ai(server: Server, *arguments: str, lang: str = "C.UTF-8") -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "LANG": lang, "COLUMNS": "80", "K12AI_SERVER_URL": server.url}
    command = [sys.executable, "-m", "k12ai", *arguments]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)


def test_submit_shows_the_curve_and_prints_the_result(machine: Server) -> None:
    shown = k12ai(machine, "submit", "k12py", "runcode", "--param", f"code={REPORTS}")
    assert shown.returncode == 0, shown.stderr
    assert "succeeded" in shown.stdout
    assert "loss 0.3333" in shown.stdout
    assert '"answer": 42' in shown.stdout


def test_a_failure_is_1_and_explained_in_the_terminals_language(machine: Server) -> None:
    shown = k12ai(machine, "submit", "k12py", "runcode", "--param", "code=1 / 0", lang="zh_CN.UTF-8")
    assert shown.returncode == 1
    assert ".k12ai_code.py:1: " in shown.stderr
    assert "0" in shown.stderr
    assert any("\u4e00" <= character <= "\u9fff" for character in shown.stderr)
    assert "Traceback" not in shown.stderr


def test_a_detached_task_is_listed_followed_and_stopped_by_its_id(machine: Server) -> None:
    submitted = k12ai(machine, "submit", "k12py", "runcode", "--detach", "--param", f"code={SLEEP}")
    task_id = submitted.stdout.strip()
    assert len(task_id) == 12
    assert task_id in k12ai(machine, "ps").stdout
    (task,) = msgspec.json.decode(k12ai(machine, "ps", "--json").stdout)
    assert task["task_id"] == task_id
    stopped = k12ai(machine, "stop", task_id)
    assert stopped.stdout == f"container id {task_id} stop success\n"
    assert "no task is running" in k12ai(machine, "ps").stdout
    assert "stopped" in k12ai(machine, "ps", "--all").stdout
    assert k12ai(machine, "logs", task_id).stdout in ("up\n", "")


def test_a_bad_parameter_is_1_with_the_field_and_what_it_may_be(machine: Server) -> None:
    shown = k12ai(machine, "submit", "k12py", "runcode", "--param", "coed=1")
    assert shown.returncode == 1
    assert "service_params.coed: must be one of script, code, args" in shown.stderr


def test_frameworks_are_listed_with_what_they_can_do(machine: Server) -> None:
    assert "runcode.start" in k12ai(machine, "frameworks").stdout
    listed = msgspec.json.decode(k12ai(machine, "frameworks", "--json").stdout)
    assert "k12py" in {each["name"] for each in listed}


def test_parameters_come_from_a_file_and_from_words_which_win(tmp_path: Path) -> None:
    file = tmp_path / "params.json"
    file.write_text('{"data": {"dataset": "digits"}, "seed": 1}')
    words = ["seed=2", "data.file=a.csv", "importance=false", "name=树"]
    assert params_of(file, words) == {
        "data": {"dataset": "digits", "file": "a.csv"},
        "seed": 2,
        "importance": False,
        "name": "树",
    }


@pytest.mark.parametrize("words", [["seed"], ["=1"], ["seed=1", "seed.x=2"]])
def test_words_that_are_no_parameters_are_refused(words: list[str]) -> None:
    with pytest.raises(BadParam):
        params_of(None, words)


def test_logs_on_a_terminal_obey_nothing_and_in_a_file_are_as_they_were(machine: Server) -> None:
    """A student's output must not set the title of, or clear, the teacher's terminal."""
    code = "print('\\x1b]0;owned\\x07\\x1b[2Jfirst\\rsecond\\tend')"
    shown = k12ai(machine, "submit", "k12py", "runcode", "--detach", "--param", f"code={code}")
    task_id = shown.stdout.strip()
    assert "\x1b]0;owned" in k12ai(machine, "logs", "--follow", task_id).stdout
    controller, terminal = pty.openpty()
    subprocess.run(
        [sys.executable, "-m", "k12ai", "logs", task_id],
        env={**os.environ, "K12AI_SERVER_URL": machine.url},
        stdout=terminal,
        timeout=60,
        check=True,
    )
    os.close(terminal)
    drawn = os.read(controller, 65536)
    os.close(controller)
    assert b"\x1b" not in drawn
    assert b"first\rsecond\tend" in drawn

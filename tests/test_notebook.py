"""The published notebook client, and the example notebook run from top to bottom."""

import contextlib
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import nbformat
import pytest
from nbclient import NotebookClient

from k12ai.client import Client, ServerUnreachable
from k12libs.utils import nb_easy
from tests.support.engine import EngineClient
from tests.support.server import Server

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(name="easy")
def _easy(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server that the notebook functions find."""
    monkeypatch.setenv("K12AI_SERVER_URL", server.url)
    return server


def printed(*arguments: Any) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        nb_easy.k12ai_print(*arguments)
    return out.getvalue()


@pytest.mark.parametrize("uri", ["k12ai/platform/stats", "/k12ai/platform/stats"])
def test_a_post_returns_the_request_in_its_published_order_the_answer_and_the_key(
    easy: Server, uri: str
) -> None:
    posted = nb_easy.k12ai_post_platform_request(uri, "query", "test", "uuid", params='{"cpus": true}')
    assert list(posted) == ["req", "res", "key"]
    assert list(posted["req"].items()) == [
        ("op", "query"),
        ("user", "test"),
        ("service_name", "k12platform"),
        ("service_uuid", "uuid"),
        ("service_params", {"cpus": True}),
        ("async", False),
    ]
    assert posted["res"]["code"] == 100000
    assert posted["key"] == "platform/test/uuid/query"


def test_the_published_session_of_the_unknown_container_prints_the_same(easy: Server) -> None:
    posted = nb_easy.k12ai_post_platform_request(
        uri="k12ai/platform/control", op="container.stop", user="test", uuid="uuid", params='{"id":"unknow"}'
    )
    assert printed(posted) == (
        '{\n    "req": {\n        "op": "container.stop",\n        "user": "test",\n'
        '        "service_name": "k12platform",\n        "service_uuid": "uuid",\n'
        '        "service_params": {\n            "id": "unknow"\n        },\n        "async": false\n    },\n'
        '    "res": {\n        "code": 100202,\n        "descr": "task service start fails",\n'
        '        "message": "container id unknow is not found"\n    },\n'
        '    "key": "platform/test/uuid/container.stop"\n}\n'
    )


def test_parameters_that_are_no_json_are_refused_by_the_server_in_words(easy: Server) -> None:
    posted = nb_easy.k12ai_post_platform_request("k12ai/platform/stats", "query", "t", "u", params="{cpus}")
    assert posted["res"]["code"] == 100102
    assert posted["res"]["message"].startswith("service_params: must be a JSON object")


@pytest.mark.parametrize(
    ("post", "service"),
    [(nb_easy.k12ai_post_cv_request, "k12cv"), (nb_easy.k12ai_post_nlp_request, "k12nlp")],
)
def test_frameworks_have_keys_of_their_own(easy: Server, post: Callable[..., Any], service: str) -> None:
    posted = post("k12ai/platform/stats", "query", "test", "uuid")
    assert posted["req"]["service_name"] == service
    assert posted["key"] == "framework/test/uuid/query"


def test_data_comes_in_key_order_the_last_ones_and_nothing_of_a_longer_name(easy: Server) -> None:
    for key in ("1/metrics/0002", "1/metrics/0001", "1/metrics/0010", "10/metrics/0099", "1/metricsx"):
        easy.http.put(f"/v1/kv/nb/{key}", content=b'{"x": "\xe4\xb8\xad"}')
    found = nb_easy.k12ai_get_metrics_data("nb/1", num=2)
    assert found == [
        {"key": "nb/1/metrics/0002", "value": {"x": "中"}},
        {"key": "nb/1/metrics/0010", "value": {"x": "中"}},
    ]
    assert len(nb_easy.k12ai_get_data("nb/1", "metrics", num=10) or []) == 3
    assert nb_easy.k12ai_get_data("nb/1", "metrics", http=True) == [found[-1]]


def test_deleting_is_by_path_and_not_by_prefix(easy: Server) -> None:
    for key in ("u/1", "u/1/a", "u/10", "u/10/a"):
        easy.http.put(f"/v1/kv/del/{key}", content=b"1")
    assert nb_easy.k12ai_del_data("del/u/1") == "success"
    left = nb_easy.k12ai_get_data("del/u", num=10)
    assert [each["key"] for each in left or []] == ["del/u/10", "del/u/10/a"]


def test_rm_deletes_exactly_what_was_read(easy: Server) -> None:
    for number in (1, 2, 3):
        easy.http.put(f"/v1/kv/rm/result/{number}", content=b"%d" % number)
    read = nb_easy.k12ai_get_data("rm", "result", num=2, rm=True)
    assert [each["value"] for each in read or []] == [2, 3]
    assert [each["value"] for each in nb_easy.k12ai_get_data("rm", "result", num=9) or []] == [1]


def test_nothing_is_none_after_the_wait(easy: Server) -> None:
    began = time.monotonic()
    assert nb_easy.k12ai_get_data("nothing/here", "result", waitcnt=0.3) is None
    assert time.monotonic() - began >= 0.25
    assert nb_easy.k12ai_get_error_data("nothing/here") is None


def test_a_wait_without_end_returns_when_something_comes(easy: Server) -> None:
    import threading

    timer = threading.Timer(0.5, lambda: easy.http.put("/v1/kv/late/result", content=b'"here"'))
    timer.start()
    assert nb_easy.k12ai_get_data("late", "result", waitcnt=-1) == [{"key": "late/result", "value": "here"}]
    timer.join()


def test_printing(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed({"姓名": "张三", "n": [1]}, 2) == '{\n  "姓名": "张三",\n  "n": [\n    1\n  ]\n}\n'
    assert printed('{"a":1}') == '{\n    "a": 1\n}\n'
    assert printed('"\\u4e2d"') == '"中"\n'
    assert printed("not json") == "not json\n"
    assert printed(None) == ""


def test_counting_down(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    over = nb_easy.k12ai_count_down(3)
    assert [over() for _ in range(4)] == [False, False, True, True]
    assert slept == [1, 1, 1]


def test_no_server_is_said_in_both_languages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K12AI_SERVER_URL", "http://127.0.0.1:1")
    with pytest.raises(ServerUnreachable, match=r"k12ai serve.*没有 K12AI 服务器应答"):
        nb_easy.k12ai_del_data("x")


def run_example(name: str = "platform_api.ipynb", directory: Path | None = None) -> list[str]:
    """Run a notebook, in a directory of its own if it is given one; return what each code cell printed."""
    notebook = nbformat.read(EXAMPLES / name, as_version=4)
    place = {"metadata": {"path": str(directory)}} if directory else {}
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources=place).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return ["".join(output.get("text", "") for output in cell.outputs) for cell in cells]


@pytest.mark.docker
def test_the_example_runs_from_top_to_bottom_and_stops_a_real_container(
    easy: Server, engine: EngineClient, eventually: Callable[..., Any]
) -> None:
    mine = engine.run(user="test", service_uuid="uuid")
    others = engine.run(user="somebody", service_uuid="else")
    eventually(lambda: {mine[:12], others[:12]} <= set(easy.containers()))
    prints = run_example()
    assert '"code": 100000' in prints[1]
    assert mine[:12] in prints[2]
    assert '"key": "platform/test/uuid/query/result"' in prints[3]
    assert msgspec.json.decode(prints[4])["res"]["message"] == f"container id {mine[:12]} stop success"
    assert "container id unknow is not found" in prints[5]
    assert '"key": "platform/test/uuid/container.stop/result"' in prints[6]
    assert not engine.state(mine)["Running"]
    assert engine.state(others)["Running"]


@pytest.mark.parametrize("mode", ["open", "tokens"])
def test_the_example_runs_where_there_is_no_container(
    start_server: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: str
) -> None:
    """On a laptop without Docker the notebook still runs through; the stop is of an unknown container.

    Where the server asks for tokens, `K12AI_TOKEN` is all there is to set.
    """
    server = start_server("--docker-host", f"unix://{tmp_path}/none.sock")
    monkeypatch.setenv("K12AI_SERVER_URL", server.url)
    if mode == "tokens":
        with Client() as client:
            monkeypatch.setenv("K12AI_TOKEN", client.access.create_token("head", "admin").token)
        with Client() as head:
            monkeypatch.setenv("K12AI_TOKEN", head.access.create_token("test").token)
    prints = run_example()
    assert "containers: unknown" in prints[2]
    assert "container id unknow is not found" in prints[4]


@pytest.fixture(name="serve")
def _serve(
    start_server: Callable[..., Server],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> Callable[[str, str], None]:
    """Start the server that the notebooks find; with Docker, the framework's image has to be there."""

    def serve(runtime: str, framework: str) -> None:
        address = f"unix://{tmp_path}/none.sock"
        if runtime == "docker":
            if framework not in request.getfixturevalue("task_images"):
                pytest.skip(f"there is no image of {framework}; make it with: k12ai images build {framework}")
            address = request.getfixturevalue("docker_host")
        server = start_server("--max-tasks", "2", "--runtime", runtime, "--docker-host", address)
        monkeypatch.setenv("K12AI_SERVER_URL", server.url)

    return serve


@pytest.mark.parametrize("runtime", ["process", pytest.param("docker", marks=pytest.mark.slow)])
def test_the_first_model_is_trained_evaluated_and_used(
    serve: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, runtime: str
) -> None:
    """From nothing to a model, without Docker and with it; and what goes wrong is explained."""
    serve(runtime, "k12ml")
    if runtime == "docker":  # and with a token, which is all there is to set
        with Client() as client:
            monkeypatch.setenv("K12AI_TOKEN", client.access.create_token("head", "admin").token)
    prints = run_example("first_model.ipynb", tmp_path)
    assert "k12ml" in prints[0]
    assert "succeeded" in prints[2]
    assert float(prints[3].split()[-1]) > 0.95
    assert float(prints[5].split()[-1]) > 0.95
    assert prints[6].strip() == "0"
    assert "models/model.skops" in prints[7]
    assert (tmp_path / "our-model.skops").stat().st_size > 0
    assert prints[8].startswith("100911 ")
    assert "第 8 行" in prints[8]
    assert prints[9].endswith("stopped stopped_by_user\n")


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("runtime", ["process", "docker"])
def test_pictures_are_learnt_stopped_gone_on_with_and_predicted(
    serve: Callable[[str, str], None], tmp_path: Path, runtime: str
) -> None:
    for module in ("torch", "PIL", "accelerate"):
        pytest.importorskip(module, reason="the extra cv is not installed")
    serve(runtime, "k12cv")
    prints = run_example("images.ipynb", tmp_path)
    assert "k12cv 图像分类 ✓" in prints[0]
    assert "succeeded" in prints[1]
    assert float(prints[2].split()[1]) > 0.9
    assert "stopped" in prints[4]
    assert int(prints[4].split()[5]) > 0
    assert float(prints[5].split()[-1]) > 0.8
    assert prints[6].startswith("圆 ")


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("runtime", ["process", "docker"])
def test_texts_are_learnt_predicted_and_evaluated(
    serve: Callable[[str, str], None], tmp_path: Path, runtime: str
) -> None:
    for module in ("torch", "tokenizers", "accelerate", "snownlp"):
        pytest.importorskip(module, reason="the extra nlp is not installed")
    serve(runtime, "k12nlp")
    prints = run_example("texts.ipynb", tmp_path)
    assert "k12nlp 文本分类 ✓" in prints[0]
    assert float(prints[1].split()[-1]) > 0.8
    assert "→ 好评" in prints[2]
    assert "→ 差评" in prints[2]
    assert 0.4 < float(prints[3].split()[1]) < 1

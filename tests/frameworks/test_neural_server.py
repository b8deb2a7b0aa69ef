"""k12cv and k12nlp through a server: trained, stopped, gone on with, evaluated and used, in both runtimes."""

import base64
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytest.importorskip("torch", reason="the extras cv and nlp are not installed")
pytest.importorskip("PIL", reason="the extras cv and nlp are not installed")
pytest.importorskip("accelerate", reason="the extras cv and nlp are not installed")
pytest.importorskip("tokenizers", reason="the extras cv and nlp are not installed")

from PIL import Image

from k12ai.client import Client, TaskFailed
from tests.support.server import Server


class Lesson(NamedTuple):
    """What a class would do with a framework, in seconds."""

    framework: str
    params: dict[str, Any]
    asked: dict[str, list[str]]


def dark_picture() -> str:
    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def praise(count: int = 400) -> str:
    words = (("很好", "好评"), ("很差", "差评"))
    lines = (f"{word} 第{place}号商品,{label}\n" for place in range(count) for word, label in words)
    return "text,label\n" + "".join(lines)


TRAINING = {"epochs": 8, "batch_size": 16, "learning_rate": 0.01}
SMALL = {"vocabulary": 200, "width": 16, "filters": 16, "pairs": 1000}
LESSONS = (
    Lesson("k12cv", {"cnn": {"width": 8, "blocks": 2}, "training": TRAINING}, {"images": [dark_picture()] * 3}),
    Lesson(
        "k12nlp",
        {"data": {"file": "praise.csv"}, "cnn": SMALL, "training": TRAINING},
        {"texts": ["很好", "很差"]},
    ),
)


@pytest.fixture(name="client_of")
def _client_of(
    start_server: Callable[..., Server], tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[[str, str], Client]]:
    """Start a server with a runtime; with Docker, the image of the framework has to be there."""
    clients: list[Client] = []

    def client_of(runtime: str, framework: str) -> Client:
        address = f"unix://{tmp_path}/none.sock"
        if runtime == "docker":
            if framework not in request.getfixturevalue("task_images"):
                pytest.skip(f"there is no image of {framework}; make it with: k12ai images build {framework}")
            address = request.getfixturevalue("docker_host")
        clients.append(Client(start_server("--runtime", runtime, "--docker-host", address).url))
        return clients[-1]

    yield client_of
    for client in clients:
        client.close()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("runtime", ["process", "docker"])
@pytest.mark.parametrize("lesson", LESSONS, ids=[lesson.framework for lesson in LESSONS])
def test_a_training_that_a_user_stopped_goes_on_with_the_next_start_and_is_evaluated_and_used(
    client_of: Callable[[str, str], Client], tmp_path: Path, lesson: Lesson, runtime: str
) -> None:
    client = client_of(runtime, lesson.framework)
    (tmp_path / "praise.csv").write_text(praise(), encoding="utf-8")
    client.upload(tmp_path / "praise.csv", "lesson")
    first = client.submit(lesson.framework, "train.start", "lesson", lesson.params)
    for message in first.messages("metrics"):
        if "epoch" in message.body:
            break
    stopped = first.stop(grace_s=30)
    assert (stopped.state, stopped.reason) == ("stopped", "stopped_by_user")
    assert any(each["path"].startswith("checkpoints/model/") for each in client.files("lesson"))

    trained = client.submit(lesson.framework, "train.start", "lesson", lesson.params).result()
    assert trained["resumed_at"] >= 2
    assert trained["epochs"] == 8
    assert not any(each["path"].startswith("checkpoints/") for each in client.files("lesson"))

    tested = client.submit(lesson.framework, "evaluate.start", "lesson", {}).result()
    assert tested["accuracy"] == trained["accuracy"] > 0.8
    used = client.submit(lesson.framework, "predict.start", "lesson", lesson.asked).result()
    assert used["rows"] == len(used["predictions"]) == len(next(iter(lesson.asked.values())))


def test_what_is_wrong_with_the_data_is_the_error_of_the_task(
    client_of: Callable[[str, str], Client],
) -> None:
    client = client_of("process", "k12cv")
    with pytest.raises(TaskFailed) as failed:
        client.submit("k12cv", "train.start", "none", {"data": {"path": "none.zip"}}).result()
    assert failed.value.error["code"] == 100919
    assert "none.zip" in failed.value.error["zh"]

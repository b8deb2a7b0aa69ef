"""k12cv through a server and its process runtime: a stop, and the start that goes on."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from k12ai.client import Client, TaskFailed
from tests.support.server import Server

for _module in ("torch", "PIL", "accelerate"):
    pytest.importorskip(_module, reason="the extra cv is not installed")


@pytest.fixture(name="client")
def _client(start_server: Callable[..., Server], tmp_path: Path) -> Iterator[Client]:
    server = start_server("--runtime", "process", "--docker-host", f"unix://{tmp_path}/none.sock")
    with Client(server.url) as client:
        yield client


def test_a_training_that_was_stopped_by_a_user_goes_on_with_the_next_start(client: Client) -> None:
    params = {"cnn": {"width": 8, "blocks": 2}, "training": {"epochs": 6, "batch_size": 16}}
    first = client.submit("k12cv", "train.start", "digits", params)
    for message in first.messages("metrics"):
        if "epoch" in message.body:
            break
    stopped = first.stop(grace_s=30)
    assert (stopped.state, stopped.reason) == ("stopped", "stopped_by_user")
    assert any(each["path"].startswith("checkpoints/model/") for each in client.files("digits"))
    result = client.submit("k12cv", "train.start", "digits", params).result()
    assert result["resumed_at"] >= 2
    assert result["epochs"] == 6
    assert not any(each["path"].startswith("checkpoints/") for each in client.files("digits"))


def test_what_is_wrong_with_the_data_is_the_error_of_the_task(client: Client) -> None:
    with pytest.raises(TaskFailed) as failed:
        client.submit("k12cv", "train.start", "none", {"data": {"path": "none.zip"}}).result()
    assert failed.value.error["code"] == 100919
    assert "none.zip" in failed.value.error["zh"]

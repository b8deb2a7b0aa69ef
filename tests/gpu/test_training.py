"""A training on a real GPU: that it is used, in which precision, and how much of it."""

import io
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from k12ai.client import Client
from k12ai.task import Limits
from tests.support.server import Server, strict

torch = pytest.importorskip("torch", reason="the extra cv is not installed")
Image = pytest.importorskip("PIL.Image", reason="the extra cv is not installed")

pytestmark = pytest.mark.gpu

PICTURES = 4000
PARAMS = {
    "data": {"path": "pictures.zip", "image_size": 64},
    "model": "resnet",
    "resnet": {"width": 64, "depth": 3},
    "training": {"epochs": 8, "batch_size": 256},
}


def pictures(file: Path) -> None:
    """Noise in two colours: what is measured is the machine."""
    chance = random.Random(0)
    with zipfile.ZipFile(file, "w") as archive:
        for place in range(PICTURES):
            name, colour = (("red", (255, 90, 90)), ("blue", (90, 90, 255)))[place % 2]
            image = Image.frombytes("L", (64, 64), chance.randbytes(64 * 64)).convert("RGB")
            content = io.BytesIO()
            Image.blend(image, Image.new("RGB", (64, 64), colour), 0.3).save(content, "BMP")
            archive.writestr(f"{name}/{place}.bmp", content.getvalue())


@pytest.mark.timeout(600)
def test_a_training_is_on_the_gpu_in_bf16_and_its_utilisation_and_speed_are_told(
    start_server: Callable[..., Server], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    if not torch.cuda.is_available():
        pytest.skip(f"torch {torch.__version__} finds no GPU; docs/operations.md says which build does")
    server = start_server("--sample-interval-s", "0.2")
    pictures(tmp_path / "pictures.zip")
    busy: list[float] = []
    held: list[int] = []
    with Client(server.url) as client:
        client.upload(tmp_path / "pictures.zip", "gpu")
        task = client.submit("k12cv", "train.start", "gpu", PARAMS, limits=Limits(gpus=1))
        for message in task.messages("metrics", "error"):
            assert message.type == "metrics", message.body
            gpu = strict(server.stats(service_params={"gpus": True}))["message"]["gpus"][0]
            busy.append(gpu["gpu_percent"] or 0)
            held.append(gpu["gpu_memory_usage"])
        result = task.result()
    assert (result["device"], result["precision"]) == ("cuda", "bf16")
    assert result["accuracy"] > 0.9
    assert max(busy) > 0
    record_property("images/s", result["images_per_s"])
    record_property("utilisation", f"{sum(busy) / len(busy):.0f} % of the time, at most {max(busy):.0f} %")
    record_property("memory held", f"{max(held) >> 20} MiB")

"""k12cv as a task runs it: the command itself, with a project, parameters and a journal of the test's own."""

import base64
import csv
import io
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("PIL", reason="the extra cv is not installed")
pytest.importorskip("torch", reason="the extra cv is not installed")
pytest.importorskip("accelerate", reason="the extra cv is not installed")

from PIL import Image

from k12ai.errors import BadParameter
from k12ai.frameworks.cv.framework import CvFramework
from k12ai.tasks.registry import Registry
from tests.frameworks.ops import Ended, run

TRAIN, EVALUATE, PREDICT = CvFramework.ops
SMALL = {"cnn": {"width": 12, "blocks": 2}, "training": {"epochs": 4, "learning_rate": 0.01}}
Start = Callable[..., Ended]


@pytest.fixture(name="start")
def _start(project: Path) -> Start:
    return lambda op=TRAIN, **params: run(CvFramework(), op, params, project)


def picture(colour: tuple[int, int, int], size: int = 16) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(file, "PNG")
    return file.getvalue()


def colours(folder: Path, count: int = 12) -> None:
    """Red and blue pictures, of many shades."""
    for name, channel in (("红", 0), ("蓝", 2)):
        (folder / name).mkdir(parents=True)
        for place in range(count):
            shade = [10 * (place % 5)] * 3
            shade[channel] = 180 + 5 * place % 70
            (folder / name / f"{place}.png").write_bytes(picture(tuple(shade)))  # type: ignore[arg-type]


def test_digits_are_learnt_evaluated_and_predicted(start: Start, project: Path) -> None:
    ended = start(**SMALL)
    trained = ended.result
    assert trained["accuracy"] > 0.85
    assert trained["rows"] == {"train": 1295, "validation": 143, "test": 359}
    assert len(trained["classes"]) == 10
    assert sum(map(sum, trained["confusion_matrix"]["matrix"])) == 359
    assert {"loss", "accuracy", "learning_rate", "images_per_s"} <= set(ended.all("metrics")[0])
    assert (project / trained["wrong_grid"]).read_bytes().startswith(b"\x89PNG")
    assert not (project / "checkpoints").exists()
    assert sorted(path.name for path in (project / "models/model").iterdir()) == [
        "card.json",
        "config.json",
        "model.safetensors",
    ]

    assert start(EVALUATE).result["accuracy"] == trained["accuracy"]

    black = base64.b64encode(picture((0, 0, 0))).decode()
    predicted = start(PREDICT, images=[black] * 1000).result
    assert (predicted["rows"], len(predicted["predictions"])) == (1000, 1000)
    assert all(sum(row) == pytest.approx(1, abs=1e-4) for row in predicted["probabilities"])
    with (project / predicted["file"]).open(encoding="utf-8-sig", newline="") as file:
        assert len(list(csv.reader(file))) == 1001


@pytest.mark.slow
def test_a_small_cnn_reads_97_of_100_digits(start: Start) -> None:
    assert start().result["accuracy"] > 0.97


def test_a_training_that_is_stopped_goes_on_where_it_was(start: Start, project: Path) -> None:
    """The stop is what a runtime sends, at any time after the first steps."""
    params = {**SMALL, "training": {"epochs": 40}}
    given, journal = project.parent / "params.json", project.parent / "journal"
    given.write_bytes(msgspec.json.encode(Registry([CvFramework()]).check("k12cv", TRAIN, params)))
    journal.write_bytes(b"")
    paths = {"K12AI_PARAMS": str(given), "K12AI_JOURNAL": str(journal), "K12AI_OP": TRAIN}
    process = subprocess.Popen(
        [sys.executable, *CvFramework().command(TRAIN)], cwd=project, env={**os.environ, **paths}
    )
    deadline = time.monotonic() + 90
    while b'"epoch":1' not in journal.read_bytes():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.terminate()
    assert process.wait(60) == 143
    journal.write_bytes(b"")
    again = subprocess.Popen(
        [sys.executable, *CvFramework().command(TRAIN)], cwd=project, env={**os.environ, **paths}
    )
    while b"going on in epoch" not in journal.read_bytes():
        assert again.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    again.terminate()
    assert again.wait(60) == 143


def test_pictures_of_ones_own_are_learnt_from_a_folder_with_chinese_classes(
    start: Start, project: Path
) -> None:
    colours(project / "colours")
    (project / "new").mkdir()
    (project / "new" / "a.png").write_bytes(picture((230, 0, 0)))
    trained = start(
        data={"path": "colours", "image_size": 8},
        cnn={"width": 4, "blocks": 1},
        augmentation={"flip": True, "rotate": 10, "shift": 0.1, "zoom": 0.1, "brightness": 0.1},
        training={"epochs": 8, "batch_size": 4, "learning_rate": 0.02},
    ).result
    assert [each["label"] for each in trained["classes"]] == ["红", "蓝"]
    assert trained["accuracy"] == 1
    assert start(EVALUATE, data={"path": "colours"}).result["rows"] == 24
    assert start(PREDICT, files=["new/a.png", "colours"]).result["predictions"][0] == "红"


def test_pictures_that_have_changed_since_the_training_are_not_mistaken_for_its_test_part(
    start: Start, project: Path
) -> None:
    colours(project / "colours")
    assert (
        start(data={"path": "colours"}, cnn={"width": 4, "blocks": 1}, training={"epochs": 1}).returncode == 0
    )
    (project / "colours" / "红" / "99.png").write_bytes(picture((200, 0, 0)))
    assert "changed since the training" in start(EVALUATE).error["en"]


@pytest.mark.slow
def test_a_small_resnet_is_trained_saved_and_fine_tuned(start: Start, project: Path) -> None:
    pytest.importorskip("transformers")
    colours(project / "colours")
    data = {"path": "colours", "image_size": 32}
    small = {"width": 4, "stages": 2}
    first = start(model="resnet", data=data, resnet=small, training={"epochs": 1}, save_as="first").result
    assert "models/first/config.json" in first["files"]
    assert start(EVALUATE, model="first").result["accuracy"] == first["accuracy"]
    tuned = {"directory": "models/first", "frozen": True}
    second = start(
        model="pretrained", data=data, pretrained=tuned, training={"epochs": 1}, save_as="second"
    ).result
    assert second["accuracy"] >= 0.5
    assert start(PREDICT, model="second", files=["colours"]).result["rows"] == 24


@pytest.mark.parametrize(
    ("op", "params", "field"),
    [
        (TRAIN, {"model": "vgg"}, "service_params.model"),
        (TRAIN, {"cnn": {"width": 0}}, "service_params.cnn.width"),
        (TRAIN, {"model": "resnet", "cnn": {"width": 8}}, "service_params.cnn"),
        (TRAIN, {"model": "pretrained"}, "service_params.pretrained.directory"),
        (
            TRAIN,
            {"model": "pretrained", "pretrained": {"directory": "../x"}},
            "service_params.pretrained.directory",
        ),
        (TRAIN, {"data": {"path": "/etc"}}, "service_params.data.path"),
        (TRAIN, {"data": {"dataset": "files"}}, "service_params.data.path"),
        (TRAIN, {"data": {"image_size": 3}}, "service_params.data.image_size"),
        (PREDICT, {}, "service_params.images"),
        (PREDICT, {"images": ["AAAA"], "files": ["a"]}, "service_params.images"),
        (PREDICT, {"files": ["../a"]}, "service_params.files"),
    ],
)
def test_a_bad_parameter_is_refused_before_anything_starts(op: str, params: dict[str, Any], field: str) -> None:
    with pytest.raises(BadParameter) as refused:
        Registry([CvFramework()]).check("k12cv", op, params)
    assert refused.value.detail.en.startswith(field)

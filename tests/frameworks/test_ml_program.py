"""k12ml as a task runs it: the command itself, with a project, parameters and a journal of the test's own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sklearn", reason="the extra 'ml' is not installed")
pytest.importorskip("skops", reason="the extra 'ml' is not installed")

from k12ai.errors import BadParameter
from k12ai.frameworks.ml.framework import MlFramework
from k12ai.tasks.registry import Registry
from tests.frameworks.ops import Ended, run

OPS = MlFramework.ops
# The first of scikit-learn's digits, a nought, row by row.
ZERO = [
    *(0, 0, 5, 13, 9, 1, 0, 0),
    *(0, 0, 13, 15, 10, 15, 5, 0),
    *(0, 3, 15, 2, 0, 11, 8, 0),
    *(0, 4, 12, 0, 0, 8, 8, 0),
    *(0, 5, 8, 0, 0, 9, 8, 0),
    *(0, 4, 11, 0, 1, 12, 7, 0),
    *(0, 2, 14, 5, 10, 12, 0, 0),
    *(0, 0, 6, 13, 10, 0, 0, 0),
]


Start = Callable[..., Ended]


@pytest.fixture(name="start")
def _start(project: Path) -> Start:
    return lambda op, **params: run(MlFramework(), op, params, project)


@pytest.mark.parametrize(
    "model",
    ["random_forest", pytest.param("svm", marks=pytest.mark.slow), pytest.param("knn", marks=pytest.mark.slow)],
)
def test_digits_are_learnt_evaluated_and_predicted(start: Start, project: Path, model: str) -> None:
    trained = start("train.start", data={"dataset": "digits"}, model=model).result
    assert trained["accuracy"] > 0.95
    assert (project / "models" / "model.skops").exists()
    assert start("evaluate.start").result["accuracy"] == pytest.approx(trained["accuracy"], abs=1e-6)
    assert start("predict.start", rows=[ZERO]).result["predictions"] == [0]


def test_a_model_with_steps_reports_its_curve_and_how_far_it_is(start: Start) -> None:
    ended = start("train.start", data={"dataset": "digits"}, model="random_forest")
    steps = [each["step"] for each in ended.all("metrics")]
    assert steps == sorted(steps)
    assert 10 <= len(steps) <= 50
    progress = ended.all("progress")
    assert all(each["total"] is None or 0 <= each["done"] <= each["total"] for each in progress)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
def test_a_csv_of_ones_own_is_read_in_whatever_encoding(start: Start, project: Path, encoding: str) -> None:
    lines = ["身高,颜色,组别"]
    lines += [f"{150 + n % 40},{'红' if n % 3 else '蓝'},{'甲' if n % 40 > 20 else '乙'}" for n in range(120)]
    lines += [",红,甲", "155,,乙"]  # values that are missing
    (project / "班级.csv").write_bytes("\n".join(lines).encode(encoding))
    trained = start("train.start", data={"file": "班级.csv", "target": "组别"}).result
    assert trained["accuracy"] > 0.9
    rows = [{"身高": 185, "颜色": "红"}, {"身高": 151, "颜色": "蓝"}]
    assert start("predict.start", rows=rows).result["predictions"] == ["甲", "乙"]


@pytest.mark.parametrize(
    ("task", "metric", "least"), [("regression", "r2", 0.2), ("clustering", "silhouette", 0.2)]
)
def test_numbers_and_groups_are_found_too(start: Start, task: str, metric: str, least: float) -> None:
    assert start("train.start", task=task).result[metric] > least


@pytest.mark.parametrize(
    ("content", "data", "word"),
    [
        (None, {"file": "none.csv"}, "none.csv"),
        (b"", {"file": "a.csv"}, "a.csv"),
        (b"x,y\n1,a\n2,b\n3,a\n4,b\n5,a\n6,b\n", {"file": "a.csv", "target": "z"}, "x"),
        (b"x,y\n1,a\n2,a\n3,a\n4,a\n5,a\n6,a\n", {"file": "a.csv", "target": "y"}, "y"),
    ],
    ids=["no file", "empty", "no such column", "one class"],
)
def test_data_that_cannot_be_learnt_from_is_explained_in_both_languages(
    start: Start, project: Path, content: bytes | None, data: dict[str, Any], word: str
) -> None:
    if content is not None:
        (project / "a.csv").write_bytes(content)
    error = start("train.start", data=data).error
    assert word in error["en"]
    assert any("\u4e00" <= character <= "\u9fff" for character in error["zh"])


def test_a_model_that_somebody_made_by_hand_is_not_run(start: Start, project: Path) -> None:
    assert start("train.start", data={"dataset": "iris"}).result
    import skops.io

    marker = project / "ran"

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (marker,))

    skops.io.dump({"model": Evil()}, project / "models" / "model.skops")
    assert start("evaluate.start").error["en"]
    assert not marker.exists()


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"model": "perceptron"}, "service_params.model"),
        ({"random_forest": {"trees": 0}}, "service_params.random_forest.trees"),
        ({"data": {"file": "../secret.csv"}}, "service_params.data.file"),
        ({"data": {"test_fraction": 2}}, "service_params.data.test_fraction"),
        ({"task": "regression", "model": "logistic"}, "service_params.model"),
    ],
)
def test_a_bad_parameter_is_refused_before_anything_starts(params: dict[str, Any], field: str) -> None:
    with pytest.raises(BadParameter) as refused:
        Registry([MlFramework()]).check("k12ml", "train.start", params)
    assert refused.value.detail.en.startswith(field)

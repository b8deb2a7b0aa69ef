"""Training, evaluating and predicting with scikit-learn, by the command that a task runs."""

import csv
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from k12ai.errors import BadParameter
from k12ai.frameworks.ml.framework import MlFramework
from k12ai.frameworks.problems import DataProblem, Notes
from k12ai.tasks.registry import Registry
from tests.frameworks.ops import Ended, run

pytest.importorskip("sklearn", reason="the extra ml is not installed")
skops_io = pytest.importorskip("skops.io", reason="the extra ml is not installed")

TRAIN, EVALUATE, PREDICT = MlFramework.ops
Start = Callable[..., Ended]


@pytest.fixture(name="start")
def _start(project: Path) -> Start:
    return lambda op=TRAIN, **params: run(MlFramework(), op, params, project)


def steps(ended: Ended, phase: str) -> list[tuple[float, float | None]]:
    return [(line["done"], line["total"]) for line in ended.all("progress") if line["phase"] == phase]


# --- training --------------------------------------------------------------------------------------


def test_a_random_forest_reads_handwritten_digits_and_tells_of_its_trees(start: Start, project: Path) -> None:
    ended = start(data={"dataset": "digits"}, model="random_forest", random_forest={"trees": 60})
    result = ended.result
    assert result["accuracy"] > 0.95
    assert result["roc_auc"] > 0.99
    assert result["baseline_accuracy"] < 0.2
    assert result["rows"] == {"train": 1347, "test": 450}
    assert result["confusion_matrix"]["labels"] == list(range(10))
    assert sum(map(sum, result["confusion_matrix"]["matrix"])) == 450
    assert len(result["importance"]) == 20
    curve = ended.all("metrics")
    assert [curve[0]["step"], curve[-1]["step"]] == [1, 60]
    assert len(curve) <= 50
    assert curve[-1]["test_accuracy"] > curve[0]["test_accuracy"]
    assert steps(ended, "training")[-1] == (60, 60)
    assert [line["phase"] for line in ended.all("progress") if line["total"] is None] == [
        *("loading", "loading", "preparing", "evaluating", "saving")
    ]
    assert sorted(path.name for path in (project / "models").iterdir()) == ["model.json", "model.skops"]


def test_a_support_vector_machine_reads_digits_and_has_no_steps_to_tell_of(start: Start) -> None:
    ended = start(data={"dataset": "digits"}, model="svm", importance=False)
    assert ended.result["accuracy"] > 0.95
    assert steps(ended, "training") == [(0, None)]
    assert ended.all("metrics") == []


def test_boosting_that_stops_early_reports_its_losses_and_a_curve(start: Start) -> None:
    ended = start(
        data={"dataset": "breast_cancer"},
        model="hist_gradient_boosting",
        hist_gradient_boosting={"early_stopping": True, "rounds": 30},
        importance=False,
    )
    assert ended.result["accuracy"] > 0.9
    losses = [line["validation_loss"] for line in ended.all("metrics") if "validation_loss" in line]
    assert losses[-1] < losses[0]
    assert any("test_accuracy" in line for line in ended.all("metrics"))


def test_ada_boost_draws_a_curve_that_ends_where_the_model_does(start: Start) -> None:
    ended = start(data={"dataset": "moons"}, model="ada_boost", ada_boost={"rounds": 20})
    last = ended.all("metrics")[-1]
    assert (last["step"], last["test_accuracy"]) == (20, pytest.approx(ended.result["accuracy"], abs=0.12))


def test_a_regression_reports_how_far_it_is_off_and_which_columns_matter(start: Start) -> None:
    result = start(task="regression", model="ridge", learning_curve=True).result
    assert result["r2"] > 0.3
    assert result["rmse"] > result["mae"] > 0
    assert result["importance_by"] == "weights"
    assert {"bmi", "s5"} <= {each["name"] for each in result["importance"][:5]}
    assert [each["rows"] for each in result["learning_curve"]][-1] == result["rows"]["train"]


def test_clusters_are_found_and_compared_with_the_known_groups(start: Start) -> None:
    result = start(task="clustering", data={"dataset": "blobs", "noise": 0}).result
    assert result["adjusted_rand"] > 0.95
    assert sum(result["cluster_sizes"]) == 400
    assert result["silhouette"] > 0.5


def test_the_same_seed_gives_the_same_result_again(start: Start) -> None:
    first, again = (
        start(data={"dataset": "wine"}, random_forest={"trees": 5}, seed=7).result for _ in range(2)
    )
    assert first == again


# --- a saved model ---------------------------------------------------------------------------------


def people(path: Path, rows: int = 80) -> None:
    with path.open("w", encoding="gb18030", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["姓名", "年龄", "城市", "喜欢数学"])
        for place in range(rows):
            city = ("北京", "上海", "广州")[place % 3]
            age = "" if place == 7 else 10 + place % 9
            writer.writerow([f"学生{place}", age, city, "是" if place % 3 == 0 or place % 9 > 6 else "否"])


def test_a_model_of_a_chinese_csv_is_saved_evaluated_and_used(start: Start, project: Path) -> None:
    people(project / "班级.csv")
    trained = start(data={"file": "班级.csv"}, model="decision_tree", save_as="tree").result
    assert trained["accuracy"] > 0.9
    assert trained["columns"] == 2
    assert "姓名" in trained["notes"][0]["zh"]
    assert {each["name"] for each in trained["importance"]} == {"年龄", "城市"}

    tested = start(EVALUATE, model="tree").result
    assert tested["confusion_matrix"] == trained["confusion_matrix"]
    again = start(EVALUATE, model="tree", data={"file": "班级.csv"}).result
    assert again["rows"] == 80
    assert again["accuracy"] > 0.95

    rows = [{"年龄": 12, "城市": "北京"}, {"年龄": None, "城市": "上海"}, {"年龄": 11, "城市": "拉萨"}]
    predicted = start(PREDICT, model="tree", rows=rows).result
    assert predicted["predictions"][0] == "是"
    assert predicted["classes"] == ["否", "是"]
    assert all(sum(row) == pytest.approx(1) for row in predicted["probabilities"])
    from_file = start(PREDICT, model="tree", file="班级.csv", save_as="out").result
    assert (from_file["rows"], len(from_file["predictions"])) == (80, 80)
    with (project / from_file["file"]).open(encoding="utf-8-sig", newline="") as file:
        written = list(csv.reader(file))
    assert written[0] == ["年龄", "城市", "prediction", "probability 否", "probability 是"]
    assert [row[2] for row in written[1:]] == from_file["predictions"]


def test_the_card_of_a_model_says_what_it_was_trained_on(start: Start, project: Path) -> None:
    start(model="knn", knn={"neighbors": 3}, importance=False)
    card = msgspec.json.decode((project / "models/model.json").read_bytes())
    assert (card["task"], card["model"], card["target"]) == ("classification", "knn", "species")
    assert card["classes"] == ["setosa", "versicolor", "virginica"]
    assert card["parameters"] == {"neighbors": 3, "weights": "uniform", "metric": "euclidean"}
    assert {"scikit-learn", "numpy", "skops", "python"} == set(card["versions"])
    assert card["scores"]["accuracy"] > 0.9


def test_data_that_has_changed_since_the_training_is_not_mistaken_for_its_test_part(
    start: Start, project: Path
) -> None:
    people(project / "a.csv")
    assert start(data={"file": "a.csv"}, model="decision_tree").returncode == 0
    people(project / "a.csv", rows=90)
    assert "changed since the training" in start(EVALUATE).error["en"]


# --- what somebody may have forged -----------------------------------------------------------------


def forged(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Rewrite the description of the objects in a model's file."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    schema = msgspec.json.decode(members["schema.json"])
    change(schema)
    members["schema.json"] = msgspec.json.encode(schema)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def call_system(schema: dict[str, Any]) -> None:
    schema["content"]["content"]["verbose"] = {
        "__class__": "system",
        "__module__": "os",
        "__loader__": "FunctionNode",
        "content": "os.system",
    }


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch pwned",)


def test_a_hostile_model_is_refused_and_none_of_it_is_run(
    start: Start, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import FunctionTransformer

    from k12ai.frameworks.ml import storage

    assert start(model="decision_tree", importance=False).returncode == 0
    model = project / "models/model.skops"
    good = model.read_bytes()

    forged(model, call_system)
    error = start(PREDICT, rows=[[1, 2, 3, 4]]).error
    assert "os.system" in error["en"]
    assert "不可信" in error["zh"]

    foreign = FunctionTransformer(os.system)
    skops_io.dump(Pipeline([("prepare", foreign), ("model", foreign)]), model)
    assert "cannot be trusted" in start(EVALUATE).error["en"]

    monkeypatch.chdir(project)
    for damaged in (pickle.dumps(Evil()), good[:-200], b""):
        model.write_bytes(damaged)
        with pytest.raises(DataProblem, match="damaged"):
            storage.load("model", Notes())
    assert not (project / "pwned").exists()


def test_a_model_whose_trees_lead_in_circles_is_refused(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np
    from sklearn.datasets import load_iris
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    from k12ai.frameworks.ml import storage

    monkeypatch.chdir(project)
    rows, target = load_iris(return_X_y=True)
    boosting = HistGradientBoostingClassifier(max_iter=2).fit(rows, target)
    model = Pipeline([("prepare", StandardScaler().fit(rows)), ("model", boosting)])
    card = storage.Card(
        task="classification",
        model="x",
        parameters={},
        data={},
        seed=0,
        columns=[],
        versions=storage.versions(),
    )
    storage.save("good", model, card)
    assert (storage.load("good", Notes())[0].predict(rows) == model.predict(rows)).all()
    nodes = boosting._predictors[0][0].nodes
    for name, value in (("left", 0), ("right", 1_000_000), ("feature_idx", 99)):
        old = nodes[name].copy()
        nodes[name] = np.where(nodes["is_leaf"], old, value)
        storage.save("bad", model, card)
        with pytest.raises(DataProblem, match="trees are broken"):
            storage.load("bad", Notes())
        nodes[name] = old


def test_a_link_that_leads_out_of_the_project_is_not_followed(
    start: Start, project: Path, tmp_path: Path
) -> None:
    people(tmp_path / "secret.csv")
    (project / "link.csv").symlink_to(tmp_path / "secret.csv")
    assert "not inside of the project" in start(data={"file": "link.csv"}).error["en"]


def test_a_file_with_the_name_of_a_library_does_not_break_the_task(start: Start, project: Path) -> None:
    for name in ("sklearn", "numpy", "csv", "json"):
        (project / f"{name}.py").write_text("raise SystemError('imported')")
    assert start(model="naive_bayes", importance=False).result["accuracy"] > 0.8


# --- the server's side -----------------------------------------------------------------------------


def parts(schema: dict[str, Any]) -> list[dict[str, Any]]:
    found = [schema]
    for part in schema.get("properties", {}).values():
        found += parts(part)
    return found


@pytest.mark.parametrize("op", MlFramework.ops)
def test_the_schema_is_valid_and_says_everything_in_both_languages(op: str) -> None:
    schema = MlFramework().schema(op)
    jsonschema.Draft202012Validator.check_schema(schema)
    for part in parts(schema):
        assert all(part[name] for name in ("title", "description", "x-title-zh", "x-description-zh"))
        if part["type"] == "object":
            assert part["additionalProperties"] is False
        if "enum" in part:
            assert set(part["x-enum-titles"]) == set(part["x-enum-titles-zh"]) == set(part["enum"])
        if part is not schema:
            jsonschema.validate(part["default"], part)


def test_the_server_needs_none_of_the_libraries() -> None:
    heavy = ("sklearn", "skops", "numpy", "scipy", "joblib")
    block = "; ".join(f"sys.modules[{name!r}] = None" for name in heavy)
    program = f"import sys; {block}; from k12ai.frameworks.ml.framework import MlFramework as F; "
    program += "f = F(); [f.schema(op) for op in f.ops]"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({"model": "k_means"}, "model"),
        ({"task": "regression", "model": "logistic"}, "model"),
        ({"task": "regression", "data": {"dataset": "iris"}}, "data.dataset"),
        ({"model": "knn", "svm": {"c": 2}}, "svm"),
        ({"data": {"dataset": "csv"}}, "data.file"),
        ({"data": {"dataset": "iris", "file": "a.csv"}}, "data.file"),
        ({"data": {"file": "/etc/passwd"}}, "data.file"),
        ({"data": {"file": "../a.csv"}}, "data.file"),
        ({"data": {"file": "a/../../b.csv"}}, "data.file"),
        ({"save_as": "../x"}, "save_as"),
        ({"knn": {"neighbors": 0}}, "knn.neighbors"),
        ({"random_forest": {"treees": 3}}, "random_forest.treees"),
    ],
)
def test_parameters_that_do_not_fit_together_are_refused_before_anything_starts(
    params: dict[str, Any], named: str
) -> None:
    with pytest.raises(BadParameter, match=rf"service_params\.{named}"):
        Registry([MlFramework()]).check("k12ml", TRAIN, params)


@pytest.mark.parametrize("params", [{}, {"rows": [[1]], "file": "a.csv"}, {"file": "../a"}, {"rows": [1]}])
def test_what_is_to_be_predicted_is_rows_or_one_file(params: dict[str, Any]) -> None:
    with pytest.raises(BadParameter):
        Registry([MlFramework()]).check("k12ml", PREDICT, params)

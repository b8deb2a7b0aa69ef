"""The CSVs of students, and what can be wrong with them."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from k12ai.frameworks.ml.framework import MlFramework
from k12ai.tasks.registry import Registry

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as the task does, before its threads start to spin
pytest.importorskip("sklearn", reason="the extra ml is not installed")

from k12ai.frameworks import csvfile
from k12ai.frameworks.ml import data, ops, preparing, scores, training
from k12ai.frameworks.problems import DataProblem, Notes

ROWS = "".join(f"{place},{place % 7},{'x' if place % 2 else 'y'}\n" for place in range(20))
GOOD = "a,b,kind\n" + ROWS


@pytest.fixture(name="read")
def _read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., csvfile.Sheet]:
    """Write a file into a project and read it."""
    monkeypatch.chdir(tmp_path)

    def read(content: bytes | str, *, header: bool = True) -> csvfile.Sheet:
        Path("a.csv").write_bytes(content.encode() if isinstance(content, str) else content)
        return csvfile.read("a.csv", header=header, notes=Notes())

    return read


Read = Callable[..., csvfile.Sheet]


@pytest.fixture(name="train")
def _train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Train in this process with a file, and return the result."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("K12AI_JOURNAL", str(tmp_path / "journal"))

    def train(content: str, **params: Any) -> dict[str, Any]:
        Path("journal").write_bytes(b"")
        Path("a.csv").write_text(content, encoding="utf-8")
        params = {"model": "decision_tree"} | params
        params["data"] = {"file": "a.csv"} | params.get("data", {})
        ops.train(Registry([MlFramework()]).check("k12ml", "train.start", params))
        line = msgspec.json.decode(Path("journal").read_bytes().splitlines()[-1])
        result: dict[str, Any] = line["data"]
        return result

    return train


Train = Callable[..., dict[str, Any]]

# --- reading ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16"])
def test_a_file_is_read_in_every_encoding_that_spreadsheets_write(read: Read, encoding: str) -> None:
    sheet = read("姓名,分数\n张三,1\n李四,2\n".encode(encoding))
    assert sheet.names == ["姓名", "分数"]
    assert sheet.columns == [["张三", "李四"], ["1", "2"]]


@pytest.mark.parametrize("separator", [",", ";", "\t", "，"])
def test_a_file_is_read_with_every_usual_separator(read: Read, separator: str) -> None:
    text = "a,b,c\n1,2,3\n4,5,6\n".replace(",", separator)
    assert read(text).columns == [["1", "4"], ["2", "5"], ["3", "6"]]


def test_decimal_commas_do_not_make_a_semicolon_file_one_of_commas(read: Read) -> None:
    assert read("a;b\n1,5;2\n2,5;3\n").names == ["a", "b"]


def test_quotes_blank_lines_and_line_ends_of_every_kind_are_understood(read: Read) -> None:
    sheet = read('a,b\r\n"x, ""y""\nz",1\r\n\r\n , \r\nw,2\r\n')
    assert sheet.columns == [['x, "y"\nz', "w"], ["1", "2"]]


def test_what_stands_for_a_missing_value_is_one(read: Read) -> None:
    sheet = read("a,b,c\nNA,?,缺失\n 1 ,x\n")
    assert sheet.columns == [[None, "1"], [None, "x"], [None, None]]


def test_a_file_without_names_gets_some(read: Read) -> None:
    assert read("1,2\n3,4\n", header=False).names == ["c1", "c2"]


@pytest.mark.parametrize(
    ("content", "words", "zh"),
    [
        (b"", "is empty", "空文件"),
        (b"\n \n", "is empty", "空文件"),
        (b"a,b\n", "has 0 rows of data", "0 行"),
        (b"a,b\n1,2\n", "has 1 row of data", "1 行"),
        (b"1,2\n3,4\n5,6\n", "no names of columns", "不是列名"),
        (b"a,b,a\n1,2,3\n4,5,6\n", "several columns named 'a'", "重复的列名"),
        (b"a,b\n1,2,3\n4,5\n", "Line 2 of 'a.csv' has 3 cells", "第 2 行"),
        (b"PK\x03\x04xlsx", "is a spreadsheet", "电子表格"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "no text in UTF-8 or GB18030", "不是 UTF-8"),
        (b'a,b\n"' + b"x" * 200_000 + b'",1\n2,3\n', "cannot be read as a CSV", "不是有效的 CSV"),
    ],
    ids=["empty", "blank", "no row", "one row", "no names", "twice", "long line", "xlsx", "jpeg", "huge cell"],
)
def test_a_file_that_cannot_be_used_is_refused_in_both_languages(
    read: Read, content: bytes, words: str, zh: str
) -> None:
    with pytest.raises(DataProblem) as refused:
        read(content)
    assert words in refused.value.text.en
    assert zh in refused.value.text.zh


def test_a_file_that_is_not_there_is_told_with_those_that_are(read: Read) -> None:
    read(GOOD)
    with pytest.raises(DataProblem) as refused:
        csvfile.read("b.csv", header=True, notes=Notes())
    assert refused.value.code == 100919
    assert refused.value.next_step is not None
    assert "a.csv" in refused.value.next_step.en


# --- columns ---------------------------------------------------------------------------------------


def test_columns_are_numbers_or_text_and_a_stray_word_is_told(read: Read) -> None:
    notes = Notes()
    sheet = read(
        "n,t,s\n" + "".join(f"{place},x{place % 2},{place}\n" for place in range(20)) + "1e3,,twelve\n"
    )
    columns = data.columns_of(sheet, sheet.names, notes)
    assert columns["n"].tolist()[-1] == 1000.0
    assert columns["t"].tolist()[-2:] == ["x1", None]
    assert columns["s"].dtype == object
    assert "'twelve'" in notes[0].en


def test_numbers_are_only_what_students_mean_by_numbers() -> None:
    found = data.numbers_of(["1", " 2.5", "-3e2", "1_000", "inf", "x", None, 4, "１"])
    assert [value if not math.isnan(value) else None for value in found.tolist()] == [
        *(1.0, 2.5, -300.0, None, None, None, None, 4.0, 1.0)
    ]


def test_columns_that_teach_nothing_are_left_out_and_named(train: Train) -> None:
    rows = "".join(
        f"{place % 5},same,note {place},{'uv'[place % 2]},{'xy'[place % 2]}\n" for place in range(40)
    )
    result = train("n,constant,note,letter,kind\n" + rows)
    assert result["columns"] == 2
    assert [("constant" in note["en"], "note" in note["en"]) for note in result["notes"]] == [
        *((True, False), (False, True))
    ]


def test_a_column_of_many_categories_does_not_become_as_many_columns(train: Train) -> None:
    rows = "".join(f"{place},city{place % 60},{'xy'[place % 2]}\n" for place in range(300))
    assert train("n,city,kind\n" + rows)["columns"] == 2
    columns = [preparing.Column("city", "category")]
    table = data.Table({"city": data.texts_of([f"city{place % 60}" for place in range(300)])})
    prepare = preparing.preparation(columns, scaled=False)
    ready = prepare.fit_transform(preparing.matrix(columns, table))
    assert ready.shape == (300, preparing.MAX_CATEGORIES)
    assert preparing.sources(columns, prepare) == ["city"] * preparing.MAX_CATEGORIES


@pytest.mark.parametrize("model", ["svm", "hist_gradient_boosting", "k_means", "logistic"])
def test_gaps_and_categories_are_filled_for_every_kind_of_model(train: Train, model: str) -> None:
    rows = "".join(
        f"{place if place % 5 else ''},{'uv?'[place % 3]},{'xy'[place % 2]}\n" for place in range(60)
    )
    task = "clustering" if model == "k_means" else "classification"
    result = train("n,letter,kind\n" + rows, model=model, task=task)
    assert result["columns"] == (3 if task == "clustering" else 2)


def test_rows_without_a_target_are_left_out(train: Train) -> None:
    result = train(GOOD + "5,5,\n6,6,NA\n")
    assert result["rows"] == {"train": 15, "test": 5}
    assert "2 rows have no value in the target column" in result["notes"][0]["en"]


def test_rows_that_were_sent_are_objects_or_lists_in_the_order_of_the_columns() -> None:
    columns = [
        preparing.Column("n", "number"),
        preparing.Column("id", "unique"),
        preparing.Column("t", "category"),
    ]
    sent = [{"t": "x", "n": 1, "more": 9}, [2.5, "y"], [3, "somebody", None], {"n": None, "t": ""}]
    found = preparing.matrix(columns, preparing.table_of(sent, columns)).tolist()
    assert found[:3] == [[1.0, "x"], [2.5, "y"], [3.0, None]]
    assert math.isnan(found[3][0])
    assert found[3][1] is None


@pytest.mark.parametrize(
    ("rows", "words", "zh"),
    [
        ([{"n": 1}], "needs the columns 't'", "缺少模型需要的列"),
        ([{"x": 1}], "none of the model's columns", "没有模型需要的列"),
        ([[1, 2, 3]], "Row 1 has 3 values, and the model needs 2", "第 1 行有 3 个值"),
        ([["a", "b"]], "must have numbers, and it has 'a'", "必须是数字"),
    ],
)
def test_rows_that_do_not_fit_the_model_are_refused_with_its_columns(
    rows: list[Any], words: str, zh: str
) -> None:
    columns = [preparing.Column("n", "number"), preparing.Column("t", "category")]
    with pytest.raises(DataProblem) as refused:
        preparing.matrix(columns, preparing.table_of(rows, columns))
    assert words in refused.value.text.en
    assert zh in refused.value.text.zh


# --- what can be wrong with the choice -------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "params", "words", "zh"),
    [
        (GOOD, {"data": {"target": "label"}}, "the columns are 'a', 'b', 'kind'", "现有的列"),
        (GOOD, {"data": {"features": ["z"]}}, "no column 'z' to learn from", "没有可用于学习的列"),
        ("a\n1\n2\n3\n", {}, "only column", "只找到一列"),
        ("a,k\n" + "1,x\n2,x\n" * 5, {}, "has only the class 'x'", "只有一个类别"),
        ("a,k\n1,\n2,\n", {}, "has no values", "没有任何值"),
        (GOOD, {"task": "regression"}, "must have numbers, and it has 'y'", "必须是数字"),
        ("a,k\n1,5\n2,5\n3,5\n4,5\n", {"task": "regression"}, "same value in every row", "都相同"),
        (GOOD, {"data": {"target": "a"}}, "20 classes in 20 rows", "类别"),
        ("a,b,k\n" + "1,z,x\n1,z,y\n" * 9, {}, "nothing to learn from", "没有可学习"),
        ("a,k\n1,x\n2,y\n3,x\n", {}, "at least 4 are needed", "至少需要 4 行"),
        (GOOD, {"model": "knn", "knn": {"neighbors": 50}}, "knn.neighbors is 50", "近邻"),
        (GOOD, {"task": "clustering", "model": "k_means", "k_means": {"clusters": 30}}, "20 different", "聚类"),
        (
            GOOD,
            {"model": "hist_gradient_boosting", "hist_gradient_boosting": {"early_stopping": True}},
            "too few to keep a tenth",
            "提前停止",
        ),
    ],
    ids=[
        *("no target", "no feature", "one column", "one class", "empty target", "text", "constant target"),
        *("many classes", "constant columns", "few rows", "neighbours", "clusters", "early stopping"),
    ],
)
def test_data_that_cannot_be_learned_from_is_refused_in_both_languages(
    train: Train, content: str, params: dict[str, Any], words: str, zh: str
) -> None:
    with pytest.raises(DataProblem) as refused:
        train(content, **params)
    assert words in refused.value.text.en
    assert zh in refused.value.text.zh + (refused.value.next_step.zh if refused.value.next_step else "")


def test_a_class_with_a_single_row_is_told_of_and_stops_nothing(train: Train) -> None:
    result = train(GOOD + "9,9,rare\n")
    assert "very few rows" in result["notes"][0]["en"]


def test_a_model_that_has_not_converged_is_told_of(train: Train) -> None:
    rows = "".join(f"{place},{place * place % 17},{'xy'[place * 7 % 3 % 2]}\n" for place in range(80))
    result = train("a,b,k\n" + rows, model="logistic", logistic={"max_iterations": 10, "c": 1000})
    assert all("converged" in note["en"] for note in result["notes"])


# --- steps and scores ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["random_forest", "hist_gradient_boosting", "ada_boost"])
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_training_that_is_watched_makes_the_same_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, task: str
) -> None:
    import numpy as np

    from k12ai.frameworks.ml import models, schema

    (tmp_path / "journal").touch()
    monkeypatch.setenv("K12AI_JOURNAL", str(tmp_path / "journal"))
    for limit in ("_QUICK_VALUES", "_PIECE_S"):
        monkeypatch.setattr(training, limit, 0.01)  # in pieces, and with a listener
    random = np.random.default_rng(0)
    rows = random.normal(size=(200, 4))
    target = rows[:, 0] + rows[:, 1] ** 2
    if task == "classification":
        target = data.texts_of(np.where(target > 1, "high", np.where(target > 0, "mid", "low")).tolist())
    given = schema.defaults_of(name)
    plain = models.build(name, task, given, 3).fit(rows, target)
    curve = training.Curve((rows, target), (rows, target), 0)
    watched = training.fit(models.build(name, task, given, 3), rows, target, curve)
    training.report_stages(watched, curve)
    ask = "predict_proba" if task == "classification" else "predict"
    assert getattr(watched, ask)(rows) == pytest.approx(getattr(plain, ask)(rows))
    assert type(watched) is type(plain)
    assert watched.get_params().keys() == plain.get_params().keys()
    lines = [msgspec.json.decode(line) for line in (tmp_path / "journal").read_bytes().splitlines()]
    metrics = [line["data"] for line in lines if line["type"] == "metrics"]
    assert 0 < len(metrics) <= training.MAX_POINTS
    if task == "classification":  # what is counted vote by vote is what the model itself says
        right = (plain.predict(curve.rows[-75:]) == curve.target[-75:]).mean()
        assert metrics[-1]["test_accuracy"] == pytest.approx(right, abs=1e-6)


def test_starting_k_means_one_by_one_finds_what_it_finds_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sklearn.cluster import KMeans
    from sklearn.datasets import make_blobs

    (tmp_path / "journal").touch()
    monkeypatch.setenv("K12AI_JOURNAL", str(tmp_path / "journal"))
    monkeypatch.setattr(training, "_QUICK_STARTS", 0)
    rows, _ = make_blobs(300, centers=6, random_state=0)
    found = training.fit(KMeans(5, n_init=4, random_state=1), rows, None, None)
    plain = KMeans(5, n_init=4, random_state=1).fit(rows)
    assert found.inertia_ == pytest.approx(plain.inertia_)
    assert (found.n_init, found.random_state) == (4, 1)
    lines = [msgspec.json.decode(line)["data"] for line in (tmp_path / "journal").read_bytes().splitlines()]
    assert [line["step"] for line in lines if "inertia" in line] == [1, 2, 3, 4]


def test_scores_cope_with_a_class_that_the_model_has_never_seen() -> None:
    import numpy as np
    from sklearn.naive_bayes import GaussianNB

    model = GaussianNB().fit(np.array([[0.0], [1.0], [5.0], [6.0]]), np.array([0, 0, 1, 1]))
    found = scores.scores("classification", model, np.array([[0.0], [5.0], [9.0]]), np.array([0, 1, 2]))
    assert found["accuracy"] == pytest.approx(2 / 3, abs=1e-6)
    assert found["confusion_matrix"] == {"labels": [0, 1, 2], "matrix": [[1, 0, 0], [0, 1, 0], [0, 1, 0]]}
    assert [each["rows"] for each in found["classes"]] == [1, 1, 1]

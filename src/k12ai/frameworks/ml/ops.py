"""What each op does, from its parameters to its result."""

import csv
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import Pipeline

from k12ai import report
from k12ai.frameworks import csvfile
from k12ai.frameworks.base import EVALUATE, PREDICT, TRAIN
from k12ai.frameworks.ml import data, models, preparing, scores, storage, training
from k12ai.frameworks.ml.data import Array, Table
from k12ai.frameworks.ml.models import Estimator
from k12ai.frameworks.ml.preparing import Column
from k12ai.frameworks.ml.schema import AUTO, CLASSIFICATION, CLUSTERING
from k12ai.frameworks.ml.storage import Card
from k12ai.frameworks.problems import VALUE, Notes, refuse

Params = Mapping[str, Any]

MAX_SHOWN = 100
"""How many predictions are in the result; the file has all of them."""

_SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)


def _phase(name: str) -> None:
    report.progress(0, None, name)


# --- train -----------------------------------------------------------------------------------------


def train(params: Params) -> None:
    """Train a model, test it on rows it has not seen, save it, and report all of that."""
    task, seed, notes = params["task"], params["seed"], Notes()
    _phase("loading")
    table = data.load(params["data"], task, seed, notes)
    _phase("preparing")
    parts = _parts(table, task, params["data"]["test_fraction"], seed, notes)
    columns = preparing.choose(parts[0], notes)
    prepare = preparing.preparation(columns, scaled=params["model"] in models.SCALED)
    rows = [preparing.matrix(columns, part) for part in parts]
    ready = [prepare.fit_transform(rows[0]), *(prepare.transform(each) for each in rows[1:])]
    estimator = models.build(params["model"], task, params["parameters"], seed)
    _check_fits(params, ready[0], parts[0].target)
    curve = _curve(ready, parts, seed)
    estimator = _fitted(estimator, ready[0], parts[0].target, curve, notes)
    _phase("evaluating")
    if curve is not None:
        training.report_stages(estimator, curve)
    tested = scores.scores(task, estimator, ready[-1], parts[-1].target)
    result = tested | _more(params, estimator, columns, prepare, ready, parts)
    _phase("saving")
    card = _card(params, table, parts, columns, estimator, tested)
    files = storage.save(params["save_as"], Pipeline([("prepare", prepare), ("model", estimator)]), card)
    report.result(
        task=task,
        model=params["model"],
        saved_as=params["save_as"],
        files=files,
        rows=card.rows,
        columns=sum(column.is_used for column in columns),
        **result,
        notes=notes.plain(),
    )


def _parts(table: Table, task: str, fraction: float, seed: int, notes: Notes) -> list[Table]:
    """Return the part to train with and the part to test with, which in clustering are one."""
    return [table] if task == CLUSTERING else list(data.split(table, task, fraction, seed, notes))


def _check_fits(params: Params, rows: Array, target: Array | None) -> None:
    given, count = params["parameters"], len(rows)
    if given.get("neighbors", 0) > count:
        refuse(
            f"knn.neighbors is {given['neighbors']}, and there are {count} rows to train with.",
            f"knn.neighbors 为 {given['neighbors']}，但训练数据只有 {count} 行。",
            step=("Choose fewer neighbours.", "请减少近邻数。"),
        )
    if "clusters" in given and (different := len({row.tobytes() for row in rows})) < given["clusters"]:
        refuse(
            f"k_means.clusters is {given['clusters']}, and there are {different} different rows.",
            f"k_means.clusters 为 {given['clusters']}，但只有 {different} 行不同的数据。",
            step=("Choose fewer clusters.", "请减少聚类数。"),
        )
    if given.get("early_stopping"):
        is_class = target is not None and params["task"] == CLASSIFICATION
        classes = Counter(np.asarray(target).tolist()) if is_class else {"": 2}
        if count // 10 < max(len(classes), 2) or min(classes.values()) < 2:
            refuse(
                f"{count} rows are too few to keep a tenth of them aside for early stopping.",
                f"只有 {count} 行训练数据，不足以留出十分之一用于提前停止。",
                step=("Set early_stopping to false.", "请把 early_stopping 设为 false。"),
            )


def _curve(ready: Sequence[Array], parts: Sequence[Table], seed: int) -> training.Curve | None:
    if len(parts) < 2 or parts[0].target is None or parts[1].target is None:
        return None
    return training.Curve((ready[0], parts[0].target), (ready[1], parts[1].target), seed)


def _fitted(
    estimator: Estimator, rows: Array, target: Array | None, curve: training.Curve | None, notes: Notes
) -> Estimator:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        estimator = training.fit(estimator, rows, target, curve)
    for each in caught:
        if issubclass(each.category, ConvergenceWarning):
            notes.add(
                "Training ended before it had converged; allow more iterations.",
                "训练在收敛之前就结束了，请增加最大迭代次数。",
            )
        else:
            warnings.showwarning(each.message, each.category, each.filename, each.lineno)
    return estimator


def _more(
    params: Params,
    estimator: Estimator,
    columns: Sequence[Column],
    prepare: Any,
    ready: Sequence[Array],
    parts: Sequence[Table],
) -> dict[str, Any]:
    """Return what a result has besides the scores."""
    task, seed, target = params["task"], params["seed"], parts[-1].target
    if task == CLUSTERING:
        return {"inertia": scores.rounded(estimator.inertia_), "iterations": int(estimator.n_iter_)}
    assert target is not None
    assert parts[0].target is not None
    found: dict[str, Any] = {}
    if task == CLASSIFICATION:
        labels, counts = np.unique(parts[0].target, return_counts=True)
        found["baseline_accuracy"] = scores.rounded(np.mean(target == labels[counts.argmax()]))
    if params["importance"]:
        how, found["importance"] = scores.importance(
            estimator, preparing.sources(columns, prepare), ready[1], target
        )
        found["importance_by"] = how
    if params["learning_curve"]:
        found["learning_curve"] = training.learning_curve(
            lambda: models.build(params["model"], task, params["parameters"], seed),
            (ready[0], parts[0].target),
            (ready[1], target),
            _SHARES,
            seed,
        )
    return found


def _card(
    params: Params,
    table: Table,
    parts: Sequence[Table],
    columns: list[Column],
    estimator: Estimator,
    tested: Mapping[str, Any],
) -> Card:
    classes = getattr(estimator, "classes_", None)
    return Card(
        task=params["task"],
        model=params["model"],
        parameters=params["parameters"],
        data=params["data"],
        seed=params["seed"],
        columns=columns,
        target=table.target_name if params["task"] != CLUSTERING else "",
        classes=None if classes is None else classes.tolist(),
        rows={name: part.row_count for name, part in zip(("train", "test"), parts, strict=False)},
        sha256=table.sha256,
        scores={name: value for name, value in tested.items() if isinstance(value, float)},
        versions=storage.versions(),
    )


# --- evaluate --------------------------------------------------------------------------------------


def evaluate(params: Params) -> None:
    """Test a saved model, on the rows that training has kept aside or on a file."""
    notes = Notes()
    _phase("loading")
    model, card = storage.load(params["model"], notes)
    chosen = params["data"]
    table = _kept_aside(card, notes) if chosen["dataset"] == AUTO else _file_of(chosen, card, notes)
    _phase("evaluating")
    rows = model[0].transform(preparing.matrix(card.columns, table))
    tested = scores.scores(card.task, model[-1], rows, table.target)
    report.result(
        task=card.task,
        model=params["model"],
        data="test" if chosen["dataset"] == AUTO else chosen["file"],
        rows=table.row_count,
        **tested,
        at_training=card.scores,
        notes=notes.plain(),
    )


def _kept_aside(card: Card, notes: Notes) -> Table:
    table = data.load(card.data, card.task, card.seed, notes)
    if table.sha256 != card.sha256:
        refuse(
            f"{card.data['file']!r} has changed since the training, and it is unknown which rows are new.",
            f"{card.data['file']!r} 在训练之后被修改过，无法区分哪些数据是新的。",
            code=VALUE,
            step=("Train again, or evaluate with another file.", "请重新训练，或用另一个文件评估。"),
        )
    return _parts(table, card.task, card.data["test_fraction"], card.seed, Notes())[-1]


def _file_of(chosen: Params, card: Card, notes: Notes) -> Table:
    sheet = csvfile.read(chosen["file"], header=chosen["header"], notes=notes)
    if card.target and card.target not in sheet.names:
        refuse(
            f"There is no column {card.target!r} to compare the predictions with.",
            f"没有可与预测结果比较的列 {card.target!r}。",
            step=(
                f"Add the column {card.target!r}, or use predict.start.",
                f"请加入列 {card.target!r}，或使用 predict.start。",
            ),
        )
    table = data.to_test(sheet, _known(sheet.names, card), card.target, card.task, notes)
    return replace(table, target=_as_classes(table.target, card))


def _known(names: Sequence[str], card: Card) -> list[str]:
    """Return those of the names that the model learned from."""
    used = {column.name for column in card.columns if column.is_used}
    return [name for name in names if name in used]


def _as_classes(target: Array | None, card: Card) -> Array | None:
    """Return labels as the model has them: one file may have 1 and 2 where another has a and 1."""
    if target is None or card.classes is None:
        return target
    if any(isinstance(each, str) for each in card.classes):
        return data.texts_of(target.tolist())
    if target.dtype == object:
        strange = sorted(set(target.tolist()) - {str(each) for each in card.classes})[:5]
        refuse(
            f"The target has classes that the model does not know: {', '.join(map(repr, strange))}.",
            f"目标列中有模型不认识的类别：{'、'.join(map(repr, strange))}。",
            code=VALUE,
        )
    return target


# --- predict ---------------------------------------------------------------------------------------


def predict(params: Params) -> None:
    """Predict rows; the result has the first of them and the file has all."""
    notes = Notes()
    _phase("loading")
    model, card = storage.load(params["model"], notes)
    if params["file"]:
        sheet = csvfile.read(params["file"], header=params["header"], notes=notes, least=1)
        table = Table(data.columns_of(sheet, _known(sheet.names, card), notes))
    else:
        table = preparing.table_of(params["rows"], card.columns)
    _phase("predicting")
    rows = model[0].transform(preparing.matrix(card.columns, table))
    labels = _plain(model[-1].predict(rows))
    chances = model[-1].predict_proba(rows) if hasattr(model[-1], "predict_proba") else None
    _phase("saving")
    shown = None if chances is None else [[scores.rounded(each) for each in row] for row in chances[:MAX_SHOWN]]
    report.result(
        task=card.task,
        model=params["model"],
        rows=len(labels),
        predictions=labels[:MAX_SHOWN],
        classes=card.classes,
        probabilities=shown,
        file=_written(params["save_as"], table, card, labels, chances),
        notes=notes.plain(),
    )


def _plain(predicted: Array) -> list[Any]:
    values: list[Any] = predicted.tolist()
    return [round(value, 6) if isinstance(value, float) else value for value in values]


def _written(name: str, table: Table, card: Card, labels: Sequence[Any], chances: Array | None) -> str:
    """Write every row with its prediction, with a byte order mark so that Excel shows Chinese."""
    folder = csvfile.inside("predictions")
    folder.mkdir(exist_ok=True)
    file = csvfile.inside(f"predictions/{name}.csv")
    classes = card.classes or [] if chances is not None else []
    columns = [column.tolist() for column in table.columns.values()]
    with file.open("w", encoding="utf-8-sig", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow([*table.columns, "prediction", *(f"probability {each}" for each in classes)])
        for place, label in enumerate(labels):
            chance = [] if chances is None else [scores.rounded(each) for each in chances[place]]
            writer.writerow([*(_cell(column[place]) for column in columns), label, *chance])
    return f"predictions/{name}.csv"


def _cell(value: Any) -> Any:
    return "" if value is None or value != value else value


OPS: Mapping[str, Callable[[Params], None]] = {TRAIN: train, EVALUATE: evaluate, PREDICT: predict}

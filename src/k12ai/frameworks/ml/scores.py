"""How good a model is, as plain JSON values."""

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn import metrics

from k12ai.frameworks.ml.data import Array
from k12ai.frameworks.ml.models import Estimator
from k12ai.frameworks.ml.schema import CLASSIFICATION, CLUSTERING

_SILHOUETTE_ROWS = 2000
_PAIRS = 100
_TOP = 20
_PERMUTED_ROWS = 200
_PERMUTATIONS = 3
_PERMUTATION_S = 5.0

Scores = dict[str, Any]


def rounded(value: Any) -> float | None:
    """Return a number with six digits behind the point; None where it is none."""
    return round(float(value), 6) if math.isfinite(value) else None


def scores(task: str, model: Estimator, rows: Array, target: Array | None) -> Scores:
    """Return all the scores of a task."""
    if task == CLUSTERING:
        return clustering(rows, model.predict(rows), target)
    assert target is not None
    predicted = model.predict(rows)
    if task == CLASSIFICATION:
        return classification(model, rows, target, predicted)
    return regression(target, predicted)


def classification(model: Estimator, rows: Array, target: Array, predicted: Array) -> Scores:
    """Return what a classifier gets right; rows of the matrix are the true classes, columns the predicted."""
    labels = sorted(set(target.tolist()) | set(model.classes_.tolist()))
    each = metrics.precision_recall_fscore_support(target, predicted, labels=labels, zero_division=0)
    precision, recall, f1, support = (part.tolist() for part in each)
    matrix = metrics.confusion_matrix(target, predicted, labels=labels)
    return {
        "accuracy": rounded(np.mean(target == predicted)),
        "f1_macro": rounded(
            np.mean([f1[place] for place in range(len(labels)) if support[place] or matrix[:, place].any()])
        ),
        "roc_auc": roc_auc(model, rows, target),
        "classes": [
            {
                "label": label,
                "precision": rounded(precision[place]),
                "recall": rounded(recall[place]),
                "f1": rounded(f1[place]),
                "rows": int(support[place]),
            }
            for place, label in enumerate(labels)
        ],
        "confusion_matrix": {"labels": labels, "matrix": matrix.tolist()},
    }


def roc_auc(model: Estimator, rows: Array, target: Array) -> float | None:
    """Return the area under the ROC curve; of more than two classes, the mean of each against the rest."""
    decide = getattr(model, "predict_proba", None) or getattr(model, "decision_function", None)
    if decide is None:
        return None
    values = np.asarray(decide(rows))
    if values.ndim == 1:
        values = np.stack([-values, values], axis=1)
    places = range(values.shape[1])[-1:] if values.shape[1] == 2 else range(values.shape[1])
    areas = []
    for place in places:
        is_it = target == model.classes_[place]
        if is_it.any() and not is_it.all():
            areas.append(metrics.roc_auc_score(is_it, values[:, place]))
    return rounded(np.mean(areas)) if areas else None


def regression(target: Array, predicted: Array) -> Scores:
    """Return how far predictions are off, and some of them to draw."""
    chosen = np.linspace(0, len(target) - 1, min(len(target), _PAIRS)).astype(int)
    return {
        "r2": rounded(metrics.r2_score(target, predicted)) if len(target) > 1 else None,
        "mae": rounded(metrics.mean_absolute_error(target, predicted)),
        "rmse": rounded(math.sqrt(metrics.mean_squared_error(target, predicted))),
        "sample": {
            "true": [rounded(value) for value in target[chosen]],
            "predicted": [rounded(value) for value in predicted[chosen]],
        },
    }


def clustering(rows: Array, found: Array, known: Array | None) -> Scores:
    """Return how well clusters are apart; where groups are known, how well they agree with them."""
    values: Scores = {
        "silhouette": _silhouette(rows, found),
        "cluster_sizes": np.bincount(found).tolist(),
    }
    if known is not None:
        values["adjusted_rand"] = rounded(metrics.adjusted_rand_score(known, found))
    return values


def _silhouette(rows: Array, found: Array) -> float | None:
    if len(rows) > _SILHOUETTE_ROWS:
        chosen = np.random.default_rng(0).choice(len(rows), _SILHOUETTE_ROWS, replace=False)
        rows, found = rows[chosen], found[chosen]
    if not 2 <= len(set(found.tolist())) < len(rows):
        return None
    return rounded(metrics.silhouette_score(rows, found))


# --- importance ------------------------------------------------------------------------------------


def importance(
    model: Estimator, names: Sequence[str], rows: Array, target: Array
) -> tuple[str, list[dict[str, Any]]]:
    """Return how it was found and the columns that matter most; the shares of all columns add up to 1.

    ``rows`` are prepared, and ``names`` says which column each column of them is made from. Without an
    importance of the model's own, columns are shuffled and the loss of score counts; nothing where that
    would take more than a few seconds.
    """
    if (own := getattr(model, "feature_importances_", None)) is not None:
        how, values = "model", np.asarray(own)
    elif (weights := getattr(model, "coef_", None)) is not None and getattr(
        model, "kernel", "linear"
    ) == "linear":
        how, values = "weights", np.abs(np.asarray(weights)).reshape(-1, len(names)).mean(axis=0)
    elif (lost := _permuted(model, names, rows, target)) is not None:
        how, values = "permutation", lost
    else:
        return "", []
    sums: dict[str, float] = {}
    for name, value in zip(names, values.tolist(), strict=True):
        sums[name] = sums.get(name, 0.0) + max(0.0, value)
    total = sum(sums.values())
    if not total or not math.isfinite(total):
        return how, []
    best = sorted(sums, key=lambda name: -sums[name])[:_TOP]
    return how, [{"name": name, "importance": rounded(sums[name] / total)} for name in best]


def _permuted(model: Estimator, names: Sequence[str], rows: Array, target: Array) -> Array | None:
    """Return what each column's shuffling costs; the columns of one source are shuffled together."""
    random = np.random.default_rng(0)
    chosen = random.permutation(len(rows))[:_PERMUTED_ROWS]
    rows, target = rows[chosen], target[chosen]
    began = time.perf_counter()
    whole = model.score(rows, target)
    groups = list(dict.fromkeys(names))
    if (time.perf_counter() - began) * len(groups) * _PERMUTATIONS > _PERMUTATION_S:
        return None
    lost = np.zeros(len(names))
    for group in groups:
        places = [place for place, name in enumerate(names) if name == group]
        shuffled = rows.copy()
        for _ in range(_PERMUTATIONS):
            shuffled[:, places] = rows[random.permutation(len(rows))][:, places]
            lost[places[0]] += (whole - model.score(shuffled, target)) / _PERMUTATIONS
    return lost

"""Fitting a model, and telling of each step it really has, at a cost that can hardly be measured."""

import contextlib
import io
import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from sklearn.cluster import KMeans
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)

from k12ai import report
from k12ai.frameworks.ml.data import Array
from k12ai.frameworks.ml.models import Estimator

MAX_POINTS = 25
"""How many points a curve has at most."""

_CURVE_ROWS = (100, 1000)
_PIECE_S = 1.0
_TICK_S = 0.1
_QUICK_STARTS = 1_000_000  # rows by columns by clusters that take some hundredths of a second
_QUICK_VALUES = 5_000_000  # rows by columns by rounds that take a fraction of a second
_PHASE = "training"


class Curve:
    """The rows that a curve is drawn for: a few of those trained with, three times as many to test with.

    An eighth of the rows, so that asking each tree about them takes some hundredths of growing it.
    """

    def __init__(self, train: tuple[Array, Array], test: tuple[Array, Array], seed: int) -> None:
        random = np.random.default_rng(seed)
        count = min(max(len(train[0]) // 8, _CURVE_ROWS[0]), _CURVE_ROWS[1])
        parts = (_some(*train, count // 4, random), _some(*test, count - count // 4, random))
        self.rows = np.concatenate([rows for rows, _ in parts])
        self.rows32 = self.rows.astype(np.float32)  # as trees want them
        self.target = np.concatenate([target for _, target in parts])
        self._trained = len(parts[0][0])
        self.is_drawn = False

    def report(self, step: int, predicted: Array, *, is_class: bool) -> None:
        """Report how good the predictions for `rows` are after a step."""
        name = "accuracy" if is_class else "r2"
        for_train, for_test = slice(None, self._trained), slice(self._trained, None)
        values = {
            f"{part}_{name}": _score(self.target[where], predicted[where], is_class=is_class)
            for part, where in (("train", for_train), ("test", for_test))
        }
        report.metric(values, step=step)


def _some(rows: Array, target: Array, count: int, random: np.random.Generator) -> tuple[Array, Array]:
    if len(rows) <= count:
        return rows, target
    chosen = random.choice(len(rows), count, replace=False)
    return rows[chosen], target[chosen]


def _score(target: Array, predicted: Array, *, is_class: bool) -> float | None:
    if is_class:
        return round(np.count_nonzero(target == predicted) / len(target), 6)
    spread = float(np.sum((target - target.mean()) ** 2))
    return round(1 - float(np.sum((target - predicted) ** 2)) / spread, 6) if spread else None


def points(steps: int, most: int = MAX_POINTS) -> set[int]:
    """Return the steps that are points of a curve; the first and the last are."""
    return {int(step) for step in np.linspace(1, steps, min(steps, most)).round()}


def fit(estimator: Estimator, rows: Array, target: Array | None, curve: Curve | None) -> Estimator:
    """Return the fitted estimator, the same as its own ``fit`` makes of the same seed.

    Models that grow step by step say after which step they are, others that they are at work.
    """
    if isinstance(estimator, KMeans):
        return _fit_k_means(estimator, rows)
    assert target is not None
    if curve is not None:
        if isinstance(estimator, (RandomForestClassifier, RandomForestRegressor)):
            return _fit_forest(estimator, rows, target, curve)
        if isinstance(estimator, (HistGradientBoostingClassifier, HistGradientBoostingRegressor)):
            return _fit_hist(estimator, rows, target)
        if isinstance(estimator, (AdaBoostClassifier, AdaBoostRegressor)):
            return _fit_ada(estimator, rows, target, curve)
    report.progress(0, None, _PHASE)
    return estimator.fit(rows, target)


def report_stages(estimator: Estimator, curve: Curve) -> None:
    """Report the curve of a model whose training had no time to, or which must be there to be asked."""
    if isinstance(estimator, (HistGradientBoostingClassifier, HistGradientBoostingRegressor)):
        _report_rounds(estimator, curve)
    elif isinstance(estimator, (AdaBoostClassifier, AdaBoostRegressor)) and not curve.is_drawn:
        told = _Ada(estimator, curve)
        for place in range(len(estimator.estimators_)):
            weight, error = estimator.estimator_weights_[place], estimator.estimator_errors_[place]
            told.after(estimator, place + 1, weight, error)


# --- random forest: in pieces, and each tree votes once --------------------------------------------


def _fit_forest(forest: Estimator, rows: Array, target: Array, curve: Curve) -> Estimator:
    """Grow a forest in pieces of a second: beginning one starts threads anew, which takes ten milliseconds."""
    total, jobs = forest.n_estimators, forest.n_jobs
    is_class = isinstance(forest, RandomForestClassifier)
    shown, grown = points(total), 0
    piece = jobs if _forest_s(forest, rows) > _PIECE_S else total
    votes = np.zeros(())
    rows = np.ascontiguousarray(rows, dtype=np.float32)  # once, not once for each piece
    report.progress(0, total, _PHASE)
    forest.set_params(warm_start=True)
    while grown < total:
        began = time.perf_counter()
        upto = total if total - grown < 2 * piece and grown else min(total, grown + piece)
        forest.set_params(n_estimators=upto).fit(rows, target)
        each = (time.perf_counter() - began) / (upto - grown)
        for step, tree in enumerate(forest.estimators_[grown:upto], grown + 1):
            votes = votes + _vote(tree, curve.rows32, is_class=is_class)
            if step in shown:
                found = forest.classes_[np.argmax(votes, axis=1)] if is_class else votes / step
                curve.report(step, found, is_class=is_class)
        grown, piece = upto, max(jobs, round(_PIECE_S / each / jobs) * jobs)
        report.progress(grown, total, _PHASE)
    return forest.set_params(warm_start=False)


def _forest_s(forest: Estimator, rows: Array) -> float:
    """Return about how long a forest takes to grow: 60 ns for each value that is sorted for a split."""
    count, width = rows.shape
    tried = {"sqrt": math.sqrt(width), "log2": math.log2(width + 1)}.get(forest.max_features, width)
    values: float = count * math.log2(count + 1) * tried * forest.n_estimators
    return 60e-9 * values / int(forest.n_jobs)


def _vote(tree: Any, rows: Array, *, is_class: bool) -> Array:
    found: Array = tree.tree_.predict(rows)
    if not is_class:
        return found.reshape(len(rows))
    found = found.reshape(len(rows), -1)
    shares: Array = found / found.sum(axis=1, keepdims=True)  # before scikit-learn 1.3 these were counts
    return shares


# --- gradient boosting: it says itself which round it is in ----------------------------------------

_ROUND = re.compile(r"^\[(\d+)/(\d+)\]", re.M)
_LOSS_NAMES = {"train": "train_loss", "val": "validation_loss"}
_LOSSES = re.compile(r"\b(train|val) loss: ([-\d.]+)")


class _Listener(io.TextIOBase):
    """Takes what a verbose fit prints, and reports which round it is in; stays silent where it changed."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._shown = points(total)
        self._round = 0
        self._told_at = 0.0

    def write(self, text: str) -> int:
        """Take a piece of output."""
        if found := _ROUND.search(text):
            self._round = int(found[1])
        if self._round and " in " in text:
            self._tell(text)
        return len(text)

    def _tell(self, text: str) -> None:
        losses = {_LOSS_NAMES[part]: float(value) for part, value in _LOSSES.findall(text)}
        if losses and self._round in self._shown:
            report.metric(losses, step=self._round)
        now = time.monotonic()
        if now - self._told_at >= _TICK_S:
            self._told_at = now
            report.progress(self._round, self._total, _PHASE)


def _fit_hist(boosting: Estimator, rows: Array, target: Array) -> Estimator:
    total = boosting.max_iter
    report.progress(0, total, _PHASE)
    if not boosting.early_stopping and rows.size * total < _QUICK_VALUES:
        boosting.fit(rows, target)
    else:
        boosting.set_params(verbose=2)  # newer ones name their rounds from 2 on
        with contextlib.redirect_stdout(_Listener(total)):
            boosting.fit(rows, target)
        boosting.set_params(verbose=0)
    report.progress(boosting.n_iter_, total, _PHASE)
    return boosting


def _report_rounds(boosting: Estimator, curve: Curve) -> None:
    is_class = isinstance(boosting, HistGradientBoostingClassifier)
    shown = points(boosting.n_iter_)
    for step, found in enumerate(_staged(boosting, curve.rows, is_class=is_class), 1):
        if step in shown:
            predicted = _classes(boosting.classes_, found) if is_class else found
            curve.report(step, predicted, is_class=is_class)


def _staged(boosting: Estimator, rows: Array, *, is_class: bool) -> Iterator[Array]:
    return iter(boosting.staged_decision_function(rows) if is_class else boosting.staged_predict(rows))


def _classes(classes: Array, decision: Array) -> Array:
    place = (decision.ravel() > 0).astype(int) if len(classes) == 2 else np.argmax(decision, axis=1)
    found: Array = classes[place]
    return found


# --- AdaBoost: its hook for subclasses counts the rounds ------------------------------------------


class _Ada:
    """What a boosting tells after each of its rounds."""

    def __init__(self, boosting: Estimator, curve: Curve) -> None:
        self._total = boosting.n_estimators
        self._shown = points(self._total)
        self._curve = curve
        self._is_class = isinstance(boosting, AdaBoostClassifier)
        self._every = np.arange(len(curve.rows))
        self._votes: Array | None = None
        self._told_at = 0.0

    def after(self, boosting: Estimator, step: int, weight: float, error: float) -> None:
        """Report the round's own error, or how good all the rounds are together."""
        if self._is_class:
            self._classify(boosting, step, weight)
        elif step in self._shown:
            report.metric(step=step, round_error=round(float(error), 6))

    def tick(self, step: int) -> None:
        """Report how far it is, now and then."""
        now = time.monotonic()
        if now - self._told_at >= _TICK_S:
            self._told_at = now
            report.progress(step, self._total, _PHASE)

    def _classify(self, boosting: Estimator, step: int, weight: float) -> None:
        """Let a tree vote, as heavily as it counts; every tree knows all the classes."""
        found = boosting.estimators_[step - 1].tree_.predict(self._curve.rows32)
        if self._votes is None:
            self._votes = np.zeros((len(self._every), len(boosting.classes_)))
        self._votes[self._every, found.reshape(self._votes.shape).argmax(axis=1)] += weight
        if step in self._shown:
            self._curve.report(step, boosting.classes_[self._votes.argmax(axis=1)], is_class=True)


def _fit_ada(boosting: Estimator, rows: Array, target: Array, curve: Curve) -> Estimator:
    report.progress(0, boosting.n_estimators, _PHASE)
    # Quick ones are over before anybody looks; and scikit-learn may give its hook another name.
    if rows.size * boosting.n_estimators < _QUICK_VALUES or not hasattr(boosting, "_boost"):
        boosting.fit(rows, target)
    else:
        _fit_watched(boosting, rows, target, curve)
    report.progress(len(boosting.estimators_), boosting.n_estimators, _PHASE)
    return boosting


def _fit_watched(boosting: Estimator, rows: Array, target: Array, curve: Curve) -> None:
    told, boost = _Ada(boosting, curve), boosting._boost

    def watched(step: int, *arguments: Any, **named: Any) -> Any:
        found = boost(step, *arguments, **named)
        if found[1] is not None:  # else the round was no better than guessing, and ends it
            told.after(boosting, step + 1, found[1], found[2])
            told.tick(step + 1)
        return found

    curve.is_drawn = True
    boosting._boost = watched
    try:
        boosting.fit(rows, target)
    finally:
        del boosting._boost


# --- k-means: it begins anew several times ---------------------------------------------------------


def _fit_k_means(k_means: KMeans, rows: Array) -> KMeans:
    """Begin from each start on its own, with the same random numbers as all of them at once.

    Doing so costs some milliseconds for each, so that quick ones are left together.
    """
    total, seed = k_means.n_init, k_means.random_state
    if rows.size * k_means.n_clusters < _QUICK_STARTS:
        report.progress(0, None, _PHASE)
        return k_means.fit(rows)
    random = np.random.RandomState(seed)
    best: Any = None
    report.progress(0, total, _PHASE)
    for start in range(1, total + 1):
        found: Any = KMeans(**k_means.get_params() | {"n_init": 1, "random_state": random}).fit(rows)
        if best is None or found.inertia_ < best.inertia_:
            best = found
        report.metric(
            step=start,
            inertia=float(found.inertia_),
            best_inertia=float(best.inertia_),
            iterations=found.n_iter_,
        )
        report.progress(start, total, _PHASE)
    fitted: KMeans = best.set_params(n_init=total, random_state=seed)
    return fitted


def learning_curve(
    fresh: Callable[[], Estimator],
    train: tuple[Array, Array],
    test: tuple[Array, Array],
    shares: Sequence[float],
    seed: int,
) -> list[dict[str, Any]]:
    """Return the scores of models that were trained with a share of the rows each."""
    order = np.random.default_rng(seed).permutation(len(train[0]))
    found = []
    for number, share in enumerate(shares):
        report.progress(number, len(shares), "learning curve")
        chosen = order[: max(2, round(share * len(order)))]
        rows, target = train[0][chosen], train[1][chosen]
        try:
            model = fresh().fit(rows, target)
            scored = (model.score(rows, target), model.score(*test))
        except ValueError:  # too few rows, or only one class among them
            continue
        found.append({"rows": len(chosen), "train": _rounded(scored[0]), "test": _rounded(scored[1])})
    return found


def _rounded(value: float) -> float:
    return round(float(value), 6)

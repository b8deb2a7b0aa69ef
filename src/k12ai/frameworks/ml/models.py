"""Which estimator a model's name and parameters mean."""

from collections.abc import Callable, Mapping
from typing import Any

import joblib
from sklearn.cluster import KMeans
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.svm import SVC, SVR
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from k12ai.frameworks.ml.schema import REGRESSION

Estimator = Any
Parameters = Mapping[str, Any]

SCALED = frozenset({"knn", "svm", "logistic", "linear", "ridge", "k_means"})
"""The models that compare columns with each other, which must not depend on their units."""

ESTIMATORS: tuple[type, ...] = (
    AdaBoostClassifier,
    AdaBoostRegressor,
    DecisionTreeClassifier,
    DecisionTreeRegressor,
    GaussianNB,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    KMeans,
    KNeighborsClassifier,
    KNeighborsRegressor,
    LinearRegression,
    LogisticRegression,
    RandomForestClassifier,
    RandomForestRegressor,
    Ridge,
    SVC,
    SVR,
)


def build(model: str, task: str, given: Parameters, seed: int) -> Estimator:
    """Return the estimator, not fitted yet."""
    return _BUILDERS[model](task == REGRESSION, given, seed)


def _tree(regression: bool, given: Parameters, seed: int) -> Estimator:
    kind = DecisionTreeRegressor if regression else DecisionTreeClassifier
    return kind(
        max_depth=given["max_depth"] or None, min_samples_leaf=given["min_samples_leaf"], random_state=seed
    )


def _forest(regression: bool, given: Parameters, seed: int) -> Estimator:
    kind = RandomForestRegressor if regression else RandomForestClassifier
    usual = 1.0 if regression else "sqrt"
    return kind(
        n_estimators=given["trees"],
        max_depth=given["max_depth"] or None,
        min_samples_leaf=given["min_samples_leaf"],
        max_features={"auto": usual, "all": 1.0}.get(given["max_features"], given["max_features"]),
        n_jobs=joblib.cpu_count(),  # what the task may use, by affinity and cgroup
        random_state=seed,
    )


def _hist(regression: bool, given: Parameters, seed: int) -> Estimator:
    kind = HistGradientBoostingRegressor if regression else HistGradientBoostingClassifier
    return kind(
        max_iter=given["rounds"],
        learning_rate=given["learning_rate"],
        max_leaf_nodes=given["max_leaf_nodes"],
        min_samples_leaf=given["min_samples_leaf"],
        l2_regularization=given["l2"],
        early_stopping=given["early_stopping"],
        random_state=seed,
    )


def _ada(regression: bool, given: Parameters, seed: int) -> Estimator:
    kind, tree = (
        (AdaBoostRegressor, DecisionTreeRegressor)
        if regression
        else (AdaBoostClassifier, DecisionTreeClassifier)
    )
    return kind(
        estimator=tree(max_depth=given["max_depth"]),
        n_estimators=given["rounds"],
        learning_rate=given["learning_rate"],
        random_state=seed,
    )


def _knn(regression: bool, given: Parameters, _seed: int) -> Estimator:
    kind = KNeighborsRegressor if regression else KNeighborsClassifier
    # Brute force: as fast with as many columns as one-hot makes, and no tree of it has to be trusted.
    return kind(given["neighbors"], weights=given["weights"], metric=given["metric"], algorithm="brute")


def _svm(regression: bool, given: Parameters, seed: int) -> Estimator:
    words = {
        "C": given["c"],
        "kernel": given["kernel"],
        "gamma": given["gamma"] or "scale",
        "degree": given["degree"],
    }
    return SVR(**words) if regression else SVC(**words, random_state=seed)


def _bayes(_regression: bool, given: Parameters, _seed: int) -> Estimator:
    return GaussianNB(var_smoothing=given["smoothing"])


def _logistic(_regression: bool, given: Parameters, seed: int) -> Estimator:
    return LogisticRegression(C=given["c"], max_iter=given["max_iterations"], random_state=seed)


def _linear(_regression: bool, _given: Parameters, _seed: int) -> Estimator:
    return LinearRegression()


def _ridge(_regression: bool, given: Parameters, seed: int) -> Estimator:
    return Ridge(alpha=given["alpha"], random_state=seed)


def _k_means(_regression: bool, given: Parameters, seed: int) -> Estimator:
    return KMeans(
        given["clusters"], n_init=given["restarts"], max_iter=given["max_iterations"], random_state=seed
    )


_BUILDERS: Mapping[str, Callable[[bool, Parameters, int], Estimator]] = {
    "decision_tree": _tree,
    "random_forest": _forest,
    "hist_gradient_boosting": _hist,
    "ada_boost": _ada,
    "knn": _knn,
    "naive_bayes": _bayes,
    "svm": _svm,
    "logistic": _logistic,
    "linear": _linear,
    "ridge": _ridge,
    "k_means": _k_means,
}

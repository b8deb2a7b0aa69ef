"""What it costs to train through k12ml, with its curve, beside the same scikit-learn alone."""

import importlib.util
import os
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.bench import Bench
from benchmarks.fleet import Skipped
from benchmarks.table import Row

MOST = 1.03

TRAINING = ("fit of a random forest through k12ml, with its curve, vs. scikit-learn alone",)


class Fits(NamedTuple):
    """How long both took, in turns."""

    ours_s: list[float]
    alone_s: list[float]


def training(bench: Bench) -> list[Row]:
    """A training is at most 3 % slower than the same script of scikit-learn's, fit alone."""
    if importlib.util.find_spec("sklearn") is None:
        raise Skipped("scikit-learn is not installed (extra 'ml')")
    found = bench.run(fits, bench.scale.fit_rows, bench.scale.fit_rounds)
    return [Row.of_rounds(TRAINING[0], "s", found.ours_s, found.alone_s, at_most=MOST)]


def fits(rows: int, rounds: int) -> Fits:
    """Fit the same forest on the same data, both ways, so many times."""
    from sklearn.datasets import make_classification
    from sklearn.ensemble import RandomForestClassifier

    from k12ai.frameworks.ml.training import Curve, fit

    data, target = make_classification(rows, 40, n_informative=15, n_classes=4, random_state=0)
    test = (data[:200], target[:200])
    found = Fits([], [])
    with tempfile.TemporaryDirectory() as directory:
        journal = Path(directory) / "journal"
        journal.touch()
        os.environ["K12AI_JOURNAL"] = str(journal)
        for _ in range(rounds):
            for times, through in ((found.alone_s, False), (found.ours_s, True)):
                forest = RandomForestClassifier(100, random_state=0, n_jobs=1)
                curve = Curve((data, target), test, 0)
                began = time.perf_counter()
                if through:
                    fit(forest, data, target, curve)
                else:
                    forest.fit(data, target)
                times.append(time.perf_counter() - began)
        del os.environ["K12AI_JOURNAL"]
    return found

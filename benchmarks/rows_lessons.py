"""What k12cv and k12nlp learn within a lesson: how much of it is right afterwards, and how long it takes."""

import contextlib
import importlib.util
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests.frameworks.ops import run
from tests.support import english

from benchmarks.bench import Bench
from benchmarks.fleet import Skipped
from benchmarks.table import Quantity, Row
from k12ai.frameworks.base import TRAIN, Framework
from k12ai.frameworks.cv.framework import CvFramework
from k12ai.frameworks.nlp.framework import NlpFramework

DIGITS = ("k12cv, nothing chosen: digits that are read right", "k12cv, nothing chosen: until the result")
REVIEWS = (
    "k12nlp, nothing chosen: Chinese reviews that are told apart",
    "k12nlp, nothing chosen: until the result",
)
TUNED = ("English reviews told apart by a fine-tuned MiniLM, vs. a logistic regression on it as it is",)

MOST_S = 600.0
_TUNED_ROWS = 4000
_TUNED: Mapping[str, Any] = {
    "model": "pretrained",
    "data": {"file": "reviews.csv", "max_length": 64, "test_fraction": 0.4},
    "pretrained": {"directory": "minilm"},
    "training": {"epochs": 3, "learning_rate": 5e-5},
}


class Lesson(NamedTuple):
    """The result of a training, and how long its program ran."""

    accuracy: float
    taken_s: float


def digits(bench: Bench) -> list[Row]:
    """More than 97 of 100 digits within a minute."""
    return _rows(DIGITS, _learn(bench, CvFramework(), {}), at_least=0.97, within_s=60)


def reviews(bench: Bench) -> list[Row]:
    """More than 85 of 100 Chinese reviews within five minutes."""
    return _rows(REVIEWS, _learn(bench, NlpFramework(), {}), at_least=0.85, within_s=300)


def tuned(bench: Bench) -> list[Row]:
    """To train all of an encoder is better than to train a classifier on what it gives."""
    if not english.is_there():
        raise Skipped("there is no encoder to tune (make .make/english)")
    with tempfile.TemporaryDirectory() as directory:
        project = Path(directory) / "project"
        project.mkdir()
        english.put_encoder(project / "minilm")
        english.put_reviews(project / "reviews.csv", _TUNED_ROWS)
        whole = _learn(bench, NlpFramework(), _TUNED, project)
        with bench.whole_machine():
            frozen = _on_frozen(project)
    figure, peer = Quantity(whole.accuracy, "share"), Quantity(frozen, "share")
    return [Row.compared(TUNED[0], figure, peer, bar=("> 1", whole.accuracy > frozen))]


def _rows(names: tuple[str, str], lesson: Lesson, *, at_least: float, within_s: float) -> list[Row]:
    accuracy, taken = Quantity(lesson.accuracy, "share"), Quantity(lesson.taken_s, "s")
    return [
        Row(names[0], accuracy, bar=f"> {at_least:.0%}", met=lesson.accuracy > at_least),
        Row(names[1], taken, bar=f"<= {within_s:.0f} s", met=lesson.taken_s <= within_s),
    ]


def _learn(
    bench: Bench, framework: Framework, params: Mapping[str, Any], project: Path | None = None
) -> Lesson:
    """Train as a task does, on all cores."""
    if any(importlib.util.find_spec(name) is None for name in framework.modules):
        raise Skipped(f"{framework.name} cannot run (extra '{framework.extra}')")
    with tempfile.TemporaryDirectory() as directory, bench.whole_machine():
        place = project or Path(directory) / "project"
        place.mkdir(exist_ok=True)
        began = time.perf_counter()
        result = run(framework, TRAIN, params, place, timeout_s=MOST_S).result
        return Lesson(result["accuracy"], time.perf_counter() - began)


def _on_frozen(project: Path) -> float:
    """Return the accuracy of a classifier on the means of an encoder's vectors, as its authors use them."""
    import torch
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    from k12ai.frameworks.neural import examples, pretrained
    from k12ai.frameworks.neural.loop import take_processors
    from k12ai.frameworks.nlp.networks import Examples, Form, tokenizer_of

    take_processors()
    texts, labels = _texts(project / "reviews.csv")
    parts = examples.split(labels, _TUNED["data"]["test_fraction"], 0.1, 0)
    folder = project / "minilm"
    tokenizer = tokenizer_of("minilm", folder)
    source = Examples(texts, labels, tokenizer, Form(64, 0, tokenizer.get_vocab_size()))
    encoder: Any = pretrained.load(pretrained.Kind.TEXTS, "minilm", folder, 2, exact=False).eval()

    @torch.inference_mode()
    def vectors(places: list[int]) -> Any:
        found = []
        for batch in (source.batch(each, None) for each in examples.batches(places, 64)):
            mask = batch["attention_mask"][:, :, None]
            inputs = {name: each for name, each in batch.items() if name != "labels"}
            hidden = encoder.base_model(**inputs).last_hidden_state
            found.append(torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1)))
        return torch.cat(found).numpy()

    known = sorted([*parts.train, *parts.validation])
    search = GridSearchCV(LogisticRegression(max_iter=1000), {"C": [0.3, 1, 3, 10, 30]})
    search.fit(vectors(known), [labels[place] for place in known])
    return float(search.score(vectors(parts.test), [labels[place] for place in parts.test]))


def _texts(file: Path) -> tuple[list[str], list[int]]:
    """Return the same texts and labels as the training reads."""
    from k12ai.frameworks.nlp import corpus
    from k12ai.frameworks.problems import Notes

    with contextlib.chdir(file.parent):
        data = {"dataset": "file", "file": file.name, "text": "text", "label": "label", "limit": 0}
        found = corpus.load(data, Notes())
    return found.texts, found.labels

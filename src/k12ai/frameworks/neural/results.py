"""What the ops of both frameworks make of predictions."""

import csv
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from k12ai.frameworks import csvfile
from k12ai.frameworks.neural import examples
from k12ai.frameworks.neural.checkpoints import saving
from k12ai.frameworks.neural.scores import rounded
from k12ai.frameworks.neural.storage import Card
from k12ai.frameworks.problems import VALUE, refuse

MAX_BYTES = 160 << 10
"""How much of the predictions is in the result; the file has all of them."""

FOLDER = "predictions"


def predictions(classes: Sequence[str], chances: torch.Tensor) -> dict[str, Any]:
    """Return labels and probabilities, of as many rows as fit into a message."""
    room = MAX_BYTES // (12 * len(classes) + max(len(each.encode()) for each in classes) + 8)
    labels = [classes[place] for place in chances[:room].argmax(-1).tolist()]
    shown = [[rounded(each) for each in row] for row in chances[:room].tolist()]
    return {"rows": len(chances), "predictions": labels, "classes": list(classes), "probabilities": shown}


def written(name: str, column: str, given: Iterable[str], classes: Sequence[str], chances: torch.Tensor) -> str:
    """Write every row with its prediction, with a byte order mark so that Excel shows Chinese."""
    folder = csvfile.inside(FOLDER)
    with saving("predictions", "预测结果"):
        folder.mkdir(exist_ok=True)
        with (
            csvfile.replacing(csvfile.inside(f"{FOLDER}/{name}.csv")) as fresh,
            fresh.open("w", encoding="utf-8-sig", newline="") as opened,
        ):
            writer = csv.writer(opened)
            writer.writerow([column, "prediction", *(f"probability {each}" for each in classes)])
            for each, row in zip(given, chances.tolist(), strict=True):
                best = max(range(len(row)), key=row.__getitem__)
                writer.writerow([each, classes[best], *map(rounded, row)])
    return f"{FOLDER}/{name}.csv"


def surest(
    labels: Sequence[int], places: Sequence[int], chances: torch.Tensor, most: int
) -> list[tuple[int, int, float]]:
    """Return the place, the prediction and its probability of the wrong ones that the network was surest of."""
    best = chances.max(-1)
    rows = zip(places, best.indices.tolist(), best.values.tolist(), strict=True)
    missed = [(place, label, rounded(chance)) for place, label, chance in rows if label != labels[place]]
    return sorted(missed, key=lambda each: -each[2])[:most]


def kept_aside(card: Card, labels: Sequence[int], sha256: str, path: str) -> list[int]:
    """Return the places that training has tested with. Raises `DataProblem` where the data has changed."""
    if sha256 != card.sha256:
        refuse(
            f"{path!r} has changed since the training, and it is unknown which examples are new.",
            f"{path!r} 在训练之后被修改过，无法区分哪些样本是新的。",
            code=VALUE,
            step=("Train again, or evaluate with other data.", "请重新训练，或用另一些数据评估。"),
        )
    fractions = card.data["test_fraction"], card.data["validation_fraction"]
    return examples.split(labels, *fractions, card.seed).test


def as_learnt(labels: Sequence[int], classes: Sequence[str], card: Card) -> list[int]:
    """Return labels with the numbers that the network has for their classes."""
    strange = sorted(set(classes) - set(card.classes))
    if strange:
        refuse(
            f"There are classes that the model does not know: {', '.join(map(repr, strange[:5]))}.",
            f"其中有模型不认识的类别：{'、'.join(map(repr, strange[:5]))}。",
            code=VALUE,
        )
    return [card.classes.index(classes[label]) for label in labels]

"""How good a classifier is, as plain JSON values."""

from collections.abc import Sequence
from typing import Any

import torch

Scores = dict[str, Any]


def rounded(value: float) -> float:
    """Return a number with six digits behind the point."""
    return round(float(value), 6)


def classification(classes: Sequence[str], labels: Sequence[int], chances: torch.Tensor) -> Scores:
    """Return what is right; rows of the matrix are the true classes, columns the predicted."""
    count = len(classes)
    true, predicted = torch.as_tensor(labels), chances.argmax(-1)
    matrix = torch.bincount(true * count + predicted, minlength=count * count).reshape(count, count)
    right, rows, answered = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    found: list[dict[str, Any]] = []
    for place, label in enumerate(classes):
        hit, of_class, told = int(right[place]), int(rows[place]), int(answered[place])
        found.append(
            {
                "label": label,
                "precision": rounded(hit / told) if told else 0.0,
                "recall": rounded(hit / of_class) if of_class else 0.0,
                "f1": rounded(2 * hit / (told + of_class)) if told + of_class else 0.0,
                "rows": of_class,
            }
        )
    met = [each["f1"] for place, each in enumerate(found) if int(rows[place]) or int(answered[place])]
    of_true = chances.gather(1, true[:, None]).clamp_min(1e-12)
    return {
        "accuracy": rounded(int(right.sum()) / len(labels)),
        "loss": rounded(float(-of_true.log().mean())),
        "f1_macro": rounded(sum(met) / len(met)),
        "classes": found,
        "confusion_matrix": {"labels": list(classes), "matrix": matrix.tolist()},
    }

"""Examples in batches, and the parts that they are divided into; of all of them only the names are kept."""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol, TypeVar

import torch

from k12ai.frameworks.problems import VALUE, refuse, shortened

Batch = dict[str, torch.Tensor]

LEAST = 3
"""How many examples each class needs: one to train, one to validate, one to test."""
MAX_CLASSES = 100

_Loaded = TypeVar("_Loaded")


class Source(Protocol):
    """Examples by their places, with the class of each."""

    labels: Sequence[int]

    def batch(self, places: Sequence[int], seed: int | None) -> Batch:
        """Return the inputs of the model, changed at random where there is a ``seed``."""


class Parts(NamedTuple):
    """Places to train, to validate and to test with."""

    train: list[int]
    validation: list[int]
    test: list[int]


def split(labels: Sequence[int], test: float, validation: float, seed: int) -> Parts:
    """Divide places so that every class has its share in each part; the same seed divides the same way."""
    of_class: dict[int, list[int]] = {}
    for place, label in enumerate(labels):
        of_class.setdefault(label, []).append(place)
    parts = Parts([], [], [])
    for label, places in sorted(of_class.items()):
        random.Random(f"{seed} {label}").shuffle(places)  # noqa: S311 - no secret
        tested = min(max(1, round(len(places) * test)), len(places) - 2)
        validated = min(max(1, round((len(places) - tested) * validation)), len(places) - tested - 1)
        parts.test.extend(places[:tested])
        parts.validation.extend(places[tested : tested + validated])
        parts.train.extend(places[tested + validated :])
    return Parts(*(sorted(part) for part in parts))


def check_classes(what: str, names: Sequence[str], labels: Sequence[int]) -> None:
    """Refuse data of one class, of too many, and classes of which there is too little to be divided."""
    counts = Counter(labels)
    if len(counts) < 2:
        only = names[next(iter(counts))] if counts else ""
        refuse(
            f"{what} has only the class {only[:60]!r}, and two are needed.",
            f"{what} 只有一个类别 {only[:60]!r}，至少需要两个。",
            code=VALUE,
            step=("Add examples of another class.", "请加入其他类别的样本。"),
        )
    if len(counts) > MAX_CLASSES:
        refuse(
            f"{what} has {len(counts)} classes; {MAX_CLASSES} is the most.",
            f"{what} 有 {len(counts)} 个类别，最多 {MAX_CLASSES} 个。",
            code=VALUE,
        )
    rare = [names[label] for label, count in sorted(counts.items()) if count < LEAST]
    if rare:
        listed = shortened(rare)
        refuse(
            f"{what} has fewer than {LEAST} examples of {listed}: "
            "one each is needed to train, to validate and to test.",
            f"{what} 中以下类别少于 {LEAST} 个样本：{listed}；训练、验证和测试各需要一个。",
            code=VALUE,
            step=("Add examples of it, or leave the class out.", "请增加这些类别的样本，或去掉这些类别。"),
        )


def batches(places: Sequence[int], size: int) -> list[Sequence[int]]:
    """Return places in pieces."""
    return [places[start : start + size] for start in range(0, len(places), size)]


def ahead(load: Callable[[Sequence[int]], _Loaded], wanted: Sequence[Sequence[int]]) -> Iterator[_Loaded]:
    """Yield what is loaded; while one batch is in use, the next one is being loaded, and no more than that."""
    if not wanted:
        return
    with ThreadPoolExecutor(1, thread_name_prefix="loading") as loader:
        coming = loader.submit(load, wanted[0])
        for following in wanted[1:]:
            ready = coming.result()
            coming = loader.submit(load, following)
            yield ready
        yield coming.result()

"""What an epoch costs through the loop of k12cv and k12nlp, beside a plain loop of PyTorch."""

import contextlib
import importlib.util
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.bench import Bench
from benchmarks.fleet import Skipped
from benchmarks.rows_training import Fits
from benchmarks.table import Row

_BATCH = 32
_VALIDATED = 64


class Net(NamedTuple):
    """A CNN for pictures of a size, and what a row says of its step."""

    says: str
    size: int
    width: int
    steps: int
    at_most: float | None


NETS = (
    Net("a long step", 64, 24, 25, 1.05),
    Net("a short one", 16, 8, 200, None),
)
EPOCHS = tuple(
    f"step of a CNN ({net.says}), of an epoch through k12cv's loop with all it does, vs. plain PyTorch"
    for net in NETS
)


def epochs(bench: Bench) -> list[Row]:
    """An epoch of long steps, of 20 ms or more, is at most 5 % slower than in a plain loop."""
    if any(importlib.util.find_spec(name) is None for name in ("torch", "accelerate", "PIL")):
        raise Skipped("PyTorch is not installed (extra 'cv')")
    rows = []
    for name, net in zip(EPOCHS, NETS, strict=True):
        found = bench.run(fits, net, bench.scale.epoch_rounds)
        rows.append(Row.of_rounds(name, "s", found.ours_s, found.alone_s, at_most=net.at_most))
    return rows


def fits(net: Net, rounds: int) -> Fits:
    """Train for an epoch both ways, so many times; what is returned is a step's part of it."""
    found = Fits([], [])
    pictures = _Pictures(net, net.steps * _BATCH + _VALIDATED)
    with _project():
        for turn in range(rounds + 1):
            alone_s, ours_s = _alone(pictures), _ours(pictures)
            if turn:  # the first warms up
                found.alone_s.append(alone_s / net.steps)
                found.ours_s.append(ours_s / net.steps)
    return found


class _Pictures:
    """Noise in memory: what is measured is the loop, not the disk."""

    def __init__(self, net: Net, count: int) -> None:
        import torch

        self.net = net
        self.values = torch.randn(256, 3, net.size, net.size)
        self.labels: Sequence[int] = [place % 10 for place in range(count)]
        places = list(range(count))
        self.validation, self.train = places[:_VALIDATED], places[_VALIDATED:]

    def batch(self, places: Sequence[int], seed: int | None) -> dict[str, Any]:
        import torch

        values = self.values[[place % 256 for place in places]]
        return {"pixel_values": values, "labels": torch.tensor([self.labels[place] for place in places])}


def _network(net: Net) -> Any:
    import torch

    from k12ai.frameworks.cv.networks import Cnn, Form

    torch.manual_seed(0)
    form = Form(net.size, 3, [0.5] * 3, [0.5] * 3)
    return Cnn({"width": net.width, "blocks": 3, "dropout": 0.1}, form, 10)


def _alone(pictures: _Pictures) -> float:
    """Train and validate as a first lesson on PyTorch does."""
    import torch
    from torch.nn import functional

    network = _network(pictures.net)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    began = time.perf_counter()
    network.train()
    order = torch.randperm(len(pictures.train)).tolist()
    for start in range(0, len(order), _BATCH):
        batch = pictures.batch([pictures.train[place] for place in order[start : start + _BATCH]], None)
        labels = batch.pop("labels")
        loss = functional.cross_entropy(network(**batch), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    with torch.inference_mode():
        for start in range(0, _VALIDATED, _BATCH):
            batch = pictures.batch(pictures.validation[start : start + _BATCH], None)
            labels = batch.pop("labels")
            functional.cross_entropy(network(**batch), labels).item()
    return time.perf_counter() - began


def _ours(pictures: _Pictures) -> float:
    from k12ai.frameworks.neural.checkpoints import Checkpoints
    from k12ai.frameworks.neural.loop import Loop, Machine, Plan

    machine = Machine.of({"device": "cpu", "precision": "full"})
    plan = Plan(1, _BATCH, 1e-3, 0.01, 0.1, 0, 0)
    loop = Loop(_network(pictures.net), pictures, plan, machine, Checkpoints("bench", "mark"), "images")
    began = time.perf_counter()
    loop.fit(pictures.train, pictures.validation, resume=False)
    return time.perf_counter() - began


@contextlib.contextmanager
def _project() -> Iterator[None]:
    with tempfile.TemporaryDirectory() as directory, contextlib.chdir(directory):
        journal = Path(directory) / "journal"
        journal.touch()
        os.environ["K12AI_JOURNAL"] = str(journal)
        try:
            yield
        finally:
            del os.environ["K12AI_JOURNAL"]

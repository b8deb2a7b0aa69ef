"""Where a training stands, on disk: one file of safetensors, which runs no code when it is read."""

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from k12ai.frameworks import csvfile
from k12ai.frameworks.problems import DataProblem

FOLDER = "checkpoints"
DISK_FULL = 100928

Tensors = dict[str, torch.Tensor]


class Standing(msgspec.Struct, kw_only=True):
    """How far a training is, and how good it has been."""

    epoch: int = 0
    step: int = 0  # within the epoch
    seen: int = 0  # examples of this epoch, and what was lost and right on them
    loss: float = 0.0
    right: int = 0
    best_epoch: int = 0
    best_loss: float | None = None
    scale: float | None = None  # of the gradients, in half precision


def fingerprint(params: Mapping[str, Any]) -> str:
    """Return what tells trainings apart that must not go on with each other's weights."""
    return hashlib.sha256(msgspec.json.encode(params, order="deterministic")).hexdigest()


class Checkpoints:
    """The checkpoints of the training of one model; there is always a whole one, or none."""

    def __init__(self, name: str, mark: str) -> None:
        """``mark`` is the training's `fingerprint`."""
        self._folder = csvfile.inside(f"{FOLDER}/{name}")
        self._mark = mark
        self._state, self._best = self._folder / "state.safetensors", self._folder / "best.safetensors"

    @classmethod
    def of_training(cls, params: Mapping[str, Any], sha256: str) -> Self:
        """Return those of a training; another one that saves its model under the same name has others.

        ``sha256`` is that of its data.
        """
        marked = {name: each for name, each in params.items() if name != "resume"}
        return cls(params["save_as"], fingerprint({**marked, "sha256": sha256}))

    def save(self, standing: Standing, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Save where the training stands. Raises `DataProblem` where the disk is full."""
        tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
        for place, values in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{place}.{name}": torch.as_tensor(each) for name, each in values.items()}
        self._write(self._state, tensors, standing)

    def save_best(self, standing: Standing, model: torch.nn.Module) -> None:
        """Save the weights that have been the best so far. Raises `DataProblem` where the disk is full."""
        self._write(self._best, dict(model.state_dict()), standing)

    def restore(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Standing | None:
        """Bring both to where the training was stopped; None where there is no checkpoint of this training."""
        if (standing := self._standing(self._state)) is None:
            return None
        try:
            tensors = load_file(self._state)
            of_model = {
                name.removeprefix("model."): each for name, each in tensors.items() if name.startswith("model.")
            }
            model.load_state_dict(of_model)
            optimizer.load_state_dict({"state": _by_place(tensors)} | {"param_groups": _groups(optimizer)})
        except (SafetensorError, RuntimeError, ValueError, OSError):
            return None  # somebody else's, with our mark in it
        return standing

    def restore_best(self, model: torch.nn.Module) -> None:
        """Give a model the best weights, where it has been better than it is now."""
        if self._standing(self._best) is not None:
            model.load_state_dict(load_file(self._best))

    def clear(self) -> None:
        """Remove what is not needed any more."""
        shutil.rmtree(self._folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self._folder.parent.rmdir()

    def _standing(self, path: Path) -> Standing | None:
        try:
            with safe_open(path, "pt") as file:
                about = file.metadata() or {}
            if about.get("training") != self._mark:
                return None
            return msgspec.json.decode(about["standing"], type=Standing)
        except (OSError, SafetensorError, KeyError, msgspec.DecodeError):
            return None

    def _write(self, path: Path, tensors: Tensors, standing: Standing) -> None:
        about = {"training": self._mark, "standing": msgspec.json.encode(standing).decode()}
        with saving("checkpoint", "检查点"):
            self._folder.mkdir(parents=True, exist_ok=True)
            with csvfile.replacing(path) as fresh:
                write_tensors(fresh, tensors, about)


def write_tensors(path: Path, tensors: Tensors, about: Mapping[str, str]) -> None:
    """Write tensors to a file, all the way to the disk."""
    save_file(
        {name: each.detach().cpu().contiguous().clone() for name, each in tensors.items()}, path, dict(about)
    )
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextlib.contextmanager
def saving(what: str, what_zh: str) -> Iterator[None]:
    """Say in words that the disk is full. Raises `DataProblem`."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if getattr(error, "errno", None) not in full and not any(
            f"os error {code}" in str(error) for code in full
        ):
            raise
        raise DataProblem(
            f"There is no room to save the {what}. The one that was saved before is as it was.",
            f"没有空间保存{what_zh}。之前保存的内容没有受到影响。",
            code=DISK_FULL,
            step=(
                "Delete files of the project that are not needed, then start the training again: it goes on.",
                "请删除项目中不需要的文件，然后重新开始训练，会从上次的位置继续。",
            ),
        ) from None


def _by_place(tensors: Tensors) -> dict[int, Tensors]:
    found: dict[int, Tensors] = {}
    for name, each in tensors.items():
        if name.startswith("optimizer."):
            _, place, key = name.split(".", 2)
            found.setdefault(int(place), {})[key] = each
    return found


def _groups(optimizer: torch.optim.Optimizer) -> Any:
    return optimizer.state_dict()["param_groups"]

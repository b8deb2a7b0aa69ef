"""The training loop: it reports as it goes, keeps checkpoints, and goes on where it was stopped.

What happens in a step depends on the seed and the step alone, so that a training which was stopped and
went on ends with the same weights as one that was not.
"""

import contextlib
import math
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from accelerate import Accelerator
from torch.nn import functional

from k12ai import report
from k12ai.frameworks.neural.checkpoints import Checkpoints, Standing
from k12ai.frameworks.neural.examples import Batch, Source, ahead, batches
from k12ai.frameworks.problems import DataProblem, refuse

CPU_MEMORY, GPU_MEMORY, EXPLODED, NO_GPU = 100901, 100906, 100907, 100931
MAX_POINTS = 200
"""How many points the curve of the loss has at most, besides those of the epochs."""

_TICK_S = 0.5
_SAVE_S = 60.0
_PHASE = "training"


@dataclass(frozen=True)
class Plan:
    """How to train."""

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    warmup: float
    patience: int
    seed: int
    label_smoothing: float = 0.0

    @classmethod
    def of(cls, training: Mapping[str, Any], seed: int, usual_rate: float) -> "Plan":
        """Return what the parameters say; ``usual_rate`` is the learning rate where they leave it open."""
        names = ("epochs", "batch_size", "weight_decay", "warmup", "patience", "label_smoothing")
        rate = training["learning_rate"] or usual_rate
        return cls(learning_rate=rate, seed=seed, **{name: training[name] for name in names})


@dataclass(frozen=True)
class Fitted:
    """How a training went."""

    epochs: int
    best_epoch: int
    resumed_at: int
    """The epoch that it went on in; 0 where it began anew."""
    per_s: float


@dataclass(frozen=True)
class Machine:
    """Where to calculate, and how exactly."""

    accelerator: Accelerator

    @classmethod
    def of(cls, training: Mapping[str, Any]) -> "Machine":
        """Return the GPU, where there is one and it is wanted. Raises `DataProblem` where there is none."""
        take_processors()
        has_gpu = _has_gpu()
        if training["device"] == "cuda" and not has_gpu:
            refuse(
                "There is no GPU for this task.",
                "该任务没有可用的 GPU。",
                code=NO_GPU,
                step=(
                    "Ask for one with gpus, or set device to auto.",
                    "请用 gpus 申请 GPU，或把 device 设为 auto。",
                ),
            )
        on_gpu = has_gpu and training["device"] != "cpu"
        half = "bf16" if on_gpu and torch.cuda.is_bf16_supported() else "fp16"
        mixed = half if on_gpu and training["precision"] != "full" else "no"
        return cls(Accelerator(cpu=not on_gpu, mixed_precision=mixed))

    @property
    def device(self) -> str:
        """``cpu`` or ``cuda``."""
        return str(self.accelerator.device.type)

    @property
    def precision(self) -> str:
        """``bf16`` or ``fp16`` where it is mixed, else ``full``."""
        mixed = self.accelerator.mixed_precision
        return "full" if mixed == "no" else mixed


def take_processors() -> None:
    """Calculate with as many threads as the task may use processors."""
    from joblib import cpu_count

    # What the task may use, by affinity and cgroup; PyTorch knows of the first alone.
    torch.set_num_threads(max(1, min(torch.get_num_threads(), cpu_count())))


def usual_device() -> torch.device:
    """Return the GPU where there is one, and calculate with as much as the task may have of the machine."""
    take_processors()
    return torch.device("cuda" if _has_gpu() else "cpu")


def _has_gpu() -> bool:
    """Return whether there is a GPU; of one that is shared, no more memory than the task's share is used."""
    if not torch.cuda.is_available():
        return False
    if share := os.environ.get("K12AI_GPU_MEMORY_BYTES"):
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, int(share) / total))
    return True


# --- the loop --------------------------------------------------------------------------------------


class Loop:
    """One training of a model: ``model(**inputs)`` gives the logits, or something that has them."""

    def __init__(
        self,
        model: torch.nn.Module,
        source: Source,
        plan: Plan,
        machine: Machine,
        kept: Checkpoints,
        unit: str,
    ) -> None:
        """``unit`` is what is counted by the second, such as ``images``."""
        self._source, self._plan, self._kept, self._unit = source, plan, kept, unit
        self._machine = machine.accelerator
        decayed = [each for each in model.parameters() if each.requires_grad and each.ndim > 1]
        others = [each for each in model.parameters() if each.requires_grad and each.ndim <= 1]
        optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": plan.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=plan.learning_rate,
            # One call for all weights: on a processor, a quarter of the time of one call for each of them.
            fused=self._machine.device.type == "cpu" or None,
        )
        self._model, self._optimizer = self._machine.prepare(model, optimizer)
        self._trained = [*decayed, *others]
        self._plain = model
        self._standing = Standing()
        self._is_stopped = False

    def fit(self, train: Sequence[int], validation: Sequence[int], *, resume: bool) -> Fitted:
        """Train, and leave the model with its best weights. Raises `DataProblem`."""
        with _explained(self._plan.batch_size), self._stoppable():
            went_on = self._resumed() if resume else 0
            began = time.monotonic()
            steps = math.ceil(len(train) / self._plan.batch_size)
            first = self._standing.epoch
            while self._standing.epoch < self._plan.epochs and not self._is_over():
                self._epoch(train, steps)
                self._close_epoch(validation)
            done = self._standing.epoch - first
            if self._is_stopped:
                self._halt()
            self._kept.restore_best(self._plain)
            taken = max(time.monotonic() - began, 1e-9)
        best = self._standing.best_epoch
        return Fitted(self._standing.epoch, best, went_on, round(done * len(train) / taken, 1))

    def _resumed(self) -> int:
        found = self._kept.restore(self._plain, self._optimizer.optimizer)
        if found is None:
            return 0
        self._standing = found
        if self._machine.scaler is not None and found.scale:
            self._machine.scaler.load_state_dict(self._machine.scaler.state_dict() | {"scale": found.scale})
        report.status(f"going on in epoch {found.epoch + 1} / 从第 {found.epoch + 1} 轮继续")
        return min(found.epoch + 1, self._plan.epochs)

    def _is_over(self) -> bool:
        waited = self._standing.epoch - self._standing.best_epoch
        return 0 < self._plan.patience <= waited

    def _epoch(self, train: Sequence[int], steps: int) -> None:
        plan, standing = self._plan, self._standing
        order = torch.randperm(len(train), generator=_random(plan.seed, standing.epoch)).tolist()
        wanted = batches([train[place] for place in order], plan.batch_size)
        seed = _mixed(plan.seed, standing.epoch)
        total = steps * plan.epochs
        told, saved = _Teller(self._unit, total), time.monotonic()
        gathered = _Sum(self._machine.device)
        _to_train(self._model)
        for batch in ahead(lambda places: self._source.batch(places, seed), wanted[standing.step :]):
            at = standing.epoch * steps + standing.step
            rate = self._rate(at, total)
            gathered.add(*self._step(batch, at, rate))
            standing.step += 1
            last = standing.step == steps
            if told.is_due(at + 1) or last or self._is_stopped or time.monotonic() - saved > _SAVE_S:
                loss = self._gather(gathered, at + 1)
                told.tell(at + 1, loss, rate, gathered)
                gathered = _Sum(self._machine.device)
                if time.monotonic() - saved > _SAVE_S:
                    self._save()
                    saved = time.monotonic()
            if self._is_stopped:
                self._halt()

    def _halt(self) -> NoReturn:
        """Save where the training stands, and end as a stop ends a program."""
        self._save()
        report.status("stopped; the next start goes on from here / 已停止，下次启动时从此处继续")
        sys.exit(128 + signal.SIGTERM)

    def _step(self, batch: Batch, at: int, rate: float) -> tuple[torch.Tensor, torch.Tensor, int]:
        self._sow(_mixed(self._plan.seed, at))
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        labels, inputs = on_device(batch, self._machine.device)
        logits = logits_of(self._model, inputs)
        loss = functional.cross_entropy(logits.float(), labels)
        smoothing = self._plan.label_smoothing
        learnt = (
            functional.cross_entropy(logits.float(), labels, label_smoothing=smoothing) if smoothing else loss
        )
        self._machine.backward(learnt)
        self._machine.clip_grad_norm_(self._trained, 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return loss.detach(), (logits.argmax(-1) == labels).sum(), len(labels)

    def _sow(self, seed: int) -> None:
        """Say what is dropped out. `torch.manual_seed` would keep each call, for devices that are not there."""
        torch.default_generator.manual_seed(seed)
        if self._machine.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def _rate(self, step: int, total: int) -> float:
        """Rise in a straight line, then fall as a cosine."""
        rising = max(1, round(total * self._plan.warmup))
        if step < rising:
            return self._plan.learning_rate * (step + 1) / rising
        return (
            self._plan.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, total - rising)))
        )

    def _gather(self, gathered: "_Sum", step: int) -> float:
        """Add what was gathered to the epoch; this waits for the GPU."""
        loss, right = gathered.read()
        if not math.isfinite(loss):
            raise _exploded(step)
        self._standing.loss += loss
        self._standing.right += right
        self._standing.seen += gathered.examples
        return loss / gathered.examples

    def _close_epoch(self, validation: Sequence[int]) -> None:
        standing = self._standing
        report.progress(standing.epoch + 1, self._plan.epochs, "validating")
        loss, right = self._tested(validation)
        if not math.isfinite(loss):
            raise _exploded(standing.step)
        self._check_weights()
        standing.epoch += 1
        report.metric(
            {
                "epoch": standing.epoch,
                "train_loss": round(standing.loss / standing.seen, 6),
                "train_accuracy": round(standing.right / standing.seen, 6),
                "validation_loss": round(loss, 6),
                "validation_accuracy": round(right / len(validation), 6),
            },
            step=standing.epoch * standing.step,
        )
        standing.step, standing.seen, standing.loss, standing.right = 0, 0, 0.0, 0
        if standing.best_loss is None or loss < standing.best_loss:
            standing.best_loss, standing.best_epoch = loss, standing.epoch
            self._kept.save_best(standing, self._plain)
        self._save()

    def _tested(self, places: Sequence[int]) -> tuple[float, int]:
        loss, right = 0.0, 0
        for labels, logits in answers(self._model, self._source, places, self._plan.batch_size):
            if self._is_stopped:  # the epoch's steps are kept, and the next start begins with this
                self._halt()
            loss += float(functional.cross_entropy(logits, labels, reduction="sum"))
            right += int((logits.argmax(-1) == labels).sum())
        return loss / len(places), right

    def _check_weights(self) -> None:
        """Keep what is no number out of checkpoints: one step may spoil all weights after its loss was told."""
        if not all(bool(each.isfinite().all()) for each in self._trained):
            raise _exploded(self._standing.step)

    def _save(self) -> None:
        self._check_weights()
        scaler = self._machine.scaler
        self._standing.scale = None if scaler is None else float(scaler.get_scale())
        self._kept.save(self._standing, self._plain, self._optimizer.optimizer)

    @contextlib.contextmanager
    def _stoppable(self) -> Iterator[None]:
        """Let a stop come between two steps, where a checkpoint can be made."""

        def stop(_number: int, _frame: object) -> None:
            self._is_stopped = True

        before = signal.signal(signal.SIGTERM, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)


def _to_train(model: torch.nn.Module) -> None:
    """Let a model drop out and count means as in training, but not in the parts of it that stay as they are."""
    model.train()
    for part in model.modules():
        parameters = list(part.parameters())
        if parameters and not any(each.requires_grad for each in parameters):
            part.eval()


class _Sum:
    """What was lost and right in some steps; it stays on the device, so that nothing waits for it."""

    def __init__(self, device: torch.device) -> None:
        self._loss = torch.zeros((), device=device)
        self._right = torch.zeros((), device=device, dtype=torch.int64)
        self.examples = 0

    def add(self, loss: torch.Tensor, right: torch.Tensor, examples: int) -> None:
        """Add a step's mean loss, and how many of its examples were right."""
        self._loss += loss * examples
        self._right += right
        self.examples += examples

    def read(self) -> tuple[float, int]:
        """Return both."""
        return float(self._loss), int(self._right)

    @property
    def accuracy(self) -> float:
        """The part that was right."""
        return int(self._right) / self.examples


class _Teller:
    """Says how it is going, now and then."""

    def __init__(self, unit: str, total: int) -> None:
        self._unit, self._total = unit, total
        self._every = max(1, total // MAX_POINTS)
        self._since = self._ticked = time.monotonic()

    def is_due(self, step: int) -> bool:
        """Return whether a step is a point of the curve."""
        now = time.monotonic()
        if now - self._ticked >= _TICK_S:
            self._ticked = now
            report.progress(step, self._total, _PHASE)
        return step % self._every == 0

    def tell(self, step: int, loss: float, rate: float, gathered: _Sum) -> None:
        """Report a point."""
        now = time.monotonic()
        figures = {
            "loss": round(loss, 6),
            "accuracy": round(gathered.accuracy, 6),
            "learning_rate": rate,
            f"{self._unit}_per_s": round(gathered.examples / max(now - self._since, 1e-9), 1),
        }
        self._since = now
        report.metric(figures, step=step)
        report.progress(step, self._total, _PHASE)


# --- asking a model --------------------------------------------------------------------------------


def logits_of(model: torch.nn.Module, inputs: Batch) -> torch.Tensor:
    """Return the logits, as one of our models or one of transformers' gives them."""
    found = model(**inputs)
    logits: torch.Tensor = found if isinstance(found, torch.Tensor) else found.logits
    return logits


def on_device(batch: Batch, device: torch.device) -> tuple[torch.Tensor, Batch]:
    """Return labels and inputs where the model is."""
    moved = {name: each.to(device, non_blocking=True) for name, each in batch.items()}
    return moved.pop("labels"), moved


@torch.inference_mode()
def answers(
    model: torch.nn.Module, source: Source, places: Sequence[int], batch_size: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield the labels and the logits of each batch."""
    model.eval()
    device = next(model.parameters()).device
    for batch in ahead(lambda wanted: source.batch(wanted, None), batches(places, batch_size)):
        labels, inputs = on_device(batch, device)
        yield labels, logits_of(model, inputs).float()


def probabilities(
    model: torch.nn.Module, source: Source, places: Sequence[int], batch_size: int, phase: str
) -> torch.Tensor:
    """Return the probability of every class for every example, and report how far it is.

    Where memory is not enough, it is tried with half of the batch. Raises `DataProblem` where that is none.
    """
    while True:
        try:
            with _explained(batch_size):
                return _probabilities(model, source, places, batch_size, phase)
        except DataProblem as problem:
            if problem.code not in (CPU_MEMORY, GPU_MEMORY) or batch_size == 1:
                raise
            batch_size //= 2


def _probabilities(
    model: torch.nn.Module, source: Source, places: Sequence[int], batch_size: int, phase: str
) -> torch.Tensor:
    found: list[torch.Tensor] = []
    done, told = 0, time.monotonic()
    for _labels, logits in answers(model, source, places, batch_size):
        found.append(logits.softmax(-1).cpu())
        done += len(logits)
        if time.monotonic() - told >= _TICK_S or done == len(places):
            told = time.monotonic()
            report.progress(done, len(places), phase)
    return torch.cat(found)


# --- what can go wrong -----------------------------------------------------------------------------


@contextlib.contextmanager
def _explained(batch_size: int) -> Iterator[None]:
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        code = GPU_MEMORY if isinstance(error, torch.OutOfMemoryError) else CPU_MEMORY
        raise _too_large(batch_size, code) from None
    except RuntimeError as error:
        if "DefaultCPUAllocator" not in str(error):
            raise
        raise _too_large(batch_size, CPU_MEMORY) from None


def _too_large(batch_size: int, code: int) -> DataProblem:
    where = ("GPU", "显存") if code == GPU_MEMORY else ("task", "内存")
    smaller = batch_size // 2
    return DataProblem(
        f"The memory of the {where[0]} is not enough for a batch size of {batch_size}.",
        f"{where[1]}不足，无法使用批大小 {batch_size}。",
        code=code,
        step=(f"Try training.batch_size {smaller}.", f"请尝试把 training.batch_size 设为 {smaller}。")
        if smaller
        else ("Use a smaller model, or ask for more memory.", "请使用更小的模型，或申请更多内存。"),
    )


def _exploded(step: int) -> DataProblem:
    return DataProblem(
        f"The loss has become NaN or infinite by step {step}. The last checkpoint is from before that.",
        f"到第 {step} 步时损失变成了 NaN 或无穷大。最近的检查点是在此之前保存的。",
        code=EXPLODED,
        step=(
            "Use a learning rate ten times smaller, and start again.",
            "请把学习率减小到十分之一，然后重新开始。",
        ),
    )


def _random(seed: int, number: int) -> torch.Generator:
    return torch.Generator().manual_seed(_mixed(seed, number))


def _mixed(seed: int, number: int) -> int:
    return (seed * 1_000_003 + number) % 2**63

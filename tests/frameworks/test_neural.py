"""The training loop and its checkpoints, on a network of a few numbers."""

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("torch", reason="neither of the extras cv and nlp is installed")
pytest.importorskip("accelerate", reason="neither of the extras cv and nlp is installed")

import torch
from safetensors import SafetensorError

from k12ai.frameworks.neural import checkpoints, examples, scores, storage
from k12ai.frameworks.neural.checkpoints import Checkpoints, Standing
from k12ai.frameworks.neural.loop import Fitted, Loop, Machine, Plan, probabilities
from k12ai.frameworks.problems import DataProblem

TRAINING = {"device": "cpu", "precision": "full"}
TRAIN, VALIDATION = list(range(40)), list(range(40, 60))


class Points:
    """Points that lie left and right of a line."""

    def __init__(self, count: int = 60) -> None:
        random = torch.Generator().manual_seed(0)
        self.values = torch.randn(count, 3, generator=random)
        self.labels = (self.values[:, 0] > 0).long().tolist()
        self.before: Callable[[], object] = lambda: None

    def batch(self, places: Sequence[int], seed: int | None) -> dict[str, Any]:
        self.before()
        return {"x": self.values[places], "labels": torch.tensor([self.labels[place] for place in places])}


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.layers = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 2))

    def forward(self, x: Any) -> Any:
        return self.layers(x)


class Training:
    """A training in a project, which can be done again and gone on with."""

    def __init__(self, journal: Path) -> None:
        self.journal, self.source = journal, Points()
        self.kept = Checkpoints("model", "mark")
        self.prepare: Callable[[Net], object] = lambda _net: None

    def run(self, *, resume: bool = True, **plan: Any) -> tuple[Fitted, Net]:
        usual = {"epochs": 4, "batch_size": 8, "learning_rate": 0.01, "weight_decay": 0.0, "warmup": 0.1}
        net = Net()
        self.prepare(net)
        loop = Loop(
            net,
            self.source,
            Plan(**(usual | {"patience": 0, "seed": 1} | plan)),  # type: ignore[arg-type]
            Machine.of(TRAINING),
            self.kept,
            "points",
        )
        return loop.fit(TRAIN, VALIDATION, resume=resume), net

    def said(self, kind: str) -> list[dict[str, Any]]:
        lines = map(msgspec.json.decode, self.journal.read_bytes().splitlines())
        return [line["data"] for line in lines if line["type"] == kind]


@pytest.fixture(name="training")
def _training(project: Path, monkeypatch: pytest.MonkeyPatch) -> Training:
    monkeypatch.chdir(project)
    journal = project.parent / "journal"
    journal.touch()
    monkeypatch.setenv("K12AI_JOURNAL", str(journal))
    return Training(journal)


def weights(net: Net) -> list[float]:
    return torch.cat([each.flatten() for each in net.parameters()]).tolist()


def stop_after(batches: int) -> Callable[[], None]:
    """Send what a stop sends, when so many batches have been asked for."""
    left = [batches]

    def count() -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), 15)

    return count


def test_what_is_reported_is_loss_accuracy_rate_and_speed_and_the_end_of_each_epoch(training: Training) -> None:
    training.run()
    said = training.said("metrics")
    steps = [each for each in said if "epoch" not in each]
    assert {"step", "loss", "accuracy", "learning_rate", "points_per_s"} == set(steps[0])
    epochs = [each for each in said if "epoch" in each]
    assert [each["epoch"] for each in epochs] == [1, 2, 3, 4]
    assert epochs[-1]["validation_loss"] < epochs[0]["validation_loss"]


@pytest.mark.parametrize(
    "batches",
    [2, 7, 9, 13, 32],
    ids=["first epoch", "first validation", "second epoch", "later", "last validation"],
)
def test_a_training_that_was_stopped_and_went_on_ends_with_the_same_weights(
    training: Training, batches: int
) -> None:
    _, whole = training.run()
    training.kept.clear()
    training.source.before = stop_after(batches)
    with pytest.raises(SystemExit) as ended:
        training.run()
    assert ended.value.code == 143
    fitted, resumed = training.run()
    assert fitted.resumed_at > 0
    assert weights(resumed) == weights(whole)


def test_a_training_with_other_parameters_begins_anew(training: Training) -> None:
    training.source.before = stop_after(9)
    with pytest.raises(SystemExit):
        training.run()
    training.source.before = lambda: None
    training.kept = Checkpoints("model", "another mark")
    assert training.run()[0].resumed_at == 0


def test_who_does_not_want_to_go_on_begins_anew(training: Training) -> None:
    training.source.before = stop_after(9)
    with pytest.raises(SystemExit):
        training.run()
    training.source.before = lambda: None
    assert training.run(resume=False)[0].resumed_at == 0


def test_the_same_seed_gives_the_same_weights_and_another_one_does_not(training: Training) -> None:
    first, again, other = (weights(training.run(seed=seed, resume=False)[1]) for seed in (1, 1, 2))
    assert first == again != other


def test_it_stops_early_and_keeps_the_best_weights(training: Training) -> None:
    training.source.labels[40:] = [1 - label for label in training.source.labels[40:]]  # it can only get worse
    fitted, _ = training.run(epochs=20, patience=3, learning_rate=0.1, warmup=0.0)
    assert (fitted.epochs, fitted.best_epoch) == (4, 1)


def test_a_part_that_stays_as_it_is_does_not_even_count_means(training: Training) -> None:
    def prepare(net: Net) -> None:
        net.layers.insert(0, torch.nn.BatchNorm1d(3).requires_grad_(requires_grad=False))

    training.prepare = prepare
    _, net = training.run(epochs=1)
    assert net.layers[0].running_mean.tolist() == [0, 0, 0]


def test_a_loss_that_is_no_number_ends_it_and_leaves_the_last_good_checkpoint(training: Training) -> None:
    good: list[bytes] = []
    state = Path("checkpoints/model/state.safetensors")

    def spoil() -> None:
        if state.exists():
            good.append(state.read_bytes())
            training.source.values[:] = float("nan")

    training.source.before = spoil
    with pytest.raises(DataProblem) as refused:
        training.run()
    assert refused.value.code == 100907
    assert state.read_bytes() == good[0]


def test_weights_that_are_no_numbers_are_not_saved_though_the_loss_was_one(training: Training) -> None:
    training.prepare = lambda net: net.layers[0].weight.register_hook(lambda gradient: gradient * float("nan"))
    training.source.before = stop_after(1)
    with pytest.raises(DataProblem) as refused:
        training.run()
    assert refused.value.code == 100907
    assert not Path("checkpoints").exists()


def test_out_of_memory_is_answered_with_a_batch_size_to_try(training: Training) -> None:
    def fill() -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 8 bytes")

    training.source.before = fill
    with pytest.raises(DataProblem) as refused:
        training.run(batch_size=24)
    assert refused.value.code == 100901
    assert "12" in refused.value.next_step.en  # type: ignore[union-attr]


def test_the_memory_of_a_gpu_has_a_code_of_its_own(training: Training) -> None:
    def fill() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    training.source.before = fill
    with pytest.raises(DataProblem) as refused:
        training.run()
    assert refused.value.code == 100906


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
    ids=["Python's", "safetensors'"],
)
def test_a_full_disk_is_named_and_leaves_the_checkpoint_before(
    training: Training, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    write, written = checkpoints.save_file, []

    def fill(tensors: Any, path: Path, about: Any) -> None:
        write(tensors, path, about)
        written.append(path.name)
        if len(written) > 2:
            os.truncate(path, 10)
            raise error

    monkeypatch.setattr(checkpoints, "save_file", fill)
    with pytest.raises(DataProblem) as refused:
        training.run()
    assert refused.value.code == 100928
    assert sorted(path.name for path in Path("checkpoints/model").iterdir()) == [
        "best.safetensors",
        "state.safetensors",
    ]
    net = Net()
    assert training.kept.restore(net, torch.optim.AdamW(net.parameters())) is not None


def test_a_checkpoint_that_is_damaged_is_none(training: Training) -> None:
    net = Net()
    optimizer = torch.optim.AdamW(net.parameters())
    training.kept.save(Standing(epoch=2), net, optimizer)
    assert training.kept.restore(net, optimizer) is not None
    os.truncate("checkpoints/model/state.safetensors", 100)
    assert training.kept.restore(net, optimizer) is None


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DataProblem) as refused:
        Machine.of({"device": "cuda", "precision": "auto"})
    assert refused.value.code == 100931


def test_without_enough_memory_predictions_come_in_smaller_batches(training: Training) -> None:
    sizes: list[int] = []
    batch = training.source.batch

    def fill(places: Sequence[int], seed: int | None) -> dict[str, Any]:
        sizes.append(len(places))
        if len(places) > 8:
            raise MemoryError
        return batch(places, seed)

    training.source.batch = fill  # type: ignore[method-assign]
    assert len(probabilities(Net(), training.source, range(20), 32, "predicting")) == 20
    assert sizes == [20, 16, 8, 8, 4]


# --- parts and scores ------------------------------------------------------------------------------


def test_each_class_has_its_share_in_every_part_and_no_place_is_in_two() -> None:
    labels = [0] * 3 + [1] * 20 + [2] * 77
    parts = examples.split(labels, 0.2, 0.1, 5)
    assert sorted([*parts.train, *parts.validation, *parts.test]) == list(range(100))
    assert all({labels[place] for place in part} == {0, 1, 2} for part in parts)
    assert parts == examples.split(labels, 0.2, 0.1, 5) != examples.split(labels, 0.2, 0.1, 6)


@pytest.mark.parametrize(
    ("names", "labels", "word"),
    [(["cat"], [0] * 9, "cat"), (["cat", "dog"], [0] * 9 + [1], "dog")],
    ids=["one class", "a label that occurs once"],
)
def test_classes_that_cannot_be_told_apart_are_refused(names: list[str], labels: list[int], word: str) -> None:
    with pytest.raises(DataProblem) as refused:
        examples.check_classes("'a.zip'", names, labels)
    assert word in refused.value.text.en
    assert word in refused.value.text.zh


def test_no_more_than_one_batch_is_loaded_ahead() -> None:
    loaded: list[int] = []
    coming = examples.ahead(lambda places: loaded.append(places[0]), [[place] for place in range(9)])
    for used in range(1, 4):
        next(coming)
        assert len(loaded) <= used + 1


def test_what_fails_while_loading_ahead_is_raised() -> None:
    def fail(_places: Sequence[int]) -> None:
        raise DataProblem("a", "b")

    with pytest.raises(DataProblem):
        list(examples.ahead(fail, [[1], [2]]))


def test_scores_are_those_of_each_class() -> None:
    chances = torch.tensor([[0.9, 0.1, 0.0], [0.4, 0.6, 0.0], [0.2, 0.8, 0.0], [0.7, 0.3, 0.0]])
    found = scores.classification(["a", "b", "c"], [0, 0, 1, 0], chances)
    assert found["accuracy"] == 0.75
    assert found["confusion_matrix"] == {"labels": ["a", "b", "c"], "matrix": [[2, 1, 0], [0, 1, 0], [0, 0, 0]]}
    assert [each["f1"] for each in found["classes"]] == [0.8, pytest.approx(2 / 3, abs=1e-6), 0.0]
    assert found["f1_macro"] == pytest.approx((0.8 + 2 / 3) / 2, abs=1e-6)


# --- directories of models -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "word"),
    [
        ({"config.json": b"{}", "model.safetensors": b"", "pytorch_model.bin": b""}, "pytorch_model.bin"),
        ({"config.json": b"{}", "model.safetensors": b"", "inner/old.pkl": b""}, "old.pkl"),
        ({"config.json": b'{"auto_map": {"AutoModel": "a.B"}}', "model.safetensors": b""}, "auto_map"),
        ({"config.json": b"{}"}, "model.safetensors"),
        ({"config.json": b"[", "model.safetensors": b""}, "JSON"),
        ({"model.safetensors": b""}, "config.json"),
        (
            {
                "config.json": b"{}",
                "model.safetensors.index.json": b'{"weight_map": {"a": "../x.safetensors"}}',
            },
            "../x.safetensors",
        ),
    ],
    ids=["pickled", "pickled below", "program", "no weights", "no json", "no config", "weights elsewhere"],
)
def test_a_directory_that_could_run_code_or_lacks_something_is_refused(
    tmp_path: Path, files: dict[str, bytes], word: str
) -> None:
    for name, content in files.items():
        (tmp_path / "m" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "m" / name).write_bytes(content)
    with pytest.raises(DataProblem) as refused:
        storage.check_directory("m", tmp_path / "m")
    assert word in refused.value.text.en
    assert any("\u4e00" <= character <= "\u9fff" for character in refused.value.text.zh)


def test_a_directory_with_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").symlink_to("/etc/hostname")
    with pytest.raises(DataProblem, match="link"):
        storage.check_directory("m", tmp_path / "m")


def test_a_model_whose_saving_was_cut_off_between_two_renamings_is_found(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    card = storage.Card(
        framework="k12cv", model="cnn", parameters={}, input={}, data={}, seed=0, classes=["a", "b"]
    )
    storage.save("model", Net(), card, lambda folder: (folder / "config.json").write_bytes(b"{}"))
    os.replace("models/model", "models/.model.old")
    assert storage.card_of("model", "k12cv")[0] == card

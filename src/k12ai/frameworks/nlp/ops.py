"""What each op does, from its parameters to its result."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import torch
from tokenizers import Tokenizer

from k12ai import report
from k12ai.frameworks import csvfile
from k12ai.frameworks.base import EVALUATE, PREDICT, TRAIN
from k12ai.frameworks.neural import examples, results, scores, storage
from k12ai.frameworks.neural.checkpoints import Checkpoints
from k12ai.frameworks.neural.fields import AUTO
from k12ai.frameworks.neural.loop import Loop, Machine, Plan, probabilities, usual_device
from k12ai.frameworks.neural.storage import Card
from k12ai.frameworks.nlp import corpus, networks
from k12ai.frameworks.nlp.corpus import Corpus
from k12ai.frameworks.nlp.networks import Examples, Form
from k12ai.frameworks.nlp.schema import FILE, PRETRAINED
from k12ai.frameworks.problems import Notes

Params = Mapping[str, Any]

NAME = "k12nlp"
MAX_WRONG = 25
"""How many wrong predictions are in the result."""

_BATCH = 64
_SHOWN = 200


def _phase(name: str) -> None:
    report.progress(0, None, name)


# --- train -----------------------------------------------------------------------------------------


def train(params: Params) -> None:
    """Train a network, test it on texts that it has not seen, save it, and report all of that."""
    notes = Notes()
    machine = Machine.of(params["training"])
    data, seed = params["data"], params["seed"]
    found = corpus.load(data, notes)
    examples.check_classes(found.what, found.classes, found.labels)
    parts = examples.split(found.labels, data["test_fraction"], data["validation_fraction"], seed)
    tokenizer = _tokenizer(params, found, parts.train)
    form = networks.form_of(params, tokenizer)
    network = networks.build(params, form, found.classes)
    source = Examples(found.texts, found.labels, tokenizer, form)
    kept = Checkpoints.of_training(params, found.sha256)
    plan = Plan.of(params["training"], seed, networks.usual_rate(params))
    loop = Loop(network, source, plan, machine, kept, "texts")
    fitted = loop.fit(parts.train, parts.validation, resume=params["resume"])
    _phase("evaluating")
    chances = probabilities(network, source, parts.test, _BATCH, "evaluating")
    tested = scores.classification(found.classes, [found.labels[place] for place in parts.test], chances)
    _phase("saving")
    card = Card(
        framework=NAME,
        model=params["model"],
        parameters=params["parameters"],
        input=msgspec.to_builtins(form),
        data=data,
        seed=seed,
        classes=found.classes,
        rows={name: len(places) for name, places in parts._asdict().items()},
        sha256=found.sha256,
        scores={name: value for name, value in tested.items() if isinstance(value, float)},
        versions=storage.versions("tokenizers", "transformers"),
    )
    files = storage.save(params["save_as"], network, card, networks.writer(network, tokenizer, card))
    kept.clear()
    report.result(
        model=params["model"],
        saved_as=params["save_as"],
        files=files,
        rows=card.rows,
        epochs=fitted.epochs,
        best_epoch=fitted.best_epoch,
        resumed_at=fitted.resumed_at,
        texts_per_s=fitted.per_s,
        device=machine.device,
        precision=machine.precision,
        parameters=sum(each.numel() for each in network.parameters()),
        **tested,
        wrong=_wrong(found, parts.test, chances),
        notes=notes.plain(),
    )


def _tokenizer(params: Params, found: Corpus, train: Sequence[int]) -> Tokenizer:
    if params["model"] == PRETRAINED:
        directory = params["parameters"]["directory"]
        folder = csvfile.inside(directory)
        storage.check_directory(directory, folder)
        return networks.tokenizer_of(directory, folder)
    _phase("tokenizing")
    return networks.trained_tokenizer(
        [found.texts[place] for place in train], params["parameters"]["vocabulary"]
    )


def _wrong(found: Corpus, places: Sequence[int], chances: torch.Tensor) -> list[dict[str, Any]]:
    """Return the wrong predictions that the network was surest of."""
    return [
        {
            "text": found.texts[place][:_SHOWN],
            "label": found.classes[found.labels[place]],
            "predicted": found.classes[predicted],
            "probability": chance,
        }
        for place, predicted, chance in results.surest(found.labels, places, chances, MAX_WRONG)
    ]


# --- evaluate --------------------------------------------------------------------------------------


def evaluate(params: Params) -> None:
    """Test a saved network, on the texts that training has kept aside or on a file."""
    notes = Notes()
    card, network, tokenizer, form = _loaded(params["model"], notes)
    chosen = params["data"]
    found = corpus.load(card.data if chosen["dataset"] == AUTO else chosen, notes)
    if chosen["dataset"] == AUTO:
        places = results.kept_aside(card, found.labels, found.sha256, card.data["file"])
    else:
        places = list(range(len(found.texts)))
    found.labels, found.classes = results.as_learnt(found.labels, found.classes, card), card.classes
    source = Examples(found.texts, found.labels, tokenizer, form)
    chances = probabilities(network, source, places, _BATCH, "evaluating")
    report.result(
        model=params["model"],
        data=chosen["file"] if chosen["dataset"] == FILE else "test",
        rows=len(places),
        **scores.classification(card.classes, [found.labels[place] for place in places], chances),
        wrong=_wrong(found, places, chances),
        at_training=card.scores,
        notes=notes.plain(),
    )


def _loaded(name: str, notes: Notes) -> tuple[Card, torch.nn.Module, Tokenizer, Form]:
    card, folder = storage.card_of(name, NAME)
    try:
        form = msgspec.convert(card.input, Form)
    except msgspec.ValidationError:
        raise storage.refused(name, ("its card is broken", "模型描述已损坏")) from None
    storage.tell_versions(card, notes)
    tokenizer = networks.tokenizer_of(name, folder)
    network = networks.load(name, card, folder, form)
    return card, network.to(usual_device()), tokenizer, form


# --- predict ---------------------------------------------------------------------------------------


def predict(params: Params) -> None:
    """Predict texts; the result has the first of them and the file has all."""
    notes = Notes()
    card, network, tokenizer, form = _loaded(params["model"], notes)
    texts = params["texts"] or corpus.to_predict(params["file"], params["text"], notes)
    source = Examples(texts, [0] * len(texts), tokenizer, form)
    chances = probabilities(network, source, range(len(texts)), _BATCH, "predicting")
    _phase("saving")
    report.result(
        model=params["model"],
        **results.predictions(card.classes, chances),
        file=results.written(params["save_as"], "text", texts, card.classes, chances),
        notes=notes.plain(),
    )


OPS: Mapping[str, Callable[[Params], None]] = {TRAIN: train, EVALUATE: evaluate, PREDICT: predict}

"""What each op does, from its parameters to its result."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import torch
from PIL import Image, ImageDraw

from k12ai import report
from k12ai.frameworks import csvfile
from k12ai.frameworks.base import EVALUATE, PREDICT, TRAIN
from k12ai.frameworks.cv import networks, pictures
from k12ai.frameworks.cv.networks import Examples, Form
from k12ai.frameworks.cv.pictures import Pictures
from k12ai.frameworks.cv.schema import FILES, PRETRAINED
from k12ai.frameworks.neural import examples, results, scores, storage
from k12ai.frameworks.neural.checkpoints import Checkpoints, saving
from k12ai.frameworks.neural.fields import AUTO
from k12ai.frameworks.neural.loop import Loop, Machine, Plan, probabilities, usual_device
from k12ai.frameworks.neural.storage import Card
from k12ai.frameworks.problems import Notes

Params = Mapping[str, Any]

NAME = "k12cv"
MAX_WRONG = 25
"""How many wrong predictions are in the result and in the grid."""

_BATCH = 64
_TILE = 96


def _phase(name: str) -> None:
    report.progress(0, None, name)


# --- train -----------------------------------------------------------------------------------------


def train(params: Params) -> None:
    """Train a network, test it on pictures that it has not seen, save it, and report all of that."""
    notes = Notes()
    machine = Machine.of(params["training"])
    data, seed = params["data"], params["seed"]
    found = pictures.load(data, notes)
    examples.check_classes(found.what, found.classes, found.labels)
    parts = examples.split(found.labels, data["test_fraction"], data["validation_fraction"], seed)
    form = networks.form_of(params, is_grey=found.is_grey)
    network = networks.build(params, form, found.classes)
    source = Examples(found, form, params["augmentation"])
    kept = Checkpoints.of_training(params, found.sha256)
    usual = networks.USUAL_RATE_PRETRAINED if params["model"] == PRETRAINED else networks.USUAL_RATE
    loop = Loop(network, source, Plan.of(params["training"], seed, usual), machine, kept, "images")
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
        versions=storage.versions("pillow", "transformers"),
    )
    files = storage.save(params["save_as"], network, card, networks.writer(network, card))
    wrong = _wrong(params["save_as"], source, found, parts.test, chances)
    kept.clear()
    report.result(
        model=params["model"],
        saved_as=params["save_as"],
        files=files,
        rows=card.rows,
        epochs=fitted.epochs,
        best_epoch=fitted.best_epoch,
        resumed_at=fitted.resumed_at,
        images_per_s=fitted.per_s,
        device=machine.device,
        precision=machine.precision,
        parameters=sum(each.numel() for each in network.parameters()),
        **tested,
        **wrong,
        notes=notes.plain(),
    )


def _wrong(
    name: str, source: Examples, found: Pictures, places: Sequence[int], chances: torch.Tensor
) -> dict[str, Any]:
    """Return the wrong predictions that the network was surest of, and draw them as a grid."""
    missed = results.surest(found.labels, places, chances, MAX_WRONG)
    listed = [
        {
            "name": found.names[place],
            "label": found.classes[found.labels[place]],
            "predicted": found.classes[predicted],
            "probability": chance,
        }
        for place, predicted, chance in missed
    ]
    if not listed:
        return {"wrong": [], "wrong_grid": ""}
    grid = _grid([source.shown(place) for place, _, _ in missed], listed)
    file = f"results/{name}-wrong.png"
    with saving("grid of wrong predictions", "错误预测的图片"):
        csvfile.inside("results").mkdir(exist_ok=True)
        with csvfile.replacing(csvfile.inside(file)) as fresh:
            grid.save(fresh, "PNG")
    return {"wrong": listed, "wrong_grid": file}


def _grid(images: Sequence[Image.Image], listed: Sequence[Mapping[str, Any]]) -> Image.Image:
    """Draw pictures in rows; below each, its class and what it was taken for, where the font has the signs."""
    wide = min(5, len(images))
    high = -(-len(images) // wide)
    grid = Image.new("RGB", (wide * _TILE, high * (_TILE + 14)), "white")
    pen = ImageDraw.Draw(grid)
    for place, (image, each) in enumerate(zip(images, listed, strict=True)):
        left, top = place % wide * _TILE, place // wide * (_TILE + 14)
        grid.paste(
            image.convert("RGB").resize((_TILE - 4, _TILE - 4), Image.Resampling.NEAREST), (left + 2, top + 2)
        )
        words = f"{each['label'][:7]} > {each['predicted'][:7]}"
        pen.text((left + 3, top + _TILE - 1), words if words.isascii() else f"{place + 1}", fill="black")
    return grid


# --- evaluate --------------------------------------------------------------------------------------


def evaluate(params: Params) -> None:
    """Test a saved network, on the pictures that training has kept aside or on others."""
    notes = Notes()
    card, network, form = _loaded(params["model"], notes)
    chosen = params["data"]
    found = pictures.load(card.data if chosen["dataset"] == AUTO else chosen, notes)
    if chosen["dataset"] == AUTO:
        places = results.kept_aside(card, found.labels, found.sha256, card.data["path"])
    else:
        places = list(range(len(found.names)))
    found.labels, found.classes = results.as_learnt(found.labels, found.classes, card), card.classes
    source = Examples(found, form)
    chances = probabilities(network, source, places, _BATCH, "evaluating")
    tested = scores.classification(card.classes, [found.labels[place] for place in places], chances)
    report.result(
        model=params["model"],
        data=chosen["path"] if chosen["dataset"] == FILES else "test",
        rows=len(places),
        **tested,
        **_wrong(params["model"], source, found, places, chances),
        at_training=card.scores,
        notes=notes.plain(),
    )


def _loaded(name: str, notes: Notes) -> tuple[Card, torch.nn.Module, Form]:
    card, folder = storage.card_of(name, NAME)
    try:
        form = msgspec.convert(card.input, Form)
    except msgspec.ValidationError:
        raise storage.refused(name, ("its card is broken", "模型描述已损坏")) from None
    storage.tell_versions(card, notes)
    return card, networks.load(name, card, folder).to(usual_device()), form


# --- predict ---------------------------------------------------------------------------------------


def predict(params: Params) -> None:
    """Predict pictures; the result has the first of them and the file has all."""
    notes = Notes()
    card, network, form = _loaded(params["model"], notes)
    found = (
        pictures.of_base64(params["images"])
        if params["images"]
        else pictures.to_predict(params["files"], notes)
    )
    chances = probabilities(network, Examples(found, form), range(len(found.names)), _BATCH, "predicting")
    _phase("saving")
    report.result(
        model=params["model"],
        **results.predictions(card.classes, chances),
        file=results.written(params["save_as"], "picture", found.names, card.classes, chances),
        notes=notes.plain(),
    )


OPS: Mapping[str, Callable[[Params], None]] = {TRAIN: train, EVALUATE: evaluate, PREDICT: predict}

"""Networks that say which class a picture is of, and how pictures get into them."""

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from PIL import Image
from torch import nn

from k12ai.frameworks import csvfile
from k12ai.frameworks.cv.pictures import Pictures
from k12ai.frameworks.cv.schema import CNN, DIGITS, PRETRAINED
from k12ai.frameworks.neural import pretrained, storage
from k12ai.frameworks.neural.examples import Batch
from k12ai.frameworks.neural.pretrained import Kind
from k12ai.frameworks.neural.storage import Card

USUAL_RATE = 3e-3
USUAL_RATE_PRETRAINED = 1e-4
_MODEL_TYPE = "k12ai_cnn"


class Form(msgspec.Struct, frozen=True):
    """The form that a network wants pictures in."""

    size: int
    channels: int
    mean: list[float]
    std: list[float]


class Cnn(nn.Module):
    """Pairs of a convolution and a halving, while there is something to halve; then the mean of all places."""

    def __init__(self, parameters: Mapping[str, Any], form: Form, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        size, channels = form.size, form.channels
        for place in range(parameters["blocks"]):
            width = parameters["width"] << place
            layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            if size >= 4:
                layers.append(nn.MaxPool2d(2))
                size //= 2
            channels = width
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Dropout(parameters["dropout"]), nn.Linear(channels * 2, classes))

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        found = self.features(pixel_values)
        pooled = torch.cat([found.mean((2, 3)), found.amax((2, 3))], dim=1)
        logits: torch.Tensor = self.head(pooled)
        return logits


def form_of(params: Mapping[str, Any], *, is_grey: bool) -> Form:
    """Return the form of pictures for a network that is trained anew, or as a pretrained one had them."""
    if params["model"] == PRETRAINED:
        return _form_of_directory(params["parameters"]["directory"], params["data"]["image_size"])
    size = params["data"]["image_size"] or _usual_size(params)
    channels = 1 if is_grey else 3
    return Form(size, channels, [0.5] * channels, [0.5] * channels)


def _usual_size(params: Mapping[str, Any]) -> int:
    """Return 64; the digits need no more than 16, and 32 where the network begins by halving twice."""
    if params["data"]["dataset"] == DIGITS:
        return 16 if params["model"] == CNN else 32
    return 64


def build(params: Mapping[str, Any], form: Form, classes: Sequence[str]) -> nn.Module:
    """Return a network that has not learnt these classes yet; the seed says how it begins."""
    torch.manual_seed(params["seed"])
    parameters = params["parameters"]
    if params["model"] == CNN:
        return Cnn(parameters, form, len(classes))
    if params["model"] == PRETRAINED:
        directory, frozen = parameters["directory"], parameters["frozen"]
        return pretrained.tuned(Kind.IMAGES, directory, len(classes), frozen=frozen)
    return _resnet(parameters, form, classes)


def load(name: str, card: Card, folder: Path) -> nn.Module:
    """Return a network that was saved. Raises `DataProblem`."""
    form = msgspec.convert(card.input, Form)
    if card.model == CNN:
        try:
            network = Cnn(card.parameters, form, len(card.classes))
        except (KeyError, TypeError, ValueError, RuntimeError):
            raise storage.refused(name, ("its card is broken", "模型描述已损坏")) from None
        storage.fill(name, network, folder)
        return network
    return pretrained.load(Kind.IMAGES, name, folder, len(card.classes), exact=True)


def writer(network: nn.Module, card: Card) -> Callable[[Path], None]:
    """Return what writes a network's configuration into its directory."""

    def write(folder: Path) -> None:
        if isinstance(network, Cnn):
            config = {"model_type": _MODEL_TYPE, **card.parameters, **card.input, "classes": len(card.classes)}
            (folder / storage.CONFIG).write_bytes(msgspec.json.format(msgspec.json.encode(config), indent=2))
            return
        network.config.save_pretrained(folder)  # type: ignore[operator, union-attr]
        size, mean, std = (card.input[name] for name in ("size", "mean", "std"))
        about = {"size": {"height": size, "width": size}, "image_mean": mean, "image_std": std}
        (folder / "preprocessor_config.json").write_bytes(msgspec.json.encode(about))

    return write


# --- transformers ----------------------------------------------------------------------------------


def _resnet(parameters: Mapping[str, Any], form: Form, classes: Sequence[str]) -> nn.Module:
    library = pretrained.transformers()
    width = parameters["width"]
    config = library.ResNetConfig(
        num_channels=form.channels,
        embedding_size=width,
        hidden_sizes=[width << place for place in range(parameters["stages"])],
        depths=[parameters["depth"]] * parameters["stages"],
        layer_type="basic",
        num_labels=len(classes),
    )
    network: nn.Module = library.ResNetForImageClassification(config)
    return network


def _form_of_directory(directory: str, wanted: int) -> Form:
    """Return the form that a directory's ``preprocessor_config.json`` and ``config.json`` say."""
    folder = csvfile.inside(directory)
    config = storage.check_directory(directory, folder)
    try:
        about = msgspec.json.decode((folder / "preprocessor_config.json").read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        about = {}
    channels = config.get("num_channels", 3)
    sizes = about.get("size", config.get("image_size", 224))
    if isinstance(sizes, dict):
        sizes = sizes.get("height") or sizes.get("shortest_edge") or 224
    mean, std = (about.get(f"image_{name}", [0.5] * 3) for name in ("mean", "std"))
    try:
        form = msgspec.convert(
            [wanted or sizes, channels, mean[:channels], std[:channels]],
            tuple[int, int, list[float], list[float]],
        )
    except (msgspec.ValidationError, TypeError):
        form = (0, 0, [], [])
    if (
        not 8 <= form[0] <= 1024
        or form[1] not in (1, 3)
        or not len(form[2]) == len(form[3]) == form[1]
        or 0 in form[3]
    ):
        raise storage.refused(
            directory, ("it does not say in which form it wants pictures", "没有说明所需的图片格式")
        )
    return Form(*form)


# --- pictures as tensors ---------------------------------------------------------------------------


class Examples:
    """Pictures in the form that a network wants; each is read when its batch is made."""

    def __init__(self, pictures: Pictures, form: Form, augmentation: Mapping[str, Any] | None = None) -> None:
        self.labels: Sequence[int] = pictures.labels
        self._pictures, self._form = pictures, form
        self._changes = augmentation if augmentation and any(augmentation.values()) else None
        self._mean = torch.tensor(form.mean).view(-1, 1, 1) * 255
        self._std = torch.tensor(form.std).view(-1, 1, 1) * 255

    def batch(self, places: Sequence[int], seed: int | None) -> Batch:
        """Return pictures and labels; with a seed, the pictures are changed at random as was asked for."""
        pixels = torch.stack([self._pixels(place, seed) for place in places])
        values = (pixels.float() - self._mean) / self._std
        return {"pixel_values": values, "labels": torch.tensor([self.labels[place] for place in places])}

    def shown(self, place: int) -> Image.Image:
        """Return a picture as the network sees it."""
        return self._fitted(self._pictures.open(place))

    def _pixels(self, place: int, seed: int | None) -> torch.Tensor:
        image = self.shown(place)
        if self._changes is not None and seed is not None:
            image = _changed(image, self._changes, random.Random(seed * 1_000_003 + place))  # noqa: S311
        size = self._form.size
        flat = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
        return flat.view(size, size, self._form.channels).permute(2, 0, 1)

    def _fitted(self, image: Image.Image) -> Image.Image:
        """Scale the shorter side to the size, and cut off what is left of the longer one."""
        size = self._form.size
        image = image.convert("L" if self._form.channels == 1 else "RGB")
        width, height = image.size
        if (width, height) == (size, size):
            return image
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        box = (left, top, left + side, top + side)
        return image.resize((size, size), Image.Resampling.BILINEAR, box=box)


def _changed(image: Image.Image, changes: Mapping[str, Any], chance: random.Random) -> Image.Image:
    if changes["flip"] and chance.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    size = image.size[0]
    shift = [round(chance.uniform(-1, 1) * changes["shift"] * size) for _ in "xy"]
    if changes["rotate"] or any(shift):
        angle = chance.uniform(-1, 1) * changes["rotate"]
        image = image.rotate(angle, Image.Resampling.BILINEAR, translate=(shift[0], shift[1]))
    if changes["zoom"]:
        side = size * (1 - chance.random() * changes["zoom"])
        left, top = (chance.uniform(0, size - side) for _ in "xy")
        image = image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
    if changes["brightness"]:
        factor = 1 + chance.uniform(-1, 1) * changes["brightness"]
        image = image.point(lambda value: min(255, int(value * factor)))
    return image

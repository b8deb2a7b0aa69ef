"""Models on disk: a directory with weights in safetensors, which run no code when they are read, and a card."""

import importlib.metadata
import os
import platform
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from k12ai.frameworks import csvfile
from k12ai.frameworks.fields import NAME_PATTERN
from k12ai.frameworks.neural.checkpoints import saving, write_tensors
from k12ai.frameworks.problems import NO_FILE, VALUE, DataProblem, Notes, refuse

FOLDER = "models"
WEIGHTS, CARD, CONFIG = "model.safetensors", "card.json", "config.json"
MAX_BYTES = 8 << 30

_PICKLED = re.compile(r".*\.(?:bin|pt|pth|ckpt|pkl|pickle|h5|msgpack|joblib|npy|npz|py)$", re.IGNORECASE)


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """What a model was trained on, and how good it was then."""

    framework: str
    model: str
    parameters: dict[str, Any]
    input: dict[str, Any]
    data: dict[str, Any]
    seed: int
    classes: list[str]
    rows: dict[str, int] = {}
    sha256: str = ""
    scores: dict[str, float] = {}
    versions: dict[str, str] = {}


def versions(*more: str) -> dict[str, str]:
    """Return the versions of what a model depends on."""
    names = ("torch", "safetensors", *more)
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in names}


# --- our own ---------------------------------------------------------------------------------------


def save(name: str, model: torch.nn.Module, card: Card, also: Callable[[Path], object]) -> list[str]:
    """Write a model's directory; there is the old one or the new one, never half of one.

    ``also`` writes what else belongs into it: the configuration, the tokenizer. Raises `DataProblem`
    where the disk is full.
    """
    folder = _folder(name)
    fresh, old = (folder.with_name(f".{name}.{which}") for which in ("new", "old"))
    try:
        with saving("model", "模型"):
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
            write_tensors(fresh / WEIGHTS, dict(model.state_dict()), {"format": "pt"})
            (fresh / CARD).write_bytes(msgspec.json.format(msgspec.json.encode(card), indent=2))
            also(fresh)
        shutil.rmtree(old, ignore_errors=True)
        if folder.is_dir():
            os.replace(folder, old)
        os.replace(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    return sorted(f"{FOLDER}/{name}/{each.name}" for each in folder.iterdir())


def card_of(name: str, framework: str) -> tuple[Card, Path]:
    """Return a saved model's card and directory. Raises `DataProblem` where they are absent or foreign."""
    folder = _folder(name)
    old = folder.with_name(f".{name}.old")
    if not folder.exists() and (old / CARD).is_file():
        os.replace(old, folder)  # saving was cut off between two renamings
    if not (folder / CARD).is_file() or not (folder / WEIGHTS).is_file():
        there = sorted(path.parent.name for path in csvfile.inside(FOLDER).glob(f"[!.]*/{CARD}"))
        known = ", ".join(there[:20])
        refuse(
            f"There is no model named {name!r} in the project.",
            f"项目中没有名为 {name!r} 的模型。",
            code=NO_FILE,
            step=(f"Use one that is there: {known}.", f"请使用已有的模型：{known}。")
            if there
            else ("Train one first.", "请先训练一个模型。"),
        )
    check_directory(f"{FOLDER}/{name}", folder)
    try:
        card = msgspec.json.decode((folder / CARD).read_bytes(), type=Card)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise refused(
            name, (f"its {CARD} is not what training has written", f"{CARD} 不是训练写出的内容")
        ) from None
    if card.framework != framework:
        refuse(
            f"The model {name!r} was trained by {card.framework[:40]}, and this is {framework}.",
            f"模型 {name!r} 由 {card.framework[:40]} 训练，而当前是 {framework}。",
        )
    return card, folder


def _folder(name: str) -> Path:
    assert re.fullmatch(NAME_PATTERN, name), name
    return csvfile.inside(f"{FOLDER}/{name}")


def tell_versions(card: Card, notes: Notes) -> None:
    """Note that a model was trained with another version of PyTorch."""
    now = importlib.metadata.version("torch")
    if (then := card.versions.get("torch", "?")) != now:
        notes.add(
            f"The model was trained with torch {then}, this is {now}.",
            f"该模型由 torch {then} 训练，当前版本为 {now}。",
        )


def refused(name: str, why: tuple[str, str]) -> DataProblem:
    """Return the problem of a model that is not loaded."""
    return DataProblem(
        f"The model {name!r} cannot be trusted and was not loaded: {why[0]}.",
        f"模型 {name!r} 不可信，未加载：{why[1]}。",
        code=VALUE,
        step=(
            "Use a directory with config.json and model.safetensors, or train the model here.",
            "请使用含有 config.json 和 model.safetensors 的目录，或在本平台训练模型。",
        ),
    )


def fill(name: str, model: torch.nn.Module, folder: Path) -> None:
    """Give a model the weights of a directory. Raises `DataProblem` where they are not its own."""
    try:
        model.load_state_dict(load_file(folder / WEIGHTS))
    except (SafetensorError, RuntimeError, OSError):
        raise refused(name, ("its weights do not fit its card", "权重与描述不符")) from None


# --- anybody's -------------------------------------------------------------------------------------


def check_directory(name: str, folder: Path) -> dict[str, Any]:
    """Return the configuration of a directory that can be loaded without running any code of its own.

    Raises `DataProblem` where it has pickled weights, a program, links, or weights of which some are elsewhere.
    """
    if not folder.is_dir():
        refuse(f"There is no directory {name!r} in the project.", f"项目中没有目录 {name!r}。", code=NO_FILE)
    size = 0
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise refused(name, (f"{path.name!r} is a link", f"{path.name!r} 是链接"))
        if path.is_file():
            size += path.stat().st_size
            if _PICKLED.match(path.name):
                why = f"{path.name!r} may run code when it is read; weights must be safetensors"
                raise refused(name, (why, f"{path.name!r} 读取时可能执行代码，权重必须是 safetensors 格式"))
    if size > MAX_BYTES:
        raise refused(name, (f"it has more than {MAX_BYTES >> 30} GiB", f"超过 {MAX_BYTES >> 30} GiB"))
    config = _config(name, folder)
    _check_weights(name, folder)
    return config


def _config(name: str, folder: Path) -> dict[str, Any]:
    try:
        config: Any = msgspec.json.decode((folder / CONFIG).read_bytes())
    except FileNotFoundError:
        raise refused(name, ("it has no config.json", "缺少 config.json")) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OSError):
        raise refused(name, ("its config.json is no JSON", "config.json 不是有效的 JSON")) from None
    if not isinstance(config, dict):
        raise refused(name, ("its config.json is no object", "config.json 不是对象"))
    for key in ("auto_map", "custom_pipelines", "quantization_config", "backbone"):
        if any(key in each and each[key] for each in _objects(config)):
            raise refused(name, (f"its config.json has {key!r}", f"config.json 中有 {key!r}"))
    return config


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            yield each
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each


def _check_weights(name: str, folder: Path) -> None:
    index = folder / f"{WEIGHTS}.index.json"
    if (folder / WEIGHTS).is_file():
        return
    if not index.is_file():
        raise refused(name, (f"it has no {WEIGHTS}", f"缺少 {WEIGHTS}"))
    try:
        parts = set(msgspec.json.decode(index.read_bytes(), type=dict[str, Any])["weight_map"].values())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, AttributeError, TypeError):
        raise refused(name, (f"its {index.name} is broken", f"{index.name} 已损坏")) from None
    for part in parts:
        if not isinstance(part, str) or Path(part).name != part or not (folder / part).is_file():
            raise refused(name, (f"{str(part)[:60]!r} is not in it", f"其中没有 {str(part)[:60]!r}"))

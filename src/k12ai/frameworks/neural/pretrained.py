"""Networks of transformers: made from a configuration, or from a directory that is anybody's.

Such a network is a base that knows pictures or texts, and a head on it that says the class. transformers
names the base; the pooler, which some bases end with, belongs to the head: many that are pretrained lack it.
"""

import os
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from k12ai.frameworks import csvfile
from k12ai.frameworks.neural.storage import check_directory, refused
from k12ai.frameworks.problems import refuse

_POOLER = "pooler"


class Kind(StrEnum):
    """Which networks are meant, as the class of transformers' that loads one from a directory."""

    IMAGES = "AutoModelForImageClassification"
    TEXTS = "AutoModelForSequenceClassification"


def transformers() -> Any:
    """Import transformers, which is to look for nothing on the network and to print no bars."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import transformers as library

    library.utils.logging.set_verbosity_error()
    library.utils.logging.disable_progress_bar()
    return library


def tuned(kind: Kind, directory: str, classes: int, *, frozen: bool) -> nn.Module:
    """Return the network of a directory of the project, with a new head where its own has other classes.

    With ``frozen``, the head is all that can be trained. Raises `DataProblem`.
    """
    network = load(kind, directory, csvfile.inside(directory), classes, exact=False)
    if frozen:
        _freeze(network)
    return network


def load(kind: Kind, name: str, folder: Path, classes: int, *, exact: bool) -> nn.Module:
    """Return the network of a directory; with ``exact``, it has all weights, those of the head included.

    ``name`` is what messages call it. Raises `DataProblem` in words where it cannot be loaded.
    """
    check_directory(name, folder)
    try:
        network, told = getattr(transformers(), kind).from_pretrained(
            folder,
            num_labels=classes,
            ignore_mismatched_sizes=not exact,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            dtype=torch.float32,
        )
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RuntimeError,
        ImportError,
        SafetensorError,
    ) as error:
        why = " ".join(str(error).split())[:200]
        raise refused(name, (f"transformers says: {why}", f"transformers 报告：{why}")) from None
    made_up = _made_up(told)
    lacking = sorted(made_up if exact else filter(lambda key: not _is_head(network, key), made_up))
    if lacking:
        some = ", ".join(lacking[:3])
        raise refused(
            name,
            (
                f"its weights lack {len(lacking)} tensors, such as {some}",
                f"权重缺少 {len(lacking)} 个张量，例如 {some}",
            ),
        )
    loaded: nn.Module = network
    return loaded


def _made_up(told: Mapping[str, Iterable[Any]]) -> set[str]:
    """Return the names of the tensors that were not in the weights, or were there in another shape."""
    shaped = (each if isinstance(each, str) else each[0] for each in told.get("mismatched_keys", ()))
    return {*map(str, told.get("missing_keys", ())), *shaped}


def _is_head(network: nn.Module, key: str) -> bool:
    parts = key.split(".")
    return parts[0] != network.base_model_prefix or _POOLER in parts


def _freeze(network: nn.Module) -> None:
    for key, parameter in network.named_parameters():
        parameter.requires_grad = _is_head(network, key)
    if not any(each.requires_grad for each in network.parameters()):
        refuse(
            "This model has no head that could be trained alone.",
            "该模型没有可以单独训练的分类头。",
            step=("Set frozen to false.", "请把 frozen 设为 false。"),
        )

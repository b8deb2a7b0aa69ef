"""What the schema of a training with PyTorch cannot say."""

from collections.abc import Mapping
from typing import Any

from k12ai.errors import BadParameter
from k12ai.frameworks.base import Schema
from k12ai.frameworks.fields import check_path
from k12ai.frameworks.neural.fields import AUTO
from k12ai.texts import Text


def checked_source(data: Mapping[str, Any], own: str, field: str) -> dict[str, Any]:
    """Return ``data`` with its data set; ``own`` is the name of the student's own, which lies at ``field``."""
    dataset, path = data["dataset"], data[field]
    if dataset == AUTO and path:
        dataset = own
    if (dataset == own) != bool(path):
        only = Text(f"given with dataset {own}, and only then", f"仅在 dataset 为 {own} 时填写")
        raise BadParameter(f"service_params.data.{field}", only)
    check_path(f"data.{field}", path)
    return {**data, "dataset": dataset}


def checked_model(
    params: Mapping[str, Any], hyperparameters: Mapping[str, Mapping[str, Schema]], pretrained: str
) -> dict[str, Any]:
    """Return the parameters with those of the chosen model alone, as ``parameters``."""
    model = params["model"]
    for other, parts in hyperparameters.items():
        if other != model and params[other] != {name: part["default"] for name, part in parts.items()}:
            absent = Text(f"absent, because the model is {model}", f"空，因为所选模型是 {model}")
            raise BadParameter(f"service_params.{other}", absent)
    if model == pretrained:
        directory = params[pretrained]["directory"]
        place = f"{pretrained}.directory"
        if not directory:
            raise BadParameter(f"service_params.{place}", Text("given", "已填写的值"))
        check_path(place, directory)
    kept = {name: value for name, value in params.items() if name not in hyperparameters}
    return {**kept, "parameters": params[model]}


def either(one: str, other: str, params: Mapping[str, Any]) -> None:
    """Refuse both of two parameters, and neither."""
    if bool(params[one]) == bool(params[other]):
        text = Text(f"given, unless {other} is: one of the two", f"已填写的值：{one} 与 {other} 二选一")
        raise BadParameter(f"service_params.{one}", text)

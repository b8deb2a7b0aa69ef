"""Training, evaluating and using a model on pictures, as the server sees it."""

from collections.abc import Mapping, Sequence
from typing import Any

from k12ai.errors import BadParameter
from k12ai.frameworks.base import EVALUATE, PREDICT, TRAIN, Framework, Schema
from k12ai.frameworks.cv import schema
from k12ai.frameworks.fields import check_path
from k12ai.frameworks.neural.checking import checked_model, checked_source, either
from k12ai.frameworks.neural.fields import AUTO
from k12ai.texts import Text


class CvFramework(Framework):
    """Classification of pictures, by small networks and by pretrained ones of the project."""

    name = "k12cv"
    title = Text("Image classification", "图像分类")
    ops = (TRAIN, EVALUATE, PREDICT)
    image = "k12ai/cv"
    extra = "cv"
    modules = ("torch", "transformers", "accelerate", "safetensors", "PIL", "sklearn")

    def schema(self, op: str) -> Schema:
        """Return the JSON Schema of an op's parameters; what a model can be told has a group of its own."""
        return schema.schema(op)

    def command(self, op: str) -> Sequence[str]:
        """Return the runner; ``-P`` keeps a student's ``torch.py`` from being imported by it."""
        return ("-P", "-m", "k12ai.frameworks.cv")

    def check(self, op: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters with the data, and the model's parameters, that they mean."""
        if op == PREDICT:
            either("images", "files", params)
            for path in params["files"]:
                check_path("files", path)
            return dict(params)
        data = checked_source(params["data"], schema.FILES, "path")
        if op == EVALUATE:
            return {**params, "data": data}
        if data["dataset"] == AUTO:
            data["dataset"] = schema.DIGITS
        if 0 < data["image_size"] < 8:
            raise BadParameter(
                "service_params.data.image_size", Text("0, or from 8 to 512", "0，或 8 到 512 之间的数")
            )
        return {**checked_model(params, schema.HYPERPARAMETERS, schema.PRETRAINED), "data": data}

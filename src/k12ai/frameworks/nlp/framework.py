"""Training, evaluating and using a model on texts, as the server sees it."""

from collections.abc import Mapping, Sequence
from typing import Any

from k12ai.errors import BadParameter
from k12ai.frameworks.base import EVALUATE, PREDICT, TRAIN, Framework, Schema
from k12ai.frameworks.fields import check_path
from k12ai.frameworks.neural.checking import checked_model, checked_source, either
from k12ai.frameworks.neural.fields import AUTO
from k12ai.frameworks.nlp import schema
from k12ai.texts import Text


class NlpFramework(Framework):
    """Classification of texts, by small networks and by pretrained ones of the project."""

    name = "k12nlp"
    title = Text("Text classification", "文本分类")
    ops = (TRAIN, EVALUATE, PREDICT)
    image = "k12ai/nlp"
    extra = "nlp"
    modules = ("torch", "transformers", "accelerate", "safetensors", "tokenizers", "joblib")

    def schema(self, op: str) -> Schema:
        """Return the JSON Schema of an op's parameters; what a model can be told has a group of its own."""
        return schema.schema(op)

    def command(self, op: str) -> Sequence[str]:
        """Return the runner; ``-P`` keeps a student's ``torch.py`` from being imported by it."""
        return ("-P", "-m", "k12ai.frameworks.nlp")

    def check(self, op: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters with the data, and the model's parameters, that they mean."""
        if op == PREDICT:
            either("texts", "file", params)
            check_path("file", params["file"])
            return dict(params)
        data = checked_source(params["data"], schema.FILE, "file")
        if data["text"] == data["label"]:
            other = Text("another column than data.text", "与 data.text 不同的列")
            raise BadParameter("service_params.data.label", other)
        if op == EVALUATE:
            return {**params, "data": data}
        if data["dataset"] == AUTO:
            data["dataset"] = schema.REVIEWS
        checked = checked_model(params, schema.HYPERPARAMETERS, schema.PRETRAINED)
        given = checked["parameters"]
        if params["model"] == schema.TRANSFORMER and given["width"] % given["heads"]:
            whole = Text("a divisor of transformer.width", "能整除 transformer.width 的数")
            raise BadParameter("service_params.transformer.heads", whole)
        return {**checked, "data": data}

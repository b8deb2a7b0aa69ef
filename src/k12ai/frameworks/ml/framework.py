"""Training, evaluating and using a model on tables, as the server sees it."""

from collections.abc import Mapping, Sequence
from typing import Any

from k12ai.errors import BadParameter
from k12ai.frameworks.base import EVALUATE, PREDICT, TRAIN, Framework, Schema
from k12ai.frameworks.fields import check_path
from k12ai.frameworks.ml import schema
from k12ai.texts import Text


class MlFramework(Framework):
    """Classification, regression and clustering, on built-in data sets and on a CSV of one's own."""

    name = "k12ml"
    title = Text("Classical machine learning", "经典机器学习")
    ops = (TRAIN, EVALUATE, PREDICT)
    image = "k12ai/ml"
    extra = "ml"
    modules = ("sklearn", "skops", "numpy")

    def schema(self, op: str) -> Schema:
        """Return the JSON Schema of an op's parameters; what a model can be told has a group of its own."""
        return schema.schema(op)

    def command(self, op: str) -> Sequence[str]:
        """Return the runner; ``-P`` keeps a student's ``numpy.py`` from being imported by it."""
        return ("-P", "-m", "k12ai.frameworks.ml")

    def check(self, op: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters with the data, and the model's parameters, that they mean."""
        if op == PREDICT:
            return _checked_prediction(params)
        data = _checked_data(params["data"], None if op == EVALUATE else params["task"])
        if op == EVALUATE:
            return {**params, "data": data}
        return {**_checked_model(params), "data": data}


def _checked_data(data: Mapping[str, Any], task: str | None) -> dict[str, Any]:
    """Return ``data`` with the data set that "auto" means; ``task`` is None where a model is there already."""
    place = "service_params.data"
    dataset, file = data["dataset"], data["file"]
    if dataset == schema.AUTO and file:
        dataset = schema.CSV
    if (dataset == schema.CSV) != bool(file):
        only = Text(f"given with dataset {schema.CSV}, and only then", f"仅在 dataset 为 {schema.CSV} 时填写")
        raise BadParameter(f"{place}.file", only)
    check_path("data.file", file)
    if task is not None and dataset == schema.AUTO:
        dataset = schema.DEFAULT_DATASETS[task]
    known = None if task is None else schema.DATASETS_OF[task]
    if known is not None and dataset not in known:
        raise BadParameter(f"{place}.dataset", _one_of(known, task or ""))
    return {**data, "dataset": dataset}


def _checked_model(params: Mapping[str, Any]) -> dict[str, Any]:
    task = params["task"]
    model = schema.DEFAULT_MODELS[task] if params["model"] == schema.AUTO else params["model"]
    if model not in schema.MODELS_OF[task]:
        raise BadParameter("service_params.model", _one_of(schema.MODELS_OF[task], task))
    for other in schema.HYPERPARAMETERS:
        if other != model and params[other] != schema.defaults_of(other):
            absent = Text(f"absent, because the model is {model}", f"空，因为所选模型是 {model}")
            raise BadParameter(f"service_params.{other}", absent)
    kept = {name: value for name, value in params.items() if name not in schema.HYPERPARAMETERS}
    return {**kept, "model": model, "parameters": params.get(model, {})}


def _checked_prediction(params: Mapping[str, Any]) -> dict[str, Any]:
    if bool(params["rows"]) == bool(params["file"]):
        either = Text("given, unless file is: one of the two", "已填写的值：rows 与 file 二选一")
        raise BadParameter("service_params.rows", either)
    check_path("file", params["file"])
    return dict(params)


def _one_of(names: Sequence[str], task: str) -> Text:
    known = ", ".join(names)
    return Text(f"one of {known} for {task}", f"{schema.TASKS[task].zh}任务可用的以下之一：{known}")

"""The frameworks of this server: found by their entry points, parameters checked before anything starts."""

from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import EntryPoint
from typing import Any

import jsonschema
import structlog

from k12ai.errors import BadParameter, InvalidValue, ServiceNotFound
from k12ai.frameworks.base import Framework, Schema
from k12ai.frameworks.installed import installed
from k12ai.texts import Text

log = structlog.stdlib.get_logger(__name__)


class Registry:
    """Every framework by its name."""

    def __init__(self, frameworks: Iterable[Framework]) -> None:
        self._by_name = {each.name: each for each in frameworks}

    @classmethod
    def installed(cls) -> "Registry":
        """Find what is installed; one that cannot be loaded is named in the log and left out."""
        return cls(framework for _, framework in installed(_say_broken))

    def __iter__(self) -> Iterator[Framework]:
        return iter(self._by_name.values())

    def get(self, name: str) -> Framework:
        """Return a framework. Raises `ServiceNotFound`."""
        if name not in self._by_name:
            raise ServiceNotFound(tuple(self._by_name))
        return self._by_name[name]

    def schema(self, name: str, op: str) -> Schema:
        """Return the JSON Schema of an op's parameters.

        Raises `ServiceNotFound`, and `InvalidValue` for an op that the framework does not have.
        """
        framework = self.get(name)
        if op not in framework.ops:
            names = ", ".join(framework.ops)
            raise InvalidValue("op", Text(f"one of {names}", f"以下之一：{names}"))
        return framework.schema(op)

    def check(self, name: str, op: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters with their defaults.

        Raises `ServiceNotFound`, `InvalidValue` for an op that the framework does not have, and
        `BadParameter`, which names the field and what it may be.
        """
        framework, schema = self.get(name), self.schema(name, op)
        filled = _with_defaults(dict(params), schema)
        validator = jsonschema.Draft202012Validator(schema)
        problem = jsonschema.exceptions.best_match(validator.iter_errors(filled))
        if problem is not None:
            raise _explained(problem)
        return framework.check(op, filled)


def _say_broken(entry: EntryPoint, error: Exception) -> None:
    log.error("framework.broken", framework=entry.name, exc_info=error)


def _with_defaults(value: dict[str, Any], schema: Schema) -> dict[str, Any]:
    """Fill in what the schema's defaults say, also inside of objects."""
    for name, part in schema.get("properties", {}).items():
        if name not in value and "default" in part:
            value[name] = part["default"]
        if part.get("type") == "object" and isinstance(value.get(name), dict):
            value[name] = _with_defaults(dict(value[name]), part)
    return value


def _explained(problem: jsonschema.ValidationError) -> BadParameter:
    place = ".".join(str(part) for part in ("service_params", *problem.absolute_path))
    wanted: Any = problem.validator_value
    schema: Any = problem.schema
    given: Any = problem.instance
    match problem.validator:
        case "required":
            missing = next(name for name in wanted if name not in given)
            return BadParameter(f"{place}.{missing}", Text("given", "已填写的值"))
        case "additionalProperties":
            known = ", ".join(schema.get("properties", ()))
            unknown = next(name for name in given if name not in schema.get("properties", ()))
            return BadParameter(f"{place}.{unknown}", Text(f"one of {known}", f"以下参数之一：{known}"))
        case "enum":
            known = ", ".join(map(str, wanted))
            return BadParameter(place, Text(f"one of {known}", f"以下之一：{known}"))
        case "type":
            names = wanted if isinstance(wanted, str) else " or ".join(wanted)
            return BadParameter(place, Text(f"of type {names}", f"类型为 {names} 的值"))
        case "minimum" | "exclusiveMinimum" | "maximum" | "exclusiveMaximum":
            return BadParameter(place, _range(schema))
    return BadParameter(place, Text(f"valid: {problem.message[:200]}", f"有效的值：{problem.message[:200]}"))


def _range(schema: Schema) -> Text:
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    if low is None:
        return Text(f"at most {high}", f"不大于 {high} 的数")
    if high is None:
        return Text(f"at least {low}", f"不小于 {low} 的数")
    return Text(f"from {low} to {high}", f"{low} 到 {high} 之间的数")

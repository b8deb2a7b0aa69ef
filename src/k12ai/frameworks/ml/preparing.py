"""From columns to the matrix that a model learns from."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from k12ai.frameworks.ml.data import Array, Table, numbers_of, texts_of
from k12ai.frameworks.problems import VALUE, Notes, refuse, shortened

MAX_CATEGORIES = 25
"""The rarer ones of a column share one column of the matrix."""


class Column(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A column that a model was offered: how it is used or why it is not."""

    name: str
    kind: Literal["number", "category", "constant", "unique"]

    @property
    def is_used(self) -> bool:
        """Whether the model learns from it."""
        return self.kind in ("number", "category")


def choose(table: Table, notes: Notes) -> list[Column]:
    """Return how each column is used; raise `DataProblem` where none can be."""
    columns = [Column(name, _kind(values)) for name, values in table.columns.items()]
    constant = [column.name for column in columns if column.kind == "constant"]
    unique = [column.name for column in columns if column.kind == "unique"]
    if not any(column.is_used for column in columns):
        names = shortened(constant + unique)
        refuse(
            f"There is nothing to learn from: {names} have one value only, or another text in every row.",
            f"没有可学习的内容：{names} 各列只有一个值，或每行文字都不同。",
            code=VALUE,
            step=("Use columns that differ from row to row and repeat.", "请使用取值有变化且会重复出现的列。"),
        )
    if constant:
        names = shortened(constant)
        notes.add(f"Not used, with one value only: {names}.", f"未使用（只有一个值）：{names}。")
    if unique:
        names = shortened(unique)
        notes.add(
            f"Not used, with another text in almost every row: {names}.",
            f"未使用（几乎每行文字都不同）：{names}。",
        )
    return columns


def _kind(values: Array) -> Literal["number", "category", "constant", "unique"]:
    if values.dtype != object:
        known = values[~np.isnan(values)]
        return "number" if len(known) and known.min() != known.max() else "constant"
    texts = [value for value in values.tolist() if value is not None]
    different = len(set(texts))
    if different <= 1:
        return "constant"
    return (
        "unique"
        if different > max(MAX_CATEGORIES, len(texts) / 2) or different == len(texts) > 10
        else "category"
    )


def matrix(columns: Sequence[Column], table: Table) -> Array:
    """Return the columns that are used, side by side: numbers, or objects where some are text."""
    used = [column for column in columns if column.is_used]
    missing = [column.name for column in used if column.name not in table.columns]
    if missing:
        refuse(
            f"The model needs the columns {shortened(missing)}, which are not there.",
            f"缺少模型需要的列：{shortened(missing)}。",
            step=(
                f"Give all of these: {shortened([column.name for column in used], 40)}.",
                f"请给出以下各列：{shortened([column.name for column in used], 40)}。",
            ),
        )
    parts = [_as(column, table.columns[column.name]) for column in used]
    found = np.empty(
        (table.row_count, len(used)), object if any(part.dtype == object for part in parts) else float
    )
    for place, part in enumerate(parts):
        found[:, place] = part
    return found


def _as(column: Column, values: Array) -> Array:
    """Return values as the model knows the column; new data may look different."""
    if column.kind == "category":
        if values.dtype == object:
            return values
        return texts_of([None if np.isnan(each) else _written(each) for each in values.tolist()])
    if values.dtype != object:
        return values
    numbers = numbers_of(values.tolist())
    for value, number in zip(values.tolist(), numbers.tolist(), strict=True):
        if value is not None and np.isnan(number):
            refuse(
                f"Column {column.name!r} must have numbers, and it has {value[:60]!r}.",
                f"列 {column.name!r} 必须是数字，但其中有 {value[:60]!r}。",
                code=VALUE,
            )
    return numbers


def _written(number: float) -> str:
    return str(int(number)) if number.is_integer() else repr(number)


def preparation(columns: Sequence[Column], *, scaled: bool) -> Any:
    """Return what fills gaps, scales numbers and makes columns of categories; not fitted yet."""
    kinds = [column.kind for column in columns if column.is_used]
    steps: list[tuple[str, Any]] = [("fill", SimpleImputer(strategy="median"))]
    if scaled:
        steps.append(("scale", StandardScaler()))
    if "category" not in kinds:
        return Pipeline(steps)
    encoder = OneHotEncoder(
        handle_unknown="infrequent_if_exist", max_categories=MAX_CATEGORIES, sparse_output=False
    )
    fill = SimpleImputer(strategy="most_frequent", missing_values=None)
    parts = [("numbers", Pipeline(steps), _places(kinds, "number"))] if "number" in kinds else []
    parts.append(("categories", Pipeline([("fill", fill), ("encode", encoder)]), _places(kinds, "category")))
    return ColumnTransformer(parts)


def _places(kinds: Sequence[str], kind: str) -> list[int]:
    return [place for place, each in enumerate(kinds) if each == kind]


def sources(columns: Sequence[Column], fitted: Any) -> list[str]:
    """Return, for each column of the prepared matrix, the name of the column it is made from."""
    used = [column for column in columns if column.is_used]
    names = [column.name for column in used if column.kind == "number"]
    categories = [column.name for column in used if column.kind == "category"]
    if categories:
        encoder = fitted.named_transformers_["categories"].named_steps["encode"]
        made = encoder.get_feature_names_out([str(place) for place in range(len(categories))])
        names += [categories[int(name.partition("_")[0])] for name in made]
    return names


def table_of(rows: Sequence[Any], columns: Sequence[Column]) -> Table:
    """Return rows that were sent, objects or lists, as a table."""
    every = [column.name for column in columns]
    used = [column.name for column in columns if column.is_used]
    whole: list[Mapping[str, Any]] = []
    for number, row in enumerate(rows, 1):
        if isinstance(row, Mapping):
            whole.append(row)
            continue
        names = used if len(row) == len(used) else every
        if len(row) != len(names):
            refuse(
                f"Row {number} has {len(row)} values, and the model needs {len(used)}: {shortened(used)}.",
                f"第 {number} 行有 {len(row)} 个值，模型需要 {len(used)} 个：{shortened(used)}。",
            )
        whole.append(dict(zip(names, row, strict=True)))
    present = [name for name in every if all(name in row for row in whole)]
    if not present:
        refuse(
            f"The rows have none of the model's columns, which are {shortened(used)}.",
            f"样本中没有模型需要的列：{shortened(used)}。",
        )
    return Table({name: _sent([row[name] for row in whole]) for name in present})


def _sent(cells: Sequence[Any]) -> Array:
    cells = [None if isinstance(cell, str) and not cell.strip() else cell for cell in cells]
    if all(cell is None or (isinstance(cell, (int, float)) and not isinstance(cell, bool)) for cell in cells):
        return numbers_of(cells)
    return texts_of(cells)

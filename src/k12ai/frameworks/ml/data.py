"""Tables of numbers and categories, with or without a target."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from k12ai.frameworks import csvfile
from k12ai.frameworks.csvfile import MAX_NAME, Sheet
from k12ai.frameworks.ml.schema import CLASSIFICATION, CLUSTERING, CSV, REGRESSION
from k12ai.frameworks.problems import VALUE, Notes, refuse, shortened

Array = npt.NDArray[Any]

MAX_CLASSES = 100


@dataclass(frozen=True)
class Table:
    """Columns by name: float64 with NaN, or text (object) with None; and the target, where there is one."""

    columns: Mapping[str, Array]
    target: Array | None = None
    target_name: str = ""
    sha256: str = ""

    @property
    def row_count(self) -> int:
        """The number of rows."""
        return len(next(iter(self.columns.values())))

    def at(self, rows: Array) -> "Table":
        """Return some of the rows."""
        columns = {name: column[rows] for name, column in self.columns.items()}
        return replace(self, columns=columns, target=None if self.target is None else self.target[rows])


def load(data: Mapping[str, Any], task: str, seed: int, notes: Notes) -> Table:
    """Return the data that the parameters name, with a target that fits the task."""
    if data["dataset"] != CSV:
        table = _built_in(data, seed)
        return replace(table, columns=_chosen(table.columns, data["features"]))
    sheet = csvfile.read(data["file"], header=data["header"], notes=notes)
    name = data["target"] or ("" if task == CLUSTERING else sheet.names[-1])
    features = [each for each in sheet.names if each != name]
    if name and name not in sheet.names:
        refuse(
            f"There is no column {name!r}; the columns are {shortened(sheet.names)}.",
            f"没有名为 {name!r} 的列；现有的列：{shortened(sheet.names)}。",
            step=("Use one of these as the target.", "请选择其中一列作为目标列。"),
        )
    if not features:
        refuse(
            f"The only column that was found is {sheet.names[0][:100]!r}.",
            f"只找到一列：{sheet.names[0][:100]!r}。",
            code=VALUE,
            step=("Separate the cells by commas, semicolons or tabs.", "请用逗号、分号或制表符分隔单元格。"),
        )
    if not name:
        return Table(_chosen(columns_of(sheet, features, notes), data["features"]), sha256=sheet.sha256)
    wanted = list(_chosen(dict.fromkeys(features), data["features"]))
    sheet = _with_target(sheet, name, notes)
    target = target_of(sheet, name, task)
    return Table(columns_of(sheet, wanted, notes), target, name, sheet.sha256)


def to_test(sheet: Sheet, features: Sequence[str], target: str, task: str, notes: Notes) -> Table:
    """Return a sheet to test a model with; one class alone, or one number, will do."""
    if not target:
        return Table(columns_of(sheet, features, notes), sha256=sheet.sha256)
    sheet = _with_target(sheet, target, notes)
    cells = sheet.columns[sheet.names.index(target)]
    values = _all_numbers(target, cells) if task == REGRESSION else labels_of(cells)
    return Table(columns_of(sheet, features, notes), values, target, sheet.sha256)


def _chosen(columns: Mapping[str, Any], wanted: Sequence[str]) -> dict[str, Any]:
    unknown = [name for name in wanted if name not in columns]
    if unknown:
        refuse(
            f"There is no column {unknown[0]!r} to learn from; there are {shortened(list(columns))}.",
            f"没有可用于学习的列 {unknown[0]!r}；可用的列：{shortened(list(columns))}。",
        )
    return {name: columns[name] for name in wanted or columns}


# --- a CSV -----------------------------------------------------------------------------------------


def columns_of(sheet: Sheet, names: Sequence[str], notes: Notes) -> dict[str, Array]:
    """Return columns as numbers where every value is one, otherwise as text."""
    by_name = dict(zip(sheet.names, sheet.columns, strict=True))
    return {name: _column(name, by_name[name], notes) for name in names}


def numbers_of(cells: Sequence[Any]) -> Array:
    """Return cells as numbers; NaN where one is missing, none or not finite."""
    found = np.array([_number(cell) for cell in cells], dtype=np.float64)
    found[~np.isfinite(found)] = math.nan
    return found


def texts_of(cells: Sequence[Any]) -> Array:
    """Return cells as text; None where one is missing."""
    found = np.empty(len(cells), dtype=object)
    found[:] = [None if cell is None else str(cell) for cell in cells]
    return found


def _number(cell: Any) -> float:
    try:
        return math.nan if cell is None or "_" in str(cell) else float(cell)
    except (ValueError, TypeError, OverflowError):
        return math.nan


def _whole(cell: Any) -> int:
    if "_" in str(cell):
        raise ValueError(cell)
    return int(str(cell))


def _column(name: str, cells: Sequence[str | None], notes: Notes) -> Array:
    numbers = numbers_of(cells)
    strays = [
        cell for cell, number in zip(cells, numbers, strict=True) if cell is not None and math.isnan(number)
    ]
    if not strays:
        return numbers
    filled = sum(cell is not None for cell in cells)
    if len(strays) * 10 <= filled:  # it was meant to be a number
        notes.add(
            f"Column {name!r} is treated as text: {len(strays)} of its {filled} values are no numbers, "
            f"such as {strays[0][:60]!r}.",
            f"列 {name!r} 按文字处理：{filled} 个值中有 {len(strays)} 个不是数字，例如 {strays[0][:60]!r}。",
        )
    return texts_of(cells)


def _with_target(sheet: Sheet, name: str, notes: Notes) -> Sheet:
    """Return the rows that have a target."""
    target = sheet.columns[sheet.names.index(name)]
    missing = sum(cell is None for cell in target)
    if not missing:
        return sheet
    if missing == len(target):
        refuse(f"The target column {name!r} has no values.", f"目标列 {name!r} 没有任何值。", code=VALUE)
    notes.add(
        f"{missing} rows have no value in the target column {name!r} and are left out.",
        f"{missing} 行的目标列 {name!r} 没有值，已略去。",
    )
    keep = [cell is not None for cell in target]
    columns = [[cell for cell, kept in zip(column, keep, strict=True) if kept] for column in sheet.columns]
    return sheet._replace(columns=columns)


# --- targets ---------------------------------------------------------------------------------------


def target_of(sheet: Sheet, name: str, task: str) -> Array:
    """Return a target column as the task needs it; of a clustering, it is what the clusters are compared to."""
    cells: list[Any] = list(sheet.columns[sheet.names.index(name)])
    if task == REGRESSION:
        numbers = _all_numbers(name, cells)
        _check_varies(name, numbers)
        return numbers
    labels = labels_of(cells)
    if task == CLASSIFICATION:
        _check_classes(name, labels)
    return labels


def labels_of(cells: Sequence[Any]) -> Array:
    """Return labels as whole numbers where all of them are, otherwise as text."""
    try:
        return np.array([_whole(cell) for cell in cells], dtype=np.int64)
    except (ValueError, OverflowError):
        return texts_of(cells)


def _all_numbers(name: str, cells: Sequence[Any]) -> Array:
    numbers = numbers_of(cells)
    for cell, number in zip(cells, numbers, strict=True):
        if math.isnan(number):
            refuse(
                f"The target column {name!r} must have numbers, and it has {str(cell)[:60]!r}.",
                f"目标列 {name!r} 必须是数字，但其中有 {str(cell)[:60]!r}。",
                code=VALUE,
                step=(
                    "Choose another target, or classification as the task.",
                    "请换一个目标列，或把任务改为分类。",
                ),
            )
    return numbers


def _check_varies(name: str, numbers: Array) -> None:
    if len(set(numbers.tolist())) == 1:
        refuse(
            f"The target column {name!r} has the same value in every row.",
            f"目标列 {name!r} 的所有值都相同。",
            code=VALUE,
        )


def _check_classes(name: str, labels: Array) -> None:
    counts = Counter(labels.tolist())
    if len(counts) == 1:
        refuse(
            f"The target column {name!r} has only the class {str(labels[0])[:60]!r}, and two are needed.",
            f"目标列 {name!r} 只有一个类别 {str(labels[0])[:60]!r}，至少需要两个。",
            code=VALUE,
            step=(
                "Add rows of another class, or choose another target.",
                "请加入其他类别的数据，或换一个目标列。",
            ),
        )
    if len(counts) > MAX_CLASSES or len(counts) * 2 > len(labels) > 10:
        refuse(
            f"The target column {name!r} has {len(counts)} classes in {len(labels)} rows, which is too many.",
            f"目标列 {name!r} 在 {len(labels)} 行中有 {len(counts)} 个类别，太多了。",
            code=VALUE,
            step=(
                "Choose another target; where it is a quantity, choose regression as the task.",
                "请换一个目标列；如果它是数量，请把任务改为回归。",
            ),
        )
    if any(len(str(label)) > MAX_NAME for label in counts):
        refuse(f"The target column {name!r} has whole texts.", f"目标列 {name!r} 中是大段文字。", code=VALUE)


# --- built-in data sets ----------------------------------------------------------------------------


_TARGETS = {
    "iris": "species",
    "digits": "digit",
    "wine": "grower",
    "breast_cancer": "diagnosis",
    "diabetes": "progression",
}


def _built_in(data: Mapping[str, Any], seed: int) -> Table:
    import sklearn.datasets as sets

    dataset, noise, samples = data["dataset"], data["noise"], data["samples"]
    generated: dict[str, Callable[[], tuple[Array, Array]]] = {
        "moons": lambda: sets.make_moons(samples, noise=noise, random_state=seed),
        "circles": lambda: sets.make_circles(samples, noise=noise / 2, factor=0.5, random_state=seed),
        "blobs": lambda: sets.make_blobs(samples, centers=3, cluster_std=0.5 + 3 * noise, random_state=seed)[
            :2
        ],
        "waves": lambda: _waves(samples, noise, seed),
    }
    if dataset in generated:
        values, target = generated[dataset]()
        names = ["x", "y"][: values.shape[1]]
        return Table(_by_name(names, values), target, "height" if dataset == "waves" else "group")
    bunch: Any = getattr(sets, f"load_{dataset}")()
    labels = bunch.target
    if dataset not in ("digits", "diabetes"):
        labels = texts_of([str(bunch.target_names[number]) for number in labels])
    return Table(_by_name(list(bunch.feature_names), bunch.data), labels, _TARGETS[dataset])


def _waves(samples: int, noise: float, seed: int) -> tuple[Array, Array]:
    random = np.random.default_rng(seed)
    x = random.uniform(0, 10, samples)
    return x[:, None], np.sin(x) + 0.2 * x + random.normal(0, noise, samples)


def _by_name(names: Sequence[str], values: Array) -> dict[str, Array]:
    return {
        str(name): np.ascontiguousarray(values[:, place], dtype=np.float64) for place, name in enumerate(names)
    }


# --- parts -----------------------------------------------------------------------------------------


def split(table: Table, task: str, fraction: float, seed: int, notes: Notes) -> tuple[Table, Table]:
    """Return the part to train with and the part to test with; the classes have the same shares in both."""
    from sklearn.model_selection import train_test_split

    count = table.row_count
    if count < 4:
        refuse(
            f"There are {count} rows, and at least 4 are needed to train and to test.",
            f"只有 {count} 行数据，训练和测试至少需要 4 行。",
            code=VALUE,
        )
    strata = None
    if task == CLASSIFICATION:
        counts = Counter(np.asarray(table.target).tolist())
        tested = math.ceil(count * fraction)
        if min(counts.values()) >= 2 and len(counts) <= min(tested, count - tested):
            strata = table.target
        else:
            notes.add(
                "Some classes have very few rows; the test part may lack them.",
                "有些类别的数据太少，测试数据中可能没有它们。",
            )
    train, test = train_test_split(np.arange(count), test_size=fraction, random_state=seed, stratify=strata)
    if task == CLASSIFICATION and len(set(np.asarray(table.target)[train].tolist())) < 2:
        refuse(
            "The rows to train with are all of one class: there are too few of the others.",
            "训练数据只剩一个类别：其他类别的数据太少。",
            code=VALUE,
        )
    return table.at(train), table.at(test)

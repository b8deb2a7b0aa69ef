"""Reading a CSV as students have them: from a Chinese Excel, with semicolons, with holes in it."""

import contextlib
import csv
import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from k12ai.frameworks.problems import ENCODING, NO_FILE, VALUE, DataProblem, Notes, refuse

MAX_BYTES = 64 << 20
MAX_COLUMNS = 2000
MAX_NAME = 200

_SEPARATORS = (",", ";", "\t", "，")
_SAMPLE_LINES = 30
_ARCHIVES = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
_SAVE_AS_CSV = (
    "Open it in a spreadsheet program and save it as CSV UTF-8.",
    "请用表格软件打开它，另存为“CSV UTF-8”。",
)
_MISSING = frozenset(
    {"", "na", "n/a", "nan", "null", "none", "?", "-", "--", "#n/a", "inf", "-inf", "缺失", "无"}
)


class Sheet(NamedTuple):
    """A table of text: the names of its columns, and each column's cells; None where one is missing."""

    names: list[str]
    columns: list[list[str | None]]
    sha256: str = ""

    @property
    def row_count(self) -> int:
        """The number of rows."""
        return len(self.columns[0]) if self.columns else 0


def inside(path: str) -> Path:
    """Return a path of the project; refuse what lies elsewhere, also by way of a link."""
    project = Path.cwd().resolve()
    found = (project / path).resolve()
    if Path(path).is_absolute() or ".." in Path(path).parts or not found.is_relative_to(project):
        refuse(
            f"{path!r} is not inside of the project.",
            f"{path!r} 不在项目目录内。",
            step=("Upload the file to the project and write its name.", "请把文件上传到项目，并填写它的名称。"),
        )
    return found


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path to write to, which takes the place of the file at the end, or never."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield fresh
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def read(path: str, *, header: bool, notes: Notes, least: int = 2) -> Sheet:
    """Read a CSV of the project. Raises `DataProblem` with what is wrong with it, and where."""
    data = bytes_of(path)
    text = decoded(path, data)
    lines = _lines(path, text, _separator(text))
    if not lines:
        refuse(f"{path!r} is empty.", f"{path!r} 是空文件。", code=VALUE, step=_FILL)
    names = _names(path, lines[0][1]) if header else [f"c{place}" for place in range(1, len(lines[0][1]) + 1)]
    rows = lines[1:] if header else lines
    if (count := len(rows)) < least:
        refuse(
            f"{path!r} has {count} row{'s' * (count != 1)} of data, and at least {least} must be there.",
            f"{path!r} 只有 {count} 行数据，至少需要 {least} 行。",
            code=VALUE,
            step=_FILL,
        )
    cells = [_row(path, line, row, len(names), notes) for line, row in rows]
    return Sheet(names, [list(column) for column in zip(*cells, strict=True)], hashlib.sha256(data).hexdigest())


_FILL = (
    "Put the names of the columns into its first line and one row of data into each further line.",
    "请在第一行写列名，之后每行写一条数据。",
)


def as_cell(value: str) -> str | None:
    """Return a cell's text, or None where it says that a value is missing."""
    value = value.strip()
    return None if value.lower() in _MISSING else value


def bytes_of(path: str) -> bytes:
    """Return a file of the project. Raises `DataProblem` where it is absent or too large."""
    file = inside(path)
    if not file.is_file():
        here = sorted(str(each.relative_to(Path.cwd())) for each in Path.cwd().glob("**/*.csv"))[:10]
        known = ", ".join(here)
        refuse(
            f"There is no file {path!r} in the project.",
            f"项目中没有文件 {path!r}。",
            code=NO_FILE,
            step=(f"Use one that is there: {known}.", f"请使用已有的文件：{known}。") if here else None,
        )
    if file.stat().st_size > MAX_BYTES:
        refuse(
            f"{path!r} has more than {MAX_BYTES >> 20} MiB.",
            f"{path!r} 超过 {MAX_BYTES >> 20} MiB。",
            code=VALUE,
            step=("Use fewer rows.", "请减少行数。"),
        )
    return file.read_bytes()


def decoded(path: str, data: bytes) -> str:
    """Return the text of a file in UTF-8, GB18030 or UTF-16. Raises `DataProblem` where it is none."""
    if data.startswith(_ARCHIVES):
        refuse(
            f"{path!r} is a spreadsheet, not a CSV.",
            f"{path!r} 是电子表格文件，不是 CSV。",
            code=VALUE,
            step=_SAVE_AS_CSV,
        )
    wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))  # Excel's "Unicode text"
    for encoding in ("utf-16",) if wide else ("utf-8-sig", "gb18030"):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise DataProblem(
        f"{path!r} is no text in UTF-8 or GB18030.",
        f"{path!r} 不是 UTF-8 或 GB18030 编码的文本。",
        code=ENCODING,
        step=_SAVE_AS_CSV,
    )


def _separator(text: str) -> str:
    """Return the separator that gives the first lines the most columns, the same number in all of them."""
    start = text[: 1 << 16].splitlines()[:_SAMPLE_LINES]
    whole = start if len(text) <= 1 << 16 else start[:-1] or start

    def columns(separator: str) -> int:
        try:
            rows = [row for row in csv.reader(whole, delimiter=separator) if any(map(str.strip, row))]
        except csv.Error:
            return 0
        widths = [len(row) for row in rows] or [0]
        return min(widths) if max(widths) == min(widths) else min(widths[0], 2)

    return max(_SEPARATORS, key=columns)


def _lines(path: str, text: str, separator: str) -> list[tuple[int, list[str]]]:
    return list(_walk(path, text, separator))


def _walk(path: str, text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each row that is not blank, with the number of the line it ends in."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield reader.line_num, row
    except csv.Error as error:
        refuse(
            f"{path!r} cannot be read as a CSV, line {reader.line_num}: {error}.",
            f"{path!r} 第 {reader.line_num} 行不是有效的 CSV：{error}。",
            code=VALUE,
        )


def _names(path: str, first: list[str]) -> list[str]:
    while first and not first[-1].strip():
        first = first[:-1]
    names = [name.strip() or f"c{place}" for place, name in enumerate(first, 1)]
    if len(names) > MAX_COLUMNS:
        refuse(
            f"{path!r} has {len(names)} columns; {MAX_COLUMNS} is the most.",
            f"{path!r} 有 {len(names)} 列，最多 {MAX_COLUMNS} 列。",
            code=VALUE,
        )
    if all(_is_number(name) for name in names) or max(map(len, names)) > MAX_NAME:
        refuse(
            f"The first line of {path!r} has no names of columns.",
            f"{path!r} 的第一行不是列名。",
            code=VALUE,
            step=(
                "Write the names into the first line, or set data.header to false.",
                "请在第一行写列名，或把 header 设为 false。",
            ),
        )
    if twice := sorted({name for name in names if names.count(name) > 1}):
        listed = ", ".join(map(repr, twice))
        refuse(
            f"{path!r} has several columns named {listed}.",
            f"{path!r} 中有重复的列名 {listed}。",
            code=VALUE,
            step=("Give each column a name of its own.", "请让每一列的名称各不相同。"),
        )
    return names


def _row(path: str, line: int, row: list[str], width: int, notes: Notes) -> list[str | None]:
    cells = [as_cell(cell) for cell in row]
    if any(cell is not None for cell in cells[width:]):
        refuse(
            f"Line {line} of {path!r} has {len(cells)} cells, and the first line has {width}.",
            f"{path!r} 第 {line} 行有 {len(cells)} 个单元格，而第一行只有 {width} 个。",
            code=VALUE,
            step=("Put quotes around text that contains the separator.", "含有分隔符的文字请用引号括起来。"),
        )
    if len(cells) < width:
        notes.add(
            "Some lines are shorter than the first; what is not there counts as missing.",
            "有些行比第一行短，缺少的部分按缺失值处理。",
        )
    return cells[:width] + [None] * (width - len(cells))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

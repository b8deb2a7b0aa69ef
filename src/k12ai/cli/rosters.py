"""Rosters: who is in a class, as a spreadsheet writes it."""

import csv
import io
import re
from collections.abc import Mapping
from pathlib import Path

from k12ai.cli.exits import EXIT_USAGE, CommandFailed
from k12ai.texts import Text, printable

_HEADERS = frozenset({"user", "username", "id", "account", "学号", "用户", "用户名", "账号"})
_NAMES = frozenset({"name", "姓名", "名字"})
_IDENTIFIER = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._@-]{1,64}")


def read_roster(path: Path) -> Mapping[str, str]:
    """Return the students of a CSV file and their names, in its order.

    The column of users is called ``user`` (or 学号, 用户名 and the like), else it is the first one; a
    column ``name`` (姓名) is for people alone. Spreadsheets write UTF-8 with a mark, or GBK.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise CommandFailed(
            EXIT_USAGE, Text(f"{path}: {error.strerror}", f"{path}：{error.strerror}")
        ) from None
    try:
        rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(_decoded(raw, path)))]
    except csv.Error as error:
        raise CommandFailed(
            EXIT_USAGE, Text(f"{path}: no CSV: {error}", f"{path}：不是 CSV：{error}")
        ) from None
    numbered = [(number, row) for number, row in enumerate(rows, start=1) if any(row)]
    if not numbered:
        raise CommandFailed(EXIT_USAGE, Text(f"{path}: no students in it", f"{path}：文件中没有学生"))
    header = [cell.lower() for cell in numbered[0][1]]
    user_at = next((place for place, cell in enumerate(header) if cell in _HEADERS), None)
    name_at = next((place for place, cell in enumerate(header) if cell in _NAMES), None)
    if user_at is not None or name_at is not None:
        numbered = numbered[1:]
    students: dict[str, str] = {}
    for number, row in numbered:
        user = row[user_at or 0] if len(row) > (user_at or 0) else ""
        if not _IDENTIFIER.fullmatch(user):
            raise _bad_user(path, number, user)
        if user in students:
            raise CommandFailed(
                EXIT_USAGE,
                Text(f"{path}, line {number}: {user} is there twice", f"{path} 第 {number} 行：{user} 重复"),
            )
        students[user] = row[name_at] if name_at is not None and len(row) > name_at else ""
    return students


def _decoded(raw: bytes, path: Path) -> str:
    for encoding in ("utf-8-sig", "gb18030"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise CommandFailed(
        EXIT_USAGE, Text(f"{path}: neither UTF-8 nor GBK text", f"{path}：既不是 UTF-8 也不是 GBK 文本")
    )


def _bad_user(path: Path, number: int, user: str) -> CommandFailed:
    shown = printable(user)[:80]
    return CommandFailed(
        EXIT_USAGE,
        Text(
            f"{path}, line {number}: {shown!r} cannot be a user: 1 to 64 of A-Z a-z 0-9 . _ @ - ; "
            "put numbers or short names in a column 'user', and people's names in a column 'name'",
            f"{path} 第 {number} 行：{shown!r} 不能作为用户名：只能用 1 到 64 个 A-Z a-z 0-9 . _ @ - 字符；"
            "请把学号或短名放在“user”列，姓名放在“name”列",
        ),
    )

"""Tokens, classes and the audit, shown in a terminal."""

import contextlib
import csv
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text as Styled

from k12ai.cli.exits import EXIT_USAGE, CommandFailed
from k12ai.cli.words import language
from k12ai.people import AuditEntry, Classroom, Me, NewClassroom, NewToken, TokenInfo
from k12ai.texts import Text, printable

_SHOWN_ONCE = Text(
    "This is shown once. Its owner sets it as K12AI_TOKEN; who has it is its owner to the server.",
    "令牌只显示这一次。请由本人设为 K12AI_TOKEN；谁持有令牌，服务器就把谁当作本人。",
)
_NO_TOKENS = Text("no token was made", "尚未创建令牌")
_NO_CLASSES = Text("no class", "没有班级")
_NOTHING = Text("nothing is recorded", "没有记录")
_NO_NEW = Text(
    "everybody has a valid token already; for new ones: --renew for all, or k12ai token create USER for one",
    "所有人都已有有效令牌；需要新令牌时：--renew 更换全部，或用 k12ai token create 用户名 创建一个",
)
_DAYS = re.compile(r"([0-9]{1,4})([hdw]?)")
_UNIT_S = {"h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600, "": 24 * 3600}


def lifetime_s(given: str | None) -> int | None:
    """Return ``12h``, ``90d`` or ``20w`` in seconds; a bare number counts days."""
    if given is None:
        return None
    match = _DAYS.fullmatch(given)
    if match is None or int(match[1]) == 0:
        raise CommandFailed(
            EXIT_USAGE,
            Text(
                f"--expires {given}: use hours, days or weeks, such as 12h, 90d or 20w",
                f"--expires {given}：请用小时、天或周，例如 12h、90d 或 20w",
            ),
        )
    return int(match[1]) * _UNIT_S[match[2]]


def show_me(me: Me) -> None:
    """Print who the server takes the caller for."""
    if me.open:
        said = Text(
            "the server is open: everybody on its machine may do everything",
            "服务器处于开放模式：本机上的任何人都可以进行任何操作",
        )
        sys.stdout.write(said.pick(language()) + "\n")
        return
    until = _day(me.expires_at)
    classes = ", ".join(me.classes)
    sys.stdout.write(" ".join(filter(None, (me.user, me.role, until, classes))) + "\n")


def show_new(token: NewToken, *, as_json: bool) -> None:
    """Print a token that was just made: alone on standard output, so that it can go into a variable."""
    if as_json:
        sys.stdout.write(msgspec.json.encode(token).decode() + "\n")
        return
    sys.stdout.write(token.token + "\n")
    sys.stderr.write(_SHOWN_ONCE.pick(language()) + "\n")


def show_tokens(tokens: Sequence[TokenInfo], *, as_json: bool) -> None:
    """Print tokens, without their secrets."""
    columns = ("id", "user", "role", "expires", "state", "note")
    rows = [
        (each.id, each.user, each.role, _day(each.expires_at), _state(each), printable(each.note))
        for each in tokens
    ]
    _show(columns, rows, tokens, _NO_TOKENS, as_json=as_json)


def show_classes(classes: Sequence[Classroom], *, as_json: bool) -> None:
    """Print classes."""
    rows = [(each.name, ", ".join(each.teachers), str(len(each.students))) for each in classes]
    _show(("class", "teachers", "students"), rows, classes, _NO_CLASSES, as_json=as_json)


def hand_out(made: NewClassroom, names: Mapping[str, str], file: IO[str]) -> None:
    """Write the new tokens of a class as CSV, a line a student."""
    if not made.tokens:
        sys.stderr.write(_NO_NEW.pick(language()) + "\n")
        return
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("user", "name", "token"))
    writer.writerows((each.user, names.get(each.user, ""), each.token) for each in made.tokens)
    count = len(made.tokens)
    said = (
        _SHOWN_ONCE
        if file is sys.stdout
        else Text(f"{file.name}: {count} tokens", f"{file.name}：{count} 个令牌")
    )
    sys.stderr.write(said.pick(language()) + "\n")


@contextlib.contextmanager
def new_file(output: Path | None) -> Iterator[IO[str]]:
    """Yield a new file for its owner alone, made before there is anything whose only copy goes into it.

    Without a name, standard output. A file that nothing was written to is removed again.
    """
    if output is None:
        yield sys.stdout
        return
    try:
        os.close(os.open(output, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
    except OSError as error:
        raise CommandFailed(
            EXIT_USAGE,
            Text(
                f"--output {output}: must be a new file: {error.strerror}",
                f"--output {output}：必须是一个新文件：{error.strerror}",
            ),
        ) from None
    try:
        # With a mark, by which spreadsheets know UTF-8.
        with output.open("w", encoding="utf-8-sig") as file:
            yield file
    finally:
        if output.stat().st_size == 0:
            output.unlink()


def show_audit(entries: Sequence[AuditEntry], *, as_json: bool) -> None:
    """Print what was done, newest first."""
    columns = ("when", "who", "from", "did", "to", "answer")
    rows = [
        (
            each.at.astimezone().strftime("%m-%d %H:%M:%S"),
            f"{each.user} ({each.role})" if each.user else each.role,
            printable(each.address),
            each.action,
            printable(each.subject),
            str(each.status),
        )
        for each in entries
    ]
    _show(columns, rows, entries, _NOTHING, as_json=as_json)


_COLUMNS = {
    "user": "用户", "role": "角色", "expires": "有效期至", "state": "状态", "note": "备注", "class": "班级",
    "teachers": "教师", "students": "学生数", "when": "时间", "who": "谁", "from": "来自", "did": "操作",
    "to": "对象", "answer": "应答", "id": "编号",
}  # fmt: skip


def _show(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    values: Sequence[object],
    nothing: Text,
    *,
    as_json: bool,
) -> None:
    if as_json:
        sys.stdout.write(msgspec.json.encode(values).decode() + "\n")
    elif not rows:
        sys.stdout.write(nothing.pick(language()) + "\n")
    else:
        table = Table(box=box.SIMPLE)
        for name in columns:
            table.add_column(Text(name, _COLUMNS[name]).pick(language()), overflow="fold")
        for row in rows:
            table.add_row(*(Styled(cell) for cell in row))
        Console().print(table)


def _state(token: TokenInfo) -> str:
    if token.revoked_at is not None:
        return Text("revoked", "已吊销").pick(language())
    left = None if token.expires_at is None else token.expires_at - datetime.now(UTC)
    if left is not None and left <= timedelta(0):
        return Text("expired", "已过期").pick(language())
    return Text("valid", "有效").pick(language())


def _day(moment: datetime | None) -> str:
    return "" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M")

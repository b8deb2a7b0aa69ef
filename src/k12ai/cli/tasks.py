"""``k12ai submit``, ``ps``, ``logs``, ``frameworks``: tasks from the terminal."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text as Styled

from k12ai.cli.words import language
from k12ai.client import Client, TaskHandle
from k12ai.client.progress import standing
from k12ai.task import TASK_ID_DIGITS, Task
from k12ai.texts import Text, printable

_NO_TASKS = Text("no task is running", "没有正在运行的任务")
_COLUMNS = (
    Text("id", "编号"),
    Text("framework", "框架"),
    Text("op", "操作"),
    Text("user", "用户"),
    Text("project", "项目"),
    Text("state", "状态"),
    Text("reason", "原因"),
)
_INSTALLED = Text("installed", "已安装")
_STATE_STYLES = {"running": "green", "succeeded": "cyan", "failed": "red", "stopping": "yellow"}
_STATES = {
    "queued": Text("queued", "排队中"),
    "starting": Text("starting", "启动中"),
    "running": Text("running", "运行中"),
    "stopping": Text("stopping", "停止中"),
    "succeeded": Text("succeeded", "已成功"),
    "failed": Text("failed", "已失败"),
    "stopped": Text("stopped", "已停止"),
}

_REASONS = {
    "waiting_cpu": Text("processor", "等待处理器"),
    "waiting_memory": Text("memory", "等待内存"),
    "waiting_gpu": Text("GPU", "等待 GPU"),
    "quota": Text("own tasks", "等待自己的其他任务"),
}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([KMGTkmgt]?)(?:i?[Bb])?")


_LEAST = {"user": 6, "project": 7, "state": 9, "reason": 12}


class BadParam(Exception):
    """A parameter on the command line cannot be read."""


def params_of(file: Path | None, given: Sequence[str]) -> dict[str, Any]:
    """Combine a file of JSON with ``name=value`` words; a value that is JSON counts as such, else as text.

    A name with dots reaches into objects: ``model.name=knn``. Raises `BadParam`.
    """
    params: dict[str, Any] = {}
    if file is not None:
        try:
            params = msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
        except (OSError, msgspec.DecodeError) as error:
            raise BadParam(f"{file}: {error}") from None
    for word in given:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise BadParam(f"{word}: name=value")
        _set(params, name.split("."), _value(value))
    return params


def follow(handle: TaskHandle) -> int:
    """Show how far a task is until it has ended, and how it ended; return 0 where it succeeded, else 1."""
    task = handle.wait()
    for message in handle.messages("error", follow=False):
        if isinstance(message.body, dict):
            _say_error(message.body)
    if task.state == "succeeded":
        for message in handle.messages("result", follow=False):
            sys.stdout.write(msgspec.json.format(msgspec.json.encode(message.body), indent=2).decode() + "\n")
        return 0
    return 1


def show_tasks(client: Client, *, everything: bool, user: str | None, as_json: bool) -> None:
    """Print the tasks that have not ended, or all of them."""
    tasks = client.tasks(user=user, active=None if everything else True)
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(tasks), indent=2).decode() + "\n")
    elif tasks:
        Console().print(_table(tasks))
    else:
        sys.stdout.write(_NO_TASKS.pick(language()) + "\n")


def show_frameworks(client: Client, *, as_json: bool) -> None:
    """Print what tasks can run, and what to install for the rest."""
    frameworks = client.frameworks()
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(frameworks), indent=2).decode() + "\n")
        return
    table = Table(box=box.SIMPLE, header_style="dim")
    for column in (_COLUMNS[1], Text("title", "名称"), _COLUMNS[2], _COLUMNS[5]):
        table.add_column(column.pick(language()))
    for each in frameworks:
        state = _INSTALLED.pick(language()) if each.installed else each.install
        words = (each.name, each.title, ", ".join(each.ops), state)
        table.add_row(*(Styled(printable(word)) for word in words))
    Console().print(table)


def _table(tasks: Sequence[Task]) -> Table:
    table = Table(box=box.SIMPLE, header_style="dim")
    for column in _COLUMNS:
        # The words may be cut; the id is what one types, and why it waits is what one asks.
        least = TASK_ID_DIGITS if column is _COLUMNS[0] else _LEAST.get(column.en)
        table.add_column(column.pick(language()), no_wrap=True, overflow="ellipsis", min_width=least)
    for task in tasks:
        state = Styled(_STATES[task.state].pick(language()), style=_STATE_STYLES.get(task.state, ""))
        words = (task.framework, task.op.removesuffix(".start"), task.user, task.service_uuid)
        table.add_row(
            Styled(task.task_id, style="cyan"),
            *(Styled(printable(word)) for word in words),
            state,
            Styled(_reason(task), style="dim"),
        )
    return table


def _reason(task: Task) -> str:
    """Return why a task is as it is, in words, and where it stands while it waits."""
    words = _REASONS[task.reason].pick(language()) if task.reason in _REASONS else task.reason or ""
    if task.state == "queued":
        return f"{words} {standing(msgspec.structs.replace(task, reason=None))}".strip()
    return f"{words} GPU {','.join(map(str, task.gpus))}".strip() if task.gpus and not task.ended else words


def size_of(text: str | None) -> int | None:
    """Return a size in bytes: a number, with K, M, G or T for powers of 1024. Raises `BadParam`."""
    if text is None:
        return None
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise BadParam(f"{text}: 512M, 4G, 1.5G")
    return int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " "))


def _say_error(body: dict[str, Any]) -> None:
    words = body.get(language()) or body.get("en") or ""
    step = body.get(f"next_step_{language()}") or ""
    place = f"{body['file']}:{body['line']}: " if body.get("file") and body.get("line") else ""
    for line in (f"{place}{words}", str(body.get("detail") or ""), str(step)):
        if line.strip():
            sys.stderr.write(printable(line) + "\n")


def _set(params: dict[str, Any], path: Sequence[str], value: Any) -> None:
    *parents, last = path
    for name in parents:
        inner = params.setdefault(name, {})
        if not isinstance(inner, dict):
            raise BadParam(f"{'.'.join(path)}: {name}")
        params = inner
    params[last] = value


def _value(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text

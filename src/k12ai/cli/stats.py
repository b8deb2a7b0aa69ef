"""``k12ai stats``: the figures as a picture people like to look at."""

import datetime
import sys
import time
from collections.abc import Sequence
from typing import TypeVar

import msgspec
from msgspec import UNSET, UnsetType
from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text as Styled

from k12ai.cli.words import language, size
from k12ai.client import Client, ServerUnreachable
from k12ai.models import Container, Disk, Gpu, StatsMessage, UserUsage
from k12ai.texts import Text, printable

T = TypeVar("T")

INTERVAL_S = 1.0

_BAR_WIDTH = 20
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_LEVELS = "▁▂▃▄▅▆▇█"

_CPU = Text("CPU", "处理器")
_MEMORY = Text("Memory", "内存")
_GPU_MEMORY = Text("Memory", "显存")
_CONTAINERS = Text("Containers", "容器")
_NO_CONTAINERS = Text("no labelled container is running", "没有正在运行的带标签的容器")
_USERS = Text("Users", "用户")
_UNATTRIBUTED = Text("unattributed", "未归属")
_PARTS = ("cpus", "gpus", "disks", "containers", "users")
_STALE = Text("last known", "最后一次得知")
_UNREACHABLE = Text("the server does not answer; still trying", "服务器没有应答，仍在重试")
# Each column's title and the width it never goes below.
_COLUMNS = (
    (Text("id", "编号"), 12),
    (Text("service", "服务"), 4),
    (Text("op", "操作"), 4),
    (Text("user", "用户"), 4),
    (Text("project", "项目"), 4),
    (Text("cpu", "处理器"), 8),
    (Text("memory", "内存"), 10),
)
_USER_COLUMNS = (
    (Text("user", "用户"), 12),
    (Text("containers", "容器"), 4),
    (Text("cpu", "处理器"), 8),
    (Text("memory", "内存"), 10),
)
_GPU_COLUMN = (Text("gpu memory", "显存"), 10)
_AGE_COLUMN = (Text("up", "已运行"), 7)


def show(client: Client, *, watch: bool, as_json: bool) -> None:
    """Print the figures once, or every second until interrupted."""
    if as_json:
        _print_json(client, watch=watch)
    elif watch:
        _watch(client)
    else:
        Console().print(picture(client.stats(*_PARTS), client.server_url))


def _print_json(client: Client, *, watch: bool) -> None:
    while True:
        encoded = msgspec.json.encode(client.stats(*_PARTS))
        sys.stdout.write((encoded if watch else msgspec.json.format(encoded, indent=2)).decode() + "\n")
        sys.stdout.flush()
        if not watch:
            return
        time.sleep(INTERVAL_S)


def _watch(client: Client) -> None:
    shown: RenderableType = picture(client.stats(*_PARTS), client.server_url)
    with Live(shown, screen=True, auto_refresh=False) as live:
        beat = time.monotonic()
        try:
            while True:
                beat = max(beat + INTERVAL_S, time.monotonic())
                time.sleep(max(0.0, beat - time.monotonic()))
                try:
                    shown = picture(client.stats(*_PARTS), client.server_url)
                    live.update(shown, refresh=True)
                except ServerUnreachable:
                    warning = Styled(f" {_UNREACHABLE.pick(language())} ", style="black on yellow")
                    live.update(Group(shown, warning), refresh=True)
        except KeyboardInterrupt:
            return


def picture(stats: StatsMessage, server_url: str) -> RenderableType:
    """Return the figures as panels: the host, its GPUs, the containers, and what is to be said about them."""
    parts: list[RenderableType] = [_host(stats, server_url)]
    gpus, users = _list(stats.gpus), _list(stats.users)
    if gpus:
        parts.append(_gpus(gpus))
    stale = stats.containers_stale is True
    parts.append(_containers(_list(stats.containers), stale=stale, on_gpus=bool(gpus)))
    if users:
        parts.append(_users(users, on_gpus=bool(gpus)))
    parts += [Styled(f"  {printable(note)}", style="yellow") for note in _list(stats.notes)]
    return Group(*parts)


def _host(stats: StatsMessage, server_url: str) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    if stats.cpu_percent is not UNSET:
        cores = "".join(_LEVELS[min(7, int(core / 12.5))] for core in _list(stats.cpu_percent_list))
        grid.add_row(_CPU.pick(language()), _bar(stats.cpu_percent), Styled(cores, style="cyan"))
    if stats.cpu_memory_percent is not UNSET:
        amount = _amount(_number(stats.cpu_memory_usage), _number(stats.cpu_memory_total))
        grid.add_row(_MEMORY.pick(language()), _bar(stats.cpu_memory_percent), amount)
    for disk in _list(stats.disks):
        grid.add_row(*_disk(disk))
    title = Styled("K12AI", style="bold") + Styled(f" {server_url}", style="dim")
    clock = "" if stats.sampled_at is UNSET else stats.sampled_at.astimezone().strftime("%H:%M:%S")
    return Panel(grid, title=title, title_align="left", subtitle=clock, subtitle_align="right", box=box.ROUNDED)


def _disk(disk: Disk) -> tuple[RenderableType, RenderableType, RenderableType]:
    return Styled(printable(disk.path)), _bar(disk.disk_percent), _amount(disk.disk_usage, disk.disk_total)


def _gpus(gpus: Sequence[Gpu]) -> RenderableType:
    lines: list[RenderableType] = []
    for gpu in gpus:
        busy = Styled("–", style="dim") if gpu.gpu_percent is None else _bar(gpu.gpu_percent)
        warmth = "" if gpu.temperature is None else f"{gpu.temperature:.0f} °C"
        power = "" if gpu.power_watts is None else f"{gpu.power_watts:.0f} W"
        heading = Styled(f"{gpu.index} {printable(gpu.name)}", style="bold")
        lines.append(heading + Styled(f"  {warmth}  {power}".rstrip(), style="dim"))
        grid = Table.grid(padding=(0, 2))
        grid.add_row(Styled("  GPU"), busy)
        memory = _amount(gpu.gpu_memory_usage, gpu.gpu_memory_total)
        grid.add_row(Styled(f"  {_GPU_MEMORY.pick(language())}"), _bar(gpu.gpu_memory_percent), memory)
        lines += [grid, _holders(gpu)]
    return Panel(Group(*lines), title="GPU", title_align="left", box=box.ROUNDED)


def _holders(gpu: Gpu) -> RenderableType:
    """Return who holds the memory, and under what names the rest goes."""
    held = [
        f"{printable(each.user or each.id)} {size(each.gpu_memory_usage)}" for each in gpu.ledger.containers
    ]
    if gpu.ledger.unattributed:
        others = [
            f"{printable(each.name) or '?'} {each.pid}"
            for each in gpu.processes
            if not each.container and each.gpu_memory_usage
        ]
        names = f" ({', '.join(others)})" if others else ""
        held.append(f"{_UNATTRIBUTED.pick(language())} {size(gpu.ledger.unattributed)}{names}")
    return Styled("  " + " · ".join(held), style="dim")


def _containers(containers: Sequence[Container], *, stale: bool, on_gpus: bool) -> RenderableType:
    title = Styled(f"{_CONTAINERS.pick(language())} {len(containers)}")
    if stale:
        title.append(f" · {_STALE.pick(language())}", style="yellow")
    if not containers:
        body: RenderableType = Styled(_NO_CONTAINERS.pick(language()), style="dim")
    else:
        body = _container_table(containers, on_gpus=on_gpus)
    return Panel(body, title=title, title_align="left", box=box.ROUNDED, border_style="yellow" if stale else "")


def _container_table(containers: Sequence[Container], *, on_gpus: bool) -> Table:
    table = _table(*_COLUMNS, *([_GPU_COLUMN] if on_gpus else []), _AGE_COLUMN)
    for each in sorted(containers, key=lambda container: -container.cpu_percent):
        table.add_row(
            Styled(each.id, style="cyan"),
            *(Styled(printable(word)) for word in (each.service_name, each.op, each.user, each.service_uuid)),
            _coloured(each.cpu_percent, f"{each.cpu_percent:6.1f} %"),
            _coloured(each.cpu_memory_percent, size(each.cpu_memory_usage)),
            *([Styled(size(each.gpu_memory_usage))] if on_gpus else []),
            _age(each.started_at) if each.status == "running" else Styled(each.status, style="yellow"),
        )
    return table


def _users(users: Sequence[UserUsage], *, on_gpus: bool) -> RenderableType:
    table = _table(*_USER_COLUMNS, *([_GPU_COLUMN] if on_gpus else []))
    for each in sorted(users, key=lambda user: (-user.gpu_memory_usage, -user.cpu_percent)):
        table.add_row(
            Styled(printable(each.user)),
            Styled(str(each.containers)),
            Styled(f"{each.cpu_percent:6.1f} %"),
            Styled(size(each.cpu_memory_usage)),
            *([Styled(size(each.gpu_memory_usage))] if on_gpus else []),
        )
    title = f"{_USERS.pick(language())} {len(users)}"
    return Panel(table, title=title, title_align="left", box=box.ROUNDED)


def _table(*columns: tuple[Text, int]) -> Table:
    table = Table(box=None, header_style="dim", expand=True)
    for column, width in columns:
        # The words may be cut; the id is what one types, and figures cut short would lie.
        table.add_column(column.pick(language()), no_wrap=True, overflow="ellipsis", min_width=width)
    return table


def _bar(percent: float) -> Styled:
    eighths = round(max(0.0, min(100.0, percent)) / 100 * _BAR_WIDTH * 8)
    filled = "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")
    bar = Styled(filled.ljust(_BAR_WIDTH, "─"), style=_colour(percent))
    return bar + Styled(f" {percent:5.1f} %")


def _coloured(percent: float, words: str) -> Styled:
    return Styled(words, style=_colour(percent))


def _colour(percent: float) -> str:
    return "red" if percent >= 90 else "yellow" if percent >= 70 else "green"


def _amount(usage: float, total: float) -> Styled:
    return Styled(f"{size(usage)} / {size(total)}", style="dim")


def _age(started_at: str) -> Styled:
    try:
        # Nine decimals are more than datetime reads.
        started = datetime.datetime.fromisoformat(started_at[:19] + "+00:00")
    except ValueError:
        return Styled("")
    seconds = max(0, int((datetime.datetime.now(datetime.UTC) - started).total_seconds()))
    hours, minutes = seconds // 3600, seconds // 60 % 60
    if hours >= 24:
        return Styled(f"{hours // 24}d {hours % 24}h")
    return Styled(f"{hours}h {minutes:02}m" if hours else f"{minutes}m {seconds % 60:02}s")


def _list(value: list[T] | UnsetType) -> list[T]:
    return [] if value is UNSET else value


def _number(value: float | UnsetType) -> float:
    return 0 if value is UNSET else value

"""A progress bar for a task, in a terminal and in a notebook: what it reports, and nothing made up."""

from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from k12ai.task import Message, Task

_MOST_FIGURES = 3
_CURVE_WIDTH = 16
_LEVELS = "▁▂▃▄▅▆▇█"


def show_progress(task: Task, messages: Iterable[Message], console: Console | None = None) -> Iterator[Message]:
    """Pass on the messages, drawing what they say of how far the task is, and the curve of its figures."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[share]}", markup=False),
        TextColumn("{task.fields[figures]}", style="cyan", markup=False),
        TimeElapsedColumn(),
    )
    figures = Figures()
    with Progress(*columns, console=console) as bar:
        picture = _Picture(bar, f"{task.framework} {task.op}", task.state)
        for message in messages:
            if message.type == "metrics" and isinstance(message.body, dict):
                figures.add(message.body)
                picture.update(figures=str(figures))
            elif message.type == "status" and isinstance(message.body, dict):
                picture.show_status(message.body)
            yield message


class Figures:
    """The latest figures that a task has reported, each with its curve."""

    def __init__(self) -> None:
        self._curves: dict[str, list[float]] = {}

    def add(self, body: dict[str, Any]) -> None:
        """Take what was reported; a step is where on the curve it is, not a figure."""
        for name, value in body.items():
            if name != "step" and isinstance(value, (int, float)) and not isinstance(value, bool):
                self._curves.setdefault(name, []).append(float(value))

    def __str__(self) -> str:
        shown = list(self._curves.items())[:_MOST_FIGURES]
        return "  ".join(f"{name} {curve[-1]:.4g} {sparkline(curve)}".rstrip() for name, curve in shown)


def sparkline(values: list[float]) -> str:
    """Return a curve in one line of text; nothing for a single point."""
    if len(values) < 2:
        return ""
    step = max(1.0, len(values) / _CURVE_WIDTH)
    points = [values[min(len(values) - 1, int(step * place))] for place in range(int(len(values) / step))]
    points[-1] = values[-1]
    low, high = min(points), max(points)
    spread = (high - low) or 1.0
    return "".join(_LEVELS[round((point - low) / spread * (len(_LEVELS) - 1))] for point in points)


class _Picture:
    """One row of the bar."""

    def __init__(self, bar: Progress, title: str, state: str) -> None:
        self._bar = bar
        self._title = title
        self._row = bar.add_task(f"{title} {state}", total=None, share="", figures="")

    def update(self, **fields: Any) -> None:
        self._bar.update(self._row, **fields)

    def show_status(self, body: dict[str, Any]) -> None:
        if isinstance(progress := body.get("progress"), dict):
            self._show_progress(progress)
        elif body.get("text"):
            self.update(description=f"{self._title} {body['text']}")
        else:
            self._show_state(str(body.get("value")), body.get("reason"))

    def _show_progress(self, progress: dict[str, Any]) -> None:
        done, total = progress.get("done"), progress.get("total")
        known = isinstance(done, (int, float)) and isinstance(total, (int, float)) and total > 0
        self.update(
            description=f"{self._title} {progress.get('phase') or ''}".strip(),
            completed=done if known else 0,
            total=total if known else None,
            share=f"{done}/{total}" if known else "",
        )

    def _show_state(self, state: str, reason: object) -> None:
        words = f"{state} ({reason})" if reason and state != "succeeded" else state
        self.update(description=f"{self._title} {words}")
        if state in ("succeeded", "failed", "stopped"):
            self.update(completed=1, total=1, share="")

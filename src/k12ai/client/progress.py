"""A progress bar for a task, in a terminal and in a notebook: what it reports, and nothing made up."""

from collections.abc import Iterable, Iterator
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from k12ai.task import Message, Task
from k12ai.texts import printable

_MOST_FIGURES = 3
_CURVE_WIDTH = 16
_LEVELS = "▁▂▃▄▅▆▇█"


def show_progress(
    task: Task, told: Iterable[Message | Task], console: Console | None = None
) -> Iterator[Message | Task]:
    """Pass on what is told, drawing how far the task is and the curve of its figures.

    That is its messages and, while it waits for its turn, the task itself.
    """
    console = console or Console()
    title = f"{task.framework} {task.op}"
    with _NotebookRow() if console.is_jupyter else _TerminalRow(console) as row:
        state = _State(title, task.state)
        row.draw(state)
        for each in told:
            if isinstance(each, Task):
                state.take_standing(each)
                row.draw(state)
            elif isinstance(each.body, dict) and state.take(each.type, each.body):
                row.draw(state)
            yield each


class _State:
    """What there is to draw; ``total`` is None where the task does not know how far it has to go."""

    def __init__(self, title: str, state: str) -> None:
        self._title = title
        self.description = f"{title} {state}"
        self.done: float = 0
        self.total: float | None = None
        self.share = ""
        self.figures = Figures()

    def take(self, kind: str, body: dict[str, Any]) -> bool:
        """Take a message in, and say whether it changes the picture."""
        if kind == "metrics":
            self.figures.add(body)
        elif kind != "status":
            return False
        elif isinstance(progress := body.get("progress"), dict):
            self._take_progress(progress)
        elif body.get("text"):
            self.description = f"{self._title} {body['text']}"
        else:
            self._take_state(str(body.get("value")), body.get("reason"))
        return True

    def take_standing(self, task: Task) -> None:
        """Take in where a task stands that waits."""
        self.description = f"{self._title} {' '.join((task.state, standing(task))).strip()}"

    def _take_progress(self, progress: dict[str, Any]) -> None:
        done, total = progress.get("done"), progress.get("total")
        known = isinstance(done, (int, float)) and isinstance(total, (int, float)) and total > 0
        self.description = f"{self._title} {progress.get('phase') or ''}".strip()
        self.done, self.total = (done, total) if known else (0, None)  # type: ignore[assignment]
        self.share = f"{done:g}/{total:g}" if known else ""

    def _take_state(self, state: str, reason: object) -> None:
        words = f"{state} ({reason})" if reason and state != "succeeded" else state
        self.description = f"{self._title} {words}"
        if state in ("succeeded", "failed", "stopped"):
            self.done, self.total, self.share = 1, 1, ""


def standing(task: Task) -> str:
    """Return what a task waits for, its place in the queue and how long it should take, as far as known."""
    words = [f"({task.reason})"] if task.reason else []
    if task.position is not None:
        words.append(f"#{task.position}")
    if task.expected_wait_s is not None:
        words.append(f"~{_duration(task.expected_wait_s)}")
    return " ".join(words)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class _TerminalRow:
    """A row of Rich's progress display."""

    def __init__(self, console: Console) -> None:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[share]}", markup=False),
            TextColumn("{task.fields[figures]}", style="cyan", markup=False),
            TimeElapsedColumn(),
        )
        self._bar = Progress(*columns, console=console)
        self._row = self._bar.add_task("", total=None, share="", figures="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def draw(self, state: _State) -> None:
        self._bar.update(
            self._row,
            description=printable(state.description),
            completed=state.done,
            total=state.total,
            share=state.share,
            figures=printable(str(state.figures)),
        )


class _NotebookRow:
    """One output of a notebook's cell, drawn again and again; no widgets have to be installed."""

    def __init__(self) -> None:
        self._shown: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def draw(self, state: _State) -> None:
        import IPython.display

        notebook: Any = IPython.display
        filled = round(20 * state.done / state.total) if state.total else 0
        bar = "█" * min(20, filled) + "─" * (20 - min(20, filled))
        picture = notebook.Pretty(f"{state.description}  {bar}  {state.share}  {state.figures}".rstrip())
        if self._shown is None:
            self._shown = notebook.display(picture, display_id=True)
        else:
            self._shown.update(picture)


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

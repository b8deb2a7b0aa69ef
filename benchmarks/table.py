"""The one table that is printed, and the same rows as JSON."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.table import Table

WIDTH = 170  # where the output is a file: rows must not be folded

Unit = Literal["s", "bytes", "1/s", "cores", "calls", "errors", "share"]


class Quantity(Struct, frozen=True):
    """A measured number in a base unit; ``str`` shows it in the unit people think in."""

    value: float
    unit: Unit

    def __str__(self) -> str:
        match self.unit:
            case "s":
                return _duration(self.value)
            case "bytes":
                return (
                    f"{self.value / 2**20:.2f} MiB" if self.value >= 2**20 else f"{self.value / 2**10:.1f} KiB"
                )
            case "1/s":
                return f"{self.value:,.0f} /s"
            case "cores":
                return f"{self.value:.3%} of a core"
            case "share":
                return f"{self.value:.1%}"
            case "calls" | "errors":
                return f"{self.value:,.0f} {self.unit}"


class Row(Struct, frozen=True):
    """One line of the table.

    ``floor`` is the best that could be had for this figure, ``peer`` what it is compared with,
    ``ratio`` the figure in units of the peer. ``met`` is None where there is no bar or no figure.
    """

    row: str
    figure: Quantity | None
    floor: Quantity | None = None
    peer: Quantity | None = None
    bar: str = ""
    met: bool | None = None
    skipped: str = ""
    ratio: float | None = None

    @classmethod
    def compared(
        cls, row: str, figure: Quantity, peer: Quantity, *, bar: tuple[str, bool], floor: Quantity | None = None
    ) -> Self:
        """Return a row whose figure stands against a peer's of the same run."""
        return cls(row, figure, floor, peer, bar[0], bar[1], ratio=figure.value / peer.value)

    @classmethod
    def of_rounds(
        cls,
        row: str,
        unit: Unit,
        ours: Sequence[float],
        peer: Sequence[float],
        *,
        floor: Sequence[float] | None = None,
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> Self:
        """Return a row of medians, of rounds in which all were measured in turns."""
        # Both sides of a ratio come from the same round: a mood that lasts for some rounds cancels out.
        ratio = statistics.median(one / other for one, other in zip(ours, peer, strict=True))
        bar, met = "", None
        if at_least is not None:
            bar, met = f">= {at_least:.2f}", ratio >= at_least
        elif at_most is not None:
            bar, met = f"<= {at_most:.2f}", ratio <= at_most
        return cls(
            row,
            Quantity(statistics.median(ours), unit),
            None if floor is None else Quantity(statistics.median(floor), unit),
            Quantity(statistics.median(peer), unit),
            bar,
            met,
            ratio=ratio,
        )


def show(rows: Sequence[Row], console: Console) -> None:
    """Print the table."""
    table = Table(title="K12AI and its peers, measured in one run", title_justify="left")
    for name in ("row", "figure", "floor", "peer", "ratio", "bar", "met?"):
        table.add_column(name, justify="left" if name in ("row", "bar") else "right", overflow="fold")
    for each in rows:
        if each.skipped:
            table.add_row(each.row, f"skipped: {each.skipped}", style="dim")
            continue
        cells = [str(cell) if cell is not None else "" for cell in (each.figure, each.floor, each.peer)]
        table.add_row(each.row, *cells, _ratio(each.ratio), each.bar, _met(each.met))
    console.print(table)


def write_json(rows: Sequence[Row], file: Path) -> None:
    """Write the rows in base units, for programs."""
    file.write_bytes(msgspec.json.format(msgspec.json.encode(rows)) + b"\n")


def _duration(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.2f} s"
    if seconds >= 1e-3:
        return f"{seconds * 1e3:.2f} ms"
    return f"{seconds * 1e6:.0f} µs"


def _ratio(ratio: float | None) -> str:
    if ratio is None:
        return ""
    return f"1/{1 / ratio:,.0f}" if 0 < ratio < 0.1 else f"{ratio:.2f}"


def _met(met: bool | None) -> str:
    return "" if met is None else "[green]yes[/]" if met else "[bold red]NO[/]"

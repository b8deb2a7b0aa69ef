"""Figures of process trees from ``/proc``, for tasks that have no cgroup (proc(5), ``/proc/pid/stat``).

What a shim started stays below it, because orphans come back to it (prctl(2), PR_SET_CHILD_SUBREAPER).
"""

import os
import time
from collections.abc import Iterable
from typing import NamedTuple

from k12ai.runtimes.cgroups import Usage

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class _Stat(NamedTuple):
    parent: int
    own_ticks: int
    children_ticks: int  # of children that were waited for
    resident_bytes: int
    started: int


def usage_below(shims: Iterable[int]) -> dict[int, Usage]:
    """Return what the processes below each shim use together; shims that are gone are left out."""
    stats = dict(_all())
    children: dict[int, list[int]] = {}
    for pid, stat in stats.items():
        children.setdefault(stat.parent, []).append(pid)
    at_ns = time.monotonic_ns()
    return {shim: _sum(shim, stats, children, at_ns) for shim in shims if shim in stats}


def start_of(pid: int) -> int | None:
    """Return when a process started, in ticks since boot; None where there is none of this number."""
    stat = _stat(pid)
    return None if stat is None else stat.started


def ancestors(pid: int) -> Iterable[int]:
    """Yield a process and those it comes from, up to the first."""
    while pid > 1 and (stat := _stat(pid)) is not None:
        yield pid
        pid = stat.parent


def _sum(shim: int, stats: dict[int, _Stat], children: dict[int, list[int]], at_ns: int) -> Usage:
    ticks, resident = stats[shim].children_ticks, 0
    left = list(children.get(shim, ()))
    while left:
        pid = left.pop()
        stat = stats[pid]
        ticks += stat.own_ticks + stat.children_ticks
        resident += stat.resident_bytes
        left += children.get(pid, ())
    return Usage(at_ns, ticks * _TICK_NS, resident, None)


def _all() -> Iterable[tuple[int, _Stat]]:
    for name in os.listdir("/proc"):
        if name.isdigit() and (stat := _stat(int(name))) is not None:
            yield int(name), stat


def _stat(pid: int) -> _Stat | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            content = file.read()
    except OSError:
        return None
    # The name may hold anything, also brackets and blanks; the fields begin after its last bracket.
    fields = content[content.rfind(b")") + 2 :].split()
    return _Stat(
        parent=int(fields[1]),
        own_ticks=int(fields[11]) + int(fields[12]),
        children_ticks=int(fields[13]) + int(fields[14]),
        resident_bytes=int(fields[21]) * _PAGE_BYTES,
        started=int(fields[19]),
    )

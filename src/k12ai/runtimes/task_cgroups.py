"""Cgroups of the process runtime's own tasks, where this account may make them.

One group a task below ``k12ai`` in the hierarchy: version 1 in the controllers memory, pids and
cpuacct, version 2 in the one tree. Without them there are resource limits of the process and figures
from ``/proc``.
"""

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from k12ai.runtimes.cgroups import CgroupReader, Cgroups, CgroupUnreachable, version_1_reader, version_2_reader
from k12ai.runtimes.walls import Wall
from k12ai.task import Limits
from k12ai.texts import Text

_NAME = "k12ai"
_VERSION_1 = ("memory", "pids", "cpuacct")
_VERSION_1_AS_WELL = ("cpu",)  # nice to have
_CPU_PERIOD_US = 100_000


class TaskCgroups:
    """Makes, limits, reads and removes the groups of tasks; does nothing where none can be made."""

    def __init__(self, cgroups: Cgroups | None = None) -> None:
        self._bases, self._version_2, why = _bases(cgroups or Cgroups())
        self.wall = Wall(
            Text("kernel limits (cgroups)", "内核限制（cgroup）"),
            bool(self._bases),
            why or Text("", ""),
        )

    def create(self, task_id: str, limits: Limits) -> list[str]:
        """Make a task's group with its limits; return the files that its first process enters it by."""
        entries = []
        for controller, base in self._bases.items():
            group = base / task_id
            group.mkdir(exist_ok=True)
            for name, value in self._limits(controller, limits):
                with contextlib.suppress(OSError):  # swap is not accounted for everywhere
                    (group / name).write_text(f"{value}\n")
            entries.append(str(group / "cgroup.procs"))
        return entries

    def reader(self, task_id: str) -> CgroupReader:
        """Return the reader of a task's counters; raise `CgroupUnreachable` where there is no group."""
        if not self._bases:
            raise CgroupUnreachable("no cgroups for tasks")
        if self._version_2:
            return version_2_reader(str(self._bases[""] / task_id))
        return version_1_reader(
            memory=str(self._bases["memory"] / task_id), cpu=str(self._bases["cpuacct"] / task_id)
        )

    def kill(self, task_id: str) -> None:
        """Kill whatever is still in a task's group; what has no group was ended by its shim."""
        for base in self._bases.values():
            with contextlib.suppress(OSError):
                for pid in (base / task_id / "cgroup.procs").read_text().split():
                    os.kill(int(pid), 9)

    def remove(self, task_id: str) -> None:
        """Remove a task's group; one that is not empty yet stays until the next time."""
        for base in self._bases.values():
            with contextlib.suppress(OSError):
                (base / task_id).rmdir()

    def _limits(self, controller: str, limits: Limits) -> Sequence[tuple[str, object]]:
        memory, processes = limits.memory_bytes, limits.processes
        rows: list[tuple[str, object | None]] = []
        if controller in ("memory", "") and memory is not None:
            rows += (
                [("memory.max", memory), ("memory.swap.max", 0)]
                if self._version_2
                else [("memory.limit_in_bytes", memory), ("memory.memsw.limit_in_bytes", memory)]
            )
        if controller in ("pids", ""):
            rows.append(("pids.max", processes))
        if controller in ("cpu", "") and limits.cpus is not None:
            quota = round(limits.cpus * _CPU_PERIOD_US)
            rows.append(
                ("cpu.max", f"{quota} {_CPU_PERIOD_US}") if self._version_2 else ("cpu.cfs_quota_us", quota)
            )
        return [(name, value) for name, value in rows if value is not None]


def _bases(cgroups: Cgroups) -> tuple[Mapping[str, Path], bool, Text | None]:
    """Return the directory for tasks by controller, whether it is version 2, and why there is none."""
    try:
        points = cgroups.mount_points()
    except CgroupUnreachable as error:
        return {}, False, Text(str(error), str(error))
    version_2 = not all(name in points for name in _VERSION_1)
    wanted = [""] if version_2 else list(_VERSION_1)
    bases = {}
    try:
        for controller in wanted:
            bases[controller] = _base(Path(points[controller]), version_2=version_2)
    except (OSError, KeyError) as error:
        return {}, version_2, Text(f"they cannot be made here ({error})", f"此处无法创建（{error}）")
    for controller in () if version_2 else _VERSION_1_AS_WELL:
        with contextlib.suppress(OSError, KeyError):
            bases[controller] = _base(Path(points[controller]), version_2=False)
    return bases, version_2, None


def _base(mount_point: Path, *, version_2: bool) -> Path:
    """Return the directory for the groups of tasks; raise OSError where none can be made in it."""
    base = mount_point / _NAME
    base.mkdir(exist_ok=True)
    if version_2:
        for directory in (base.parent, base):
            (directory / "cgroup.subtree_control").write_text("+memory +pids\n")
            with contextlib.suppress(OSError):  # not delegated to every account
                (directory / "cgroup.subtree_control").write_text("+cpu\n")
    # It may be there already, made by another account: only a group in it tells.
    probe = base / f"probe-{os.getpid()}"
    probe.mkdir()
    probe.rmdir()
    return base

"""What the kernel has counted for a container: cgroup files, version 1 and version 2.

Reading them takes microseconds where asking the Engine takes a second. The files are found through
``/proc/<pid>/cgroup`` of the container's first process, so that it does not matter which cgroup
driver or parent the Engine was set up with (cgroups(7), and the kernel's admin-guide, "cgroup-v1"
and "cgroup-v2").
"""

import os
import time
from pathlib import Path
from typing import NamedTuple, Protocol

_NO_LIMIT_BYTES = 1 << 62  # cgroup v1 writes a number near 2^63 where there is no limit


class CgroupUnreachable(Exception):
    """The container's cgroup files cannot be found or read from here."""


class Usage(NamedTuple):
    """What one container has used, up to ``at_ns`` on the monotonic clock.

    ``memory_bytes`` leaves out the page cache that can be dropped, as the Docker CLI does.
    ``memory_limit_bytes`` is None where there is no limit. ``since``, where it is not None, is an
    earlier ``(at_ns, cpu_ns)`` that came with this reading; otherwise the reader keeps its own.
    """

    at_ns: int
    cpu_ns: int
    memory_bytes: int
    memory_limit_bytes: int | None
    since: tuple[int, int] | None = None


class CgroupReader(Protocol):
    """Reads one container's counters."""

    def read(self) -> Usage:
        """Return the counters now; raise `CgroupUnreachable` when the cgroup is gone."""


class _Mount(NamedTuple):
    root: str
    point: str
    controllers: frozenset[str]  # empty for the version 2 hierarchy


class Cgroups:
    """Finds containers' cgroups below ``root``, the file system's root outside of tests."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = str(root).rstrip("/")

    def reader(self, pid: int, container_id: str) -> CgroupReader:
        """Return a reader for the container with this first process.

        Raises `CgroupUnreachable` where the process is not visible from here, or is not this
        container's (a remote Engine's pids mean something else on this machine).
        """
        groups = self._groups_of(pid)
        mounts = self._mounts()
        if "memory" in groups:
            memory = self._directory(groups, mounts, "memory", container_id)
            cpu = self._directory(groups, mounts, "cpuacct", container_id)
            return _Version1(memory, cpu)
        return _Version2(self._directory(groups, mounts, "", container_id))

    def _groups_of(self, pid: int) -> dict[str, str]:
        try:
            lines = Path(f"{self._root}/proc/{pid}/cgroup").read_text().splitlines()
        except OSError as error:
            raise CgroupUnreachable(str(error)) from None
        groups = {}
        for line in lines:
            _, controllers, path = line.split(":", 2)
            for controller in controllers.split(","):
                groups[controller] = path
        return groups

    def _mounts(self) -> list[_Mount]:
        mounts = []
        for line in Path(f"{self._root}/proc/self/mountinfo").read_text().splitlines():
            # "36 35 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"
            place, _, source = line.partition(" - ")
            fields, kind = place.split(), source.split()
            if kind[0] == "cgroup2":
                mounts.append(_Mount(fields[3], fields[4], frozenset()))
            elif kind[0] == "cgroup":
                mounts.append(_Mount(fields[3], fields[4], frozenset(kind[2].split(","))))
        return mounts

    def _directory(
        self, groups: dict[str, str], mounts: list[_Mount], controller: str, container_id: str
    ) -> str:
        path = groups.get(controller)
        if path is None or container_id not in path:
            raise CgroupUnreachable(f"process does not belong to container {container_id[:12]}")
        for mount in mounts:
            if (controller in mount.controllers) if controller else not mount.controllers:
                inside = path.removeprefix(mount.root.rstrip("/"))
                return f"{self._root}{mount.point}{inside}"
        raise CgroupUnreachable(f"no cgroup mount for {controller or 'version 2'}")


class _Version1:
    def __init__(self, memory: str, cpu: str) -> None:
        self._cpu = f"{cpu}/cpuacct.usage"
        self._usage = f"{memory}/memory.usage_in_bytes"
        self._stat = f"{memory}/memory.stat"
        self._limit = f"{memory}/memory.limit_in_bytes"

    def read(self) -> Usage:
        cpu_ns = int(_read(self._cpu))
        at_ns = time.monotonic_ns()
        limit = int(_read(self._limit))
        return Usage(
            at_ns,
            cpu_ns,
            max(0, int(_read(self._usage)) - _field(_read(self._stat), b"total_inactive_file ")),
            None if limit >= _NO_LIMIT_BYTES else limit,
        )


class _Version2:
    def __init__(self, directory: str) -> None:
        self._cpu = f"{directory}/cpu.stat"
        self._usage = f"{directory}/memory.current"
        self._stat = f"{directory}/memory.stat"
        self._limit = f"{directory}/memory.max"

    def read(self) -> Usage:
        cpu_ns = _field(_read(self._cpu), b"usage_usec ") * 1000
        at_ns = time.monotonic_ns()
        limit = _read(self._limit).strip()
        return Usage(
            at_ns,
            cpu_ns,
            max(0, int(_read(self._usage)) - _field(_read(self._stat), b"inactive_file ")),
            None if limit == b"max" else int(limit),
        )


def _read(path: str) -> bytes:
    # os.open and os.read: a third of the time of open().read(), a hundred times a second.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(descriptor, 65536)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise CgroupUnreachable(str(error)) from None


def _field(content: bytes, name: bytes) -> int:
    # The name must start a line: "inactive_file " also ends "total_inactive_file ".
    start = 0 if content.startswith(name) else content.find(b"\n" + name) + 1
    if start == 0 and not content.startswith(name):
        raise CgroupUnreachable(f"no {name.decode().strip()} in the statistics")
    end = content.find(b"\n", start)
    return int(content[start + len(name) : end if end >= 0 else None])

"""What the kernel has counted for a container: cgroup files, version 1 and version 2.

Reading them takes microseconds where asking the Engine takes a second. The files are found through
``/proc/<pid>/cgroup`` of the container's first process, so that it does not matter which cgroup
driver or parent the Engine was set up with (cgroups(7), and the kernel's admin-guide, "cgroup-v1"
and "cgroup-v2").
"""

import os
import re
import threading
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import NamedTuple

_READS_PER_LIMIT = 10
_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
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


class CgroupReader(ABC):
    """Reads one container's counters. Used by one thread at a time."""

    @abstractmethod
    def read(self) -> Usage:
        """Return the counters now; raise `CgroupUnreachable` when the cgroup is gone."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the files; the reader cannot be used again."""


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

    def container_ids(self, pid: int) -> list[str]:
        """Return the ids of the containers that a process is in, the innermost first; none if it is gone."""
        try:
            groups = self._groups_of(pid)
        except CgroupUnreachable:
            return []
        # In the order of nesting, whichever hierarchy they are found in.
        return list(dict.fromkeys(each for path in groups.values() for each in reversed(_ID.findall(path))))

    def mount_points(self) -> dict[str, str]:
        """Return where each controller is mounted as a whole; version 2 is the empty name."""
        found = {}
        for mount in self._mounts():
            for controller in mount.controllers or ("",):
                found[controller] = f"{self._root}{mount.point}"
        return found

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
        try:
            lines = Path(f"{self._root}/proc/self/mountinfo").read_text().splitlines()
        except OSError as error:
            raise CgroupUnreachable(str(error)) from None
        mounts = []
        for line in lines:
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
        # The container is the segment with its id; its first process may sit in a group below.
        path, found, _ = groups.get(controller, "").partition(container_id)
        if not found:
            raise CgroupUnreachable(f"process does not belong to container {container_id[:12]}")
        rest = groups[controller][len(path) :].split("/", 1)[0]
        path += rest
        for mount in mounts:
            root = mount.root.rstrip("/")
            serves = (controller in mount.controllers) if controller else not mount.controllers
            if serves and path.startswith(root + "/"):
                return f"{self._root}{mount.point}{path.removeprefix(root)}"
        raise CgroupUnreachable(f"no cgroup mount for {controller or 'version 2'}")


class _Files(CgroupReader):
    """Keeps a container's files open: opening them takes three times as long as reading them.

    The limit, which hardly ever changes, is read every tenth time.
    """

    def __init__(self, cpu: str, usage: str, stat: str, limit: str) -> None:
        self._limit_path = limit
        self._limit = b""
        self._reads = 0
        self._descriptors: list[int] = []
        self._reading = threading.Lock()
        self._closed = False
        try:
            for path in (cpu, usage, stat):
                self._descriptors.append(_open(path))
        except CgroupUnreachable:
            self.close()
            raise

    def close(self) -> None:
        """See `CgroupReader.close`."""
        self._closed = True
        self._let_go()

    def _let_go(self) -> None:
        """Close the files of a closed reader; whoever reads them meanwhile does it behind the reading."""
        if self._closed and self._reading.acquire(blocking=False):
            try:
                while self._descriptors:
                    os.close(self._descriptors.pop())
            finally:
                self._reading.release()

    def read(self) -> Usage:
        """See `CgroupReader.read`."""
        try:
            with self._reading:
                return self._figures()
        finally:
            self._let_go()

    def _figures(self) -> Usage:
        if self._closed:
            raise CgroupUnreachable("its reader has been closed")
        cpu, usage, stat = self._descriptors
        cpu_ns = self._cpu_ns(_read(cpu))
        at_ns = time.monotonic_ns()
        if self._reads % _READS_PER_LIMIT == 0:
            self._limit = _read_once(self._limit_path)
        self._reads += 1
        memory = int(_read(usage)) - _field(_read(stat), self._cache_field)
        return Usage(at_ns, cpu_ns, max(0, memory), self._limit_bytes(self._limit))

    _cache_field: bytes

    def _cpu_ns(self, content: bytes) -> int:
        raise NotImplementedError

    def _limit_bytes(self, content: bytes) -> int | None:
        raise NotImplementedError


class _Version1(_Files):
    _cache_field = b"total_inactive_file "

    def __init__(self, memory: str, cpu: str) -> None:
        super().__init__(
            f"{cpu}/cpuacct.usage",
            f"{memory}/memory.usage_in_bytes",
            f"{memory}/memory.stat",
            f"{memory}/memory.limit_in_bytes",
        )

    def _cpu_ns(self, content: bytes) -> int:
        return int(content)

    def _limit_bytes(self, content: bytes) -> int | None:
        limit = int(content)
        return None if limit >= _NO_LIMIT_BYTES else limit


class _Version2(_Files):
    _cache_field = b"inactive_file "

    def __init__(self, directory: str) -> None:
        super().__init__(
            f"{directory}/cpu.stat",
            f"{directory}/memory.current",
            f"{directory}/memory.stat",
            f"{directory}/memory.max",
        )

    def _cpu_ns(self, content: bytes) -> int:
        return _field(content, b"usage_usec ") * 1000

    def _limit_bytes(self, content: bytes) -> int | None:
        return None if content.strip() == b"max" else int(content)


def version_1_reader(*, memory: str, cpu: str) -> CgroupReader:
    """Return the reader of a group by its directories in the two hierarchies."""
    return _Version1(memory, cpu)


def version_2_reader(directory: str) -> CgroupReader:
    """Return the reader of a group by its directory."""
    return _Version2(directory)


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise CgroupUnreachable(str(error)) from None


def _read(descriptor: int) -> bytes:
    try:
        return os.pread(descriptor, 65536, 0)
    except OSError as error:  # ENODEV: the cgroup is gone
        raise CgroupUnreachable(str(error)) from None


def _read_once(path: str) -> bytes:
    descriptor = _open(path)
    try:
        return _read(descriptor)
    finally:
        os.close(descriptor)


def _field(content: bytes, name: bytes) -> int:
    # The name must start a line: "inactive_file " also ends "total_inactive_file ".
    start = 0 if content.startswith(name) else content.find(b"\n" + name) + 1
    if start == 0 and not content.startswith(name):
        raise CgroupUnreachable(f"no {name.decode().strip()} in the statistics")
    end = content.find(b"\n", start)
    return int(content[start + len(name) : end if end >= 0 else None])

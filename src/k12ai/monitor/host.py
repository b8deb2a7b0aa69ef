"""The host's processors, memory and disks, through psutil."""

import os
import time
from typing import NamedTuple

import psutil

from k12ai.models import Cpus, Disk

# Remote file systems hold students' homes and belong in the picture; psutil counts them as virtual.
_REMOTE_TYPES = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "ceph", "lustre", "glusterfs", "beegfs", "fuse.sshfs"}
)
# Images that are always full by design.
_IMAGE_TYPES = frozenset({"squashfs", "iso9660", "erofs"})

_PARTITIONS_MAX_AGE_S = 30.0


class HostReading(NamedTuple):
    """Counters of every processor, in seconds since boot, and the memory at that moment."""

    busy_s: tuple[float, ...]
    total_s: tuple[float, ...]
    memory_total: int
    memory_usage: int
    memory_percent: float


def read_host() -> HostReading:
    """Read the counters now. Busy is all time but idle and waiting for disks, as psutil counts it."""
    busy, total = [], []
    for times in psutil.cpu_times(percpu=True):
        # Linux counts guests' time in user and nice already.
        everything = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        total.append(everything)
        busy.append(everything - times.idle - getattr(times, "iowait", 0.0))
    memory = psutil.virtual_memory()
    return HostReading(tuple(busy), tuple(total), memory.total, memory.used, memory.percent)


def cpus_between(before: HostReading, after: HostReading) -> Cpus:
    """Return how busy the processors were between two readings, and the memory at the second."""
    busy = [max(0.0, b - a) for a, b in zip(before.busy_s, after.busy_s, strict=False)]
    total = [max(0.0, b - a) for a, b in zip(before.total_s, after.total_s, strict=False)]
    return Cpus(
        cpu_percent=_percent(sum(busy), sum(total)),
        cpu_percent_list=[_percent(b, t) for b, t in zip(busy, total, strict=True)],
        cpu_memory_total=after.memory_total,
        cpu_memory_usage=after.memory_usage,
        cpu_memory_percent=after.memory_percent,
    )


def _percent(part: float, whole: float) -> float:
    # Counters move in ticks of 10 ms and can disagree by one.
    return round(min(100.0, 100.0 * part / whole), 1) if whole > 0 else 0.0


class Disks:
    """Reads every real file system once: not its bind mounts, not virtual ones, not images."""

    def __init__(self) -> None:
        self._paths: list[str] = []
        self._listed_at = float("-inf")

    def read(self) -> list[Disk]:
        """Return how full each file system is. Can hang on a dead network mount: run it in a `Worker`."""
        if time.monotonic() - self._listed_at > _PARTITIONS_MAX_AGE_S:
            self._paths, self._listed_at = _mount_points(), time.monotonic()
        disks = []
        for path in self._paths:
            try:
                usage = psutil.disk_usage(path)
            except OSError:
                continue  # unmounted since the list was read
            disks.append(Disk(path, usage.total, usage.used, usage.percent))
        return disks


def _mount_points() -> list[str]:
    physical = {partition.device for partition in psutil.disk_partitions(all=False)}
    shortest: dict[str, str] = {}
    for partition in psutil.disk_partitions(all=True):
        real = partition.device in physical or partition.fstype in _REMOTE_TYPES
        if partition.mountpoint == "/":
            real = True  # also where the root is an overlay, as inside a container
        if not real or partition.fstype in _IMAGE_TYPES or os.path.isfile(partition.mountpoint):
            continue  # a file is a bind mount, such as a container's /etc/hosts
        known = shortest.get(partition.device)
        if known is None or len(partition.mountpoint) < len(known):
            shortest[partition.device] = partition.mountpoint
    return sorted(shortest.values())

"""The figures of containers added up: by user, and for the whole machine."""

import socket
import time
from collections.abc import Iterable, Mapping, Sequence

import psutil

from k12ai._version import __version__
from k12ai.models import Container, Cpus, Gpu, Node, SourceHealth, UserUsage
from k12ai.runtimes.base import Condition
from k12ai.texts import Language


def users_of(containers: Iterable[Container]) -> list[UserUsage]:
    """Return what each user's containers use together, sorted by user."""
    by_user: dict[str, list[Container]] = {}
    for each in containers:
        by_user.setdefault(each.user, []).append(each)
    return [
        UserUsage(
            user=user,
            containers=len(theirs),
            cpu_percent=round(sum(each.cpu_percent for each in theirs), 2),
            cpu_memory_usage=sum(each.cpu_memory_usage for each in theirs),
            gpu_memory_usage=sum(each.gpu_memory_usage for each in theirs),
            gpu_percent=round(sum(each.gpu_percent for each in theirs), 1),
        )
        for user, theirs in sorted(by_user.items())
    ]


def node_of(
    cpus: Cpus, gpus: Sequence[Gpu], containers: int, conditions: Mapping[str, Condition], language: Language
) -> Node:
    """Return this machine in a few figures."""
    return Node(
        name=socket.gethostname(),
        version=__version__,
        uptime_seconds=round(_uptime_s()),
        cpu_count=len(cpus.cpu_percent_list),
        cpu_percent=cpus.cpu_percent,
        cpu_memory_total=cpus.cpu_memory_total,
        cpu_memory_usage=cpus.cpu_memory_usage,
        cpu_memory_percent=cpus.cpu_memory_percent,
        gpu_count=len(gpus),
        gpu_memory_total=sum(gpu.gpu_memory_total for gpu in gpus),
        gpu_memory_usage=sum(gpu.gpu_memory_usage for gpu in gpus),
        containers=containers,
        runtimes={
            name: SourceHealth(each.available, each.reason.pick(language) if each.reason else None)
            for name, each in conditions.items()
        },
    )


def _uptime_s() -> float:
    """Return how long the machine has been up; setting its clock changes nothing about that."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.time() - psutil.boot_time()

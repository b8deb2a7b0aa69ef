"""What the machine has for tasks and what they use of it, from what the monitor has measured."""

from collections.abc import Set

from k12ai.monitor.monitor import Monitor
from k12ai.monitor.snapshot import Snapshot
from k12ai.settings import Settings
from k12ai.tasks.admission import Device, Machine
from k12ai.tasks.queue import Measured, Used

GPU_LOOKS = 3


class Capacity:
    """What admission goes by, made once of each snapshot, however many tasks come meanwhile."""

    def __init__(self, monitor: Monitor, settings: Settings) -> None:
        self._monitor = monitor
        self._settings = settings
        self._snapshot: Snapshot | None = None

    def __call__(self) -> Measured:
        """Return what was measured last."""
        if self._snapshot is not self._monitor.latest:
            self._snapshot = self._monitor.latest
            self._measured = _measured(self._snapshot, self._settings)
        return self._measured


def _measured(snapshot: Snapshot, settings: Settings) -> Measured:
    """Return what there is and what is used. A GPU that is divided by MIG is given to nobody as a whole."""
    total = min(snapshot.cpus.cpu_memory_total, settings.tasks_memory_bytes or snapshot.cpus.cpu_memory_total)
    machine = Machine(
        places=settings.max_tasks,
        cpus=settings.tasks_cpus,
        memory_total_bytes=total,
        memory_free_bytes=snapshot.cpus.cpu_memory_total - snapshot.cpus.cpu_memory_usage,
        gpus=[
            Device(gpu.index, gpu.gpu_memory_total, gpu.gpu_memory_usage)
            for gpu in snapshot.gpus
            if not gpu.migs
        ],
        places_per_user=settings.max_tasks_per_user,
    )
    on_gpus: dict[str, dict[int, int]] = {}
    for gpu in snapshot.gpus:
        for holder in gpu.ledger.containers:
            on_gpus.setdefault(holder.id, {})[gpu.index] = holder.gpu_memory_usage
    used = {
        each.id: Used(each.cpu_memory_usage, on_gpus.get(each.id, {})) for each in snapshot.containers.values()
    }
    return Measured(machine, used)


class GpuHolders:
    """Tells whether what a task held of GPUs has been given back; see `k12ai.tasks.proof`."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    def pids(self, container_id: str) -> frozenset[int]:
        """See `GpuWitness.pids`."""
        rows = [process for gpu in self._monitor.latest.gpus for process in gpu.processes]
        return frozenset(process.pid for process in rows if process.container == container_id)

    async def memory_left_bytes(self, pids: Set[int]) -> int:
        """See `GpuWitness.memory_left_bytes`; the driver takes a moment to take back what a process had."""
        left = 0
        for _ in range(GPU_LOOKS if pids else 0):
            snapshot = await self._monitor.measure()
            rows = [process for gpu in snapshot.gpus for process in gpu.processes]
            left = sum(process.gpu_memory_usage or 0 for process in rows if process.pid in pids)
            if not left:
                break
        return left

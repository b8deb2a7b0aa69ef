"""What the machine has for tasks and what they use of it, from what the monitor has measured."""

from k12ai.monitor.snapshot import Snapshot
from k12ai.settings import Settings
from k12ai.tasks.admission import Device, Machine
from k12ai.tasks.queue import Measured, Used


def measured(snapshot: Snapshot, settings: Settings) -> Measured:
    """Return what admission goes by. A GPU that is divided by MIG is given to nobody as a whole."""
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

"""Whether a machine can ever give a task what it asks for: what it cannot is refused, not queued for ever."""

from k12ai.errors import InvalidValue
from k12ai.task import Limits
from k12ai.tasks.admission import Machine, gpus_wanted
from k12ai.texts import Text


def check_fits(limits: Limits, machine: Machine) -> None:
    """Raise `InvalidValue` for the first limit that asks for more than there is."""
    if limits.cpus is not None and limits.cpus > machine.cpus:
        raise _too_much("cpus", f"{machine.cpus:g}")
    if limits.memory_bytes is not None and limits.memory_bytes > machine.memory_total_bytes:
        raise _too_much("memory_bytes", str(machine.memory_total_bytes))
    if gpus_wanted(limits) > len(machine.gpus):
        raise _too_much("gpus", str(len(machine.gpus)))
    if limits.gpu_memory_bytes is not None:
        largest = max(device.total_bytes for device in machine.gpus) if machine.gpus else 0
        if limits.gpu_memory_bytes > largest:
            raise _too_much("gpu_memory_bytes", str(largest))


def _too_much(name: str, most: str) -> InvalidValue:
    return InvalidValue(
        f"limits.{name}",
        Text(f"at most {most}, which is what tasks can have here", f"不大于 {most}（这台机器能提供的上限）"),
    )

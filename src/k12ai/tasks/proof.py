"""What the manager asks for after a stop: the proof that nothing of the task is left on a GPU."""

from collections.abc import Set
from typing import Protocol


class GpuWitness(Protocol):
    """Somebody who sees which processes hold memory of GPUs."""

    def pids(self, container_id: str) -> frozenset[int]:
        """Return the processes of a container that are on a GPU, as last seen; never blocks."""

    async def memory_left_bytes(self, pids: Set[int]) -> int:
        """Return what these processes, which should have ended, still hold of GPUs; looked at anew."""

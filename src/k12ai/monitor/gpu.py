"""GPUs behind a probe: what the devices say, or a stated reason where they cannot be seen.

A probe reports and nothing else; `k12ai.monitor.ledger` works out who holds what.
"""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from msgspec import Struct

from k12ai.texts import Text


class ProcessSample(NamedTuple):
    """A process on a GPU. ``memory_bytes`` is None where the driver does not tell."""

    pid: int
    memory_bytes: int | None
    mig_uuid: str | None = None


class MigSample(NamedTuple):
    """A part of a GPU that MIG has set aside."""

    uuid: str
    name: str
    memory_total: int
    memory_usage: int


class GpuSample(Struct, frozen=True, kw_only=True):
    """One GPU at one moment; memory in bytes.

    ``percent``, ``temperature`` (°C) and ``power_watts`` are None where the device does not give
    them. ``processes`` is None where the driver does not tell them. ``shares`` is each process's
    share of the GPU's time, in percent, None where the device does not tell; a process that is not
    in it was idle. ``notes`` say why, where there is something to say.
    """

    index: int
    uuid: str
    name: str
    memory_total: int
    memory_usage: int
    percent: float | None = None
    temperature: float | None = None
    power_watts: float | None = None
    processes: tuple[ProcessSample, ...] | None = ()
    shares: Mapping[int, float] | None = None
    migs: tuple[MigSample, ...] = ()
    notes: tuple[Text, ...] = ()


class GpuReading(NamedTuple):
    """Every GPU that answered, and what is to be said about those that did not."""

    gpus: tuple[GpuSample, ...]
    notes: tuple[Text, ...] = ()

    @property
    def pids(self) -> set[int]:
        """The processes on any GPU."""
        return {process.pid for gpu in self.gpus for process in gpu.processes or ()}


class GpuProbe(Protocol):
    """Reads the GPUs of this machine."""

    def read(self) -> GpuReading:
        """Return the GPUs now. Never raises for a device's fault; can hang: run it in a `Worker`."""

    def close(self) -> None:
        """Let go of the driver."""


class NoGpu:
    """The probe of a machine whose GPUs cannot be seen, with the reason."""

    def __init__(self, reason: Text) -> None:
        self._reading = GpuReading((), (reason,))

    def read(self) -> GpuReading:
        """See `GpuProbe.read`."""
        return self._reading

    def close(self) -> None:
        """See `GpuProbe.close`."""

"""GPUs behind a probe: NVML where the NVIDIA driver answers, a stated reason where it does not."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar

from k12ai.models import Gpu
from k12ai.texts import Text

T = TypeVar("T")


class GpuReading(NamedTuple):
    """Every GPU that answered, and what is to be said about those that did not."""

    gpus: list[Gpu]
    notes: tuple[Text, ...] = ()


class GpuProbe(Protocol):
    """Reads the GPUs of this machine."""

    def read(self) -> GpuReading:
        """Return the GPUs now. Never raises for a device's fault; can hang: run it in a `Worker`."""

    def close(self) -> None:
        """Let go of the driver."""


class NoGpu:
    """The probe of a machine whose GPUs cannot be seen, with the reason."""

    def __init__(self, reason: Text) -> None:
        self._reading = GpuReading([], (reason,))

    def read(self) -> GpuReading:
        """See `GpuProbe.read`."""
        return self._reading

    def close(self) -> None:
        """See `GpuProbe.close`."""


class NvmlProbe:
    """NVIDIA GPUs through NVML; ``nvml`` is the module of ``nvidia-ml-py``, already initialised."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml

    def read(self) -> GpuReading:
        """See `GpuProbe.read`."""
        gpus, notes = [], []
        try:
            count = self._nvml.nvmlDeviceGetCount()
        except self._nvml.NVMLError as error:
            return GpuReading([], (_fault("gpus", error),))
        for index in range(count):
            try:
                gpus.append(self._gpu(index))
            except self._nvml.NVMLError as error:
                notes.append(_fault(f"gpu {index}", error))
        return GpuReading(gpus, tuple(notes))

    def close(self) -> None:
        """See `GpuProbe.close`."""
        self._nvml.nvmlShutdown()

    def _gpu(self, index: int) -> Gpu:
        nvml = self._nvml
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        rates = self._optional(lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
        milliwatts = self._optional(lambda: nvml.nvmlDeviceGetPowerUsage(handle))
        celsius = self._optional(lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))
        return Gpu(
            name=nvml.nvmlDeviceGetName(handle),
            gpu_percent=None if rates is None else float(rates.gpu),
            gpu_memory_total=memory.total,
            gpu_memory_usage=memory.used,
            gpu_memory_percent=round(100 * memory.used / memory.total, 2) if memory.total else 0.0,
            index=index,
            uuid=nvml.nvmlDeviceGetUUID(handle),
            temperature=None if celsius is None else float(celsius),
            power_watts=None if milliwatts is None else milliwatts / 1000,
        )

    def _optional(self, read: Callable[[], T]) -> T | None:
        """Return what the device says, or None for a figure that this model does not have."""
        try:
            return read()
        except self._nvml.NVMLError:
            return None


def open_gpu_probe() -> GpuProbe:
    """Return the probe for this machine."""
    try:
        import pynvml
    except ImportError:
        return NoGpu(Text("gpus: nvidia-ml-py is not installed", "gpus：未安装 nvidia-ml-py"))
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        if error.value == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND:
            return NoGpu(
                Text("gpus: no NVIDIA driver is installed on this machine", "gpus：本机没有安装 NVIDIA 驱动")
            )
        return NoGpu(_fault("gpus", error))
    return NvmlProbe(pynvml)


def _fault(what: str, error: Exception) -> Text:
    return Text(f"{what}: NVML says '{error}'", f"{what}：NVML 报告“{error}”")

"""NVIDIA GPUs through NVML, with its odd answers made plain.

The calls and their return codes are those of the "NVML API Reference Guide". A figure that a model
does not have, an idle GPU, a GPU that fell off the bus, one that is divided by MIG, an account that
may not look: each becomes a null or a note, never an exception and never an invented number.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from k12ai.monitor.gpu import GpuProbe, GpuReading, GpuSample, MigSample, NoGpu, ProcessSample
from k12ai.texts import Text

# The driver keeps a process's last few shares of the GPU; those older than this say nothing about now.
_RECENT_US = 1_500_000
# How often processes and memory are read until they can be of one moment.
_TRIES = 3

_DIVIDED = Text(
    "it is divided by MIG; the driver does not tell how busy the whole is",
    "已由 MIG 划分，驱动不提供整块 GPU 的使用率",
)


def open_gpu_probe() -> GpuProbe:
    """Return the probe for this machine."""
    try:
        import pynvml
    except ImportError:
        return NoGpu(Text("gpus: nvidia-ml-py is not installed", "gpus：未安装 nvidia-ml-py"))
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        words = _words(pynvml, error)
        return NoGpu(Text(f"gpus: {words.en}", f"gpus：{words.zh}"))
    return NvmlProbe(pynvml)


class _NotTold(Exception):
    """The driver does not say which processes are on a device."""

    def __init__(self, reason: Any) -> None:
        super().__init__(str(reason))
        self.reason = reason


class NvmlProbe:
    """NVIDIA GPUs through NVML; ``nvml`` is the module of ``nvidia-ml-py``, already initialised."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        self._names: dict[int, str] = {}  # what a GPU was called, for when it can no longer say so itself

    def read(self) -> GpuReading:
        """See `GpuProbe.read`."""
        gpus, notes = [], []
        try:
            count = self._nvml.nvmlDeviceGetCount()
        except self._nvml.NVMLError as error:
            return GpuReading((), (self._fault("gpus", error),))
        for index in range(count):
            try:
                gpus.append(self._gpu(index))
            except self._nvml.NVMLError as error:
                name = f"gpu {index} ({self._names[index]})" if index in self._names else f"gpu {index}"
                notes.append(self._fault(name, error))
        return GpuReading(tuple(gpus), tuple(notes))

    def close(self) -> None:
        """See `GpuProbe.close`."""
        self._nvml.nvmlShutdown()

    def _gpu(self, index: int) -> GpuSample:
        nvml = self._nvml
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        name = self._names[index] = nvml.nvmlDeviceGetName(handle)
        mig_handles = self._mig_handles(handle)
        notes: list[Text] = [_DIVIDED] if mig_handles else []
        migs = tuple(self._mig(each) for each in mig_handles)
        rates = self._optional(nvml.nvmlDeviceGetUtilizationRates, handle)
        milliwatts = self._optional(nvml.nvmlDeviceGetPowerUsage, handle)
        celsius = self._optional(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU)
        places: dict[str | None, Any] = {
            mig.uuid: each for mig, each in zip(migs, mig_handles, strict=True)
        } or {None: handle}
        processes, (total, used) = self._occupancy(handle, places, migs, notes)
        return GpuSample(
            index=index,
            uuid=nvml.nvmlDeviceGetUUID(handle),
            name=name,
            memory_total=total,
            memory_usage=used,
            percent=None if rates is None else float(rates.gpu),
            temperature=None if celsius is None else float(celsius),
            power_watts=None if milliwatts is None else milliwatts / 1000,
            processes=processes,
            shares=self._shares(handle) if processes else None,
            migs=migs,
            notes=tuple(Text(f"gpu {index}: {note.en}", f"gpu {index}：{note.zh}") for note in notes),
        )

    # --- memory ----------------------------------------------------------------------------------

    def _occupancy(
        self, handle: Any, places: Mapping[str | None, Any], migs: Sequence[MigSample], notes: list[Text]
    ) -> tuple[tuple[ProcessSample, ...] | None, tuple[int, int]]:
        """Return who is on the GPU, None where the driver does not tell, and its total and used memory."""
        try:
            for _ in range(_TRIES):
                # Processes before memory: what is taken in between is unattributed for a second, which
                # is true, where the opposite order would attribute more than there is.
                processes = self._processes(places)
                memory = self._memory_of(handle, migs)
                if sum(each.memory_bytes or 0 for each in processes) <= memory[1]:
                    break  # else one has ended between the two readings
            return processes, memory
        except _NotTold as error:
            words = _words(self._nvml, error.reason)
            notes.append(
                Text(f"who holds its memory is not known: {words.en}", f"无法得知显存由谁占用：{words.zh}")
            )
            return None, self._memory_of(handle, migs)

    def _memory_of(self, handle: Any, migs: Sequence[MigSample]) -> tuple[int, int]:
        try:
            return self._memory(handle)
        except self._nvml.NVMLError as error:
            # Of a divided GPU, the whole is for the administrator to see, the parts for everyone.
            if error.value != self._nvml.NVML_ERROR_NO_PERMISSION or not migs:
                raise
            return sum(mig.memory_total for mig in migs), sum(mig.memory_usage for mig in migs)

    def _memory(self, handle: Any) -> tuple[int, int]:
        """Return total and used; used is without what the driver keeps for itself, as nvidia-smi shows it."""
        nvml = self._nvml
        try:
            memory = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
        except nvml.NVMLError as error:
            if not self._unknown_function(error):
                raise
            memory = nvml.nvmlDeviceGetMemoryInfo(handle)  # drivers before 510
        return memory.total, memory.used

    # --- processes -------------------------------------------------------------------------------

    def _processes(self, places: Mapping[str | None, Any]) -> tuple[ProcessSample, ...]:
        """Return each process once, also where it computes and draws."""
        found: dict[tuple[int, str | None], ProcessSample] = {}
        for mig_uuid, place in places.items():
            try:
                rows = self._rows(place)
            except self._nvml.NVMLError as error:
                if error.value == self._nvml.NVML_ERROR_GPU_IS_LOST:
                    raise
                raise _NotTold(error) from None
            for row in rows:
                known = found.get((row.pid, mig_uuid))
                if known is None or (known.memory_bytes or 0) < (row.usedGpuMemory or 0):
                    found[row.pid, mig_uuid] = ProcessSample(row.pid, row.usedGpuMemory, mig_uuid)
        return tuple(found.values())

    def _rows(self, handle: Any) -> list[Any]:
        nvml = self._nvml
        rows: list[Any] = []
        try:
            rows += nvml.nvmlDeviceGetComputeRunningProcesses_v3(handle)
        except nvml.NVMLError as error:
            if not self._unknown_function(error):
                raise
            rows += nvml.nvmlDeviceGetComputeRunningProcesses_v2(handle)  # drivers before 510
        rows += self._optional(nvml.nvmlDeviceGetGraphicsRunningProcesses_v3, handle) or ()
        rows += self._optional(nvml.nvmlDeviceGetMPSComputeRunningProcesses_v3, handle) or ()
        return rows

    def _shares(self, handle: Any) -> dict[int, float] | None:
        """Return the recent share of the GPU's time by process, or None where the device does not tell."""
        nvml = self._nvml
        try:
            samples = nvml.nvmlDeviceGetProcessUtilization(handle, time.time_ns() // 1000 - _RECENT_US)
        except nvml.NVMLError as error:
            # An idle GPU has nothing to report: NOT_FOUND, or success without a sample, which the
            # library raises too.
            idle = error.value in (nvml.NVML_ERROR_NOT_FOUND, nvml.NVML_SUCCESS)
            return {} if idle else None
        shares: dict[int, list[int]] = {}
        for sample in samples:
            if sample.smUtil <= 100:  # a slot that was never filled holds anything
                shares.setdefault(sample.pid, []).append(sample.smUtil)
        return {pid: sum(each) / len(each) for pid, each in shares.items()}

    # --- MIG -------------------------------------------------------------------------------------

    def _mig_handles(self, handle: Any) -> list[Any]:
        """Return the devices that a GPU is divided into; none where it is not divided."""
        nvml = self._nvml
        mode = self._optional(nvml.nvmlDeviceGetMigMode, handle)
        if mode is None or mode[0] != nvml.NVML_DEVICE_MIG_ENABLE:
            return []
        found = (
            self._optional(nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, index)
            for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle))
        )
        return [each for each in found if each is not None]

    def _mig(self, handle: Any) -> MigSample:
        total, used = self._memory(handle)
        return MigSample(
            self._nvml.nvmlDeviceGetUUID(handle), self._nvml.nvmlDeviceGetName(handle), total, used
        )

    # --- answers ---------------------------------------------------------------------------------

    def _optional(self, read: Callable[..., Any], *arguments: Any) -> Any | None:
        """Return what the device says, or None for a figure that this model does not have.

        A device that is gone is no missing figure: that error goes on.
        """
        try:
            return read(*arguments)
        except self._nvml.NVMLError as error:
            if error.value == self._nvml.NVML_ERROR_GPU_IS_LOST:
                raise
            return None

    def _unknown_function(self, error: Any) -> bool:
        nvml = self._nvml
        return error.value in (nvml.NVML_ERROR_FUNCTION_NOT_FOUND, nvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH)

    def _fault(self, what: str, error: Any) -> Text:
        words = _words(self._nvml, error)
        return Text(f"{what}: {words.en}", f"{what}：{words.zh}")


def _words(nvml: Any, error: Any) -> Text:
    """Return what an error of NVML's means, in words that tell what to do where that is known."""
    known = {
        nvml.NVML_ERROR_LIBRARY_NOT_FOUND: Text(
            "no NVIDIA driver is installed on this machine", "本机没有安装 NVIDIA 驱动"
        ),
        nvml.NVML_ERROR_DRIVER_NOT_LOADED: Text(
            "the NVIDIA driver is installed but not loaded", "NVIDIA 驱动已安装但未加载"
        ),
        nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: Text(
            "the NVIDIA driver was updated; restart the machine", "NVIDIA 驱动已更新，请重启机器"
        ),
        nvml.NVML_ERROR_NO_PERMISSION: Text(
            "the driver refuses it to this account", "驱动拒绝了当前账户的访问"
        ),
        nvml.NVML_ERROR_GPU_IS_LOST: Text(
            "it fell off the bus; the machine has to be restarted", "GPU 已从总线掉线，需要重启机器"
        ),
        nvml.NVML_ERROR_RESET_REQUIRED: Text("it has to be reset", "GPU 需要复位"),
    }
    return known.get(error.value) or Text(f"NVML says '{error}'", f"NVML 报告“{error}”")

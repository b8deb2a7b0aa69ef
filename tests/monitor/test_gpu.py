"""GPUs, with a stand-in for the module of nvidia-ml-py."""

from types import SimpleNamespace
from typing import Any

import pytest

from k12ai.monitor.gpu import NoGpu, NvmlProbe, open_gpu_probe
from k12ai.texts import Text


class NvmlError(Exception):
    value = 999


def nvml(**changed: Any) -> Any:
    def not_supported(*_: Any) -> Any:
        raise NvmlError("Not Supported")

    functions = {
        "NVMLError": NvmlError,
        "NVML_TEMPERATURE_GPU": 0,
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetMemoryInfo": lambda _: SimpleNamespace(total=1000, used=250),
        "nvmlDeviceGetUtilizationRates": lambda _: SimpleNamespace(gpu=29),
        "nvmlDeviceGetPowerUsage": lambda _: 120_500,
        "nvmlDeviceGetTemperature": lambda *_: 61,
        "nvmlDeviceGetName": lambda _: "Tesla P40",
        "nvmlDeviceGetUUID": lambda _: "GPU-1",
        "nvmlShutdown": lambda: None,
    }
    return SimpleNamespace(**functions | dict.fromkeys(changed.pop("unsupported", ()), not_supported) | changed)


def test_memory_is_in_bytes_and_power_in_watts() -> None:
    (gpu,) = NvmlProbe(nvml()).read().gpus
    assert (gpu.name, gpu.gpu_percent, gpu.gpu_memory_total, gpu.gpu_memory_usage) == (
        "Tesla P40",
        29.0,
        1000,
        250,
    )
    assert (gpu.gpu_memory_percent, gpu.temperature, gpu.power_watts) == (25.0, 61.0, 120.5)


def test_a_figure_that_the_device_does_not_have_is_null() -> None:
    lacking = ("nvmlDeviceGetUtilizationRates", "nvmlDeviceGetPowerUsage", "nvmlDeviceGetTemperature")
    (gpu,) = NvmlProbe(nvml(unsupported=lacking)).read().gpus
    assert (gpu.gpu_percent, gpu.power_watts, gpu.temperature) == (None, None, None)


def test_a_gpu_that_fell_off_the_bus_is_named_and_the_others_are_shown() -> None:
    def handle(index: int) -> int:
        if index == 0:
            raise NvmlError("GPU is lost")
        return index

    gpus, notes = NvmlProbe(nvml(nvmlDeviceGetCount=lambda: 2, nvmlDeviceGetHandleByIndex=handle)).read()
    assert [gpu.index for gpu in gpus] == [1]
    assert [note.en for note in notes] == ["gpu 0: NVML says 'GPU is lost'"]


def test_no_gpu_is_an_empty_list_with_a_reason() -> None:
    gpus, notes = NoGpu(Text("gpus: none", "没有")).read()
    assert (gpus, notes[0].zh) == ([], "没有")


def test_a_missing_driver_is_a_reason_and_not_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    import pynvml

    def no_library() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", no_library)
    assert "no NVIDIA driver" in open_gpu_probe().read().notes[0].en


@pytest.mark.gpu
def test_the_real_gpus_answer() -> None:
    probe = open_gpu_probe()
    gpus, notes = probe.read()
    probe.close()
    assert gpus, notes
    assert all(gpu.gpu_memory_total > 1 << 30 for gpu in gpus)

"""The probe on NVML: the real nvidia-ml-py, loaded on a stand-in for the driver's library."""

import pytest

from k12ai.monitor.gpu import GpuReading, GpuSample, MigSample, NoGpu, ProcessSample
from k12ai.monitor.nvml import open_gpu_probe
from k12ai.texts import Text
from tests.support.nvml import (
    DRIVER_NOT_LOADED,
    FUNCTION_NOT_FOUND,
    GIB,
    GPU_IS_LOST,
    NO_PERMISSION,
    NOT_SUPPORTED,
    Scenario,
    StandinNvml,
)

pytestmark = pytest.mark.compiler

ONE = Scenario().gpu(used=6 * GIB, util=29)
TWO = ONE.gpu(name="NVIDIA A100-SXM4-40GB", total=40 * GIB, used=1 * GIB)


def only(reading: GpuReading) -> GpuSample:
    (gpu,) = reading.gpus
    assert reading.notes == ()
    return gpu


def english(texts: tuple[Text, ...]) -> list[str]:
    return [text.en for text in texts]


def test_memory_is_in_bytes_power_in_watts_and_heat_in_degrees(nvml: StandinNvml) -> None:
    gpu = only(nvml.read(ONE))
    assert (gpu.index, gpu.uuid, gpu.name) == (0, "GPU-0", "Tesla P40")
    assert (gpu.memory_total, gpu.memory_usage) == (24 * GIB, 6 * GIB)
    assert (gpu.percent, gpu.power_watts, gpu.temperature) == (29.0, 120.5, 61.0)


def test_a_figure_that_the_device_does_not_have_is_null(nvml: StandinNvml) -> None:
    gpu = only(nvml.read(Scenario().gpu(util=-1, milliwatts=-1, celsius=-1)))
    assert (gpu.percent, gpu.power_watts, gpu.temperature) == (None, None, None)


def test_gpus_come_in_the_drivers_order(nvml: StandinNvml) -> None:
    assert [(gpu.index, gpu.name) for gpu in nvml.read(TWO).gpus] == [
        (0, "Tesla P40"),
        (1, "NVIDIA A100-SXM4-40GB"),
    ]


def test_a_driver_without_the_newer_calls_is_asked_the_older_way(nvml: StandinNvml) -> None:
    """Drivers before 510 have neither the second version of memory nor the third one of processes."""
    old = ONE.process(4711, GIB)
    for call in (
        "nvmlDeviceGetMemoryInfo_v2",
        "nvmlDeviceGetComputeRunningProcesses_v3",
        "nvmlDeviceGetGraphicsRunningProcesses_v3",
        "nvmlDeviceGetMPSComputeRunningProcesses_v3",
    ):
        old = old.fail(call, FUNCTION_NOT_FOUND, gpu=0)
    gpu = only(nvml.read(old))
    assert gpu.memory_usage == 6 * GIB
    assert gpu.processes == (ProcessSample(4711, GIB),)


# --- processes --------------------------------------------------------------------------------


def test_a_process_that_computes_and_draws_is_counted_once(nvml: StandinNvml) -> None:
    both = ONE.process(11, GIB).process(11, GIB, kind="graphics").process(12, 2 * GIB, kind="mps")
    assert sorted(only(nvml.read(both)).processes or ()) == [ProcessSample(11, GIB), ProcessSample(12, 2 * GIB)]


def test_memory_that_the_driver_does_not_tell_is_null_and_not_a_huge_number(nvml: StandinNvml) -> None:
    assert only(nvml.read(ONE.process(11, -1))).processes == (ProcessSample(11, None),)


def test_many_processes_are_all_read(nvml: StandinNvml) -> None:
    crowded = ONE
    for pid in range(1000, 1100):
        crowded = crowded.process(pid, 1 << 20)
    assert {each.pid for each in only(nvml.read(crowded)).processes or ()} == set(range(1000, 1100))


def test_the_share_of_each_process_is_the_drivers(nvml: StandinNvml) -> None:
    assert only(nvml.read(ONE.process(11, GIB, util=40).process(12, GIB, util=7))).shares == {11: 40.0, 12: 7.0}


def test_nothing_found_on_an_idle_gpu_is_no_share_and_no_fault(nvml: StandinNvml) -> None:
    assert only(nvml.read(ONE.process(11, GIB))).shares == {}


def test_shares_that_the_device_does_not_tell_are_unknown(nvml: StandinNvml) -> None:
    silent = ONE.process(11, GIB, util=5).fail("nvmlDeviceGetProcessUtilization", NOT_SUPPORTED, gpu=0)
    assert only(nvml.read(silent)).shares is None


def test_a_driver_that_hides_the_processes_is_a_stated_reason(nvml: StandinNvml) -> None:
    refused = ONE.fail("nvmlDeviceGetComputeRunningProcesses_v3", NO_PERMISSION, gpu=0)
    gpu = only(nvml.read(refused))
    assert gpu.processes is None
    assert gpu.memory_usage == 6 * GIB
    assert english(gpu.notes) == [
        "gpu 0: who holds its memory is not known: the driver refuses it to this account"
    ]


# --- MIG --------------------------------------------------------------------------------------

DIVIDED = (
    Scenario()
    .gpu(name="NVIDIA A100", total=40 * GIB, used=7 * GIB, mig=True)
    .mig(0, "MIG-a", used=4 * GIB)
    .mig(0, "MIG-b", used=2 * GIB)
    .process(21, 4 * GIB, mig=0)
    .process(22, 2 * GIB, mig=1)
)


def test_a_divided_gpu_shows_its_parts_and_where_each_process_is(nvml: StandinNvml) -> None:
    gpu = only(nvml.read(DIVIDED))
    assert gpu.migs == (
        MigSample("MIG-a", "NVIDIA A100 MIG 0", 5 * GIB, 4 * GIB),
        MigSample("MIG-b", "NVIDIA A100 MIG 1", 5 * GIB, 2 * GIB),
    )
    assert sorted(gpu.processes or ()) == [
        ProcessSample(21, 4 * GIB, "MIG-a"),
        ProcessSample(22, 2 * GIB, "MIG-b"),
    ]
    assert (gpu.memory_usage, gpu.percent, gpu.shares) == (7 * GIB, None, None)
    assert english(gpu.notes) == ["gpu 0: it is divided by MIG; the driver does not tell how busy the whole is"]


def test_where_the_whole_of_a_divided_gpu_is_for_administrators_its_parts_are_added_up(
    nvml: StandinNvml,
) -> None:
    refused = DIVIDED.fail("nvmlDeviceGetMemoryInfo_v2", NO_PERMISSION, gpu=0)
    gpu = only(nvml.read(refused))
    assert (gpu.memory_total, gpu.memory_usage) == (10 * GIB, 6 * GIB)


# --- faults -----------------------------------------------------------------------------------


def test_a_gpu_that_fell_off_the_bus_is_named_and_the_others_are_shown(nvml: StandinNvml) -> None:
    gpus, notes = nvml.read(TWO.fail("*", GPU_IS_LOST, gpu=0))
    assert [gpu.index for gpu in gpus] == [1]
    assert english(notes) == ["gpu 0: it fell off the bus; the machine has to be restarted"]


@pytest.mark.parametrize(
    "call",
    [
        "nvmlDeviceGetUtilizationRates",
        "nvmlDeviceGetComputeRunningProcesses_v3",
        "nvmlDeviceGetMemoryInfo_v2",
        "nvmlDeviceGetMigMode",
    ],
)
def test_a_gpu_that_falls_off_while_it_is_read_is_not_shown_with_half_of_its_figures(
    nvml: StandinNvml, call: str
) -> None:
    gpus, notes = nvml.read(TWO.fail(call, GPU_IS_LOST, gpu=1))
    assert [gpu.index for gpu in gpus] == [0]
    assert english(notes) == [
        "gpu 1 (NVIDIA A100-SXM4-40GB): it fell off the bus; the machine has to be restarted"
    ]


def test_a_driver_that_is_not_loaded_is_a_reason_and_not_an_exception(nvml: StandinNvml) -> None:
    gpus, notes = nvml.read(Scenario().fail("nvmlInitWithFlags", DRIVER_NOT_LOADED))
    assert (gpus, english(notes)) == ((), ["gpus: the NVIDIA driver is installed but not loaded"])
    assert notes[0].zh == "gpus：NVIDIA 驱动已安装但未加载"


def test_a_driver_that_cannot_count_its_gpus_is_a_reason(nvml: StandinNvml) -> None:
    gpus, notes = nvml.read(ONE.fail("nvmlDeviceGetCount_v2", 999))
    assert (gpus, english(notes)) == ((), ["gpus: NVML says 'Unknown Error'"])


def test_a_missing_driver_is_a_reason_and_not_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    import pynvml

    def no_library() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", no_library)
    probe = open_gpu_probe()
    assert isinstance(probe, NoGpu)
    assert english(probe.read().notes) == ["gpus: no NVIDIA driver is installed on this machine"]

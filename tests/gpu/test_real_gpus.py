"""Real GPUs, against what nvidia-smi says of them (``make test-gpu``)."""

import csv
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.server import Server, strict

pytestmark = pytest.mark.gpu

MIB = 1 << 20
HELD = 512 * MIB
# nvidia-smi is asked a moment earlier or later, and rounds to whole MiB.
NEAR = 64 * MIB


def nvidia_smi(kind: str, *fields: str) -> list[dict[str, str]]:
    told = subprocess.run(
        ["nvidia-smi", f"--query-{kind}={','.join(fields)}", "--format=csv,noheader,nounits"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    rows = csv.reader(told.stdout.splitlines(), skipinitialspace=True)
    return [dict(zip(fields, row, strict=True)) for row in rows]


@pytest.fixture(name="machine")
def _machine(start_server: Callable[..., Server]) -> Server:
    return start_server("--sample-interval-s", "0.2")


@pytest.fixture(name="holder")
def _holder() -> Iterator["subprocess.Popen[str]"]:
    """A process that holds memory of the first GPU."""
    command = [sys.executable, "-m", "tests.gpu.cuda_holder", str(HELD)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def gpus(server: Server) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = strict(server.stats(service_params={"gpus": True}))["message"]["gpus"]
    return found


def test_every_gpu_is_what_nvidia_smi_says_it_is(machine: Server) -> None:
    told = nvidia_smi("gpu", "index", "uuid", "name", "memory.total", "memory.used")
    shown = gpus(machine)
    assert [(str(gpu["index"]), gpu["uuid"], gpu["name"]) for gpu in shown] == [
        (row["index"], row["uuid"], row["name"]) for row in told
    ]
    for gpu, row in zip(shown, told, strict=True):
        assert abs(gpu["gpu_memory_total"] - int(row["memory.total"]) * MIB) <= MIB
        assert abs(gpu["gpu_memory_usage"] - int(row["memory.used"]) * MIB) <= NEAR


def test_a_process_that_holds_memory_is_in_the_ledger(
    machine: Server, holder: "subprocess.Popen[str]", eventually: Callable[..., Any]
) -> None:
    def held() -> dict[str, Any] | None:
        (gpu, *_) = gpus(machine)
        return gpu if gpu["ledger"]["unattributed"] >= HELD else None

    gpu = eventually(held)
    attributed = sum(each["gpu_memory_usage"] for each in gpu["ledger"]["containers"])
    assert attributed + gpu["ledger"]["unattributed"] == gpu["gpu_memory_usage"]
    told = {int(row["pid"]): row["used_memory"] for row in nvidia_smi("compute-apps", "pid", "used_memory")}
    shown = {each["pid"]: each["gpu_memory_usage"] for each in gpu["processes"]}
    assert set(told) <= set(shown)
    for pid, used in told.items():
        if used.isdigit():  # the driver does not tell it everywhere
            assert shown[pid] is not None
            assert abs(shown[pid] - int(used) * MIB) <= NEAR

"""A stand-in for the NVIDIA driver, in C: the real nvidia-ml-py is loaded on it (see ``nvml_standin.c``)."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple, Self

import msgspec

from k12ai.monitor.gpu import GpuReading

SOURCE = Path(__file__).with_name("nvml_standin.c")
COMPILERS = ("cc", "gcc", "clang")
GIB = 1 << 30

NOT_SUPPORTED = 3
NO_PERMISSION = 4
DRIVER_NOT_LOADED = 9
FUNCTION_NOT_FOUND = 13
GPU_IS_LOST = 15

_READ = (
    "import sys, msgspec; from k12ai.monitor.nvml import open_gpu_probe; probe = open_gpu_probe(); "
    "sys.stdout.buffer.write(msgspec.json.encode(probe.read())); probe.close()"
)


class Scenario(NamedTuple):
    """What the stand-in answers; each method adds a line."""

    lines: tuple[str, ...] = ()

    def gpu(
        self,
        *,
        name: str = "Tesla P40",
        uuid: str = "",
        total: int = 24 * GIB,
        used: int = 0,
        util: int = 0,
        milliwatts: int = 120_500,
        celsius: int = 61,
        mig: bool = False,
    ) -> Self:
        uuid = uuid or f"GPU-{sum(line.startswith('gpu ') for line in self.lines)}"
        figures = f"{total} {used} {util} {milliwatts} {celsius} {int(mig)}"
        return self._and(f"gpu {name.replace(' ', '_')} {uuid} {figures}")

    def mig(self, gpu: int, uuid: str, *, total: int = 5 * GIB, used: int = 0) -> Self:
        return self._and(f"mig {gpu} {uuid} {total} {used}")

    def process(
        self, pid: int, memory: int, *, gpu: int = 0, mig: int = -1, kind: str = "compute", util: int = -1
    ) -> Self:
        return self._and(f"process {gpu} {mig} {kind} {pid} {memory} {util}")

    def fail(self, call: str, code: int, *, gpu: int = -1) -> Self:
        return self._and(f"fail {gpu} {call} {code}")

    def _and(self, line: str) -> Self:
        return self._replace(lines=(*self.lines, line))


class StandinNvml:
    """The compiled library and the scenario that it shows, which can change while somebody reads it."""

    def __init__(self, library: Path, scenario: Path) -> None:
        self._scenario = scenario
        self.environ = {"LD_LIBRARY_PATH": str(library.parent), "NVML_STANDIN": str(scenario)}

    def show(self, scenario: Scenario) -> None:
        """Answer like this from the next reading on."""
        written = self._scenario.with_suffix(".new")
        written.write_text("\n".join(scenario.lines) + "\n")
        written.rename(self._scenario)

    def read(self, scenario: Scenario) -> GpuReading:
        """Return what the platform's probe reads, in a process of its own: a library is loaded once."""
        self.show(scenario)
        read = subprocess.run(
            [sys.executable, "-c", _READ], env={**os.environ, **self.environ}, capture_output=True, timeout=60
        )
        assert read.returncode == 0, read.stderr.decode()
        return msgspec.json.decode(read.stdout, type=GpuReading)


def compile_standin(directory: Path) -> Path | None:
    """Return the library, or None where there is no C compiler."""
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        return None
    library = directory / "libnvidia-ml.so.1"
    command = [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", str(library), str(SOURCE)]
    built = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert built.returncode == 0, built.stderr
    return library

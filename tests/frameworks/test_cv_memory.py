"""Pictures are read when they are needed: memory does not grow with how many there are."""

import os
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("torch", reason="the extra cv is not installed")
pytest.importorskip("PIL", reason="the extra cv is not installed")
pytest.importorskip("accelerate", reason="the extra cv is not installed")

from PIL import Image

from k12ai.frameworks.base import TRAIN
from k12ai.frameworks.cv.framework import CvFramework
from k12ai.tasks.registry import Registry

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="Linux tells how much memory a process has had at most"),
]

SIDE = 300
FEW, MANY = 300, 1200
# Rather than the resource module, whose figure counts what the parent had when it started the process.
# One arena and one thread: with more, glibc keeps 20 MiB more or less from run to run.
STEADY = {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", "MALLOC_TRIM_THRESHOLD_": "131072"}
PROGRAM = """
import atexit, pathlib, runpy, sys
def tell():
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    pathlib.Path("../peak").write_text(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
atexit.register(tell)
sys.argv.pop(0)
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def noise(project: Path, count: int) -> None:
    """Pictures that are as large in memory as on disk."""
    chance = random.Random(0)
    for name in ("a", "b"):
        (project / "noise" / name).mkdir(parents=True, exist_ok=True)
    for place in range(count):
        image = Image.frombytes("RGB", (SIDE, SIDE), chance.randbytes(SIDE * SIDE * 3))
        image.save(project / "noise" / "ab"[place % 2] / f"{place}.bmp")


def peak_bytes(project: Path, path: str) -> int:
    """Train for an epoch and return how much memory that took at most."""
    params = {
        "data": {"path": path},
        "cnn": {"width": 8, "blocks": 2},
        "training": {"epochs": 1, "batch_size": 16},
    }
    given, journal = project.parent / "params.json", project.parent / "journal"
    given.write_bytes(msgspec.json.encode(Registry([CvFramework()]).check("k12cv", TRAIN, params)))
    journal.write_bytes(b"")
    paths = {"K12AI_PARAMS": str(given), "K12AI_JOURNAL": str(journal), "K12AI_OP": TRAIN}
    module = CvFramework().command(TRAIN)[-1]
    subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM, module],
        cwd=project,
        env={**os.environ, **STEADY, **paths},
        check=True,
        timeout=200,
    )
    return int((project.parent / "peak").read_text()) << 10


@pytest.mark.timeout(400)
@pytest.mark.parametrize("path", ["noise", "noise.zip"])
def test_a_training_on_four_times_as_many_pictures_takes_no_more_memory(
    project: Path, path: str, record_property: Callable[[str, object], None]
) -> None:
    peaks = []
    for count in (FEW, MANY):
        noise(project, count)
        if path.endswith(".zip"):
            with zipfile.ZipFile(project / path, "w") as archive:
                for file in sorted((project / "noise").rglob("*.bmp")):
                    archive.write(file, file.relative_to(project / "noise"))
        peaks.append(peak_bytes(project, path))
    more = (MANY - FEW) * SIDE * SIDE * 3
    record_property("grown", f"{(peaks[1] - peaks[0]) >> 20} MiB for {more >> 20} MiB of pictures")
    assert peaks[1] - peaks[0] < more // 32

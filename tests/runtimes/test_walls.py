"""The walls around processes, in the cases that a server of this machine does not come to by itself."""

import subprocess
import sys
from pathlib import Path

import pytest

from k12ai.runtimes.walls import Wall, Walls
from k12ai.texts import Text

TRIES = """
import os
with open("/proc/self/status") as status:
    print([line.split()[1] for line in status if line.startswith(("CapEff", "CapPrm"))])
for path in ("/proc/sys/kernel/core_pattern", "/proc/sys/vm/overcommit_memory", "/x", "/dev/x", "/home/x"):
    try:
        os.open(path, os.O_WRONLY | (0 if path.startswith("/proc") else os.O_CREAT))
    except OSError:
        continue
    print(path)
"""


@pytest.fixture(name="walls")
def _walls(tmp_path: Path) -> Walls:
    walls = Walls(tmp_path / "data", cgroups=Wall(Text("", ""), False, Text("", "")))
    if not walls.sandboxed:
        pytest.skip("no bubblewrap that works here")
    return walls


def test_in_a_sandbox_also_the_servers_own_account_can_do_nothing_to_the_machine(
    walls: Walls, tmp_path: Path
) -> None:
    """Root is what it is where the server is root and has no setpriv to make another account of it."""
    project = tmp_path / "project"
    project.mkdir()
    command = walls.command(
        [sys.executable, "-c", TRIES],
        project_dir=project,
        readable=[],
        writable=[],
        account=None,
        network=False,
    )
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.stdout == f"{['0' * 16] * 2}\n", done.stderr

"""Programs that a test runs as tasks, and what can be seen of them."""

import asyncio
import os
from pathlib import Path
from typing import Any

from k12ai.frameworks.py.framework import PyFramework
from k12ai.images import image_of
from k12ai.runtimes.base import Launch, TaskRuntime
from k12ai.task import Limits

PY_IMAGE = image_of(PyFramework())

SLEEP = "import time; print('up', flush=True); time.sleep(600)"
IGNORES_TERM = f"import signal; signal.signal(15, signal.SIG_IGN); {SLEEP}"
HEEDS_TERM = f"import signal, sys; signal.signal(15, lambda *_: sys.exit(7)); {SLEEP}"
# A letter for each time that the program has run.
RUN_ONCE = "open('ran', 'a').write('x'); "


class Programs:
    """Describes tasks of Python source, each in a project of its own."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._count = 0

    def __call__(self, source: str, *arguments: str, **fields: Any) -> Launch:
        self._count += 1
        number = self._count
        user = fields.get("user", "alice")
        project = self._data_dir / "projects" / user / f"p{number}"
        project.mkdir(parents=True)
        for path in (project.parent.parent, project.parent, project):  # as the server makes them
            path.chmod(0o711 if path != project else 0o700)
        values: dict[str, Any] = {
            "task_id": f"{os.getpid() % 0x10000:04x}{number:08x}",
            "user": user,
            "service_uuid": f"p{number}",
            "framework": "k12py",
            "op": "runcode.start",
            "arguments": ("-c", source, *arguments),
            "params": b"{}",
            "project_dir": project,
            "limits": Limits(wall_time_s=60, processes=256),
            "account_number": number,
            "image": PY_IMAGE,
        }
        return Launch(**(values | fields))


def printed(runtime: TaskRuntime, task_id: str) -> str:
    """Return all that a task has printed by now."""
    return runtime.read_log(task_id, 0, 1 << 20).data.decode()


async def up(runtime: TaskRuntime, launch: Launch) -> None:
    """Start a task and wait until its program says that it is up."""
    await runtime.launch(launch)
    await said_up(runtime, launch.task_id)


async def said_up(runtime: TaskRuntime, task_id: str) -> None:
    """Wait until the program of a task says that it is up."""
    async with asyncio.timeout(30):
        while "up" not in (out := printed(runtime, task_id)):
            assert "Traceback" not in out, out
            await asyncio.sleep(0.02)


def times_run(project: Path) -> int:
    """Return how often the program of a project has run, which begins with `RUN_ONCE`."""
    path = project / "ran"
    return len(path.read_text()) if path.exists() else 0

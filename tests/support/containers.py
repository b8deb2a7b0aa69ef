"""Tasks that are containers: what a test starts, and the Engine as anybody with its socket sees it."""

import asyncio
import os
from pathlib import Path
from typing import Any

import msgspec

from k12ai.frameworks.py.framework import PyFramework
from k12ai.images import image_of
from k12ai.models import LABEL_INSTANCE, LABEL_TASK_ID
from k12ai.runtimes.base import Launch, TaskRuntime
from k12ai.task import Limits
from tests.support.engine import EngineClient

PY_IMAGE = image_of(PyFramework())

SLEEP = "import time; print('up', flush=True); time.sleep(600)"
IGNORES_TERM = f"import signal; signal.signal(15, signal.SIG_IGN); {SLEEP}"
# A line for each time that the program has run.
RUN_ONCE = "open('ran', 'a').write('x'); "


class Outsider(EngineClient):
    """Looks at containers, and does to them what somebody else may do."""

    def of_instance(self, data_dir: Path) -> dict[str, dict[str, Any]]:
        """Return the rows of an installation's containers, running or not, by the id of their task."""
        rows = self.labelled(f"{LABEL_INSTANCE}={instance_of(data_dir)}")
        return {row["Labels"][LABEL_TASK_ID]: row for row in rows}

    def labelled(self, label: str) -> list[dict[str, Any]]:
        """Return the rows of all containers with a label."""
        filters = msgspec.json.encode({"label": [label]}).decode()
        answer = self._http.get("/containers/json", params={"all": "1", "filters": filters})
        assert answer.status_code == 200, answer.text
        rows: list[dict[str, Any]] = answer.json()
        return rows

    def processes(self, container_id: str) -> int:
        """Return how many processes a container has; 0 where it does not run."""
        answer = self._http.get(f"/containers/{container_id}/top", params={"ps_args": "-eo pid"})
        return len(answer.json()["Processes"]) if answer.status_code == 200 else 0

    def exists(self, container_id: str) -> bool:
        return self._http.get(f"/containers/{container_id}/json").status_code == 200

    def remove_instance(self, data_dir: Path) -> None:
        """Remove every container of an installation, where it has a name yet."""
        if (data_dir / "instance").exists():
            for row in self.labelled(f"{LABEL_INSTANCE}={instance_of(data_dir)}"):
                self.remove(row["Id"])

    def save_image(self, image: str, archive: Path) -> None:
        with self._http.stream("GET", f"/images/{image}/get") as answer, archive.open("wb") as file:
            assert answer.status_code == 200, answer.read()
            for piece in answer.iter_bytes(1 << 20):
                file.write(piece)

    def load_image(self, archive: Path) -> None:
        with archive.open("rb") as file:
            answer = self._http.post("/images/load", content=file)
        assert answer.status_code == 200, answer.text


def instance_of(data_dir: Path) -> str:
    """Return the name of the installation whose data is here."""
    return (data_dir / "instance").read_text().strip()


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
    async with asyncio.timeout(30):
        while "up" not in (out := printed(runtime, launch.task_id)):
            assert "Traceback" not in out, out
            await asyncio.sleep(0.02)


def times_run(launch: Launch) -> int:
    """Return how often the program of a task has run, which begins with `RUN_ONCE`."""
    path = launch.project_dir / "ran"
    return len(path.read_text()) if path.exists() else 0

"""A data directory, the servers that run on it one after the other, and the tasks that outlive them.

What a server says of its tasks is compared with what the kernel says: everything that a task starts
carries the site's name, in its environment (`K12AI_USER`) or its command line.
"""

import contextlib
import os
import re
import secrets
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from k12ai.client import Client
from k12ai.task import Message, Task
from tests.long.wire import request_of
from tests.support.containers import Outsider
from tests.support.engine import DOCKER_HOST
from tests.support.server import Server

StartServer = Callable[..., Server]

OP = "runcode.start"
STUDENTS = 5


class Variant(NamedTuple):
    """A way to run tasks: the server's options and environment, and the fixtures that a test needs for it."""

    options: tuple[str, ...]
    environ: Mapping[str, str] = MappingProxyType({})
    needs: tuple[str, ...] = ()


_PROCESS = ("--runtime", "process", "--docker-host", "unix:///nonexistent/docker.sock")

VARIANTS = {
    "process": Variant(_PROCESS),
    # Where no bubblewrap is found, there is no sandbox that takes everything with it when it ends.
    "process, bare": Variant(_PROCESS, environ={"PATH": "/nonexistent"}),
    "docker": Variant(("--runtime", "docker"), needs=("task_images",)),
}
# Those that every test of tasks is done with; a new runtime is a line above, and its name here.
RUNTIMES = ["process", "docker"]

# A program begins by leaving a line under the id of its task, in its project.
RUNS = """\
import os, signal, sys, time, uuid
with open("ran-" + os.environ["K12AI_TASK_ID"], "a") as ran:
    ran.write(f"{os.getpid()} {uuid.uuid4()}\\n")
"""
SLEEPS = f"{RUNS}time.sleep(600)\n"
# Until it is released; see `Place.release`.
WAIT = "while not os.path.exists('go'): time.sleep(0.05)\n"
WAITS = f"{RUNS}{WAIT}"

# Of its program and what that starts, and of the shim that stands over it.
_TASK_ID = re.compile(rb"(?:K12AI_TASK_ID=|/tasks/)([0-9a-f]{12})")


class Place:
    """A project in which one task at a time may run."""

    def __init__(self, user: str, service_uuid: str, directory: Path) -> None:
        self.user = user
        self.service_uuid = service_uuid
        self.directory = directory

    def start(self, code: str, *, key: str | None = None, limits: Mapping[str, int] | None = None) -> bytes:
        """Return the request that starts a program here."""
        body = {
            "framework": "k12py",
            "op": OP,
            "user": self.user,
            "service_uuid": self.service_uuid,
            "params": {"code": code},
            "limits": limits or {},
        }
        headers = {} if key is None else {"Idempotency-Key": key}
        return request_of("POST", "/api/v1/tasks", msgspec.json.encode(body), headers=headers)

    def execute(self, op: str, params: Mapping[str, Any]) -> bytes:
        """Return the published request for this project."""
        body = {
            "op": op,
            "user": self.user,
            "service_name": "k12py",
            "service_uuid": self.service_uuid,
            "service_params": params,
        }
        return request_of("POST", "/k12ai/framework/execute", msgspec.json.encode(body))

    def ran(self) -> dict[str, int]:
        """Return how many times the program of each task has run here."""
        return {
            file.name.removeprefix("ran-"): len(file.read_text().splitlines())
            for file in self.directory.glob("ran-*")
        }

    def release(self) -> None:
        """Let a program go on that waits."""
        (self.directory / "go").touch()


class Site:
    """Where a test's servers run, of which there is one at a time."""

    def __init__(self, root: Path, start_server: StartServer, variant: Variant) -> None:
        self.name = f"site{secrets.token_hex(6)}"
        self.ready_s: list[float] = []
        self._root = root
        self._start_server = start_server
        self._variant = variant
        self._places = 0

    def open(self, *, max_tasks: int = 200, environ: Mapping[str, str] | None = None) -> Server:
        """Start the next server on the same data."""
        options = (*self._variant.options, "--max-tasks", str(max_tasks))
        began = time.monotonic()
        self.server = self._start_server(
            *options, name=self.name, environ={**self._variant.environ, **(environ or {})}
        )
        self.ready_s.append(time.monotonic() - began)
        self.client = Client(self.server.url)
        return self.server

    def kill(self) -> None:
        """Take the server down as a crash does."""
        self.server.kill()
        self.client.close()

    def place(self) -> Place:
        """Return a project that nobody has used, of one of a few students."""
        self._places += 1
        user, service_uuid = f"{self.name}-{self._places % STUDENTS}", f"p{self._places}"
        return Place(user, service_uuid, self._root / self.name / "projects" / user / service_uuid)

    def active(self) -> dict[str, Task]:
        """Return the tasks that have not ended, as the server knows them."""
        return {task.task_id: task for task in self.client.tasks(active=True)}

    def listed(self) -> set[str]:
        """Return the containers of tasks in the stats; there may be those of others."""
        found = self.server.containers().items()
        return {container_id for container_id, each in found if each["user"].startswith(self.name)}

    def alive(self) -> dict[str, set[int]]:
        """Return the processes of each task that has any, its shim among them, as the kernel knows them."""
        found: defaultdict[str, set[int]] = defaultdict(set)
        for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))):
            words = _words(pid)
            if self.name.encode() in words and (named := _TASK_ID.search(words)):
                found[named[1].decode()].add(pid)
        return found

    def errors(self) -> list[str]:
        """Return what the servers said of faults of their own."""
        return [line for line in self.server.log.read_text().splitlines() if "[error" in line]

    def groups(self) -> list[Path]:
        """Return the cgroups that there are for this site's tasks."""
        with contextlib.suppress(FileNotFoundError):
            tasks = set(os.listdir(self._root / self.name / "tasks"))
            found = [*Path("/sys/fs/cgroup").glob("k12ai/*"), *Path("/sys/fs/cgroup").glob("*/k12ai/*")]
            return [group for group in found if group.name in tasks]
        return []

    def limits_processes(self) -> bool:
        """Return whether the server can limit the processes of its tasks; it says where it cannot."""
        missing = [line for line in self.server.log.read_text().splitlines() if "wall.missing" in line]
        walls = ("kernel limits", "an account for each student")
        return not all(any(wall in line for line in missing) for wall in walls)

    def messages(self, task_id: str) -> Sequence[Message]:
        """Return all that was said about a task."""
        found, cursor = [], 0
        while (piece := self.client.messages(task_id, cursor)).messages:
            found += piece.messages
            cursor = piece.cursor
        return found

    def states(self, task_id: str) -> list[str]:
        """Return the states of a task in the order in which they were announced, each as often as it was.

        What a queued one waits for is said as well, but is no other state.
        """
        said = [each.body["value"] for each in self.messages(task_id) if each.type == "status"]
        return said[:1] + [state for state in said[1:] if state != "queued"]

    def clear(self) -> None:
        """Kill what is left, the server first: it would start what waits."""
        if hasattr(self, "server"):
            self.kill()
        self._remove_containers()
        while left := [pid for pids in self.alive().values() for pid in pids]:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        for group in self.groups():
            group.rmdir()

    def _remove_containers(self) -> None:
        if "docker" in self._variant.options:
            outsider = Outsider(DOCKER_HOST)
            outsider.remove_instance(self._root / self.name)
            outsider.close()


def of(task_ids: Iterable[str], alive: Mapping[str, set[int]]) -> dict[str, set[int]]:
    """Return the processes of these tasks."""
    return {each: alive[each] for each in task_ids if each in alive}


def stop_request(task_id: str, grace_s: float) -> bytes:
    """Return the request that stops a task."""
    return request_of("POST", f"/api/v1/tasks/{task_id}/stop?timeout={grace_s:g}")


def _words(pid: int) -> bytes:
    """Return the environment and the command line of a process; nothing of one that has ended."""
    words = b""
    for name in ("environ", "cmdline"):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/{name}", "rb") as file:
            words += file.read() + b"\0"
    return words

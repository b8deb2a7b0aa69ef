"""A task manager on a real store and a real runtime, with a framework that runs what a test wants."""

import contextlib
from collections.abc import AsyncIterator, Callable, Set
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from k12ai.background import Background
from k12ai.closing import Closing
from k12ai.frameworks.base import Framework, Schema
from k12ai.runtimes.process import ProcessRuntime
from k12ai.settings import Settings
from k12ai.stores.sql import SqlStore
from k12ai.task import Limits, Message, Task, TaskRequest
from k12ai.tasks.admission import Machine
from k12ai.tasks.feed import Feed
from k12ai.tasks.manager import TaskManager
from k12ai.tasks.queue import Measured, Queue
from k12ai.tasks.registry import Registry
from k12ai.texts import Text


class Scripted(Framework):
    """Runs the Python source in its parameters."""

    name = "scripted"
    title = Text("Scripted", "脚本")
    ops = ("train.start", "predict.start")
    image = ""
    extra = ""

    def schema(self, op: str) -> Schema:
        return {
            "type": "object",
            "required": ["source"],
            "properties": {
                "source": {"type": "string"},
                "epochs": {"type": "integer", "minimum": 1, "maximum": 100, "default": 5},
                "mode": {"enum": ["fast", "slow"], "default": "fast"},
                "model": {"type": "object", "default": {}, "properties": {"depth": {"default": 3}}},
            },
            "additionalProperties": False,
        }

    def command(self, op: str) -> tuple[str, ...]:
        return ("-c", "import json, os; exec(json.load(open(os.environ['K12AI_PARAMS']))['source'])")


class House:
    """What a test needs of one run of the server."""

    def __init__(self, store: SqlStore, runtime: ProcessRuntime, manager: TaskManager) -> None:
        self.store = store
        self.runtime = runtime
        self.manager = manager
        self.feed = Feed(store, Closing())

    async def submit(self, source: str, **fields: Any) -> Task:
        key = fields.pop("idempotency_key", None)
        wanted = request(source, **fields)
        return await self.manager.submit(wanted, "process", idempotency_key=key)

    async def ended(self, task: Task) -> Task:
        while not (found := await self.manager.task(task.task_id)).ended:
            await self.feed.after(found, await self._newest(found), wait_s=5)
        return found

    async def messages(self, task: Task) -> list[Message]:
        return (await self.feed.after(task, 0)).messages

    async def states(self, task: Task) -> list[str]:
        return [each.body["value"] for each in await self.messages(task) if each.type == "status"]

    async def _newest(self, task: Task) -> int:
        return (await self.feed.after(task, 0)).cursor


OpenHouse = Callable[..., AbstractAsyncContextManager[House]]


def request(source: str, **fields: Any) -> TaskRequest:
    values: dict[str, Any] = {
        "framework": "scripted",
        "op": "train.start",
        "user": "alice",
        "service_uuid": "digits",
        "params": {"source": source},
        "limits": Limits(),
    }
    return TaskRequest(**(values | fields))


class NoGpus:
    """There is no GPU, and nobody holds anything."""

    def pids(self, _container_id: str) -> frozenset[int]:
        return frozenset()

    async def memory_left_bytes(self, _pids: Set[int]) -> int:
        return 0


@pytest.fixture(name="open_house")
def _open_house(tmp_path: Path) -> OpenHouse:
    """Open everything that tasks need; opening it again is the server's next run."""
    data_dir = tmp_path / "data"

    def project_dir(user: str, service_uuid: str) -> Path:
        place = data_dir / "projects" / user / service_uuid
        place.mkdir(parents=True, exist_ok=True)
        return place

    @contextlib.asynccontextmanager
    async def house(**settings: Any) -> AsyncIterator[House]:
        chosen = msgspec.structs.replace(Settings(), **({"max_tasks": 8} | settings))
        machine = Machine(chosen.max_tasks, 8, 64 << 30, 64 << 30, places_per_user=chosen.max_tasks_per_user)
        queue = Queue(lambda: Measured(machine, {}))
        async with SqlStore(data_dir) as store, ProcessRuntime(data_dir) as runtime, Background() as background:
            manager = TaskManager(
                store,
                {"process": runtime},
                Registry([Scripted()]),
                queue,
                project_dir,
                background,
                chosen,
                NoGpus(),
            )
            await manager.resume()
            background.keep_running("queue", manager.watch_queue)
            yield House(store, runtime, manager)

    return house


@pytest.fixture(name="house")
async def _house(open_house: OpenHouse) -> AsyncIterator[House]:
    async with open_house() as house:
        yield house
        for task in await house.store.tasks(active=True):
            await house.manager.stop(task.task_id, grace_s=0)

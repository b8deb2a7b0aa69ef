"""Fakes: small working versions of what a test does not want for real."""

from collections.abc import Mapping
from typing import Any

from k12ai.access.book import AccessBook
from k12ai.api.application import Walls
from k12ai.api.identify import Doorkeeper
from k12ai.api.observe import HttpCounts
from k12ai.errors import ContainerNotFound, K12AIError
from k12ai.monitor.gpu import GpuReading, GpuSample
from k12ai.runtimes.base import Condition, Runtime, Unit
from k12ai.runtimes.cgroups import Usage
from k12ai.settings import Settings
from k12ai.texts import Text

AWAY = Text("it went away", "它不见了")


def unit(number: int = 1, **fields: object) -> Unit:
    """Return a unit whose id is made of its number."""
    values: dict[str, object] = {
        "container_id": f"{number:064x}"[::-1],
        "pid": 1000 + number,
        "service_name": "k12cv",
        "op": "train.start",
        "user": f"student{number}",
        "service_uuid": f"project{number}",
        "status": "running",
        "started_at": "2026-01-01T00:00:00Z",
        "gpus": (),
    }
    return Unit(**(values | fields))  # type: ignore[arg-type]


def open_walls() -> Walls:
    """Return the walls of a server in open mode, which writes nothing down: it has no store."""
    settings = Settings()
    no_store: Any = None
    book = AccessBook(no_store, lifetime_s=settings.token_lifetime_s)
    return Walls(settings, HttpCounts(), Doorkeeper(book, settings), no_store)


class FakeRuntime(Runtime):
    """A runtime whose units run on a table: 25 % of a core each, 64 MiB."""

    def __init__(self, *units: Unit, name: str = "fake") -> None:
        self.name = name
        self.table = {each.container_id: each for each in units}
        self.present = Condition(available=True, listed=True)
        self.reads = 0
        self.at_ns = 0
        self.stopped: list[tuple[str, int]] = []
        self.failure: K12AIError | None = None

    @property
    def condition(self) -> Condition:
        return self.present

    @property
    def units(self) -> Mapping[str, Unit]:
        return dict(self.table)

    async def usage(self, *, fresh: bool = False) -> Mapping[str, Usage]:
        self.reads += 1
        self.at_ns += 1_000_000_000
        return {key: Usage(self.at_ns, self.at_ns // 4, 64 << 20, None) for key in self.table}

    def unit_of(self, pid: int) -> str | None:
        return next((key for key, each in self.table.items() if each.pid == pid), None)

    async def stop(self, container_id: str, *, grace_s: int, service_name: str | None = None) -> str:
        if self.failure is not None:
            raise self.failure
        found = [
            each
            for key, each in self.table.items()
            if key.startswith(container_id) and service_name in (None, each.service_name)
        ]
        if len(found) != 1:
            raise ContainerNotFound(container_id)
        self.stopped.append((container_id, grace_s))
        return found[0].short_id


def gpu_sample(index: int = 0, **fields: Any) -> GpuSample:
    """Return a GPU of 24 GiB on which nothing runs."""
    values: dict[str, Any] = {
        "uuid": f"GPU-{index}",
        "name": "Fake GPU",
        "memory_total": 24 << 30,
        "memory_usage": 0,
    }
    return GpuSample(index=index, **(values | fields))


class FakeGpus:
    """A probe with two GPUs and nothing to say about them."""

    def __init__(self) -> None:
        self.closed = False

    def read(self) -> GpuReading:
        return GpuReading((gpu_sample(0, percent=50.0, memory_usage=6 << 30), gpu_sample(1)))

    def close(self) -> None:
        self.closed = True

"""The tasks that wait and the tasks that run; who of them starts next is `k12ai.tasks.admission`'s to say."""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from k12ai.task import Reason, Task
from k12ai.tasks import admission
from k12ai.tasks.admission import FirstComeFirstServed, Machine, Policy, Running, Start
from k12ai.tasks.forecast import Durations, waits_s


class Used(NamedTuple):
    """What a container uses, as the monitor has measured it."""

    memory_bytes: int = 0
    gpu_bytes: Mapping[int, int] = {}


class Measured(NamedTuple):
    """What the machine is doing: what there is, and what each container uses by its 12 digits."""

    machine: Machine
    used: Mapping[str, Used]


class Queue:
    """Keeps both lists; it starts nothing itself."""

    def __init__(self, measured: Callable[[], Measured], policy: Policy | None = None) -> None:
        self._measured = measured
        self._policy = policy or FirstComeFirstServed()
        self._waiting: dict[str, Task] = {}  # in order of arrival
        self._running: dict[str, Task] = {}
        self.durations = Durations()
        self.decided_s = 0.0  # what all decisions have taken together

    @property
    def running(self) -> int:
        """How many run."""
        return len(self._running)

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._waiting

    def waiting_of(self, user: str) -> int:
        """How many of a user's wait."""
        return sum(task.user == user for task in self._waiting.values())

    @property
    def machine(self) -> Machine:
        """What the machine has."""
        return self._measured().machine

    def reason_to_wait(self, task: Task) -> Reason | None:
        """Return why a task would have to wait if it came now; None where it could start."""
        for decision in self._decide([*self._waiting.values(), task]):
            if decision.task_id == task.task_id:
                return None if isinstance(decision, Start) else decision.reason
        return "waiting_cpu"

    def add(self, task: Task) -> None:
        """Let a task wait behind all others."""
        self._waiting[task.task_id] = task

    def update(self, task: Task) -> None:
        """Take over what has changed about a task that is in one of the lists."""
        for tasks in (self._waiting, self._running):
            if task.task_id in tasks:
                tasks[task.task_id] = task

    def occupy(self, task: Task) -> None:
        """Let a task run, whoever waits."""
        self._waiting.pop(task.task_id, None)
        self._running[task.task_id] = task

    def leave(self, task_id: str) -> None:
        """Forget a task, wherever it is."""
        self._waiting.pop(task_id, None)
        self._running.pop(task_id, None)

    def next(self) -> list[Start | admission.Wait]:
        """Return what is new: who starts now, and has a place by then, and who waits for another reason."""
        decisions = [
            each
            for each in self._decide(list(self._waiting.values()))
            if isinstance(each, Start) or self._waiting[each.task_id].reason != each.reason
        ]
        for each in decisions:
            task = self._waiting[each.task_id]
            if isinstance(each, Start):
                self.occupy(msgspec.structs.replace(task, gpus=list(each.gpus)))
            else:
                self._waiting[each.task_id] = msgspec.structs.replace(task, reason=each.reason)
        return decisions

    def standings(self) -> dict[str, tuple[int, float | None]]:
        """Return for each waiting task its position, from 1, and the seconds that it should have to wait."""
        machine = self.machine
        running = list(self._running.values())
        waiting = list(self._policy.order(list(self._waiting.values()), [Running(each) for each in running]))
        expected = waits_s(
            waiting,
            running,
            self.durations,
            places=machine.places,
            gpus=len(machine.gpus),
            now=datetime.now(UTC),
        )
        return {
            task.task_id: (position, expected.get(task.task_id))
            for position, task in enumerate(waiting, start=1)
        }

    def _decide(self, waiting: list[Task]) -> list[Start | admission.Wait]:
        began_s = time.perf_counter()
        machine, used = self._measured()
        nothing = Used()
        running = [Running(task, *used.get(task.container_id, nothing)) for task in self._running.values()]
        decisions = list(admission.decide(waiting, running, machine, self._policy))
        self.decided_s += time.perf_counter() - began_s
        return decisions

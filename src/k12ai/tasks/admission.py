"""Who may start now: a pure function of who waits, who runs and what the machine has.

The order is one policy's, here first come, first served; who lacks what is decided apart from it. A task
that has to wait is not overtaken on what it waits for:

* processors and memory: what it needs is set aside, and those behind it share the rest;
* GPUs: no task behind it gets one; those that need none go on;
* its user's quota: it waits alone.

Memory is looked at twice: what was asked for must fit into the machine, and what is really free must
suffice for it, beside what the running tasks may still take. A task alone on the machine always gets its
chance: it would wait for ever for what other programs do not give back.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from msgspec import Struct

from k12ai.task import Limits, Reason, Task

# A GPU that programs outside of the platform take a little of (a desktop does) still counts as free.
IDLE_SHARE = 0.9


class Device(Struct, frozen=True):
    """A GPU and what is used of it."""

    index: int
    total_bytes: int
    used_bytes: int


class Machine(NamedTuple):
    """What there is: ``places`` for tasks at once, and what the monitor has measured."""

    places: int
    cpus: float
    memory_total_bytes: int
    memory_free_bytes: int
    gpus: Sequence[Device] = ()
    places_per_user: int | None = None


class Running(NamedTuple):
    """A task that has started, and what it uses by now; ``gpu_used_bytes`` by the index of the device."""

    task: Task
    memory_used_bytes: int = 0
    gpu_used_bytes: Mapping[int, int] = {}


class Start(NamedTuple):
    """It may start, on these GPUs."""

    task_id: str
    gpus: tuple[int, ...]


class Wait(NamedTuple):
    """It has to wait, for this."""

    task_id: str
    reason: Reason


class Policy(Protocol):
    """In which order the waiting are asked."""

    def order(self, waiting: Sequence[Task], running: Sequence[Running]) -> Iterable[Task]:
        """Return the waiting tasks, the one whose turn is next first; ``waiting`` is in order of arrival."""


class FirstComeFirstServed:
    """In order of arrival."""

    def order(self, waiting: Sequence[Task], running: Sequence[Running]) -> Iterable[Task]:
        """See `Policy.order`."""
        return waiting


def decide(
    waiting: Sequence[Task], running: Sequence[Running], machine: Machine, policy: Policy
) -> Iterator[Start | Wait]:
    """Yield a decision for each waiting task, until there is nothing left to give."""
    pool = _Pool(machine, running)
    for task in policy.order(waiting, running):
        if pool.is_empty:
            return  # all behind it wait for a processor, too
        if pool.quota_is_used_up(task.user):
            yield Wait(task.task_id, "quota")
            continue
        gpus = pool.gpus_for(task.limits)
        reason = pool.lacking(task.limits, gpus)
        if reason is None:
            assert gpus is not None
            pool.take(task, gpus)
            yield Start(task.task_id, gpus)
        else:
            pool.set_aside(task.limits, reason)
            yield Wait(task.task_id, reason)


def gpus_wanted(limits: Limits) -> int:
    """Return how many GPUs a task asks for; who asks for memory of a GPU means one."""
    if limits.gpus is not None:
        return limits.gpus
    return 0 if limits.gpu_memory_bytes is None else 1


class _Pool:
    """What is left to give."""

    def __init__(self, machine: Machine, running: Sequence[Running]) -> None:
        self._machine = machine
        self._running = running
        self._share = 1.0 - sum(self._share_of(each.task.limits) for each in running)
        self._places = machine.places - len(running)
        asked = sum(each.task.limits.memory_bytes or 0 for each in running)
        to_come = sum(_to_come(each.task.limits.memory_bytes, each.memory_used_bytes) for each in running)
        self._memory = min(machine.memory_total_bytes - asked, machine.memory_free_bytes - to_come)
        self._is_idle = not running
        self._gpu_is_waited_for = False
        self._gpus = {device.index: self._free_on(device) for device in machine.gpus}
        self._given = {index for each in running for index in each.task.gpus}
        self._users: dict[str, int] = {}
        for each in running:
            self._users[each.task.user] = self._users.get(each.task.user, 0) + 1

    @property
    def is_empty(self) -> bool:
        return self._places <= 0 or self._share < 1e-9

    def quota_is_used_up(self, user: str) -> bool:
        most = self._machine.places_per_user
        return most is not None and self._users.get(user, 0) >= most

    def gpus_for(self, limits: Limits) -> tuple[int, ...] | None:
        """Return the devices that it would get, the fullest that will do; None where there are too few."""
        wanted = gpus_wanted(limits)
        if not wanted:
            return ()
        if self._gpu_is_waited_for:
            return None
        fits = sorted((room, index) for index, room in self._gpus.items() if self._fits(index, room, limits))
        return tuple(sorted(index for _, index in fits[:wanted])) if len(fits) >= wanted else None

    def lacking(self, limits: Limits, gpus: tuple[int, ...] | None) -> Reason | None:
        if gpus is None:
            return "waiting_gpu"
        if limits.memory_bytes is not None and limits.memory_bytes > self._memory and not self._is_idle:
            return "waiting_memory"
        return "waiting_cpu" if self._share_of(limits) > self._share + 1e-9 else None

    def take(self, task: Task, gpus: tuple[int, ...]) -> None:
        limits = task.limits
        self._places -= 1
        self._share -= self._share_of(limits)
        self._memory -= limits.memory_bytes or 0
        self._is_idle = False
        self._users[task.user] = self._users.get(task.user, 0) + 1
        self._given.update(gpus)
        for index in gpus:
            self._gpus[index] -= limits.gpu_memory_bytes or self._gpus[index]

    def set_aside(self, limits: Limits, reason: Reason) -> None:
        if reason == "waiting_gpu":
            self._gpu_is_waited_for = True
            return
        self._share -= self._share_of(limits)
        self._memory -= limits.memory_bytes or 0
        if gpus_wanted(limits):
            self._gpu_is_waited_for = True

    def _share_of(self, limits: Limits) -> float:
        """Return what a task takes of all processors; one place of many where it does not say."""
        if limits.cpus is None:
            return 1.0 / self._machine.places
        return limits.cpus / self._machine.cpus

    def _free_on(self, device: Device) -> int:
        """Return the bytes of a GPU that can be given away; none of one that is somebody's alone."""
        asked = to_come = 0
        for each in self._running:
            if device.index not in each.task.gpus:
                continue
            share = each.task.limits.gpu_memory_bytes
            if share is None:
                return 0
            asked += share
            to_come += _to_come(share, each.gpu_used_bytes.get(device.index, 0))
        return max(0, min(device.total_bytes - asked, device.total_bytes - device.used_bytes - to_come))

    def _fits(self, index: int, room: int, limits: Limits) -> bool:
        if limits.gpu_memory_bytes is not None:
            return limits.gpu_memory_bytes <= room
        total = next(device.total_bytes for device in self._machine.gpus if device.index == index)
        return index not in self._given and room > 0 and room >= IDLE_SHARE * total


def _to_come(asked: int | None, used: int) -> int:
    """Return what a task may still take of what it asked for."""
    return 0 if asked is None else max(0, asked - used)

"""The vocabulary of tasks: one run of one op of one framework for one project.

The same class is the stored record, the HTTP body and the value a client gets. Times are UTC.
"""

from datetime import datetime
from typing import Annotated, Any, Literal, NamedTuple, Self

import msgspec
from msgspec import Meta, Struct

TaskState = Literal["queued", "starting", "running", "stopping", "succeeded", "failed", "stopped"]

ENDED: frozenset[TaskState] = frozenset({"succeeded", "failed", "stopped"})

Reason = Literal[
    "waiting_cpu",  # queued: as many tasks run as may run at once, or it needs more processors than are left
    "waiting_memory",  # queued: what is free does not suffice beside what the running tasks may still take
    "waiting_gpu",  # queued: every GPU that would do is taken
    "quota",  # queued: as many tasks of its user run as may run at once
    "exited",  # its program ended by itself; `exit_code` says how
    "signal",  # its program was ended by a signal that nobody of the platform sent
    "oom",  # it needed more memory than it may have
    "timeout",  # its time was over
    "start_failed",  # its program could not be started
    "stopped_by_user",
    "stopped_by_teacher",
    "stop_incomplete",  # it was stopped, and something of it is left: `survivors`, `gpu_memory_left_bytes`
    "lost",  # it vanished without a trace, as when the machine went down
]

MessageType = Literal["status", "metrics", "error", "result"]

MAX_WALL_TIME_S = 7 * 24 * 3600
TASK_ID_DIGITS = 12


class Stopper(NamedTuple):
    """Who asks for the stop of a task, and what reason that gives it; nobody in particular where not known."""

    user: str = ""
    reason: Literal["stopped_by_user", "stopped_by_teacher"] = "stopped_by_user"


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """What a task may use. What is not given is the server's default."""

    wall_time_s: Annotated[int, Meta(ge=1, le=MAX_WALL_TIME_S)] | None = None
    memory_bytes: Annotated[int, Meta(ge=64 << 20, le=1 << 62)] | None = None
    processes: Annotated[int, Meta(ge=8, le=32768)] | None = None
    cpus: Annotated[float, Meta(gt=0, le=4096)] | None = None
    gpus: Annotated[int, Meta(ge=0, le=64)] | None = None
    gpu_memory_bytes: Annotated[int, Meta(ge=1 << 20, le=1 << 62)] | None = None


class Task(Struct, frozen=True, kw_only=True):
    """A task as everyone sees it.

    ``op`` is the op that started it for its whole life. ``key`` is where its messages are. ``code``
    is the catalogue's for how it ended: 100003 finished, 100004 stopped, or what went wrong.
    ``killed`` tells whether a stop needed SIGKILL; ``survivors`` are processes that even that did not
    end. ``oom_kills`` counts processes that the kernel killed for memory, also in a task that succeeded.
    ``container_id`` are the 12 digits under which it is in the stats, ``gpus`` the indexes of the devices
    that it was given. ``stopped_by`` is who asked for its stop, ``gpu_memory_left_bytes`` what its processes
    still held of GPUs after its end. While it waits, ``position`` counts from 1 and ``expected_wait_s`` is an
    estimate, null where there is no history.
    """

    task_id: str
    user: str
    service_uuid: str
    framework: str
    op: str
    key: str
    state: TaskState = "queued"
    reason: Reason | None = None
    code: int | None = None
    exit_code: int | None = None
    signal: int | None = None
    oom_kills: int = 0
    killed: bool = False
    survivors: list[int] = []
    detail: str = ""
    stopped_by: str = ""
    gpu_memory_left_bytes: int = 0
    runtime: str = ""
    container_id: str = ""
    gpus: list[int] = []
    position: int | None = None
    expected_wait_s: float | None = None
    limits: Limits = Limits()
    params: dict[str, Any] = {}
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def ended(self) -> bool:
        """Whether its story is over: nothing of it changes any more."""
        return self.state in ENDED


class StartedMessage(Struct, frozen=True):
    """The ``message`` of the published answer to a start or a stop."""

    task_id: str
    key: str
    state: TaskState

    @classmethod
    def of(cls, task: Task) -> Self:
        """Return what is said of a task."""
        return cls(task.task_id, task.key, task.state)


class Message(Struct, frozen=True, kw_only=True):
    """Something that a task, or the platform about it, said.

    ``sequence`` orders all messages of the store and is the cursor to go on from; ``timestamp`` is
    milliseconds since the epoch; ``body`` is what was said.
    """

    task_id: str
    type: MessageType
    sequence: int
    timestamp: int
    body: Any


class Messages(Struct, frozen=True):
    """Messages of a task in order, and the cursor behind the last one."""

    messages: list[Message]
    cursor: int


class TaskRequest(Struct, frozen=True):
    """What the modern interface takes to start a task."""

    framework: str
    op: str
    user: str
    service_uuid: str
    params: dict[str, Any] = {}
    limits: Limits = Limits()


class FrameworkInfo(Struct, frozen=True):
    """A framework as clients see it; ``install`` says what to do where it cannot run yet."""

    name: str
    title: str
    ops: list[str]
    installed: bool
    install: str


def key_of(user: str, service_uuid: str, op: str) -> str:
    """Return where the messages of a project's op are published."""
    return f"framework/{user}/{service_uuid}/{op}"


encode = msgspec.json.Encoder().encode
decode_task = msgspec.json.Decoder(Task).decode

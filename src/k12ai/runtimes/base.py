"""What a runtime promises: it knows its units, measures them and stops them."""

import re
import signal
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal, NamedTuple

from msgspec import Struct

from k12ai.errors import Unavailable
from k12ai.runtimes.cgroups import Usage
from k12ai.task import Limits
from k12ai.texts import Text

_SIGNALS = frozenset(int(each) for each in signal.Signals)
_ID_OR_PREFIX = re.compile(r"[0-9a-f]{6,64}")


def is_id_or_prefix(text: str) -> bool:
    """Whether this can name a unit: a full id, or a beginning of at least 6 hex digits."""
    return _ID_OR_PREFIX.fullmatch(text) is not None


def signal_told_by(exit_code: int | None) -> int | None:
    """Return the signal that an exit code tells of, as shells, sandboxes and Engines do; else None."""
    number = (exit_code or 0) - 128
    return number if number in _SIGNALS else None


class Unit(NamedTuple):
    """One running container: what the contract calls by that name, in every runtime.

    ``container_id`` is the runtime's full id, lower-case hex; clients see its first 12 digits.
    ``started_at`` is ISO-8601 in UTC. ``gpus`` are the devices it was given: indexes, UUIDs or
    ``all``.
    """

    container_id: str
    pid: int
    service_name: str
    op: str
    user: str
    service_uuid: str
    status: str
    started_at: str
    gpus: tuple[str, ...]

    @property
    def short_id(self) -> str:
        """The 12 digits that clients see."""
        return self.container_id[:12]


class Condition(NamedTuple):
    """Whether a runtime answers.

    ``reason`` says why it does not. ``listed`` tells whether its units were ever read: if so, they
    are the last known ones; if not, nothing is known, which is not the same as none.
    """

    available: bool
    listed: bool
    reason: Text | None = None


class Among(NamedTuple):
    """Which units exist for a caller: those of one service, those of some users; None: all."""

    service_name: str | None = None
    users: Collection[str] | None = None

    def has(self, service_name: str, user: str) -> bool:
        """Whether a unit with these labels is one of them."""
        return self.service_name in (None, service_name) and (self.users is None or user in self.users)


ALL = Among()


class Runtime(ABC):
    """A place where containers run."""

    name: str

    @property
    @abstractmethod
    def condition(self) -> Condition:
        """Whether the runtime answers; kept up to date in the background, never blocks."""

    @property
    @abstractmethod
    def units(self) -> Mapping[str, Unit]:
        """The running units by full id, as last known; never blocks, never raises."""

    @abstractmethod
    async def usage(self, *, fresh: bool = False) -> Mapping[str, Usage]:
        """Return the counters of the units that can be read, by full id.

        Never raises for a unit that has just ended: it is left out. ``fresh`` asks for a reading
        that starts after the call, where the runtime otherwise serves its latest.
        """

    @abstractmethod
    def unit_of(self, pid: int) -> str | None:
        """Return the full id of the unit that a process of this machine belongs to, None where there is none.

        Reads small files at most and is called from any thread; never raises.
        """

    @abstractmethod
    async def stop(self, container_id: str, *, grace_s: int, among: Among = ALL) -> str:
        """Stop one unit and return its 12 digits once it is really gone.

        ``container_id`` is a full id or a unique prefix of at least 6 hex digits. The unit gets
        SIGTERM, then SIGKILL after ``grace_s`` seconds. Idempotent: a unit that has already
        stopped counts as stopped, and concurrent calls share one stop. Only the units ``among``
        which the caller looks exist. Cancelling the call does not cancel the stop.

        Raises `ContainerNotFound`, and `EngineUnavailable` or `EngineTimeout` where the runtime
        cannot tell.
        """


class Launch(Struct, frozen=True, kw_only=True):
    """Everything that a runtime has to know to start a task.

    ``arguments`` follow the Python interpreter, in a container that of ``image``. ``params`` is the
    JSON that the task finds at ``K12AI_PARAMS``; ``project_dir`` is where it starts and the only place
    that it may write to. ``account_number`` is the user's, for runtimes that give each user an account.
    ``gpus`` are the indexes of the devices that it may use, as the driver counts them.
    """

    task_id: str
    user: str
    service_uuid: str
    framework: str
    op: str
    arguments: Sequence[str]
    params: bytes
    project_dir: Path
    limits: Limits
    account_number: int | None = None
    network: bool = False
    image: str = ""
    gpus: Sequence[int] = ()


class End(Struct, frozen=True, kw_only=True):
    """How a task ended, as its runtime saw it.

    ``killed`` tells whether it took SIGKILL; ``survivors`` are processes that even that did not end.
    ``oom_kills`` counts processes that the kernel killed for memory.
    """

    reason: Literal["exited", "signal", "timeout", "stopped", "start_failed", "lost"]
    exit_code: int | None = None
    signal: int | None = None
    oom_kills: int = 0
    killed: bool = False
    survivors: Sequence[int] = ()
    detail: str = ""
    ended_at: datetime | None = None


class LogPiece(Struct, frozen=True):
    """A piece of a task's output: bytes from ``offset`` on. What is older than that is not kept any more."""

    offset: int
    data: bytes


class TaskRuntime(Runtime):
    """A runtime that can start tasks. What it started outlives the server."""

    @abstractmethod
    async def take_on(self, launch: Launch) -> None:
        """Write down durably what is to run, and begin to start it; a second time this does nothing.

        A program that cannot be started is no error here: `wait` tells it.
        """

    @abstractmethod
    async def started(self, task_id: str) -> None:
        """Return once a task that was taken on has a process, or has ended."""

    async def launch(self, launch: Launch) -> None:
        """Take a task on and return once it has a process."""
        await self.take_on(launch)
        await self.started(launch.task_id)

    @abstractmethod
    async def wait(self, task_id: str) -> End:
        """Return how a task ended, once it has; also a task of an earlier run of the server.

        A task that the runtime knows nothing of is ``lost``.
        """

    @abstractmethod
    async def ask_to_stop(self, task_id: str, grace_s: float) -> None:
        """Have a task end within ``grace_s``, also one that is only about to start; `wait` tells when.

        Asking again with a shorter grace shortens it.
        """

    @abstractmethod
    def container_of(self, task_id: str) -> str:
        """Return the 12 digits that clients see of a task that runs; empty where it does not."""

    @abstractmethod
    async def settle(self, task_id: str) -> None:
        """Let go of what is of no use once the end of a task is on record; output and journal stay."""

    @abstractmethod
    async def tidy(self, is_alive: Callable[[str], Awaitable[bool]]) -> None:
        """Remove what runs for this server and is no task of it that has not ended; nothing else is touched.

        ``is_alive`` tells of a task whether it is on record and has not ended.
        """

    @abstractmethod
    async def trouble(self, task_id: str) -> Unavailable:
        """Return why a task cannot be reached now, once that is so; a stop that was asked for is kept."""

    @abstractmethod
    def has(self, task_id: str) -> bool:
        """Whether the runtime has taken a task on, running or ended."""

    @abstractmethod
    def journal_path(self, task_id: str) -> Path:
        """Return the file that a task reports to."""

    @abstractmethod
    def read_log(self, task_id: str, offset: int, limit_bytes: int) -> LogPiece:
        """Return output from ``offset`` on, or from the oldest that is kept; empty where there is none yet."""

    @abstractmethod
    async def remove(self, task_id: str) -> None:
        """Delete what is left of a task that has ended."""

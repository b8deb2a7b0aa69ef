"""What a runtime promises: it knows its units, measures them and stops them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

from k12ai.runtimes.cgroups import Usage
from k12ai.texts import Text


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
    async def stop(self, container_id: str, *, grace_s: int, service_name: str | None = None) -> str:
        """Stop one unit and return its 12 digits once it is really gone.

        ``container_id`` is a full id or a unique prefix of at least 6 hex digits. The unit gets
        SIGTERM, then SIGKILL after ``grace_s`` seconds. Idempotent: a unit that has already
        stopped counts as stopped, and concurrent calls share one stop. With ``service_name``,
        only that service's units exist. Cancelling the call does not cancel the stop.

        Raises `ContainerNotFound`, and `EngineUnavailable` or `EngineTimeout` where the runtime
        cannot tell.
        """

"""Acting on containers, in whichever runtime they are."""

from collections.abc import Sequence
from typing import Protocol

from k12ai.access.principal import OPEN, Principal
from k12ai.errors import ContainerNotFound, K12AIError, Unavailable
from k12ai.models import StopParams
from k12ai.runtimes.base import Among, Runtime
from k12ai.task import Stopper
from k12ai.texts import Text


class Tasks(Protocol):
    """What has to know of a container's stop: `k12ai.tasks.manager.TaskManager`."""

    def owner_of(self, container_id: str, service_name: str | None) -> str | None:
        """Return whose task of a service a container is; None for none that lives, or an ambiguous id."""

    def note_stop(self, container_id: str, stopper: Stopper) -> None:
        """Note who is about to stop a task's container."""

    async def settled(self, container_id: str) -> None:
        """Return once what is known of a container says that it has ended."""


class Control:
    """Finds the runtime that knows a container and has it act."""

    def __init__(self, runtimes: Sequence[Runtime], tasks: Tasks | None = None) -> None:
        self._runtimes = runtimes
        self._tasks = tasks

    async def stop(
        self, params: StopParams, service_name: str | None, principal: Principal = OPEN, *, by: str = ""
    ) -> Text:
        """Stop a container; return the published sentence once it is really gone.

        With ``service_name``, only that service's containers exist, and only those of users that the
        principal acts for. ``by`` says who asks where no token does. Raises `ContainerNotFound` only
        where every runtime answered: what a runtime that is away runs is unknown, and then that
        runtime's error is raised instead.
        """
        if self._tasks is not None:
            owner = self._tasks.owner_of(params.id, service_name)
            if owner is not None and principal.acts_for(owner):
                self._tasks.note_stop(params.id, principal.stopper(owner, by))
        among = Among(service_name, principal.users)
        problem: K12AIError = ContainerNotFound(params.id)
        for runtime in self._runtimes:
            try:
                stopped = await runtime.stop(params.id, grace_s=params.timeout, among=among)
            except ContainerNotFound:
                continue
            except Unavailable as error:
                problem = error
            else:
                if self._tasks is not None:
                    await self._tasks.settled(stopped)
                return Text(f"container id {stopped} stop success", f"已停止 id 为 {stopped} 的容器")
        raise problem

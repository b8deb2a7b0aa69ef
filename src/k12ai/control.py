"""Acting on containers, in whichever runtime they are."""

from collections.abc import Awaitable, Callable, Sequence

from k12ai.errors import ContainerNotFound, K12AIError, Unavailable
from k12ai.models import StopParams
from k12ai.runtimes.base import Runtime
from k12ai.texts import Text


class Control:
    """Finds the runtime that knows a container and has it act."""

    def __init__(
        self, runtimes: Sequence[Runtime], settled: Callable[[str], Awaitable[None]] | None = None
    ) -> None:
        """``settled`` returns once what is known of a unit elsewhere says that it has ended."""
        self._runtimes = runtimes
        self._settled = settled

    async def stop(self, params: StopParams, service_name: str | None) -> Text:
        """Stop a container; return the published sentence once it is really gone.

        With ``service_name``, only that service's containers exist. Raises `ContainerNotFound` only
        where every runtime answered: what a runtime that is away runs is unknown, and then that
        runtime's error is raised instead.
        """
        problem: K12AIError = ContainerNotFound(params.id)
        for runtime in self._runtimes:
            try:
                stopped = await runtime.stop(params.id, grace_s=params.timeout, service_name=service_name)
            except ContainerNotFound:
                continue
            except Unavailable as error:
                problem = error
            else:
                if self._settled is not None:
                    await self._settled(stopped)
                return Text(f"container id {stopped} stop success", f"已停止 id 为 {stopped} 的容器")
        raise problem

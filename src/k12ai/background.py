"""Background work with an owner: it is kept running, its failures are seen, and it ends with its owner."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

import structlog

from k12ai.errors import K12AIError

T = TypeVar("T")

RESTART_S = 1.0

log = structlog.stdlib.get_logger(__name__)


class Background:
    """Owns tasks; leaving its block cancels them and waits until they are gone."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A task that ends may start another one; take turns until none is left.
        while self._tasks:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def start(self, name: str, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Run ``work`` once; the caller looks at its outcome, or it is logged when it fails."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def keep_running(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run ``work`` for ever: when it fails, log why and start it again after `RESTART_S`."""

        async def loop() -> None:
            while True:
                try:
                    await work()
                except Exception:
                    log.exception("background.failed", task=name)
                await asyncio.sleep(RESTART_S)

        self.start(name, loop())

    def _done(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        # An error of the tree is an answer, to whoever awaits the task.
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, K12AIError):
            log.error("background.failed", task=task.get_name(), exc_info=error)


async def every(interval_s: float, tick: Callable[[], Awaitable[object]]) -> None:
    """Call ``tick`` at every multiple of ``interval_s`` on the loop's clock; a late tick skips beats.

    So nothing drifts, and what has the same interval shares one waking of the process, which costs
    an idle machine more than the work itself. Ends only by cancellation or by an error of ``tick``.
    """
    loop = asyncio.get_running_loop()
    beat = int(loop.time() // interval_s)
    while True:
        # Counted, because a clock read just before a beat would give the same beat again.
        beat = max(beat, int(loop.time() // interval_s)) + 1
        await asyncio.sleep(beat * interval_s - loop.time())
        await tick()


async def until_either(one: "asyncio.Future[Any]", other: Awaitable[object]) -> None:
    """Return when either is done; ``one`` goes on where it is not."""
    others = asyncio.ensure_future(other)
    try:
        await asyncio.wait([one, others], return_when=asyncio.FIRST_COMPLETED)
    finally:
        others.cancel()


async def until_or(work: Awaitable[T], trouble: Awaitable[Exception]) -> T:
    """Return the outcome of ``work``, or raise ``trouble`` where that comes first; neither is left running."""
    working, troubled = asyncio.ensure_future(work), asyncio.ensure_future(trouble)
    try:
        await asyncio.wait([working, troubled], return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise troubled.result()
        return working.result()
    finally:
        working.cancel()
        troubled.cancel()

"""Knowing that the server is about to stop, where something waits."""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

from k12ai.errors import ServerStopping

T = TypeVar("T")


class Closing:
    """Set once, when the server was asked to stop: whoever waits answers with what there is."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._left: set[asyncio.Future[Any]] = set()

    def start(self) -> None:
        """The server stops from now on."""
        self._event.set()

    @property
    def started(self) -> bool:
        """Whether the server is stopping."""
        return self._event.is_set()

    async def wait(self) -> None:
        """Return when the server stops."""
        await self._event.wait()

    async def unless(self, work: Awaitable[T]) -> T:
        """Return what ``work`` returns, or raise `ServerStopping` if the server stops first.

        Then ``work`` is not cancelled: what was asked for goes on for as long as the process lives.
        """
        task = asyncio.ensure_future(work)
        closing = asyncio.ensure_future(self._event.wait())
        try:
            await asyncio.wait([task, closing], return_when=asyncio.FIRST_COMPLETED)
        finally:
            closing.cancel()
            if not task.done():
                self._leave(task)
        if not task.done():
            raise ServerStopping
        return task.result()

    def _leave(self, task: "asyncio.Future[Any]") -> None:
        self._left.add(task)  # the event loop itself keeps only a weak reference
        task.add_done_callback(self._left.discard)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

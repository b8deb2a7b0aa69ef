"""Knowing that the server is about to stop, where something waits."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from k12ai.errors import ServerStopping

T = TypeVar("T")


class Closing:
    """Set once, when the server was asked to stop: whoever waits answers with what there is."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

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
        """Return what ``work`` returns, or raise `ServerStopping` if the server stops first."""
        task = asyncio.ensure_future(work)
        closing = asyncio.ensure_future(self._event.wait())
        try:
            await asyncio.wait([task, closing], return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise ServerStopping
            return task.result()
        finally:
            for each in (task, closing):
                each.cancel()

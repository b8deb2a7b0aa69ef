"""The one place where blocking reads leave the event loop.

Files under ``/proc``, a dead NFS mount, the NVIDIA driver: any of them can block for ever. Each
source gets a thread of its own and a deadline, so one that hangs costs a note in the answers, not
the figures of the others.
"""

import asyncio
import concurrent.futures
import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")

_Job = tuple[Callable[[], Any], "concurrent.futures.Future[Any]"]


class Worker:
    """One thread that runs one job at a time, each with a deadline.

    It is a daemon thread and not an executor's, because the interpreter waits for those at exit,
    and a job that hangs in the kernel would keep the process alive.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._current: asyncio.Future[Any] | None = None
        self._hanging = False
        self._thread: threading.Thread | None = None

    async def __aenter__(self) -> Self:
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._jobs.put(None)
        if self._thread is not None and not self._hanging:
            self._thread.join(timeout=1)

    async def run(self, job: Callable[[], T], *, deadline_s: float) -> T:
        """Run ``job`` in the thread and return its value or raise its error.

        Raises `TimeoutError` after ``deadline_s``; the job goes on in the thread, and until it
        returns every further call fails at once.
        """
        if self._hanging and self._current is not None and not self._current.done():
            raise TimeoutError(self._name)
        self._hanging = False
        try:
            async with asyncio.timeout(deadline_s):
                while self._current is not None and not self._current.done():
                    await asyncio.wait([self._current])
                self._current = self._submit(job)
                result: T = await asyncio.shield(self._current)
                return result
        except TimeoutError:
            self._hanging = True
            raise

    def _submit(self, job: Callable[[], T]) -> asyncio.Future[T]:
        inner: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._jobs.put((job, inner))
        outer = asyncio.wrap_future(inner)
        # An error that comes after the deadline has no reader any more.
        outer.add_done_callback(lambda done: done.cancelled() or done.exception())
        return outer

    def _run(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, future = item
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = job()
            except BaseException as error:  # noqa: BLE001 - handed to whoever awaits the job
                future.set_exception(error)
            else:
                future.set_result(result)

"""How many tasks of one user may wait for their turn."""

import contextlib
from collections import Counter
from collections.abc import Iterator

from k12ai.errors import QuotaExceeded
from k12ai.tasks.queue import Queue
from k12ai.texts import Text


class WaitingQuota:
    """Refuses a user's task where as many wait already; those that are being recorded count as well."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._arriving: Counter[str] = Counter()

    @contextlib.contextmanager
    def place(self, user: str, queue: Queue) -> Iterator[None]:
        """Keep a place while a task is recorded. Raises `QuotaExceeded`."""
        if self._limit is not None and queue.waiting_of(user) + self._arriving[user] >= self._limit:
            raise QuotaExceeded(
                Text(
                    f"{self._limit} tasks of {user} wait already; the next one can come when one has begun",
                    f"{user} 已有 {self._limit} 个任务在排队；其中一个开始运行后才能再提交",
                )
            )
        self._arriving[user] += 1
        try:
            yield
        finally:
            self._arriving[user] -= 1
            if not self._arriving[user]:
                del self._arriving[user]

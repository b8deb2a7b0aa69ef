"""Who waits for which key: a write wakes exactly the readers it concerns, and nobody polls."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator

MANY_KEYS = 500


class Waiter:
    """Waits for one key, or for every key below a prefix."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    async def changed(self) -> None:
        """Return after the next change since the last call."""
        await self._changed.wait()
        self._changed.clear()

    def wake(self) -> None:
        """Tell the waiter that something changed."""
        self._changed.set()


class Waiters:
    """Every waiter by the key or prefix it waits for. Used from the event loop only."""

    def __init__(self) -> None:
        self._by_key: defaultdict[str, set[Waiter]] = defaultdict(set)
        self._by_prefix: defaultdict[str, set[Waiter]] = defaultdict(set)

    @contextlib.contextmanager
    def waiting(self, key: str, *, prefix: bool) -> Iterator[Waiter]:
        """Register a waiter for as long as the block lasts."""
        table = self._by_prefix if prefix else self._by_key
        waiter = Waiter()
        table[key].add(waiter)
        try:
            yield waiter
        finally:
            table[key].discard(waiter)
            if not table[key]:
                del table[key]

    def wake(self, changed: Collection[str]) -> None:
        """Wake everyone whom a change of these keys concerns.

        For a great many keys, everyone is woken: whoever finds nothing new goes on waiting.
        """
        if len(changed) > MANY_KEYS:
            for table in (self._by_key, self._by_prefix):
                for waiters in table.values():
                    _wake_all(waiters)
            return
        for key in changed:
            if key in self._by_key:
                _wake_all(self._by_key[key])
            if self._by_prefix:
                self._wake_prefixes_of(key)

    def _wake_prefixes_of(self, key: str) -> None:
        # A look-up for each of the key's own prefixes: its cost does not grow with the waiters.
        for length in range(len(key) + 1):
            if (prefix := key[:length]) in self._by_prefix:
                _wake_all(self._by_prefix[prefix])

    def __len__(self) -> int:
        tables = (self._by_key, self._by_prefix)
        return sum(len(waiters) for table in tables for waiters in table.values())


def _wake_all(waiters: Iterable[Waiter]) -> None:
    for waiter in waiters:
        waiter.wake()

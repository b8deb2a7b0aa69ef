"""Who waits for which key: a write wakes exactly the readers it concerns, and nobody polls."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterable, Iterator


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

    def wake(self, changed: Iterable[str]) -> None:
        """Wake everyone whom a change of these keys concerns."""
        for key in changed:
            if key in self._by_key:
                for waiter in self._by_key[key]:
                    waiter.wake()
            if self._by_prefix:
                self._wake_prefixes_of(key)

    def _wake_prefixes_of(self, key: str) -> None:
        # A look-up for each of the key's own prefixes: its cost does not grow with the waiters.
        for length in range(len(key) + 1):
            if (prefix := key[:length]) in self._by_prefix:
                for waiter in self._by_prefix[prefix]:
                    waiter.wake()

    def __len__(self) -> int:
        tables = (self._by_key, self._by_prefix)
        return sum(len(waiters) for table in tables for waiters in table.values())

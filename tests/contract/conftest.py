"""Every store passes the same suite; a new one is a line here."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from k12ai.stores.base import Store
from k12ai.stores.sql import SqlStore

OpenStore = Callable[[], AbstractAsyncContextManager[Store]]

STORES: dict[str, Callable[[Path], AbstractAsyncContextManager[Store]]] = {"sqlite": SqlStore}


@pytest.fixture(name="open_store", params=sorted(STORES))
def _open_store(request: pytest.FixtureRequest, tmp_path: Path) -> OpenStore:
    """Open the store; opening it again finds the same data."""
    return lambda: STORES[request.param](tmp_path / "store")


@pytest.fixture(name="store")
async def _store(open_store: OpenStore) -> AsyncIterator[Store]:
    async with open_store() as store:
        yield store

"""Fixtures of the long runs."""

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.long.site import RUNTIMES, VARIANTS, Site
from tests.support.server import Server


@pytest.fixture(name="site", params=RUNTIMES)
def _site(
    request: pytest.FixtureRequest, tmp_path: Path, start_server: Callable[..., Server]
) -> Iterator[Site]:
    """A data directory for servers and the tasks that outlive them; nothing of it lives on after the test."""
    variant = VARIANTS[request.param]
    for name in variant.needs:
        request.getfixturevalue(name)
    site = Site(tmp_path, start_server, variant)
    yield site
    site.clear()


@pytest.fixture(name="dice")
def _dice(record_property: Callable[[str, object], None]) -> random.Random:
    """Chance that is another one each time, and can be had again: `TORTURE_SEED=… make torture`."""
    seed = int(os.environ.get("TORTURE_SEED") or random.SystemRandom().randrange(1 << 32))
    record_property("seed", seed)
    return random.Random(seed)

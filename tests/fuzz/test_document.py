"""The OpenAPI document has every route that the server has, and no other."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from k12ai import app
from k12ai.api.application import Routes, Walls, application
from k12ai.api.openapi import document
from k12ai.api.wire import HttpApp
from k12ai.closing import Closing
from k12ai.settings import Settings

# The page, and what it is made of: for people and for the page itself.
UNDOCUMENTED = {"/docs", "/docs/rapidoc-min.js", "/docs/openapi.json"}
METHODS = {"get", "head", "post", "put", "patch", "delete"}


@pytest.fixture(name="routes")
async def _routes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Routes:
    """What a server serves, as the composition root has it."""
    found: list[Routes] = []

    def listen_in(walls: Walls, routes: Routes) -> HttpApp:
        found.append(routes)
        return application(walls, routes)

    monkeypatch.setattr(app, "application", listen_in)
    settings = Settings(data_dir=str(tmp_path / "data"), docker_host="unix:///nonexistent/docker.sock")
    async with app.opened(settings, Closing()):
        pass
    return found[0]


def documented() -> set[tuple[str, str]]:
    """Return the paths and methods of the document."""
    return {
        (path, method)
        for path, operations in document()["paths"].items()
        for method in METHODS & set(operations)
    }


def handled(routes: Routes) -> Iterator[tuple[str, str]]:
    """Yield the paths and methods that are the framework's, with parameters as the document has them."""
    for handler in routes.handlers:
        for path, method in itertools.product(handler.paths, handler.http_methods):
            if path not in UNDOCUMENTED:
                yield path.replace(":str}", "}"), method.lower()


def test_every_published_path_is_documented(routes: Routes) -> None:
    """A path of the published interface takes POST and is in the document."""
    assert {(path, "post") for path in routes.published} <= documented()


def test_every_handler_is_documented_with_its_methods(routes: Routes) -> None:
    """A route of the framework is in the document with each of its methods."""
    assert set(handled(routes)) <= documented()


def test_every_mount_is_documented(routes: Routes) -> None:
    """Whatever serves paths of its own has some in the document."""
    for mount in routes.mounts:
        assert any(mount.serves(scope_of(path)) for path, _ in documented()), mount


def test_every_documented_path_is_served(routes: Routes) -> None:
    """The document has no path that nobody serves."""
    exact = {(path, "post") for path in routes.published} | set(handled(routes))
    mounted = {
        (path, method) for path, method in documented() if any(m.serves(scope_of(path)) for m in routes.mounts)
    }
    assert documented() - mounted == exact


def scope_of(path: str) -> Any:
    """Return as much of a request as tells whose it is."""
    return {"path": path, "raw_path": path.encode()}

"""The OpenAPI document has every route that the server has, and no other."""

from k12ai.api.application import Routes
from k12ai.api.openapi import document
from tests.support.routes import handled, scope_of

# The page, and what it is made of: for people and for the page itself.
UNDOCUMENTED = {"/docs", "/docs/rapidoc-min.js", "/docs/openapi.json"}
METHODS = {"get", "head", "post", "put", "patch", "delete"}


def documented() -> set[tuple[str, str]]:
    """Return the paths and methods of the document."""
    return {
        (path, method)
        for path, operations in document()["paths"].items()
        for method in METHODS & set(operations)
    }


def shown(routes: Routes) -> set[tuple[str, str]]:
    """Return the paths and methods that are the framework's and belong into the document."""
    return {(path, method.lower()) for path, method in handled(routes) if path not in UNDOCUMENTED}


def test_every_published_path_is_documented(routes: Routes) -> None:
    """A path of the published interface takes POST and is in the document."""
    assert {(path, "post") for path in routes.published} <= documented()


def test_every_handler_is_documented_with_its_methods(routes: Routes) -> None:
    """A route of the framework is in the document with each of its methods."""
    assert shown(routes) <= documented()


def test_every_mount_is_documented(routes: Routes) -> None:
    """Whatever serves paths of its own has some in the document."""
    for mount in routes.mounts:
        assert any(mount.serves(scope_of(path)) for path, _ in documented()), mount


def test_every_documented_path_is_served(routes: Routes) -> None:
    """The document has no path that nobody serves."""
    exact = {(path, "post") for path in routes.published} | shown(routes)
    mounted = {
        (path, method) for path, method in documented() if any(m.serves(scope_of(path)) for m in routes.mounts)
    }
    assert documented() - mounted == exact

"""The routes of a server: as the composition root has them, and as a request names them."""

import itertools
from collections.abc import Iterator
from typing import Any

from k12ai.api.application import Routes


def handled(routes: Routes) -> Iterator[tuple[str, str]]:
    """Yield the paths and methods that are the framework's, with parameters as the document has them."""
    for handler in routes.handlers:
        for path, method in itertools.product(handler.paths, handler.http_methods):
            yield path.replace(":str}", "}"), str(method)


def scope_of(path: str) -> Any:
    """Return as much of a request as tells whose it is."""
    return {"path": path, "raw_path": path.encode()}

"""K12AI: a platform for AI teaching on shared machines."""

from k12ai._version import __version__

TYPE_CHECKING = False  # every task imports this package, and `typing` takes long

if TYPE_CHECKING:
    from typing import Any

    from k12ai.client import Client, RequestRefused, ServerUnreachable, TaskFailed

__all__ = ["Client", "RequestRefused", "ServerUnreachable", "TaskFailed", "__version__"]


def __getattr__(name: str) -> "Any":
    # Late, because the server and the tasks import this package too and need no HTTP client.
    if name in ("Client", "RequestRefused", "ServerUnreachable", "TaskFailed"):
        from k12ai import client

        return getattr(client, name)
    raise AttributeError(name)

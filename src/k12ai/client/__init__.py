"""The other end of the wire."""

from k12ai.client.client import Client
from k12ai.client.errors import ClientError, RequestRefused, ServerUnreachable
from k12ai.client.tasks import TaskFailed, TaskHandle

__all__ = ["Client", "ClientError", "RequestRefused", "ServerUnreachable", "TaskFailed", "TaskHandle"]

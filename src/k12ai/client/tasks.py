"""A task in the hands of whoever submitted it: look, follow, wait, stop."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from k12ai.client.errors import ClientError
from k12ai.task import Message, MessageType, Task

if TYPE_CHECKING:
    from k12ai.client.client import Client

# One blocking read; a longer wait is made of several, so that a dead connection is noticed.
LONGEST_READ_S = 30.0
# While a task waits for its turn, where it stands is worth a look as often as this.
STANDING_S = 2.0


class TaskFailed(ClientError):
    """A task has ended without what was asked of it; ``task`` tells how, ``error`` what it said last."""

    def __init__(self, task: Task, error: Any) -> None:
        words = error.get("en", "") if isinstance(error, dict) else ""
        super().__init__(f"task {task.task_id} {task.state} ({task.reason}) {words}".strip())
        self.task = task
        self.error = error


class TaskHandle:
    """One task on a server. Losing the handle changes nothing for the task."""

    def __init__(self, client: "Client", task: Task) -> None:
        self._client = client
        self._task = task

    def __repr__(self) -> str:
        task = self._task
        place = f"{task.user}/{task.service_uuid}"
        return f"<TaskHandle {task.task_id} {task.framework} {task.op} {place} {task.state}>"

    @property
    def task_id(self) -> str:
        """The task's 12 digits."""
        return self._task.task_id

    @property
    def key(self) -> str:
        """Where its messages are in the key-value store."""
        return self._task.key

    @property
    def task(self) -> Task:
        """The task as the server knows it now."""
        if not self._task.ended:
            self._task = self._client.task(self.task_id)
        return self._task

    @property
    def state(self) -> str:
        """The task's state now."""
        return self.task.state

    def messages(self, *types: MessageType, follow: bool = True) -> Iterator[Message]:
        """Yield what the task says, from its beginning, in order; with ``follow``, until it has ended.

        ``types`` are ``status metrics error result``; all of them where none is named.
        """
        for found in self._followed(*types, follow=follow):
            if isinstance(found, Message):
                yield found

    def _followed(self, *types: MessageType, follow: bool) -> Iterator[Message | Task]:
        """Yield what the task says and, as long as it waits for its turn, the task itself now and then."""
        cursor = 0
        while True:
            task = self.task  # before reading: nothing is said after the end
            if follow and task.state == "queued":
                yield task
            longest_s = STANDING_S if task.state == "queued" else LONGEST_READ_S
            wait_s = longest_s if follow and not task.ended else 0.0
            # Its state, too, whatever is asked for: the end of the task is what ends the wait.
            asked = tuple({*types, "status"}) if types and follow else types
            found = self._client.messages(self.task_id, cursor, types=asked, wait_s=wait_s)
            yield from (message for message in found.messages if not types or message.type in types)
            if not found.messages and found.cursor == cursor and (task.ended or not follow):
                return
            cursor = found.cursor

    def logs(self, *, follow: bool = False) -> Iterator[str]:
        """Yield what the task prints, in pieces; with ``follow``, until it has ended."""
        return self._client.logs(self.task_id, follow=follow)

    def wait(self, *, progress: bool = True) -> Task:
        """Return the task once it has ended, however it ended, showing how far it is meanwhile."""
        from k12ai.client.progress import show_progress

        watched = self._followed(follow=True)
        for _ in show_progress(self._task, watched) if progress else watched:
            pass
        return self.task

    def result(self, *, progress: bool = False) -> Any:
        """Wait for the task and return the last result it reported. Raises `TaskFailed`."""
        task = self.wait(progress=progress)
        last: dict[str, Any] = {}
        for message in self.messages("result", "error", follow=False):
            last[message.type] = message.body
        if task.state != "succeeded":
            raise TaskFailed(task, last.get("error"))
        return last.get("result")

    def stop(self, *, grace_s: int = 10) -> Task:
        """Have the task end, and return it once it has."""
        self._task = self._client.stop_task(self.task_id, grace_s=grace_s)
        return self._task

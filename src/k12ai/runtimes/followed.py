"""What runtimes that start tasks have in common: a directory for each task, and one follower of its life."""

import asyncio
from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

from k12ai.background import Background, until_either
from k12ai.runtimes.base import End, Launch, LogPiece, TaskRuntime
from k12ai.runtimes.task_dirs import TaskDir


class FollowedRuntime(TaskRuntime):
    """Tasks below ``data_dir/tasks``. A task is the runtime's once the file `marker` is in its directory."""

    marker: ClassVar[str]
    """The file that is written last, with which a task is taken on."""

    _background: Background  # opened by the runtime

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir.expanduser().resolve()
        self._tasks_dir = self._data_dir / "tasks"
        self._followers: dict[str, asyncio.Task[End]] = {}
        self._appeared: dict[str, asyncio.Event] = {}
        self._preparing = asyncio.Lock()

    def _make_directories(self, *, passable: bool) -> None:
        """Make the directory of tasks; ``passable`` where accounts of their own have to get to their tasks'."""
        self._tasks_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in (self._data_dir, self._tasks_dir) if passable else ():
            path.chmod(0o711)  # to be passed through, not to be listed

    @abstractmethod
    def _prepare(self, launch: Launch) -> None:
        """Write down what is to be run, `marker` last; called apart from the event loop."""

    @abstractmethod
    async def _live(self, task_id: str) -> End:
        """Start a task where it is not started yet, and return how it ended."""

    async def take_on(self, launch: Launch) -> None:
        """See `TaskRuntime.take_on`."""
        async with self._preparing:
            if not self.has(launch.task_id):
                await asyncio.to_thread(self._prepare, launch)
        self._follow(launch.task_id)

    async def started(self, task_id: str) -> None:
        """See `TaskRuntime.started`."""
        follower = self._follow(task_id)
        await until_either(follower, self._appeared[task_id].wait())

    async def wait(self, task_id: str) -> End:
        """See `TaskRuntime.wait`."""
        if not self.has(task_id):
            return End(reason="lost")
        return await asyncio.shield(self._follow(task_id))

    def has(self, task_id: str) -> bool:
        """See `TaskRuntime.has`."""
        return self._dir(task_id).has(self.marker)

    def journal_path(self, task_id: str) -> Path:
        """See `TaskRuntime.journal_path`."""
        return self._dir(task_id).journal

    def read_log(self, task_id: str, offset: int, limit_bytes: int) -> LogPiece:
        """See `TaskRuntime.read_log`."""
        return self._dir(task_id).read_log(offset, limit_bytes)

    async def remove(self, task_id: str) -> None:
        """See `TaskRuntime.remove`."""
        self._followers.pop(task_id, None)
        self._appeared.pop(task_id, None)
        await asyncio.to_thread(self._dir(task_id).remove)

    def _dir(self, task_id: str) -> TaskDir:
        return TaskDir(self._tasks_dir, task_id)

    def _follow(self, task_id: str) -> "asyncio.Task[End]":
        """Return the task that knows the end; it is started once, whoever asks first."""
        following = self._followers.get(task_id)
        if following is None or following.cancelled():
            self._appeared[task_id] = asyncio.Event()
            following = self._background.start(f"{self.name}-{task_id}", self._live(task_id))
            self._followers[task_id] = following
        return following

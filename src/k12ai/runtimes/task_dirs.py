"""The directory of a task: what its runtime wrote down before it started, and what is read while it runs.

Readers see each file whole or not at all. What a student's account may write in is the journal and, in
a container, the directory of the output; all else is the server's.
"""

import contextlib
import os
import shutil
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from k12ai.runtimes import task_log
from k12ai.runtimes.accounts import Account
from k12ai.runtimes.base import Launch, LogPiece

T = TypeVar("T")

_RM = shutil.which("rm") or "/bin/rm"
LOG_BYTES = 10 * 1024 * 1024
# What a task may put into memory as files, in its own /tmp and in /dev/shm, where PyTorch's data loaders
# hand tensors over; it counts as the task's memory.
TMP_BYTES = 1 << 30
SHM_BYTES = 1 << 30


class Kept(Struct, frozen=True):
    """``task.json``: what a runtime has to know of a task that it adopts."""

    task_id: str
    user: str
    service_uuid: str
    framework: str
    op: str
    memory_bytes: int | None
    sandboxed: bool = False
    boot_id: str = ""
    gpus: Sequence[int] = ()


class TaskDir:
    """One task's directory below those of all tasks."""

    def __init__(self, tasks_dir: Path, task_id: str) -> None:
        self.path = tasks_dir / task_id
        self.task_id = task_id
        self.journal = self.path / "journal"
        self.given = self.path / "given"  # what a task may read and not change
        self.params = self.given / "params.json"
        self.stop_file = self.given / "stop"
        self.log = self.path / "log"

    def create(self, launch: Launch, account: Account | None, *, sandboxed: bool = False) -> None:
        """Make the directory anew, with its journal and parameters, and make the project its student's own."""
        if self.path.exists():  # what is left of a server that died in here
            self.remove()
        for path in (self.path, self.given):
            path.mkdir(mode=0o711)
            path.chmod(0o711)
        for path, content in ((self.journal, b""), (self.params, launch.params)):
            _write(path, content)
            if account is not None:
                os.chown(path, *account)
        if account is not None:
            _hand_over(launch.project_dir, account)
        kept = Kept(
            launch.task_id,
            launch.user,
            launch.service_uuid,
            launch.framework,
            launch.op,
            launch.limits.memory_bytes,
            sandboxed,
            boot_id(),
            launch.gpus,
        )
        self.write("task.json", msgspec.json.encode(kept))

    def tell_stop(self, grace_s: float) -> None:
        """Tell the first process of a container to end the task, in a file that no task can change."""
        _write(self.stop_file, f"{grace_s}".encode(), mode=0o644)

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return (self.path / name).exists()

    def read(self, name: str, kind: type[T]) -> T | None:
        """Return a file's content; None where there is none, or none that can be understood."""
        try:
            return msgspec.json.decode((self.path / name).read_bytes(), type=kind)
        except (OSError, msgspec.DecodeError):
            return None

    @property
    def kept(self) -> Kept | None:
        """What was written down of the task."""
        return self.read("task.json", Kept)

    def write(self, name: str, content: bytes) -> None:
        """Write a file, complete or not at all."""
        _write(self.path / name, content)

    def read_log(self, offset: int, limit_bytes: int) -> LogPiece:
        """Return output from ``offset`` on, or from the oldest that is kept."""
        return task_log.read(self.log, offset, limit_bytes)

    def environment(self, launch: Launch) -> dict[str, str]:
        """Return what a task finds in its environment besides its PATH: nothing of the server's own."""
        found = {
            "HOME": str(launch.project_dir),
            "LANG": "C.UTF-8",
            "TMPDIR": "/tmp",  # noqa: S108 - the task has one of its own
            "XDG_CACHE_HOME": "/tmp/cache",  # noqa: S108
            "MPLCONFIGDIR": "/tmp/matplotlib",  # noqa: S108
            "PYTHONUNBUFFERED": "1",
            # Threads that spin while they wait take the processors from other tasks: measured with four
            # trainings on two processors, 130 s instead of 5 s.
            "OMP_WAIT_POLICY": "passive",
            "K12AI_JOURNAL": str(self.journal),
            "K12AI_PARAMS": str(self.params),
            "K12AI_TASK_ID": launch.task_id,
            "K12AI_OP": launch.op,
            "K12AI_USER": launch.user,
            "K12AI_UUID": launch.service_uuid,
        }
        if launch.limits.gpu_memory_bytes is not None:
            found["K12AI_GPU_MEMORY_BYTES"] = str(launch.limits.gpu_memory_bytes)
        if launch.limits.cpus is not None:  # libraries count the machine's processors, not the task's
            found["OMP_NUM_THREADS"] = str(max(1, round(launch.limits.cpus)))
        return found

    def remove(self) -> None:
        """Delete the directory with all that is in it."""
        # Not with shutil: it recurses, and a student can make directories a hundred thousand deep.
        subprocess.run([_RM, "-rf", "--", self.path], stderr=subprocess.DEVNULL, check=False)  # noqa: S603


def boot_id() -> str:
    """Return what is different after each start of the machine."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def _write(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    partial = path.with_name(f".{path.name}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(partial, flags, mode), "wb") as file:
        file.write(content)
        os.fchmod(file.fileno(), mode)  # whatever this process masks
    partial.rename(path)


def _hand_over(project_dir: Path, account: Account) -> None:
    """Make a project its student's own, with what the server had put there before the first task.

    The directory first: from then on, what is put there belongs to the student at once.
    """
    os.chown(project_dir, *account, follow_symlinks=False)
    with os.scandir(project_dir) as entries:
        if all(entry.stat(follow_symlinks=False).st_uid == account[0] for entry in entries):
            return
    for _root, directories, files, at in os.fwalk(project_dir, follow_symlinks=False):
        # Not below what is the student's: a program can have made that too deep to walk.
        directories[:] = [name for name in directories if _give(name, at, account)]
        for name in files:
            _give(name, at, account)


def _give(name: str, at: int, account: Account) -> bool:
    """Make a file or a directory an account's own, and say whether it was not before.

    Not a file with a second name: that may be the student's link to what is somebody else's.
    """
    try:
        descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
    except FileNotFoundError:  # deleted meanwhile
        return False
    try:
        found = os.fstat(descriptor)
        is_plain = stat.S_ISREG(found.st_mode) and found.st_nlink == 1
        if found.st_uid == account[0] or not (is_plain or stat.S_ISDIR(found.st_mode)):
            return False
        os.chown(f"/proc/self/fd/{descriptor}", *account)
        return True
    finally:
        os.close(descriptor)

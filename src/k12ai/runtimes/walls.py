"""The walls around a task of the process runtime, and which of them this machine lets us build.

With bubblewrap a task sees a read-only system, a private ``/tmp`` that cannot take all memory, no home
directories, nothing of the platform but its own project, no processes but its own and, unless its
framework asks for it, no network. Where the server is root, each student's tasks run under an account
of their own. Where cgroups can be made, memory and processes are capped by the kernel and counted
exactly. What is not in force is said at the start, with the reason, and in ``docs/operations.md``.
"""

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import structlog

from k12ai.runtimes.accounts import Account, account_of
from k12ai.runtimes.task_dirs import SHM_BYTES, TMP_BYTES
from k12ai.texts import Text

log = structlog.stdlib.get_logger(__name__)

# What a task has no business to see. Its interpreter and its project are put back where they are below these.
_TMP = ("/tmp", "/var/tmp")  # noqa: S108 - hidden, not used
_HIDDEN = (*_TMP, "/home", "/root", "/run", "/srv", "/mnt", "/media")

# What is made anew in a sandbox, or belongs to the state of the machine, where containers come and go.
_NOT_SYSTEM = frozenset({"/dev", "/proc", "/var", *_HIDDEN})


class Wall(NamedTuple):
    """One kind of protection: whether it is in force, and if not, why."""

    name: Text
    in_force: bool
    reason: Text


class Walls:
    """What stands around each task on this machine."""

    def __init__(self, data_dir: Path, *, cgroups: Wall, sandbox: bool = True) -> None:
        self._data_dir = data_dir
        self._limits_tmp = sandbox and _bwrap_works(*_tmpfs(_TMP[0], "1777", TMP_BYTES))
        self._bwrap = shutil.which("bwrap") if self._limits_tmp or (sandbox and _bwrap_works()) else None
        self._setpriv = shutil.which("setpriv")
        self._root = os.geteuid() == 0
        self.sandboxed = self._bwrap is not None
        self._own_accounts, why = self._may_use_own_accounts()
        self.all = (
            Wall(
                Text("sandbox (bubblewrap)", "沙箱（bubblewrap）"),
                self.sandboxed,
                Text(
                    "bubblewrap is not installed or may not make namespaces here",
                    "未安装 bubblewrap，或此处不允许创建命名空间",
                ),
            ),
            Wall(
                Text("a limit of the private /tmp (bubblewrap 0.7)", "私有 /tmp 的容量限制（bubblewrap 0.7）"),
                self._limits_tmp,
                Text(
                    "there is no sandbox, or its bubblewrap is older and cannot limit it",
                    "没有沙箱，或 bubblewrap 版本较旧，无法限制",
                ),
            ),
            Wall(Text("an account for each student", "每个学生独立账户"), self._own_accounts, why),
            cgroups,
        )

    def account(self, number: int) -> Account | None:
        """Return the uid and gid of the user with this number, None where all share the server's account."""
        return account_of(number) if self._own_accounts else None

    def command(
        self,
        program: Sequence[str],
        *,
        project_dir: Path,
        readable: Sequence[Path],
        writable: Sequence[Path],
        account: Account | None,
        network: bool,
        gpus: bool = False,
    ) -> list[str]:
        """Return the command that runs ``program`` inside the walls."""
        inner = [*self._as_account(account), *program]
        if self._bwrap is None:
            return inner
        return [
            self._bwrap,
            *self._view(project_dir, readable, writable, network=network, gpus=gpus),
            # Of a server that is root and has no setpriv, which drops them; it needs them to do so.
            *(("--cap-drop", "ALL", "--ro-bind", "/proc/sys", "/proc/sys") if account is None else ()),
            "--",
            *inner,
        ]

    def _as_account(self, account: Account | None) -> list[str]:
        if account is None or self._setpriv is None:
            return []
        uid, gid = account
        return [
            *(self._setpriv, f"--reuid={uid}", f"--regid={gid}", "--clear-groups"),
            *("--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--"),
        ]

    def _view(
        self,
        project_dir: Path,
        readable: Sequence[Path],
        writable: Sequence[Path],
        *,
        network: bool,
        gpus: bool,
    ) -> Iterator[str]:
        yield from (*_system(), "--dev", "/dev", "--proc", "/proc")
        for device in sorted(Path("/dev").glob("nvidia*")) if gpus else ():
            yield from ("--dev-bind-try", str(device), str(device))
        yield from ("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try")
        yield from ("--new-session", "--die-with-parent")
        if not network:
            yield "--unshare-net"
        hidden = [*(path for path in _HIDDEN if os.path.isdir(path)), str(self._data_dir)]
        hidden.sort()
        for each in hidden:
            mode = "1777" if each in _TMP else "0755"
            yield from (*_parents(each, hidden), *_tmpfs(each, mode, TMP_BYTES if self._limits_tmp else None))
        yield from _tmpfs("/dev/shm", "1777", SHM_BYTES if self._limits_tmp else None)  # noqa: S108 - its own
        for path in (*_interpreter(), *readable):
            if _below(str(path), (*hidden, *_NOT_SYSTEM)):
                yield from (*_parents(str(path), hidden), "--ro-bind", str(path), str(path))
        for path in (project_dir, *writable):
            yield from (*_parents(str(path), hidden), "--bind", str(path), str(path))
        # Where the task's account is the server's own, these are its to write in.
        for each in ("/", "/dev", *(path for path in hidden if path not in _TMP)):
            yield from ("--remount-ro", each)
        yield from ("--chdir", str(project_dir))

    def _may_use_own_accounts(self) -> tuple[bool, Text]:
        if not self._root:
            return False, Text("the server is not root", "服务器不是以 root 身份运行")
        if self._setpriv is None:
            return False, Text("setpriv (util-linux) is not installed", "未安装 setpriv（util-linux）")
        if self.sandboxed:
            return True, Text("", "")
        # Without a sandbox, the account itself has to get to its interpreter and its project.
        for path in (*_interpreter(), self._data_dir):
            for place in (path, *path.parents):
                if not place.stat().st_mode & 0o001 and place != self._data_dir:
                    return False, Text(f"other accounts cannot enter {place}", f"其他账户无法进入 {place}")
        return True, Text("", "")


def _bwrap_works(*options: str) -> bool:
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        return False
    view = (*_system(), "--proc", "/proc", "--dev", "/dev")
    probe = (bwrap, *view, *options, "--unshare-pid", "--unshare-net", "--remount-ro", "/", "true")
    try:
        child = os.posix_spawn(bwrap, probe, os.environ, file_actions=_quiet())
    except OSError:
        return False
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _system() -> Iterator[str]:
    """Yield what shows the system, read-only.

    Not all of ``/`` at once: bubblewrap then goes through every mount below it, and fails when one of them,
    such as that of a container that starts or ends meanwhile, is gone before it gets there.
    """
    with os.scandir("/") as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_symlink():
                yield from ("--symlink", os.readlink(entry.path), entry.path)
            elif entry.is_dir() and entry.path not in _NOT_SYSTEM:
                yield from ("--ro-bind", entry.path, entry.path)


def _tmpfs(path: str, mode: str, size: int | None) -> tuple[str, ...]:
    limit = () if size is None else ("--size", str(size))
    return ("--perms", mode, *limit, "--tmpfs", path)


def _quiet() -> list[tuple[int, int, str, int, int]]:
    return [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1, 2)]


def _interpreter() -> tuple[Path, ...]:
    """Return where the interpreter, its libraries and this package are."""
    package = Path(__file__).resolve().parents[2]
    found = {Path(sys.prefix), Path(sys.base_prefix), package}
    return tuple(sorted(found))


def _below(path: str, hidden: Sequence[str]) -> bool:
    return any(path == each or path.startswith(each.rstrip("/") + "/") for each in hidden)


def _parents(path: str, hidden: Sequence[str]) -> Iterator[str]:
    """Yield the directories above ``path`` that a hidden one has swallowed, so that others can pass."""
    for parent in reversed(Path(path).parents):
        if _below(str(parent), hidden) and str(parent) not in hidden:
            yield from ("--perms", "0755", "--dir", str(parent))


def say_walls(walls: Walls) -> None:
    """Write into the log which walls stand around the tasks of this server, and which do not and why."""
    for wall in walls.all:
        if wall.in_force:
            log.info("wall.in_force", wall=wall.name.en)
        else:
            log.warning("wall.missing", wall=wall.name.en, reason=wall.reason.en)

"""The shim, as a process with real tasks below it.

What needs root (a user of the task's own, cgroups, a small disk) is skipped with the reason elsewhere.
The only times asserted are the grace that is promised (reliability.md, B17 and B20) and guards against
a hang.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from k12ai.runtimes import shim
from tests.support.process import resident_bytes

SHIM = shim.__file__
HANG_S = 30
MIB = 1 << 20
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
UID = 61_000 + os.getpid() % 1000  # nobody else's: RLIMIT_NPROC counts all processes of a user
MEMORY_CGROUPS = Path("/sys/fs/cgroup/memory")

needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root: it gives the task another user, or mounts"
)


def until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + HANG_S
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not in {HANG_S} s: {what}"
        time.sleep(0.01)
    return value


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def write(path: Path, value: object) -> None:
    partial = path.with_suffix(".partial")
    partial.write_bytes(msgspec.json.encode(value))
    partial.rename(path)


class Task:
    """A task's directory, and the shim over it once `start` was called."""

    def __init__(self, directory: Path, argv: Sequence[str], changes: dict[str, Any]) -> None:
        self.directory = directory
        self.shim_pid = 0
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(mode=0o700)
        spec: dict[str, Any] = {
            "argv": argv,
            "env": ENVIRONMENT,
            "cwd": "/",
            "uid": None,
            "gid": None,
            "wall_time_s": None,
            "grace_s": 10,
            "log_bytes": 10 * MIB,
            "rlimits": {"nofile": 1024, "nproc": None, "data_bytes": None, "core": 0, "fsize_bytes": None},
            "cgroups": [],
        }
        write(directory / "spec.json", spec | changes)

    def start(self, command: list[str] | None = None, *, pass_fds: tuple[int, ...] = ()) -> "Task":
        command = command or [sys.executable, "-I", "-S", SHIM, str(self.directory)]
        self._process = subprocess.Popen(command, env={}, start_new_session=True, pass_fds=pass_fds)
        self.shim_pid = self._process.pid
        return self

    @property
    def identity(self) -> dict[str, Any]:
        path = self.directory / "shim.json"
        until(path.exists, "shim.json")
        found: dict[str, Any] = msgspec.json.decode(path.read_bytes())
        return found

    def printed(self, text: bytes) -> "Task":
        until(lambda: text in self.log(), f"the task prints {text!r}")
        return self

    def log(self) -> bytes:
        pieces = []
        for path in self.segments():
            with contextlib.suppress(FileNotFoundError):  # it has just become too old
                pieces.append(path.read_bytes())
        return b"".join(pieces)

    def segments(self) -> list[Path]:
        return sorted((self.directory / "log").glob("*"))

    def stop(self, grace_s: float) -> "Task":
        write(self.directory / "stop.json", {"grace_s": grace_s})
        os.kill(self.shim_pid, signal.SIGTERM)
        return self

    def exit_code_of_shim(self) -> int:
        assert self._process is not None
        return self._process.wait(HANG_S)

    def end(self) -> dict[str, Any]:
        assert self.exit_code_of_shim() == 0
        found: dict[str, Any] = msgspec.json.decode((self.directory / "exit.json").read_bytes())
        return found

    def clean_up(self) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            self.stop(0)
        self._process.wait(HANG_S)


@pytest.fixture(name="make")
def _make(tmp_path: Path) -> Iterator[Callable[..., Task]]:
    made: list[Task] = []

    def make(*argv: str, **changes: Any) -> Task:
        made.append(Task(tmp_path / f"task{len(made)}", argv, changes))
        return made[-1]

    yield make
    for task in made:
        task.clean_up()


@pytest.fixture(name="shell")
def _shell(make: Callable[..., Task]) -> Callable[..., Task]:
    return lambda script, **changes: make("/bin/sh", "-c", script, **changes)


@pytest.fixture(name="python")
def _python(make: Callable[..., Task]) -> Callable[..., Task]:
    return lambda script, **changes: make(sys.executable, "-I", "-S", "-c", script, **changes)


Start = Callable[..., Task]


# --- how a task ends ------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_an_exit_code_is_recorded(shell: Start, code: int) -> None:
    end = shell(f"exit {code}").start().end()
    assert (end["exit_code"], end["signal"], end["reason"]) == (code, None, "exited")
    assert (end["killed"], end["oom"], end["survivors"], end["detail"]) == (False, False, [], "")
    assert end["started_at"] <= end["ended_at"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_the_signal_that_ended_a_task_is_recorded(shell: Start, number: signal.Signals) -> None:
    end = shell(f"kill -{int(number)} $$").start().end()
    assert (end["exit_code"], end["signal"], end["reason"], end["killed"]) == (None, number, "signal", False)


def test_the_time_and_the_memory_that_a_task_took_are_recorded(python: Start) -> None:
    end = python("b = bytearray(64 << 20)\nfor _ in range(3_000_000): pass").start().end()
    assert end["cpu_s"] > 0.01
    assert end["max_rss_bytes"] > 64 * MIB


@pytest.mark.parametrize(
    ("argv0", "code", "text"),
    [
        ("/nowhere/program", 127, "No such file or directory"),
        ("no-such-program", 127, "not found in PATH"),
        ("/etc/passwd", 126, "Permission denied"),
        ("/etc", 126, "Permission denied"),
    ],
)
def test_a_program_that_cannot_be_started_is_told_from_one_that_failed(
    make: Start, argv0: str, code: int, text: str
) -> None:
    end = make(argv0).start().end()
    assert (end["exit_code"], end["reason"]) == (code, "start_failed")
    assert end["detail"] == f"exec {argv0}: {text}"


def test_a_file_that_is_no_program_is_said_to_be_none(make: Start, tmp_path: Path) -> None:
    program = tmp_path / "程序"
    program.write_bytes(b"\0\1\2\3")
    program.chmod(0o755)
    end = make(str(program)).start().end()
    assert (end["exit_code"], end["reason"]) == (126, "start_failed")
    assert end["detail"] == f"exec {program}: Exec format error"


def test_a_directory_that_is_not_there_is_no_missing_program(shell: Start) -> None:
    end = shell("exit 0", cwd="/nowhere").start().end()
    assert end["reason"] == "start_failed"
    assert end["detail"] == "cwd /nowhere: No such file or directory"


@pytest.mark.parametrize(
    "change", [{"argv": []}, {"argv": [1]}, {"env": None}, {"uid": -1}, {"wall_time_s": "x"}]
)
def test_a_specification_that_makes_no_sense_is_a_failed_start(shell: Start, change: dict[str, Any]) -> None:
    end = shell("exit 0", **change).start().end()
    assert (end["reason"], end["exit_code"], end["started_at"]) == ("start_failed", None, None)
    assert end["detail"].startswith("spec.json: ")


def test_a_task_is_started_once_in_a_directory(shell: Start) -> None:
    task = shell("exit 3").start()
    first = task.end()
    assert task.start().exit_code_of_shim() == 2
    assert msgspec.json.decode((task.directory / "exit.json").read_bytes()) == first


def test_a_directory_that_others_can_write_in_is_refused(shell: Start) -> None:
    task = shell("exit 0")
    task.directory.chmod(0o777)
    end = task.start().end()
    assert (end["reason"], end["detail"]) == ("start_failed", "others can write in the task's directory")


# --- what a task finds ----------------------------------------------------------------------------


def test_a_task_has_its_environment_and_nothing_else(make: Start) -> None:
    task = make("env", env=ENVIRONMENT | {"NAME": "学生"}).start()
    assert task.end()["exit_code"] == 0
    assert sorted(task.log().splitlines()) == [
        "NAME=学生".encode(),
        b"PATH=/usr/local/bin:/usr/bin:/bin",
    ]


def test_a_task_has_no_descriptors_but_the_three(python: Start) -> None:
    inherited = os.open("/dev/zero", os.O_RDONLY)
    task = python(
        "import os\nfor n in sorted(os.listdir('/proc/self/fd'), key=int):\n"
        "    try: print(n, os.readlink(f'/proc/self/fd/{n}'))\n"
        "    except FileNotFoundError: pass  # the one that was listed with"
    ).start(pass_fds=(inherited,))
    os.close(inherited)
    assert task.end()["exit_code"] == 0
    found = [line.split() for line in task.log().decode().splitlines()]
    assert [number for number, _ in found] == ["0", "1", "2"]
    assert found[0][1] == "/dev/null"
    assert found[1][1] == found[2][1]
    assert found[1][1].startswith("pipe:")


def test_a_task_has_a_session_and_all_signals_of_its_own(python: Start) -> None:
    # SIG_IGN would survive exec; Python itself ignores SIGPIPE and SIGXFSZ, so the kernel is asked.
    task = python(
        "import os\nprint(os.getsid(0) == os.getpgrp() == os.getpid(), os.getcwd(), flush=True)\n"
        "os.execv('/bin/grep', ['grep', '-E', 'Sig(Ign|Blk)|NoNewPrivs', '/proc/self/status'])",
        cwd="/usr",
    ).start()
    assert task.end()["exit_code"] == 0
    first, *lines = task.log().decode().splitlines()
    assert first == "True /usr"
    status = {name: int(value, 16) for name, value in (line.split(":") for line in lines)}
    pythons_own = 1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1)
    # Its posix_spawn leaves these ignored where an ancestor used them, and lets nobody set them.
    libcs_own = 1 << (32 - 1) | 1 << (33 - 1)
    assert status["SigIgn"] & ~pythons_own & ~libcs_own == 0
    assert (status["SigBlk"], status["NoNewPrivs"]) == (0, 1)


def test_a_pipe_in_a_task_ends_as_it_does_anywhere(shell: Start) -> None:
    task = shell("yes | head -n 1; trap").start()
    assert task.end()["exit_code"] == 0
    assert task.log() == b"y\n"  # no "Broken pipe": SIGPIPE is not ignored


def test_limits_are_in_force(python: Start) -> None:
    limits = {"nofile": 100, "nproc": None, "data_bytes": 256 * MIB, "core": 0, "fsize_bytes": 5}
    task = python(
        "from resource import *\n"
        "print([getrlimit(n) for n in (RLIMIT_NOFILE, RLIMIT_CORE, RLIMIT_FSIZE, RLIMIT_DATA)])\n"
        "try: bytearray(300 << 20)\nexcept MemoryError: print('no memory')",
        rlimits=limits,
    ).start()
    assert task.end()["exit_code"] == 0
    sizes = (100, 0, 5, 256 * MIB)
    assert task.log().decode() == f"{[(size, size) for size in sizes]}\nno memory\n"


@needs_root
def test_a_task_becomes_its_user_for_good(make: Start) -> None:
    script = "id -u; id -g; id -G; grep -E 'Uid|Gid|CapEff|CapPrm' /proc/self/status; cat spec.json"
    task = make("/bin/sh", "-c", script, uid=UID, gid=UID).start()
    task.end()
    lines = task.log().decode().splitlines()
    assert lines[:3] == [str(UID)] * 3
    assert lines[3].split()[1:] == lines[4].split()[1:] == [str(UID)] * 4
    assert [int(line.split()[1], 16) for line in lines[5:7]] == [0, 0]


@needs_root
def test_a_task_with_a_user_of_its_own_cannot_touch_its_shim(make: Start) -> None:
    script = "kill -9 $PPID; ls /proc/$PPID/fd; exit 5"
    task = make("/bin/sh", "-c", script, uid=UID, gid=UID).start()
    assert task.end()["exit_code"] == 5
    assert task.log().count(b"not permitted") + task.log().count(b"ermission denied") == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root may become anybody")
def test_a_user_that_cannot_be_become_is_a_failed_start(shell: Start) -> None:
    end = shell("exit 0", uid=os.getuid() + 1).start().end()
    assert (end["reason"], end["exit_code"]) == ("start_failed", 126)


# --- stopping -------------------------------------------------------------------------------------


def test_a_task_that_traps_term_keeps_its_exit_code(shell: Start) -> None:
    task = shell("trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done").start().printed(b"ready")
    begun = time.monotonic()
    end = task.stop(10).end()
    assert time.monotonic() - begun < 1
    assert (end["exit_code"], end["signal"], end["reason"], end["killed"]) == (7, None, "stopped", False)


def test_a_task_that_ends_well_on_term_was_stopped_all_the_same(python: Start) -> None:
    script = (
        "import signal, sys, time\nsignal.signal(15, lambda *_: sys.exit(0))\n"
        "print('ready', flush=True)\ntime.sleep(99)"
    )
    end = python(script).start().printed(b"ready").stop(10).end()
    assert (end["exit_code"], end["reason"], end["killed"]) == (0, "stopped", False)


def test_a_task_that_heeds_term_is_not_killed(make: Start) -> None:
    task = make("sleep", "99").start()
    assert task.identity
    end = task.stop(10).end()
    assert (end["exit_code"], end["signal"], end["reason"]) == (None, signal.SIGTERM, "stopped")
    assert not end["killed"]


def test_a_task_that_ignores_term_is_killed_when_the_grace_is_over(shell: Start) -> None:
    task = shell("trap '' TERM; echo ready; while :; do sleep 0.05; done").start().printed(b"ready")
    begun = time.monotonic()
    end = task.stop(1).end()
    assert 1 <= time.monotonic() - begun <= 2
    assert (end["exit_code"], end["signal"], end["reason"]) == (None, signal.SIGKILL, "stopped")
    assert end["killed"]
    assert not end["oom"]


def test_a_stop_without_a_file_has_the_grace_of_the_specification(shell: Start) -> None:
    task = shell("trap '' TERM; echo ready; exec sleep 99", grace_s=0.5).start().printed(b"ready")
    begun = time.monotonic()
    os.kill(task.shim_pid, signal.SIGTERM)
    end = task.end()
    assert 0.5 <= time.monotonic() - begun <= 1.5
    assert (end["reason"], end["killed"]) == ("stopped", True)


def test_a_second_stop_can_shorten_the_wait_but_not_lengthen_it(shell: Start) -> None:
    task = shell("trap '' TERM; echo ready; exec sleep 99").start().printed(b"ready")
    begun = time.monotonic()
    task.stop(60)
    time.sleep(0.1)
    task.stop(0.5)
    time.sleep(0.1)
    end = task.stop(60).end()
    assert 0.5 <= time.monotonic() - begun <= 2
    assert (end["reason"], end["killed"]) == ("stopped", True)


def test_a_stopped_process_heeds_a_stop(shell: Start) -> None:
    task = shell("trap 'exit 7' TERM; echo ready; kill -STOP $$; sleep 99").start().printed(b"ready")
    end = task.stop(10).end()
    assert (end["exit_code"], end["killed"]) == (7, False)


def test_what_a_task_starts_to_clean_up_is_left_to_its_work(shell: Start) -> None:
    script = "trap 'sleep 0.5; echo cleaned; exit 7' TERM; echo ready; while :; do sleep 0.05; done"
    task = shell(script).start().printed(b"ready")
    assert task.stop(10).end()["exit_code"] == 7
    assert b"cleaned" in task.log()


def test_a_program_below_a_shell_has_the_whole_grace(shell: Start, tmp_path: Path) -> None:
    # The shell dies of SIGTERM at once; what it ran is still saving its work.
    script = f"""{sys.executable} -I -S -c '
import signal, sys, time
def save(*_):
    time.sleep(0.5)
    print("saved", flush=True)
    sys.exit(0)
signal.signal(15, save)
print("ready", flush=True)
time.sleep(99)'; exit 1"""
    task = shell(script).start().printed(b"ready")
    end = task.stop(10).end()
    assert (end["signal"], end["reason"], end["killed"]) == (signal.SIGTERM, "stopped", False)
    assert b"saved" in task.log()


def test_a_stop_that_is_there_before_the_start_means_that_nothing_starts(shell: Start, tmp_path: Path) -> None:
    task = shell(f"touch {tmp_path}/started")
    write(task.directory / "stop.json", {"grace_s": 1})
    end = task.start().end()
    assert (end["reason"], end["exit_code"], end["signal"], end["started_at"]) == ("stopped", None, None, None)
    assert not (tmp_path / "started").exists()
    assert not (task.directory / "shim.json").exists()


def test_sigterm_before_the_start_means_that_nothing_starts(shell: Start, tmp_path: Path) -> None:
    task = shell(f"touch {tmp_path}/started")
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        task.start()
        os.kill(task.shim_pid, signal.SIGTERM)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    assert task.end()["reason"] == "stopped"
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("after_ms", [0, 1, 5, 10, 20, 30, 50, 100])
def test_a_stop_at_any_moment_of_the_start_is_obeyed(shell: Start, after_ms: int) -> None:
    """The server's protocol: the file, then the signal; a shim that died of it has started nothing."""
    task = shell("sleep 99 & exec sleep 99").start()
    time.sleep(after_ms / 1000)
    task.stop(0)
    if task.exit_code_of_shim() == 0:
        assert task.end()["reason"] == "stopped"
        return
    assert sorted(path.name for path in task.directory.iterdir()) == ["spec.json", "stop.json"]


def test_a_time_out_ends_a_task(shell: Start) -> None:
    end = shell("trap 'exit 3' TERM; while :; do sleep 0.05; done", wall_time_s=0.5).start().end()
    assert (end["exit_code"], end["reason"], end["killed"]) == (3, "timeout", False)


def test_a_time_out_kills_when_its_grace_is_over(shell: Start) -> None:
    end = shell("trap '' TERM; exec sleep 99", wall_time_s=0.5, grace_s=0.3).start().end()
    assert (end["signal"], end["reason"], end["killed"]) == (signal.SIGKILL, "timeout", True)


def test_a_stop_after_the_time_out_shortens_the_wait_and_not_the_truth(shell: Start) -> None:
    task = shell("trap 'echo told' TERM; while :; do sleep 0.05; done", wall_time_s=0.2, grace_s=60).start()
    end = task.printed(b"told").stop(0).end()
    assert (end["reason"], end["killed"]) == ("timeout", True)


# --- nothing is left ------------------------------------------------------------------------------

ESCAPE = """
import os, signal, sys, time
def escape():
    if os.fork():
        os.wait()
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print(os.getpid(), flush=True)
    time.sleep(99)
    os._exit(0)
"""


def pids_in(task: Task, count: int) -> list[int]:
    until(lambda: len(task.log().split()) == count, f"{count} processes say who they are")
    return [int(word) for word in task.log().split()]


def test_a_daemon_that_left_its_session_does_not_outlive_a_stop(python: Start) -> None:
    task = python(ESCAPE + "escape(); time.sleep(99)").start()
    (daemon,) = pids_in(task, 1)
    assert is_alive(daemon)
    end = task.stop(0.3).end()
    assert not is_alive(daemon)
    assert (end["reason"], end["killed"], end["survivors"]) == ("stopped", True, [])


def test_a_daemon_does_not_outlive_the_first_process(python: Start) -> None:
    task = python(ESCAPE + "escape(); time.sleep(0.2); sys.exit(4)").start()
    end = task.end()
    (daemon,) = pids_in(task, 1)
    assert not is_alive(daemon)
    # The first process needed no killing, and what it left is no part of its own end.
    assert (end["exit_code"], end["reason"], end["killed"]) == (4, "exited", False)


def test_a_process_whose_first_thread_has_ended_is_killed_as_well(make: Start) -> None:
    # It looks like a zombie in /proc; its other thread runs on.
    script = ESCAPE + (
        "import ctypes, threading\n"
        "if os.fork() == 0:\n"
        "    threading.Thread(target=time.sleep, args=(99,)).start()\n"
        "    print(os.getpid(), flush=True)\n"
        "    ctypes.CDLL(None).syscall(60 if os.uname().machine == 'x86_64' else 93, 0)\n"
        "time.sleep(0.5)\n"
    )
    task = make(sys.executable, "-I", "-S", "-c", script).start()
    assert task.end()["survivors"] == []
    (pid,) = pids_in(task, 1)
    assert not Path(f"/proc/{pid}").exists()


def test_a_hundred_orphans_leave_neither_processes_nor_zombies(python: Start) -> None:
    task = python(ESCAPE + "for _ in range(100): escape()\ntime.sleep(99)").start()
    orphans = pids_in(task, 100)
    task.stop(0.2).end()
    assert [pid for pid in orphans if Path(f"/proc/{pid}").exists()] == []


def test_orphans_that_end_are_reaped_while_the_task_runs(python: Start) -> None:
    script = ESCAPE.replace("time.sleep(99)", "") + "for _ in range(100): escape()\ntime.sleep(99)"
    orphans = pids_in(python(script).start(), 100)
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in orphans), "orphans are reaped")


FORK_BOMB = "trap '' TERM; b() { b | b & }; b; echo ready; exec sleep 99"
PATIENT_BOMB = "b() { b | b & }; b; sleep 1; exit 3"


def user_processes(uid: int) -> int:
    found = 0
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            found += os.stat(f"/proc/{name}").st_uid == uid
        except OSError:
            continue
    return found


@needs_root
def test_a_fork_bomb_loses(shell: Start) -> None:
    limits = {"nofile": 1024, "nproc": 100, "core": 0}
    task = shell(FORK_BOMB, uid=UID, gid=UID, rlimits=limits).start().printed(b"ready")
    assert user_processes(UID) <= 100  # it also breaks off by itself, for a shell that cannot fork ends
    begun = time.monotonic()
    end = task.stop(0.5).end()
    assert time.monotonic() - begun <= 0.5 + 2
    assert (end["reason"], end["survivors"]) == ("stopped", [])
    assert user_processes(UID) == 0


FORKING = """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('ready', flush=True)
while True:
    try:
        if os.fork() == 0:
            os.setsid()
    except OSError:
        pass
"""


@needs_root
def test_processes_that_do_nothing_but_fork_lose(python: Start, tmp_path: Path) -> None:
    program = shutil.which("python3", path="/usr/bin")
    if program is None:
        pytest.skip("no python3 in /usr/bin, which another user could run")
    limits = {"nofile": 1024, "nproc": 100, "core": 0}
    argv = [program, "-I", "-S", "-c", FORKING]
    task = python("", argv=argv, uid=UID, gid=UID, rlimits=limits).start().printed(b"ready")
    until(lambda: user_processes(UID) > 90, "it forks")
    begun = time.monotonic()
    end = task.stop(0).end()
    assert time.monotonic() - begun <= 2
    assert end["survivors"] == []
    assert user_processes(UID) == 0


@needs_root
def test_a_fork_bomb_whose_first_process_ends_loses_as_well(shell: Start) -> None:
    limits = {"nofile": 1024, "nproc": 60, "core": 0}
    end = shell(PATIENT_BOMB, uid=UID, gid=UID, rlimits=limits).start().end()
    assert end["survivors"] == []
    assert user_processes(UID) == 0


@needs_root
def test_what_cannot_be_ended_is_named(shell: Start) -> None:
    # A shim that may not signal its task stands in for a task that sleeps in the kernel.
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("setpriv (util-linux) is not installed")
    task = shell("echo ready; exec sleep 99", uid=UID, gid=UID)
    crippled = [setpriv, "--inh-caps=-kill", "--bounding-set=-kill", "--", *by_script(task)]
    end = task.start(crippled).printed(b"ready").stop(0).end()
    pid = task.identity["pid"]
    assert (end["reason"], end["exit_code"], end["signal"], end["survivors"]) == ("stopped", None, None, [pid])
    os.kill(pid, signal.SIGKILL)


@needs_root
def test_another_task_of_the_same_user_is_not_touched(shell: Start) -> None:
    other = shell("echo ready; exec sleep 99", uid=UID, gid=UID).start().printed(b"ready")
    task = shell("echo ready; exec sleep 99", uid=UID, gid=UID).start().printed(b"ready")
    task.stop(0).end()
    assert is_alive(other.identity["pid"])


def bubblewrap() -> list[str]:
    program = shutil.which("bwrap")
    command = [program or "", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--unshare-pid"]
    if program is None or subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("bubblewrap is not installed, or may not make namespaces here")
    return command


def test_a_task_in_a_sandbox_hears_of_a_stop_and_keeps_its_exit_code(make: Start) -> None:
    script = "trap 'echo told; exit 7' TERM; echo ready; while :; do sleep 0.05; done"
    task = make(*bubblewrap(), "--die-with-parent", "--", "/bin/sh", "-c", script).start().printed(b"ready")
    end = task.stop(10).end()
    assert (end["exit_code"], end["reason"], end["killed"]) == (7, "stopped", False)
    assert b"told" in task.log()


def test_a_task_in_a_sandbox_that_ignores_term_is_killed(make: Start) -> None:
    script = "trap '' TERM; echo ready; (setsid sleep 99 &); exec sleep 99"
    task = make(*bubblewrap(), "--", "/bin/sh", "-c", script).start().printed(b"ready")
    end = task.stop(0.3).end()
    assert (end["signal"], end["reason"], end["killed"]) == (signal.SIGKILL, "stopped", True)
    assert end["survivors"] == []


# --- output ---------------------------------------------------------------------------------------


def test_output_of_both_streams_is_kept_in_order(shell: Start) -> None:
    task = shell("echo one; echo two >&2; echo three").start()
    assert task.end()["log_bytes"] == 14
    assert task.log() == b"one\ntwo\nthree\n"
    assert [path.name for path in task.segments()] == ["0000000000000000"]


def test_the_last_of_a_flood_of_output_is_kept_at_its_own_offset(shell: Start, record_property: Any) -> None:
    numbers = "awk 'BEGIN { for (i = 0; i < 12500000; i++) printf \"%015d\\n\", i }'"  # 200 MB
    task = shell(f"echo start.of.output; {numbers}; sleep 99").start().printed(b"start.of.output")
    at_first = resident_bytes(task.shim_pid)
    until(lambda: task.log().endswith(b"12499999\n"), "all is printed")
    record_property("growth_kib", (resident_bytes(task.shim_pid) - at_first) // 1024)
    assert resident_bytes(task.shim_pid) - at_first < 2 * MIB
    end = task.stop(1).end()
    assert (end["log_bytes"], end["log_lost_bytes"]) == (200_000_016, 0)
    sizes = [path.stat().st_size for path in task.segments()]
    assert 9 * MIB <= sum(sizes) <= 10 * MIB
    assert set(sizes[:-1]) == {MIB}
    oldest = int(task.segments()[0].name)
    text = task.log()
    assert oldest + len(text) == 200_000_016
    # What stands at an offset is what was printed there.
    line = (oldest - 16) // 16 + 1
    assert text[16 * line + 16 - oldest :][:16] == b"%015d\n" % line


def test_a_small_cap_is_kept_to(shell: Start) -> None:
    task = shell("head -c 1000000 /dev/zero", log_bytes=100_000).start()
    assert task.end()["log_bytes"] == 1_000_000
    assert 80_000 <= len(task.log()) <= 100_000


def test_a_task_that_closes_its_output_runs_on(python: Start) -> None:
    task = python(
        "import os\nfor n in range(3): os.close(n)\nimport time; time.sleep(0.3); os._exit(6)"
    ).start()
    assert task.end()["exit_code"] == 6


def test_what_was_printed_last_is_not_lost(shell: Start) -> None:
    task = shell("head -c 60000 /dev/zero; kill -9 $$").start()
    assert task.end()["log_bytes"] == 60_000
    assert len(task.log()) == 60_000


@pytest.fixture(name="small_disk")
def _small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "none", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a tmpfs here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


@needs_root
def test_on_a_full_disk_output_is_dropped_and_counted_and_the_end_is_recorded(
    small_disk: Path, tmp_path: Path
) -> None:
    go, done, rest = (tmp_path / name for name in ("go", "done", "rest"))
    script = (
        f"echo first; while [ ! -e {go} ]; do sleep 0.05; done; head -c 3000000 /dev/zero; touch {done};"
        f"while [ ! -e {rest} ]; do sleep 0.05; done; echo last; exit 7"
    )
    task = Task(small_disk / "task", ["/bin/sh", "-c", script], {})
    try:
        task.start().printed(b"first")
        fill(small_disk / "ballast")
        go.touch()
        until(done.exists, "the task is not held up by the disk")
        (small_disk / "ballast").unlink()
        time.sleep(0.5)  # the shim lets a full disk rest for a while
        rest.touch()
        task.printed(b"last")
        fill(small_disk / "ballast")
        end = task.end()
    finally:
        task.clean_up()
    assert (end["exit_code"], end["reason"]) == (7, "exited")
    assert end["log_bytes"] == 3_000_011
    kept = {int(path.name): path.read_bytes() for path in task.segments()}
    assert end["log_lost_bytes"] == end["log_bytes"] - sum(map(len, kept.values())) > 0
    assert kept[3_000_006] == b"last\n"


@needs_root
def test_a_task_on_a_full_disk_can_be_stopped(small_disk: Path) -> None:
    task = Task(small_disk / "task", ["/bin/sh", "-c", "echo ready; exec sleep 99"], {"grace_s": 0.2})
    try:
        task.start().printed(b"ready")
        fill(small_disk / "ballast")
        os.kill(task.shim_pid, signal.SIGTERM)  # there is no room for stop.json
        end = task.end()
    finally:
        task.clean_up()
    assert (end["reason"], end["signal"]) == ("stopped", signal.SIGTERM)


# --- cgroups --------------------------------------------------------------------------------------


def test_a_task_is_in_its_cgroups_before_it_runs_and_a_kill_for_memory_is_told(
    shell: Start, tmp_path: Path
) -> None:
    # The files of version 2, as they are documented: no kernel with them is at hand.
    (tmp_path / "cgroup.procs").touch()
    events = tmp_path / "memory.events"
    events.write_text("low 0\noom 2\noom_kill 2\noom_group_kill 0\n")
    script = f"cat {tmp_path}/cgroup.procs; echo; echo $$; echo 'oom_kill 3' > {events}"
    task = shell(script, cgroups=[str(tmp_path / "cgroup.procs")]).start()
    end = task.end()
    assert (end["exit_code"], end["oom"]) == (0, True)
    first, second = task.log().split()
    assert first == second


def test_a_kill_for_memory_before_the_task_is_not_the_tasks(shell: Start, tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").touch()
    (tmp_path / "memory.events").write_text("oom_kill 2\n")
    end = shell("kill -9 $$", cgroups=[str(tmp_path / "cgroup.procs")]).start().end()
    assert (end["signal"], end["oom"]) == (signal.SIGKILL, False)


def test_a_cgroup_that_cannot_be_joined_is_a_failed_start(shell: Start) -> None:
    end = shell("exit 0", cgroups=["/nowhere/cgroup.procs"]).start().end()
    assert (end["reason"], end["exit_code"]) == ("start_failed", 126)
    assert end["detail"] == "cgroup /nowhere/cgroup.procs: No such file or directory"


@pytest.fixture(name="memory_cgroup")
def _memory_cgroup() -> Iterator[Path]:
    place = MEMORY_CGROUPS / f"k12ai-test-shim-{os.getpid()}"
    try:
        place.mkdir()
        (place / "memory.limit_in_bytes").write_text(str(32 * MIB))
    except OSError as error:
        pytest.skip(f"no cgroup of version 1 can be made: {error}")
    yield place
    place.rmdir()


EATER = "awk 'BEGIN { s = \"x\"; while (1) s = s s }'"


@needs_root
@pytest.mark.parametrize(("then", "outcome"), [("", (None, 9, "signal")), ("; exit 5", (5, None, "exited"))])
def test_the_kernels_kill_for_memory_is_told_whoever_it_hit(
    shell: Start, memory_cgroup: Path, then: str, outcome: tuple[Any, ...]
) -> None:
    script = EATER + then if then else f"exec {EATER}"
    end = shell(script, cgroups=[str(memory_cgroup / "cgroup.procs")]).start().end()
    assert (end["exit_code"], end["signal"], end["reason"]) == outcome
    assert end["oom"]
    assert (memory_cgroup / "cgroup.procs").read_text() == ""


@needs_root
def test_a_kill_that_was_not_for_memory_is_not_called_one(shell: Start, memory_cgroup: Path) -> None:
    end = shell("kill -9 $$", cgroups=[str(memory_cgroup / "cgroup.procs")]).start().end()
    assert (end["reason"], end["oom"]) == ("signal", False)


# --- the shim itself ------------------------------------------------------------------------------

SERVER = """
import subprocess, sys, time
reader, writer = __import__("os").pipe()
shim = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=writer)
print(shim.pid, flush=True)
time.sleep(99)
"""


def test_a_task_and_its_shim_outlive_the_server(shell: Start) -> None:
    task = shell("while :; do echo on; sleep 0.05; done")
    command = [sys.executable, "-I", "-S", SHIM, str(task.directory)]
    server = subprocess.Popen([sys.executable, "-c", SERVER, *command], stdout=subprocess.PIPE)
    assert server.stdout is not None
    task.shim_pid = int(server.stdout.readline())
    identity = task.identity
    server.kill()
    server.wait()
    server.stdout.close()
    printed = len(task.log())
    until(lambda: len(task.log()) > printed, "the task prints on")
    assert identity["shim_pid"] == task.shim_pid
    for name in ("shim", "pid"):
        pid = identity["shim_pid" if name == "shim" else "pid"]
        stat = Path(f"/proc/{pid}/stat").read_text()
        assert int(stat.rpartition(")")[2].split()[19]) == identity[f"{name}_start"]
    task.stop(1)
    until((task.directory / "exit.json").exists, "exit.json")
    assert msgspec.json.decode((task.directory / "exit.json").read_bytes())["reason"] == "stopped"


@pytest.mark.parametrize("user", [None, pytest.param(UID, marks=needs_root)])
def test_a_task_does_not_live_on_without_its_shim(shell: Start, user: int | None) -> None:
    task = shell("echo ready; exec sleep 99", uid=user, gid=user).start().printed(b"ready")
    pid = task.identity["pid"]
    os.kill(task.shim_pid, signal.SIGKILL)
    until(lambda: not is_alive(pid), "the first process is killed")


def test_a_sandbox_does_not_live_on_without_its_shim(make: Start) -> None:
    command = [
        *bubblewrap(),
        "--die-with-parent",
        "--",
        "/bin/sh",
        "-c",
        "(setsid sleep 98 &); echo ready; sleep 99",
    ]
    task = make(*command).start().printed(b"ready")
    below = [pid for pid, _ in shim._descendants(task.shim_pid)]
    assert len(below) >= 4
    os.kill(task.shim_pid, signal.SIGKILL)
    until(lambda: not any(map(is_alive, below)), "all are killed")


def test_signals_other_than_term_do_not_move_the_shim(shell: Start) -> None:
    task = shell("echo ready; exec sleep 99").start().printed(b"ready")
    for number in signal.valid_signals() - shim._FAULTS - {signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM}:
        os.kill(task.shim_pid, number)
    assert is_alive(task.identity["pid"])
    assert task.stop(5).end()["reason"] == "stopped"


def by_script(task: Task, *arguments: int) -> list[str]:
    return [sys.executable, "-I", "-S", SHIM, str(task.directory), *map(str, arguments)]


def by_command(task: Task, *arguments: int) -> list[str]:
    return shim.command(str(task.directory), *arguments)


@pytest.mark.parametrize("form", [by_script, by_command])
def test_a_lock_is_kept_as_long_as_the_shim_lives_and_not_in_the_task(
    shell: Start, tmp_path: Path, form: Callable[..., list[str]]
) -> None:
    task = shell("ls -l /proc/$$/fd; echo ready; exec sleep 99")
    with (tmp_path / "lock").open("w") as lock:
        number = lock.fileno()
        task.start(form(task, number), pass_fds=(number,)).printed(b"ready")
    assert b"lock" not in task.log()
    assert os.readlink(f"/proc/{task.shim_pid}/fd/{number}") == str(tmp_path / "lock")


@pytest.mark.parametrize("form", [by_script, by_command])
def test_a_shim_is_small(shell: Start, record_property: Any, form: Callable[..., list[str]]) -> None:
    task = shell("echo ready; exec sleep 99")
    begun = time.monotonic()
    assert task.start(form(task)).identity
    record_property("start_ms", round((time.monotonic() - begun) * 1000))
    task.printed(b"ready")
    size = resident_bytes(task.shim_pid)
    record_property("rss_mib", round(size / MIB, 2))
    assert size <= 16 * MIB


def test_its_files_are_the_owners_alone(shell: Start) -> None:
    task = shell("umask; echo x").start()
    task.end()
    assert task.log() == b"0077\nx\n"
    modes = {
        path.name: path.stat().st_mode & 0o777 for path in task.directory.iterdir() if path.name != "spec.json"
    }
    assert modes == {"shim.json": 0o600, "exit.json": 0o600, "log": 0o700}
    assert task.segments()[0].stat().st_mode & 0o777 == 0o600

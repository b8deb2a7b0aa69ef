"""The small process that stands over one task of the process runtime, and outlives the server.

It is run as ``python -I -S shim.py TASK_DIR [LOCK]`` or, which is quicker, as `command` says. There is one
for every task, as containerd runs a shim for each container: what a task printed and how it ended must
not be lost because the server was restarted. So it needs nothing of the server, not even its pipes; it is
a script of the standard library alone, and imports little.

Files, in a directory that the server made and nobody else can write in. Readers see each of them whole
or not at all.

``spec.json``
    What to run; see `Spec`. An ``argv[0]`` without a slash is looked up in the PATH of ``env``.
``stop.json``
    ``{"grace_s": n}``: written by the server, which then sends SIGTERM. Where it is missing or
    cannot be read (a full disk), SIGTERM means a stop with the grace of the specification.
``shim.json``
    Who runs: written before the task's first instruction is. No task runs that is not recorded.
``log/<offset>``
    Its output: each segment is named by the offset of its first byte in all that was printed, 16
    digits. The last segments are kept; a hole between two is output that found the disk full.
``exit.json``
    How it ended, fsynced; see `Supervisor.result`. Nothing of the task is alive by then but what is named in
    ``survivors``.

A stop is never lost. The shim looks for ``stop.json`` after ``shim.json`` has been written and before
the task may run: a server that has written ``stop.json`` and then finds no ``shim.json`` knows that
the task will not start. SIGTERM before the handlers are there ends the shim with neither file, which
means the same; a server that blocks SIGTERM around the start (the mask is inherited) avoids even that.

Nothing escapes a stop. The shim is the subreaper of all that the task starts, so that a process whose
parents are gone becomes its child, whatever sessions and groups it has made; as long as one is left,
wait(2) does not say ECHILD. That, not a list of processes, is what "all ended" means here.

* A stop or a time-out sends SIGTERM, once, to every process of the task (and SIGCONT: a stopped
  process could not heed it); but not to the outer end of a sandbox, see `_to_be_told`, and not to what
  is started later, to clean up. All have the grace: a shell that dies at once does not cut short the
  program that it ran. Then SIGKILL.
* When the first process ends by itself, what it leaves behind is killed; SIGTERM is not owed to it.
* To kill, all are stopped first, until no new one is found, and then killed: a killed process would
  make room for a fork below its limit, a stopped one does not. kill(-1) is not used: another task of
  the same user is none of ours.

What it cannot do. A task of the same user, or root, can kill the shim (SIGKILL cannot be refused) or
write in its directory; a task with a user of its own can do neither. If the shim is killed, the kernel
kills the task's first process (PR_SET_PDEATHSIG), for a task without a shim has nobody to record or
stop it; but a first process that becomes another user, as setpriv(1) does, is let off by that. The others
go to init then: the server finds them by the task's cgroup or user, or they die with their PID namespace.
SIGTERM from a task of the same user is a stop: it harms itself. All else that can be ignored is.
"""

import ctypes
import errno
import json  # noqa: TID251 - standard library only: the shim must stay small
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable

if __package__:
    from k12ai.runtimes import segments
else:  # the shim as a process
    sys.path.append(os.path.dirname(os.path.abspath(__file__)))  # isolated mode leaves it out
    import segments  # type: ignore[import-not-found, no-redef]

_READ_BYTES = 1 << 16
_READS_PER_TURN = 16  # a flood of output must not keep a stop waiting
_REAPS_PER_TURN = 1000  # nor must a fork bomb
_RESERVED_BYTES = 4096
_DEFAULT_GRACE_S = 10.0
_KILL_LIMIT_S = 5.0  # a process that outlives SIGKILL for so long sleeps in the kernel
_TELL_S = 0.05
_SWEEP_S = 0.01
_SLOWEST_SWEEP_S = 0.2
_STOP_ROUNDS = 10
_LONGEST_DETAIL = 1000

_SANDBOXES = ("bwrap", "unshare")
_WALL = 0x40000000  # __WALL: children that were cloned with another exit signal, too
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_FAULTS = {
    signal.SIGABRT,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGSEGV,
    signal.SIGSYS,
    signal.SIGTRAP,
}
_RLIMITS = {
    "nofile": resource.RLIMIT_NOFILE,
    "nproc": resource.RLIMIT_NPROC,
    "core": resource.RLIMIT_CORE,
    "fsize_bytes": resource.RLIMIT_FSIZE,
    "data_bytes": resource.RLIMIT_DATA,  # the last: the child itself may be above it
}

_libc = ctypes.CDLL(None, use_errno=True)
_prctl = _libc.prctl
_prctl.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)


class Spec:
    """What is to be run: the content of ``spec.json``, checked.

    ``argv``, ``env`` (the complete environment) and ``cwd``; ``uid`` and ``gid``, null to keep the
    shim's; ``wall_time_s``, null for no limit, and ``grace_s``, from SIGTERM to SIGKILL; ``log_bytes``,
    how much of the output is kept; ``rlimits``, of which none is raised above the shim's own;
    ``cgroups``, the files that take the pid of the task before it runs.

    Raises `ValueError` that says what is wrong.
    """

    def __init__(self, content: bytes) -> None:
        try:
            raw = json.loads(content)
            self.argv = [_encoded(each) for each in raw["argv"]]
            self.env = {_encoded(name): _encoded(value) for name, value in raw["env"].items()}
            self.cwd = _encoded(raw["cwd"])
            self.uid = _integer(raw.get("uid"))
            self.gid = _integer(raw.get("gid"))
            self.wall_time_s = _seconds(raw.get("wall_time_s"))
            grace_s = _seconds(raw.get("grace_s"))
            self.grace_s = _DEFAULT_GRACE_S if grace_s is None else grace_s
            self.log_bytes = int(raw["log_bytes"])
            limits = raw.get("rlimits") or {}
            self.rlimits = [(which, _integer(limits.get(name))) for name, which in _RLIMITS.items()]
            self.cgroups = [str(each) for each in raw.get("cgroups") or ()]
            if not self.argv:
                raise ValueError("argv is empty")
        except (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
            raise ValueError(f"spec.json: {type(error).__name__}: {error}") from None


def _encoded(text: str) -> bytes:
    # Not os.fsencode: what a task is told must not depend on the locale that the server was started in.
    return text.encode("utf-8", "surrogateescape")


def _integer(value: object) -> int | None:
    if value is None or (isinstance(value, int) and value >= 0):
        return value
    raise ValueError(f"{value!r} is no count")


def _seconds(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, int | float) and value >= 0:
        return float(value)
    raise ValueError(f"{value!r} is no time")


class Supervisor:
    """Runs one task from its start until nothing of it is left."""

    def __init__(self, directory: int, spec: Spec, wake: int) -> None:
        self._directory = directory
        self._spec = spec
        self._wake = wake
        self.log = segments.Log(directory, spec.log_bytes)
        self._oom_kills = _oom_kills(spec.cgroups)
        self._output, self._output_end = os.pipe()  # the end is kept: no end of file, and never a SIGPIPE
        os.set_blocking(self._output, False)
        self._report = -1
        self._failure = b""
        self._pid = 0
        self._started_at: float | None = None
        self._cause = ""  # "stopped" or "timeout", once one of them has been begun
        self._status: int | None = None
        self._stops_heeded = 0
        self._wall_at: float | None = None
        self._kill_at: float | None = None
        self._tell_at: float | None = None
        self._sweep_at: float | None = None
        self._sweep_s = _SWEEP_S
        self._give_up_at = 0.0
        self._killed = False
        self._busy = False
        self._survivors: list[int] = []
        self._poll = select.poll()
        self._poll.register(wake, select.POLLIN)
        self._poll.register(self._output, select.POLLIN)

    def start(self) -> bool:
        """Start the task and record it, unless a stop was asked for before; say whether it runs."""
        if self._is_stop_wanted():
            self._cause = "stopped"
            return False
        gate, go = os.pipe()
        self._report, report = os.pipe()
        shim = os.getpid()
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        self._pid = os.fork()
        if self._pid == 0:
            os.close(go)
            _become_task(self._spec, gate, self._output_end, report, shim)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.close(gate)
        os.close(report)
        try:
            self._started_at = time.time()
            _publish(self._directory, "shim.json", self._identity(shim))
            if self._is_stop_wanted():
                self._cause = "stopped"
                self._call_off()
                return False
            _quietly(os.write, go, b"!")  # it fails only if somebody has killed the child meanwhile
        except OSError:
            self._call_off()
            raise
        finally:
            os.close(go)
        self._go_on()
        return True

    def run(self) -> None:
        """Return when nothing of the task is left, or what is left cannot be ended."""
        while True:
            self._wait()
            # A stop that came before the end was seen counts as one: so it is looked for first.
            self._heed_stop()
            self._heed_clock()
            if not self._reap() or not self._sweep():
                break
        self._drain()

    def abandon(self) -> None:
        """End the task because the shim itself has failed."""
        self._begin_to_kill()
        while self._reap() and self._sweep():
            time.sleep(_SWEEP_S)

    def result(self, detail: str = "") -> dict[str, object]:
        """Return how the task ended: the content of ``exit.json``.

        ``exit_code`` and ``signal`` are the first process's own, both null where none was started or its
        end was not seen. ``reason`` is exited, signal, start_failed, stopped or timeout: the last two
        where that had begun before the first process ended, however it then ended. ``killed``: SIGKILL was
        needed when the grace was over. ``oom``: the kernel killed something in the task's cgroup for
        memory, not necessarily the first process. ``log_bytes`` counts all that was printed, also
        the ``log_lost_bytes`` that the disk did not take. ``max_rss_bytes`` is that of the largest
        process, and never below the shim's own size, of which every task begins as a copy.
        """
        self._hear_failure()
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        exit_code, number = _outcome(self._status)
        return {
            "exit_code": exit_code,
            "signal": number,
            "reason": self._reason(number),
            "oom": _oom_kills(self._spec.cgroups) > self._oom_kills,
            "detail": _printable(detail or self._failure.decode("utf-8", "replace")),
            "killed": self._killed,
            "survivors": self._survivors,
            "started_at": self._started_at,
            "ended_at": time.time(),
            "cpu_s": round(usage.ru_utime + usage.ru_stime, 6),
            "max_rss_bytes": usage.ru_maxrss * 1024,
            "log_bytes": self.log.total,
            "log_lost_bytes": self.log.lost,
        }

    def _reason(self, number: int | None) -> str:
        if self._cause:
            return self._cause
        if self._failure or self._started_at is None:
            return "start_failed"
        return "exited" if number is None else "signal"

    def _identity(self, shim: int) -> dict[str, object]:
        return {
            "shim_pid": shim,
            "shim_start": _start_of(shim),
            "pid": self._pid,
            "pid_start": _start_of(self._pid),
            "started_at": self._started_at,
        }

    def _is_stop_wanted(self) -> bool:
        return _stops > self._stops_heeded or _exists(self._directory, "stop.json")

    def _call_off(self) -> None:
        # It has run nothing but the lines of this file. Not yet reaped, its pid is its own.
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        self._started_at = None

    def _go_on(self) -> None:
        os.set_blocking(self._report, False)
        self._poll.register(self._report, select.POLLIN)
        if self._spec.wall_time_s is not None:
            self._wall_at = time.monotonic() + self._spec.wall_time_s

    def _wait(self) -> None:
        moments = (self._wall_at, self._tell_at, self._kill_at, self._sweep_at)
        times = [each for each in moments if each is not None]
        timeout_ms = None
        if self._busy:
            timeout_ms = 0
        elif times:
            timeout_ms = min(86_400_000, max(0, int((min(times) - time.monotonic()) * 1000) + 1))
        self._busy = False
        for descriptor, _ in self._poll.poll(timeout_ms):
            if descriptor == self._output:
                self._read_output()
            elif descriptor == self._report:
                self._hear_failure()
            else:
                _quietly(os.read, self._wake, _READ_BYTES)

    def _read_output(self) -> bool:
        for _ in range(_READS_PER_TURN):
            try:
                output = os.read(self._output, _READ_BYTES)
            except BlockingIOError:
                return False
            self.log.write(output)
        return True

    def _drain(self) -> None:
        # Whoever writes now is a foreign process that was handed the pipe: it is not waited for.
        until = time.monotonic() + 1
        while self._read_output() and time.monotonic() < until:
            pass

    def _hear_failure(self) -> None:
        if self._report < 0:
            return
        try:
            heard = os.read(self._report, _READ_BYTES)
        except BlockingIOError:
            return
        if heard:
            self._failure += heard
            return
        if self._started_at is not None:
            self._poll.unregister(self._report)
        os.close(self._report)
        self._report = -1

    def _heed_stop(self) -> None:
        if _stops == self._stops_heeded:
            return
        self._stops_heeded = _stops
        self._end("stopped", _grace_s(self._directory, self._spec.grace_s))

    def _heed_clock(self) -> None:
        now = time.monotonic()
        if self._wall_at is not None and now >= self._wall_at:
            self._wall_at = None
            self._end("timeout", self._spec.grace_s)
        if self._tell_at is not None and now >= self._tell_at:
            self._tell()
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at = None
            self._killed = True
            self._begin_to_kill()

    def _end(self, cause: str, grace_s: float) -> None:
        """Begin to end the task; where that was begun before, only a shorter wait counts."""
        if self._sweep_at is not None:
            return
        kill_at = time.monotonic() + grace_s
        if self._cause:
            self._kill_at = kill_at if self._kill_at is None else min(self._kill_at, kill_at)
            return
        self._cause, self._kill_at = cause, kill_at
        self._tell()

    def _tell(self) -> None:
        """Send SIGTERM to the task; again soon, as long as there is nothing but a sandbox in the making."""
        processes = [each for each in _to_be_told(_descendants(os.getpid())) if not _is_sandbox(each[0])]
        for process in processes:
            _send(process, signal.SIGTERM)
            _send(process, signal.SIGCONT)
        self._tell_at = None if processes else time.monotonic() + _TELL_S

    def _begin_to_kill(self) -> None:
        now = time.monotonic()
        self._wall_at = self._tell_at = self._kill_at = None
        self._sweep_at, self._give_up_at = now, now + _KILL_LIMIT_S

    def _reap(self) -> bool:
        """Collect what has ended; False when that was the last of the task."""
        for _ in range(_REAPS_PER_TURN):
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | _WALL)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self._pid and self._status is None:
                self._status = status
                if not self._cause:
                    self._begin_to_kill()
        self._busy = True
        return True

    def _sweep(self) -> bool:
        """Kill everything that is there, when it is time to; False when it is time to give up."""
        now = time.monotonic()
        if self._sweep_at is None or now < self._sweep_at:
            return True
        if now >= self._give_up_at:
            self._survivors = [pid for pid, _ in _descendants(os.getpid()) if not _is_over(pid)]
            return False
        held: set[tuple[int, int]] = set()
        for _ in range(_STOP_ROUNDS):
            found = [each for each in _descendants(os.getpid()) if each not in held]
            if not found:
                break
            for process in found:
                _send(process, signal.SIGSTOP)
            held.update(found)
        for process in held:
            _send(process, signal.SIGKILL)
        self._sweep_at = time.monotonic() + self._sweep_s
        self._sweep_s = min(self._sweep_s * 1.5, _SLOWEST_SWEEP_S)
        return True


# The child, up to the task's own program.


def _become_task(spec: Spec, gate: int, output: int, report: int, shim: int) -> None:
    """Turn this process, just forked, into the task; never returns."""
    step = "start"
    code = 126
    try:
        _reset_signals()
        if os.read(gate, 1) != b"!":
            return  # called off, or the shim is dead: see below for how this returns
        os.setsid()
        for descriptor in (1, 2):
            os.dup2(output, descriptor)
        for path in spec.cgroups:
            step = f"cgroup {path}"
            _join(path)
        step = "user"
        _limit(spec, resource.RLIMIT_NPROC)
        _become_user(spec)
        step = "prctl"
        _control(_PR_SET_NO_NEW_PRIVS, 1)
        _control(_PR_SET_PDEATHSIG, signal.SIGKILL)  # after the user: a change of user clears it
        if os.getppid() != shim:
            return
        step = f"cwd {spec.cwd.decode('utf-8', 'replace')}"
        os.chdir(spec.cwd)
        step = "rlimits"
        _limit(spec)
        step = f"exec {spec.argv[0].decode('utf-8', 'replace')}"
        code = 127
        _execute(spec)
    except (MemoryError, OSError, OverflowError, ValueError) as error:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            code = 126
        text = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
        os.write(report, f"{step}: {text}".encode("utf-8", "replace"))
    finally:
        os._exit(code)


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        _quietly(signal.signal, number, signal.SIG_DFL)  # not SIGKILL, SIGSTOP
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _join(path: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.write(descriptor, str(os.getpid()).encode())
    finally:
        os.close(descriptor)


def _become_user(spec: Spec) -> None:
    if spec.uid is None and spec.gid is None:
        return
    if os.geteuid() == 0:
        os.setgroups(())
    if spec.gid is not None:
        os.setresgid(spec.gid, spec.gid, spec.gid)
    if spec.uid is not None:
        os.setresuid(spec.uid, spec.uid, spec.uid)


def _limit(spec: Spec, only: int | None = None) -> None:
    for which, wanted in spec.rlimits:
        if wanted is None or only not in (None, which):
            continue
        hard = resource.getrlimit(which)[1]
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(which, (limit, limit))


def _execute(spec: Spec) -> None:
    program = spec.argv[0]
    if b"/" in program:
        os.execve(program, spec.argv, spec.env)  # noqa: S606 - no shell is wanted
    refusal: OSError = FileNotFoundError(errno.ENOENT, "not found in PATH")
    for place in spec.env.get(b"PATH", b"").split(b":"):
        try:
            os.execve(place + b"/" + program, spec.argv, spec.env)  # noqa: S606 - no shell is wanted
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError as error:  # as execvp(3): another one may be allowed
            refusal = error
    raise refusal


def _control(option: int, value: int) -> None:
    if _prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


# Processes.


def _fields(pid: int | str) -> list[bytes]:
    """Return what ``/proc/pid/stat`` says after the name: field 3 of proc(5) is the first."""
    descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    try:
        # The name of the program may hold spaces and parentheses.
        return os.read(descriptor, 4096).rpartition(b")")[2].split()
    finally:
        os.close(descriptor)


def _start_of(pid: int) -> int:
    """Return when a process started, in clock ticks after the boot; with the pid, that names it."""
    return int(_fields(pid)[19])


def _is_over(pid: int) -> bool:
    try:
        fields = _fields(pid)
    except OSError:
        return True
    # A process whose first thread has ended looks like a zombie, too, while its others run on.
    return fields[0] in (b"Z", b"X") and int(fields[17]) <= 1


def _descendants(root: int) -> list[tuple[int, int]]:
    """Return pid and start time of every process below one, parents before children, zombies as well."""
    children: dict[int, list[tuple[int, int]]] = {}
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        try:
            fields = _fields(name)
            children.setdefault(int(fields[1]), []).append((int(name), int(fields[19])))
        except (OSError, IndexError):  # it has just ended
            continue
    found: list[tuple[int, int]] = []
    below = [root]
    while below:
        next_ones = children.pop(below.pop(), [])  # pop: a reused pid must not make a circle
        found += next_ones
        below += [pid for pid, _ in next_ones]
    return found


def _to_be_told(processes: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return those that SIGTERM is meant for: all but those that only stand outside of a sandbox.

    bwrap(1) and unshare(1) wait outside of the PID namespace of the program that they started, and pass
    its exit code on. SIGTERM would end them at once, and with them the program, or the knowledge of its end.
    """
    depths: dict[int, int] = {}
    outside = set()
    for pid, _ in processes:
        try:
            status = _read(None, f"/proc/{pid}/status")
        except OSError:
            continue
        fields = dict(line.split(b":", 1) for line in status.splitlines() if b":" in line)
        depths[pid] = len(fields.get(b"NSpid", b"").split())
        parent = int(fields[b"PPid"])
        if depths[pid] > depths.get(parent, depths[pid]):
            outside.add(parent)
    return [process for process in processes if process[0] not in outside]


def _is_sandbox(pid: int) -> bool:
    """Whether it makes a sandbox: outside of it SIGTERM would end it too early, inside it is not heeded."""
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/exe")) in _SANDBOXES
    except OSError:  # it has ended
        return False


def _send(process: tuple[int, int], number: int) -> None:
    """Send a signal to a process, and not to another that has its pid by now."""
    pid, start = process
    handle = -1
    try:
        try:
            handle = os.pidfd_open(pid)
        except OSError as error:
            if error.errno == errno.ESRCH:
                return
        # Read after the handle was taken: if it is the same process now, the handle is that process's.
        if _start_of(pid) != start:
            return
        if handle >= 0:
            signal.pidfd_send_signal(handle, number)
        else:  # a kernel, or a sandbox, that knows no handles
            os.kill(pid, number)
    except (OSError, IndexError):
        return  # it has ended, or is not ours to signal: then it is a survivor
    finally:
        if handle >= 0:
            os.close(handle)


def _outcome(status: int | None) -> tuple[int | None, int | None]:
    if status is None:
        return None, None
    if os.WIFSIGNALED(status):
        return None, os.WTERMSIG(status)
    return os.WEXITSTATUS(status), None


def _oom_kills(cgroups: list[str]) -> int:
    """Return how many processes the kernel has killed for memory in these cgroups, as far as it says."""
    kills = 0
    for directory in {os.path.dirname(path) for path in cgroups}:
        for name in ("memory.events", "memory.oom_control"):  # version 2, version 1
            try:
                descriptor = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                continue
            lines = os.read(descriptor, 4096).splitlines()
            os.close(descriptor)
            kills += sum(int(line.split()[1]) for line in lines if line.startswith(b"oom_kill "))
    return kills


# Files.

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


def _write(directory: int, name: str, content: bytes) -> None:
    # Not truncated before: the blocks that were reserved are to be written over.
    descriptor = os.open(name, _CREATE, 0o600, dir_fd=directory)
    try:
        rest = content
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.ftruncate(descriptor, len(content))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _publish(directory: int, name: str, value: dict[str, object]) -> None:
    _write(directory, f".{name}", json.dumps(value).encode())
    os.rename(f".{name}", name, src_dir_fd=directory, dst_dir_fd=directory)
    os.fsync(directory)


def _read(directory: int | None, name: str) -> bytes:
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    content = b""
    try:
        while part := os.read(descriptor, _READ_BYTES):
            content += part
    finally:
        os.close(descriptor)
    return content


def _exists(directory: int, name: str) -> bool:
    return _quietly(lambda: os.stat(name, dir_fd=directory, follow_symlinks=False))


def _grace_s(directory: int, otherwise: float) -> float:
    try:
        grace_s = _seconds(json.loads(_read(directory, "stop.json"))["grace_s"])
    except (KeyError, OSError, RecursionError, TypeError, ValueError):
        return otherwise
    return otherwise if grace_s is None else grace_s


def _printable(text: str) -> str:
    # Half a surrogate pair would make the file something else than JSON.
    return text[:_LONGEST_DETAIL].encode("utf-8", "replace").decode()


def _quietly(action: Callable[..., object], *arguments: object) -> bool:
    try:
        action(*arguments)
    except OSError:
        return False
    return True


# The shim as a process.

_stops = 0


def _on_stop(_number: int, _frame: object) -> None:
    global _stops
    _stops += 1


def _on_child(_number: int, _frame: object) -> None:
    """Only wakes the loop."""


def _listen() -> int:
    """Have SIGTERM and SIGCHLD wake whoever polls the descriptor returned; ignore what can be ignored."""
    wake, end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(end, warn_on_full_buffer=False)
    for number in signal.valid_signals() - _FAULTS - {signal.SIGTERM, signal.SIGCHLD}:
        _quietly(signal.signal, number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _on_stop)
    signal.signal(signal.SIGCHLD, _on_child)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return wake


def _let_go(lock: int) -> None:
    """Keep nothing of whoever started the shim, no descriptor, session or file mode, but the lock."""
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor > 2 and descriptor != lock:
            _quietly(os.close, descriptor)
    if lock > 2:
        os.set_inheritable(lock, False)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for descriptor in range(3):
        os.dup2(null, descriptor)
    os.close(null)
    if os.getsid(0) != os.getpid():
        _quietly(os.setsid)  # the leader of a group cannot, but that also keeps it out of the server's
    os.umask(0o077)


def _shrink() -> None:
    """Give back the memory that Python took to compile this file, where it had not been compiled before."""
    trim = getattr(_libc, "malloc_trim", None)  # not in every libc
    if trim is not None:
        trim(0)


def _conclude(supervisor: Supervisor, directory: int, detail: str, is_patient: bool) -> None:
    """Write how the task ended, even on a full disk: room was reserved, and the log gives way."""
    result = supervisor.result(detail)
    while True:
        try:
            _publish(directory, "exit.json", result)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            if not supervisor.log.drop_oldest():
                if not is_patient:
                    raise
                time.sleep(1)
        else:
            return


def _refuse(directory: int, detail: str) -> None:
    now = time.time()
    result: dict[str, object] = dict.fromkeys(("exit_code", "signal", "started_at"))
    result |= {"reason": "start_failed", "oom": False, "detail": _printable(detail), "killed": False}
    result |= {"survivors": [], "ended_at": now, "cpu_s": 0.0, "max_rss_bytes": 0}
    _publish(directory, "exit.json", result | {"log_bytes": 0, "log_lost_bytes": 0})


def main(path: str, lock: str = "-1") -> int:
    """Run the task of a directory to its end; return 0 once ``exit.json`` has been written.

    ``lock`` is an inherited descriptor that stays open as long as the shim lives, but not in the task.
    Returns 2, and touches nothing, where a task was started in that directory before.
    """
    _let_go(int(lock))
    wake = _listen()
    directory = os.open(path, _OPEN_DIRECTORY)
    os.chdir("/")
    if _exists(directory, "shim.json") or _exists(directory, "exit.json"):
        return 2
    try:
        owner = os.fstat(directory)
        if owner.st_uid != os.geteuid() or owner.st_mode & 0o022:
            raise ValueError("others can write in the task's directory")
        _write(directory, ".exit.json", b" " * _RESERVED_BYTES)
        _control(_PR_SET_CHILD_SUBREAPER, 1)
        supervisor = Supervisor(directory, Spec(_read(directory, "spec.json")), wake)
    except (OSError, ValueError) as error:
        _refuse(directory, str(error))
        return 0
    runs = False
    detail = ""
    try:
        _shrink()
        runs = supervisor.start()
        if runs:
            supervisor.run()
    except Exception as error:  # noqa: BLE001 - whatever fails here, the task must be ended and recorded
        detail = f"shim: {type(error).__name__}: {error}"
        if runs:
            supervisor.abandon()
    _conclude(supervisor, directory, detail, runs)
    return 0


def command(task_dir: str, lock: int | None = None) -> list[str]:
    """Return the command line of a shim: the quickest way to start one, and the smallest to keep it."""
    arguments = [task_dir] if lock is None else [task_dir, str(lock)]
    return [sys.executable, "-I", "-S", "-c", _BOOT, os.path.dirname(os.path.abspath(__file__)), *arguments]


# Python keeps the syntax tree of a script as long as it runs, 2 MiB here; a module is compiled once, for all.
_BOOT = "import sys; sys.path.append(sys.argv.pop(1)); import shim; sys.exit(shim.main(*sys.argv[1:]))"

if __name__ == "__main__":
    _again = command(sys.argv[1]) + sys.argv[2:]
    os.execv(_again[0], _again)  # noqa: S606 - no shell is wanted

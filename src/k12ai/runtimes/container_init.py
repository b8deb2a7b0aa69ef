"""The first process of a task's container: it starts the program, keeps its output and ends as it ends.

It is mounted into the container beside `segments`, and needs nothing of the image but a
Python of the standard library. Output goes into files that the server reads, not through the Engine: so
it can be followed byte by byte, and a task goes on printing while the Engine is away.

SIGTERM is passed on once to every process, and the container lives until the last of them has ended, or
until the Engine's SIGKILL. The file that tells of a stop, with the seconds of grace in it, is looked at
once a second: it is heeded also where no signal comes. When the first process ends by itself, what it
leaves behind dies with the container. A process that ends becomes nobody's zombie.

Exit codes are the program's; 128 + n where signal n ended it; 126 and 127 where it could not be started.
"""

import errno
import os
import select
import signal
import time

TYPE_CHECKING = False  # `typing` alone would take as long as all the rest

if TYPE_CHECKING:
    from k12ai.runtimes import segments

_READ_BYTES = 1 << 16
_READS_PER_TURN = 16
TERMINATED = 128 + signal.SIGTERM
KILLED = 128 + signal.SIGKILL
STARTED_AGAIN = 125
# In the log's directory: that it was started, that it was started a second time, and how it ended.
BEGUN, AGAIN, ENDED = "begun", "again", "ended"
LOOK_S = 1.0
SLACK_S = 1.0  # after the grace it is the Engine that kills, where it can
_PR_SET_DUMPABLE = 4


class Init:
    """Stands over one program."""

    def __init__(self, directory: int, log_bytes: int, stop_file: str, heard: int) -> None:
        self._directory = directory
        self._log_bytes = log_bytes
        self._stop_file = stop_file
        self._told_at: float | None = None
        self._kill_at = float("inf")
        self._heard = heard
        self._output, self._input = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._stopping = False
        self.status: int | None = None
        self.stop_asked = False

    def run(self, argv: list[str]) -> int:
        """Run the program and return the exit code that tells how it ended."""
        child = os.fork()
        if child == 0:
            _become(argv, self._input)
        os.close(self._input)
        # While the program's interpreter starts: whatever is done before it, everybody waits for.
        _let_nobody_trace()
        self._log = _log(self._directory, self._log_bytes)
        while not self._is_over(child):
            ready, _, _ = select.select([self._output, self._heard], [], [], LOOK_S)
            if self._heard in ready:
                os.read(self._heard, 4096)
            self._look_at_stop_file()
            if time.monotonic() > self._kill_at:
                return KILLED  # and with the first process goes everything
            self._pass_on_stop()
            self._keep_output()
        self._keep_output()  # a pipe holds less than that
        assert self.status is not None
        code = os.waitstatus_to_exitcode(self.status)
        return code if code >= 0 else 128 - code

    def _is_over(self, child: int) -> bool:
        """Take leave of whoever has ended; while a stop is under way, all have to."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == 0:
                return self.status is not None and not self._stopping
            if pid == child:
                self.status = status

    def _look_at_stop_file(self) -> None:
        """Heed a stop that came without a signal: an Engine that was killed can lose track of a container."""
        try:
            with open(self._stop_file, encoding="ascii") as file:
                grace_s = float(file.read())
        except (OSError, ValueError):
            return
        if self._told_at is None:
            self._told_at = time.monotonic()
            self.stop_asked = True
        self._kill_at = self._told_at + grace_s + SLACK_S

    def _pass_on_stop(self) -> None:
        if self.stop_asked and not self._stopping:
            self._stopping = True
            try:
                os.kill(-1, signal.SIGTERM)
                os.kill(-1, signal.SIGCONT)
            except ProcessLookupError:
                pass

    def _keep_output(self) -> None:
        for _ in range(_READS_PER_TURN):
            try:
                piece = os.read(self._output, _READ_BYTES)
            except BlockingIOError:
                return
            if not piece:
                # Closed by all who print: there is nothing to wait for here any more.
                os.dup2(_silence(), self._output)
                return
            self._log.write(piece)


def _let_nobody_trace() -> None:
    """Keep the program, which has the same account, from tracing what stands over it."""
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _log(directory: int, log_bytes: int) -> "segments.Log":
    import segments as beside  # type: ignore[import-not-found]  # this file, in the container

    log: segments.Log = beside.Log(directory, log_bytes)
    return log


def _silence() -> int:
    """Return the reading end of a pipe that nobody ever writes to or closes."""
    reading, _writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    return reading


def _become(argv: list[str], output: int) -> None:
    try:
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        os.set_blocking(output, True)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.execvp(argv[0], argv)  # noqa: S606 - no shell is wanted
    except OSError as error:
        os.write(2, f"{argv[0]}: {error.strerror}\n".encode())
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)


def _is_first(directory: int) -> bool:
    """Say whether this is the first start of the container; whoever starts it again starts no program."""
    if _leave(directory, BEGUN):
        return True
    _leave(directory, AGAIN)
    return False


def _leave(directory: int, name: str, content: bytes = b"") -> bool:
    """Leave a file beside the log, and say that it was not there; a full disk keeps nobody from working."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(os.path.join("log", name), flags, 0o600, dir_fd=directory)
        os.write(descriptor, content)
        os.close(descriptor)
    except OSError as error:
        return error.errno != errno.EEXIST
    return True


def main(task_dir: str, log_bytes: str, stop_file: str, *argv: str) -> int:
    """Run ``argv`` with its output in ``task_dir/log``; return the exit code."""
    if os.getpid() != 1:
        raise SystemExit("this is the first process of a container or nothing: it signals all that it sees")
    heard, waking = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(waking, warn_on_full_buffer=False)
    directory = os.open(task_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    init = Init(directory, int(log_bytes), stop_file, heard)

    def stop(_number: int, _frame: object) -> None:
        init.stop_asked = True

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the program could send it, and Python would heed it
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    # The first process of a container does not hear a signal that it has no handler for. A stop that came
    # before is in this file, which is written before the signal is sent.
    if os.path.exists(stop_file):
        return TERMINATED
    if not _is_first(directory):
        return STARTED_AGAIN
    code = init.run(list(argv))
    # For where the Engine is away when it ends, and does not know how.
    _leave(directory, ENDED, str(code).encode())
    return code

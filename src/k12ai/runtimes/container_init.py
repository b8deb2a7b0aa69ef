"""The first process of a task's container: it starts the program, keeps its output and ends as it ends.

It is mounted into the container beside `container_watch` and `segments`, and needs nothing of the image but
a Python of the standard library. Every student waits for what is done here before the program is started,
down to compiling this file; the rest is in `container_watch`.

Exit codes are the program's; 128 + n where signal n ended it; 126 and 127 where it could not be started.
"""

import errno
import os

TYPE_CHECKING = False  # `typing` alone would take as long as all the rest

if TYPE_CHECKING:
    import signal

    from k12ai.runtimes import container_watch
else:
    import _signal as signal  # `signal` itself would take another half of the rest to give names to numbers

TERMINATED = 128 + signal.SIGTERM
STARTED_AGAIN = 125
# In the log's directory: that it was started, that it was started a second time, and how it ended.
BEGUN, AGAIN, ENDED = "begun", "again", "ended"
_PR_SET_DUMPABLE = 4


def main(task_dir: str, log_bytes: str, stop_file: str, *argv: str) -> int:
    """Run ``argv`` with its output in ``task_dir/log``; return the exit code."""
    if os.getpid() != 1:
        raise SystemExit("this is the first process of a container or nothing: it signals all that it sees")
    heard, waking = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(waking, warn_on_full_buffer=False)
    directory = os.open(task_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    told: list[int] = []
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the program could send it, and Python would heed it
    signal.signal(signal.SIGTERM, lambda number, _frame: told.append(number))
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    # The first process of a container does not hear a signal that it has no handler for. A stop that came
    # before is in this file, which is written before the signal is sent.
    if os.path.exists(stop_file):
        return TERMINATED
    if not _is_first(directory):
        return STARTED_AGAIN
    output, child = _started(argv)
    watch = _watch_class()(child, output, heard, told, stop_file)
    code = watch.keep(directory, int(log_bytes))
    # For where the Engine is away when it ends, and does not know how.
    _leave(directory, ENDED, str(code).encode())
    return code


def _started(argv: tuple[str, ...]) -> tuple[int, int]:
    """Start the program, and return the reading end of its output and its number."""
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    child = os.fork()
    if child == 0:
        _become(argv, writing)
    os.close(writing)
    _let_nobody_trace()
    return reading, child


def _become(argv: tuple[str, ...], output: int) -> None:
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


def _let_nobody_trace() -> None:
    """Keep the program, which has the same account, from tracing what stands over it."""
    import ctypes  # while the program's interpreter starts, as what comes after this

    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _watch_class() -> "type[container_watch.Watch]":
    import container_watch as beside  # type: ignore[import-not-found]  # that file, in the container

    watch: type[container_watch.Watch] = beside.Watch
    return watch


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

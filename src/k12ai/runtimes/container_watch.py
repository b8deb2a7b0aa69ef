"""What the first process of a task's container does from the program's start to its end.

Output goes into files that the server reads, not through the Engine: so it can be followed byte by byte,
and a task goes on printing while the Engine is away.

SIGTERM is passed on once to every process, and the container lives until the last of them has ended, or
until the Engine's SIGKILL. The file that tells of a stop, with the seconds of grace in it, is looked at
once a second: it is heeded also where no signal comes. When the first process ends by itself, what it
leaves behind dies with the container. A process that ends becomes nobody's zombie.
"""

import os
import select
import time

TYPE_CHECKING = False

if TYPE_CHECKING:
    import signal

    from k12ai.runtimes import segments
else:
    import _signal as signal  # see `container_init`

_READ_BYTES = 1 << 16
_READS_PER_TURN = 16
KILLED = 128 + signal.SIGKILL
LOOK_S = 1.0
SLACK_S = 1.0  # after the grace it is the Engine that kills, where it can


class Watch:
    """Stands over one program, whose number is ``child``.

    It reads the program's ``output``; ``heard`` becomes readable with every signal, and ``signals`` holds
    those that asked to stop.
    """

    def __init__(self, child: int, output: int, heard: int, signals: list[int], stop_file: str) -> None:
        self._child = child
        self._output = output
        self._heard = heard
        self._signals = signals
        self._stop_file = stop_file
        self._told_at: float | None = None
        self._kill_at = float("inf")
        self._stopping = False
        self._status: int | None = None

    def keep(self, directory: int, log_bytes: int) -> int:
        """Keep the output in ``log`` in a directory; return the exit code that tells how the program ended."""
        self._log = _log(directory, log_bytes)
        while not self._is_over():
            ready, _, _ = select.select([self._output, self._heard], [], [], LOOK_S)
            if self._heard in ready:
                os.read(self._heard, 4096)
            self._look_at_stop_file()
            if time.monotonic() > self._kill_at:
                return KILLED  # and with the first process goes everything
            self._pass_on_stop()
            self._keep_output()
        self._keep_output()  # a pipe holds less than that
        assert self._status is not None
        code = os.waitstatus_to_exitcode(self._status)
        return code if code >= 0 else 128 - code

    def _is_over(self) -> bool:
        """Take leave of whoever has ended; while a stop is under way, all have to."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == 0:
                return self._status is not None and not self._stopping
            if pid == self._child:
                self._status = status

    def _look_at_stop_file(self) -> None:
        """Heed a stop that came without a signal: an Engine that was killed can lose track of a container."""
        try:
            with open(self._stop_file, encoding="ascii") as file:
                grace_s = float(file.read())
        except (OSError, ValueError):
            return
        if self._told_at is None:
            self._told_at = time.monotonic()
        self._kill_at = self._told_at + grace_s + SLACK_S

    def _pass_on_stop(self) -> None:
        if (self._signals or self._told_at is not None) and not self._stopping:
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


def _log(directory: int, log_bytes: int) -> "segments.Log":
    import segments as beside  # type: ignore[import-not-found]  # this file, in the container

    log: segments.Log = beside.Log(directory, log_bytes)
    return log


def _silence() -> int:
    """Return the reading end of a pipe that nobody ever writes to or closes."""
    reading, _writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    return reading

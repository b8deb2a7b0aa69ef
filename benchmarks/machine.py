"""The machine: which core does what, and what a process has used of it."""

import contextlib
import ctypes
import os
import time
from collections.abc import Iterator
from typing import NamedTuple, Self

import psutil


class Cores(NamedTuple):
    """A core for what is measured and another one for what measures; None where nothing can be pinned."""

    server: int | None
    generator: int | None
    allowed: frozenset[int] = frozenset()

    @classmethod
    def of_this_process(cls) -> Self:
        """Choose among the cores this process may use now; with one only, both share it."""
        if not hasattr(os, "sched_getaffinity"):
            return cls(None, None)
        allowed = sorted(os.sched_getaffinity(0))
        return cls(allowed[0], allowed[-1], frozenset(allowed))

    @contextlib.contextmanager
    def server_side(self) -> Iterator[None]:
        """Whatever process is started inside the block stays on the server's core, with all its threads."""
        pin(self.server)
        try:
            yield
        finally:
            pin(self.generator)

    @contextlib.contextmanager
    def all(self) -> Iterator[None]:
        """This thread, and whatever is started inside the block, may use every core that this process had."""
        if self.allowed:
            os.sched_setaffinity(0, self.allowed)
        try:
            yield
        finally:
            pin(self.generator)


def pin(core: int | None) -> None:
    """Keep this thread, and every process and thread it starts from now on, on one core."""
    if core is not None:
        os.sched_setaffinity(0, {core})


class CpuClock:
    """How much processor time a process and the children it has waited for have used."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._clock = _posix_clock(pid)

    def seconds(self) -> float:
        """Return the seconds so far, finer than the kernel's ticks of 10 ms where that can be had."""
        times = self._process.cpu_times()
        own = times.user + times.system if self._clock is None else time.clock_gettime(self._clock)
        # The Engine runs short-lived helpers (runc) to answer some calls: they are its cost as well.
        return float(own + times.children_user + times.children_system)


def _posix_clock(pid: int) -> int | None:
    library = ctypes.CDLL(None)
    if not hasattr(library, "clock_getcpuclockid"):
        return None
    clock = ctypes.c_int()
    return clock.value if library.clock_getcpuclockid(pid, ctypes.byref(clock)) == 0 else None

"""What a server's process holds, as the kernel counts it."""

import contextlib
import os
import resource
from pathlib import Path


def resident_bytes(pid: int) -> int:
    """Return the memory of a process that is in RAM."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


def open_files(pid: int) -> int:
    """Return how many files, sockets among them, a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def allow_files(count: int) -> None:
    """Let this process open so many files, as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def zombies(pid: int) -> list[int]:
    """Return the children of a process that have ended and that it has not taken leave of."""
    found = []
    for child in map(int, filter(str.isdecimal, os.listdir("/proc"))):
        with contextlib.suppress(OSError):
            state, parent = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[:2]
            if (state, int(parent)) == ("Z", pid):
                found.append(child)
    return found

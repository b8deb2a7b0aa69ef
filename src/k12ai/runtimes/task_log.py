"""A task's output: segments named by the offset of their first byte; the newest are kept.

The shim writes them, or in a container what is its first process; here they are read, while they grow
and while the oldest disappear. In a container the task itself can write there, so nothing in the
directory is trusted to be what it looks like.
"""

import os
import re
import stat
from pathlib import Path

from k12ai.runtimes.base import LogPiece

_SEGMENT = re.compile(r"[0-9]{16}")


def read(directory: Path, offset: int, limit_bytes: int) -> LogPiece:
    """Return output from ``offset`` on, or from the oldest that is kept."""
    try:
        starts = sorted(int(name) for name in os.listdir(directory) if _SEGMENT.fullmatch(name))
    except FileNotFoundError:
        return LogPiece(offset, b"")
    if not starts:
        return LogPiece(offset, b"")
    offset = max(offset, starts[0])
    begun = max(start for start in starts if start <= offset)
    for start in (each for each in starts if each >= begun):
        # One that gives nothing was read to its end, or has just become too old: on to the next.
        at = max(offset, start)
        if data := read_plain(directory / f"{start:016}", at - start, limit_bytes):
            return LogPiece(at, data)
    return LogPiece(offset, b"")


def read_plain(path: Path, offset: int, limit_bytes: int) -> bytes:
    """Return bytes of a file that a task may have put there: of no link and no special file; else nothing."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return b""
        return os.pread(descriptor, limit_bytes, offset)
    finally:
        os.close(descriptor)

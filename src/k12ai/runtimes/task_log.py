"""A task's output: segments named by the offset of their first byte; the newest are kept.

The shim writes them; here they are read, while they grow and while the oldest disappear.
"""

import os
from pathlib import Path

from k12ai.runtimes.base import LogPiece


def read(directory: Path, offset: int, limit_bytes: int) -> LogPiece:
    """Return output from ``offset`` on, or from the oldest that is kept."""
    try:
        starts = sorted(int(name) for name in os.listdir(directory) if name.isdigit())
    except FileNotFoundError:
        return LogPiece(offset, b"")
    if not starts:
        return LogPiece(offset, b"")
    offset = max(offset, starts[0])
    wanted = max(start for start in starts if start <= offset)
    try:
        with (directory / f"{wanted:016}").open("rb") as segment:
            segment.seek(offset - wanted)
            data = segment.read(limit_bytes)
    except FileNotFoundError:  # it has just become too old
        return read(directory, offset + 1, limit_bytes)
    if not data and wanted != starts[-1]:
        following = min(start for start in starts if start > wanted)
        return read(directory, following, limit_bytes)
    return LogPiece(offset, data)

"""A task's journal: the file that it appends to and the server reads, trusting nothing in it.

The file is made by the server and kept open by it, so that what the task does to the name (a symbolic
link, a FIFO, a file of somebody else's) changes nothing. A line is one JSON object; what is no such
line is counted and left out. Reading goes on from a byte offset that is stored together with the
messages, so nothing is lost or taken twice when the server dies.
"""

import os
import stat
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import msgspec
from msgspec import Struct

MAX_LINE_BYTES = 256 * 1024
MAX_JOURNAL_BYTES = 256 * 1024 * 1024
_CHUNK_BYTES = 1024 * 1024
_MOST_LINES = 2000  # one commit of these takes the store some hundredths of a second


class Line(Struct, frozen=True):
    """One line: what kind of thing was said, and what."""

    type: Literal["metrics", "status", "progress", "error", "result"]
    data: dict[str, Any]
    seq: int = 0
    time: int = 0


class Piece(NamedTuple):
    """The next lines, the offset after them, and how many lines were left out."""

    lines: list[Line]
    offset: int
    bad: int


_decoder = msgspec.json.Decoder(Line)


class Journal:
    """A journal that is open for reading."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def create(cls, path: Path, *, owner: tuple[int, int] | None = None) -> Self:
        """Make an empty journal, which only its owner may write."""
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        if owner is not None:
            os.fchown(descriptor, *owner)
        return cls(descriptor)

    @classmethod
    def open(cls, path: Path) -> Self | None:
        """Open a journal of an earlier run of the server; None where there is no regular file any more."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            os.close(descriptor)
            return None
        return cls(descriptor)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)

    def read(self, offset: int) -> Piece:
        """Return the whole lines after ``offset``, as many as one commit should take."""
        size = os.fstat(self._descriptor).st_size
        if size <= offset or offset >= MAX_JOURNAL_BYTES:
            return Piece([], offset, 0)
        chunk = os.pread(self._descriptor, _CHUNK_BYTES, offset)
        end = chunk.rfind(b"\n") + 1
        if end == 0:
            # No line ends here. One that is still being written comes later; one that is too long is
            # passed over, piece by piece.
            too_long = len(chunk) > MAX_LINE_BYTES
            return Piece([], offset + len(chunk), 1) if too_long else Piece([], offset, 0)
        lines: list[Line] = []
        bad = taken = 0
        for raw in chunk[:end].split(b"\n")[:_MOST_LINES]:
            if taken + len(raw) + 1 > end:
                break
            taken += len(raw) + 1
            line = _parsed(raw)
            if line is not None:
                lines.append(line)
            elif raw.strip():
                bad += 1
        return Piece(lines, offset + taken, bad)


def _parsed(raw: bytes) -> Line | None:
    if len(raw) > MAX_LINE_BYTES:
        return None
    try:
        return _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None

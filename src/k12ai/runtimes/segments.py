"""The output of a task on the disk: the last of it, in files named by the offset of their first byte.

For the shim and for the first process of a container, which import little: the standard library alone,
and of that no more than every Python has loaded.
"""

import os
import time

SEGMENT_BYTES = 1 << 20
_SMALLEST_LOG_BYTES = 8 * 4096
_FULL_DISK_REST_S = 0.25
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Log:
    """Keeps the last ``limit`` bytes of what a task prints, and never more than that on the disk.

    The memory it takes does not depend on how much is printed. What cannot be written is dropped and
    counted: the task must neither wait nor fail because the disk is full.
    """

    def __init__(self, directory: int, limit: int) -> None:
        if "log" not in os.listdir(directory):
            os.mkdir("log", 0o700, dir_fd=directory)
        self._directory = os.open("log", _OPEN_DIRECTORY, dir_fd=directory)
        self._limit = max(limit, _SMALLEST_LOG_BYTES)
        self._segment_bytes = min(SEGMENT_BYTES, self._limit // 8)
        # Full disks make short segments; their number is limited as their bytes are.
        self._most_segments = 2 * (self._limit // self._segment_bytes + 1)
        self._segments: list[tuple[int, int]] = []  # offset and size of those that are complete
        self._kept = 0
        self._file = -1
        self._offset = self._size = 0  # of the segment that is being written
        self._full_until = 0.0
        self.total = 0
        self.lost = 0

    def write(self, output: bytes) -> None:
        """Append what the task has printed; never raises for the disk."""
        rest = memoryview(output)
        while rest:
            written = self._append(rest[: self._segment_bytes - self._size])
            if not written:
                self.total += len(rest)
                self.lost += len(rest)
                return
            self.total += written
            rest = rest[written:]

    def drop_oldest(self) -> bool:
        """Delete the oldest segment, and say whether there was one."""
        if not self._segments:
            self._complete()
        if not self._segments:
            return False
        offset, size = self._segments.pop(0)
        self._kept -= size
        self._unlink(offset)
        return True

    def _append(self, part: memoryview) -> int:
        if time.monotonic() < self._full_until:
            return 0
        while self._segments and self._is_too_much(len(part)):
            self.drop_oldest()
        try:
            if self._file < 0:
                self._file = os.open(f"{self.total:016d}", _CREATE, 0o600, dir_fd=self._directory)
                self._offset = self.total
            written = os.write(self._file, part)
        except OSError:
            # Whatever comes next has another offset, and so goes into another segment.
            self._complete()
            self._full_until = time.monotonic() + _FULL_DISK_REST_S
            return 0
        self._size += written
        if self._size >= self._segment_bytes:
            self._complete()
        return written

    def _is_too_much(self, more: int) -> bool:
        return self._kept + self._size + more > self._limit or len(self._segments) >= self._most_segments

    def _complete(self) -> None:
        if self._file < 0:
            return
        os.close(self._file)
        if self._size:
            self._segments.append((self._offset, self._size))
            self._kept += self._size
        else:
            self._unlink(self._offset)
        self._file, self._size = -1, 0

    def _unlink(self, offset: int) -> None:
        try:
            os.unlink(f"{offset:016d}", dir_fd=self._directory)
        except OSError:
            return  # somebody else has deleted it

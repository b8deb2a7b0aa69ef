"""The files of projects: what goes in and what comes out, in directories that are not to be trusted.

A project is the directory ``<data_dir>/projects/<user>/<service_uuid>``. It can belong to another
account, and a student's program may change it while the server, perhaps root, works in it. So no
path is ever handed to the kernel: every component is opened from the directory above it and never
through a link (openat(2) with ``O_NOFOLLOW``), and only what the opened file itself turns out to be
is believed.

Names are taken byte by byte, not normalised (NFC, NFD): two different names are two different files,
and what a program has created can be fetched under the very name that the listing shows.

All of this blocks; ``k12ai.api.files`` keeps it off the event loop.
"""

import contextlib
import errno
import hashlib
import os
import secrets
import stat
import threading
import time
import unicodedata
from collections import Counter
from collections.abc import Generator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple, Self

import msgspec
from msgspec import Struct

from k12ai.errors import (
    BadPath,
    InvalidValue,
    K12AIError,
    NoSuchFile,
    PathTaken,
    ProjectFull,
    QuotaExceeded,
    StorageFull,
    TooLarge,
)
from k12ai.models import Identifier
from k12ai.texts import Text

MAX_FILE_BYTES = 2 * 1024**3
MAX_PROJECT_BYTES = 10 * 1024**3
MAX_FILES = 10_000

MAX_NAME_BYTES = 255
MAX_PATH_BYTES = 1024
MAX_DEPTH = 16
MAX_LISTED = 10_000
RESERVED = ".k12ai"

# A disk gets what came so far this often: a last fsync of gigabytes would hold up an orderly stop.
_SYNC_EVERY_BYTES = 64 * 1024**2
_CLEAR_SLICE_S = 1.0
_LOCKS = 64

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# `O_NONBLOCK`: opening a FIFO would wait for its writer.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

Owner = tuple[int, int]


class FileEntry(Struct, frozen=True):
    """A file or a directory of a project; ``path`` is relative to the project, a directory's size is 0."""

    path: str
    kind: Literal["file", "directory"]
    size: int
    modified_at: datetime


class Listing(Struct, frozen=True):
    """What a directory of a project holds, in the order of the paths.

    ``total_size`` is that of the files listed. ``omitted`` counts what cannot be fetched: links,
    special files, and names that no request can spell. ``truncated`` tells that there is more.
    """

    path: str
    entries: list[FileEntry]
    total_size: int
    omitted: int
    truncated: bool


class StoredFile(Struct, frozen=True):
    """A file that has been put into a project and is on the disk."""

    path: str
    size: int
    sha256: str
    modified_at: datetime


class Stored(NamedTuple):
    """What an upload came to: the file, its version, and whether there was none before."""

    file: StoredFile
    version: str
    created: bool


class _Room(NamedTuple):
    """What is where a file is to go, and how many bytes may go there."""

    existing: os.stat_result | None
    free_bytes: int

    @property
    def replaced_bytes(self) -> int:
        """How many bytes are gone once the new file is there."""
        return self.existing.st_size if self.existing is not None else 0


def parse_path(path: str) -> tuple[str, ...]:
    """Return the names that a path of a file consists of. Raises `BadPath`."""
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        raise BadPath(Text("valid UTF-8", "有效的 UTF-8")) from None
    if size > MAX_PATH_BYTES:
        raise BadPath(Text(f"at most {MAX_PATH_BYTES} bytes long", f"不超过 {MAX_PATH_BYTES} 字节"))
    names = tuple(path.split("/"))
    if len(names) > MAX_DEPTH:
        raise BadPath(Text(f"at most {MAX_DEPTH} names deep", f"不超过 {MAX_DEPTH} 层"))
    for name in names:
        _check_name(name)
    return names


def _check_name(name: str) -> None:
    if name in ("", ".", ".."):
        raise BadPath(
            Text("made of names other than '', '.' and '..'", "由名称组成，且名称不能为空、“.”或“..”")
        )
    if len(name.encode()) > MAX_NAME_BYTES:
        raise BadPath(
            Text(
                f"made of names of at most {MAX_NAME_BYTES} bytes", f"由不超过 {MAX_NAME_BYTES} 字节的名称组成"
            )
        )
    # A backslash separates names on Windows, where the file may be saved.
    if "\\" in name or any(unicodedata.category(character) == "Cc" for character in name):
        raise BadPath(Text("free of backslashes and control characters", "不含反斜杠和控制字符"))
    if name.startswith(RESERVED):
        raise BadPath(
            Text(f"made of names that do not begin with {RESERVED}", f"由不以 {RESERVED} 开头的名称组成")
        )


def check_identifier(field: str, value: str) -> None:
    """Raise `InvalidValue` for what cannot be a user or a project."""
    try:
        msgspec.convert(value, Identifier)
    except msgspec.ValidationError:
        raise InvalidValue(
            field,
            Text(
                "1 to 64 of the characters A-Z a-z 0-9 . _ @ -, but not '.' or '..'",
                "1 到 64 个字符，只能用 A-Z a-z 0-9 . _ @ -，且不能是“.”或“..”",
            ),
        ) from None


class ProjectFiles:
    """Keeps the files of all projects; every method raises errors of the tree and leaves no half of anything.

    ``max_files`` counts directories too. The limits bind what is put here, not what a student's own
    program writes; but where that has used them up, nothing can be put.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        max_file_bytes: int = MAX_FILE_BYTES,
        max_project_bytes: int = MAX_PROJECT_BYTES,
        max_files: int = MAX_FILES,
        max_user_bytes: int | None = None,
    ) -> None:
        self.max_file_bytes = max_file_bytes
        self._data_dir = data_dir.expanduser().resolve()
        self._max_project_bytes = max_project_bytes
        self._max_files = max_files
        self._max_user_bytes = max_user_bytes
        # In the name of everything on its way in or out, so that a later server knows it for a leftover.
        self._run = secrets.token_hex(8)
        self._arriving: Counter[tuple[str, str]] = Counter()
        self._arriving_lock = threading.Lock()
        self._locks = [threading.Lock() for _ in range(_LOCKS)]

    # --- projects --------------------------------------------------------------------------------

    def project_dir(self, user: str, service_uuid: str, *, owner: Owner | None = None) -> Path:
        """Return the project's directory, which is created where there is none.

        A new one belongs to ``owner``, a uid and a gid, where the server is root.
        """
        with _explained(service_uuid), self._make_project(user, service_uuid, owner):
            return self._data_dir / "projects" / user / service_uuid

    @property
    def limits_users(self) -> bool:
        """Whether `require_room` has anything to look at."""
        return self._max_user_bytes is not None

    def require_room(self, user: str, more_bytes: int = 0) -> None:
        """Raise `QuotaExceeded` where a user's projects have, or would have, more than they may together.

        Programs write where nobody counts; so a project with more files than may be put into it is full.
        """
        if self._max_user_bytes is None:
            return
        size = more_bytes
        with contextlib.suppress(NoSuchFile), _explained(user), _Way(self._data_dir) as way:
            for name in ("projects", user):
                way.enter(name)
            count = 0
            for path, found in _entries(way.at, "", 0, recurse=True):
                count = count + 1 if "/" in path else 0
                size += 0 if stat.S_ISDIR(found.st_mode) else found.st_size
                if size > self._max_user_bytes or count > self._max_files:
                    raise self._over_quota(user, self._max_user_bytes)
        if size > self._max_user_bytes:
            raise self._over_quota(user, self._max_user_bytes)

    @staticmethod
    def _over_quota(user: str, limit_bytes: int) -> QuotaExceeded:
        return QuotaExceeded(
            Text(
                f"the projects of {user} may take {limit_bytes} bytes together; delete something first",
                f"{user} 的所有项目合计最多可占 {limit_bytes} 字节；请先删除一些内容",
            )
        )

    # --- reading ---------------------------------------------------------------------------------

    def listing(self, user: str, service_uuid: str, path: str = "", *, recurse: bool = False) -> Listing:
        """Return what is in a directory, with ``recurse`` also what is below; of a new project, nothing."""
        names = parse_path(path) if path else ()
        try:
            with _explained(path), self._enter(user, service_uuid, names) as way:
                return _listing(way.at, path, len(names), recurse=recurse)
        except NoSuchFile:
            if names:
                raise
            return Listing(path, [], 0, 0, truncated=False)

    def open(self, user: str, service_uuid: str, path: str) -> "OpenFile":
        """Return the file, open for reading; only a plain file with no second name is given out."""
        *above, name = parse_path(path)
        with _explained(path), self._enter(user, service_uuid, tuple(above)) as way:
            # Twice: what is no plain file is not touched at all, and what was opened is what counts.
            _check_plain(os.stat(name, dir_fd=way.at, follow_symlinks=False), path)
            descriptor = os.open(name, _READ, dir_fd=way.at)
            try:
                found = os.fstat(descriptor)
                _check_plain(found, path)
            except BaseException:
                os.close(descriptor)
                raise
            return OpenFile(descriptor, name, found)

    # --- writing ---------------------------------------------------------------------------------

    def begin(
        self,
        user: str,
        service_uuid: str,
        path: str,
        *,
        declared_bytes: int | None = None,
        owner: Owner | None = None,
    ) -> "Upload":
        """Return an upload of one file; what cannot succeed is refused before its first byte.

        Where the server is root, the file will belong to ``owner``, by default to the project's.
        """
        check_identifier("user", user)
        check_identifier("service_uuid", service_uuid)
        names = parse_path(path)
        if declared_bytes is not None and declared_bytes > self.max_file_bytes:
            raise TooLarge(self.max_file_bytes)
        with _explained(path):
            room = self._room(user, service_uuid, names)
            if (declared_bytes or 0) > room.free_bytes:
                raise self._full()
            self.require_room(user, max(0, (declared_bytes or 0) - room.replaced_bytes))
            with self._bin() as way:
                partial = f"upload-{self._run}-{secrets.token_hex(8)}"
                descriptor = os.open(partial, _CREATE, 0o600, dir_fd=way.at)
        return Upload(self, user, service_uuid, names, owner, descriptor, partial, room.free_bytes)

    def delete(self, user: str, service_uuid: str, path: str) -> str | None:
        """Delete a file, link or directory; return what `clear` has left to do, None where nothing.

        A directory is gone when this returns. What it held is removed slice by slice.
        """
        *above, name = parse_path(path)
        with _explained(path), self._enter(user, service_uuid, tuple(above)) as way:
            try:
                os.unlink(name, dir_fd=way.at)
            except IsADirectoryError:
                pass
            else:
                return None
            # To a place of the server's own, whose names nobody else can change.
            rest = f"delete-{self._run}-{secrets.token_hex(8)}"
            with self._bin() as trash:
                _move(way.at, name, trash.at, rest)
            return rest

    def clear(self, rest: str, *, within_s: float = _CLEAR_SLICE_S) -> bool:
        """Go on removing what was deleted or left over, for so many seconds; return whether it is all gone."""
        deadline = time.monotonic() + within_s
        with _explained(rest), self._bin() as way:
            # What is moved up from below `rest` has a name that begins with it.
            while names := [name for name in os.listdir(way.at) if name.startswith(rest)]:
                for name in names:
                    _remove(way.at, name, rest, deadline)
                    if time.monotonic() > deadline:
                        return False
            return True

    def leftovers(self) -> list[str]:
        """Return what an earlier server of this data directory did not finish, to be given to `clear`."""
        with _explained("uploads"), self._bin() as way:
            return [name for name in os.listdir(way.at) if self._run not in name]

    # --- within ----------------------------------------------------------------------------------

    def _enter(self, user: str, service_uuid: str, names: tuple[str, ...]) -> "_Way":
        """Return the way to a directory of a project, which must be there."""
        check_identifier("user", user)
        check_identifier("service_uuid", service_uuid)
        way = _Way(self._data_dir)
        try:
            for name in ("projects", user, service_uuid, *names):
                way.enter(name)
        except BaseException:
            way.close()
            raise
        return way

    def _make_project(self, user: str, service_uuid: str, owner: Owner | None) -> "_Way":
        """Return the way to a project, which is created where there is none."""
        check_identifier("user", user)
        check_identifier("service_uuid", service_uuid)
        self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        way = _Way(self._data_dir)
        try:
            way.make("projects", passable=True)
            way.make(user, passable=True)
            way.make(service_uuid, owner=owner)
        except BaseException:
            way.close()
            raise
        return way

    def _bin(self) -> "_Way":
        """Return the way to the server's own directory, for what is on its way in or out."""
        self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        way = _Way(self._data_dir)
        try:
            way.make("uploads")
        except BaseException:
            way.close()
            raise
        return way

    def _room(self, user: str, service_uuid: str, names: tuple[str, ...]) -> _Room:
        """Look at the place of a file. Raises `PathTaken`, and `ProjectFull` where it has no room."""
        try:
            way = self._enter(user, service_uuid, ())
        except FileNotFoundError:
            return self._room_beside(0, 0, len(names), None)
        with way:
            count, size = self._usage(way.at)
            existing = None
            entered = 0
            with contextlib.suppress(FileNotFoundError):
                for name in names[:-1]:
                    way.enter(name)
                    entered += 1
                existing = os.stat(names[-1], dir_fd=way.at, follow_symlinks=False)
        if existing is not None and stat.S_ISDIR(existing.st_mode):
            raise _is_directory("/".join(names))
        return self._room_beside(count, size, len(names) - entered - (existing is not None), existing)

    def _room_beside(self, count: int, size: int, more: int, existing: os.stat_result | None) -> _Room:
        if count + more > self._max_files:
            raise self._full()
        room = _Room(existing, self._max_project_bytes - size)
        return room._replace(free_bytes=room.free_bytes + room.replaced_bytes)

    def _usage(self, at: int) -> tuple[int, int]:
        """Return how many files and bytes a project has; a count over the limit ends the counting."""
        count = size = 0
        with contextlib.closing(_entries(at, "", 1, recurse=True)) as entries:
            for _path, found in entries:
                count += 1
                size += 0 if stat.S_ISDIR(found.st_mode) else found.st_size
                if count > self._max_files:
                    raise self._full()
        return count, size

    def _full(self) -> ProjectFull:
        return ProjectFull(self._max_project_bytes, self._max_files)

    def _arrive(self, upload: "Upload", size: int) -> None:
        """Count bytes that came. Raises `ProjectFull` where the project's uploads need more than there is."""
        project = (upload.user, upload.service_uuid)
        with self._arriving_lock:
            self._arriving[project] += size
            if self._arriving[project] > upload.free_bytes:
                raise self._full()

    def _settle(self, upload: "Upload", size: int) -> None:
        project = (upload.user, upload.service_uuid)
        with self._arriving_lock:
            self._arriving[project] -= size
            if self._arriving[project] <= 0:
                del self._arriving[project]

    def _place(self, upload: "Upload", descriptor: int, size: int) -> bool:
        """Move a complete upload to its place; return whether there was no file before."""
        user, service_uuid, names = upload.user, upload.service_uuid, upload.names
        # One at a time of each user: the room that is found is the room that there is.
        with self._locks[hash(user) % _LOCKS]:
            room = self._room(user, service_uuid, names)
            if size > room.free_bytes:
                raise self._full()
            self.require_room(user, size - room.replaced_bytes)
            with self._make_project(user, service_uuid, upload.owner) as way:
                owner = upload.owner or _owner_of(way.at)
                try:
                    if owner is not None and os.geteuid() == 0:
                        os.fchown(descriptor, *owner)
                    for name in names[:-1]:
                        way.make(name, owner=owner)
                    with self._bin() as bin_way:
                        os.rename(upload.partial, names[-1], src_dir_fd=bin_way.at, dst_dir_fd=way.at)
                except BaseException:
                    way.undo()
                    raise
                way.sync()
        return room.existing is None


class Upload:
    """One file on its way in: `write` its bytes, then `finish`; `abandon` in any case, at the end.

    Nothing of it can be seen in the project before `finish` returns, nor ever where it does not. The
    methods may be called in different threads, one after the other or not.
    """

    def __init__(
        self,
        files: ProjectFiles,
        user: str,
        service_uuid: str,
        names: tuple[str, ...],
        owner: Owner | None,
        descriptor: int,
        partial: str,
        free_bytes: int,
    ) -> None:
        self.user = user
        self.service_uuid = service_uuid
        self.names = names
        self.owner = owner
        self.partial = partial
        self.free_bytes = free_bytes
        self._files = files
        self._descriptor: int | None = descriptor
        self._sha256 = hashlib.sha256()
        self._size = 0
        self._synced = 0
        # A write whose request was cancelled goes on in its thread, and must not meet another
        # file under the number of the one that was closed.
        self._lock = threading.Lock()

    @property
    def path(self) -> str:
        """Where in the project the file goes."""
        return "/".join(self.names)

    def write(self, piece: bytes | bytearray) -> None:
        """Append bytes. Raises `TooLarge`, `ProjectFull` and `StorageFull`."""
        with self._lock, _explained(self.path):
            descriptor = self._open()
            self._size += len(piece)
            self._files._arrive(self, len(piece))
            if self._size > self._files.max_file_bytes:
                raise TooLarge(self._files.max_file_bytes)
            self._sha256.update(piece)
            left = memoryview(piece)
            while left:
                left = left[os.write(descriptor, left) :]
            if self._size - self._synced >= _SYNC_EVERY_BYTES:
                os.fdatasync(descriptor)
                self._synced = self._size

    def finish(self) -> Stored:
        """Put the file into its place, durably, and return what has been stored."""
        with self._lock, _explained(self.path):
            descriptor = self._open()
            os.fsync(descriptor)
            created = self._files._place(self, descriptor, self._size)
            found = os.fstat(descriptor)
            self._close()
        stored = StoredFile(self.path, self._size, self._sha256.hexdigest(), _modified_at(found))
        return Stored(stored, _version(found), created)

    def abandon(self) -> None:
        """Take away all that is left of the upload; of one that is finished, nothing."""
        with self._lock:
            if self._descriptor is None:
                return
            self._close()
            with self._files._bin() as way, contextlib.suppress(FileNotFoundError):
                os.unlink(self.partial, dir_fd=way.at)

    def _open(self) -> int:
        if self._descriptor is None:
            raise ValueError("the upload is over")
        return self._descriptor

    def _close(self) -> None:
        descriptor, self._descriptor = self._open(), None
        self._files._settle(self, self._size)
        os.close(descriptor)


class OpenFile:
    """A file that is being read, as it was when it was opened: ``name``, ``size`` and ``version``.

    The version is another one when the file is replaced or written to.
    """

    def __init__(self, descriptor: int, name: str, found: os.stat_result) -> None:
        self.name = name
        self.size = found.st_size
        self.version = _version(found)
        self._descriptor: int | None = descriptor
        self._lock = threading.Lock()  # as in `Upload`

    def read(self, offset: int, length: int) -> bytes:
        """Return up to so many bytes from there on; none where the file has become shorter."""
        with self._lock, _explained(self.name):
            if self._descriptor is None:
                raise ValueError("the file is closed")
            return os.pread(self._descriptor, length, offset)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None


class _Way:
    """Directories from the data directory down, each opened from the one above; all are held open.

    What becomes of their names meanwhile changes nothing: the way leads where it led.
    """

    def __init__(self, data_dir: Path) -> None:
        # The operator's own; it may well be a link.
        self._descriptors = [os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)]
        self._made: list[tuple[int, str]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def at(self) -> int:
        """The directory that the way has come to."""
        return self._descriptors[-1]

    def enter(self, name: str) -> None:
        """Go down into a directory."""
        self._descriptors.append(os.open(name, _DIRECTORY, dir_fd=self.at))

    def make(self, name: str, *, owner: Owner | None = None, passable: bool = False) -> None:
        """Go down into a directory, which is created where there is none.

        A ``passable`` one lets the accounts of students through to what is theirs, where there are any.
        """
        try:
            os.mkdir(name, 0o700, dir_fd=self.at)
        except FileExistsError:
            self.enter(name)
        else:
            self._made.append((self.at, name))
            self.enter(name)
            if owner is not None and os.geteuid() == 0:
                os.fchown(self.at, *owner)
        if passable and os.geteuid() == 0 and stat.S_IMODE(os.fstat(self.at).st_mode) != 0o711:
            os.fchmod(self.at, 0o711)

    def undo(self) -> None:
        """Remove the directories that were created, as far as they are empty."""
        for above, name in reversed(self._made):
            with contextlib.suppress(OSError):
                os.rmdir(name, dir_fd=above)

    def sync(self) -> None:
        """Have the names on the way, and those at its end, on the disk."""
        for descriptor in {above for above, _ in self._made} | {self.at}:
            os.fsync(descriptor)

    def close(self) -> None:
        """Close all the directories."""
        while self._descriptors:
            os.close(self._descriptors.pop())


def _listing(at: int, path: str, depth: int, *, recurse: bool) -> Listing:
    listed: list[FileEntry] = []
    omitted = 0
    truncated = False
    prefix = f"{path}/" if path else ""
    with contextlib.closing(_entries(at, prefix, depth + 1, recurse=recurse)) as entries:
        for below, found in entries:
            if len(listed) + omitted >= MAX_LISTED:
                truncated = True
                break
            if (entry := _entry(below, found)) is not None:
                listed.append(entry)
            else:
                omitted += 1
    listed.sort(key=lambda each: each.path)
    return Listing(path, listed, sum(each.size for each in listed), omitted, truncated)


def _entry(path: str, found: os.stat_result) -> FileEntry | None:
    """Return how something is listed, None where it could not be fetched."""
    try:
        parse_path(path)
    except BadPath:
        return None
    if stat.S_ISDIR(found.st_mode):
        return FileEntry(path, "directory", 0, _modified_at(found))
    if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
        return FileEntry(path, "file", found.st_size, _modified_at(found))
    return None


def _entries(
    at: int, prefix: str, depth: int, *, recurse: bool
) -> Generator[tuple[str, os.stat_result], None, None]:
    """Yield what is in a directory and below it, no deeper than paths can be."""
    with os.scandir(at) as entries:
        for entry in entries:
            try:
                found = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            path = prefix + entry.name
            yield path, found
            if recurse and depth < MAX_DEPTH and stat.S_ISDIR(found.st_mode):
                try:
                    below = os.open(entry.name, _DIRECTORY, dir_fd=at)
                except OSError as error:
                    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES):
                        continue  # changed meanwhile, or closed to the server
                    raise
                try:
                    yield from _entries(below, f"{path}/", depth + 1, recurse=True)
                finally:
                    os.close(below)


def _move(at: int, name: str, bin_at: int, new_name: str) -> None:
    """Move a directory to the server's own; a link in its place would be moved, not followed."""
    try:
        os.rename(name, new_name, src_dir_fd=at, dst_dir_fd=bin_at)
    except PermissionError:
        _unlock(at, name)  # a directory that is to get another parent must be writable itself
        os.rename(name, new_name, src_dir_fd=at, dst_dir_fd=bin_at)


def _remove(bin_at: int, name: str, rest: str, deadline: float) -> None:
    """Remove one thing in the server's own directory, as far as there is time.

    Directories inside it are moved up beside it first. So there is one open directory at a time,
    however deep they are nested, and no way that could be led astray.
    """
    with contextlib.suppress(IsADirectoryError):
        os.unlink(name, dir_fd=bin_at)
        return
    try:
        at = os.open(name, _DIRECTORY, dir_fd=bin_at)
    except PermissionError:
        _unlock(bin_at, name)
        at = os.open(name, _DIRECTORY, dir_fd=bin_at)
    try:
        if os.fstat(at).st_uid == os.geteuid():
            os.fchmod(at, 0o700)
        _empty(at, bin_at, rest, deadline)
    finally:
        os.close(at)
    # A program that still runs in there may have added something, and readdir(3) may have missed some.
    with contextlib.suppress(OSError):
        os.rmdir(name, dir_fd=bin_at)


def _empty(at: int, bin_at: int, rest: str, deadline: float) -> None:
    with os.scandir(at) as entries:
        for entry in entries:
            if time.monotonic() > deadline:
                return
            with contextlib.suppress(FileNotFoundError):
                try:
                    os.unlink(entry.name, dir_fd=at)
                except IsADirectoryError:
                    _move(at, entry.name, bin_at, f"{rest}-{secrets.token_hex(8)}")


def _unlock(at: int, name: str) -> None:
    """Give the server back its access to a directory of its own account."""
    # By its handle, because chmod by name would follow a link.
    descriptor = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
    try:
        os.chmod(f"/proc/self/fd/{descriptor}", 0o700)
    finally:
        os.close(descriptor)


def _check_plain(found: os.stat_result, path: str) -> None:
    """Raise `PathTaken` for anything but a plain file that has this one name."""
    if stat.S_ISDIR(found.st_mode):
        raise _is_directory(path)
    if not stat.S_ISREG(found.st_mode):
        raise PathTaken(
            path, Text("is a link or a special file, which is not served", "是链接或特殊文件，不提供下载")
        )
    if found.st_nlink > 1:
        raise PathTaken(
            path, Text("is a hard link, whose file may be somebody else's", "是硬链接，可能指向他人的文件")
        )


def _is_directory(path: str) -> PathTaken:
    return PathTaken(path, Text("is a directory", "是一个目录"))


def _owner_of(project: int) -> Owner | None:
    """Return the account that a project was handed to, None where it is the server's own."""
    found = os.fstat(project)
    return (found.st_uid, found.st_gid) if found.st_uid != os.geteuid() else None


def _version(found: os.stat_result) -> str:
    return f"{found.st_ino:x}-{found.st_mtime_ns:x}-{found.st_size:x}"


def _modified_at(found: os.stat_result) -> datetime:
    try:
        seconds, ns = divmod(found.st_mtime_ns, 1_000_000_000)
        return datetime.fromtimestamp(seconds, UTC).replace(microsecond=ns // 1000)
    except (OverflowError, ValueError, OSError):  # a program may set any time, also one beyond the calendar
        return datetime.fromtimestamp(0, UTC)


_TAKEN = {
    errno.ENOTDIR: Text("leads through something that is no directory", "的上级不是目录"),
    errno.ELOOP: Text("is a link, which is not followed", "是链接，不会跟随"),
    errno.EISDIR: Text("is a directory", "是一个目录"),
    errno.EEXIST: Text("is a directory", "是一个目录"),
    errno.ENOTEMPTY: Text("is a directory", "是一个目录"),
    errno.ENXIO: Text("is a special file, which is not served", "是特殊文件，不提供下载"),
    errno.EACCES: Text("is closed to the server", "服务器无权访问"),
    errno.EPERM: Text("is closed to the server", "服务器无权访问"),
    errno.EBUSY: Text("is in use by the system", "正被系统占用"),
}


@contextlib.contextmanager
def _explained(path: str) -> Iterator[None]:
    """Turn what the kernel says about a path into errors of the tree; other faults pass."""
    try:
        yield
    except OSError as error:
        refusal = _refusal(error, path)
        if refusal is None:
            raise
        raise refusal from error


def _refusal(error: OSError, path: str) -> K12AIError | None:
    if error.errno == errno.ENOENT:
        return NoSuchFile(path)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull()
    if error.errno == errno.ENAMETOOLONG:
        return BadPath(Text("short enough for the file system", "不超过文件系统允许的长度"))
    reason = _TAKEN.get(error.errno or 0)
    return PathTaken(path, reason) if reason is not None else None

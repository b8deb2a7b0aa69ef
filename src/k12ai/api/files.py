"""``/api/v1/projects/{user}/{service_uuid}/files``: the files of projects, streamed in and out.

A file is somebody else's bytes: it is always a download, never something that a browser opens.
"""

import asyncio
import contextlib
import re
import urllib.parse
from collections.abc import AsyncGenerator, Callable
from typing import NamedTuple, ParamSpec, TypeVar

import msgspec
import structlog
from litestar.types import HTTPScope, Receive, Send

from k12ai.api import wire
from k12ai.api.answers import published, render, send_error
from k12ai.api.roles import FILE, PROJECT, principal_of
from k12ai.errors import (
    BadPath,
    BadRange,
    CodingNotSupported,
    InvalidValue,
    K12AIError,
    NoSuchFile,
    ResourceNotFound,
    StorageFull,
)
from k12ai.projects import OpenFile, ProjectFiles, Stored
from k12ai.texts import Text

# Bytes that are read or written in one go; what a transfer holds in memory is a few of these.
PIECE_BYTES = 256 * 1024
# A reader that has not taken a piece by then is gone, or as good as gone.
STALLED_S = 120.0
# Times a second; what is not removed by then is left to the next start.
MAX_CLEAR_SLICES = 300

_ROOT = b"/api/v1/projects/"
_PROJECT = re.compile(rb"[^/]*/[^/]*/files/?")
_FILE = re.compile(rb"[^/]*/[^/]*/files/")
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9._-]")

P = ParamSpec("P")
T = TypeVar("T")

log = structlog.stdlib.get_logger(__name__)


class _Target(NamedTuple):
    """What a request is about; ``path`` is empty for the project itself."""

    user: str
    service_uuid: str
    path: str
    is_directory: bool

    @classmethod
    def of(cls, scope: HTTPScope) -> "_Target":
        """Read the raw path, whose escapes are undone once, after it has been taken apart."""
        parts = _below_root(scope).split(b"/")
        if len(parts) < 3 or parts[2] != b"files":
            raise ResourceNotFound
        user, service_uuid = (_segment(part) for part in parts[:2])
        names = parts[3:]
        is_directory = not names or names[-1] == b""
        if is_directory:
            names = names[:-1]
        if b"" in names:
            raise BadPath(Text("made of names that are not empty", "由非空的名称组成"))
        return cls(user, service_uuid, "/".join(_segment(name) for name in names), is_directory)


class _Part(NamedTuple):
    """The bytes of a file that are sent, and as what."""

    status: int
    offset: int
    length: int


class FilesRoutes:
    """The routes below ``/api/v1/projects/``, as one ASGI application."""

    def __init__(self, files: ProjectFiles) -> None:
        self._files = files
        self._answer = published("GET", "HEAD", "PUT", "DELETE")(self._dispatch)
        self._answer_of_a_project = published("GET", "HEAD")(self._dispatch)

    @staticmethod
    def route(scope: HTTPScope) -> str | None:
        """Return the request's route in the role table."""
        below = _below_root(scope)
        if _PROJECT.fullmatch(below):
            return PROJECT
        return FILE if _FILE.match(below) else None

    @staticmethod
    def serves(scope: HTTPScope) -> bool:
        """Whether the request's path is one of these routes'."""
        return scope["raw_path"].startswith(_ROOT)

    async def handle(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if not self.serves(scope):
            await send_error(ResourceNotFound(), scope, receive, send)
        elif _PROJECT.fullmatch(_below_root(scope)):
            await self._answer_of_a_project(scope, receive, send)
        else:
            await self._answer(scope, receive, send)

    async def clear_leftovers(self) -> None:
        """Remove what an earlier server left half done; for once after the start, in the background."""
        for rest in await _apart(self._files.leftovers):
            await self._clear(rest)

    async def _dispatch(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        target = _Target.of(scope)
        if not principal_of(scope).acts_for(target.user):
            raise NoSuchFile(target.path or f"{target.user}/{target.service_uuid}")
        method = scope["method"]
        recurse = _asks(scope, b"recurse")
        if method in ("GET", "HEAD"):
            if target.is_directory or recurse:
                await self._list(target, send, recurse=recurse)
            else:
                await self._get(target, scope, receive, send)
        elif target.is_directory:
            raise BadPath(Text("without a '/' at its end", "不以“/”结尾"))
        elif method == "PUT":
            await self._put(target, scope, receive, send)
        else:
            await self._delete(target, send)

    async def _list(self, target: _Target, send: Send, *, recurse: bool) -> None:
        def listed() -> bytes:
            found = self._files.listing(target.user, target.service_uuid, target.path, recurse=recurse)
            return msgspec.json.encode(found)

        await wire.send_answer(send, 200, await _apart(listed))

    async def _get(self, target: _Target, scope: HTTPScope, receive: Receive, send: Send) -> None:
        file = await _apart(self._files.open, target.user, target.service_uuid, target.path)
        try:
            etag = _etag(file.version)
            if _matches(wire.header(scope, b"if-none-match"), etag):
                await _send_head(send, 304, [(b"etag", etag)])
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                return
            part = _part(scope, file.size, etag)
            if part is None:
                await _send_bad_range(scope, send, file.size)
                return
            await _send_head(send, part.status, _file_headers(file, part, etag))
            await _send_part(file, part if scope["method"] == "GET" else part._replace(length=0), receive, send)
        finally:
            await _apart(file.close)

    async def _put(self, target: _Target, scope: HTTPScope, receive: Receive, send: Send) -> None:
        _check_whole(scope)
        try:
            stored = await self._stored(target, scope, receive)
        except StorageFull as error:
            # As of other refusals, the client is to see this one, though it still sends.
            await wire.send_refusal(receive, send, *render(error, scope))
            return
        headers = [(b"etag", _etag(stored.version))]
        body = msgspec.json.encode(stored.file)
        await wire.send_answer(send, 201 if stored.created else 200, body, wire.JSON, headers)

    async def _stored(self, target: _Target, scope: HTTPScope, receive: Receive) -> Stored:
        declared = wire.header(scope, b"content-length")
        upload = await _apart(
            self._files.begin,
            target.user,
            target.service_uuid,
            target.path,
            declared_bytes=None if declared is None else int(declared),
        )
        try:
            async with contextlib.aclosing(_body(scope, receive)) as pieces:
                async for piece in pieces:
                    await _apart(upload.write, piece)
            return await _apart(upload.finish)
        finally:
            await _apart(upload.abandon)

    async def _delete(self, target: _Target, send: Send) -> None:
        rest = await _apart(self._files.delete, target.user, target.service_uuid, target.path)
        if rest is not None:
            await self._clear(rest)
        await _send_head(send, 204, [])
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _clear(self, rest: str) -> None:
        """Remove what is out of everybody's sight already; in slices, so that the server can stop."""
        reason = "still growing"
        try:
            for _ in range(MAX_CLEAR_SLICES):
                if await _apart(self._files.clear, rest):
                    return
        except K12AIError as error:
            reason = str(error)
        log.warning("files.left", rest=rest, reason=reason)


def _below_root(scope: HTTPScope) -> bytes:
    return bytes(scope["raw_path"]).split(b"?", 1)[0].removeprefix(_ROOT)


async def _apart(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run what blocks apart from the event loop; the one place where files are touched."""
    return await asyncio.to_thread(work, *args, **kwargs)


# --- in --------------------------------------------------------------------------------------------


async def _body(scope: HTTPScope, receive: Receive) -> AsyncGenerator[bytes, None]:
    """Yield the body in large pieces. Raises `wire.CallerGone` where the connection ends before it does."""
    piece = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise wire.CallerGone
        piece += message.get("body", b"")  # type: ignore[arg-type]
        more = bool(message.get("more_body"))
        if len(piece) >= PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    scope["state"][wire.BODY_READ] = True
    if piece:
        yield bytes(piece)


def _check_whole(scope: HTTPScope) -> None:
    """Raise for a body that is not the file as it is, which would be stored as something else."""
    if wire.header(scope, b"content-range") is not None:  # RFC 9110, 14.5
        raise InvalidValue("Content-Range", Text("absent: files are put whole", "空：文件只能整体上传"))
    if (wire.header(scope, b"content-encoding") or b"identity").strip().lower() != b"identity":
        raise CodingNotSupported


def _segment(raw: bytes) -> str:
    """Undo the escapes of one segment; a '/' or half an escape in it has no meaning of its own."""
    if _BAD_ESCAPE.search(raw):
        raise BadPath(Text("escaped with '%' and two hexadecimal digits", "用“%”加两位十六进制数转义"))
    try:
        name = urllib.parse.unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError:
        raise BadPath(Text("valid UTF-8", "有效的 UTF-8")) from None
    if "/" in name:
        raise BadPath(Text("made of names without '/'", "由不含“/”的名称组成"))
    return name


def _asks(scope: HTTPScope, name: bytes) -> bool:
    return any(pair.split(b"=", 1)[0] == name for pair in bytes(scope["query_string"]).split(b"&"))


# --- out -------------------------------------------------------------------------------------------


def _etag(version: str) -> bytes:
    return b'"%b"' % version.encode()


def _matches(condition: bytes | None, etag: bytes) -> bool:
    """Whether If-None-Match names this version, or any."""
    named = [each.strip().removeprefix(b"W/") for each in (condition or b"").split(b",")]
    return etag in named or b"*" in named


def _part(scope: HTTPScope, size: int, etag: bytes) -> _Part | None:
    """Return what is to be sent, None where the range lies outside; what is no single range asks for all."""
    whole = _Part(200, 0, size)
    wanted = wire.header(scope, b"range")
    unchanged = wire.header(scope, b"if-range") in (None, etag)
    if wanted is None or scope["method"] != "GET" or not unchanged or wire.repeated(scope, b"range"):
        return whole
    match = _RANGE.fullmatch(wanted.decode("latin-1").strip())
    if match is None or match[0] == "bytes=-":
        return whole
    if not match[1]:  # the last so many
        length = min(int(match[2]), size)
        return _Part(206, size - length, length) if length else None
    first, last = int(match[1]), min(int(match[2] or size), size - 1)
    if match[2] and int(match[2]) < first:
        return whole
    return _Part(206, first, last - first + 1) if first < size else None


def _file_headers(file: OpenFile, part: _Part, etag: bytes) -> list[tuple[bytes, bytes]]:
    # `X-Content-Type-Options` comes with every answer (`k12ai.api.observe`).
    plain = _NOT_PLAIN.sub("_", file.name)
    encoded = urllib.parse.quote(file.name, safe="")
    headers = [
        (b"content-type", b"application/octet-stream"),
        (b"content-length", b"%d" % part.length),
        (b"content-disposition", f"attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}".encode()),
        (b"content-security-policy", b"sandbox"),
        (b"cache-control", b"private, no-cache"),
        (b"accept-ranges", b"bytes"),
        (b"etag", etag),
    ]
    if part.status == 206:
        last = part.offset + part.length - 1
        headers.append((b"content-range", b"bytes %d-%d/%d" % (part.offset, last, file.size)))
    return headers


async def _send_head(send: Send, status: int, headers: list[tuple[bytes, bytes]]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _send_bad_range(scope: HTTPScope, send: Send, size: int) -> None:
    status, body, content_type, headers = render(BadRange(size), scope)
    headers.append((b"content-range", b"bytes */%d" % size))
    await wire.send_answer(send, status, body, content_type, headers)


async def _send_part(file: OpenFile, part: _Part, receive: Receive, send: Send) -> None:
    """Send bytes of the file; where it has become shorter, or nobody reads, the answer is left unfinished.

    The server then cuts the connection, which tells the client that something is missing.
    """
    left, offset = part.length, part.offset
    gone = asyncio.ensure_future(wire.gone(receive))
    try:
        while left > 0:
            piece = await _apart(file.read, offset, min(left, PIECE_BYTES))
            if not piece or gone.done():
                return
            left -= len(piece)
            offset += len(piece)
            async with asyncio.timeout(STALLED_S):
                await send({"type": "http.response.body", "body": piece, "more_body": left > 0})
    except TimeoutError:
        return
    finally:
        gone.cancel()
    if part.length == 0:
        await send({"type": "http.response.body", "body": b"", "more_body": False})

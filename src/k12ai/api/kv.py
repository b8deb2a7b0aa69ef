"""``/v1/kv``: the results, served as Consul serves its key-value store.

The behaviour is that of Consul's HTTP API (``/v1/kv``, "Blocking queries"), so that its clients read
results unchanged; what the platform does not have (sessions, hence locks) is refused with 501.
"""

import asyncio
import base64
import random
import re
import urllib.parse
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
from litestar.types import HTTPScope, Receive, Send
from msgspec import Struct

from k12ai.api import wire
from k12ai.api.answers import published, send_error
from k12ai.api.audit import about
from k12ai.api.reach import KeyRefused, Reach
from k12ai.api.roles import KV, principal_of
from k12ai.closing import Closing
from k12ai.errors import RequestError, ResourceNotFound
from k12ai.stores.base import Entry, Found, FoundKeys, Store, cut
from k12ai.texts import Text

MAX_VALUE_BYTES = 512 * 1024
MAX_KEY_LENGTH = 1024
MAX_WAIT_S = 600.0
DEFAULT_WAIT_S = 300.0

_ROOT = b"/v1/kv"
_UINT64 = re.compile(r"[0-9]{1,20}")
_DURATION = re.compile(r"([+-]?)(?:(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h))+")
_DURATION_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_UNIT_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


class BadKvRequest(RequestError):
    """The request does not fit Consul's API; the words are Consul's where it has some."""

    def __init__(self, words: str) -> None:
        super().__init__(Text(words, words))


class LocksNotSupported(RequestError):
    """There are no sessions, and a lock without one would be a lie."""

    status = 501

    def __init__(self) -> None:
        super().__init__(
            Text("acquire and release need sessions, which this server does not have", "不支持会话和锁")
        )


class EntryBody(Struct, rename="pascal", frozen=True):
    """An entry as Consul shows it; the value is base64, null where it is empty."""

    lock_index: int
    key: str
    flags: int
    value: str | None
    create_index: int
    modify_index: int


class Query(Struct, frozen=True):
    """The parameters of a request. Flags count by their presence: ``?recurse=false`` recurses."""

    recurse: bool
    keys: bool
    raw: bool
    separator: str
    index: int
    wait_s: float
    flags: int
    cas: int | None
    locks: int

    @classmethod
    def parse(cls, query_string: bytes) -> "Query":
        """Return the parameters; raise `BadKvRequest` for one that cannot be read."""
        try:
            pairs = urllib.parse.parse_qsl(
                query_string.decode("ascii"), keep_blank_values=True, errors="strict"
            )
        except (UnicodeDecodeError, ValueError):
            raise BadKvRequest("Invalid query string") from None
        given: dict[str, str] = {}
        for name, value in pairs:
            given.setdefault(name, value)  # the first one counts, as in Go
        if "stale" in given and "consistent" in given:
            raise BadKvRequest("Cannot specify ?stale with ?consistent, conflicting semantics.")
        return cls(
            recurse="recurse" in given,
            keys="keys" in given,
            raw="raw" in given,
            separator=given.get("separator") or given.get("seperator") or "",
            index=_uint64(given, "index", "Invalid index") or 0,
            wait_s=_wait_s(given.get("wait", "")),
            flags=_uint64(given, "flags", "Invalid flags value") or 0,
            cas=_uint64(given, "cas", "Invalid cas value"),
            locks=("acquire" in given) + ("release" in given),
        )


class KvRoutes:
    """The routes below ``/v1/kv``, as one ASGI application."""

    def __init__(self, store: Store, closing: Closing) -> None:
        self._store = store
        self._closing = closing
        self._answer = published("GET", "PUT", "DELETE")(self._dispatch)

    @staticmethod
    def route(scope: HTTPScope) -> str | None:
        """Return the request's route in the role table."""
        return KV if KvRoutes.serves(scope) else None

    @staticmethod
    def serves(scope: HTTPScope) -> bool:
        """Whether the request's path is one of these routes'."""
        # The raw path, as `_key_of` has it: '/v1%2Fkv' is another name.
        path = scope["raw_path"]
        return path == _ROOT or path.startswith(_ROOT + b"/")

    async def handle(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if self.serves(scope):
            await self._answer(scope, receive, send)
        else:
            await send_error(ResourceNotFound(), scope, receive, send)

    async def _dispatch(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        key = _key_of(scope)
        query = Query.parse(scope["query_string"])
        reach = Reach(principal_of(scope).users)
        method = scope["method"]
        if method == "GET":
            await self._get(key, query, reach, receive, send)
        elif method == "PUT":
            await self._put(key, query, reach, scope, receive, send)
        else:
            if query.recurse:
                about(scope, "kv.delete", f"{scope['path']}?recurse")
            await self._delete(key, query, reach, send)

    async def _get(self, key: str, query: Query, reach: Reach, receive: Receive, send: Send) -> None:
        if query.keys:
            listed = await self._blocking(
                lambda: self._keys(reach, key, query.separator), key, query, receive, prefix=True
            )
            # The root with nothing below it is an empty list, any other prefix is not there.
            await _send_json(send, listed.index, list(listed.keys) if listed.keys or not key else None)
        elif query.recurse:
            found = await self._blocking(lambda: self._list(reach, key), key, query, receive, prefix=True)
            await _send_json(send, found.index, _bodies(found.entries))
        elif not key:
            raise BadKvRequest("Missing key name")
        else:
            reach.require(key)
            found = await self._blocking(lambda: self._store.get(key), key, query, receive, prefix=False)
            if query.raw and found.entries:
                await _send_raw(send, found.index, found.entries[0].value)
            else:
                await _send_json(send, found.index, _bodies(found.entries))

    async def _keys(self, reach: Reach, prefix: str, separator: str) -> FoundKeys:
        """Return the names in reach below a prefix."""
        found = [await self._store.keys(each) for each in reach.below(prefix)]
        names = [name for each in found for name in each.keys]
        return FoundKeys(cut(names, prefix, separator), max((each.index for each in found), default=1))

    async def _list(self, reach: Reach, prefix: str) -> Found:
        """Return the entries in reach below a prefix."""
        found = [await self._store.list(each) for each in reach.below(prefix)]
        if len(found) == 1:
            return found[0]
        entries = [entry for each in found for entry in each.entries]
        return Found(entries, max((each.index for each in found), default=1))

    async def _put(
        self, key: str, query: Query, reach: Reach, scope: HTTPScope, receive: Receive, send: Send
    ) -> None:
        if not key:
            raise BadKvRequest("Missing key name")
        reach.require(key, new=True)
        if query.locks + (query.cas is not None) > 1:
            raise BadKvRequest("Conflicting flags: cas, acquire and release exclude each other")
        if query.locks:
            raise LocksNotSupported
        value = await wire.read_body(scope, receive, MAX_VALUE_BYTES)
        written = await self._store.put(key, value, flags=query.flags, cas=query.cas)
        await wire.send_answer(send, 200, b"true" if written else b"false")

    async def _delete(self, key: str, query: Query, reach: Reach, send: Send) -> None:
        if query.recurse:
            if query.cas is not None:
                raise BadKvRequest("Conflicting flags: recurse and cas exclude each other")
            prefixes = reach.below(key)
            if not prefixes:
                raise KeyRefused
            for prefix in prefixes:
                await self._store.delete_prefix(prefix)
            deleted = True
        elif not key:
            raise BadKvRequest("Missing key name")
        else:
            reach.require(key)
            deleted = await self._store.delete(key, cas=query.cas)
        await wire.send_answer(send, 200, b"true" if deleted else b"false")

    async def _blocking(
        self, read: Callable[[], Awaitable[Any]], key: str, query: Query, receive: Receive, *, prefix: bool
    ) -> Any:
        """Read at once, or once something under ``key`` is newer than the caller's index.

        Returns the current state when the wait is over, the server stops or the caller has gone.
        """
        if query.index == 0:
            return await read()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + query.wait_s
        with self._store.waiting(key, prefix=prefix) as waiter:
            ends = [asyncio.ensure_future(self._closing.wait()), asyncio.ensure_future(wire.gone(receive))]
            try:
                while True:
                    found = await read()
                    left_s = deadline - loop.time()
                    if found.index > query.index or left_s <= 0 or any(end.done() for end in ends):
                        return found
                    changed = asyncio.ensure_future(waiter.changed())
                    await asyncio.wait([changed, *ends], timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
                    changed.cancel()
            finally:
                for end in ends:
                    end.cancel()


def _key_of(scope: HTTPScope) -> str:
    # The raw path, because frameworks tidy paths up and to the store '/' is a character like others.
    raw = bytes(scope["raw_path"]).split(b"?", 1)[0].removeprefix(_ROOT).removeprefix(b"/")
    try:
        key = urllib.parse.unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError:
        raise BadKvRequest("Invalid key name: not UTF-8") from None
    if len(key) > MAX_KEY_LENGTH:
        raise BadKvRequest(f"Invalid key name: longer than {MAX_KEY_LENGTH} characters")
    if key.startswith("/"):
        raise BadKvRequest("Invalid key name: must not begin with a '/'")
    if any(ord(character) < 32 or ord(character) == 127 for character in key):
        raise BadKvRequest("Invalid key name: control characters")
    if any(segment in (".", "..") for segment in key.split("/")):
        raise BadKvRequest("Invalid key name: '.' and '..' are not names")
    return key


def _uint64(given: Mapping[str, str], name: str, words: str) -> int | None:
    text = given.get(name)
    if text is None or (text == "" and name == "index"):
        return None
    if not _UINT64.fullmatch(text) or int(text) >= 1 << 64:
        raise BadKvRequest(words)
    return int(text)


def _wait_s(text: str) -> float:
    """Read a Go duration; clamp it and add Consul's jitter of up to a sixteenth."""
    wait_s = 0.0
    if text and text != "0":
        if len(text) > 64 or not (match := _DURATION.fullmatch(text)):
            raise BadKvRequest("Invalid wait time")
        wait_s = sum(float(number) * _UNIT_S[unit] for number, unit in _DURATION_PART.findall(text))
        wait_s = -wait_s if match[1] == "-" else wait_s
    wait_s = min(wait_s, MAX_WAIT_S) if wait_s > 0 else DEFAULT_WAIT_S
    return wait_s + random.uniform(0, wait_s / 16)  # noqa: S311 - spreads load, hides nothing


def _bodies(entries: Sequence[Entry]) -> list[EntryBody] | None:
    """Return the entries as Consul shows them, or None where there is none."""
    return [
        EntryBody(
            lock_index=each.lock_index,
            key=each.key,
            flags=each.flags,
            value=base64.b64encode(each.value).decode("ascii") if each.value else None,
            create_index=each.create_index,
            modify_index=each.modify_index,
        )
        for each in entries
    ] or None


def _index_headers(index: int) -> list[tuple[bytes, bytes]]:
    return [
        (b"x-consul-index", b"%d" % max(1, index)),
        (b"x-consul-knownleader", b"true"),
        (b"x-consul-lastcontact", b"0"),
    ]


async def _send_json(send: Send, index: int, body: object | None) -> None:
    """Send a body, or Consul's empty 404 with its index where there is none."""
    if body is None:
        await wire.send_answer(send, 404, b"", wire.PLAIN_TEXT, _index_headers(index))
    else:
        await wire.send_answer(send, 200, msgspec.json.encode(body), wire.JSON, _index_headers(index))


async def _send_raw(send: Send, index: int, value: bytes) -> None:
    # A value is somebody else's bytes: a browser must neither guess its type nor run it (CVE-2020-25864).
    headers = [*_index_headers(index), (b"content-security-policy", b"sandbox")]
    await wire.send_answer(send, 200, value, b"text/plain", headers)

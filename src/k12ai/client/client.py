"""A synchronous client, because its users sit in notebooks and shells."""

import base64
import ipaddress
import os
import re
import time
import urllib.parse
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

import httpx
import msgspec
from msgspec import Struct

from k12ai.client.errors import RequestRefused, ServerUnreachable
from k12ai.models import DEFAULT_GRACE_S, PLATFORM, StatsMessage
from k12ai.texts import Language

DEFAULT_SERVER_URL = "http://127.0.0.1:8119"
TIMEOUT_S = 30.0
# One blocking read; a longer wait is made of several, so that a dead connection is noticed.
LONGEST_READ_S = 60.0
RETRY_S = 1.0

_STATS = "k12ai/platform/stats"
_CONTROL = "k12ai/platform/control"
_NOT_AN_IDENTIFIER = re.compile(r"[^A-Za-z0-9._@-]")


class StoredValue(NamedTuple):
    """A key and its decoded value; ``modify_index`` tells one version of it from another."""

    key: str
    value: Any
    modify_index: int


class _Entry(Struct, rename="pascal"):
    key: str
    value: str | None
    modify_index: int


_entries_decoder = msgspec.json.Decoder(list[_Entry])


class Client:
    """Talks to one server.

    ``server_url`` and ``token`` default to ``K12AI_SERVER_URL`` and ``K12AI_TOKEN``. Methods raise
    `RequestRefused` when the server says no and `ServerUnreachable` when it cannot be reached. Use
    it as a context manager, or `close` it.
    """

    def __init__(
        self, server_url: str | None = None, token: str | None = None, *, language: Language = "en"
    ) -> None:
        self.server_url = (server_url or os.environ.get("K12AI_SERVER_URL") or DEFAULT_SERVER_URL).rstrip("/")
        token = token or os.environ.get("K12AI_TOKEN")
        headers: dict[str, str] = {"Accept-Language": language}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        try:
            self._http = httpx.Client(
                base_url=self.server_url,
                headers=headers,
                timeout=TIMEOUT_S,
                verify=self.server_url.startswith("https:"),  # loading certificates takes longer than an answer
                # A school's proxy cannot reach a server on this machine.
                trust_env=not _is_loopback(self.server_url),
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise ServerUnreachable(self.server_url, str(error)) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def stats(self, *parts: str) -> StatsMessage:
        """Return the latest figures of the named parts.

        They are ``cpus gpus disks containers nodes users``; where none is named, the first four.
        """
        answer = self._checked(_STATS, self._envelope("query", dict.fromkeys(parts, True)))
        return msgspec.convert(answer, StatsMessage)

    def stop(self, container_id: str, *, grace_s: int = DEFAULT_GRACE_S) -> str:
        """Stop a container and return the server's sentence about it once it is really gone."""
        params = {"id": container_id, "timeout": grace_s}
        return str(
            self._checked(_CONTROL, self._envelope("container.stop", params), timeout_s=grace_s + TIMEOUT_S)
        )

    def post(self, uri: str, body: Mapping[str, Any], *, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
        """Post a request and return the answer's body as it is, good or bad."""
        content = msgspec.json.encode(body)
        response = self._send("POST", f"/{uri.lstrip('/')}", content=content, timeout_s=timeout_s)
        try:
            answer = msgspec.json.decode(response.content)
        except msgspec.DecodeError:
            answer = None
        if not isinstance(answer, dict):
            raise ServerUnreachable(self.server_url, f"HTTP {response.status_code}, not K12AI's answer")
        return answer

    def read(self, key: str, *, wait_s: float = 0.0) -> list[StoredValue]:
        """Return the key and everything below it, by path segment, in key order.

        Where there is nothing, waits up to ``wait_s`` seconds and returns as soon as something is
        written; negative waits until then. ``platform/u/1`` does not find ``platform/u/10``.
        """
        deadline = time.monotonic() + wait_s if wait_s >= 0 else float("inf")
        index = 0
        while True:
            left_s = deadline - time.monotonic()
            try:
                found, latest = self._read_once(key, index, left_s)
            except ServerUnreachable:
                # A server that answered before and is started again meanwhile is waited for.
                if index == 0 or left_s <= RETRY_S:
                    raise
                time.sleep(RETRY_S)
                continue
            if found or left_s <= 0.01:
                return found
            # An index that goes back means another store: start again.
            index = latest if latest >= index else 0

    def delete(self, key: str) -> None:
        """Delete the key and everything below it, by path segment."""
        base = key.strip("/")
        self._send("DELETE", _kv_path(base))
        self._send("DELETE", _kv_path(base + "/"), params={"recurse": ""})

    def delete_version(self, stored: StoredValue) -> bool:
        """Delete a key unless it has been written again since; return whether it is gone."""
        response = self._send("DELETE", _kv_path(stored.key), params={"cas": str(stored.modify_index)})
        return response.content == b"true"

    def _read_once(self, key: str, index: int, left_s: float) -> tuple[list[StoredValue], int]:
        base = key.strip("/")
        params = {"recurse": ""}
        # The server adds up to a sixteenth to the wait.
        wait_s = min(max(left_s, 0.0), LONGEST_READ_S) * 16 / 17
        if index and wait_s > 0:
            params |= {"index": str(index), "wait": f"{max(1, int(wait_s * 1000))}ms"}
        response = self._send("GET", _kv_path(base), params=params, timeout_s=LONGEST_READ_S + TIMEOUT_S)
        try:
            latest = int(response.headers["X-Consul-Index"])
            entries = _entries_decoder.decode(response.content) if response.status_code == 200 else []
        except (KeyError, ValueError, msgspec.DecodeError):
            raise ServerUnreachable(self.server_url, "not K12AI's answer") from None
        return [
            StoredValue(each.key, _decoded(each.value), each.modify_index)
            for each in entries
            if each.key == base or each.key.startswith(base + "/")
        ], latest

    def _checked(self, uri: str, body: Mapping[str, Any], *, timeout_s: float = TIMEOUT_S) -> Any:
        answer = self.post(uri, body, timeout_s=timeout_s)
        if answer.get("code") != 100000:
            raise RequestRefused(
                answer.get("code", 999999), answer.get("descr", ""), str(answer.get("message", ""))
            )
        return answer["message"]

    def _envelope(self, op: str, params: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "op": op,
            "user": local_user(),
            "service_name": PLATFORM,
            "service_uuid": "client",
            "service_params": params,
        }

    def _send(
        self,
        method: str,
        path: str,
        *,
        content: bytes | None = None,
        params: Mapping[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> httpx.Response:
        headers = {"Content-Type": "application/json"} if content is not None else {}
        try:
            response = self._http.request(
                method, path, content=content, params=params, headers=headers, timeout=timeout_s
            )
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise ServerUnreachable(self.server_url, str(error) or type(error).__name__) from None
        if path.startswith("/v1/") and response.status_code not in (200, 404):
            raise RequestRefused(999999, f"HTTP {response.status_code}", response.text)
        return response


def local_user() -> str:
    """Return the name of whoever runs this program, in the characters that the platform allows."""
    import getpass

    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as in some containers
        name = "user"
    return _NOT_AN_IDENTIFIER.sub("_", name)[:64].strip(".") or "user"


def _kv_path(key: str) -> str:
    return "/v1/kv/" + urllib.parse.quote(key, safe="/@")


def _decoded(value: str | None) -> Any:
    content = base64.b64decode(value or "")
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return content.decode("utf-8", errors="replace")


def _is_loopback(url: str) -> bool:
    """Whether the address is this machine's; raises ValueError for what is no address."""
    host = urllib.parse.urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

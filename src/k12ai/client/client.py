"""A synchronous client, because its users sit in notebooks and shells."""

import base64
import codecs
import os
import re
import time
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import msgspec
from msgspec import Struct

from k12ai.client.access import AccessClient
from k12ai.client.connection import TIMEOUT_S, TRANSFER_S, Connection, quoted
from k12ai.client.errors import RequestRefused, ServerUnreachable
from k12ai.client.tasks import TaskHandle
from k12ai.models import DEFAULT_GRACE_S, PLATFORM, StatsMessage
from k12ai.task import FrameworkInfo, Limits, Messages, MessageType, Task, TaskRequest
from k12ai.texts import Language

DEFAULT_SERVER_URL = "http://127.0.0.1:8119"
# One blocking read; a longer wait is made of several, so that a dead connection is noticed.
LONGEST_READ_S = 60.0
RETRY_S = 1.0

_STATS = "k12ai/platform/stats"
_CONTROL = "k12ai/platform/control"
FilePath = str | os.PathLike[str]

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


class _Tasks(Struct):
    tasks: list[Task]


class _Frameworks(Struct):
    frameworks: list[FrameworkInfo]


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
        self._wire = Connection(self.server_url, token, language)
        self._has_token = bool(token)
        self._user: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._wire.close()

    @property
    def access(self) -> AccessClient:
        """Tokens, classes and the audit."""
        return AccessClient(self._wire)

    @property
    def user(self) -> str:
        """Whose projects are meant where nobody is named: the token's user, without a token the account's."""
        if self._user is None:
            self._user = (self.access.me().user if self._has_token else "") or local_user()
        return self._user

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
        response = self._wire.send("POST", f"/{uri.lstrip('/')}", content=content, timeout_s=timeout_s)
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
        self._wire.send("DELETE", _kv_path(base))
        self._wire.send("DELETE", _kv_path(base + "/"), params={"recurse": ""})

    def delete_version(self, stored: StoredValue) -> bool:
        """Delete a key unless it has been written again since; return whether it is gone."""
        response = self._wire.send("DELETE", _kv_path(stored.key), params={"cas": str(stored.modify_index)})
        return response.content == b"true"

    # --- tasks -----------------------------------------------------------------------------------

    def submit(
        self,
        framework: str,
        op: str,
        service_uuid: str,
        params: Mapping[str, Any] | None = None,
        *,
        user: str | None = None,
        limits: Limits | None = None,
        idempotency_key: str | None = None,
    ) -> TaskHandle:
        """Start a task for a project and return its handle; it goes on whether anybody watches or not.

        With an ``idempotency_key``, sending it again returns the task of the first time.
        """
        wanted = TaskRequest(
            framework, op, user or self.user, service_uuid, dict(params or {}), limits or Limits()
        )
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return TaskHandle(self, self._wire.resource("POST", "tasks", Task, body=wanted, headers=headers))

    def task(self, task_id: str) -> Task:
        """Return a task."""
        return self._wire.resource("GET", f"tasks/{quoted(task_id)}", Task)

    def handle(self, task_id: str) -> TaskHandle:
        """Return the handle of a task that somebody has submitted."""
        return TaskHandle(self, self.task(task_id))

    def tasks(
        self, *, user: str | None = None, service_uuid: str | None = None, active: bool | None = None
    ) -> list[Task]:
        """Return the tasks that fit, newest first."""
        params = {"user": user, "service_uuid": service_uuid}
        asked = {name: value for name, value in params.items() if value is not None}
        if active is not None:
            asked["active"] = "true" if active else "false"
        return self._wire.resource("GET", "tasks", _Tasks, params=asked).tasks

    def stop_task(self, task_id: str, *, grace_s: int = DEFAULT_GRACE_S) -> Task:
        """Stop a task and return it once it has ended."""
        params = {"timeout": str(grace_s), "user": self.user}
        path = f"tasks/{quoted(task_id)}/stop"
        return self._wire.resource("POST", path, Task, params=params, timeout_s=grace_s + TIMEOUT_S)

    def messages(
        self, task_id: str, after: int = 0, *, types: Sequence[MessageType] = (), wait_s: float = 0.0
    ) -> Messages:
        """Return what a task said behind the cursor ``after``; waits up to ``wait_s`` for the first."""
        params = {"after": str(after), "wait": f"{wait_s:g}", **({"type": ",".join(types)} if types else {})}
        path = f"tasks/{quoted(task_id)}/messages"
        return self._wire.resource("GET", path, Messages, params=params, timeout_s=wait_s + TIMEOUT_S)

    def logs(self, task_id: str, *, follow: bool = False) -> Iterator[str]:
        """Yield what a task prints, in pieces; with ``follow``, until it has ended."""
        params = {"follow": "true" if follow else "false"}
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        with self._wire.stream("GET", f"/api/v1/tasks/{quoted(task_id)}/logs", params=params) as response:
            for piece in response.iter_raw():
                yield decoder.decode(piece)

    def frameworks(self) -> list[FrameworkInfo]:
        """Return what tasks can run here."""
        return self._wire.resource("GET", "frameworks", _Frameworks).frameworks

    def schema(self, framework: str, op: str) -> dict[str, Any]:
        """Return the JSON Schema of an op's parameters."""
        body = {"op": op, "user": self.user, "service_name": framework, "service_uuid": "client"}
        schema: dict[str, Any] = self._checked("k12ai/framework/schema", body)
        return schema

    # --- files -----------------------------------------------------------------------------------

    def upload(
        self,
        file: str | os.PathLike[str],
        service_uuid: str,
        path: str | None = None,
        *,
        user: str | None = None,
    ) -> None:
        """Put a file into a project, under its own name where no ``path`` is given."""
        source = Path(file)
        target = self._file_url(user, service_uuid, path or source.name)
        with source.open("rb") as content:
            headers = {"Content-Type": "application/octet-stream"}
            self._wire.checked(
                self._wire.send("PUT", target, content=content, headers=headers, timeout_s=TRANSFER_S)
            )

    def download(
        self,
        path: str,
        service_uuid: str,
        file: str | os.PathLike[str] | None = None,
        *,
        user: str | None = None,
    ) -> Path:
        """Fetch a file of a project, into one of the same name where none is given; return where it is."""
        target = Path(file if file is not None else Path(path).name)
        partial = target.with_name(f".{target.name}.part")
        try:
            with (
                self._wire.stream("GET", self._file_url(user, service_uuid, path)) as response,
                partial.open("wb") as out,
            ):
                for piece in response.iter_raw():
                    out.write(piece)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        return target

    def files(self, service_uuid: str, *, user: str | None = None) -> list[dict[str, Any]]:
        """Return the files of a project: ``path``, ``kind``, ``size``, ``modified_at``."""
        url = self._file_url(user, service_uuid, "").rstrip("/")
        response = self._wire.checked(self._wire.send("GET", url, params={"recurse": ""}))
        entries: list[dict[str, Any]] = msgspec.json.decode(response.content)["entries"]
        return entries

    def delete_file(self, path: str, service_uuid: str, *, user: str | None = None) -> None:
        """Delete a file of a project, or a directory with all that is in it."""
        self._wire.checked(self._wire.send("DELETE", self._file_url(user, service_uuid, path)))

    def _file_url(self, user: str | None, service_uuid: str, path: str) -> str:
        place = f"{quoted(user or self.user)}/{quoted(service_uuid)}"
        return f"/api/v1/projects/{place}/files/{urllib.parse.quote(path)}"

    def _read_once(self, key: str, index: int, left_s: float) -> tuple[list[StoredValue], int]:
        base = key.strip("/")
        params = {"recurse": ""}
        # The server adds up to a sixteenth to the wait.
        wait_s = min(max(left_s, 0.0), LONGEST_READ_S) * 16 / 17
        if index and wait_s > 0:
            params |= {"index": str(index), "wait": f"{max(1, int(wait_s * 1000))}ms"}
        response = self._wire.send("GET", _kv_path(base), params=params, timeout_s=LONGEST_READ_S + TIMEOUT_S)
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
            "user": self.user,
            "service_name": PLATFORM,
            "service_uuid": "client",
            "service_params": params,
        }


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

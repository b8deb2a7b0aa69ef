"""The wire itself: requests to one server, and its refusals as errors."""

import contextlib
import ipaddress
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import BinaryIO, TypeVar

import httpx
import msgspec
from msgspec import Struct

from k12ai.catalogue import CATALOGUE
from k12ai.client.errors import RequestRefused, ServerUnreachable
from k12ai.texts import Language, Text

T = TypeVar("T")

TIMEOUT_S = 30.0
# Between two pieces of a file or of output.
TRANSFER_S = 600.0


class _Problem(Struct):
    code: int
    title: str
    detail: str


class Connection:
    """Sends requests; raises `ServerUnreachable` where no answer of a K12AI server comes back."""

    def __init__(self, server_url: str, token: str | None, language: Language) -> None:
        self._server_url = server_url
        self._language = language
        headers: dict[str, str] = {"Accept-Language": language}
        if token := (token or "").strip():  # files have a line break at their end
            if not (token.isascii() and token.isprintable()):
                row = CATALOGUE[100601]
                words = Text("K12AI_TOKEN is no token", "K12AI_TOKEN 不是令牌")
                raise RequestRefused(row.number, row.text.pick(language), words.pick(language))
            headers["Authorization"] = f"Bearer {token}"
        try:
            self._http = httpx.Client(
                base_url=server_url,
                headers=headers,
                timeout=TIMEOUT_S,
                verify=server_url.startswith("https:"),  # loading certificates takes longer than an answer
                # A school's proxy cannot reach a server on this machine.
                trust_env=not _is_loopback(server_url),
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise ServerUnreachable(server_url, str(error)) from None

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def send(
        self,
        method: str,
        path: str,
        *,
        content: bytes | BinaryIO | None = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> httpx.Response:
        """Return the answer, good or bad; of the key-value store, only a good one or a 404."""
        sent = {"Content-Type": "application/json"} if content is not None else {}
        sent |= headers or {}
        try:
            response = self._http.request(
                method, path, content=content, params=params, headers=sent, timeout=timeout_s
            )
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise self._unreachable(str(error) or type(error).__name__) from None
        if path.startswith("/v1/") and response.status_code not in (200, 404):
            raise self._refusal_of_the_store(response)
        return response

    def resource(
        self,
        method: str,
        path: str,
        kind: type[T],
        *,
        body: object = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> T:
        """Return what is below ``/api/v1`` as ``kind``. Raises `RequestRefused`."""
        content = None if body is None else msgspec.json.encode(body)
        response = self.send(
            method, f"/api/v1/{path}", content=content, params=params, headers=headers, timeout_s=timeout_s
        )
        try:
            return msgspec.json.decode(self.checked(response).content, type=kind)
        except msgspec.DecodeError:
            raise self._not_ours(response) from None

    def checked(self, response: httpx.Response) -> httpx.Response:
        """Return a good answer; raise what a bad one says."""
        if response.status_code < 400:
            return response
        try:
            problem = msgspec.json.decode(response.content, type=_Problem)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise self._not_ours(response) from None
        raise RequestRefused(problem.code, problem.title, problem.detail)

    @contextlib.contextmanager
    def stream(
        self, method: str, path: str, *, params: Mapping[str, str] | None = None
    ) -> Iterator[httpx.Response]:
        """Yield a good answer whose body is still to be read."""
        try:
            with self._http.stream(method, path, params=params, timeout=TRANSFER_S) as response:
                if response.status_code >= 400:
                    response.read()
                yield self.checked(response)
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise self._unreachable(str(error) or type(error).__name__) from None

    def _refusal_of_the_store(self, response: httpx.Response) -> RequestRefused:
        """Return what the store says in Consul's words, which has no codes, in ours."""
        if response.status_code != 403:
            return RequestRefused(999999, f"HTTP {response.status_code}", response.text)
        unknown = "authorization" not in self._http.headers or response.text.startswith("ACL")
        code = 100601 if unknown else 100602
        return RequestRefused(code, CATALOGUE[code].text.pick(self._language), response.text)

    def _unreachable(self, reason: str) -> ServerUnreachable:
        return ServerUnreachable(self._server_url, reason)

    def _not_ours(self, response: httpx.Response) -> ServerUnreachable:
        return self._unreachable(f"HTTP {response.status_code}, not K12AI's answer")


def quoted(segment: str) -> str:
    """Return a name as one segment of a path."""
    return urllib.parse.quote(segment, safe="@")


def _is_loopback(url: str) -> bool:
    """Whether the address is this machine's; raises ValueError for what is no address."""
    host = urllib.parse.urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

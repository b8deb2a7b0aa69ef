"""A server with a school on it: an admin, two teachers with a class each, and students."""

import time
from collections.abc import Sequence

import httpx
import msgspec

from k12ai.client import Client
from tests.support.server import Server

ADMIN, TEACHER, OTHER_TEACHER = "head", "zhang", "qian"
STUDENT, CLASSMATE, OTHER_STUDENT = "li", "wang", "sun"
# Its name begins like another's: what is theirs must not be told apart by beginnings alone.
NAMESAKE = "li2"


class School:
    """The people of a server and their tokens, by name; ``expired`` and ``revoked`` are students'."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._addresses = (f"127.1.{high}.{low}" for high in range(256) for low in range(1, 255))
        with Client(server.url) as client:
            self.tokens = {ADMIN: client.access.create_token(ADMIN, "admin").token}
        with self.client(ADMIN) as head:
            self.tokens |= {
                each: head.access.create_token(each, "teacher").token for each in (TEACHER, OTHER_TEACHER)
            }
            first = head.access.set_class("3-1", [STUDENT, CLASSMATE, NAMESAKE], [TEACHER])
            second = head.access.set_class("3-2", [OTHER_STUDENT], [OTHER_TEACHER])
            self.tokens |= {each.user: each.token for each in (*first.tokens, *second.tokens)}
            revoked = head.access.create_token(STUDENT)
            head.access.revoke_token(revoked.id)
            self.tokens["revoked"] = revoked.token
            self.tokens["expired"] = head.access.create_token(STUDENT, expires_in_s=1).token
        time.sleep(1.1)

    def client(self, name: str) -> Client:
        """Return a client with somebody's token."""
        return Client(self.server.url, self.tokens[name])

    def headers(self, name: str | None) -> dict[str, str]:
        """Return the header field that says who asks; None: nobody."""
        return {} if name is None else {"Authorization": f"Bearer {self.tokens.get(name, name)}"}

    def ask(
        self, name: str | None, method: str, path: str, body: object = None, **headers: str
    ) -> httpx.Response:
        """Send a request as somebody; ``body`` is sent as JSON, bytes as they are.

        What is nobody's token comes from an address of its own: wrong ones are counted there.
        """
        content = body if isinstance(body, bytes) or body is None else msgspec.json.encode(body)
        sent = {**self.headers(name), **headers}
        if body is not None and not isinstance(body, bytes):
            sent["Content-Type"] = "application/json"
        if name is None or name in self.tokens:
            return self.server.http.request(method, path, content=content, headers=sent)
        with self.at(next(self._addresses)) as http:
            return http.request(method, path, content=content, headers=sent)

    def at(self, address: str) -> httpx.Client:
        """Return a client that connects from another of this machine's loopback addresses."""
        return http_at(self.server, address)

    def put(self, name: str, *keys: str) -> None:
        """Write keys as somebody."""
        for key in keys:
            assert self.ask(name, "PUT", f"/v1/kv/{key}", b"x").text == "true"

    def keys(self, name: str, prefix: str = "") -> Sequence[str]:
        """Return the keys below a prefix that exist for somebody."""
        answer = self.ask(name, "GET", f"/v1/kv/{prefix}?keys")
        return [] if answer.status_code == 404 else msgspec.json.decode(answer.content, type=list[str])


def http_at(server: Server, address: str) -> httpx.Client:
    """Return a client of a server that connects from another of this machine's loopback addresses."""
    return httpx.Client(base_url=server.url, timeout=30, transport=httpx.HTTPTransport(local_address=address))

"""``/v1/kv`` over HTTP, as Consul's own documentation has it."""

import base64
import socket
import threading
import time
from typing import Any

import httpx
import pytest

from tests.support.server import Server, strict


@pytest.fixture(name="prefix")
def _prefix(request: pytest.FixtureRequest) -> str:
    """A prefix of the test's own in the shared store."""
    return f"test/{request.node.name.replace('[', '_').replace(']', '')[:60]}"


def put(server: Server, key: str, value: bytes = b"x", **params: str) -> Any:
    answer = server.http.put(f"/v1/kv/{key}", content=value, params=params)
    assert answer.status_code == 200, answer.text
    return strict(answer)


def get(server: Server, key: str, **params: str) -> httpx.Response:
    return server.http.get(f"/v1/kv/{key}", params=params)


def index_of(response: httpx.Response) -> int:
    return int(response.headers["X-Consul-Index"])


def test_an_entry_has_consuls_fields(server: Server, prefix: str) -> None:
    put(server, prefix, b"value", flags="7")
    answer = get(server, prefix)
    (entry,) = strict(answer)
    assert list(entry) == ["LockIndex", "Key", "Flags", "Value", "CreateIndex", "ModifyIndex"]
    assert (entry["Key"], entry["Flags"], entry["LockIndex"]) == (prefix, 7, 0)
    assert base64.b64decode(entry["Value"]) == b"value"
    assert index_of(answer) == entry["ModifyIndex"]
    assert answer.headers["X-Consul-KnownLeader"] == "true"
    assert answer.headers["X-Consul-LastContact"] == "0"


def test_an_empty_value_is_null(server: Server, prefix: str) -> None:
    put(server, prefix, b"")
    assert strict(get(server, prefix))[0]["Value"] is None


@pytest.mark.parametrize("params", [{}, {"recurse": ""}, {"keys": ""}, {"raw": ""}])
def test_a_missing_key_is_an_empty_404_with_an_index(
    server: Server, prefix: str, params: dict[str, str]
) -> None:
    answer = get(server, f"{prefix}/nothing", **params)
    assert (answer.status_code, answer.content) == (404, b"")
    assert index_of(answer) >= 1


@pytest.mark.parametrize("value", ["", "true", "false", "0"])
def test_flags_count_by_their_presence(server: Server, prefix: str, value: str) -> None:
    put(server, f"{prefix}/a")
    put(server, f"{prefix}/b")
    assert len(strict(get(server, prefix, recurse=value))) == 2
    assert strict(get(server, prefix, keys=value)) == [f"{prefix}/a", f"{prefix}/b"]


@pytest.mark.parametrize("separator", ["separator", "seperator"])
def test_keys_are_cut_at_the_separator_however_it_is_spelt(server: Server, prefix: str, separator: str) -> None:
    for key in ("a/1", "a/2", "b"):
        put(server, f"{prefix}/{key}")
    assert strict(get(server, f"{prefix}/", keys="", **{separator: "/"})) == [f"{prefix}/a/", f"{prefix}/b"]


def test_raw_is_the_bytes_alone_and_harmless_in_a_browser(server: Server, prefix: str) -> None:
    put(server, prefix, b"<script>\x00\xff")
    answer = get(server, prefix, raw="")
    assert answer.content == b"<script>\x00\xff"
    assert answer.headers["Content-Type"] == "text/plain"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Security-Policy"] == "sandbox"


def test_a_slash_is_a_character_like_others(server: Server, prefix: str) -> None:
    for key in (f"{prefix}/a", f"{prefix}/a/", f"{prefix}/a//b"):
        put(server, key, key.encode())
    assert [entry["Key"] for entry in strict(get(server, prefix, recurse=""))] == [
        f"{prefix}/a",
        f"{prefix}/a/",
        f"{prefix}/a//b",
    ]
    assert get(server, f"{prefix}/a/", raw="").content == f"{prefix}/a/".encode()


def test_keys_may_hold_any_letters(server: Server, prefix: str) -> None:
    put(server, f"{prefix}/学生 1%25%3F")
    assert strict(get(server, prefix, recurse=""))[0]["Key"] == f"{prefix}/学生 1%?"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/v1/kv/", b"Missing key name"),
        ("/v1/kv", b"Missing key name"),
        ("/v1/kv//a", b"Invalid key name"),
        ("/v1/kv/a/%2e%2e/b", b"Invalid key name"),
        ("/v1/kv/%ff", b"Invalid key name"),
        ("/v1/kv/a%00b", b"Invalid key name"),
        ("/v1/kv/a%0ab", b"Invalid key name"),
        (f"/v1/kv/{'a' * 1025}", b"Invalid key name"),
        ("/v1/kv/a?index=x", b"Invalid index"),
        ("/v1/kv/a?index=-1", b"Invalid index"),
        ("/v1/kv/a?wait=x", b"Invalid wait time"),
        ("/v1/kv/a?wait=5", b"Invalid wait time"),
    ],
)
def test_what_cannot_be_read_is_refused_in_plain_words(server: Server, path: str, words: bytes) -> None:
    answer = server.http.get(path)
    assert answer.status_code == 400
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert answer.content.startswith(words)


def test_the_whole_store_can_be_listed(server: Server, prefix: str) -> None:
    put(server, f"{prefix}/a")
    assert f"{prefix}/a" in {entry["Key"] for entry in strict(get(server, "", recurse=""))}
    assert "test/" in strict(get(server, "", keys="", separator="/"))


@pytest.mark.parametrize(
    ("method", "query", "status", "words"),
    [
        ("GET", "stale&consistent", 400, b"Cannot specify ?stale with ?consistent"),
        ("PUT", "cas=1&acquire=s", 400, b"Conflicting flags"),
        ("PUT", "acquire=s&release=s", 400, b"Conflicting flags"),
        ("DELETE", "recurse&cas=1", 400, b"Conflicting flags"),
        ("PUT", "flags=x", 400, b"Invalid flags"),
        ("PUT", "flags=18446744073709551616", 400, b"Invalid flags"),
        ("PUT", "cas=x", 400, b"Invalid cas"),
        ("PUT", "acquire=s", 501, b"acquire and release need sessions"),
        ("PUT", "release=s", 501, b"acquire and release need sessions"),
    ],
)
def test_flags_that_exclude_each_other_or_cannot_be(
    server: Server, prefix: str, method: str, query: str, status: int, words: bytes
) -> None:
    answer = server.http.request(method, f"/v1/kv/{prefix}?{query}", content=b"x")
    assert (answer.status_code, answer.content.startswith(words)) == (status, True)
    assert get(server, prefix).status_code == 404, "nothing was written"


def test_a_lost_cas_is_200_and_false(server: Server, prefix: str) -> None:
    put(server, prefix)
    assert put(server, prefix, b"y", cas="0") is False
    answer = server.http.delete(f"/v1/kv/{prefix}", params={"cas": "1"})
    assert (answer.status_code, strict(answer)) == (200, False)


def test_delete_is_true_also_for_what_is_not_there(server: Server, prefix: str) -> None:
    assert strict(server.http.delete(f"/v1/kv/{prefix}")) is True


def test_deleting_a_prefix_deletes_by_string_and_a_path_by_its_slash(server: Server, prefix: str) -> None:
    for key in ("1", "1/a", "10"):
        put(server, f"{prefix}/{key}")
    server.http.delete(f"/v1/kv/{prefix}/1/", params={"recurse": ""})
    assert strict(get(server, prefix, keys="")) == [f"{prefix}/1", f"{prefix}/10"]
    server.http.delete(f"/v1/kv/{prefix}/1", params={"recurse": ""})
    assert get(server, prefix, keys="").status_code == 404


def test_identical_writes_do_not_move_the_index(server: Server, prefix: str) -> None:
    put(server, prefix, b"same")
    before = index_of(get(server, prefix))
    put(server, prefix, b"same")
    assert index_of(get(server, prefix)) == before


# --- blocking ---------------------------------------------------------------------------------


class Waiting:
    """A blocking read in a thread of its own."""

    def __init__(self, server: Server, key: str, **params: str) -> None:
        self.answer: httpx.Response | None = None
        self._thread = threading.Thread(target=self._read, args=(server, key, params))
        self._thread.start()

    def _read(self, server: Server, key: str, params: dict[str, str]) -> None:
        self.answer = get(server, key, **params)

    @property
    def waits(self) -> bool:
        self._thread.join(timeout=0.3)
        return self._thread.is_alive()

    def result(self) -> httpx.Response:
        self._thread.join(timeout=10)
        assert self.answer is not None, "still waiting"
        return self.answer


def test_a_blocking_read_wakes_at_the_write(server: Server, prefix: str) -> None:
    put(server, prefix, b"old")
    index = index_of(get(server, prefix))
    waiting = Waiting(server, prefix, index=str(index), wait="20s")
    assert waiting.waits
    put(server, prefix, b"new")
    answer = waiting.result()
    assert base64.b64decode(strict(answer)[0]["Value"]) == b"new"
    assert index_of(answer) > index


def test_a_blocking_read_of_what_is_not_there_wakes_when_it_comes(server: Server, prefix: str) -> None:
    index = index_of(get(server, f"{prefix}/a", recurse=""))
    waiting = Waiting(server, f"{prefix}/a", recurse="", index=str(index), wait="20s")
    put(server, f"{prefix}/b")
    assert waiting.waits, "another key does not concern it"
    put(server, f"{prefix}/a/1")
    assert len(strict(waiting.result())) == 1


def test_a_deletion_wakes_with_a_404_and_a_later_index(server: Server, prefix: str) -> None:
    put(server, prefix)
    index = index_of(get(server, prefix))
    waiting = Waiting(server, prefix, index=str(index), wait="20s")
    assert waiting.waits
    server.http.delete(f"/v1/kv/{prefix}")
    answer = waiting.result()
    assert (answer.status_code, index_of(answer) > index) == (404, True)


def test_an_index_that_is_already_past_answers_at_once(server: Server, prefix: str) -> None:
    put(server, prefix)
    assert not Waiting(server, prefix, index="1", wait="20s").waits
    assert not Waiting(server, prefix, index="0", wait="20s").waits


def test_a_wait_ends_with_the_current_state(server: Server, prefix: str) -> None:
    put(server, prefix)
    index = index_of(get(server, prefix))
    began = time.monotonic()
    answer = get(server, prefix, index=str(index), wait="200ms")
    assert time.monotonic() - began >= 0.2
    assert (answer.status_code, index_of(answer)) == (200, index)


def test_a_caller_who_is_gone_does_not_keep_the_server_waiting(
    server: Server, prefix: str, eventually: Any
) -> None:
    def sockets() -> int:
        import psutil

        return len(psutil.Process(server.process.pid).net_connections())

    before = sockets()
    request = f"GET /v1/kv/{prefix}?index=999999999&wait=60s HTTP/1.1\r\nHost: {server.url[7:]}\r\n\r\n"
    gone = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
    for each in gone:
        each.sendall(request.encode())
    eventually(lambda: sockets() >= before + 20)
    for each in gone:
        each.close()
    eventually(lambda: sockets() <= before + 1, within_s=5)

"""The typed client."""

import functools
import http.server
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from k12ai import Client, RequestRefused, ServerUnreachable
from k12ai.client.client import StoredValue, local_user
from tests.support.engine import EngineClient
from tests.support.server import Server


def test_stats_are_typed(server: Server) -> None:
    with Client(server.url) as client:
        everything = client.stats()
        some = client.stats("cpus")
    assert isinstance(everything.cpu_percent, float)
    assert isinstance(everything.disks, list)
    assert everything.disks[0].disk_total > 0
    assert not isinstance(some.disks, list)


@pytest.mark.docker
def test_stop_returns_the_servers_sentence(server: Server, engine: EngineClient) -> None:
    started = engine.run()
    with Client(server.url) as client:
        assert client.stop(started, grace_s=5) == f"container id {started[:12]} stop success"


def test_a_refusal_has_code_words_and_a_next_step(server: Server) -> None:
    with Client(server.url) as client, pytest.raises(RequestRefused) as refused:
        client.stop("unknow")
    assert (refused.value.code, refused.value.message) == (100202, "container id unknow is not found")
    assert refused.value.next_step("zh").startswith("查询")


def test_the_servers_words_are_in_the_clients_language(server: Server) -> None:
    with (
        Client(server.url, language="zh") as client,
        pytest.raises(RequestRefused, match="找不到 id 为 unknow"),
    ):
        client.stop("unknow")


def test_the_address_comes_from_the_environment(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K12AI_SERVER_URL", server.url + "/")
    with Client() as client:
        assert client.server_url == server.url
        client.stats("cpus")


def test_a_proxy_of_the_network_does_not_come_between_this_machine_and_itself(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with Client(server.url) as client:
        client.stats("cpus")


def test_a_value_that_was_written_again_is_not_deleted_by_who_read_the_old_one(server: Server) -> None:
    with Client(server.url) as client:
        server.http.put("/v1/kv/version", content=b"1")
        (old,) = client.read("version")
        server.http.put("/v1/kv/version", content=b"2")
        assert client.delete_version(old) is False
        (new,) = client.read("version")
        assert new.value == 2
        assert client.delete_version(new) is True


def test_values_that_are_no_json_come_as_text(server: Server) -> None:
    server.http.put("/v1/kv/text", content="文本 \xff".encode("latin-1", "replace"))
    with Client(server.url) as client:
        assert isinstance(client.read("text")[0].value, str)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "http://127.0.0.1:1/x", "nonsense://x", "http://h:abc", "http://[::1"]
)
def test_no_server_is_one_kind_of_error(url: str) -> None:
    with pytest.raises(ServerUnreachable), Client(url) as client:
        client.stats()


@pytest.mark.parametrize("key", ["slash/a", "/slash/a", "slash/a/"])
def test_slashes_around_a_key_do_not_matter(server: Server, key: str) -> None:
    server.http.put("/v1/kv/slash/a/b", content=b"1")
    with Client(server.url) as client:
        assert [each.key for each in client.read(key)] == ["slash/a/b"]


def test_a_server_that_is_started_again_is_waited_for(start_server: Callable[..., Server]) -> None:
    server = start_server()
    port = str(server.port)
    found: list[StoredValue] = []

    def read() -> None:
        with Client(server.url) as client:
            found.extend(client.read("late", wait_s=30))

    reader = threading.Thread(target=read)
    reader.start()
    time.sleep(0.5)
    server.terminate()
    again = start_server("--port", port)
    again.http.put("/v1/kv/late", content=b"1")
    reader.join(timeout=20)
    assert [each.value for each in found] == [1]


def test_what_is_no_store_is_not_asked_again_and_again(tmp_path: Path) -> None:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        with Client(f"http://127.0.0.1:{other.server_port}") as client, pytest.raises(ServerUnreachable):
            client.read("x", wait_s=-1)
        other.shutdown()


@pytest.mark.parametrize(
    ("name", "user"), [("alice", "alice"), ("张三", "__"), ("a b/c", "a_b_c"), ("..", "user")]
)
def test_the_local_user_is_an_identifier(monkeypatch: pytest.MonkeyPatch, name: str, user: str) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: name)
    assert local_user() == user

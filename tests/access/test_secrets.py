"""B12: a secret that comes in goes nowhere else. B13: nothing that comes in is fetched."""

import base64
import socket
import threading
import urllib.parse
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from k12ai.access.tokens import parse
from k12ai.client import TaskHandle
from tests.support.school import ADMIN, STUDENT, TEACHER, School
from tests.support.server import CANARY_TOKEN, Server, envelope

CANARY = "canary-7f3a9c51e2"
SPIES = {"code": "import os\nprint(sorted(os.environ.items()))\nprint(open('/proc/self/cmdline').read())"}


@pytest.fixture(name="loud_school", scope="module")
def _loud_school(tmp_path_factory: pytest.TempPathFactory) -> Iterator[School]:
    """A school whose server says all it can, and has secrets around it that are none of its business."""
    environ = {"SOME_PASSWORD": CANARY}
    with Server(tmp_path_factory.mktemp("loud") / "data", "--kv-token-in-query", environ=environ) as server:
        yield School(server)


def everything_kept(server: Server) -> bytes:
    """Return all that the server has written anywhere: its log, its store, the directories of its tasks."""
    files = [server.log, *(each for each in server.data_dir.rglob("*") if each.is_file())]
    return b"\0".join(each.read_bytes() for each in files)


def secrets_of(school: School) -> list[bytes]:
    """Return the secret parts of all tokens."""
    found = [parse(token) for token in (*school.tokens.values(), CANARY_TOKEN)]
    return [each.secret.encode() for each in found if each is not None]


def test_tokens_and_passwords_are_kept_nowhere_and_told_to_nobody(loud_school: School) -> None:
    """In headers, in the query, as a password, wrong, expired, in every route: none is seen again."""
    school = loud_school
    http = school.server.http
    told: list[bytes] = []
    basic = base64.b64encode(f"li:{school.tokens[STUDENT]}".encode()).decode()
    fields: list[dict[str, str]] = [
        *({"Authorization": f"Bearer {token}"} for token in (*school.tokens.values(), CANARY_TOKEN)),
        *({"X-Consul-Token": token} for token in (school.tokens[STUDENT], CANARY_TOKEN)),
        {"Authorization": f"Basic {basic}"},
        {"Authorization": f"Digest {CANARY_TOKEN}"},
        {"Cookie": f"token={CANARY_TOKEN}", "Authorization": f"Bearer {CANARY_TOKEN}x"},
    ]
    paths = (
        "/docs",
        "/metrics",
        "/api/v1/me",
        "/api/v1/tokens",
        "/api/v1/audit",
        "/v1/kv/platform/li/x",
        "/no",
    )
    for sent in fields:
        for path in paths:
            told.append(http.get(path, headers=sent).content)
        told.append(http.put("/v1/kv/platform/li/x", content=b"x", headers=sent).content)
        told.append(http.post("/k12ai/platform/stats", json=envelope("query", user="li"), headers=sent).content)
    for token in (school.tokens[STUDENT], CANARY_TOKEN):
        told.append(http.get(f"/v1/kv/platform/li/x?token={token}").content)
        told.append(http.get(f"/nope?token={token}").content)
        told.append(http.delete(f"/v1/kv/platform/li/x?token={token}").content)
    told.append(http.get("/metrics", headers=school.headers(TEACHER)).content)
    everything = b"\0".join([*told, everything_kept(school.server)])
    assert b"token.wrong" in everything
    for secret in secrets_of(school):
        assert secret not in everything


def test_a_task_sees_no_secret_of_the_server(loud_school: School) -> None:
    """Neither in its environment nor in its command line; the operator's token stays the operator's."""
    with loud_school.client(STUDENT) as student:
        handle = student.submit("k12py", "runcode.start", "spies", SPIES)
        assert handle.wait(progress=False).state == "succeeded"
        printed = "".join(handle.logs()).encode()
    assert b"K12AI_JOURNAL" in printed
    for secret in (*secrets_of(loud_school), CANARY.encode()):
        assert secret not in printed
        assert secret not in everything_kept(loud_school.server)


def test_an_operator_may_let_old_clients_send_the_token_in_the_address(loud_school: School) -> None:
    """Only in the store, and only where the setting says so: addresses end up in other people's logs."""
    http, token = loud_school.server.http, loud_school.tokens[STUDENT]
    path = f"/v1/kv/platform/{STUDENT}/old?token={token}"
    assert http.put(path, content=b"x").text == "true"
    assert http.get(f"{path}&raw").text == "x"
    assert http.get(path.replace(f"/{STUDENT}/", "/somebody/")).status_code == 403
    assert http.get(f"/api/v1/me?token={token}").status_code == 401


def test_a_new_token_is_not_to_be_kept_on_its_way(loud_school: School) -> None:
    made = loud_school.ask(ADMIN, "POST", "/api/v1/tokens", {"user": STUDENT})
    assert made.headers["cache-control"] == "no-store"
    assert "token" not in loud_school.ask(ADMIN, "GET", "/api/v1/tokens").json()["tokens"][0]


def test_the_data_directory_is_the_servers_alone(loud_school: School) -> None:
    for path in loud_school.server.data_dir.glob("k12ai.sqlite3*"):
        assert path.stat().st_mode & 0o077 == 0, path


# --- B13 -------------------------------------------------------------------------------------------


class Listener:
    """Listens on a port of this machine and counts who comes."""

    def __init__(self) -> None:
        self.visits: list[Any] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while True:
            try:
                peer, address = self._socket.accept()
            except OSError:
                return
            self.visits.append(address)
            peer.close()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.fixture(name="listener")
def _listener() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.close()


ADDRESSES = (
    "http://127.0.0.1:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://0x7f.1:{port}/",
    "http://localhost:{port}/",
    "gopher://127.0.0.1:{port}/_x",
    "unix:///var/run/docker.sock",
    "http://169.254.169.254/latest/meta-data/",
    "file:///etc/passwd",
    "//127.0.0.1:{port}/x",
)
FIELDS = ("op", "user", "service_name", "service_uuid", "service_params", "callback", "image")
PARAMS: tuple[dict[str, Any], ...] = (
    {"data": {"dataset": ADDRESSES[0]}},
    {"data": {"file": ADDRESSES[0]}},
    {"model": {"name": ADDRESSES[0]}},
    {"file": ADDRESSES[0]},
)


def test_no_field_of_a_request_makes_the_server_fetch_anything(school: School, listener: Listener) -> None:
    """Addresses in every field and path that takes words: refused or taken for words, and nobody is called."""
    for address in (each.format(port=listener.port) for each in ADDRESSES):
        for field in FIELDS:
            body = envelope("query") | {field: address}
            school.ask(STUDENT, "POST", "/k12ai/platform/stats", body)
            school.ask(STUDENT, "POST", "/k12ai/framework/execute", body | {"op": "train.start"})
        sent = {"X-Forwarded-For": address, "Referer": address, "Forwarded": f"for={address}"}
        assert school.ask(STUDENT, "GET", "/api/v1/me", **sent).status_code == 200
        quoted = urllib.parse.quote(address, safe="")
        school.ask(STUDENT, "PUT", f"/api/v1/projects/{STUDENT}/fetch/files/{quoted}", b"x")
        school.ask(STUDENT, "GET", f"/v1/kv/platform/{STUDENT}/{quoted}")
    assert listener.visits == []


@pytest.mark.parametrize("params", PARAMS)
@pytest.mark.parametrize(("framework", "op"), [("k12ml", "train.start"), ("k12py", "runcode.start")])
def test_no_parameter_of_a_task_is_fetched(
    school: School, listener: Listener, framework: str, op: str, params: dict[str, Any]
) -> None:
    """An address where a file or a name belongs is refused, or is the name of a file that is not there."""
    encoded = msgspec.json.encode(params).replace(b"{port}", str(listener.port).encode())
    wanted = {"framework": framework, "op": op, "user": STUDENT, "service_uuid": "fetch"}
    answer = school.ask(STUDENT, "POST", "/api/v1/tasks", wanted | {"params": msgspec.json.decode(encoded)})
    if answer.status_code == 202:
        with school.client(STUDENT) as student:
            task = TaskHandle(student, student.task(answer.json()["task_id"])).wait(progress=False)
        assert task.state == "failed"
    assert listener.visits == []

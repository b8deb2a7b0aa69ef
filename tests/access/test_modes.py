"""Who may come in at all: open on loopback, tokens from the first one on, TLS or a proxy for everybody else."""

import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest
import trustme

from k12ai.client import Client
from tests.support.school import ADMIN, STUDENT, School, http_at
from tests.support.server import Server, envelope

COMMAND = (sys.executable, "-m", "k12ai")
REFUSED = 2


def serve(data_dir: Path, *options: str, zh: bool = False) -> subprocess.CompletedProcess[str]:
    """Start a server that is expected to refuse, and return what it said."""
    return subprocess.run(
        [*COMMAND, "serve", "--port", "0", "--data-dir", str(data_dir), *options],
        capture_output=True,
        encoding="utf-8",
        env={"LANG": "zh_CN.UTF-8" if zh else "C", "PATH": "/usr/bin:/bin", "HOME": str(data_dir)},
        timeout=30,
        check=False,
    )


def make_admin(data_dir: Path) -> str:
    """Make an admin's token the way an operator does before the first start."""
    made = subprocess.run(
        [
            sys.executable,
            "-m",
            "k12ai",
            "token",
            "create",
            ADMIN,
            "--role",
            "admin",
            "--data-dir",
            str(data_dir),
        ],
        capture_output=True,
        encoding="utf-8",
        timeout=30,
        check=True,
    )
    return made.stdout.strip()


class Certificate:
    """A certificate for this machine's names, and what to trust it with."""

    def __init__(self, directory: Path, *names: str) -> None:
        authority = trustme.CA()
        issued = authority.issue_cert("localhost", "127.0.0.1", *names)
        self.chain = directory / "chain.pem"
        self.key = directory / "key.pem"
        issued.private_key_pem.write_to_path(self.key)
        self.key.chmod(0o600)
        self.chain.write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
        self.context = ssl.create_default_context()
        authority.configure_trust(self.context)
        self.options = ("--tls-certificate", str(self.chain), "--tls-key", str(self.key))


@pytest.fixture(name="certificate")
def _certificate(tmp_path: Path) -> Certificate:
    return Certificate(tmp_path)


# --- open ------------------------------------------------------------------------------------------


def test_a_fresh_server_on_loopback_is_open_and_says_so(start_server: Callable[..., Server]) -> None:
    server = start_server()
    assert server.stats().status_code == 200
    assert server.http.get("/api/v1/me").json()["open"] is True
    assert "access.open" in server.log.read_text()
    assert "k12ai token create" in server.log.read_text()


def test_an_open_server_does_not_mind_a_token_that_somebody_still_has(
    start_server: Callable[..., Server],
) -> None:
    server = start_server()
    with Client(server.url, "k12ai_00000000_" + "a" * 32) as client:
        assert client.access.me().open
        assert client.stats("cpus").cpu_percent is not None


def test_from_the_first_token_on_tokens_are_needed_also_after_a_restart_and_after_its_end(
    start_server: Callable[..., Server],
) -> None:
    """Going back to open takes more than a revoked token: nobody opens a server by accident."""
    server = start_server()
    with Client(server.url) as client:
        made = client.access.create_token(ADMIN, "admin")
    assert server.stats().status_code == 401
    with Client(server.url, made.token) as client:
        client.access.revoke_token(made.id)
    assert server.stats().status_code == 401
    server.terminate()
    again = start_server()
    assert again.stats().status_code == 401
    assert "access.tokens" in again.log.read_text()


def test_the_first_token_is_an_admins_or_the_server_stays_open(start_server: Callable[..., Server]) -> None:
    server = start_server()
    for path, method, body in (
        ("/api/v1/tokens", "POST", b'{"user":"li"}'),
        ("/api/v1/classes/3-1", "PUT", b'{"students":["li"]}'),
    ):
        refused = server.http.request(method, path, content=body, headers={"Content-Type": "application/json"})
        assert (refused.status_code, refused.json()["code"]) == (403, 100602)
        assert "--role admin" in refused.json()["detail"]
    assert server.stats().status_code == 200


# --- reachable -------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.test"])
def test_an_address_of_others_needs_tls_or_a_proxy(tmp_path: Path, host: str) -> None:
    make_admin(tmp_path)
    for zh in (False, True):
        ended = serve(tmp_path, "--host", host, zh=zh)
        assert (ended.returncode, ended.stdout) == (REFUSED, "")
        for option in ("--tls-certificate", "--behind-proxy", "ssh -L"):
            assert option in ended.stderr
        assert ("拒绝" in ended.stderr) == zh


def test_every_address_at_once_needs_the_names_it_is_reached_by(
    tmp_path: Path, certificate: Certificate
) -> None:
    make_admin(tmp_path / "data")
    ended = serve(tmp_path / "data", "--host", "0.0.0.0", *certificate.options)
    assert ended.returncode == REFUSED
    assert "--allowed-hosts" in ended.stderr


def test_without_a_token_a_reachable_server_does_not_start(tmp_path: Path, certificate: Certificate) -> None:
    """It would be of no use to anybody; the message says how the first one is made."""
    options = ("--host", "0.0.0.0", "--allowed-hosts", "localhost", *certificate.options)
    for zh in (False, True):
        ended = serve(tmp_path / "data", *options, zh=zh)
        assert (ended.returncode, ended.stdout) == (REFUSED, "")
        assert f"--role admin --data-dir {tmp_path / 'data'}" in ended.stderr
        assert "Traceback" not in ended.stderr
    ended = serve(tmp_path / "data", "--behind-proxy")
    assert ended.returncode == REFUSED


def test_https_is_served_with_ones_own_certificate(
    start_server: Callable[..., Server], tmp_path: Path, certificate: Certificate
) -> None:
    token = make_admin(tmp_path / "data")
    options = ("--host", "0.0.0.0", "--allowed-hosts", "k12.test", *certificate.options)
    server = start_server(*options, tls=certificate.context)
    assert server.url.startswith("https://")
    headers = {"Authorization": f"Bearer {token}"}
    assert server.http.get("/health").status_code == 200
    assert server.http.get("/api/v1/me").status_code == 401
    assert server.http.get("/api/v1/me", headers=headers).json()["user"] == ADMIN
    assert server.http.get("/api/v1/me", headers={**headers, "Host": "k12.test"}).status_code == 200
    assert server.http.get("/api/v1/me", headers={**headers, "Host": "evil.test"}).status_code == 421
    with pytest.raises(httpx.TransportError):
        httpx.get(server.url.replace("https:", "http:") + "/health", trust_env=False)
    assert server.terminate() == 0


@pytest.mark.parametrize("fault", ["missing", "others may read it", "not a key", "of another"])
def test_a_key_that_does_not_do_is_named(tmp_path: Path, certificate: Certificate, fault: str) -> None:
    if fault == "missing":
        certificate.key.unlink()
    elif fault == "others may read it":
        certificate.key.chmod(0o640)
    elif fault == "not a key":
        certificate.key.write_text("nothing")
    else:
        (tmp_path / "other").mkdir()
        certificate.key.write_bytes(Certificate(tmp_path / "other").key.read_bytes())
    for zh in (False, True):
        ended = serve(tmp_path / "data", *certificate.options, zh=zh)
        assert (ended.returncode, ended.stdout) == (REFUSED, "")
        assert str(certificate.key) in ended.stderr
        assert "Traceback" not in ended.stderr
        if fault == "others may read it":
            assert f"chmod 600 {certificate.key}" in ended.stderr


def test_a_certificate_without_its_key_is_no_https(tmp_path: Path, certificate: Certificate) -> None:
    ended = serve(tmp_path / "data", *certificate.options[:2])
    assert ended.returncode == REFUSED
    assert "tls_key" in ended.stderr


# --- behind a proxy --------------------------------------------------------------------------------


def test_behind_a_proxy_nobody_is_answered_but_the_proxy(
    start_server: Callable[..., Server], tmp_path: Path
) -> None:
    """The proxy's last word on where a request comes from is believed, what stands before it is not."""
    token = make_admin(tmp_path / "data")
    server = start_server("--behind-proxy", "--trusted-proxies", "127.0.0.2", "--allowed-hosts", "k12.test")
    headers = {"Authorization": f"Bearer {token}", "Host": "k12.test"}
    bypassed = server.http.get("/health", headers=headers)
    assert (bypassed.status_code, bypassed.json()["code"]) == (403, 100605)
    with http_at(server, "127.0.0.2") as proxy:
        assert proxy.get("/health", headers={"Host": "k12.test"}).status_code == 200
        assert proxy.get("/api/v1/me").status_code == 401
        forwarded = {**headers, "X-Forwarded-For": "203.0.113.9, 198.51.100.7"}
        made = proxy.post("/api/v1/tokens", json={"user": STUDENT}, headers=forwarded)
        assert made.status_code == 201
        (entry, *_) = proxy.get("/api/v1/audit", headers=forwarded).json()["entries"]
        assert entry["address"] == "198.51.100.7"


def test_wrong_tokens_are_counted_by_what_the_proxy_says(
    start_server: Callable[..., Server], tmp_path: Path
) -> None:
    """One hostile student behind the proxy does not use up the others' attempts."""
    make_admin(tmp_path / "data")
    server = start_server("--behind-proxy", "--allowed-hosts", "k12.test")
    wrong = {"Authorization": f"Bearer k12ai_00000000_{'a' * 32}"}

    def statuses(address: str, count: int) -> set[int]:
        return {
            server.http.get("/api/v1/me", headers={**wrong, "X-Forwarded-For": address}).status_code
            for _ in range(count)
        }

    assert statuses("198.51.100.7", 30) == {401, 429}
    assert statuses("198.51.100.8", 5) == {401}
    assert statuses("no\x1baddress".encode("unicode_escape").decode(), 1) == {401}
    # A client that sends the field itself only says what stands before the proxy's own word.
    assert statuses("198.51.100.99, 198.51.100.7", 1) == {429}


# --- connections -----------------------------------------------------------------------------------


@pytest.fixture(name="own_address")
def _own_address() -> str:
    """An address of this machine that is not a loopback one."""
    for each in (address for found in psutil.net_if_addrs().values() for address in found):
        if each.family == socket.AF_INET and not each.address.startswith("127."):
            return each.address
    pytest.skip("this machine has no address but loopback ones")


def test_an_address_has_so_many_connections_and_no_more(
    start_server: Callable[..., Server], tmp_path: Path, own_address: str, eventually: Callable[..., object]
) -> None:
    """One student's open sockets do not use up everybody's; who closes some may open others."""
    make_admin(tmp_path / "data")
    certificate = Certificate(tmp_path, own_address)
    options = ("--host", own_address, "--max-connections-per-address", "5", *certificate.options)
    server = start_server(*options, tls=certificate.context)

    def knock() -> ssl.SSLSocket:
        plain = socket.create_connection((own_address, server.port), timeout=10)
        return certificate.context.wrap_socket(plain, server_hostname=own_address)

    held = [knock() for _ in range(5)]
    with knock() as sixth:
        answer = sixth.recv(4096)
        assert answer.startswith(b"HTTP/1.1 429")
        assert b"retry-after" in answer
    for each in held[:2]:
        each.close()

    def is_served() -> bool:
        try:
            return server.http.get("/health").status_code == 200
        except httpx.TransportError:
            return False

    eventually(is_served)
    for each in held:
        each.close()


@pytest.mark.slow
def test_who_does_not_finish_the_handshake_is_not_waited_for(
    start_server: Callable[..., Server], tmp_path: Path, certificate: Certificate
) -> None:
    """A connection that never says anything is closed while TLS is still to begin, too."""
    make_admin(tmp_path / "data")
    options = ("--host", "0.0.0.0", "--allowed-hosts", "localhost", *certificate.options)
    server = start_server(*options, tls=certificate.context)
    silent = [socket.create_connection(("127.0.0.1", server.port), timeout=30) for _ in range(50)]
    started = time.monotonic()
    for each in silent:
        assert each.recv(1) == b""
        each.close()
    assert time.monotonic() - started < 25  # uvicorn by itself: a minute


# --- the seed's notebook ---------------------------------------------------------------------------


def test_the_published_requests_work_with_a_token_as_they_do_without(school: School) -> None:
    """The same bodies, the same answers; the token is all there is to add."""
    answer = school.ask(STUDENT, "POST", "/k12ai/platform/stats", envelope("query", user=STUDENT))
    assert list(answer.json()) == ["code", "descr", "message"]
    asked = envelope("query", user=STUDENT, is_async=True)
    accepted = school.ask(STUDENT, "POST", "/k12ai/platform/stats", asked)
    assert accepted.json()["message"] == {"key": f"platform/{STUDENT}/uuid/query"}
    with school.client(STUDENT) as student:
        (found,) = student.read(f"platform/{STUDENT}/uuid/query", wait_s=10)
    assert found.value["result"]["code"] == 100000

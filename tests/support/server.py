"""A K12AI server in a process of its own, as a user starts it."""

import contextlib
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import msgspec

# Of the right form, and nobody's.
CANARY_TOKEN = "k12ai_0badcafe_canaryCanaryCanaryCanaryCanary12"
_TOKEN = re.compile(rb"k12ai_[0-9a-f]{8}_[A-Za-z0-9_-]{32}")


class Server:
    """``k12ai serve`` on a free port; the block ends with its orderly stop."""

    def __init__(
        self,
        data_dir: Path,
        *options: str,
        environ: dict[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.data_dir = data_dir
        self._tls = tls
        self._command = [
            *(sys.executable, "-m", "k12ai", "serve", "--port", "0"),
            *("--data-dir", str(data_dir), *options),
        ]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("K12AI_")}
        # Which images this machine happens to have must not decide what a test is about.
        chosen = {"PYTHONWARNINGS": "error", "K12AI_RUNTIME": "process", "K12AI_LOG_LEVEL": "debug"}
        # Somebody's token, which is none of the server's business: B12, over every test.
        chosen["K12AI_TOKEN"] = CANARY_TOKEN
        self._environ = {**kept, **chosen, **(environ or {})}
        self.url = ""

    def __enter__(self) -> Self:
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self.log = self.data_dir.parent / f"{self.data_dir.name}.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, stdout=subprocess.PIPE, stderr=log, env=self._environ, cwd=self.data_dir
            )
        assert self.process.stdout is not None
        watchdog = threading.Timer(30, self.process.kill)
        watchdog.start()
        line = self.process.stdout.readline().decode()
        watchdog.cancel()
        if not line.startswith("k12ai ready on "):
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
            raise AssertionError(line + self.log.read_text())
        # What is bound to every address is asked at this machine's own.
        self.url = line.split()[-1].replace("//0.0.0.0:", "//127.0.0.1:")
        self.http = httpx.Client(base_url=self.url, timeout=30, trust_env=False, verify=self._tls or False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.http.close()
        if self.process.poll() is None:
            self.terminate()
        if self.process.stdout is not None:
            self.process.stdout.close()
        if self.log.exists():  # its disk may have been the test's to take away
            assert not _TOKEN.search(self.log.read_bytes()), f"a token is in {self.log}"

    def terminate(self) -> int:
        """Ask the server to stop and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=15)

    def kill(self) -> None:
        """Take the server down as a crash does."""
        self.process.kill()
        self.process.wait()

    @contextlib.contextmanager
    def unharmed(self) -> Iterator[None]:
        """Check that it is well after the block, answers, and has logged no fault of its own meanwhile."""
        logged_before = self.log.stat().st_size
        yield
        assert self.http.get("/health").status_code == 200
        assert strict(self.stats())["code"] == 100000
        logged = self.log.read_bytes()[logged_before:]
        assert b"Traceback" not in logged
        assert b"request.failed" not in logged

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        return self.http.post(
            path, content=msgspec.json.encode(body), headers={"Content-Type": "application/json", **headers}
        )

    def stats(self, **fields: Any) -> httpx.Response:
        return self.post("/k12ai/platform/stats", envelope("query", **fields))

    def stop(self, container_id: str, *, timeout: int | None = None, **fields: Any) -> httpx.Response:
        params: dict[str, Any] = {"id": container_id} | ({} if timeout is None else {"timeout": timeout})
        return self.post("/k12ai/platform/control", envelope("container.stop", service_params=params, **fields))

    def containers(self) -> dict[str, dict[str, Any]]:
        """Return the containers in the stats by their id."""
        message = strict(self.stats(service_params={"containers": True}))["message"]
        return {each["id"]: each for each in message["containers"]}

    def metric(self, name: str) -> float:
        """Return what Prometheus reads under a name, summed over all labels."""
        lines = self.http.get("/metrics").text.splitlines()
        assert any(line.startswith(f"# TYPE {name} ") for line in lines), name
        found = (line for line in lines if line.startswith((f"{name} ", f"{name}{{")))
        return sum(float(line.rsplit(" ", 1)[1]) for line in found)


def envelope(op: str, **fields: Any) -> dict[str, Any]:
    """Return a valid request, with these fields changed or added; ``is_async`` stands for ``async``."""
    body: dict[str, Any] = {"op": op, "user": "test", "service_name": "k12platform", "service_uuid": "uuid"}
    if "is_async" in fields:
        fields["async"] = fields.pop("is_async")
    return body | fields


def strict(response: httpx.Response) -> Any:
    """Return the body, which must be strict JSON and must not show the server's insides."""
    for trace in (b"Traceback", b'File "', b"site-packages"):
        assert trace not in response.content, response.text
    return msgspec.json.decode(response.content)

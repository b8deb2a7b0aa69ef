"""A Docker Engine as a test sees it: plain HTTP calls over its socket, and cleaning up after itself."""

import contextlib
import io
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import time
import uuid
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psutil

from k12ai.settings import Settings

# Where a server looks for the Engine that is told nothing else.
DOCKER_HOST = Settings().docker_host
IMAGE = "k12ai-test:busybox"
TEST_LABEL = "k12ai.test.run"
# What a container runs that is not gone when it is asked to go.
IGNORES_TERM = "trap '' TERM; while :; do sleep 0.1; done"
_APPLETS = ("sh", "sleep", "cat", "dd", "awk", "true")


class EngineClient:
    """Creates and looks at containers; removes the ones it made."""

    def __init__(self, address: str) -> None:
        self.address = address
        transport = httpx.HTTPTransport(uds=address.removeprefix("unix://"))
        self._http = httpx.Client(transport=transport, base_url="http://docker", timeout=60)
        self._run = uuid.uuid4().hex[:12]

    def close(self) -> None:
        self._http.close()

    def answers(self) -> bool:
        # Knock first: httpcore leaves a socket that could not connect to the garbage collector.
        with socket.socket(socket.AF_UNIX) as knock:
            try:
                knock.connect(self.address.removeprefix("unix://"))
            except OSError:
                return False
        try:
            return self._http.get("/_ping", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def import_image(self) -> None:
        """Make the test image of nothing but a static busybox: no registry is asked."""
        if self._http.get(f"/images/{IMAGE}/json").status_code == 200:
            return
        busybox = shutil.which("busybox")
        assert busybox is not None, "the test image needs busybox-static"
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            tar.add(os.path.realpath(busybox), "bin/busybox")
            for applet in _APPLETS:
                link = tarfile.TarInfo(f"bin/{applet}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)
        name, tag = IMAGE.split(":")
        answer = self._http.post(
            "/images/create", params={"fromSrc": "-", "repo": name, "tag": tag}, content=archive.getvalue()
        )
        assert answer.status_code == 200, answer.text

    def has_image(self, name: str) -> bool:
        return self._http.get(f"/images/{name}/json").status_code == 200

    def inspect_image(self, name: str) -> dict[str, Any]:
        answer = self._http.get(f"/images/{name}/json")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def history(self, name: str) -> str:
        """Return what the Engine tells of how an image was made."""
        answer = self._http.get(f"/images/{name}/history")
        assert answer.status_code == 200, answer.text
        return answer.text

    def remove_image(self, name: str) -> None:
        self._http.delete(f"/images/{name}")

    def run_confined(
        self, image: str, *command: str, directory: Path, user: int, environ: dict[str, str] | None = None
    ) -> tuple[int, str]:
        """Run a program to its end as tasks are run; return its exit code and what it printed.

        It sees ``directory`` under the name that it has outside, and works in it.
        """
        place = str(directory)
        body = {
            "Image": image,
            "Entrypoint": list(command),
            "WorkingDir": place,
            "Env": [f"{name}={value}" for name, value in {"HOME": place, **(environ or {})}.items()],
            "User": f"{user}:{user}",
            "Labels": {TEST_LABEL: self._run},
            "Tty": True,  # so that the log is text, without the Engine's frames
            "HostConfig": {
                "Binds": [f"{place}:{place}"],
                "Tmpfs": {"/tmp": ""},
                "ReadonlyRootfs": True,
                "CapDrop": ["ALL"],
                "SecurityOpt": ["no-new-privileges:true"],
                "NetworkMode": "none",
            },
        }
        created = self._http.post("/containers/create", json=body)
        assert created.status_code == 201, created.text
        container_id = created.json()["Id"]
        self.start(container_id)
        code: int = self._http.post(f"/containers/{container_id}/wait").json()["StatusCode"]
        printed = self._http.get(f"/containers/{container_id}/logs", params={"stdout": "1", "stderr": "1"})
        return code, printed.text.replace("\r\n", "\n")

    def run(
        self,
        script: str = "trap 'exit 7' TERM; while :; do sleep 0.1; done",
        *,
        service_name: str | None = "k12cv",
        op: str = "train.start",
        user: str = "student",
        service_uuid: str = "project",
        name: str | None = None,
        memory: int = 0,
        labels: dict[str, str] | None = None,
        start: bool = True,
        restart: bool = False,
    ) -> str:
        """Start a container with the published labels and return its full id."""
        if labels is None:
            labels = {
                "k12ai.service.name": service_name or "",
                "k12ai.service.op": op,
                "k12ai.service.user": user,
                "k12ai.service.uuid": service_uuid,
            }
            if service_name is None:
                labels = {}
        body = {
            "Image": IMAGE,
            "Cmd": ["/bin/sh", "-c", script],
            "Labels": {**labels, TEST_LABEL: self._run},
            "HostConfig": {
                "NetworkMode": "none",
                "Memory": memory,
                "RestartPolicy": {"Name": "always" if restart else ""},
            },
        }
        created = self._http.post("/containers/create", params={"name": name} if name else {}, json=body)
        assert created.status_code == 201, created.text
        container_id: str = created.json()["Id"]
        if start:
            self.start(container_id)
        return container_id

    def start(self, container_id: str) -> None:
        answer = self._http.post(f"/containers/{container_id}/start")
        assert answer.status_code in (204, 304), answer.text

    def inspect(self, container_id: str) -> dict[str, Any]:
        answer = self._http.get(f"/containers/{container_id}/json")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def state(self, container_id: str) -> dict[str, Any]:
        state: dict[str, Any] = self.inspect(container_id)["State"]
        return state

    def post(self, path: str, **params: str) -> None:
        answer = self._http.post(path, params=params)
        assert answer.status_code < 300, answer.text

    def kill_events(self, container_id: str, since: float) -> list[dict[str, Any]]:
        """Return the signals that were sent to a container, from the Engine's own events."""
        filters = _json({"container": [container_id], "event": ["kill"]})
        until = str(int(time.time()) + 1)
        answer = self._http.get(
            "/events", params={"since": str(int(since)), "until": until, "filters": filters}
        )
        return [msgspec.json.decode(line) for line in answer.text.splitlines()]

    def remove(self, container_id: str) -> None:
        self._http.delete(f"/containers/{container_id}", params={"force": "1"})

    def remove_all(self) -> None:
        """Remove what this client started, and nothing else."""
        filters = _json({"label": [f"{TEST_LABEL}={self._run}"]})
        for row in self._http.get("/containers/json", params={"all": "1", "filters": filters}).json():
            self.remove(row["Id"])


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


class OwnDockerd:
    """An Engine of the test's own, to be killed and started again without harm to anybody's.

    containerd is started beside it, as an operating system does, and survives its deaths.
    """

    def __init__(self, root: Path, *, live_restore: bool) -> None:
        self._root = root
        self._live_restore = live_restore
        self.address = f"unix://{root / 'docker.sock'}"
        self._containerd: subprocess.Popen[bytes] | None = None
        self._dockerd: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self._containerd is None:
            self._containerd = self._start_containerd()
        (self._root / "docker.pid").unlink(missing_ok=True)
        self._dockerd = self._run(
            # Without a bridge, an Engine removes docker0 from its network: it must not be the machine's.
            *("unshare", "--net", "--", "dockerd"),
            *("--data-root", str(self._root / "data"), "--exec-root", str(self._root / "exec")),
            *("--pidfile", str(self._root / "docker.pid"), "-H", self.address),
            *("--containerd", str(self._root / "c.sock")),
            *("--bridge=none", "--iptables=false", "--ip6tables=false"),
            *(["--live-restore"] if self._live_restore else []),
        )
        client = EngineClient(self.address)
        deadline = time.monotonic() + 60
        while not client.answers():
            assert self._dockerd.poll() is None, self._log.read_text()[-2000:]
            assert time.monotonic() < deadline, self._log.read_text()[-2000:]
            time.sleep(0.1)
        client.close()

    def bring_back(self, after: signal.Signals) -> None:
        """Have it answer again after the signal that took it away."""
        if after is signal.SIGSTOP:
            self.signal(signal.SIGCONT)
        else:
            self.start()

    def signal(self, number: signal.Signals) -> None:
        assert self._dockerd is not None
        self._dockerd.send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            self._dockerd.wait(timeout=60)
        elif number is signal.SIGSTOP:
            # The call comes back before the last thread has stopped, which may still take a request.
            threads = Path(f"/proc/{self._dockerd.pid}/task")
            while not all(_is_stopped(each) for each in threads.iterdir()):
                time.sleep(0.001)

    def stop(self) -> None:
        if self._dockerd is not None and self._dockerd.poll() is None:
            self._dockerd.send_signal(signal.SIGCONT)
            _end(self._dockerd)
        self._end_containers()
        if self._containerd is not None:
            _end(self._containerd)
        for mount in sorted(Path("/proc/self/mounts").read_text().splitlines(), reverse=True):
            if (point := mount.split()[1]).startswith(str(self._root)):
                subprocess.run(["umount", "-l", point], check=False)
        shutil.rmtree(self._root, ignore_errors=True)

    def _end_containers(self) -> None:
        """End the shims of this Engine, whose command line has its directory, and what runs below them."""
        for process in psutil.process_iter(["cmdline"]):
            command = " ".join(process.info["cmdline"] or ())
            if "containerd-shim" in command and str(self._root) in command:
                with contextlib.suppress(psutil.NoSuchProcess):
                    for each in (process, *process.children(recursive=True)):
                        each.kill()

    @property
    def _log(self) -> Path:
        return self._root / "log"

    def _start_containerd(self) -> "subprocess.Popen[bytes]":
        config = self._root / "containerd.toml"
        config.write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
        return self._run(
            *("containerd", "--config", str(config), "--address", str(self._root / "c.sock")),
            *("--root", str(self._root / "c-data"), "--state", str(self._root / "c-state")),
        )

    def _run(self, *command: str) -> "subprocess.Popen[bytes]":
        with self._log.open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def _is_stopped(thread: Path) -> bool:
    try:
        return (thread / "stat").read_bytes().rpartition(b") ")[2].startswith((b"T", b"t", b"Z"))
    except OSError:  # it has ended
        return True


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

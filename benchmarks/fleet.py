"""Labelled containers to be measured, and the Engine they run in."""

import contextlib
import select
import shutil
import socket
import statistics
import struct
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import psutil
from tests.support.engine import DOCKER_HOST, EngineClient

_AT_ONCE = 4
_TIMEOUT_MS = 60_000


class Skipped(Exception):
    """A row cannot be measured here; the words say why."""


class Fleet:
    """As many idle containers as a row needs; see `fleet`, which removes them."""

    def __init__(self, engine: EngineClient | None, reason: str = "") -> None:
        self._engine = engine
        self._reason = reason
        self._ids: list[str] = []

    def resize(self, count: int) -> int:
        """Start or remove containers until there are ``count``; return how many there are."""
        if self._engine is None:
            return 0
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(self._engine.remove, self._ids[count:]))
            self._ids = self._ids[:count]
            self._ids += pool.map(self._start, range(len(self._ids), count))
        return count

    def require(self, count: int) -> None:
        """`resize`, or raise `Skipped` where no Engine answers."""
        if self.resize(count) < count:
            raise Skipped(self._reason)

    def pids(self) -> dict[str, int]:
        """Return each container's first process by the container's full id."""
        assert self._engine is not None
        return {each: int(self._engine.state(each)["Pid"]) for each in self._ids}

    def engine_pids(self) -> list[int]:
        """Return the processes of the Engine: dockerd and its containerd."""
        assert self._engine is not None
        with _connected(self._engine.address.removeprefix("unix://")) as connection:
            (pid,) = struct.unpack("i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 4))
        found = [each.info for each in psutil.process_iter(["pid", "ppid", "name"])]
        both = [each for each in found if each["name"] in ("dockerd", "containerd")]
        dockerd = [each for each in both if each["pid"] == pid]
        if not dockerd:  # the socket belongs to systemd: it does not tell whose work is this Engine's
            return [each["pid"] for each in both]
        # containerd is dockerd's child, or both have the same parent.
        near = (pid, dockerd[0]["ppid"])
        containerd = [each for each in both if each["name"] == "containerd" and each["ppid"] in near]
        return [each["pid"] for each in dockerd + containerd]

    def one_shot_stats_s(self, rounds: int) -> float:
        """Return how long the Engine takes for one-shot statistics of all containers, asked for at once."""
        assert self._engine is not None
        path = self._engine.address.removeprefix("unix://")
        return statistics.median(_ask_all(path, self._ids) for _ in range(rounds))

    def _start(self, number: int) -> str:
        assert self._engine is not None
        # One process that sleeps: what is measured must not be disturbed by what is watched.
        return self._engine.run("exec sleep 1000000", user=f"student{number:02}", service_uuid=f"{number:06}")


@contextlib.contextmanager
def fleet() -> Iterator[Fleet]:
    """Yield a fleet in the Engine of ``DOCKER_HOST``; its containers are removed in the end."""
    if not DOCKER_HOST.startswith("unix://"):
        yield Fleet(None, f"no Docker Engine on a socket of this machine, but {DOCKER_HOST}")
        return
    engine = EngineClient(DOCKER_HOST)
    try:
        if not engine.answers():
            yield Fleet(None, "no Docker Engine")
        elif shutil.which("busybox") is None:
            yield Fleet(None, "no Docker image: it is made of busybox-static, which is not installed")
        else:
            engine.import_image()
            yield from _removed_in_the_end(engine)
    finally:
        engine.close()


def _removed_in_the_end(engine: EngineClient) -> Iterator[Fleet]:
    try:
        yield Fleet(engine)
    finally:
        engine.remove_all()


def _ask_all(path: str, ids: Sequence[str]) -> float:
    asked = [_connected(path) for _ in ids]
    try:
        started = time.perf_counter()
        for each, container_id in zip(asked, ids, strict=True):
            query = f"/containers/{container_id}/stats?stream=false&one-shot=true"
            # Closed by the Engine when the answer is complete: its end needs no parsing.
            each.sendall(f"GET {query} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n".encode())
        _await_all(asked)
        return time.perf_counter() - started
    finally:
        for each in asked:
            each.close()


def _connected(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    return connection


def _await_all(asked: Sequence[socket.socket]) -> None:
    poll = select.poll()
    open_ones = {each.fileno(): each for each in asked}
    answers = dict.fromkeys(open_ones, b"")
    for descriptor in open_ones:
        poll.register(descriptor, select.POLLIN)
    while open_ones:
        for descriptor, _ in poll.poll(_TIMEOUT_MS):
            if received := open_ones[descriptor].recv(65536):
                answers[descriptor] += received
            else:
                poll.unregister(descriptor)
                del open_ones[descriptor]
    assert all(b"200 OK" in answer[:20] and b"cpu_stats" in answer for answer in answers.values())

"""Tasks as containers while their Engine (B21) or their server (B22) dies, hangs and comes back.

Each Engine that dies here is the test's own. Every program adds a letter to a file of its project when it
begins: so it is seen whether a task ran, and that it ran only once.
"""

import contextlib
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from k12ai.app import TIDY_S
from k12ai.client import Client, ServerUnreachable
from k12ai.failpoints import NAMES, VARIABLE
from k12ai.runtimes.docker_tasks import STRAY_GRACE_S
from k12ai.task import Task
from tests.support.containers import Outsider
from tests.support.engine import OwnDockerd
from tests.support.programs import IGNORES_TERM, PY_IMAGE, RUN_ONCE, SLEEP, times_run
from tests.support.server import Server, strict

pytestmark = [pytest.mark.slow, pytest.mark.docker]

StartEngine = Callable[..., OwnDockerd]
Serve = Callable[..., Server]
Eventually = Callable[..., Any]
Record = Callable[[str, object], None]

AWAY_S = 10
RIGHT_S = 10
ANSWER_S = 5
# A stray container is given its grace, and is then found by the next round.
STRAY_S = STRAY_GRACE_S + TIDY_S + 10
GO = "import os, time\nwhile not os.path.exists('go'): time.sleep(0.02)\n"
TICKS = "import time\nfor n in range(10_000): print(n, flush=True); time.sleep(0.05)"


class Tasks:
    """Tasks of one server's data, over all its lives."""

    def __init__(self, data_dir: Path) -> None:
        self._projects = data_dir / "projects" / "alice"
        self._count = 0
        self.project_of: dict[str, Path] = {}

    def submit(self, client: Client, code: str) -> str:
        self._count += 1
        name = f"p{self._count}"
        handle = client.submit("k12py", "runcode.start", name, {"code": f"{RUN_ONCE}{code}"}, user="alice")
        self.project_of[handle.task_id] = self._projects / name
        return handle.task_id

    def go(self, task_id: str) -> None:
        """Let a task go on that waits for it."""
        (self.project_of[task_id] / "go").touch()

    def times_run(self, task_id: str) -> int:
        return times_run(self.project_of[task_id])

    def each_ran_at_most_once(self) -> None:
        assert all(times_run(project) <= 1 for project in self._projects.iterdir())


def running(client: Client, task_id: str) -> bool:
    return client.task(task_id).state == "running"


def ended(client: Client, task_id: str) -> Task | None:
    found = client.task(task_id)
    return found if found.ended else None


def output(client: Client, task_id: str) -> str:
    return "".join(client.logs(task_id))


# --- the Engine goes (B21) --------------------------------------------------------------------


@pytest.fixture(name="images", scope="module")
def _images(docker_host: str, task_images: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tasks' image as an archive, for Engines of the tests' own."""
    archive = tmp_path_factory.mktemp("images") / "k12py.tar"
    outsider = Outsider(docker_host)
    outsider.save_image(PY_IMAGE, archive)
    outsider.close()
    return archive


@pytest.fixture(name="dockerd", params=[True, False], ids=["live-restore", "no live-restore"])
def _dockerd(request: pytest.FixtureRequest, own_dockerd: StartEngine, images: Path) -> Iterator[OwnDockerd]:
    dockerd = own_dockerd(live_restore=request.param)
    outsider = Outsider(dockerd.address)
    outsider.load_image(images)
    outsider.close()
    yield dockerd
    dockerd.signal(signal.SIGKILL)  # asked to end, it would give each container its 10 s


@pytest.fixture(name="outside")
def _outside(dockerd: OwnDockerd) -> Iterator[Outsider]:
    outsider = Outsider(dockerd.address)
    yield outsider
    outsider.close()


@pytest.fixture(name="server")
def _server(dockerd: OwnDockerd, start_server: Serve) -> Server:
    return start_server("--runtime", "docker", "--docker-host", dockerd.address, "--max-tasks", "64")


def is_of_the_engine(task: Task) -> bool:
    """Whether a task is said to have ended with the Engine."""
    return (task.state, task.reason) == ("failed", "lost") and "Engine" in task.detail


HOW = pytest.mark.parametrize(
    "how",
    [
        pytest.param(signal.SIGKILL, id="killed"),
        pytest.param(signal.SIGTERM, id="ended"),
        pytest.param(signal.SIGSTOP, id="hung"),
    ],
)


@HOW
def test_tasks_that_run_start_stop_and_end_while_the_engine_is_away_are_told_right_when_it_is_back(
    dockerd: OwnDockerd,
    server: Server,
    eventually: Eventually,
    how: signal.Signals,
    request: pytest.FixtureRequest,
    record_property: Record,
) -> None:
    survives = how is signal.SIGSTOP or "no live-restore" not in request.node.name
    tasks = Tasks(server.data_dir)
    begun: list[str] = []
    over = threading.Event()
    with Client(server.url) as client, ThreadPoolExecutor(4) as pool, contextlib.ExitStack() as exits:
        exits.callback(over.set)
        stays = tasks.submit(client, TICKS)
        ends = tasks.submit(client, GO + "print('done'); raise SystemExit(5)")
        stubborn = tasks.submit(client, IGNORES_TERM)
        eventually(lambda: output(client, stays) and output(client, stubborn) == "up\n", within_s=30)
        eventually(lambda: tasks.times_run(ends), within_s=30)
        stop = pool.submit(stop_by_id, server, stubborn, 60)
        eventually(lambda: client.task(stubborn).state == "stopping")

        def keep_starting() -> None:
            with Client(server.url) as other:
                while not over.wait(0.3):
                    begun.append(tasks.submit(other, "raise SystemExit(3)"))

        starting = pool.submit(keep_starting)
        time.sleep(1)
        dockerd.signal(how)
        gone_at = time.monotonic()
        before = output(client, stays)
        tasks.go(ends)
        waits = tasks.submit(client, "raise SystemExit(4)")
        stopped_before_it_ran = tasks.submit(client, SLEEP)
        calls_off = pool.submit(stop_by_id, server, stopped_before_it_ran, 1)
        while time.monotonic() < gone_at + AWAY_S:
            for each in (stays, waits) if survives or how is signal.SIGKILL else (waits,):
                assert not client.task(each).ended, "unreachable is not dead"
            time.sleep(0.2)
        answer = calls_off.result(timeout=30)
        over.set()
        starting.result(timeout=10)
        if survives:
            assert len(output(client, stays)) > len(before), "it goes on, and so does its output"

        dockerd.bring_back(how)
        back_at = time.monotonic()
        # What the Engine had before it went is told right; what came meanwhile has still to be run by it, a
        # few a second, so that takes as long as there is of it.
        known = [ends, stopped_before_it_ran, *([] if survives else [stays])]
        eventually(lambda: all(client.task(each).ended for each in known), within_s=RIGHT_S)
        record_property("right after", f"{time.monotonic() - back_at:.1f} s")
        eventually(lambda: all(client.task(each).ended for each in [waits, *begun]), within_s=RIGHT_S + 60)
        record_property("all run after", f"{time.monotonic() - back_at:.1f} s")

        assert client.task(stopped_before_it_ran).state == "stopped"
        assert tasks.times_run(stopped_before_it_ran) == 0
        assert client.task(waits).exit_code == 4
        found = client.task(ends)
        by_itself = (found.exit_code, output(client, ends)) == (5, "done\n")
        assert by_itself or (not survives and is_of_the_engine(found)), found
        if survives:
            assert running(client, stays)
            assert client.stop_task(stays, grace_s=5).state == "stopped"
            lines = output(client, stays).split()
            assert lines == [str(n) for n in range(len(lines))], "nothing that it printed is missing"
        else:
            lost = eventually(lambda: ended(client, stays), within_s=RIGHT_S + 20)
            assert is_of_the_engine(lost), lost
        client.stop_task(stubborn, grace_s=0)
        assert client.task(stubborn).reason == "stopped_by_user"
        assert stop.result(timeout=30).status_code in (200, 503, 504)
        outcomes = [client.task(each) for each in begun]
        good = [each for each in outcomes if each.exit_code == 3]
        # An Engine that is asked to end can lose track of what it starts just then.
        may_be_lost = not survives or how is signal.SIGTERM
        bad = [each for each in outcomes if (each.reason, each.exit_code) != ("exited", 3)]
        assert all(may_be_lost and is_of_the_engine(each) for each in bad), bad
        assert all(tasks.times_run(each.task_id) == 1 for each in good)
        tasks.each_ran_at_most_once()
    record_property("started meanwhile", f"{len(begun)}, of them lost {len(begun) - len(good)}")
    record_property(
        "stop of one that waits", f"{answer.status_code} after {answer.elapsed.total_seconds():.1f} s"
    )


@pytest.mark.parametrize("dockerd", [True], ids=["live-restore"], indirect=True)
@pytest.mark.parametrize(
    "how", [pytest.param(signal.SIGKILL, id="killed"), pytest.param(signal.SIGSTOP, id="hung")]
)
def test_a_stop_while_the_engine_is_away_is_answered_in_time_and_done_when_it_is_back(
    dockerd: OwnDockerd,
    server: Server,
    eventually: Eventually,
    how: signal.Signals,
    record_property: Record,
) -> None:
    """B21: whoever asks hears within 5 s that the Engine is away; the stop is not forgotten."""
    tasks = Tasks(server.data_dir)
    with Client(server.url) as client:
        by_id, by_container, by_project = (tasks.submit(client, SLEEP) for _ in range(3))
        for each in (by_id, by_container, by_project):
            eventually(lambda each=each: output(client, each) == "up\n", within_s=30)
        container_id = client.task(by_container).container_id
        dockerd.signal(how)
        eventually(lambda: not server.stats().is_error)
        body = {
            "op": "runcode.stop",
            "user": "alice",
            "service_name": "k12py",
            "service_uuid": tasks.project_of[by_project].name,
            "service_params": {"timeout": 2},
        }
        answers: dict[str, tuple[int, float]] = {}

        def asked(name: str, ask: Callable[[], httpx.Response]) -> None:
            began = time.monotonic()
            try:
                status = ask().status_code
            except httpx.TimeoutException:
                status = 0
            answers[name] = status, time.monotonic() - began

        with ThreadPoolExecutor(3) as pool:
            pool.submit(asked, "by id", lambda: stop_by_id(server, by_id, 2))
            pool.submit(asked, "by container", lambda: stop_container(server, container_id))
            pool.submit(
                asked,
                "by project",
                lambda: server.http.post("/k12ai/framework/execute", json=body, timeout=12),
            )
        dockerd.bring_back(how)
        for each in (by_id, by_container, by_project):
            found = eventually(lambda each=each: ended(client, each), within_s=RIGHT_S + 5)
            assert (found.state, found.reason) == ("stopped", "stopped_by_user")
        tasks.each_ran_at_most_once()
    record_property(
        "answers", {name: f"{status} after {took:.1f} s" for name, (status, took) in answers.items()}
    )
    assert {status for status, _ in answers.values()} <= {503, 504}
    assert all(took < ANSWER_S + 2 for _, took in answers.values())


def stop_by_id(server: Server, task_id: str, grace_s: int) -> httpx.Response:
    return server.http.post(f"/api/v1/tasks/{task_id}/stop", params={"timeout": grace_s}, timeout=grace_s + 10)


def stop_container(server: Server, container_id: str) -> httpx.Response:
    body = {
        "op": "container.stop",
        "user": "alice",
        "service_name": "k12platform",
        "service_uuid": "p",
        "service_params": {"id": container_id, "timeout": 2},
    }
    return server.http.post("/k12ai/platform/control", json=body, timeout=12)


@pytest.mark.parametrize("dockerd", [True], ids=["live-restore"], indirect=True)
def test_an_engine_that_dies_again_and_again_while_tasks_start_leaves_nothing_that_runs_unknown(
    dockerd: OwnDockerd, server: Server, outside: Outsider, eventually: Eventually, record_property: Record
) -> None:
    """An Engine that is killed in the middle of a start can lose track of it; then its program ends, too."""
    tasks = Tasks(server.data_dir)
    chance = random.Random(21)
    ends: list[str] = []
    stays: list[str] = []
    with Client(server.url) as client:
        for _ in range(8):
            for _ in range(3):
                ends.append(tasks.submit(client, "raise SystemExit(3)"))
                stays.append(tasks.submit(client, SLEEP))
            time.sleep(chance.uniform(0.05, 1.5))
            dockerd.signal(signal.SIGKILL)
            time.sleep(0.5)
            dockerd.start()
        eventually(lambda: all(client.task(each).ended for each in ends), within_s=60)
        eventually(lambda: all(running(client, each) or client.task(each).ended for each in stays), within_s=60)
        outcomes = Counter((found.reason, found.exit_code) for found in map(client.task, ends + stays))
        record_property("told as", dict(outcomes))
        for found in map(client.task, ends + stays):
            runs = tasks.times_run(found.task_id)
            assert runs <= 1
            if found.reason == "start_failed":
                assert runs == 0, f"it has run: {found.detail}"
            elif found.ended and found.reason != "lost":
                assert (found.exit_code, runs) == (3, 1), found
        alive = {each for each in stays if running(client, each)}
        eventually(lambda: alive_programs(server.data_dir) == alive, within_s=20)
        for each in alive:
            assert client.stop_task(each, grace_s=5).state == "stopped"
        eventually(lambda: alive_programs(server.data_dir) == set(), within_s=20)
        # An Engine that was killed in the middle of a start may list for good what it has lost track of.
        listed = outside.of_instance(server.data_dir).values()
        record_property("still listed", [row["Status"] for row in listed])


def alive_programs(data_dir: Path) -> set[str]:
    """Return the tasks of which a first process lives, whatever the Engine says; the kernel knows."""
    found = set()
    for process in psutil.process_iter(["cmdline"]):
        for argument in process.info["cmdline"] or ():
            if argument.startswith(f"{data_dir}/tasks/"):
                found.add(Path(argument).relative_to(data_dir / "tasks").parts[0])
    return found


@pytest.mark.parametrize("dockerd", [True], ids=["live-restore"], indirect=True)
def test_a_task_that_runs_out_of_memory_while_the_engine_is_away_is_not_said_to_have(
    dockerd: OwnDockerd, server: Server, eventually: Eventually
) -> None:
    """B19: the Engine has not seen it, so nobody knows who killed it, and no cause is made up."""
    with Client(server.url) as client:
        wanted = {
            "framework": "k12py",
            "op": "runcode.start",
            "user": "alice",
            "service_uuid": "grows",
            "params": {"code": f"{RUN_ONCE}{GO}x = []\nwhile True: x.append(bytearray(8 << 20))"},
            "limits": {"memory_bytes": 128 << 20},
        }
        task_id = strict(server.post("/api/v1/tasks", wanted))["task_id"]
        project = server.data_dir / "projects" / "alice" / "grows"
        eventually(lambda: (project / "ran").exists(), within_s=30)
        dockerd.signal(signal.SIGKILL)
        (project / "go").touch()
        time.sleep(3)
        assert running(client, task_id)
        dockerd.start()
        found = eventually(lambda: ended(client, task_id), within_s=RIGHT_S + 10)
        if found.exit_code is not None:
            pytest.skip(f"the Engine here enforces no memory limit: it ended with {found.exit_code}")
        assert (found.state, found.signal) == ("failed", 9)
        assert found.reason in ("lost", "oom")
        assert found.reason == "oom" or ("not known" in found.detail and found.oom_kills == 0)


def test_a_full_disk_of_the_engine_is_a_start_that_fails_and_heals(
    own_dockerd: StartEngine,
    images: Path,
    tmp_path: Path,
    start_server: Serve,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Eventually,
) -> None:
    """B26, for the Engine's own directory, which is a small disk here."""
    started = OwnDockerd.start

    def start_on_a_small_disk(self: OwnDockerd) -> None:
        place = self._root / "data"
        place.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600m", "tmpfs", str(place)], check=True)
        started(self)

    monkeypatch.setattr(OwnDockerd, "start", start_on_a_small_disk)
    dockerd = own_dockerd(live_restore=False)
    outsider = Outsider(dockerd.address)
    outsider.load_image(images)
    server = start_server("--runtime", "docker", "--docker-host", dockerd.address, "--max-tasks", "4")
    tasks = Tasks(server.data_dir)
    with Client(server.url) as client:
        lives = tasks.submit(client, TICKS)
        eventually(lambda: output(client, lives), within_s=30)
        ballast = dockerd._root / "data" / "ballast"
        with ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 4096)
            except OSError:
                pass
        refused = tasks.submit(client, "raise SystemExit(3)")
        found = eventually(lambda: ended(client, refused), within_s=40)
        assert found.exit_code == 3 or (found.reason == "start_failed" and "no space" in found.detail)
        assert running(client, lives), "what runs is not touched"
        assert client.stop_task(lives, grace_s=5).state == "stopped", "a stop needs no disk"
        ballast.unlink()
        heals = tasks.submit(client, "raise SystemExit(3)")
        assert eventually(lambda: ended(client, heals), within_s=30).exit_code == 3
        tasks.each_ran_at_most_once()
        eventually(lambda: outsider.of_instance(server.data_dir) == {}, within_s=STRAY_S)
    outsider.close()


# --- the server goes (B22) --------------------------------------------------------------------


@pytest.mark.parametrize("place", NAMES)
def test_a_server_that_is_killed_between_two_steps_finds_each_task_and_none_runs_twice(
    serve: Serve, outsider: Outsider, data_dir: Path, place: str, eventually: Eventually
) -> None:
    not_ours = [outsider.run(labels={"k12ai.task.id": "feedfeedfeed"}), outsider.run(service_name=None)]
    tasks = Tasks(data_dir)
    acknowledged: list[str] = []
    first = serve("--max-tasks", "8", environ={VARIABLE: place})
    with Client(first.url) as client:
        for code in (f"{GO}raise SystemExit(5)", SLEEP):
            try:
                acknowledged.append(tasks.submit(client, code))
            except (ServerUnreachable, httpx.HTTPError):
                break
    for task_id in acknowledged:
        if place == "before_end":
            eventually(lambda task_id=task_id: tasks.project_of[task_id].exists())
            tasks.go(task_id)
    assert first.process.wait(timeout=30) == -signal.SIGKILL
    assert acknowledged or place == "after_intent"

    second = serve("--max-tasks", "8")
    with Client(second.url) as client:
        found = client.tasks()
        assert {each.task_id for each in found} >= set(acknowledged)
        for task in found:
            path = data_dir / "projects" / task.user / task.service_uuid
            eventually(lambda path=path: times_run(path) == 1, within_s=30)
            if task.params["code"].endswith("SystemExit(5)"):
                (path / "go").touch()
                done = eventually(lambda task=task: ended(client, task.task_id), within_s=30)
                assert (done.state, done.exit_code) == ("failed", 5)
            else:
                now = eventually(
                    lambda task=task: (now := client.task(task.task_id)).state == "running" and now, within_s=30
                )
                assert now.container_id == outsider.of_instance(data_dir)[task.task_id]["Id"][:12]
                assert now.container_id in eventually(
                    lambda now=now: (ids := second.containers().keys()) and now.container_id in ids and ids
                )
                stopped = client.stop_task(task.task_id, grace_s=5)
                assert (stopped.state, stopped.started_at is None) == ("stopped", False)
        eventually(lambda: outsider.of_instance(data_dir) == {}, within_s=20)
        tasks.each_ran_at_most_once()
    assert all(outsider.state(each)["Running"] for each in not_ours)


def test_a_server_that_is_killed_at_any_time_loses_no_task_and_starts_none_twice(
    serve: Serve, outsider: Outsider, data_dir: Path, eventually: Eventually, record_property: Record
) -> None:
    tasks = Tasks(data_dir)
    chance = random.Random(22)
    lives: list[str] = []
    ends: list[str] = []
    ready: list[float] = []
    for _ in range(8):
        began = time.monotonic()
        server = serve("--max-tasks", "100")
        ready.append(time.monotonic() - began)
        with Client(server.url) as client:
            over = time.monotonic() + chance.uniform(0.2, 2.0)
            while time.monotonic() < over:
                ends.append(tasks.submit(client, "raise SystemExit(3)"))
                if len(lives) < 10:
                    lives.append(tasks.submit(client, SLEEP))
        server.kill()
    server = serve("--max-tasks", "100")
    with Client(server.url) as client:
        eventually(lambda: all(client.task(each).ended for each in ends), within_s=90)
        assert {(each.reason, each.exit_code) for each in map(client.task, ends)} == {("exited", 3)}
        eventually(lambda: all(running(client, each) for each in lives), within_s=30)
        assert all(client.task(each).container_id for each in lives)
        eventually(lambda: set(outsider.of_instance(data_dir)) == set(lives), within_s=90)
        assert all(tasks.times_run(each) == 1 for each in (*lives, *ends))
        with ThreadPoolExecutor(10) as pool:
            states = list(pool.map(lambda each: client_stop(server, each), lives))
        assert states == ["stopped"] * len(lives)
        eventually(lambda: outsider.of_instance(data_dir) == {}, within_s=20)
    record_property("kills", 8)
    record_property("tasks", f"{len(ends)} that ended, {len(lives)} that went on")
    record_property("ready within", f"{max(ready):.1f} s")
    assert max(ready) < 15


def client_stop(server: Server, task_id: str) -> str:
    with Client(server.url) as client:
        return client.stop_task(task_id, grace_s=5).state


def test_a_server_that_is_killed_during_a_stop_still_gives_the_grace_that_was_promised(
    serve: Serve, data_dir: Path, eventually: Eventually
) -> None:
    """B17: who needs 4 s to save its work, and was promised 30, has them."""
    tasks = Tasks(data_dir)
    saves = (
        "import signal, sys, time\n"
        "def save(*_):\n"
        "    print('saving', flush=True); time.sleep(4); print('saved', flush=True); sys.exit(7)\n"
        f"signal.signal(15, save); {SLEEP}"
    )
    first = serve()
    with Client(first.url) as client, ThreadPoolExecutor(1) as pool:
        task_id = tasks.submit(client, saves)
        eventually(lambda: output(client, task_id) == "up\n", within_s=30)
        asked = pool.submit(lambda: client_stop_quietly(first, task_id))
        eventually(lambda: "saving" in output(client, task_id) and client.task(task_id).state == "stopping")
        first.kill()
        asked.result(timeout=10)
    second = serve()
    with Client(second.url) as client:
        found = eventually(lambda: ended(client, task_id), within_s=30)
        assert output(client, task_id) == "up\nsaving\nsaved\n"
        assert (found.state, found.exit_code, found.killed) == ("stopped", 7, False)


def client_stop_quietly(server: Server, task_id: str) -> None:
    with contextlib.suppress(httpx.HTTPError):
        stop_by_id(server, task_id, 30)


def test_a_server_that_is_killed_while_twenty_wait_goes_on_in_the_same_order(
    serve: Serve, outsider: Outsider, data_dir: Path, eventually: Eventually
) -> None:
    """B18."""
    tasks = Tasks(data_dir)
    code = "import time; time.sleep(0.2)"
    first = serve("--max-tasks", "1")
    with Client(first.url) as client:
        ids = [tasks.submit(client, code) for _ in range(20)]
        eventually(lambda: client.task(ids[2]).ended, within_s=60)
        first.kill()
    second = serve("--max-tasks", "1")
    with Client(second.url) as client:
        waiting = [each for each in ids if client.task(each).state == "queued"]
        positions = [client.task(each).position for each in waiting]
        assert waiting == ids[-len(waiting) :]
        assert len(waiting) >= 10
        assert [each for each in positions if each] == sorted(each for each in positions if each)
        while client.tasks(active=True):
            states = [row["State"] for row in outsider.of_instance(data_dir).values()]
            assert states.count("running") <= 1
        done = [client.task(each) for each in ids]
        assert [each.state for each in done] == ["succeeded"] * 20
        begins = [each.started_at.timestamp() for each in done if each.started_at]
        assert begins == sorted(begins)
        assert all(tasks.times_run(each) == 1 for each in ids)


def test_a_stop_at_any_moment_of_a_start_is_a_stop(
    serve: Serve, outsider: Outsider, data_dir: Path, eventually: Eventually, record_property: Record
) -> None:
    """B16: twenty times each delay, and nothing is left alive."""
    tasks = Tasks(data_dir)
    server = serve("--max-tasks", "8")
    ran = 0
    with Client(server.url) as client:
        for delay_ms in (0, 1, 5, 20, 50, 100, 200):
            for _ in range(20):
                task_id = tasks.submit(client, SLEEP)
                time.sleep(delay_ms / 1000)
                found = client.stop_task(task_id, grace_s=5)
                assert (found.state, found.reason) == ("stopped", "stopped_by_user")
                assert not found.killed
                ran += tasks.times_run(task_id)
        eventually(lambda: outsider.of_instance(data_dir) == {}, within_s=STRAY_S)
    tasks.each_ran_at_most_once()
    record_property("stops", 7 * 20)
    record_property("whose program had begun", ran)


def test_what_is_killed_for_memory_is_told_as_that_every_time(
    serve: Serve, eventually: Eventually, record_property: Record
) -> None:
    """B19: the Engine's word on memory must not come after its word on the end."""
    server = serve("--max-tasks", "4")
    reasons: list[str | None] = []
    with Client(server.url) as client:
        for number in range(30):
            wanted = {
                "framework": "k12py",
                "op": "runcode.start",
                "user": "alice",
                "service_uuid": f"p{number}",
                "params": {"code": "x = []\nwhile True: x.append(bytearray(8 << 20))"},
                "limits": {"memory_bytes": 96 << 20},
            }
            task_id = strict(server.post("/api/v1/tasks", wanted))["task_id"]
            found = eventually(lambda task_id=task_id: ended(client, task_id), within_s=30)
            if found.exit_code is not None:
                pytest.skip(f"the Engine here enforces no memory limit: it ended with {found.exit_code}")
            reasons.append(found.reason)
    record_property("told as", {each: reasons.count(each) for each in set(reasons)})
    assert set(reasons) == {"oom"}

"""A student who wants what is not theirs (B30): through the server's own doors, from inside of a task.

What a program may not do is tried by `tests.support.hostile`, and each of its probes has walls of which one
alone must hold it off. Which walls stand is the server's own word: a probe that gets through one
that stands is a fault, and one that meets none is reported, because an operator has to know.
"""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgspec
import pytest

from k12ai.client import Client, TaskHandle
from k12ai.runtimes.process_tree import start_of
from k12ai.runtimes.task_dirs import TMP_BYTES
from k12ai.task import Limits
from tests.support.programs import SLEEP
from tests.support.server import Server

Eventually = Callable[..., Any]

OP = "runcode.start"
PROGRAM = (Path(__file__).parent / "support" / "hostile.py").read_text()
NO_ENGINE = "unix:///nonexistent/docker.sock"
PROCESSES = 64
# More than are listed, or may be put into a project.
MANY = [20_000, pytest.param(150_000, marks=pytest.mark.slow)]
WALLS = {
    "sandbox (bubblewrap)": "sandbox",
    "a limit of the private /tmp (bubblewrap 0.7)": "limit of /tmp",
    "an account for each student": "account",
    "kernel limits (cgroups)": "limits",
}


class House(NamedTuple):
    """A server with the walls that it says it has, and what a program inside of them must not find."""

    server: Server
    client: Client
    place: Path
    walls: frozenset[str]
    secrets: tuple[str, ...]

    def start(self, code: str, *arguments: str, user: str, project: str = "p1", **limits: int) -> TaskHandle:
        params = {"code": code, "args": arguments}
        return self.client.submit("k12py", OP, project, params, user=user, limits=Limits(**limits))

    def project(self, user: str, project: str = "p1") -> Path:
        return self.server.data_dir / "projects" / user / project

    def output(self, handle: TaskHandle) -> str:
        return "".join(handle.logs())

    def file(self, method: str, user: str, path: str, **options: Any) -> httpx.Response:
        return self.server.http.request(method, f"/api/v1/projects/{user}/p1/files/{path}", **options)


def walls_of(server: Server, runtime: str) -> frozenset[str]:
    """Return what the server says of the walls around its tasks, in the words of the probes."""
    if runtime == "docker":
        return frozenset({"container"})
    lines = [msgspec.json.decode(line) for line in server.log.read_text().splitlines()]
    said = {line["wall"]: line["event"] for line in lines if line["event"].startswith("wall.")}
    assert said.keys() == WALLS.keys()
    found = {WALLS[name] for name, event in said.items() if event == "wall.in_force"}
    return frozenset(found | ({"not root"} if os.geteuid() != 0 or "account" in found else set()))


# The programs that build walls of processes, as far as a server finds them.
VARIANTS = {
    "process": ("process", None),
    "process, no sandbox": ("process", ["setpriv"]),
    "docker": ("docker", None),
}


@pytest.fixture(name="house", scope="module", params=VARIANTS)
def _house(request: pytest.FixtureRequest) -> Iterator[House]:
    """A server with secrets in its environment, which runs tasks in one of the ways that there are."""
    runtime, builders = VARIANTS[request.param]
    engine = request.getfixturevalue("docker_host") if runtime == "docker" else NO_ENGINE
    if runtime == "docker":
        request.getfixturevalue("task_images")
    hidden = tuple(f"canary-{secrets.token_hex(8)}" for _ in range(3))
    environ = dict(zip(("K12AI_TOKEN", "AWS_SECRET_ACCESS_KEY"), hidden, strict=False))
    # Accounts of their own have to get there where there is no sandbox that takes them.
    place = Path(tempfile.mkdtemp(prefix="k12ai-"))
    place.chmod(0o711)
    if builders is not None:
        environ["PATH"] = str(place / "bin")
        (place / "bin").mkdir()
        for path in filter(None, map(shutil.which, builders)):
            (place / "bin" / Path(path).name).symlink_to(path)
    options = ("--max-tasks", "8", "--log-format", "json", "--runtime", runtime, "--docker-host", engine)
    try:
        with (
            Server(place / "data", *options, environ=environ) as server,
            Client(server.url) as client,
        ):
            walls = walls_of(server, runtime)
            if not walls & {"sandbox", "not root", "container"}:
                pytest.skip("no sandbox and no accounts: the server's tasks are root, and may do anything")
            yield House(server, client, place, walls, hidden)
            for task in client.tasks(active=True):
                client.stop_task(task.task_id, grace_s=0)
    finally:
        # Not with shutil: it recurses.
        subprocess.run(["rm", "-rf", "--", place], check=True)


def processes_of(task_id: str) -> list[int]:
    """Return the processes that carry a task's id in their environment, as the kernel knows them."""
    found = []
    for number in map(int, filter(str.isdecimal, os.listdir("/proc"))):
        with contextlib.suppress(OSError):
            if f"K12AI_TASK_ID={task_id}".encode() in Path(f"/proc/{number}/environ").read_bytes():
                found.append(number)
    return found


@pytest.fixture(name="victim")
def _victim(house: House, eventually: Eventually) -> Iterator[TaskHandle]:
    """Another student's task that works, with homework in its project."""
    code = f"open('homework', 'w').write({house.secrets[2]!r}); {SLEEP}"
    victim = house.start(code, user="bob")
    eventually(lambda: "up" in house.output(victim), within_s=30)
    yield victim
    assert victim.stop(grace_s=0).state == "stopped"


# --- from inside ------------------------------------------------------------------------------


def test_a_program_gets_through_none_of_the_walls_that_stand(
    house: House, victim: TaskHandle, record_property: Callable[[str, object], None]
) -> None:
    data_dir = house.server.data_dir
    victim_dir, homework = data_dir / "tasks" / victim.task_id, house.project("bob") / "homework"
    others = [house.server.process.pid, *processes_of(victim.task_id)]
    assert len(others) > 1
    unnamed = f"k12ai-test-{os.getpid()}"
    with (
        socket.socket(socket.AF_UNIX) as without_file,
        tempfile.NamedTemporaryFile(prefix="k12ai-", dir="/tmp") as shared,
    ):
        without_file.bind(f"\0{unnamed}")
        without_file.listen()
        where = {
            "terces": [secret[::-1] for secret in house.secrets],
            "processes": {str(pid): start_of(pid) for pid in others},
            "port": house.server.port,
            "addresses": [socket.gethostname()],
            "abstract": unnamed,
            "data_dir": str(data_dir),
            "files": ["k12ai.sqlite3", "k12ai.sqlite3-wal", "k12ai.sqlite3-shm", "instance"],
            "victim": str(victim_dir),
            "victim_project": str(homework.parent),
            "shared_name": Path(shared.name).name,
            "tmp_bytes": TMP_BYTES,
            "limit": PROCESSES,
        }
        hostile = house.start(
            PROGRAM, msgspec.json.encode(where).decode(), user="mallory", processes=PROCESSES, wall_time_s=100
        )
        task = hostile.wait(progress=False)
    assert task.state == "succeeded", house.output(hostile)
    found = hostile.result()
    walls: dict[str, list[str]] = found["walls"]
    assert len(walls) >= 25
    assert [name for name in found["succeeded"] if house.walls.intersection(walls[name])] == []
    record_property("walls", " ".join(sorted(house.walls)))
    for missing in sorted({" or ".join(walls[name]) for name in found["succeeded"]}):
        through = [name for name in found["succeeded"] if " or ".join(walls[name]) == missing]
        record_property(f"for want of {missing}", " ".join(through))

    assert homework.read_text() == house.secrets[2]
    assert sorted(os.listdir(homework.parent)) == [".k12ai_code.py", "homework"]
    assert (victim_dir / "journal").read_bytes() == b""
    assert house.output(victim) == "up\n"
    assert house.server.process.poll() is None
    for said in (house.server.log.read_text(), house.output(hostile), str(found)):
        assert not [secret for secret in house.secrets if secret in said]


# --- what is left in a project for the server to fall over ------------------------------------------

PLANTS = """
import os, socket, sys
elsewhere, many = sys.argv[1], int(sys.argv[2])
os.symlink(elsewhere + "/kept", "out")
os.symlink("/etc/shadow", "shadow")
os.symlink("../..", "up")
os.rename("work", "aside")
os.symlink(elsewhere, "work")
os.mkfifo("model.json")
socket.socket(socket.AF_UNIX).bind("listener")
os.mkdir("many")
for number in range(many):
    os.close(os.open(f"many/{number}", os.O_CREAT | os.O_WRONLY))
os.mkdir("deep")
os.chdir("deep")
for _ in range(1500):
    os.mkdir("d")
    os.chdir("d")
"""


@pytest.fixture(name="elsewhere")
def _elsewhere(house: House) -> Iterator[Path]:
    """A directory that is nobody's project, open to everyone; nothing in it must be seen or changed."""
    elsewhere = house.place / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").write_text(house.secrets[2])
    for path, mode in ((elsewhere, 0o755), (elsewhere / "kept", 0o644)):
        path.chmod(mode)
    owner = (elsewhere / "kept").stat().st_uid
    yield elsewhere
    assert os.listdir(elsewhere) == ["kept"]
    assert (elsewhere / "kept").read_text() == house.secrets[2]
    assert {path.stat().st_uid for path in (elsewhere, elsewhere / "kept")} == {owner}
    shutil.rmtree(elsewhere)


@pytest.mark.parametrize("many", MANY)
def test_what_is_planted_in_a_project_is_not_followed_served_or_waited_for(
    house: House, elsewhere: Path, many: int
) -> None:
    eve = f"eve{many}"
    assert house.file("PUT", eve, "work/kept", content=b"own").status_code == 201
    plants = house.start(PLANTS, str(elsewhere), str(many), user=eve)
    assert plants.wait(progress=False).state == "succeeded", house.output(plants)
    # What the kernel may refuse to the program is there all the same.
    (house.project(eve) / "second").hardlink_to(elsewhere / "kept")

    for path in ("out", "shadow", "work/kept", f"up/{eve}/p1/out", "model.json", "listener", "second", "work/"):
        answer = house.file("GET", eve, path)
        assert 400 <= answer.status_code < 500, (path, answer.status_code)
        assert house.secrets[2] not in answer.text
    for method in ("PUT", "DELETE"):
        assert not house.file(method, eve, "work/kept", content=b"new").is_success
    listed = house.file("GET", eve, "", params={"recurse": ""})
    assert listed.status_code == 200
    assert listed.json()["truncated"]
    assert not {"out", "shadow", "up", "work", "second"} & {each["path"] for each in listed.json()["entries"]}
    assert house.file("PUT", eve, "more", content=b"x").status_code == 507
    assert house.file("PUT", "carol", "essay", content=b"x").is_success, "its neighbours have room"

    again = house.start("print('fine')", user=eve)
    assert again.wait(progress=False).state == "succeeded", house.output(again)
    for path in ("work", "out", "second", "many", "deep", "model.json"):
        assert house.file("DELETE", eve, path, timeout=300).status_code == 204
    assert {"work", "out", "second", "many", "deep"}.isdisjoint(os.listdir(house.project(eve)))


def test_a_project_in_whose_place_there_is_a_link_is_neither_read_nor_run_in(
    house: House, elsewhere: Path
) -> None:
    code = "import os\nos.rename(os.getcwd(), os.getcwd() + '-away')\n"
    moves = house.start(code, user="trudy")
    state = moves.wait(progress=False).state
    assert state == "failed" or not house.walls & {"sandbox", "account", "container"}
    # Where the walls keep a program from it, the operator has been careless.
    project = house.project("trudy")
    if state == "failed":
        project.rename(project.with_name("p1-away"))
    project.symlink_to(elsewhere)
    for method, path in (("GET", "kept"), ("GET", ""), ("DELETE", "kept"), ("PUT", "kept"), ("PUT", "new")):
        assert 400 <= house.file(method, "trudy", path, content=b"x").status_code < 500
    ran = house.start("open('new', 'w')", user="trudy").wait(progress=False)
    assert (ran.state, ran.reason) == ("failed", "start_failed")


# --- what it says -----------------------------------------------------------------------------

SHOUTS = """
import os
from k12ai import report
journal = os.environ["K12AI_JOURNAL"]
with open(journal, "ab") as file:
    file.write(b'{"type":"result","data":{"huge":"' + b"x" * (16 << 20) + b'"}}\\n')
    file.write(b'{"type":"result","data":' + b"[" * 100_000 + b"\\n")
    file.write(b'\\xff\\n{"type":"result","data":{"nan":NaN}}\\n')
report.result(fine=1)
for plant in (lambda: os.symlink("/etc/shadow", "new"), lambda: os.mkfifo("new")):
    plant()
    try:
        os.rename("new", journal)
    except OSError:
        os.unlink("new")
"""


def test_of_a_journal_only_what_makes_sense_is_passed_on(house: House) -> None:
    """Also where its name leads somewhere else in the end, as far as the walls let it."""
    shouts = house.start(SHOUTS, user="mallory", project="p2")
    task = shouts.wait(progress=False)
    assert task.state == "succeeded", house.output(shouts)
    assert [each.body for each in shouts.messages("result", follow=False)] == [{"fine": 1}]
    assert house.server.http.get("/health").status_code == 200


def test_what_a_browser_or_a_terminal_would_obey_is_served_as_plain_text_or_for_keeping(house: House) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J<script>alert(1)</script><!doctype html>\n"
    code = f"open('page.html', 'w').write({evil!r}); print({evil!r}, end='')"
    prints = house.start(code, user="mallory", project="p1")
    assert prints.wait(progress=False).state == "succeeded"
    log = house.server.http.get(f"/api/v1/tasks/{prints.task_id}/logs")
    assert log.text == evil
    assert log.headers["Content-Type"] == "text/plain; charset=utf-8"
    page = house.file("GET", "mallory", "page.html")
    assert page.text == evil
    assert page.headers["Content-Type"] == "application/octet-stream"
    assert page.headers["Content-Disposition"].startswith("attachment")
    for answer in (log, page):
        assert answer.headers["X-Content-Type-Options"] == "nosniff"

"""Tasks as containers, for the most hostile student and the most unlucky operator.

What every runtime promises is in `tests.contract.test_task_runtime`; here is what only containers have:
the profile that the Engine was given, what a program can do from inside of it, and what others do to its
container from outside. What it can do elsewhere is tried in `tests.test_hostile_student`.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k12ai.client import Client
from k12ai.frameworks.py.framework import PyFramework
from k12ai.models import (
    LABEL_INSTANCE,
    LABEL_OP,
    LABEL_SERVICE_NAME,
    LABEL_SERVICE_UUID,
    LABEL_TASK_ID,
    LABEL_USER,
)
from k12ai.projects import ProjectFiles
from k12ai.runtimes import container_profile, docker_tasks
from k12ai.runtimes.accounts import FIRST_UID
from k12ai.runtimes.base import End, Launch
from k12ai.runtimes.container_profile import container_name, profile
from k12ai.runtimes.docker_tasks import DockerTasks
from k12ai.runtimes.task_dirs import TaskDir
from k12ai.task import Limits, Task
from tests.support.containers import Outsider, instance_of
from tests.support.engine import IMAGE
from tests.support.programs import (
    HEEDS_TERM,
    IGNORES_TERM,
    PY_IMAGE,
    RUN_ONCE,
    SLEEP,
    Programs,
    printed,
    times_run,
    up,
)
from tests.support.server import Server, strict

pytestmark = pytest.mark.docker

Eventually = Callable[..., Any]
OpenRuntime = Callable[[], AbstractAsyncContextManager[DockerTasks]]
OUR_LABELS = {LABEL_TASK_ID, LABEL_INSTANCE, LABEL_SERVICE_NAME, LABEL_OP, LABEL_USER, LABEL_SERVICE_UUID}
NOBODY = 100_000


@pytest.fixture(name="open_runtime")
def _open_runtime(docker_host: str, data_dir: Path) -> OpenRuntime:
    """Open the runtime; opening it again finds the same tasks."""
    return lambda: DockerTasks(docker_host, data_dir)


@pytest.fixture(name="runtime")
async def _runtime(open_runtime: OpenRuntime) -> AsyncIterator[DockerTasks]:
    async with open_runtime() as runtime:
        yield runtime


@pytest.fixture(name="program")
def _program(data_dir: Path) -> Programs:
    return Programs(data_dir)


async def ended(runtime: DockerTasks, launch: Launch) -> End:
    """Start a task and return how it ended."""
    await runtime.launch(launch)
    async with asyncio.timeout(60):
        return await runtime.wait(launch.task_id)


async def stopped(runtime: DockerTasks, launch: Launch, grace_s: float = 0) -> End:
    await runtime.ask_to_stop(launch.task_id, grace_s)
    async with asyncio.timeout(grace_s + 20):
        return await runtime.wait(launch.task_id)


def id_of(outsider: Outsider, data_dir: Path, launch: Launch) -> str:
    """Return the full id of a task's container, as the Engine knows it."""
    container_id: str = outsider.of_instance(data_dir)[launch.task_id]["Id"]
    return container_id


# --- what the Engine was asked for ------------------------------------------------------------


async def test_the_engine_confirms_every_wall_of_a_task(
    runtime: DockerTasks,
    program: Programs,
    outsider: Outsider,
    data_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("K12AI_SECRET", "canary-5f1c")
    limits = Limits(wall_time_s=60, processes=64, memory_bytes=128 << 20, cpus=0.5)
    wanted = program(SLEEP, limits=limits, account_number=7)
    await up(runtime, wanted)
    shown = outsider.inspect(id_of(outsider, data_dir, wanted))
    config, host = shown["Config"], shown["HostConfig"]

    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert (host["Privileged"], host["ReadonlyRootfs"], host["NetworkMode"]) == (False, True, "none")
    assert (host["PidMode"], host["UTSMode"], host["UsernsMode"]) == ("", "", "")
    assert (host["IpcMode"], host["CgroupnsMode"]) == ("private", "private")
    assert host["AutoRemove"] is False
    assert host["RestartPolicy"]["Name"] == "no"
    assert (host["Memory"], host["MemorySwap"]) == (128 << 20, 128 << 20)
    assert (host["PidsLimit"], host["NanoCpus"]) == (64, 500_000_000)
    assert not host["Devices"]
    assert not host["DeviceRequests"]
    assert not host["PortBindings"]
    assert host["Tmpfs"].keys() == {"/tmp"}
    assert f"size={container_profile.TMP_BYTES}" in host["Tmpfs"]["/tmp"]
    user, group = map(int, config["User"].split(":"))
    assert user == group
    assert user == (os.geteuid() or FIRST_UID + 7)
    assert {name: value for name, value in config["Labels"].items() if name in OUR_LABELS} == {
        LABEL_TASK_ID: wanted.task_id,
        LABEL_INSTANCE: instance_of(data_dir),
        LABEL_SERVICE_NAME: "k12py",
        LABEL_OP: "runcode.start",
        LABEL_USER: "alice",
        LABEL_SERVICE_UUID: wanted.service_uuid,
    }
    assert b"canary-5f1c" not in msgspec.json.encode(shown)

    task_dir = data_dir / "tasks" / wanted.task_id
    writable = {str(wanted.project_dir), str(task_dir / "journal"), str(task_dir / "log")}
    mounts = {each["Destination"]: each for each in shown["Mounts"] if each["Type"] == "bind"}
    assert {name for name, each in mounts.items() if each["RW"]} == writable
    ours = {name for name in mounts.keys() - writable if not name.startswith("/k12ai/")}
    assert ours == {str(task_dir / "given")}
    assert {each["Source"] for each in mounts.values()} <= {
        *(*writable, *ours),
        *(str(path) for path in Path(container_profile.__file__).parent.glob("*.py")),
    }
    assert not [each for each in mounts.values() if "docker.sock" in each["Source"]]


def test_gpus_are_asked_for_by_index_and_counted_from_0_inside(tmp_path: Path) -> None:
    """The machine's GPU 3 is the first that a container sees of it."""
    body = body_of(tmp_path, gpus=(1, 3))
    assert body["HostConfig"]["DeviceRequests"] == [
        {"Driver": "", "DeviceIDs": ["1", "3"], "Capabilities": [["gpu"]]}
    ]
    assert "CUDA_VISIBLE_DEVICES=0,1" in body["Env"]
    without = body_of(tmp_path)
    assert without["HostConfig"]["DeviceRequests"] == []
    assert "CUDA_VISIBLE_DEVICES=" in without["Env"], "else it would find those of a careless Engine"


FIXED = Launch(
    task_id="0123456789ab",
    user="alice",
    service_uuid="p1",
    framework="k12py",
    op="runcode.start",
    arguments=tuple(PyFramework().command("runcode.start")),
    params=b"{}",
    project_dir=Path("/data/projects/alice/p1"),
    limits=Limits(),
    account_number=1,
    image=PY_IMAGE,
)
REQUESTED = {"user", "service_uuid", "framework", "op", "params", "limits"}


def body_of(place: Path, **fields: Any) -> dict[str, Any]:
    wanted = msgspec.structs.replace(FIXED, **fields)
    return profile(wanted, TaskDir(place, wanted.task_id), (NOBODY, NOBODY), "0123456789ab")


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Return every leaf by its path; of the environment, every variable by its name."""
    if isinstance(value, dict):
        return {
            leaf: each for name, part in value.items() for leaf, each in flat(part, f"{path}/{name}").items()
        }
    if isinstance(value, (list, tuple)):
        named = (
            (variable.partition("=") for variable in value)
            if path == "/Env"
            else ((str(index), "", part) for index, part in enumerate(value))
        )
        return {leaf: each for name, _, part in named for leaf, each in flat(part, f"{path}/{name}").items()}
    return {path: value}


CHANGEABLE = {
    "user": {f"/Labels/{LABEL_USER}", "/Env/K12AI_USER"},
    "service_uuid": {f"/Labels/{LABEL_SERVICE_UUID}", "/Env/K12AI_UUID"},
    "framework": {f"/Labels/{LABEL_SERVICE_NAME}"},
    "op": {f"/Labels/{LABEL_OP}", "/Env/K12AI_OP"},
    "params": set(),
    "limits": {
        *(f"/HostConfig/{name}" for name in ("Memory", "MemorySwap", "PidsLimit", "NanoCpus")),
        *("/Env/OMP_NUM_THREADS", "/Env/K12AI_GPU_MEMORY_BYTES"),
    },
}
TEXT = st.text(max_size=80) | st.sampled_from(["/", "../../etc", "a:b:rw", "a,dst=/", "x\nUser=0", "-v", "\0"])
REQUESTS = st.fixed_dictionaries(
    {
        **dict.fromkeys(("user", "service_uuid", "framework", "op"), TEXT),
        "params": st.binary(max_size=80),
        "limits": st.builds(
            Limits,
            wall_time_s=st.none() | st.integers(1, 3600),
            memory_bytes=st.none() | st.integers(64 << 20, 1 << 62),
            processes=st.none() | st.integers(8, 32768),
            cpus=st.none() | st.floats(0.01, 4096),
            gpus=st.none() | st.integers(0, 64),
            gpu_memory_bytes=st.none() | st.integers(1 << 20, 1 << 62),
        ),
    }
)


@given(REQUESTS)
def test_a_request_changes_its_labels_its_variables_and_its_limits_and_nothing_else(
    request: Mapping[str, Any],
) -> None:
    assert request.keys() == REQUESTED
    place = Path("/data/tasks")
    before, after = flat(body_of(place)), flat(body_of(place, **request))
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert changed <= set().union(*CHANGEABLE.values())
    for field, paths in CHANGEABLE.items():
        alone = flat(body_of(place, **{field: request[field]}))
        assert {path for path in before.keys() | alone.keys() if before.get(path) != alone.get(path)} <= paths


@given(st.lists(st.from_regex(r"(?!\.{1,2}$)[A-Za-z0-9._@-]{1,64}", fullmatch=True), min_size=2, max_size=2))
def test_whatever_names_are_accepted_a_task_is_given_a_directory_of_its_users_projects(
    names: list[str],
) -> None:
    user, service_uuid = names
    projects = Path("/nowhere/projects")
    project = projects / user / service_uuid
    mounts = body_of(Path("/nowhere/tasks"), user=user, service_uuid=service_uuid, project_dir=project)[
        "HostConfig"
    ]["Mounts"]
    assert next(each["Source"] for each in mounts if not each["ReadOnly"]) == str(project)
    assert project.resolve() == project
    assert project.parent.parent == projects


def test_an_odd_project_name_is_a_directory_where_all_are(tmp_path: Path) -> None:
    files = ProjectFiles(tmp_path, max_file_bytes=1024, max_project_bytes=1024, max_files=8)
    for name in ("-v", "...", "a@b", ".hidden", "x" * 64):
        found = files.project_dir(name, name)
        assert found.is_relative_to(tmp_path / "projects")
        assert found.resolve() == found


# --- from inside --------------------------------------------------------------------------------


async def test_what_is_planted_among_its_output_shows_it_nothing_and_blocks_nobody(
    runtime: DockerTasks, program: Programs, data_dir: Path
) -> None:
    secret = data_dir / "secret"
    secret.parent.mkdir(exist_ok=True)
    secret.write_text("canary-90aa")
    source = (
        "import os, sys\n"
        "os.chdir(os.path.dirname(os.environ['K12AI_JOURNAL']) + '/log')\n"
        "print('first', flush=True)\n"
        "while not os.path.exists('0' * 16): pass\n"
        f"os.symlink({str(secret)!r}, '%016d' % 6)\n"
        "os.mkfifo('%016d' % 7); os.mkdir('%016d' % 8)\n"
        "os.symlink('.', '%016d' % 9); os.symlink('/dev/zero', '%016d' % 10)\n"
        "for n in range(100, 10_100): os.close(os.open('%016d' % n, os.O_CREAT))\n"
        "os.truncate(os.open('9' * 16, os.O_CREAT | os.O_WRONLY), 1 << 40)\n"
    )
    plants = program(source)
    assert (await ended(runtime, plants)).exit_code == 0, printed(runtime, plants.task_id)
    other = program("print('fine')")
    reading = asyncio.gather(
        *(asyncio.to_thread(runtime.read_log, plants.task_id, at, 1 << 20) for at in (0, 6, 7, 8, 9, 10, 5000))
    )
    assert (await ended(runtime, other)).exit_code == 0
    pieces = await asyncio.wait_for(reading, timeout=30)
    assert pieces[0].data == b"first\n"
    assert all(b"canary" not in each.data for each in pieces)
    assert all(len(each.data) <= 1 << 20 for each in pieces)
    assert printed(runtime, other.task_id) == "fine\n"
    await runtime.remove(plants.task_id)
    assert not (data_dir / "tasks" / plants.task_id).exists()
    assert secret.read_text() == "canary-90aa"


@pytest.mark.parametrize("kind", ["a link to nothing", "a link to a file", "a FIFO", "a directory"])
async def test_what_is_planted_in_the_place_of_the_stop_is_not_followed(
    runtime: DockerTasks, program: Programs, data_dir: Path, kind: str
) -> None:
    """The server, perhaps root, says there that a task is to end; the directory is the student's."""
    elsewhere, there = data_dir / "elsewhere", data_dir / "there"
    data_dir.mkdir(exist_ok=True)
    there.write_text("as it was")
    os.utime(there, (1, 1))
    plant = {
        "a link to nothing": f"os.symlink({str(elsewhere)!r}, 'stop')",
        "a link to a file": f"os.symlink({str(there)!r}, 'stop')",
        "a FIFO": "os.mkfifo('stop')",
        "a directory": "os.mkdir('stop')",
    }[kind]
    source = f"import os; os.chdir(os.path.dirname(os.environ['K12AI_JOURNAL']) + '/log'); {plant}; {SLEEP}"
    wanted = program(source)
    await up(runtime, wanted)
    assert (await stopped(runtime, wanted, 5)).reason == "stopped"
    assert not elsewhere.exists()
    assert there.read_text() == "as it was"
    assert there.stat().st_mtime == 1


async def test_directories_that_are_too_deep_to_walk_can_be_removed(
    runtime: DockerTasks, program: Programs, data_dir: Path
) -> None:
    source = (
        "import os\n"
        "os.chdir(os.path.dirname(os.environ['K12AI_JOURNAL']) + '/log')\n"
        "for _ in range(2000): os.mkdir('d'); os.chdir('d')\n"
    )
    wanted = program(source)
    assert (await ended(runtime, wanted)).exit_code == 0, printed(runtime, wanted.task_id)
    await runtime.remove(wanted.task_id)
    assert not (data_dir / "tasks" / wanted.task_id).exists()


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGSTOP, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1]
)
async def test_a_program_cannot_end_what_stands_over_it(
    runtime: DockerTasks, program: Programs, number: signal.Signals
) -> None:
    source = f"import os, time; os.kill(1, {int(number)}); time.sleep(0.2); print('still there'); os._exit(3)"
    wanted = program(source)
    end = await ended(runtime, wanted)
    assert (end.reason, end.exit_code) == ("exited", 3)
    assert printed(runtime, wanted.task_id) == "still there\n"


async def test_a_program_that_asks_what_stands_over_it_to_end_is_asked_itself(
    runtime: DockerTasks, program: Programs
) -> None:
    wanted = program("import os; os.kill(1, 15); " + SLEEP)
    end = await ended(runtime, wanted)
    assert (end.reason, end.signal) == ("signal", signal.SIGTERM)


async def test_a_fork_bomb_stays_below_its_limit_and_goes_when_it_is_told(
    runtime: DockerTasks, program: Programs, outsider: Outsider, data_dir: Path
) -> None:
    """B20."""
    source = (
        "import os, time\n"
        "print('up', flush=True)\n"
        "while True:\n"
        "    try: os.fork()\n"
        "    except OSError: time.sleep(0.01)\n"
    )
    bomb = program(source, limits=Limits(wall_time_s=60, processes=64))
    await up(runtime, bomb)
    container_id = id_of(outsider, data_dir, bomb)
    most = 0
    async with asyncio.timeout(20):
        while most < 60:
            now = await asyncio.to_thread(outsider.processes, container_id)
            most = max(most, now)
            assert now <= 64
    other = program("print('fine')")
    assert (await ended(runtime, other)).exit_code == 0, "its neighbours live"
    end = await stopped(runtime, bomb, 1)
    assert (end.reason, list(end.survivors)) == ("stopped", [])
    assert not outsider.state(container_id)["Running"]


@pytest.mark.parametrize("place", ["/tmp", "/dev/shm"])
async def test_what_it_writes_into_memory_ends_at_the_limit(
    runtime: DockerTasks, program: Programs, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    for name in ("TMP_BYTES", "SHM_BYTES"):
        monkeypatch.setattr(container_profile, name, 16 << 20)
    source = (
        f"file = open('{place}/big', 'wb', buffering=0)\n"
        "while True:\n"
        "    try: file.write(b'x' * (1 << 20))\n"
        "    except OSError: break\n"
        "print(file.tell(), 'full')\n"
    )
    wanted = program(source)
    assert (await ended(runtime, wanted)).exit_code == 0
    assert printed(runtime, wanted.task_id) == f"{16 << 20} full\n"


async def test_a_hundred_orphans_are_nobodys_zombies_and_end_with_the_task(
    runtime: DockerTasks, program: Programs, outsider: Outsider, data_dir: Path
) -> None:
    """B20: half of them end at once, half of them would go on for ever."""
    source = (
        "import os, time\n"
        "for n in range(100):\n"
        "    if os.fork() == 0:\n"
        "        if os.fork() == 0:\n"
        "            os.setsid()\n"
        "            if n % 2: time.sleep(4000)\n"
        "        os._exit(0)\n"
        "    os.wait()\n"
        "def states():\n"
        "    paths = [f'/proc/{p}/stat' for p in os.listdir('/proc') if p.isdigit()]\n"
        "    return [open(path).read().rpartition(') ')[2][0] for path in paths]\n"
        "def settled():\n"
        "    try: return 'Z' not in states() and len(states()) <= 52\n"
        "    except OSError: return False\n"
        "while not settled(): time.sleep(0.01)\n"
        "print(len(states()))\n"
    )
    wanted = program(source)
    end = await ended(runtime, wanted)
    assert (end.reason, end.exit_code) == ("exited", 0), printed(runtime, wanted.task_id)
    assert printed(runtime, wanted.task_id) == "52\n", "itself, the first process and fifty"
    assert not outsider.state(id_of(outsider, data_dir, wanted))["Running"]


# --- how it ended (B17, B19) ------------------------------------------------------------------

CHILD_NEEDS_TOO_MUCH = (
    "import os, sys\n"
    "if os.fork() == 0:\n"
    "    x = []\n"
    "    while True: x.append(bytearray(8 << 20))\n"
    "print(os.waitstatus_to_exitcode(os.wait()[1]))\n"
)


@pytest.mark.parametrize("code", [0, 5])
async def test_a_child_that_is_killed_for_memory_is_a_note_beside_its_parents_end(
    runtime: DockerTasks, program: Programs, code: int
) -> None:
    wanted = program(f"{CHILD_NEEDS_TOO_MUCH}sys.exit({code})", limits=Limits(memory_bytes=96 << 20))
    end = await ended(runtime, wanted)
    if "-9" not in printed(runtime, wanted.task_id):
        pytest.skip("the Engine here enforces no memory limit")
    assert (end.reason, end.exit_code, end.signal) == ("exited", code, None)
    assert end.oom_kills >= 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_signal_of_somebody_else_is_told_as_what_it_is(
    runtime: DockerTasks, program: Programs, outsider: Outsider, data_dir: Path, number: signal.Signals
) -> None:
    wanted = program(SLEEP)
    await up(runtime, wanted)
    outsider.post(f"/containers/{id_of(outsider, data_dir, wanted)}/kill", signal=str(int(number)))
    end = await asyncio.wait_for(runtime.wait(wanted.task_id), timeout=20)
    assert (end.reason, end.signal, end.exit_code, end.oom_kills) == ("signal", number, None, 0)
    assert end.killed is False, "nobody of the platform did that"


async def test_a_program_that_dies_later_is_not_lost_because_the_engine_was_away_once(
    runtime: DockerTasks, program: Programs, open_runtime: OpenRuntime
) -> None:
    source = (
        "import os, time; print('up', flush=True)\nwhile not os.path.exists('go'): time.sleep(0.01)\nos.abort()"
    )
    wanted = program(source)
    await up(runtime, wanted)
    runtime._does_not_answer(ConnectionError("gone"))
    runtime._answers()
    await runtime.engine.ping()
    # It is found to run after that: what happens now has other reasons.
    await asyncio.sleep(0.2)
    (wanted.project_dir / "go").touch()
    end = await asyncio.wait_for(runtime.wait(wanted.task_id), timeout=20)
    assert (end.reason, end.signal) == ("signal", signal.SIGABRT)


async def test_who_ends_at_once_does_not_cut_short_the_grace_of_others(
    runtime: DockerTasks, program: Programs
) -> None:
    """A shell that dies of SIGTERM has a program below it which saves its work."""
    source = (
        "import os, signal, sys, time\n"
        "def save(*_):\n"
        "    time.sleep(1); print('saved', flush=True); os._exit(0)\n"
        "if os.fork() == 0:\n"
        "    signal.signal(15, save); print('up', flush=True); time.sleep(600)\n"
        "time.sleep(600)\n"
    )
    wanted = program(source)
    await up(runtime, wanted)
    end = await stopped(runtime, wanted, 10)
    assert (end.reason, end.signal, end.killed) == ("stopped", signal.SIGTERM, False)
    assert printed(runtime, wanted.task_id) == "up\nsaved\n"


# --- what others do to its container ----------------------------------------------------------


async def test_a_container_that_is_removed_while_it_runs_is_lost_and_that_is_said(
    runtime: DockerTasks, program: Programs, outsider: Outsider, data_dir: Path
) -> None:
    wanted = program(RUN_ONCE + SLEEP)
    await up(runtime, wanted)
    outsider.remove(id_of(outsider, data_dir, wanted))
    end = await asyncio.wait_for(runtime.wait(wanted.task_id), timeout=20)
    assert (end.reason, end.detail) == ("lost", "its container was removed")
    assert printed(runtime, wanted.task_id) == "up\n", "what it printed is still there"
    await runtime.launch(wanted)
    assert times_run(wanted.project_dir) == 1


async def test_a_container_that_is_removed_after_its_end_before_anybody_looked_is_lost(
    open_runtime: OpenRuntime, program: Programs, outsider: Outsider, data_dir: Path
) -> None:
    wanted = program(RUN_ONCE + "print('up', flush=True); import time; time.sleep(0.5)")
    async with open_runtime() as runtime:
        await up(runtime, wanted)
    container_id = id_of(outsider, data_dir, wanted)
    async with asyncio.timeout(20):
        while outsider.state(container_id)["Running"]:
            await asyncio.sleep(0.02)
    outsider.remove(container_id)
    async with open_runtime() as runtime:
        end = await asyncio.wait_for(runtime.wait(wanted.task_id), timeout=20)
        assert end.reason == "lost"
    assert times_run(wanted.project_dir) == 1


async def test_a_container_that_somebody_starts_again_does_not_run_its_program_again(
    runtime: DockerTasks, program: Programs, outsider: Outsider, data_dir: Path
) -> None:
    wanted = program(RUN_ONCE + SLEEP)
    await up(runtime, wanted)
    await asyncio.to_thread(outsider.post, f"/containers/{id_of(outsider, data_dir, wanted)}/restart", t="5")
    end = await asyncio.wait_for(runtime.wait(wanted.task_id), timeout=20)
    assert times_run(wanted.project_dir) == 1
    assert end.exit_code != 0


async def test_a_paused_container_is_a_running_task_that_can_be_stopped(
    runtime: DockerTasks, program: Programs, outsider: Outsider, data_dir: Path
) -> None:
    wanted, goes_on = program(SLEEP), program("import time; print('up', flush=True); time.sleep(1)")
    for each in (wanted, goes_on):
        await up(runtime, each)
        outsider.post(f"/containers/{id_of(outsider, data_dir, each)}/pause")
    for each in (wanted, goes_on):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(runtime.wait(each.task_id), timeout=1)
    assert (await stopped(runtime, wanted, 2)).reason == "stopped"
    outsider.post(f"/containers/{id_of(outsider, data_dir, goes_on)}/unpause")
    assert (await asyncio.wait_for(runtime.wait(goes_on.task_id), timeout=20)).exit_code == 0


async def test_a_paused_container_that_ignores_sigterm_is_killed_in_its_time(
    runtime: DockerTasks, program: Programs, outsider: Outsider, data_dir: Path
) -> None:
    wanted = program(IGNORES_TERM)
    await up(runtime, wanted)
    outsider.post(f"/containers/{id_of(outsider, data_dir, wanted)}/pause")
    end = await stopped(runtime, wanted, 1)
    assert (end.reason, end.killed) == ("stopped", True)


async def test_a_container_with_another_name_is_still_the_tasks(
    open_runtime: OpenRuntime, program: Programs, outsider: Outsider, data_dir: Path
) -> None:
    wanted = program(RUN_ONCE + SLEEP)
    async with open_runtime() as runtime:
        await up(runtime, wanted)
        container_id = id_of(outsider, data_dir, wanted)
        outsider.post(f"/containers/{container_id}/rename", name=f"mine-{wanted.task_id}")
    async with open_runtime() as runtime:
        following = asyncio.ensure_future(runtime.wait(wanted.task_id))
        async with asyncio.timeout(10):
            while not runtime.container_of(wanted.task_id):
                await asyncio.sleep(0.01)
        assert await runtime.stop(container_id[:12], grace_s=5) == container_id[:12]
        assert (await following).reason == "stopped"
    assert times_run(wanted.project_dir) == 1


@pytest.mark.parametrize("running", [True, False], ids=["running", "not started"])
async def test_somebody_elses_container_of_a_tasks_name_is_left_alone(
    runtime: DockerTasks, program: Programs, outsider: Outsider, running: bool
) -> None:
    wanted = program(RUN_ONCE + SLEEP)
    name = container_name(runtime.instance, wanted.task_id)
    theirs = outsider.run("sleep 600", service_name=None, name=name, start=running)
    before = outsider.state(theirs)
    await runtime.launch(wanted)
    end = await stopped(runtime, wanted)
    await runtime.settle(wanted.task_id)
    assert end.reason == "start_failed"
    assert name in end.detail
    assert outsider.exists(theirs)
    after = outsider.state(theirs)
    assert (after["Status"], after["Pid"]) == (before["Status"], before["Pid"])
    assert times_run(wanted.project_dir) == 0


@pytest.mark.parametrize(
    ("image", "words"),
    [("k12ai-test:not-there", "No such image"), (IMAGE, "python3")],
    ids=["no image", "no Python in it"],
)
async def test_a_task_whose_image_does_not_do_fails_to_start_and_says_why(
    runtime: DockerTasks, program: Programs, outsider: Outsider, data_dir: Path, image: str, words: str
) -> None:
    wanted = program(SLEEP, image=image)
    end = await ended(runtime, wanted)
    assert end.reason == "start_failed"
    assert words in end.detail
    await runtime.settle(wanted.task_id)
    assert outsider.of_instance(data_dir) == {}


async def test_a_start_that_cannot_reach_the_engine_waits_and_a_stop_ends_the_waiting(
    data_dir: Path, program: Programs, outsider: Outsider
) -> None:
    """B21: nothing has failed because the Engine was not there."""
    wanted = program(RUN_ONCE + SLEEP)
    async with DockerTasks(f"unix://{data_dir}/no.sock", data_dir) as runtime:
        starting = asyncio.ensure_future(runtime.launch(wanted))
        await asyncio.sleep(1.5)
        assert not starting.done()
        assert (await stopped(runtime, wanted)).reason == "stopped"
        await starting
    assert outsider.of_instance(data_dir) == {}
    assert times_run(wanted.project_dir) == 0


async def test_a_start_that_cannot_reach_the_engine_starts_once_when_it_is_there(
    data_dir: Path, program: Programs, open_runtime: OpenRuntime, tmp_path: Path, docker_host: str
) -> None:
    address = Path("/tmp") / f"k12ai-test-{os.getpid()}-{time.monotonic_ns()}.sock"
    wanted = program(RUN_ONCE + SLEEP)
    try:
        async with DockerTasks(f"unix://{address}", data_dir) as runtime:
            starting = asyncio.ensure_future(runtime.launch(wanted))
            await asyncio.sleep(1)
            address.symlink_to(docker_host.removeprefix("unix://"))
            await asyncio.wait_for(starting, timeout=30)
            await up(runtime, wanted)
            assert (await stopped(runtime, wanted, 5)).reason == "stopped"
            await runtime.settle(wanted.task_id)
    finally:
        address.unlink(missing_ok=True)
    assert times_run(wanted.project_dir) == 1


# --- what is left over ------------------------------------------------------------------------


async def test_only_strays_of_this_installation_are_tidied_away_and_only_after_a_minute(
    runtime: DockerTasks,
    program: Programs,
    outsider: Outsider,
    data_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lives = program(SLEEP)
    await up(runtime, lives)
    ours = {LABEL_INSTANCE: runtime.instance, LABEL_TASK_ID: "feedfeedfeed"}
    stray = outsider.run("sleep 600", labels=ours)
    never_started = outsider.run("sleep 600", labels=ours, start=False)
    not_ours = [
        outsider.run("sleep 600", labels=ours | {LABEL_INSTANCE: "ffffffffffff"}),
        outsider.run("sleep 600", labels=ours | {LABEL_INSTANCE: runtime.instance + "0"}),
        outsider.run("sleep 600", labels={LABEL_TASK_ID: "feedfeedfeed"}),
        outsider.run("sleep 600", service_name=None),
    ]

    async def is_alive(task_id: str) -> bool:
        return task_id == lives.task_id

    await runtime.tidy(is_alive)
    assert outsider.exists(stray), "it may be about to get on record"
    monkeypatch.setattr(docker_tasks, "STRAY_GRACE_S", -5.0)
    await runtime.tidy(is_alive)
    assert not outsider.exists(stray)
    assert not outsider.exists(never_started)
    assert all(outsider.state(each)["Running"] for each in not_ours)
    assert outsider.state(id_of(outsider, data_dir, lives))["Running"]
    assert (await stopped(runtime, lives, 5)).reason == "stopped"


async def test_nothing_is_left_of_a_task_in_the_engine_once_its_end_is_on_record(
    runtime: DockerTasks, program: Programs, outsider: Outsider, data_dir: Path
) -> None:
    wanted = program("print('hello')")
    await ended(runtime, wanted)
    assert outsider.of_instance(data_dir).keys() == {wanted.task_id}, "its exit code stays until then"
    for _ in range(2):
        await runtime.settle(wanted.task_id)
    assert outsider.of_instance(data_dir) == {}
    assert printed(runtime, wanted.task_id) == "hello\n"


# --- fifty at once ----------------------------------------------------------------------------


async def test_fifty_stops_at_once_are_one(
    runtime: DockerTasks, program: Programs, outsider: Outsider, data_dir: Path
) -> None:
    """B15."""
    wanted = program(HEEDS_TERM)
    await up(runtime, wanted)
    container_id = id_of(outsider, data_dir, wanted)
    names = [container_id, container_id[:12], container_id[:6], wanted.task_id]
    began = time.time()
    stops = [runtime.stop(names[number % len(names)], grace_s=10) for number in range(50)]
    assert set(await asyncio.gather(*stops)) == {container_id[:12]}
    end = await runtime.wait(wanted.task_id)
    assert (end.reason, end.exit_code) == ("stopped", 7)
    assert len(outsider.kill_events(container_id, began)) <= 2
    await runtime.settle(wanted.task_id)
    assert set(await asyncio.gather(*(runtime.stop(each, grace_s=1) for each in names))) == {container_id[:12]}


# --- through the server (B14, B18) ------------------------------------------------------------


def submit(client: Client, code: str, project: str, user: str = "alice", **fields: Any) -> str:
    task_id: str = client.submit("k12py", "runcode.start", project, {"code": code}, user=user, **fields).task_id
    return task_id


def in_state(client: Client, task_id: str, *states: str) -> Task | None:
    found = client.task(task_id)
    return found if found.state in states else None


def test_a_task_can_be_stopped_by_names_of_its_own_only(
    serve: Callable[..., Server], outsider: Outsider, data_dir: Path, eventually: Eventually
) -> None:
    server = serve("--max-tasks", "4")
    with Client(server.url) as client:
        ids = [submit(client, SLEEP, f"p{number}") for number in range(3)]
        for each in ids:
            eventually(lambda each=each: in_state(client, each, "running"), within_s=30)
        rows = outsider.of_instance(data_dir)
        full_id: str = rows[ids[0]]["Id"]
        began = {each: outsider.state(rows[each]["Id"])["StartedAt"] for each in ids}

        for wanted in (
            "",
            "*",
            "alice",
            "p0",
            full_id[:5],
            rows[ids[0]]["Names"][0].strip("/"),
            ids[0][:6],
            "f" * 12,
        ):
            answer = server.stop(wanted, timeout=1)
            assert (answer.status_code, strict(answer)["code"]) in ((404, 100202), (400, 100203)), wanted
        for wanted in (full_id, ids[0]):
            assert server.stop(wanted, timeout=1, service_name="k12ml").status_code == 404
        assert {each: outsider.state(rows[each]["Id"])["StartedAt"] for each in ids} == began
        assert all(outsider.state(rows[each]["Id"])["Running"] for each in ids)

        for task_id, digits in ((ids[0], 12), (ids[1], 6)):
            wanted = rows[task_id]["Id"][:digits]
            answer = server.stop(wanted, timeout=5, service_name="k12py")
            shown = rows[task_id]["Id"][:12]
            assert strict(answer)["message"] == f"container id {shown} stop success"
            assert client.task(task_id).state == "stopped", "whoever hears that it has stopped sees it"
        assert server.stop(ids[2], timeout=5).status_code == 200
        assert in_state(client, ids[2], "stopped")


def test_a_stop_ends_a_task_in_every_state(
    serve: Callable[..., Server], outsider: Outsider, data_dir: Path, eventually: Eventually
) -> None:
    server = serve("--max-tasks", "1")
    with Client(server.url) as client, ThreadPoolExecutor() as pool:
        starting = submit(client, RUN_ONCE + SLEEP, "starting")
        queued = submit(client, RUN_ONCE + SLEEP, "queued")
        assert server.stop(queued, timeout=1).status_code == 404, "it has no container yet"
        assert client.stop_task(queued).state == "stopped"
        assert queued not in outsider.of_instance(data_dir)
        assert client.stop_task(starting, grace_s=5).state == "stopped"

        stubborn = submit(client, IGNORES_TERM, "stopping")
        eventually(lambda: in_state(client, stubborn, "running"), within_s=30)
        assert next(client.logs(stubborn, follow=True)).startswith("up")
        patient = pool.submit(lambda: client.stop_task(stubborn, grace_s=300))
        eventually(lambda: in_state(client, stubborn, "stopping"))
        hurried = client.stop_task(stubborn, grace_s=1)
        assert (hurried.state, hurried.killed) == ("stopped", True)
        assert patient.result(timeout=20).state == "stopped"
        assert client.stop_task(stubborn).state == "stopped", "and after its end"
        eventually(lambda: outsider.of_instance(data_dir) == {})
    assert not (data_dir / "projects" / "alice" / "queued" / "ran").exists()


def test_the_queue_lets_in_as_many_as_may_and_each_in_its_turn(
    serve: Callable[..., Server], outsider: Outsider, data_dir: Path
) -> None:
    """B18: ten tasks of each of two users, of whom each may run one at a time."""
    server = serve("--max-tasks", "2", "--max-tasks-per-user", "1")
    positions: dict[str, list[int]] = {}
    with Client(server.url) as client:
        ids = {
            user: [submit(client, "pass", f"p{number}", user) for number in range(10)]
            for user in ("alice", "bob")
        }
        deadline = time.monotonic() + 90
        while active := client.tasks(active=True):
            assert time.monotonic() < deadline
            busy = [task.user for task in active if task.state != "queued"]
            assert len(busy) <= 2
            assert len(set(busy)) == len(busy), "one of a user at a time"
            assert sum(row["State"] == "running" for row in outsider.of_instance(data_dir).values()) <= 2
            for task in active:
                if task.position is not None:
                    positions.setdefault(task.task_id, []).append(task.position)
        for mine in ids.values():
            done = [client.task(each) for each in mine]
            assert [each.state for each in done] == ["succeeded"] * 10
            begins = [each.started_at.timestamp() for each in done if each.started_at]
            assert len(begins) == 10
            assert begins == sorted(begins), "first come, first served"
        first_of_bob, second_of_alice = client.task(ids["bob"][0]), client.task(ids["alice"][1])
        assert first_of_bob.started_at
        assert second_of_alice.ended_at
        assert first_of_bob.started_at < second_of_alice.ended_at, "a user's quota keeps up nobody else"
    assert positions
    for seen in positions.values():
        assert seen == sorted(seen, reverse=True), "nobody falls back"
    assert positions[ids["bob"][-1]][0] > 10

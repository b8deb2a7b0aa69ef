"""Every runtime that starts tasks passes the same suite; a new one is a line in `RUNTIMES`."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from k12ai.errors import ContainerNotFound
from k12ai.runtimes.base import TaskRuntime, Unit
from k12ai.runtimes.cgroups import Cgroups
from k12ai.runtimes.docker_tasks import DockerTasks
from k12ai.runtimes.process import ProcessRuntime
from k12ai.task import Limits
from tests.support.engine import DOCKER_HOST
from tests.support.programs import HEEDS_TERM, IGNORES_TERM, SLEEP, Programs, printed, said_up, up

OpenRuntime = Callable[[], AbstractAsyncContextManager[TaskRuntime]]

RUNTIMES: dict[str, Callable[[Path], AbstractAsyncContextManager[TaskRuntime]]] = {
    "docker": lambda data_dir: DockerTasks(DOCKER_HOST, data_dir),
    "process": ProcessRuntime,
    "process, bare": lambda data_dir: ProcessRuntime(
        data_dir, cgroups=Cgroups(Path("/nowhere")), sandbox=False
    ),
}


@pytest.fixture(name="open_runtime", params=sorted(RUNTIMES))
async def _open_runtime(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[OpenRuntime]:
    """Open the runtime; opening it again finds the same tasks."""
    if request.param == "docker":
        request.getfixturevalue("task_images")
    data_dir = tmp_path / "data"
    yield lambda: RUNTIMES[request.param](data_dir)
    if (data_dir / "tasks").exists():
        async with RUNTIMES[request.param](data_dir) as runtime:
            await clean_up(runtime, data_dir)


@pytest.fixture(name="runtime")
async def _runtime(open_runtime: OpenRuntime) -> AsyncIterator[TaskRuntime]:
    async with open_runtime() as runtime:
        yield runtime


async def clean_up(runtime: TaskRuntime, data_dir: Path) -> None:
    """End whatever a test has left, and leave no container behind."""
    for path in (data_dir / "tasks").iterdir():
        await runtime.ask_to_stop(path.name, 0)
        await runtime.wait(path.name)
        await runtime.settle(path.name)


def unit_of(runtime: TaskRuntime, task_id: str) -> Unit | None:
    """Return what the stats show of a task."""
    wanted = runtime.container_of(task_id)
    return next((unit for unit in runtime.units.values() if unit.short_id == wanted), None)


@pytest.fixture(name="launch")
def _launch(tmp_path: Path) -> Programs:
    return Programs(tmp_path / "data")


async def test_a_task_runs_in_its_project_and_its_end_is_told(runtime: TaskRuntime, launch: Programs) -> None:
    wanted = launch("import os, sys; print(os.getcwd()); print('oops', file=sys.stderr); sys.exit(3)")
    await runtime.launch(wanted)
    end = await runtime.wait(wanted.task_id)
    assert (end.reason, end.exit_code, end.signal, end.killed) == ("exited", 3, None, False)
    assert printed(runtime, wanted.task_id) == f"{wanted.project_dir}\noops\n"
    assert unit_of(runtime, wanted.task_id) is None


async def test_a_task_finds_what_it_was_promised_and_nothing_of_the_servers(
    runtime: TaskRuntime, launch: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_SERVER", "canary")
    source = (
        "import os, json; e = os.environ; print(json.load(open(e['K12AI_PARAMS'])));"
        "print(e['K12AI_OP'], e['K12AI_USER'], e['K12AI_UUID'], e['K12AI_TASK_ID']);"
        "open(e['K12AI_JOURNAL'], 'a').write('{}\\n'); open('kept', 'w').write('x'); print(sorted(e))"
    )
    wanted = launch(source, params=b'{"n": 1}')
    await runtime.launch(wanted)
    assert (await runtime.wait(wanted.task_id)).exit_code == 0, printed(runtime, wanted.task_id)
    out = printed(runtime, wanted.task_id)
    assert f"{{'n': 1}}\nruncode.start alice p1 {wanted.task_id}" in out
    assert "SECRET" not in out
    assert runtime.journal_path(wanted.task_id).read_bytes() == b"{}\n"
    assert (wanted.project_dir / "kept").read_text() == "x"


async def test_a_running_task_is_a_unit_with_figures(runtime: TaskRuntime, launch: Programs) -> None:
    wanted = launch("x = bytearray(50 << 20)\nprint('up', flush=True)\nwhile True: pass")
    await runtime.launch(wanted)
    unit = unit_of(runtime, wanted.task_id)
    assert unit is not None
    assert (unit.service_name, unit.op) == ("k12py", "runcode.start")
    assert (unit.user, unit.service_uuid) == ("alice", wanted.service_uuid)
    await said_up(runtime, wanted.task_id)
    before = (await runtime.usage())[unit.container_id]
    await asyncio.sleep(0.3)
    after = (await runtime.usage(fresh=True))[unit.container_id]
    assert after.cpu_ns > before.cpu_ns
    assert after.memory_bytes > 30 << 20
    assert runtime.unit_of(unit.pid) == unit.container_id
    assert runtime.unit_of(os.getpid()) is None


@pytest.mark.parametrize("beginning", [12, 8])
async def test_a_task_is_stopped_by_its_id_or_a_beginning_of_it(
    runtime: TaskRuntime, launch: Programs, beginning: int
) -> None:
    wanted = launch(SLEEP, task_id="abcdef012345")
    await runtime.launch(wanted)
    shown = runtime.container_of(wanted.task_id)
    assert await runtime.stop(shown[:beginning], grace_s=10) == shown
    assert (await runtime.wait(wanted.task_id)).reason == "stopped"
    await runtime.settle(wanted.task_id)
    assert await runtime.stop(shown, grace_s=10) == shown, "stopping again says the same"
    assert await runtime.stop(wanted.task_id, grace_s=10) == shown, "a task is also known by its own id"


@pytest.mark.parametrize("wanted", ["unknow", "", "*", "abc", "ffffffffffff", "../../etc"])
async def test_what_names_no_task_is_not_found(runtime: TaskRuntime, wanted: str) -> None:
    with pytest.raises(ContainerNotFound):
        await runtime.stop(wanted, grace_s=1)


async def test_the_grace_is_kept_and_what_ignores_it_is_killed(runtime: TaskRuntime, launch: Programs) -> None:
    """B17: exit code 7 after TERM stays 7; who ignores TERM is killed, and that is said."""
    heeds, ignores = launch(HEEDS_TERM), launch(IGNORES_TERM)
    for each in (heeds, ignores):
        await up(runtime, each)
        await runtime.ask_to_stop(each.task_id, 1)
    end = await runtime.wait(heeds.task_id)
    assert (end.reason, end.exit_code, end.killed) == ("stopped", 7, False)
    end = await runtime.wait(ignores.task_id)
    assert (end.reason, end.killed, list(end.survivors)) == ("stopped", True, [])
    assert end.oom_kills == 0


async def test_nothing_escapes_a_stop(runtime: TaskRuntime, launch: Programs) -> None:
    """B20: a session of its own and two forks later it is still the task's."""
    source = (
        "import os, time\n"
        "for _ in range(3):\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        if os.fork() == 0:\n"
        "            os.execvp('sleep', ['sleep', '4242.4242'])\n"
        "        os._exit(0)\n"
        "print('up', flush=True); time.sleep(600)"
    )
    wanted = launch(source)
    await up(runtime, wanted)
    await runtime.ask_to_stop(wanted.task_id, 1)
    assert list((await runtime.wait(wanted.task_id)).survivors) == []
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not [each for each in commands if b"4242.4242" in each]


@pytest.mark.parametrize("delay_ms", [0, 1, 5, 20, 50, 100])
async def test_a_stop_while_it_starts_is_a_stop(runtime: TaskRuntime, launch: Programs, delay_ms: int) -> None:
    """B16."""
    wanted = launch(SLEEP)
    starting = asyncio.ensure_future(runtime.launch(wanted))
    while not runtime.has(wanted.task_id):
        await asyncio.sleep(0.001)
    await asyncio.sleep(delay_ms / 1000)
    await runtime.ask_to_stop(wanted.task_id, 5)
    end = await runtime.wait(wanted.task_id)
    await starting
    assert end.reason == "stopped"
    assert unit_of(runtime, wanted.task_id) is None


async def test_its_time_is_over_when_it_is_over(runtime: TaskRuntime, launch: Programs) -> None:
    wanted = launch(SLEEP, limits=Limits(wall_time_s=1))
    await runtime.launch(wanted)
    assert (await runtime.wait(wanted.task_id)).reason == "timeout"


async def test_a_second_launch_starts_nothing(runtime: TaskRuntime, launch: Programs) -> None:
    wanted = launch("print('up', flush=True)")
    await asyncio.gather(*(runtime.launch(wanted) for _ in range(3)))
    await runtime.wait(wanted.task_id)
    await runtime.launch(wanted)
    assert printed(runtime, wanted.task_id) == "up\n"


async def test_a_task_outlives_its_server_and_is_found_again(
    open_runtime: OpenRuntime, launch: Programs
) -> None:
    goes_on, ends = launch(SLEEP), launch("import time; time.sleep(0.5); raise SystemExit(5)")
    async with open_runtime() as runtime:
        await runtime.launch(goes_on)
        await runtime.launch(ends)
        await said_up(runtime, goes_on.task_id)
        before = unit_of(runtime, goes_on.task_id)
    await asyncio.sleep(1)
    async with open_runtime() as runtime:
        assert runtime.has(goes_on.task_id)
        async with asyncio.timeout(10):
            follower = asyncio.ensure_future(runtime.wait(goes_on.task_id))
            while (now := unit_of(runtime, goes_on.task_id)) is None:
                await asyncio.sleep(0.01)
        assert before is not None
        assert now.pid == before.pid
        assert (await runtime.wait(ends.task_id)).exit_code == 5, "what ended meanwhile is collected"
        await runtime.ask_to_stop(goes_on.task_id, 5)
        assert (await follower).reason == "stopped"


async def test_a_task_that_the_runtime_knows_nothing_of_is_lost(runtime: TaskRuntime) -> None:
    assert not runtime.has("0123456789ab")
    assert (await runtime.wait("0123456789ab")).reason == "lost"


async def test_what_is_left_of_a_task_can_be_removed(runtime: TaskRuntime, launch: Programs) -> None:
    wanted = launch("print('up')")
    await runtime.launch(wanted)
    await runtime.wait(wanted.task_id)
    await runtime.remove(wanted.task_id)
    assert not runtime.has(wanted.task_id)
    assert printed(runtime, wanted.task_id) == ""


async def test_memory_above_the_limit_ends_it_and_says_so(runtime: TaskRuntime, launch: Programs) -> None:
    """B19, as far as this machine can limit memory: the kernel's kill, or Python's own MemoryError."""
    wanted = launch("x = []\nwhile True: x.append(bytearray(10 << 20))", limits=Limits(memory_bytes=200 << 20))
    await runtime.launch(wanted)
    end = await runtime.wait(wanted.task_id)
    assert (end.oom_kills > 0 and end.signal == 9) or (
        end.exit_code == 1 and "MemoryError" in printed(runtime, wanted.task_id)
    )


async def test_processors_are_capped_where_the_kernel_does_it(runtime: TaskRuntime, launch: Programs) -> None:
    """Two seconds of work on half a processor take more than the two seconds that they would."""
    if isinstance(runtime, ProcessRuntime) and not runtime.walls.all[-1].in_force:
        pytest.skip("without cgroups, libraries are told and nobody is kept to it")
    source = (
        "import time\nbegan = time.monotonic()\n"
        "while time.monotonic() - began < 2: pass\nprint(time.process_time())"
    )
    wanted = launch(source, limits=Limits(cpus=0.5))
    await runtime.launch(wanted)
    await runtime.wait(wanted.task_id)
    assert float(printed(runtime, wanted.task_id)) < 1.6

"""The Docker runtime against a real Engine, on containers that the tests start themselves."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from k12ai.errors import ContainerNotFound, EngineUnavailable
from k12ai.runtimes.base import Among
from k12ai.runtimes.cgroups import Cgroups
from k12ai.runtimes.docker import DockerRuntime
from k12ai.runtimes.engine import Engine
from tests.support.engine import IGNORES_TERM, EngineClient

pytestmark = pytest.mark.docker

ENDS_WITH_0 = "trap 'exit 0' TERM; while :; do sleep 0.1; done"


@pytest.fixture(name="runtime")
async def _runtime(docker_host: str) -> AsyncIterator[DockerRuntime]:
    async with DockerRuntime(docker_host) as runtime:
        yield runtime


async def until(question: Callable[[], object], within_s: float = 10) -> None:
    async with asyncio.timeout(within_s):
        while not question():
            await asyncio.sleep(0.02)


async def test_it_knows_the_labelled_containers_that_ran_before_it(
    docker_host: str, engine: EngineClient
) -> None:
    labelled = engine.run(user="u@x.y", service_uuid="p-1", op="predict.start", service_name="k12nlp")
    unlabelled = engine.run(service_name=None)
    async with DockerRuntime(docker_host) as runtime:
        unit = runtime.units[labelled]
        assert unlabelled not in runtime.units
    assert (unit.user, unit.service_uuid, unit.op, unit.service_name) == (
        "u@x.y",
        "p-1",
        "predict.start",
        "k12nlp",
    )
    assert unit.status == "running"
    assert unit.short_id == labelled[:12]


async def test_it_learns_of_containers_that_come_and_go(runtime: DockerRuntime, engine: EngineClient) -> None:
    started = await asyncio.to_thread(engine.run)
    await until(lambda: started in runtime.units)
    await asyncio.to_thread(engine.remove, started)
    await until(lambda: started not in runtime.units)


async def test_a_paused_container_is_shown_as_paused(runtime: DockerRuntime, engine: EngineClient) -> None:
    started = await asyncio.to_thread(engine.run)
    await asyncio.to_thread(engine.post, f"/containers/{started}/pause")
    await until(lambda: started in runtime.units and runtime.units[started].status == "paused")
    await asyncio.to_thread(engine.post, f"/containers/{started}/unpause")
    await until(lambda: runtime.units[started].status == "running")


async def test_a_label_alone_is_enough_and_others_are_empty(
    runtime: DockerRuntime, engine: EngineClient
) -> None:
    started = await asyncio.to_thread(engine.run, labels={"k12ai.service.name": "k12cv"})
    await until(lambda: started in runtime.units)
    unit = runtime.units[started]
    assert (unit.op, unit.user, unit.service_uuid) == ("", "", "")


async def test_what_the_events_did_not_say_the_list_does(docker_host: str, engine: EngineClient) -> None:
    async with DockerRuntime(docker_host, relist_s=0.2, heartbeat_s=0.1) as runtime:
        started = await asyncio.to_thread(engine.run)
        await until(lambda: started in runtime.units)
        runtime._forget(started)  # as if its event had never come
        await until(lambda: started in runtime.units)


async def test_usage_is_read_from_the_kernel(runtime: DockerRuntime, engine: EngineClient) -> None:
    busy = await asyncio.to_thread(engine.run, "while :; do :; done", memory=64 << 20)
    await until(lambda: busy in runtime.units)
    first = (await runtime.usage())[busy]
    # Just after its start, a container's files may not be there yet; then the Engine is asked instead.
    asked = runtime.engine.calls["stats"]
    await asyncio.sleep(0.5)
    second = (await runtime.usage())[busy]
    share = (second.cpu_ns - first.cpu_ns) / (second.at_ns - first.at_ns)
    assert 0.2 < share < 1.1
    assert second.memory_limit_bytes == 64 << 20
    assert 0 < second.memory_bytes < 16 << 20
    assert runtime.engine.calls["stats"] == asked


async def test_where_the_files_are_out_of_reach_the_engine_measures(
    docker_host: str, engine: EngineClient, tmp_path: Path
) -> None:
    """As with a remote Engine, whose pids mean nothing here."""
    busy = engine.run("while :; do :; done", memory=64 << 20)
    async with DockerRuntime(docker_host, cgroups=Cgroups(tmp_path)) as runtime:
        await runtime.usage()
        usage = (await runtime.usage(fresh=True))[busy]
    assert usage.since is not None
    share = (usage.cpu_ns - usage.since[1]) / (usage.at_ns - usage.since[0])
    assert 0.2 < share < 1.1
    assert usage.memory_limit_bytes == 64 << 20


@pytest.mark.parametrize(
    ("script", "grace_s", "exit_code", "at_least_s"),
    [
        pytest.param("trap 'exit 7' TERM; while :; do sleep 0.1; done", 10, 7, 0.0, id="traps TERM"),
        pytest.param(ENDS_WITH_0, 10, 0, 0.0, id="ends on TERM"),
        pytest.param(IGNORES_TERM, 1, 137, 1.0, id="ignores TERM and is killed after its grace"),
    ],
)
async def test_stop_gives_a_grace(
    runtime: DockerRuntime, engine: EngineClient, script: str, grace_s: int, exit_code: int, at_least_s: float
) -> None:
    started = await asyncio.to_thread(engine.run, script)
    await asyncio.sleep(0.3)  # the trap is set
    began = time.monotonic()
    assert await runtime.stop(started, grace_s=grace_s) == started[:12]
    took = time.monotonic() - began
    state = engine.state(started)
    assert (state["Running"], state["ExitCode"]) == (False, exit_code)
    assert took >= at_least_s
    assert started not in runtime.units


@pytest.mark.parametrize("length", [64, 12, 6])
async def test_an_id_may_be_shortened_to_6_digits(
    runtime: DockerRuntime, engine: EngineClient, length: int
) -> None:
    started = await asyncio.to_thread(engine.run)
    assert await runtime.stop(started[:length], grace_s=1) == started[:12]
    assert not engine.state(started)["Running"]


async def test_what_names_no_labelled_container_is_not_found_and_nothing_is_touched(
    runtime: DockerRuntime, engine: EngineClient
) -> None:
    labelled = engine.run(name=f"k12ai-test-{time.time_ns()}")
    unlabelled = engine.run(service_name=None)
    name = engine.inspect(labelled)["Name"].lstrip("/")
    before = [engine.state(each)["StartedAt"] for each in (labelled, unlabelled)]
    for wrong in (
        "unknow",
        "",
        "*",
        name,
        labelled[:5],
        labelled.upper(),
        unlabelled,
        unlabelled[:12],
        "0" * 64,
    ):
        if wrong == labelled:
            continue  # an id without letters is its own upper case
        with pytest.raises(ContainerNotFound, match=f"container id {wrong.replace('*', '.')} is not found"):
            await runtime.stop(wrong, grace_s=1)
    assert [engine.state(each)["StartedAt"] for each in (labelled, unlabelled)] == before
    assert engine.state(labelled)["Running"]
    assert engine.state(unlabelled)["Running"]


async def test_a_name_that_looks_like_an_id_is_not_an_id(runtime: DockerRuntime, engine: EngineClient) -> None:
    labelled = engine.run(name="deadbeefcafe")
    with pytest.raises(ContainerNotFound):
        await runtime.stop("deadbeefcafe", grace_s=1)
    assert engine.state(labelled)["Running"]


async def test_another_services_container_does_not_exist_for_this_one(
    runtime: DockerRuntime, engine: EngineClient
) -> None:
    started = engine.run(service_name="k12cv")
    with pytest.raises(ContainerNotFound):
        await runtime.stop(started, grace_s=1, among=Among("k12nlp"))
    assert engine.state(started)["Running"]
    await runtime.stop(started, grace_s=1, among=Among("k12cv"))


async def test_50_stops_at_once_are_one_stop_and_10_later_say_the_same(
    runtime: DockerRuntime, engine: EngineClient
) -> None:
    began = time.time()
    started = engine.run(IGNORES_TERM)
    answers = await asyncio.gather(*(runtime.stop(started, grace_s=1) for _ in range(50)))
    answers += [await runtime.stop(started, grace_s=1) for _ in range(10)]
    assert set(answers) == {started[:12]}
    assert len(engine.kill_events(started, since=began)) <= 2


async def test_a_stop_with_a_shorter_grace_does_not_wait_for_a_longer_one(
    runtime: DockerRuntime, engine: EngineClient
) -> None:
    """A teacher's "now" beats the ten minutes that a student gave."""
    started = engine.run(IGNORES_TERM)
    patient = asyncio.create_task(runtime.stop(started, grace_s=600))
    await asyncio.sleep(0.5)
    async with asyncio.timeout(20):
        await runtime.stop(started, grace_s=1)
        await patient
    assert engine.state(started)["ExitCode"] == 137


async def test_a_container_that_is_started_again_and_again_is_really_stopped(
    runtime: DockerRuntime, engine: EngineClient
) -> None:
    """Between two starts it has no process, and is not stopped."""
    started = await asyncio.to_thread(engine.run, "sleep 0.1; exit 1", restart=True)
    await until(lambda: engine.inspect(started)["RestartCount"] >= 2)
    await runtime.stop(started, grace_s=1)
    count = engine.inspect(started)["RestartCount"]
    await asyncio.sleep(1)
    assert not engine.state(started)["Running"]
    assert engine.inspect(started)["RestartCount"] == count


async def test_a_container_that_never_ran_cannot_be_stopped(
    runtime: DockerRuntime, engine: EngineClient
) -> None:
    """The Engine would say yes, and a later start would still run it."""
    created = await asyncio.to_thread(engine.run, start=False)
    with pytest.raises(ContainerNotFound):
        await runtime.stop(created, grace_s=1)


async def test_labels_without_end_are_cut(runtime: DockerRuntime, engine: EngineClient) -> None:
    labels = {"k12ai.service.name": "k12cv", "k12ai.service.user": "u" * 600_000}
    started = await asyncio.to_thread(engine.run, labels=labels)
    await until(lambda: started in runtime.units, within_s=20)
    assert runtime.units[started].user == "u" * 256


async def test_what_is_no_engine_is_unavailable(tmp_path: Path) -> None:
    """Whatever answers at the socket, the error is one of ours."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n[]")
        await writer.drain()
        writer.close()

    path = tmp_path / "odd.sock"
    async with await asyncio.start_unix_server(answer, path), DockerRuntime(f"unix://{path}") as runtime:
        assert not runtime.condition.available
        assert runtime.condition.reason is not None
        with pytest.raises(EngineUnavailable):
            await runtime.stop("f3726eae19d6", grace_s=1)


async def test_an_engine_that_answers_only_on_the_connections_that_there_are_is_about_to_end(
    tmp_path: Path,
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nOK")
        writer.close()

    path = tmp_path / "engine.sock"
    door = await asyncio.start_unix_server(answer, path)
    engine = Engine(f"unix://{path}")
    await engine.ping()
    assert not await engine.is_ending()
    door.close()
    path.unlink(missing_ok=True)
    assert await engine.is_ending()
    await engine.ping()
    await engine.close()


async def test_giving_up_on_a_stop_does_not_end_it(runtime: DockerRuntime, engine: EngineClient) -> None:
    started = engine.run(IGNORES_TERM)
    waiting = asyncio.create_task(runtime.stop(started, grace_s=1))
    await asyncio.sleep(0.4)
    waiting.cancel()
    await until(lambda: not engine.state(started)["Running"])


async def test_without_an_engine_nothing_is_known_and_a_stop_says_so(tmp_path: Path) -> None:
    async with DockerRuntime(f"unix://{tmp_path}/none.sock") as runtime:
        condition = runtime.condition
        assert (condition.available, condition.listed) == (False, False)
        assert condition.reason is not None
        assert "nothing listens at" in condition.reason.en
        assert await runtime.usage() == {}
        with pytest.raises(ContainerNotFound):
            await runtime.stop("unknow", grace_s=1)
        with pytest.raises(EngineUnavailable):
            await runtime.stop("f3726eae19d6", grace_s=1)

"""A queue that tells where one stands: on a machine whose GPUs are a stand-in's and whose size is pretended."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from k12ai.client import Client, RequestRefused, TaskHandle
from k12ai.task import Limits, Task
from tests.support.nvml import GIB, Scenario, StandinNvml
from tests.support.programs import SLEEP
from tests.support.server import Server

Eventually = Callable[..., Any]
GPUS = Scenario().gpu().gpu()


@pytest.fixture(name="client")
def _client(start_server: Callable[..., Server]) -> Iterator[Callable[..., Client]]:
    """Start a server with these options and return its client; what still runs is stopped."""
    clients: list[Client] = []

    def start(*options: str, environ: dict[str, str] | None = None) -> Client:
        server = start_server("--sample-interval-s", "0.1", *options, environ=environ or {})
        clients.append(Client(server.url))
        return clients[-1]

    yield start
    for client in clients:
        for task in client.tasks(active=True):
            client.stop_task(task.task_id, grace_s=0)
        client.close()


def submit(client: Client, project: str, code: str = SLEEP, *, user: str = "u", **limits: Any) -> TaskHandle:
    return client.submit("k12py", "runcode.start", project, {"code": code}, user=user, limits=Limits(**limits))


def until(eventually: Eventually, handle: TaskHandle, is_so: Callable[[Task], bool]) -> Task:
    """Return the task once it is so."""
    task: Task = eventually(lambda: task if is_so(task := handle.task) else None, within_s=20)
    return task


def test_who_waits_sees_why_where_they_stand_and_how_long(
    client: Callable[..., Client], eventually: Eventually
) -> None:
    one = client("--max-tasks", "1")
    submit(one, "history", "import time; time.sleep(0.5)").wait(progress=False)
    runs = submit(one, "runs")
    waiting = [submit(one, f"w{number}") for number in range(3)]
    tasks = [handle.task for handle in waiting]
    assert [(task.state, task.reason, task.position) for task in tasks] == [
        ("queued", "waiting_cpu", 1),
        ("queued", "waiting_cpu", 2),
        ("queued", "waiting_cpu", 3),
    ]
    expected = [task.expected_wait_s for task in tasks]
    assert all(wait_s is not None for wait_s in expected)
    assert expected == sorted(expected, key=lambda wait_s: wait_s or 0)
    waiting[0].stop(grace_s=0)
    assert until(eventually, waiting[1], lambda task: task.position == 1).reason == "waiting_cpu"
    runs.stop(grace_s=0)
    until(eventually, waiting[1], lambda task: task.state == "running")
    assert waiting[1].task.position is None


def test_the_list_of_tasks_has_the_positions_too(client: Callable[..., Client]) -> None:
    one = client("--max-tasks", "1")
    for number in range(3):
        submit(one, f"p{number}")
    assert [task.position for task in one.tasks(active=True)] == [2, 1, None]


@pytest.mark.compiler
def test_gpus_are_assigned_by_index_shown_and_waited_for(
    client: Callable[..., Client], nvml: StandinNvml, eventually: Eventually
) -> None:
    nvml.show(GPUS)
    one = client("--max-tasks", "8", environ=nvml.environ)
    code = "import os, time; print('devices', os.environ['CUDA_VISIBLE_DEVICES'], flush=True); time.sleep(600)"
    first, second, third = (submit(one, f"p{number}", code, gpus=1) for number in range(3))
    none = submit(one, "none", code)
    for handle, gpus in ((first, [0]), (second, [1]), (none, [])):
        assert until(eventually, handle, lambda task: task.state == "running").gpus == gpus
        printed = eventually(lambda handle=handle: "".join(handle.logs()))
        assert printed == f"devices {','.join(map(str, gpus))}\n"
    waits = until(eventually, third, lambda task: task.reason == "waiting_gpu")
    assert (waits.state, waits.position) == ("queued", 1)
    second.stop(grace_s=0)
    assert until(eventually, third, lambda task: task.state == "running").gpus == [1]
    shown = {each.service_uuid: each.gpus for each in one.stats().containers or []}
    assert (shown["p0"], shown["none"]) == (["0"], [])


@pytest.mark.compiler
def test_a_gpu_that_somebody_else_uses_is_not_free(
    client: Callable[..., Client], nvml: StandinNvml, eventually: Eventually
) -> None:
    nvml.show(Scenario().gpu(used=20 * GIB))
    one = client("--max-tasks", "8", environ=nvml.environ)
    whole, share = submit(one, "whole", gpus=1), submit(one, "share", gpu_memory_bytes=2 * GIB)
    assert [handle.task.reason for handle in (whole, share)] == ["waiting_gpu", "waiting_gpu"]
    nvml.show(Scenario().gpu(used=0))
    assert until(eventually, whole, lambda task: task.state == "running").gpus == [0]
    whole.stop(grace_s=0)
    assert until(eventually, share, lambda task: task.state == "running").gpus == [0]


@pytest.mark.compiler
def test_memory_of_a_gpu_that_is_not_given_back_makes_a_stop_incomplete(
    client: Callable[..., Client], nvml: StandinNvml, eventually: Eventually
) -> None:
    """The driver of the stand-in goes on naming the process, as one that hangs in the kernel would."""
    nvml.show(GPUS)
    one = client("--max-tasks", "8", environ=nvml.environ)
    handle = submit(one, "p", "import os, time; print(os.getpid(), flush=True); time.sleep(600)", gpus=1)
    until(eventually, handle, lambda task: task.state == "running")
    (shown,) = eventually(lambda: [each for each in one.stats().containers or [] if each.service_uuid == "p"])
    pid = eventually(lambda: pid_of(shown.id))
    nvml.show(GPUS.process(pid, 3 * GIB))
    eventually(lambda: [each for each in one.stats().gpus or [] if each.ledger.containers])
    stopped = handle.stop(grace_s=0)
    assert (stopped.state, stopped.reason) == ("stopped", "stop_incomplete")
    assert stopped.gpu_memory_left_bytes == 3 * GIB


def pid_of(task_id: str) -> int | None:
    """Return a process of a task on this machine; None where it has none yet."""
    wanted = f"K12AI_TASK_ID={task_id}".encode()
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if wanted in environ.read_bytes():
                return int(environ.parent.name)
        except OSError:
            continue
    return None


def test_memory_is_reserved_for_who_runs(client: Callable[..., Client], eventually: Eventually) -> None:
    one = client("--max-tasks", "8", "--tasks-memory-bytes", str(1 * GIB))
    submit(one, "runs", memory_bytes=800 << 20)
    waits, fits = submit(one, "waits", memory_bytes=600 << 20), submit(one, "fits")
    assert waits.task.reason == "waiting_memory"
    assert until(eventually, fits, lambda task: task.state == "running")


def test_a_user_has_no_more_places_than_the_operator_allows(
    client: Callable[..., Client], eventually: Eventually
) -> None:
    one = client("--max-tasks", "8", "--max-tasks-per-user", "1")
    submit(one, "p1", user="greedy")
    waits, other = submit(one, "p2", user="greedy"), submit(one, "p1", user="modest")
    assert waits.task.reason == "quota"
    assert until(eventually, other, lambda task: task.state == "running")


@pytest.mark.parametrize(
    ("limits", "field"),
    [
        ({"gpus": 1}, "limits.gpus"),
        ({"gpu_memory_bytes": GIB}, "limits.gpus"),
        ({"cpus": 4000}, "limits.cpus"),
        ({"memory_bytes": 1 << 60}, "limits.memory_bytes"),
    ],
)
def test_what_the_machine_can_never_give_is_refused_with_what_it_has(
    client: Callable[..., Client], limits: dict[str, Any], field: str
) -> None:
    one = client()
    with pytest.raises(RequestRefused, match=field):
        submit(one, "p", **limits)
    assert one.tasks() == []

"""GPUs from the driver's library to the answer: a server on a stand-in for the driver, with real containers."""

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from k12ai.client import Client
from tests.support.engine import EngineClient
from tests.support.nvml import GIB, GPU_IS_LOST, NO_PERMISSION, Scenario, StandinNvml
from tests.support.server import Server, strict

pytestmark = pytest.mark.compiler

Eventually = Callable[..., Any]
ONE = Scenario().gpu(used=6 * GIB, util=71)


@pytest.fixture(name="machine")
def _machine(nvml: StandinNvml, start_server: Callable[..., Server]) -> Server:
    """A server on a machine with the stand-in's GPUs, which it reads ten times a second."""
    nvml.show(ONE)
    return start_server("--sample-interval-s", "0.1", environ=nvml.environ)


def message(server: Server, **parts: bool) -> dict[str, Any]:
    found: dict[str, Any] = strict(server.stats(service_params=parts))["message"]
    return found


def adds_up(gpu: dict[str, Any]) -> bool:
    held = sum(each["gpu_memory_usage"] for each in gpu["ledger"]["containers"])
    return bool(held + gpu["ledger"]["unattributed"] == gpu["gpu_memory_usage"])


def test_a_gpu_has_the_published_fields_and_the_added_ones(machine: Server) -> None:
    (gpu,) = message(machine, gpus=True)["gpus"]
    assert list(gpu)[:5] == [
        "name",
        "gpu_percent",
        "gpu_memory_total",
        "gpu_memory_usage",
        "gpu_memory_percent",
    ]
    assert gpu == {
        "name": "Tesla P40",
        "gpu_percent": 71.0,
        "gpu_memory_total": 24 * GIB,
        "gpu_memory_usage": 6 * GIB,
        "gpu_memory_percent": 25.0,
        "index": 0,
        "uuid": "GPU-0",
        "temperature": 61.0,
        "power_watts": 120.5,
        "processes": [],
        "ledger": {"containers": [], "unattributed": 6 * GIB},
        "migs": [],
    }


def test_a_process_of_the_host_is_named_with_its_account(
    machine: Server, nvml: StandinNvml, eventually: Eventually
) -> None:
    nvml.show(ONE.process(os.getpid(), 2 * GIB, util=30))
    (process,) = eventually(lambda: message(machine, gpus=True)["gpus"][0]["processes"])
    assert (process["pid"], process["container"], process["gpu_percent"]) == (os.getpid(), "", 30.0)
    assert process["name"]
    assert process["user"]


def test_an_asynchronous_query_has_the_gpus_too(machine: Server, nvml: StandinNvml) -> None:
    nvml.show(ONE.process(os.getpid(), GIB))
    key = strict(machine.stats(is_async=True, service_params={"gpus": True}))["message"]["key"]
    with Client(machine.url) as client:
        (result,) = client.read(f"{key}/result", wait_s=10)
    (gpu,) = result.value["result"]["message"]["gpus"]
    assert adds_up(gpu)
    assert [each["pid"] for each in gpu["processes"]] == [os.getpid()]


def test_a_gpu_that_falls_off_the_bus_is_a_note_and_the_server_lives(
    machine: Server, nvml: StandinNvml, eventually: Eventually
) -> None:
    nvml.show(ONE.fail("*", GPU_IS_LOST, gpu=0))
    eventually(lambda: message(machine, gpus=True)["gpus"] == [])
    english = message(machine, gpus=True)["notes"]
    assert english == ["gpu 0 (Tesla P40): it fell off the bus; the machine has to be restarted"]
    chinese = strict(
        machine.post(
            "/k12ai/platform/stats",
            {
                "op": "query",
                "user": "u",
                "service_name": "k12platform",
                "service_uuid": "p",
                "service_params": {"gpus": True},
            },
            **{"Accept-Language": "zh"},
        )
    )
    assert chinese["message"]["notes"] == ["gpu 0 (Tesla P40)：GPU 已从总线掉线，需要重启机器"]
    assert "notes" not in message(machine, cpus=True)
    nvml.show(ONE)
    eventually(lambda: len(message(machine, gpus=True)["gpus"]) == 1)


def test_hidden_processes_are_said_to_be_hidden_wherever_their_figures_would_be(
    machine: Server, nvml: StandinNvml, eventually: Eventually
) -> None:
    nvml.show(ONE.fail("nvmlDeviceGetComputeRunningProcesses_v3", NO_PERMISSION, gpu=0))
    words = "gpu 0: who holds its memory is not known: the driver refuses it to this account"
    for part in ("gpus", "users", "containers"):
        eventually(lambda part=part: words in message(machine, **{part: True}).get("notes", []))
    assert words not in message(machine, disks=True).get("notes", [])


def test_prometheus_reads_the_same_ledger(machine: Server, nvml: StandinNvml) -> None:
    lines = machine.http.get("/metrics").text.splitlines()
    (line,) = (each for each in lines if each.startswith("k12ai_gpu_memory_unattributed_bytes{"))
    assert 'uuid="GPU-0"' in line
    assert float(line.split()[-1]) == 6 * GIB


# --- with containers --------------------------------------------------------------------------


class Fleet:
    """Two students' containers with their first processes."""

    def __init__(self, engine: EngineClient, server: Server, eventually: Eventually) -> None:
        self.engine = engine
        self.alice = engine.run(user="alice", service_uuid="digits")
        self.bob = engine.run(user="bob", service_uuid="reviews")
        self.alice_pid, self.bob_pid = (engine.state(each)["Pid"] for each in (self.alice, self.bob))
        eventually(lambda: {self.alice[:12], self.bob[:12]} <= set(server.containers()))


@pytest.fixture(name="fleet")
def _fleet(engine: EngineClient, machine: Server, eventually: Eventually) -> Fleet:
    return Fleet(engine, machine, eventually)


@pytest.mark.docker
def test_a_shared_gpu_is_attributed_to_containers_and_users(
    machine: Server, nvml: StandinNvml, fleet: Fleet, eventually: Eventually
) -> None:
    nvml.show(
        Scenario()
        .gpu(used=6 * GIB)
        .gpu(used=2 * GIB)
        .process(fleet.alice_pid, 3 * GIB, util=50)
        .process(fleet.bob_pid, 1 * GIB, util=20)
        .process(os.getpid(), 1 * GIB)
        .process(fleet.alice_pid, 2 * GIB, gpu=1, util=90)
    )
    first, second = eventually(lambda: (found := message(machine, gpus=True)["gpus"])[1:] and found)
    assert {each["user"]: each["gpu_memory_usage"] for each in first["ledger"]["containers"]} == {
        "alice": 3 * GIB,
        "bob": 1 * GIB,
    }
    assert first["ledger"]["unattributed"] == 2 * GIB
    assert second["ledger"] == {
        "containers": [
            {
                "id": fleet.alice[:12],
                "user": "alice",
                "service_uuid": "digits",
                "gpu_memory_usage": 2 * GIB,
            }
        ],
        "unattributed": 0,
    }
    container = machine.containers()[fleet.alice[:12]]
    assert (container["gpu_memory_usage"], container["gpu_percent"]) == (5 * GIB, 140.0)
    users = {each["user"]: each for each in message(machine, users=True)["users"]}
    assert (users["alice"]["gpu_memory_usage"], users["alice"]["containers"]) == (5 * GIB, 1)
    assert (users["bob"]["gpu_memory_usage"], users["bob"]["gpu_percent"]) == (1 * GIB, 20.0)


@pytest.mark.docker
def test_a_child_process_in_a_container_is_its_containers(
    machine: Server, nvml: StandinNvml, engine: EngineClient, eventually: Eventually
) -> None:
    started = engine.run("sleep 1000 & wait", user="carol")
    parent = engine.state(started)["Pid"]
    children = Path(f"/proc/{parent}/task/{parent}/children")
    child = int(eventually(lambda: children.read_text().split())[0])
    eventually(lambda: started[:12] in machine.containers())
    nvml.show(ONE.process(child, 4 * GIB))
    eventually(lambda: machine.containers()[started[:12]]["gpu_memory_usage"] == 4 * GIB)


@pytest.mark.docker
def test_what_a_dead_container_still_holds_is_unattributed(
    machine: Server, nvml: StandinNvml, fleet: Fleet, eventually: Eventually
) -> None:
    nvml.show(ONE.process(fleet.bob_pid, 4 * GIB))
    eventually(lambda: machine.containers()[fleet.bob[:12]]["gpu_memory_usage"] == 4 * GIB)
    fleet.engine.remove(fleet.bob)
    gpu = eventually(
        lambda: (found := message(machine, gpus=True)["gpus"][0])["ledger"]["containers"] == [] and found
    )
    assert gpu["ledger"]["unattributed"] == 6 * GIB
    assert [(each["pid"], each["container"]) for each in gpu["processes"]] == [(fleet.bob_pid, "")]


@pytest.mark.docker
def test_the_ledger_adds_up_on_every_sample_of_every_scenario(
    machine: Server, nvml: StandinNvml, fleet: Fleet, eventually: Eventually
) -> None:
    """Shared GPU, host process, dead container, MIG: while they change under the server's eyes."""
    dice = random.Random(20)
    pids = [fleet.alice_pid, fleet.bob_pid, os.getpid(), 4194303]  # the last one is nobody
    samples: set[str] = set()
    nvml.show(ONE.gpu())
    eventually(lambda: len(message(machine, gpus=True)["gpus"]) == 2)
    for number in range(30):
        scenario = Scenario().gpu(used=dice.randrange(24 * GIB)).gpu(used=dice.randrange(40 * GIB), mig=True)
        scenario = scenario.mig(1, "MIG-a", used=GIB).mig(1, "MIG-b", used=GIB)
        for pid in pids:
            memory = dice.choice([-1, dice.randrange(8 * GIB)])
            scenario = scenario.process(pid, memory, util=dice.randrange(100))
            scenario = scenario.process(pid, dice.randrange(8 * GIB), gpu=1, mig=dice.randrange(2))
        nvml.show(scenario)
        if number == 15:
            fleet.engine.remove(fleet.bob)
        for _ in range(2):
            found = eventually(lambda: _next_sample(machine, samples), within_s=5)
            assert len(found["gpus"]) == 2
            assert all(adds_up(gpu) and gpu["ledger"]["unattributed"] >= 0 for gpu in found["gpus"])
            in_ledgers = sum(
                each["gpu_memory_usage"] for gpu in found["gpus"] for each in gpu["ledger"]["containers"]
            )
            for part in ("containers", "users"):
                assert sum(each["gpu_memory_usage"] for each in found[part]) == in_ledgers
    assert len(samples) == 60


def _next_sample(server: Server, seen: set[str]) -> dict[str, Any] | None:
    """Return the figures if they are of a sample that was not seen yet."""
    found = message(server, gpus=True, containers=True, users=True)
    if found["sampled_at"] in seen:
        return None
    seen.add(found["sampled_at"])
    return found

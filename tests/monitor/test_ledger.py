"""The honest ledger: what the containers hold and what is unattributed is what the device reports."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k12ai.models import Gpu, GpuHolder, Part
from k12ai.monitor import ledger
from k12ai.monitor.gpu import GpuSample, MigSample, ProcessSample
from k12ai.monitor.processes import Process
from k12ai.runtimes.base import Unit
from tests.support.fakes import gpu_sample, unit

GIB = 1 << 30
ALICE, BOB = unit(1, user="alice", service_uuid="digits"), unit(2, user="bob", service_uuid="reviews")
UNITS = {each.container_id: each for each in (ALICE, BOB)}


def of(owner: Unit | None, name: str = "python") -> Process:
    return Process(name, "root", None if owner is None else owner.container_id)


def holders(gpu: Gpu) -> dict[str, int]:
    return {each.user: each.gpu_memory_usage for each in gpu.ledger.containers}


def adds_up(gpu: Gpu) -> bool:
    return sum(holders(gpu).values()) + gpu.ledger.unattributed == gpu.gpu_memory_usage


def test_a_shared_gpu_is_divided_among_the_containers_on_it() -> None:
    sample = gpu_sample(
        memory_usage=6 * GIB,
        processes=(ProcessSample(11, 3 * GIB), ProcessSample(12, GIB), ProcessSample(13, GIB)),
        shares={11: 60.0, 12: 10.0},
    )
    found = ledger.account(sample, {11: of(ALICE), 12: of(BOB), 13: of(BOB)}, UNITS)
    assert found.gpu.ledger.containers == [
        GpuHolder(ALICE.short_id, "alice", "digits", 3 * GIB),
        GpuHolder(BOB.short_id, "bob", "reviews", 2 * GIB),
    ]
    assert found.gpu.ledger.unattributed == GIB
    assert found.memory == {ALICE.container_id: 3 * GIB, BOB.container_id: 2 * GIB}
    assert found.shares == {ALICE.container_id: 60.0, BOB.container_id: 10.0}
    assert found.notes == ()


def test_a_process_of_the_host_is_unattributed_and_named() -> None:
    sample = gpu_sample(memory_usage=2 * GIB, processes=(ProcessSample(11, GIB), ProcessSample(9, GIB)))
    found = ledger.account(sample, {11: of(ALICE), 9: of(None, "Xorg")}, UNITS)
    assert (holders(found.gpu), found.gpu.ledger.unattributed) == ({"alice": GIB}, GIB)
    assert [(each.pid, each.name, each.user, each.container) for each in found.gpu.processes] == [
        (9, "Xorg", "root", ""),
        (11, "python", "alice", ALICE.short_id),
    ]


def test_what_a_dead_container_left_behind_is_unattributed() -> None:
    """Its process is gone from this machine, and the driver still counts its memory."""
    sample = gpu_sample(memory_usage=GIB, processes=(ProcessSample(404, GIB),))
    gpu = ledger.account(sample, {}, UNITS).gpu
    assert (holders(gpu), gpu.ledger.unattributed) == ({}, GIB)
    assert [(each.pid, each.name, each.container) for each in gpu.processes] == [(404, "", "")]


def test_a_process_of_a_container_that_is_not_shown_any_more_is_unattributed() -> None:
    gone = unit(3)
    sample = gpu_sample(memory_usage=GIB, processes=(ProcessSample(11, GIB),))
    gpu = ledger.account(sample, {11: of(gone)}, UNITS).gpu
    assert (holders(gpu), gpu.ledger.unattributed) == ({}, GIB)


def test_memory_that_no_process_claims_is_unattributed() -> None:
    gpu = ledger.account(gpu_sample(memory_usage=300 << 20), {}, UNITS).gpu
    assert (gpu.processes, gpu.ledger.unattributed) == ([], 300 << 20)


def test_memory_that_is_not_told_is_unattributed_and_said_to_be() -> None:
    sample = gpu_sample(memory_usage=GIB, processes=(ProcessSample(11, None),))
    found = ledger.account(sample, {11: of(ALICE)}, UNITS)
    assert (holders(found.gpu), found.gpu.ledger.unattributed) == ({"alice": 0}, GIB)
    assert [each.gpu_memory_usage for each in found.gpu.processes] == [None]
    (note,) = found.notes
    assert "process 11" in note.text.en
    assert note.part & Part.CONTAINERS


def test_claims_above_what_is_used_are_cut_down_in_proportion_and_said_to_be() -> None:
    sample = gpu_sample(
        memory_usage=3 * GIB, processes=(ProcessSample(11, 4 * GIB), ProcessSample(12, 2 * GIB))
    )
    found = ledger.account(sample, {11: of(ALICE), 12: of(BOB)}, UNITS)
    assert (holders(found.gpu), found.gpu.ledger.unattributed) == ({"alice": 2 * GIB, "bob": GIB}, 0)
    assert [each.gpu_memory_usage for each in found.gpu.processes] == [4 * GIB, 2 * GIB], "as the driver says"
    assert ["claim more memory" in note.text.en for note in found.notes] == [True]


def test_a_process_on_two_parts_of_a_divided_gpu_is_counted_in_each_and_its_time_once() -> None:
    sample = gpu_sample(
        memory_usage=5 * GIB,
        processes=(ProcessSample(11, GIB, "MIG-a"), ProcessSample(11, 2 * GIB, "MIG-b")),
        shares={11: 30.0},
        migs=(MigSample("MIG-a", "part", 5 * GIB, GIB), MigSample("MIG-b", "part", 5 * GIB, 2 * GIB)),
    )
    found = ledger.account(sample, {11: of(ALICE)}, UNITS)
    assert (holders(found.gpu), found.gpu.ledger.unattributed) == ({"alice": 3 * GIB}, 2 * GIB)
    assert found.shares == {ALICE.container_id: 30.0}
    assert [each.gpu_memory_percent for each in found.gpu.migs] == [20.0, 40.0]


def test_where_the_driver_hides_the_processes_all_is_unattributed() -> None:
    found = ledger.account(gpu_sample(memory_usage=GIB, processes=None), {}, UNITS)
    assert (found.gpu.processes, found.gpu.ledger.unattributed) == ([], GIB)


@pytest.mark.parametrize(("total", "percent"), [(0, 0.0), (4 * GIB, 25.0)])
def test_a_device_without_memory_is_not_divided_by(total: int, percent: float) -> None:
    gpu = ledger.account(gpu_sample(memory_total=total, memory_usage=GIB), {}, {}).gpu
    assert gpu.gpu_memory_percent == percent


_BYTES = st.integers(min_value=0, max_value=80 * GIB)
_PROCESSES = st.lists(
    st.builds(
        ProcessSample,
        st.integers(min_value=1, max_value=12),
        st.none() | _BYTES,
        st.sampled_from([None, "MIG-a", "MIG-b"]),
    ),
    max_size=12,
    unique_by=lambda each: (each.pid, each.mig_uuid),
)
_KNOWN = st.dictionaries(
    st.integers(min_value=1, max_value=12), st.sampled_from([of(ALICE), of(BOB), of(unit(3)), of(None)])
)


@given(used=_BYTES, processes=_PROCESSES, known=_KNOWN)
def test_whatever_the_driver_says_the_ledger_adds_up(
    used: int, processes: list[ProcessSample], known: dict[int, Process]
) -> None:
    sample: GpuSample = gpu_sample(memory_usage=used, processes=tuple(processes))
    found = ledger.account(sample, known, UNITS)
    assert adds_up(found.gpu)
    assert found.gpu.ledger.unattributed >= 0
    assert all(each.gpu_memory_usage >= 0 for each in found.gpu.ledger.containers)
    assert len({each.id for each in found.gpu.ledger.containers}) == len(found.gpu.ledger.containers)
    assert len(found.gpu.processes) == len(processes)
    for owner in (ALICE, BOB):
        told = sum(p.memory_bytes or 0 for p in processes if known.get(p.pid) == of(owner))
        assert found.memory.get(owner.container_id, 0) <= told

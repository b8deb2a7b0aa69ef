"""Who may start: the machine is never given away twice, and nobody is overtaken on what they wait for."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k12ai.task import Limits, Task
from k12ai.tasks.admission import (
    Device,
    FirstComeFirstServed,
    Machine,
    Running,
    Start,
    Wait,
    decide,
    gpus_wanted,
)

GIB = 1 << 30
MACHINE = Machine(places=4, cpus=8, memory_total_bytes=16 * GIB, memory_free_bytes=12 * GIB)
GPUS = [Device(0, 24 * GIB, 0), Device(1, 24 * GIB, 0)]


def task(name: str, user: str = "u", on: tuple[int, ...] = (), **limits: Any) -> Task:
    return Task(
        task_id=name,
        user=user,
        service_uuid=name,
        framework="k12py",
        op="runcode.start",
        key="",
        limits=Limits(**limits),
        gpus=list(on),
        created_at=datetime.now(UTC),
    )


def decisions(
    waiting: list[Task], running: list[Running] | None = None, machine: Machine = MACHINE
) -> dict[str, Start | Wait]:
    return {each.task_id: each for each in decide(waiting, running or [], machine, FirstComeFirstServed())}


def started(waiting: list[Task], running: list[Running] | None = None, machine: Machine = MACHINE) -> list[str]:
    return [name for name, each in decisions(waiting, running, machine).items() if isinstance(each, Start)]


def reason(waiting: list[Task], running: list[Running] | None = None, machine: Machine = MACHINE) -> str:
    """Return why the last one waits."""
    found = decisions(waiting, running, machine).get(waiting[-1].task_id)
    return found.reason if isinstance(found, Wait) else "waiting_cpu" if found is None else "starts"


def test_as_many_start_as_there_are_places_in_order_of_arrival() -> None:
    names = ["a", "b", "c", "d", "e", "f"]
    assert started([task(name) for name in names]) == ["a", "b", "c", "d"]
    assert started([task(name) for name in names], [Running(task("r1")), Running(task("r2"))]) == ["a", "b"]


def test_who_asks_for_processors_takes_that_part_of_the_machine() -> None:
    assert started([task("half", cpus=4), task("quarter", cpus=2), task("one"), task("two")]) == [
        "half",
        "quarter",
        "one",
    ]


def test_a_small_task_does_not_overtake_one_that_waits_for_processors() -> None:
    running = [Running(task("r", cpus=6))]
    assert started([task("large", cpus=4), task("small", cpus=1)], running) == []
    assert reason([task("large", cpus=4)], running) == "waiting_cpu"


def test_memory_that_running_tasks_may_still_take_is_not_free() -> None:
    hungry = task("r", memory_bytes=10 * GIB)
    used_little = Running(hungry, memory_used_bytes=1 * GIB)
    assert reason([task("w", memory_bytes=4 * GIB)], [used_little]) == "waiting_memory"
    assert reason([task("w", memory_bytes=3 * GIB)], [used_little]) == "starts"


def test_memory_that_other_programs_take_is_not_free() -> None:
    crowded = MACHINE._replace(memory_free_bytes=1 * GIB)
    small = Running(task("r", memory_bytes=GIB // 2), memory_used_bytes=GIB // 2)
    assert reason([task("w", memory_bytes=2 * GIB)], [small], crowded) == "waiting_memory"


def test_a_task_alone_on_the_machine_gets_its_chance() -> None:
    crowded = MACHINE._replace(memory_free_bytes=1 * GIB)
    assert started(
        [task("first", memory_bytes=8 * GIB), task("second", memory_bytes=8 * GIB)], [], crowded
    ) == ["first"]


def test_whole_gpus_are_given_once_by_index() -> None:
    found = decisions([task(name, gpus=1) for name in "abc"], [], MACHINE._replace(gpus=GPUS))
    assert found["a"] == Start("a", (0,))
    assert found["b"] == Start("b", (1,))
    assert found["c"] == Wait("c", "waiting_gpu")


def test_who_waits_for_a_gpu_holds_up_nobody_who_needs_none() -> None:
    busy = [Running(task("r", on=(0,), gpus=1)), Running(task("s", on=(1,), gpus=1))]
    waiting = [task("two", gpus=2), task("one", gpus=1), task("none")]
    found = decisions(waiting, busy, MACHINE._replace(gpus=GPUS))
    assert found == {
        "two": Wait("two", "waiting_gpu"),
        "one": Wait("one", "waiting_gpu"),
        "none": Start("none", ()),
    }


def test_nobody_overtakes_one_who_waits_for_more_gpus() -> None:
    busy = [Running(task("r", on=(0,), gpus=1))]
    assert started([task("two", gpus=2), task("one", gpus=1)], busy, MACHINE._replace(gpus=GPUS)) == []


def test_a_gpu_is_shared_as_far_as_its_memory_goes_the_fullest_first() -> None:
    machine = MACHINE._replace(gpus=GPUS)
    sharing = [Running(task("r", on=(1,), gpu_memory_bytes=14 * GIB))]
    found = decisions(
        [task("a", gpu_memory_bytes=10 * GIB), task("b", gpu_memory_bytes=11 * GIB)], sharing, machine
    )
    assert found["a"] == Start("a", (1,))
    assert found["b"] == Start("b", (0,))
    assert (
        reason([task("whole", gpus=1)], [*sharing, Running(task("s", on=(0,), gpus=1))], machine)
        == "waiting_gpu"
    )


def test_a_gpu_of_which_somebody_has_a_small_share_is_nobodys_alone() -> None:
    one = MACHINE._replace(gpus=GPUS[:1])
    assert started([task("share", gpu_memory_bytes=GIB), task("whole", gpus=1)], [], one) == ["share"]
    sharing = [Running(task("r", on=(0,), gpu_memory_bytes=GIB))]
    assert reason([task("whole", gpus=1)], sharing, one) == "waiting_gpu"


def test_gpu_memory_that_others_take_is_not_given_away() -> None:
    taken = MACHINE._replace(gpus=[Device(0, 24 * GIB, 20 * GIB)])
    assert reason([task("w", gpus=1)], [], taken) == "waiting_gpu"
    assert reason([task("w", gpu_memory_bytes=5 * GIB)], [], taken) == "waiting_gpu"
    assert reason([task("w", gpu_memory_bytes=4 * GIB)], [], taken) == "starts"
    more_than_asked = Running(task("r", on=(0,), gpu_memory_bytes=2 * GIB), gpu_used_bytes={0: 20 * GIB})
    assert reason([task("w", gpu_memory_bytes=5 * GIB)], [more_than_asked], taken) == "waiting_gpu"


def test_the_quota_of_a_user_holds_up_nobody_else() -> None:
    machine = MACHINE._replace(places_per_user=1)
    found = decisions([task("a", "u"), task("b", "u"), task("c", "v")], [], machine)
    assert found == {"a": Start("a", ()), "b": Wait("b", "quota"), "c": Start("c", ())}


SIZES = st.none() | st.integers(1, 16).map(lambda size: size * GIB)
LIMITS = st.fixed_dictionaries(
    {
        "cpus": st.none() | st.sampled_from([0.5, 1.0, 2.0, 8.0]),
        "memory_bytes": SIZES,
        "gpus": st.none() | st.integers(0, 2),
        "gpu_memory_bytes": st.none() | st.integers(1, 24).map(lambda size: size * GIB),
    }
)


@given(st.lists(st.tuples(LIMITS, st.sampled_from("uvw")), max_size=12), st.integers(1, 5), st.integers(0, 16))
def test_whatever_is_asked_nothing_is_given_twice(
    asked: list[tuple[dict[str, Any], str]], places: int, free: int
) -> None:
    """Whoever starts is taken for running in the next round, until nobody starts any more."""
    machine = Machine(places, 8, 16 * GIB, free * GIB, GPUS, places_per_user=3)
    waiting = [task(f"{number:02}", user, **limits) for number, (limits, user) in enumerate(asked)]
    running: list[Running] = []
    for _ in range(len(waiting) + 1):
        found = decisions(waiting, running, machine)
        for each in found.values():
            if isinstance(each, Start):
                chosen = next(one for one in waiting if one.task_id == each.task_id)
                waiting.remove(chosen)
                running.append(Running(msgspec.structs.replace(chosen, gpus=list(each.gpus))))
    tasks = [each.task for each in running]
    assert len(tasks) <= places
    assert all(sum(each.user == user for each in tasks) <= 3 for user in "uvw")
    assert sum(each.limits.cpus / 8 if each.limits.cpus else 1 / places for each in tasks) <= 1 + 1e-6
    promised = [each.limits.memory_bytes or 0 for each in tasks]
    assert sum(promised) <= free * GIB or sum(bool(size) for size in promised) <= 1
    for device in GPUS:
        on_it = [each for each in tasks if device.index in each.gpus]
        whole = [each for each in on_it if each.limits.gpu_memory_bytes is None]
        assert len(whole) <= 1
        assert not whole or len(on_it) == 1
        assert sum(each.limits.gpu_memory_bytes or 0 for each in on_it) <= device.total_bytes
    assert all(len(each.gpus) == gpus_wanted(each.limits) for each in tasks)


@given(st.lists(LIMITS, min_size=1, max_size=8))
def test_who_fits_into_the_machine_starts_some_time(asked: list[dict[str, Any]]) -> None:
    """With one task ending after the other, everybody has had a turn, in as many rounds as there are tasks."""
    machine = MACHINE._replace(gpus=GPUS, memory_free_bytes=16 * GIB)
    waiting = [task(f"{number:02}", **limits) for number, limits in enumerate(asked)]
    running: list[Running] = []
    order: list[str] = []
    while waiting:
        before = len(order)
        for each in decisions(waiting, running, machine).values():
            if isinstance(each, Start):
                chosen = next(one for one in waiting if one.task_id == each.task_id)
                waiting.remove(chosen)
                running.append(Running(msgspec.structs.replace(chosen, gpus=list(each.gpus))))
                order.append(each.task_id)
        assert running, "nobody runs, and nobody starts"
        running.pop(0)
        assert len(order) > before or len(running) < machine.places
    assert len(order) == len(asked)


@pytest.mark.parametrize("limits", [{}, {"gpus": 0}, {"gpus": 0, "gpu_memory_bytes": GIB}])
def test_who_asks_for_no_gpu_gets_none(limits: dict[str, Any]) -> None:
    found = decisions([task("a", **limits)], [], MACHINE._replace(gpus=GPUS))
    assert found["a"] == Start("a", ())

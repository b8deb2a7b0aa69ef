"""How long one has to wait: from how long the like have taken, and nothing where nothing is known."""

from datetime import UTC, datetime, timedelta
from typing import Any

from k12ai.task import Limits, Task
from k12ai.tasks.forecast import Durations, waits_s

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def task(name: str, op: str = "train.start", ran_s: float | None = None, **fields: Any) -> Task:
    """Return a task that began ``ran_s`` seconds ago; a waiting one where that is not given."""
    began = None if ran_s is None else NOW - timedelta(seconds=ran_s)
    values: dict[str, Any] = {"limits": Limits()} | fields
    return Task(
        task_id=name,
        user="u",
        service_uuid=name,
        framework="k12ml",
        op=op,
        key="",
        created_at=NOW,
        started_at=began,
        **values,
    )


def ended(took_s: float, **fields: Any) -> Task:
    values: dict[str, Any] = {"state": "succeeded", "ended_at": NOW} | fields
    return task("old", ran_s=took_s, **values)


def waits(waiting: list[Task], running: list[Task], durations: Durations, places: int = 2) -> dict[str, float]:
    return dict(waits_s(waiting, running, durations, places=places, gpus=1, now=NOW))


def test_without_history_nothing_is_said() -> None:
    assert waits([task("a")], [task("r", ran_s=5)], Durations()) == {}


def test_who_is_next_waits_for_the_first_that_should_end() -> None:
    durations = Durations([ended(100)])
    running = [task("r", ran_s=30), task("s", ran_s=60)]
    assert waits([task("a"), task("b"), task("c")], running, durations) == {"a": 40, "b": 70, "c": 140}


def test_a_task_that_takes_longer_than_its_like_is_about_to_end() -> None:
    assert waits([task("a")], [task("r", ran_s=500)], Durations([ended(100)]), places=1) == {"a": 1}


def test_behind_a_task_of_unknown_length_nothing_is_said() -> None:
    waiting = [task("a", op="predict.start"), task("b")]
    assert waits(waiting, [task("r", ran_s=0)], Durations([ended(100)]), places=1) == {"a": 100}


def test_newer_tasks_count_more_than_older_ones() -> None:
    durations = Durations([ended(100), ended(200)])
    assert durations.expected_s(task("a")) == 130


def test_only_what_ended_by_itself_tells_how_long_things_take() -> None:
    durations = Durations([ended(5, state="stopped"), ended(1, state="failed")])
    assert durations.expected_s(task("a")) is None


def test_those_that_need_a_gpu_wait_for_a_gpu() -> None:
    durations = Durations([ended(100)])
    on_gpu = Limits(gpus=1)
    running = [task("r", ran_s=10, limits=on_gpu)]
    assert waits([task("a", limits=on_gpu), task("b")], running, durations, places=8) == {"a": 90, "b": 0}

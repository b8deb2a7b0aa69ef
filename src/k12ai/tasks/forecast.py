"""How long a task will have to wait, from how long its like have taken; silent where there is no history.

The machine is seen as lanes, one for each place and one for each GPU. The running leave theirs when they
have taken as long as their like; the waiting take the next that becomes free, in order. It is an
estimate for people, nothing depends on it.
"""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from k12ai.task import Task
from k12ai.tasks.admission import gpus_wanted

# What the newest task counts among all before it.
_WEIGHT = 0.3
# A task that has taken longer than its like is expected to end at any moment.
_SOON_S = 1.0


class Durations:
    """How long tasks take, by what they do."""

    def __init__(self, ended: Iterable[Task] = ()) -> None:
        """``ended`` are tasks of earlier, oldest first."""
        self._mean_s: dict[tuple[str, str], float] = {}
        for task in ended:
            self.add(task)

    def add(self, task: Task) -> None:
        """Take a task that has ended into account, where it ended by itself."""
        if task.state == "succeeded" and task.started_at is not None and task.ended_at is not None:
            took_s = max(0.0, (task.ended_at - task.started_at).total_seconds())
            known_s = self._mean_s.get((task.framework, task.op), took_s)
            self._mean_s[task.framework, task.op] = known_s + _WEIGHT * (took_s - known_s)

    def expected_s(self, task: Task) -> float | None:
        """Return how long a task should take; None where none of its kind has ended yet."""
        return self._mean_s.get((task.framework, task.op))


def waits_s(
    waiting: Sequence[Task],
    running: Sequence[Task],
    durations: Durations,
    *,
    places: int,
    gpus: int,
    now: datetime,
) -> Mapping[str, float]:
    """Return the seconds until each waiting task starts; who is behind a task without history is left out."""
    lanes: dict[bool, list[float]] = {False: [], True: []}  # by whether a GPU is needed
    for task in running:
        expected_s = durations.expected_s(task)
        if expected_s is None:
            return {}
        passed_s = (now - task.started_at).total_seconds() if task.started_at is not None else 0.0
        lanes[gpus_wanted(task.limits) > 0].append(max(_SOON_S, expected_s - passed_s))
    lanes[False] += [0.0] * (places - len(running))
    lanes[True] += [0.0] * (gpus - len(lanes[True]))
    for lane in lanes.values():
        heapq.heapify(lane)
    found: dict[str, float] = {}
    for task in waiting:
        lane = lanes[gpus_wanted(task.limits) > 0]
        expected_s = durations.expected_s(task)
        if not lane:
            continue
        found[task.task_id] = lane[0]
        if expected_s is None:
            break
        heapq.heapreplace(lane, lane[0] + expected_s)
    return found

"""Which state may follow which: the one place where a task's life is written down."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from k12ai.runtimes.base import End
from k12ai.task import ENDED, Reason, Stopper, Task, TaskState

ALLOWED: Mapping[TaskState, frozenset[TaskState]] = {
    "queued": frozenset({"starting", "stopped", "failed"}),
    "starting": frozenset({"running", "stopping", "failed", "stopped"}),
    "running": frozenset({"stopping", "succeeded", "failed", "stopped"}),
    "stopping": frozenset({"stopped", "failed", "succeeded"}),
    "succeeded": frozenset(),
    "failed": frozenset(),
    "stopped": frozenset(),
}

# What a program's end means to clients of the published interface; see the catalogue.
FINISHED, STOPPED, OUT_OF_MEMORY, TIMED_OUT, SIGNAL, FAILED = 100003, 100004, 100901, 100922, 100926, 999999


class NotAllowed(Exception):
    """A state cannot follow another: a fault of ours."""


def advance(task: Task, state: TaskState, reason: Reason | None = None, **changes: Any) -> Task:
    """Return the task in its next state."""
    if state not in ALLOWED[task.state]:
        raise NotAllowed(f"{task.task_id}: {task.state} -> {state}")
    if state == "running":
        changes.setdefault("started_at", datetime.now(UTC))
    if state in ENDED:
        changes.setdefault("ended_at", datetime.now(UTC))
    return msgspec.structs.replace(task, state=state, reason=reason, **changes)


def ended(task: Task, end: End, stopper: Stopper, *, gpu_memory_left_bytes: int = 0) -> Task:
    """Return the task as its end makes it; a stop that has left something says so."""
    state, reason, code = _verdict(end)
    if state == "stopped":
        reason = stopper.reason
        task = msgspec.structs.replace(task, stopped_by=stopper.user)
        if end.survivors or gpu_memory_left_bytes:
            reason = "stop_incomplete"
    return advance(
        task,
        state,
        reason,
        code=code if code != FAILED or task.code is None else task.code,  # the program said more itself
        exit_code=end.exit_code,
        signal=end.signal,
        oom_kills=end.oom_kills,
        killed=end.killed,
        survivors=list(end.survivors),
        gpu_memory_left_bytes=gpu_memory_left_bytes,
        detail=end.detail,
        ended_at=end.ended_at or datetime.now(UTC),
    )


def _verdict(end: End) -> tuple[TaskState, Reason, int]:
    if end.reason == "stopped":
        return "stopped", "stopped_by_user", STOPPED
    if end.reason == "timeout":
        return "failed", "timeout", TIMED_OUT
    if end.reason == "start_failed":
        return "failed", "start_failed", 100202
    if end.reason == "lost":
        return "failed", "lost", FAILED
    if end.exit_code == 0:
        return "succeeded", "exited", FINISHED
    if end.oom_kills and end.signal == 9:
        return "failed", "oom", OUT_OF_MEMORY  # 137 alone is no proof: anybody can send that signal
    return ("failed", "signal", SIGNAL) if end.signal is not None else ("failed", "exited", FAILED)

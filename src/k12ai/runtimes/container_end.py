"""How a task has ended whose container the Engine tells about: a pure function of its words and ours."""

import signal
from datetime import UTC, datetime
from typing import Literal

import msgspec
from msgspec import Struct

from k12ai.runtimes.base import End, signal_told_by
from k12ai.runtimes.container_init import STARTED_AGAIN
from k12ai.runtimes.engine import ContainerState

# What the Engine says of a container that it has lost sight of.
_UNKNOWN = 255
# That, and what an Engine without live-restore ends its containers with when it stops or comes back.
_OF_A_RESTART = (_UNKNOWN, 128 + signal.SIGTERM, 128 + signal.SIGKILL)
_LONGEST_DETAIL = 1000

GONE = ContainerState(
    status="removed",
    running=False,
    restarting=False,
    oom_killed=False,
    exit_code=0,
    error="",
    started_at="0001-01-01T00:00:00Z",
    finished_at="0001-01-01T00:00:00Z",
)
"""What is said of a container that somebody has removed."""


class Stop(Struct, frozen=True):
    """That a task is to end, why, and since when, in seconds since the epoch."""

    grace_s: float
    reason: Literal["stopped", "timeout"] = "stopped"
    asked_at: float = 0.0


def never_started() -> End:
    """Return the end of a task that was stopped before it began."""
    return End(reason="stopped", ended_at=datetime.now(UTC))


def refused(words: str) -> End:
    """Return the end of a task that could not be started; ``words`` say why."""
    return End(reason="start_failed", detail=words[:_LONGEST_DETAIL], ended_at=datetime.now(UTC))


def lost_at_start(words: str) -> End:
    """Return the end of a task that may have run, for all that the Engine knows."""
    detail = f"the Engine was away while it started: {words}"[:_LONGEST_DETAIL]
    return End(reason="lost", detail=detail, ended_at=datetime.now(UTC))


class Circumstances(Struct, frozen=True):
    """What else is known of a task that has ended.

    Whether the machine, or the container, was started again; whether the Engine was about to end when it
    ended; whether it was away then, as far as can be told, and at any time since it was to start; and the
    exit code that the first process has left in a file.
    """

    booted_again: bool = False
    started_again: bool = False
    engine_was_ending: bool = False
    engine_was_away: bool = False
    engine_was_ever_away: bool = False
    noted_code: int | None = None


def may_be_the_engines(state: ContainerState) -> bool:
    """Whether a container has ended as an Engine ends it that is about to end itself."""
    return state.exit_code in _OF_A_RESTART


def end_of(state: ContainerState, stop: Stop | None, circumstances: Circumstances) -> End:
    """Return how a task has ended. What nobody can know is ``lost``, never guessed at."""
    if state is GONE:
        return End(reason="lost", detail="its container was removed", ended_at=datetime.now(UTC))
    if state.status == "created":
        return End(reason="start_failed", exit_code=state.exit_code, detail=state.error[:_LONGEST_DETAIL])
    if circumstances.engine_was_ever_away and circumstances.noted_code is not None:
        # It may have lost sight of the container, and says 0 or 255 then; the first process was there.
        state = msgspec.structs.replace(state, exit_code=circumstances.noted_code)
    number = signal_told_by(state.exit_code)
    if stop is not None and state.ended_at.timestamp() < stop.asked_at:
        stop = None  # it had ended by itself
    reason: Literal["stopped", "timeout", "signal", "exited", "lost"]
    reason = stop.reason if stop is not None else "signal" if number is not None else "exited"
    detail = ""
    if stop is None and not state.oom_killed:
        detail = _unknowable(state, circumstances)
    return End(
        reason="lost" if detail else reason,
        exit_code=state.exit_code if number is None else None,
        signal=number,
        oom_kills=int(state.oom_killed),
        killed=stop is not None and number == signal.SIGKILL,
        detail=detail,
        ended_at=state.ended_at,
    )


def _unknowable(state: ContainerState, circumstances: Circumstances) -> str:
    """Return why the Engine cannot know how a task has ended; empty where it does."""
    if state.exit_code == STARTED_AGAIN and circumstances.started_again:
        return "its container was started a second time, which runs nothing; how the first ended is not known"
    if state.exit_code == 0 and circumstances.engine_was_ever_away and circumstances.noted_code is None:
        return "it ended while the Engine was away; how is not known"
    if state.exit_code not in _OF_A_RESTART:
        return ""
    if circumstances.booted_again:
        return "the machine was restarted"
    if circumstances.engine_was_ending:
        return "it was ended while the Engine was about to end"
    if not circumstances.engine_was_away:
        return ""
    if state.exit_code == _UNKNOWN:
        return "it ended while the Engine was away; how is not known"
    return "it was killed while the Engine was away; by whom is not known"

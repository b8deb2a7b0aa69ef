"""What is said of how a task ended: what the Engine knows, and never more than that."""

from typing import Any

import msgspec
import pytest

from k12ai.runtimes.container_end import GONE, Circumstances, Stop, end_of
from k12ai.runtimes.container_init import STARTED_AGAIN
from k12ai.runtimes.engine import ContainerState

ENDED = ContainerState(
    status="exited",
    running=False,
    restarting=False,
    oom_killed=False,
    exit_code=0,
    error="",
    started_at="2026-01-01T10:00:00.123456789Z",
    finished_at="2026-01-01T10:01:00Z",
)
FINISHED_AT = 1767261660
ASKED = Stop(10, asked_at=FINISHED_AT - 5)


def end(stop: Stop | None = None, *, away: bool = False, **state: Any) -> tuple[Any, ...]:
    found = end_of(msgspec.structs.replace(ENDED, **state), stop, Circumstances(engine_was_away=away))
    return found.reason, found.exit_code, found.signal, found.oom_kills, found.killed


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({}, ("exited", 0, None, 0, False)),
        ({"exit_code": 5}, ("exited", 5, None, 0, False)),
        ({"exit_code": 139}, ("signal", None, 11, 0, False)),
        ({"exit_code": 137}, ("signal", None, 9, 0, False)),  # anybody can send that: no word of memory
        ({"exit_code": 137, "oom_killed": True}, ("signal", None, 9, 1, False)),
        ({"exit_code": 0, "oom_killed": True}, ("exited", 0, None, 1, False)),
        ({"exit_code": 5, "oom_killed": True}, ("exited", 5, None, 1, False)),
        ({"exit_code": 255}, ("exited", 255, None, 0, False)),
        ({"exit_code": 200}, ("exited", 200, None, 0, False)),
    ],
)
def test_what_ended_by_itself(state: dict[str, Any], expected: tuple[Any, ...]) -> None:
    assert end(**state) == expected


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"exit_code": 143}, ("stopped", None, 15, 0, False)),
        ({"exit_code": 7}, ("stopped", 7, None, 0, False)),
        ({"exit_code": 137}, ("stopped", None, 9, 0, True)),
    ],
)
@pytest.mark.parametrize("away", [False, True])
def test_what_was_stopped(state: dict[str, Any], expected: tuple[Any, ...], away: bool) -> None:
    assert end(ASKED, away=away, **state) == expected
    timeout = msgspec.structs.replace(ASKED, reason="timeout")
    assert end(timeout, away=away, **state) == ("timeout", *expected[1:])


def test_what_had_ended_before_it_was_asked_to_was_not_stopped() -> None:
    late = Stop(10, asked_at=FINISHED_AT + 1)
    assert end(late, exit_code=3) == ("exited", 3, None, 0, False)


@pytest.mark.parametrize("exit_code", [137, 143, 255])
@pytest.mark.parametrize(("away", "booted"), [(True, False), (False, True), (True, True)])
def test_what_nobody_can_know_is_lost(exit_code: int, away: bool, booted: bool) -> None:
    state = msgspec.structs.replace(ENDED, exit_code=exit_code)
    found = end_of(state, None, Circumstances(booted_again=booted, engine_was_away=away))
    assert found.reason == "lost"
    assert found.detail


@pytest.mark.parametrize("exit_code", [137, 143, 255])
def test_what_ends_with_its_engine_is_lost_and_what_was_to_stop_is_stopped(exit_code: int) -> None:
    state = msgspec.structs.replace(ENDED, exit_code=exit_code)
    ending = Circumstances(engine_was_ending=True)
    found = end_of(state, None, ending)
    assert (found.reason, found.detail) == ("lost", "it was ended while the Engine was about to end")
    assert end_of(state, ASKED, ending).reason == "stopped"


@pytest.mark.parametrize(
    "state", [{}, {"exit_code": 1}, {"exit_code": 139}, {"exit_code": 137, "oom_killed": True}]
)
def test_an_end_that_the_engine_kept_is_known_though_it_was_away(state: dict[str, Any]) -> None:
    assert end(away=True, **state) == end(**state)
    ending = end_of(msgspec.structs.replace(ENDED, **state), None, Circumstances(engine_was_ending=True))
    assert ending == end_of(msgspec.structs.replace(ENDED, **state), None, Circumstances())


def test_a_container_that_was_removed_or_never_started() -> None:
    assert end_of(GONE, None, Circumstances()).reason == "lost"
    state = msgspec.structs.replace(ENDED, status="created", exit_code=127, error="no such file: python3")
    found = end_of(state, None, Circumstances())
    assert (found.reason, found.exit_code) == ("start_failed", 127)
    assert "python3" in found.detail


@pytest.mark.parametrize("away", [False, True])
def test_a_second_start_says_nothing_of_how_the_first_ended(away: bool) -> None:
    state = msgspec.structs.replace(ENDED, exit_code=STARTED_AGAIN)
    again = Circumstances(started_again=True, engine_was_away=away)
    assert end_of(state, None, again).reason == "lost"
    assert end_of(state, None, Circumstances(engine_was_away=away)).reason == "exited", "a program may say 125"


@pytest.mark.parametrize("said", [0, 255, STARTED_AGAIN])
def test_where_the_engine_was_away_the_first_process_knows_better(said: int) -> None:
    state = msgspec.structs.replace(ENDED, exit_code=said)
    found = end_of(state, None, Circumstances(engine_was_ever_away=True, noted_code=3))
    assert (found.reason, found.exit_code) == ("exited", 3)


def test_a_success_of_which_only_an_engine_tells_that_was_away_is_not_believed() -> None:
    assert end_of(ENDED, None, Circumstances(engine_was_ever_away=True)).reason == "lost"
    assert end_of(ENDED, None, Circumstances(engine_was_ever_away=True, noted_code=0)).reason == "exited"


def test_an_engine_that_was_there_is_believed_whatever_a_task_has_written() -> None:
    found = end_of(msgspec.structs.replace(ENDED, exit_code=5), None, Circumstances(noted_code=0))
    assert (found.reason, found.exit_code) == ("exited", 5)

"""A task's life: from the intent to the end, and every word in between."""

import asyncio
import os
from typing import Any

import pytest

from k12ai.errors import TaskNotFound, TaskRunning
from k12ai.task import Limits, Task
from tests.tasks.conftest import House, OpenHouse

SLEEP = "import time; time.sleep(600)"
SAYS = (
    "import os, json\n"
    "def say(kind, **data):\n"
    "    with open(os.environ['K12AI_JOURNAL'], 'a') as file:\n"
    "        file.write(json.dumps({'type': kind, 'data': data}) + '\\n')\n"
)


async def running(house: House, task: Task) -> None:
    async with asyncio.timeout(30):
        while (await house.manager.task(task.task_id)).state != "running":
            await asyncio.sleep(0.01)


async def test_a_task_goes_through_its_states_and_each_is_a_message(house: House) -> None:
    task = await house.submit("print('hello')")
    assert task.state == "queued"
    done = await house.ended(task)
    assert (done.state, done.reason, done.code, done.exit_code) == ("succeeded", "exited", 100003, 0)
    assert await house.states(task) == ["queued", "starting", "running", "succeeded"]
    assert done.created_at <= done.started_at <= done.ended_at  # type: ignore[operator]
    assert await house.store.task(task.task_id) == done
    assert (await house.manager.read_log(done, 0, 100)).data == b"hello\n"


async def test_what_it_says_becomes_messages_in_order(house: House) -> None:
    task = await house.submit(
        SAYS
        + "say('progress', done=1, total=2)\nsay('metrics', loss=0.5)\nsay('status', text='nearly')\n"
        + "say('result', accuracy=0.9)"
    )
    await house.ended(task)
    said = [(each.type, each.body) for each in await house.messages(task)]
    assert said[3:7] == [
        ("status", {"value": "running", "reason": None, "progress": {"done": 1, "total": 2}}),
        ("metrics", {"loss": 0.5}),
        ("status", {"value": "running", "reason": None, "text": "nearly"}),
        ("result", {"accuracy": 0.9}),
    ]
    sequences = [each.sequence for each in await house.messages(task)]
    assert sequences == sorted(set(sequences))
    entry = (await house.store.list("framework/alice/digits/train.start/result/")).entries[0]
    assert entry.key.split("/")[-1].isdigit()


async def test_a_program_that_fails_without_a_word_is_explained_in_both_languages(house: House) -> None:
    task = await house.submit("raise SystemExit(3)")
    done = await house.ended(task)
    assert (done.state, done.reason, done.exit_code) == ("failed", "exited", 3)
    (error,) = [each.body for each in await house.messages(task) if each.type == "error"]
    assert error["en"]
    assert error["zh"]


async def test_the_code_of_a_failure_is_what_the_program_said(house: House) -> None:
    task = await house.submit(SAYS + "say('error', code=100906, en='x', zh='x')\nraise SystemExit(1)")
    done = await house.ended(task)
    assert (done.state, done.code) == ("failed", 100906)
    assert len([each for each in await house.messages(task) if each.type == "error"]) == 1


async def test_a_stop_is_a_stop_and_who_asks_twice_gets_the_same(house: House) -> None:
    task = await house.submit(SLEEP)
    await running(house, task)
    stops = await asyncio.gather(*(house.manager.stop(task.task_id, grace_s=10) for _ in range(50)))
    assert {(each.state, each.reason) for each in stops} == {("stopped", "stopped_by_user")}
    assert await house.manager.stop(task.task_id, grace_s=10) == stops[0]
    states = await house.states(task)
    assert states[-2:] == ["stopping", "stopped"]
    assert states.count("stopped") == 1


@pytest.mark.parametrize("delay_ms", [0, 1, 5, 20, 50, 100, 200])
async def test_a_stop_at_any_moment_leaves_nothing_running(house: House, delay_ms: int) -> None:
    """B16."""
    task = await house.submit(SLEEP)
    await asyncio.sleep(delay_ms / 1000)
    assert (await house.manager.stop(task.task_id, grace_s=5)).state == "stopped"
    assert task.task_id not in house.runtime.units


async def test_a_shorter_grace_shortens_a_stop(house: House) -> None:
    task = await house.submit(
        "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"
    )
    while not (await house.manager.read_log(task, 0, 10)).data:
        await asyncio.sleep(0.02)
    long = asyncio.ensure_future(house.manager.stop(task.task_id, grace_s=600))
    await asyncio.sleep(0.3)
    async with asyncio.timeout(20):
        done = await house.manager.stop(task.task_id, grace_s=0)
    assert (done.state, done.killed) == ("stopped", True)
    assert await long == done


async def test_an_unknown_task_is_not_found(house: House) -> None:
    for ask in (house.manager.task("0123456789ab"), house.manager.stop("0123456789ab", grace_s=1)):
        with pytest.raises(TaskNotFound):
            await ask
    with pytest.raises(TaskNotFound):
        house.manager.running("alice", "digits", "train.start")


async def test_a_second_start_while_one_runs_is_refused(house: House) -> None:
    task = await house.submit(SLEEP)
    with pytest.raises(TaskRunning) as refused:
        await house.submit(SLEEP)
    assert refused.value.task_id == task.task_id
    assert house.manager.running("alice", "digits", "train.start").task_id == task.task_id


async def test_the_same_start_sent_again_is_the_same_task(house: House) -> None:
    first = await house.submit("pass", idempotency_key="k")
    assert (await house.submit("pass", idempotency_key="k")).task_id == first.task_id
    await house.ended(first)
    assert (await house.submit("pass", idempotency_key="k")).task_id == first.task_id


async def test_no_more_run_than_may_and_the_first_to_come_is_the_first_to_run(open_house: OpenHouse) -> None:
    async with open_house(max_tasks=1) as house:
        first = await house.submit(SLEEP, service_uuid="p0")
        await running(house, first)
        waiting = [await house.submit("pass", service_uuid=f"p{number}") for number in (1, 2, 3)]
        async with asyncio.timeout(10):
            while (await house.manager.task(waiting[2].task_id)).reason != "waiting_cpu":
                await asyncio.sleep(0.01)
        assert len(house.runtime.units) == 1
        given_up = await house.manager.stop(waiting[1].task_id, grace_s=10)
        assert (given_up.state, given_up.started_at) == ("stopped", None)
        await house.manager.stop(first.task_id, grace_s=10)
        ends = [await house.ended(each) for each in (waiting[0], waiting[2])]
        assert ends[0].ended_at < ends[1].started_at  # type: ignore[operator]


async def test_a_time_limit_is_a_reason_of_its_own(house: House) -> None:
    done = await house.ended(await house.submit(SLEEP, limits=Limits(wall_time_s=1)))
    assert (done.state, done.reason) == ("failed", "timeout")


async def test_limits_that_are_not_given_are_the_servers(open_house: OpenHouse) -> None:
    async with open_house(task_wall_time_s=77, task_processes=99) as house:
        task = await house.submit("pass", limits=Limits(processes=50))
        assert task.limits == Limits(wall_time_s=77, memory_bytes=None, processes=50)
        await house.ended(task)


async def test_hostile_words_in_the_journal_are_left_out_and_counted(house: House) -> None:
    task = await house.submit(
        "import os\nfile = open(os.environ['K12AI_JOURNAL'], 'ab')\n"
        'file.write(b\'\\xff\\n{"type":"metrics","data":{"a":NaN}}\\n\')\n'
        "file.write(b'x' * 2_000_000 + b'\\n'); file.close()\n" + SAYS + "say('metrics', loss=1)"
    )
    assert (await house.ended(task)).state == "succeeded"
    messages = await house.messages(task)
    assert [each.body for each in messages if each.type == "metrics"] == [{"loss": 1}]
    assert any("cannot be read" in each.body["en"] for each in messages if each.type == "error")


async def test_ten_thousand_messages_at_once_all_arrive_in_order(house: House) -> None:
    task = await house.submit(
        "import os\nwith open(os.environ['K12AI_JOURNAL'], 'ab') as file:\n"
        '    for n in range(10_000): file.write(b\'{"type":"metrics","data":{"n":%d}}\\n\' % n)'
    )
    await house.ended(task)
    seen: list[Any] = []
    cursor = 0
    while (found := await house.feed.after(task, cursor, types=("metrics",))).messages:
        seen += [each.body["n"] for each in found.messages]
        cursor = found.cursor
    assert seen == list(range(10_000))


# --- after a restart --------------------------------------------------------------------------


async def test_the_next_run_adopts_what_runs_and_collects_what_ended(open_house: OpenHouse) -> None:
    said = SAYS + "say('metrics', n=1)\nimport time; time.sleep(0.7)\nsay('metrics', n=2)\nraise SystemExit(4)"
    async with open_house() as house:
        lives, ends = await house.submit(SLEEP), await house.submit(said, service_uuid="other")
        await running(house, lives)
        async with asyncio.timeout(10):
            while not [each for each in await house.messages(ends) if each.type == "metrics"]:
                await asyncio.sleep(0.01)
        pid = house.runtime.units[lives.task_id].pid
    os.kill(pid, 0)
    await asyncio.sleep(1)
    async with open_house() as house:
        done = await house.ended(ends)
        assert (done.state, done.exit_code) == ("failed", 4)
        metrics = [each.body["n"] for each in await house.messages(ends) if each.type == "metrics"]
        assert metrics == [1, 2], "nothing lost, nothing twice"
        assert (await house.manager.task(lives.task_id)).state == "running"
        assert (await house.manager.stop(lives.task_id, grace_s=10)).state == "stopped"
        assert (await house.states(lives)).count("running") == 1


async def test_a_task_that_waited_when_the_server_went_down_runs_in_the_next_run(open_house: OpenHouse) -> None:
    async with open_house(max_tasks=1) as house:
        first = await house.submit(SLEEP)
        await running(house, first)
        waited = await house.submit("print('at last')", service_uuid="other")
    async with open_house(max_tasks=2) as house:
        assert (await house.ended(waited)).state == "succeeded"
        await house.manager.stop(first.task_id, grace_s=10)


async def test_a_task_whose_shim_was_killed_is_lost_and_said_to_be(house: House) -> None:
    task = await house.submit(SLEEP)
    await running(house, task)
    os.kill(house.runtime._started[task.task_id].shim_pid, 9)
    done = await house.ended(task)
    assert (done.state, done.reason) == ("failed", "lost")


async def test_records_and_leftovers_of_old_tasks_are_swept(open_house: OpenHouse) -> None:
    async with open_house(task_retention_s=1) as house:
        task = await house.submit("pass")
        await house.ended(task)
        await asyncio.sleep(2.1)
        await house.manager.sweep()
        assert await house.store.task(task.task_id) is None
        assert not house.runtime.has(task.task_id)

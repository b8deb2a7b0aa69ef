"""What every store promises about tasks."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from k12ai.errors import TaskRunning
from k12ai.stores.base import Store
from k12ai.task import Task, key_of
from tests.contract.conftest import OpenStore

NOW = datetime.now(UTC)


def task(number: int = 1, **fields: Any) -> Task:
    values: dict[str, Any] = {
        "task_id": f"{number:012x}",
        "user": "alice",
        "service_uuid": "digits",
        "framework": "k12ml",
        "op": "train.start",
        "created_at": NOW,
    } | fields
    return Task(key=key_of(values["user"], values["service_uuid"], values["op"]), **values)


def ended(known: Task, at: datetime = NOW) -> Task:
    return msgspec.structs.replace(known, state="succeeded", ended_at=at)


async def create(store: Store, new: Task, idempotency_key: str | None = None) -> Task:
    message = (f"{new.key}/status", b"queued")
    return await store.create_task(new, [message], idempotency_key=idempotency_key, keep_s=60)


async def values(store: Store, key: str) -> list[bytes]:
    return [entry.value for entry in (await store.list(key)).entries]


async def test_a_task_comes_into_being_with_its_first_message(store: Store) -> None:
    new = task(params={"model": "决策树"})
    assert await create(store, new) == new
    assert await store.task(new.task_id) == new
    assert await values(store, "framework/alice/digits/train.start/status/") == [b"queued"]
    assert await store.task("ffffffffffff") is None


async def test_of_twenty_starts_of_one_op_at_once_one_wins(store: Store) -> None:
    outcomes = await asyncio.gather(
        *(create(store, task(number)) for number in range(20)), return_exceptions=True
    )
    assert sorted(isinstance(each, Task) for each in outcomes) == [False] * 19 + [True]
    (winner,) = (each for each in outcomes if isinstance(each, Task))
    assert {each.task_id for each in outcomes if isinstance(each, TaskRunning)} == {winner.task_id}
    assert len(await values(store, "framework/")) == 1, "who lost has said nothing"


async def test_other_ops_projects_and_users_run_beside_it(store: Store) -> None:
    await create(store, task(1))
    for number, other in enumerate(({"op": "predict.start"}, {"service_uuid": "x"}, {"user": "bob"}), 2):
        await create(store, task(number, **other))
    assert len(await store.tasks(active=True)) == 4


async def test_after_its_end_the_next_one_may_start(store: Store) -> None:
    first = await create(store, task(1))
    await store.record_task(ended(first), [], keep_s=60)
    assert (await create(store, task(2))).task_id == task(2).task_id
    assert [each.task_id for each in await store.tasks(users={"alice"})] == [task(2).task_id, task(1).task_id]
    assert [each.task_id for each in await store.tasks(active=False)] == [task(1).task_id]
    assert await store.tasks(users={"bob"}) == []


async def test_a_start_that_is_sent_again_is_the_task_of_then(store: Store) -> None:
    first = await create(store, task(1), "once")
    assert await create(store, task(2), "once") == first
    await store.record_task(ended(first), [], keep_s=60)
    assert await create(store, task(3), "once") == ended(first), "also when it has ended"
    assert (await create(store, task(4, user="bob"), "once")).task_id == task(4).task_id, "a key is its user's"
    assert len(await values(store, "framework/alice/")) == 1


async def test_a_state_its_messages_and_the_journals_offset_are_one_change(store: Store) -> None:
    new = await create(store, task())
    running = msgspec.structs.replace(new, state="running")
    said = [(f"{new.key}/metrics", b"1"), (f"{new.key}/status", b"running"), (f"{new.key}/metrics", b"2")]
    await store.record_task(running, said, journal_offset=77, keep_s=60)
    assert await store.task(new.task_id) == running
    assert await store.journal_offset(new.task_id) == 77
    assert await values(store, f"{new.key}/metrics/") == [b"1", b"2"]
    await store.record_task(running, [], keep_s=60)
    assert await store.journal_offset(new.task_id) == 77, "it stays where nothing is said of it"


async def test_only_tasks_that_ended_long_ago_are_forgotten(store: Store) -> None:
    for number, at in ((1, NOW - timedelta(days=40)), (2, NOW)):
        new = await create(store, task(number, user=f"u{number}"))
        await store.record_task(ended(new, at), [], keep_s=60)
    await create(store, task(3, user="u3", created_at=NOW - timedelta(days=90)))
    assert await store.forget_tasks(NOW - timedelta(days=30)) == [task(1).task_id]
    assert {each.task_id for each in await store.tasks()} == {task(2).task_id, task(3).task_id}


async def test_each_user_has_a_number_for_ever(open_store: OpenStore) -> None:
    async with open_store() as store:
        numbers = [await store.account_number(user) for user in ("alice", "bob", "alice")]
    async with open_store() as store:
        assert await store.account_number("alice") == numbers[0] == numbers[2]
        assert await store.account_number("bob") == numbers[1] != numbers[0]


@pytest.mark.parametrize("count", [1, 3000])
async def test_a_great_many_messages_are_one_change(store: Store, count: int) -> None:
    new = await create(store, task())
    said = [(f"{new.key}/metrics", b"%d" % number) for number in range(count)]
    await store.record_task(new, said, journal_offset=1, keep_s=60)
    assert await values(store, f"{new.key}/metrics/") == [b"%d" % number for number in range(count)]

"""What every store promises."""

import asyncio
import time

import pytest

from k12ai.stores.base import Store
from tests.contract.conftest import OpenStore


async def _keys(store: Store, prefix: str = "") -> list[str]:
    return [entry.key for entry in (await store.list(prefix)).entries]


async def test_a_missing_key_has_the_index_of_the_store_and_never_0(store: Store) -> None:
    assert (await store.get("nope")).index == 1
    await store.put("a", b"1")
    missing = await store.get("nope")
    assert (missing.entries, missing.index) == ((), 2)


async def test_a_value_comes_back_as_it_was_written(store: Store) -> None:
    value = bytes(range(256))
    assert await store.put("a/b", value, flags=2**64 - 1)
    (entry,) = (await store.get("a/b")).entries
    assert (entry.key, entry.value, entry.flags) == ("a/b", value, 2**64 - 1)
    assert entry.create_index == entry.modify_index == 2


async def test_a_change_moves_the_modify_index_and_leaves_the_create_index(store: Store) -> None:
    await store.put("a", b"1")
    await store.put("a", b"2")
    (entry,) = (await store.get("a")).entries
    assert (entry.create_index, entry.modify_index) == (2, 3)


async def test_writing_what_is_there_changes_no_index_and_wakes_nobody(store: Store) -> None:
    await store.put("a", b"1", flags=7)
    with store.waiting("a", prefix=False) as waiter:
        assert await store.put("a", b"1", flags=7)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(waiter.changed(), 0.1)
    assert (await store.get("a")).index == 2


@pytest.mark.parametrize(
    ("cas", "exists", "written"),
    [
        pytest.param(0, False, True, id="0 creates"),
        pytest.param(0, True, False, id="0 does not overwrite"),
        pytest.param(2, True, True, id="the right index overwrites"),
        pytest.param(9, True, False, id="a wrong index does not"),
        pytest.param(9, False, False, id="an index does not create"),
    ],
)
async def test_put_with_cas(store: Store, cas: int, exists: bool, written: bool) -> None:
    if exists:
        await store.put("a", b"old")
    assert await store.put("a", b"new", cas=cas) is written
    entries = (await store.get("a")).entries
    assert (entries[0].value if entries else None) == (b"new" if written else b"old" if exists else None)


@pytest.mark.parametrize(
    ("cas", "exists", "deleted"),
    [
        pytest.param(None, True, True, id="without cas"),
        pytest.param(2, True, True, id="the right index deletes"),
        pytest.param(9, True, False, id="a wrong index does not"),
        pytest.param(0, True, False, id="0 does not delete what exists"),
        pytest.param(9, False, True, id="a missing key is deleted already"),
    ],
)
async def test_delete_with_cas(store: Store, cas: int | None, exists: bool, deleted: bool) -> None:
    if exists:
        await store.put("a", b"old")
    assert await store.delete("a", cas=cas) is deleted
    assert bool((await store.get("a")).entries) is (exists and not deleted)


async def test_exactly_one_of_many_concurrent_cas_writers_wins(store: Store) -> None:
    won = await asyncio.gather(*(store.put("a", b"%d" % number, cas=0) for number in range(50)))
    assert sum(won) == 1


async def test_list_is_a_string_prefix_sorted_by_key(store: Store) -> None:
    for key in ("p/10", "p/1/b", "p/1", "p/2", "q", "p/1/a"):
        await store.put(key, b"x")
    assert await _keys(store, "p/1") == ["p/1", "p/1/a", "p/1/b", "p/10"]
    assert await _keys(store) == ["p/1", "p/1/a", "p/1/b", "p/10", "p/2", "q"]


@pytest.mark.parametrize("prefix", ["\ud7ff", "\U0010ffff", "a\U0010ffff", "é", "中"])
async def test_prefixes_at_the_edges_of_unicode_find_exactly_theirs(store: Store, prefix: str) -> None:
    keys = [
        "a",
        "b",
        "zz",
        "é",
        "éa",
        "中",
        "中文",
        "丮",
        "\ud7ff",
        "\ud7ffx",
        "\ue000",
        "\U0010ffff",
        "a\U0010ffffb",
    ]
    for key in keys:
        await store.put(key, b"x")
    assert await _keys(store, prefix) == sorted(key for key in keys if key.startswith(prefix))


async def test_keys_are_cut_after_the_first_separator_past_the_prefix(store: Store) -> None:
    for key in ("a/x/1", "a/x/2", "a/y", "a/z/", "b"):
        await store.put(key, b"x")
    assert (await store.keys("a/", "/")).keys == ["a/x/", "a/y", "a/z/"]
    assert (await store.keys("", "/")).keys == ["a/", "b"]
    assert (await store.keys("a/")).keys == ["a/x/1", "a/x/2", "a/y", "a/z/"]


async def test_the_index_of_a_prefix_covers_what_was_deleted_below_it(store: Store) -> None:
    await store.put("p/a", b"x")
    await store.put("p/b", b"x")
    await store.put("q", b"x")
    await store.delete("p/b")
    assert (await store.list("p/")).index == 5
    assert (await store.list("q")).index == 4
    assert (await store.keys("p/")).index == 5
    await store.delete_prefix("p/")
    assert (await store.list("p/")).index == 6
    assert (await store.list("nothing")).index == 6


async def test_deleting_what_is_not_there_changes_no_index(store: Store) -> None:
    await store.put("a", b"x")
    await store.delete("b")
    await store.delete_prefix("c/")
    assert (await store.get("missing")).index == 2


async def test_delete_prefix_is_a_string_prefix(store: Store) -> None:
    for key in ("p/1", "p/1/a", "p/10", "p/2"):
        await store.put(key, b"x")
    await store.delete_prefix("p/1")
    assert await _keys(store) == ["p/2"]


async def test_a_key_can_come_back_after_its_deletion(store: Store) -> None:
    await store.put("a", b"1")
    await store.delete("a")
    await store.put("a", b"2")
    (entry,) = (await store.get("a")).entries
    assert (entry.value, entry.create_index) == (b"2", 4)


@pytest.mark.parametrize(
    ("waits_for", "prefix", "changed", "wakes"),
    [
        pytest.param("p/a", False, "p/a", True, id="its key"),
        pytest.param("p/a", False, "p/ab", False, id="another key"),
        pytest.param("p/", True, "p/a", True, id="below its prefix"),
        pytest.param("p/a", True, "p/a", True, id="the prefix itself"),
        pytest.param("p/a", True, "p/", False, id="above its prefix"),
        pytest.param("", True, "anything", True, id="the empty prefix"),
    ],
)
async def test_a_write_wakes_exactly_whom_it_concerns(
    store: Store, waits_for: str, prefix: bool, changed: str, wakes: bool
) -> None:
    with store.waiting(waits_for, prefix=prefix) as waiter:
        await store.put(changed, b"x")
        if wakes:
            await asyncio.wait_for(waiter.changed(), 5)
        else:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(waiter.changed(), 0.1)


async def test_deletions_wake_too(store: Store) -> None:
    await store.put("p/a", b"x")
    with store.waiting("p/a", prefix=False) as one, store.waiting("p/", prefix=True) as below:
        await store.delete_prefix("p")
        await asyncio.wait_for(one.changed(), 5)
        await asyncio.wait_for(below.changed(), 5)


async def test_a_result_and_the_end_of_its_request_are_one_change(store: Store) -> None:
    first = await store.accept(b"first")
    second = await store.accept(b"second")
    assert [(each.request_id, each.body) for each in await store.pending()] == [
        (first, b"first"),
        (second, b"second"),
    ]
    await store.publish(first, "result", b"done", keep_s=60)
    assert [each.request_id for each in await store.pending()] == [second]
    assert (await store.get("result")).entries[0].value == b"done"


async def test_publishing_again_does_not_bring_back_what_was_deleted(store: Store) -> None:
    request_id = await store.accept(b"body")
    await store.publish(request_id, "result", b"done", keep_s=60)
    await store.delete("result")
    await store.publish(request_id, "result", b"done", keep_s=60)
    assert (await store.get("result")).entries == ()


async def test_a_great_many_changes_at_once_wake_who_waits(store: Store) -> None:
    await asyncio.gather(*(store.put(f"many/{number}", b"x") for number in range(600)))
    with store.waiting("many/599", prefix=False) as waiter:
        await store.delete_prefix("many/")
        await asyncio.wait_for(waiter.changed(), 5)


async def test_a_sweep_deletes_what_is_past_its_time_and_wakes_who_waits_for_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.put("short", b"x", keep_s=60)
    await store.put("long", b"x", keep_s=600)
    await store.put("forever", b"x")
    assert await store.sweep() == 0
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 61)
    with store.waiting("short", prefix=False) as waiter:
        assert await store.sweep() == 1
        await asyncio.wait_for(waiter.changed(), 5)
    assert await _keys(store) == ["forever", "long"]


async def test_writing_the_same_again_keeps_it_longer(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    await store.put("a", b"x", keep_s=60)
    monkeypatch.setattr(time, "time", lambda: now + 50)
    await store.put("a", b"x", keep_s=60)
    monkeypatch.setattr(time, "time", lambda: now + 70)
    assert await store.sweep() == 0


async def test_the_index_of_a_prefix_does_not_go_back_when_tombstones_are_cleared(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.put("p/a", b"x")
    await store.put("p/b", b"x")
    await store.delete("p/b")
    before = (await store.list("p/")).index
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 2 * 24 * 3600)
    await store.sweep()
    assert (await store.list("p/")).index >= before


async def test_everything_is_there_when_the_store_is_opened_again(open_store: OpenStore) -> None:
    async with open_store() as store:
        await store.put("a", b"1")
        await store.put("b", b"1")
        await store.delete("b")
        request_id = await store.accept(b"later")
    async with open_store() as store:
        assert await _keys(store) == ["a"]
        assert (await store.get("missing")).index == 4
        assert [each.request_id for each in await store.pending()] == [request_id]
        assert await store.accept(b"next") > request_id


async def test_many_writers_at_once_each_get_an_index_of_their_own(store: Store) -> None:
    await asyncio.gather(*(store.put(f"k/{number}", b"x") for number in range(500)))
    indexes = [entry.modify_index for entry in (await store.list("k/")).entries]
    assert sorted(indexes) == list(range(2, 502))


async def test_appended_messages_are_in_the_order_they_were_written(store: Store) -> None:
    """Also when a hundred are written at once: no clock decides."""
    keys = [*await store.append("task/status", [b"1", b"2"], keep_s=60)]
    keys += await store.append("task/status", [b"3"], keep_s=60)
    found = (await store.list("task/status/")).entries
    assert [(entry.key, entry.value) for entry in found] == list(zip(keys, (b"1", b"2", b"3"), strict=True))
    many = await asyncio.gather(*(store.append("many", [b"%d" % number], keep_s=60) for number in range(100)))
    assert len({key for (key,) in many}) == 100


async def test_an_appended_message_keeps_its_place_when_earlier_ones_are_deleted(store: Store) -> None:
    (first,) = await store.append("m", [b"1"], keep_s=60)
    await store.delete(first)
    (second,) = await store.append("m", [b"2"], keep_s=60)
    assert second > first


async def test_a_key_that_somebody_wrote_ahead_does_not_swallow_a_message(store: Store) -> None:
    for ahead in range(2, 8):
        await store.put(f"m/{ahead:016}", b"same")
    keys = await store.append("m", [b"same", b"same"], keep_s=60)
    assert len(set(keys)) == 2
    assert len((await store.list("m/")).entries) == 8


async def test_a_reader_goes_on_behind_the_last_key_of_each_prefix_and_gets_so_many_of_each(
    store: Store,
) -> None:
    for key in ("p/0", "p/1", "p/2", "p/3", "p/4", "q", "r/1", "r/2"):
        await store.put(key, b"x")
    found = await store.behind({"p/": "p/1", "r/": "r/1"}, 2)
    assert [entry.key for entry in found] == ["p/2", "p/3", "r/2"]
    assert await store.behind({"p/": "p/4"}, 2) == []

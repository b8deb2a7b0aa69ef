"""Messages (B24): none is lost, their order is that of their sequence, and each is read at least once.

A reader waits, processes and then deletes by version; it may die after any of these steps.
"""

import asyncio
import contextlib
import random
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from k12ai.stores.base import Entry, Store
from k12ai.stores.sql import SqlStore

Record = Callable[[str, object], None]
KEYS = ("task/1/status", "task/1/metrics", "task/10/status", "任务/1")
WRITERS = 20
AT_ONCE = 100
KEEP_S = 3600

SIZES = pytest.mark.parametrize(
    "count", [pytest.param(600, id="few"), pytest.param(10_000, id="10,000", marks=pytest.mark.slow)]
)


def sequence(key: str) -> int:
    return int(key.rsplit("/", 1)[1])


class Reader:
    """Reads one key's messages; what it has processed is known to the test, whatever becomes of it."""

    def __init__(self, store: Store, key: str, dice: random.Random) -> None:
        self.processed: list[str] = []
        self.values: dict[str, bytes] = {}
        self.deleted: set[str] = set()
        self.deaths = 0
        self._store = store
        self._key = key
        self._dice = dice

    async def live(self) -> None:
        """Read for ever; begin again after each death."""
        while True:
            life = asyncio.create_task(self._read())
            try:
                # Death comes from outside, wherever it stands: waiting, reading or deleting.
                await asyncio.wait([life], timeout=self._dice.uniform(0.01, 0.5))
            finally:
                life.cancel()
                await asyncio.wait([life])
            if not life.cancelled():
                life.result()
            self.deaths += 1

    async def _read(self) -> None:
        with self._store.waiting(f"{self._key}/", prefix=True) as waiter:
            while True:
                for entry in (await self._store.list(f"{self._key}/")).entries:
                    self._process(entry)
                    if self._dice.random() < 0.01:
                        return  # it dies between reading and deleting
                    assert await self._store.delete(entry.key, cas=entry.modify_index)
                    self.deleted.add(entry.key)
                await waiter.changed()

    def _process(self, entry: Entry) -> None:
        assert entry.key not in self.deleted, "it was deleted, and is here again"
        assert entry.modify_index == sequence(entry.key)
        if entry.key not in self.values:
            self.processed.append(entry.key)
            self.values[entry.key] = entry.value


async def write(store: Store, writer: int, count: int, dice: random.Random) -> dict[str, bytes]:
    """Append messages, one or a few at a time, each after the last was acknowledged."""
    told: dict[str, bytes] = {}
    last = dict.fromkeys(KEYS, 0)
    number = 0
    while number < count:
        key = dice.choice(KEYS)
        values = [b"%d/%d" % (writer, number + each) for each in range(min(dice.randint(1, 4), count - number))]
        keys = await store.append(key, values, keep_s=KEEP_S)
        assert len(keys) == len(values)
        for name, value in zip(keys, values, strict=True):
            assert sequence(name) > last[key], "a later message comes later"
            last[key] = sequence(name)
            told[name] = value
        number += len(values)
    return told


async def at_once(store: Store) -> dict[str, bytes]:
    values = [b"at once/%d" % number for number in range(AT_ONCE)]
    keys = await asyncio.gather(*(store.append(KEYS[0], [value], keep_s=KEEP_S) for value in values))
    return {key: value for (key,), value in zip(keys, values, strict=True)}


@SIZES
async def test_readers_that_die_at_any_moment_get_every_message_in_order(
    tmp_path: Path, count: int, record_property: Record
) -> None:
    dice = random.Random(count)
    async with SqlStore(tmp_path) as store:
        readers = [Reader(store, key, dice) for key in KEYS]
        reading = [asyncio.create_task(reader.live()) for reader in readers]
        share = count // WRITERS
        async with asyncio.timeout(300):
            written = await asyncio.gather(
                *(write(store, writer, share, dice) for writer in range(WRITERS)), at_once(store)
            )
            told = {key: value for part in written for key, value in part.items()}
            assert len(told) == share * WRITERS + AT_ONCE, "every sequence is given once"
            while (await store.list("")).entries and not any(task.done() for task in reading):
                await asyncio.sleep(0.02)
        for task in reading:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        assert (await store.list("")).entries == []
    for reader in readers:
        assert reader.processed == sorted(reader.processed, key=sequence)
    assert {key: value for reader in readers for key, value in reader.values.items()} == told
    record_property("messages", len(told))
    record_property("at once", AT_ONCE)
    record_property("readers' deaths", sum(reader.deaths for reader in readers))
    record_property("lost", 0)


async def test_messages_of_one_moment_keep_the_order_in_which_they_were_acknowledged(tmp_path: Path) -> None:
    async with SqlStore(tmp_path) as store:
        told: list[str] = []

        async def append(number: int) -> None:
            told.extend(await store.append("m", [b"%d" % number], keep_s=KEEP_S))

        await asyncio.gather(*(append(number) for number in range(AT_ONCE)))
        found = (await store.list("m/")).entries
        assert [entry.key for entry in found] == told
        assert [entry.value for entry in found] == [b"%d" % number for number in range(AT_ONCE)]


# Writers and a reader in one process; what is printed has happened, for the process is then killed.
_PROCESS = """
    import asyncio, pathlib, sys
    from k12ai.stores.sql import SqlStore

    async def write(store, writer):
        for number in range(1_000_000):
            values = [b"%d/%d/%d" % (writer, number, each) for each in range(2)]
            for key, value in zip(await store.append("m", values, keep_s=3600), values):
                print("told", key, value.decode(), flush=True)

    async def read(store):
        with store.waiting("m/", prefix=True) as waiter:
            while True:
                for entry in (await store.list("m/")).entries[:20]:
                    print("read", entry.key, entry.value.decode(), flush=True)
                    assert await store.delete(entry.key, cas=entry.modify_index)
                await waiter.changed()

    async def main():
        async with SqlStore(pathlib.Path(sys.argv[1])) as store:
            await asyncio.gather(read(store), *(write(store, writer) for writer in range(8)))

    asyncio.run(main())
"""


def killed_midway(directory: Path, lines: int) -> list[list[str]]:
    """Run writers and a reader, kill them after so many lines, and return all the lines they got out."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(_PROCESS), str(directory)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout as out:
        said = [out.readline() for _ in range(lines)]
        process.kill()
        said += out.readlines()
    process.wait()
    return [line.split() for line in said if line.endswith("\n")]


@pytest.mark.parametrize(
    ("kills", "lines"),
    [pytest.param(1, 300, id="once"), pytest.param(20, 1000, id="20 times", marks=pytest.mark.slow)],
)
async def test_what_was_acknowledged_before_a_kill_is_read_before_or_after_it_and_the_sequence_goes_on(
    tmp_path: Path, kills: int, lines: int, record_property: Record
) -> None:
    highest = 0
    told_in_all = read_twice = 0
    for round_number in range(kills):
        said = killed_midway(tmp_path, lines)
        told = {key: value for what, key, value in said if what == "told"}
        read = {key: value for what, key, value in said if what == "read"}
        async with SqlStore(tmp_path) as store:
            left = {entry.key: entry.value.decode() for entry in (await store.list("m/")).entries}
            assert told.items() <= (read | left).items(), f"round {round_number}"
            check_order(said, read, left)
            assert min(map(sequence, told)) > highest, "a sequence never repeats"
            highest = max(map(sequence, told.keys() | read.keys() | left.keys()))
            (following,) = await store.append("m", [b"next"], keep_s=KEEP_S)
            assert sequence(following) > highest
            highest = sequence(following)
            await store.delete_prefix("m/")
        told_in_all += len(told)
        read_twice += len(read.keys() & left.keys())
    record_property("kills", kills)
    record_property("acknowledged", told_in_all)
    record_property("lost", 0)
    record_property("read and not yet deleted", read_twice)
    record_property("highest sequence", highest)


def check_order(said: Sequence[Sequence[str]], read: dict[str, str], left: dict[str, str]) -> None:
    """What was read was read in order, and at most the newest of it is left to be read again."""
    order = [key for what, key, _ in said if what == "read"]
    assert order == sorted(order, key=sequence)
    assert len(order) == len(set(order))
    again = read.keys() & left.keys()
    assert again <= set(order[-1:])
    if order and left:
        assert sequence(min(left, key=sequence)) >= sequence(order[-1])

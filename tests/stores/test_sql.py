"""What is particular to the store on SQLite."""

import asyncio
import contextlib
import os
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from k12ai.errors import StorageFull, StorageUnavailable
from k12ai.settings import SettingsError
from k12ai.stores import migrations
from k12ai.stores.sql import SqlStore


async def test_a_commit_is_on_the_disk_before_it_is_acknowledged(tmp_path: Path) -> None:
    async with SqlStore(tmp_path) as store:
        with store._writing.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


async def test_a_second_server_cannot_open_the_same_directory(tmp_path: Path) -> None:
    async with SqlStore(tmp_path):
        with pytest.raises(SettingsError, match="in use by another"):
            await SqlStore(tmp_path).__aenter__()


@pytest.mark.parametrize("name", ["a?b=c", "100%", "ein schöner Ort", "#"])
async def test_the_database_is_in_the_directory_whatever_its_name(tmp_path: Path, name: str) -> None:
    async with SqlStore(tmp_path / name) as store:
        await store.put("a", b"1")
    assert (tmp_path / name / "k12ai.sqlite3").exists()


async def test_the_directory_is_its_owners_alone(tmp_path: Path) -> None:
    async with SqlStore(tmp_path / "data"):
        assert (tmp_path / "data").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("earlier_mode", [None, 0o644])
async def test_the_files_are_their_owners_alone_in_a_directory_that_tasks_pass_through(
    tmp_path: Path, earlier_mode: int | None
) -> None:
    """`k12ai token create --data-dir` makes them in an operator's shell, whose umask is 022."""
    tmp_path.chmod(0o711)
    if earlier_mode is not None:
        (tmp_path / "k12ai.sqlite3").touch()
        (tmp_path / "k12ai.sqlite3").chmod(earlier_mode)
    umask = os.umask(0o022)
    try:
        async with SqlStore(tmp_path) as store:
            await store.put("a", b"1")
            modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.glob("k12ai.sqlite3*")}
    finally:
        os.umask(umask)
    assert modes == dict.fromkeys(("k12ai.sqlite3", "k12ai.sqlite3-wal", "k12ai.sqlite3-shm"), 0o600)


async def test_one_bad_write_does_not_fail_the_others_of_its_group(tmp_path: Path) -> None:
    async with SqlStore(tmp_path) as store:
        bad = store._write(lambda transaction: 1 // 0)
        results = await asyncio.gather(store.put("a", b"1"), bad, store.put("b", b"1"), return_exceptions=True)
        assert results[0] is True
        assert isinstance(results[1], ZeroDivisionError)
        assert results[2] is True
        assert len((await store.list("")).entries) == 2


async def test_a_locked_store_says_so_and_recovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("k12ai.stores.sql.BUSY_TIMEOUT_S", 0.1)
    async with SqlStore(tmp_path) as store:
        await store.put("a", b"1")
        other = sqlite3.connect(tmp_path / "k12ai.sqlite3", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageUnavailable):
            await store.put("a", b"2")
        assert (await store.get("a")).entries[0].value == b"1", "reading goes on meanwhile"
        other.execute("ROLLBACK")
        other.close()
        assert await store.put("a", b"3")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
async def test_a_full_disk_says_so_loses_nothing_and_heals(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(tmp_path)], check=True)
    request.addfinalizer(lambda: subprocess.run(["umount", "-l", str(tmp_path)], check=True))
    async with SqlStore(tmp_path) as store:
        await store.put("a", b"1")
        ballast = tmp_path / "ballast"
        with ballast.open("wb") as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 65536)
                file.flush()
        with pytest.raises(StorageFull):
            await store.put("b", b"x" * 400_000)
        assert (await store.get("a")).entries[0].value == b"1"
        ballast.unlink()
        assert await store.put("b", b"x" * 400_000)


def test_the_head_that_opening_checks_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    assert ScriptDirectory.from_config(config).get_current_head() == migrations.HEAD


async def test_the_migrations_make_the_tables_that_the_code_uses(tmp_path: Path) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from k12ai.stores.schema import metadata

    async with SqlStore(tmp_path) as store:
        with store._writing.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), metadata) == []


_WRITER = """
    import asyncio, pathlib, sys
    from k12ai.stores.sql import SqlStore

    async def write(store, writer):
        for number in range(1_000_000):
            assert await store.put(f"{writer}/{number}", b"x" * 50)
            print(writer, number, flush=True)

    async def main():
        async with SqlStore(pathlib.Path(sys.argv[1])) as store:
            await asyncio.gather(*(write(store, writer) for writer in range(8)))

    asyncio.run(main())
"""


async def test_what_was_acknowledged_before_a_kill_is_there_after_it(tmp_path: Path) -> None:
    index = 0
    for round_number in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(_WRITER), str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        acknowledged = [writer.stdout.readline().split() for _ in range(200)]
        writer.kill()
        acknowledged += [line.split() for line in writer.stdout.read().splitlines() if line.count(" ") == 1]
        writer.wait()
        writer.stdout.close()
        async with SqlStore(tmp_path) as store:
            found = await store.list("")
            keys = {entry.key for entry in found.entries}
            assert {f"{who}/{number}" for who, number in acknowledged} <= keys, f"round {round_number}"
            assert found.index > index
            index = found.index
        checked = sqlite3.connect(tmp_path / "k12ai.sqlite3")
        assert checked.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        checked.close()
        async with SqlStore(tmp_path) as store:
            await store.delete_prefix("")

"""The store on SQLite: one writer thread that commits in groups, readers beside it.

Every commit is on the disk before it is acknowledged (WAL with ``synchronous=FULL``); writes that
arrive while one is being synced share the next sync.
"""

import asyncio
import contextlib
import datetime
import fcntl
import itertools
import os
import queue
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, Self, TypeVar

import sqlalchemy
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from k12ai.errors import StorageFull, StorageUnavailable
from k12ai.people import AuditEntry, Classroom
from k12ai.settings import SettingsError
from k12ai.stores import access, migrations, tasks, transactions
from k12ai.stores.base import (
    AuditQuery,
    Entry,
    Found,
    FoundKeys,
    PendingRequest,
    Store,
    StoredToken,
    cut,
)
from k12ai.stores.schema import request
from k12ai.stores.transactions import Transaction
from k12ai.stores.waiters import Waiter, Waiters
from k12ai.task import Task
from k12ai.texts import Text

T = TypeVar("T")

BUSY_TIMEOUT_S = 0.9
DEADLINE_S = 10.0
CLOSING_S = 2.0
GROUP_SIZE = 256
READERS = 2

FILE = "k12ai.sqlite3"


class _Write(NamedTuple):
    work: Callable[[Transaction], Any]
    done: "asyncio.Future[Any]"


class SqlStore(Store):
    """A store in one file of ``data_dir``, which one server at a time may use."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir.expanduser()
        self._waiters = Waiters()
        self._writes: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._account_numbers: dict[str, int] = {}  # they never change, and each start asks for one

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._lock = await asyncio.to_thread(_claim, self._data_dir)
        path = self._data_dir / FILE
        self._writing = _engine(path, begin="BEGIN IMMEDIATE")
        self._reading = _engine(path, begin="BEGIN")
        await asyncio.to_thread(_migrate, self._writing)
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="k12ai-store-reader")
        self._writer = threading.Thread(target=self._write_groups, name="k12ai-store-writer", daemon=True)
        self._writer.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writes.put(None)
        await asyncio.to_thread(self._writer.join, CLOSING_S)
        self._readers.shutdown(wait=False, cancel_futures=True)
        self._reading.dispose()
        self._writing.dispose()
        self._lock.close()

    # --- reading ---------------------------------------------------------------------------------

    async def get(self, key: str) -> Found:
        """See `Store.get`."""

        def work(connection: Connection) -> Found:
            found = transactions.get(connection, key)
            if found is None:
                return Found((), transactions.last_index(connection))
            return Found((found,), found.modify_index)

        return await self._read(work)

    async def list(self, prefix: str) -> Found:
        """See `Store.list`."""

        def work(connection: Connection) -> Found:
            entries = transactions.entries_below(connection, prefix)
            return Found(entries, transactions.prefix_index(connection, prefix))

        return await self._read(work)

    async def behind(self, last_read: Mapping[str, str], limit: int) -> Sequence[Entry]:
        """See `Store.behind`."""

        def work(connection: Connection) -> Sequence[Entry]:
            pieces = (
                transactions.entries_below(connection, prefix, after, limit)
                for prefix, after in last_read.items()
            )
            return [*itertools.chain.from_iterable(pieces)]

        return await self._read(work)

    async def keys(self, prefix: str, separator: str = "") -> FoundKeys:
        """See `Store.keys`."""

        def work(connection: Connection) -> FoundKeys:
            names = connection.execute(transactions.keys_statement(prefix)).scalars().all()
            return FoundKeys(cut(names, prefix, separator), transactions.prefix_index(connection, prefix))

        return await self._read(work)

    async def pending(self) -> Sequence[PendingRequest]:
        """See `Store.pending`."""
        statement = sqlalchemy.select(request.c.id, request.c.body).order_by(request.c.id)
        return await self._read(
            lambda connection: [PendingRequest(*row) for row in connection.execute(statement)]
        )

    async def task(self, task_id: str) -> Task | None:
        """See `Store.task`."""
        return await self._read(lambda connection: tasks.get(connection, task_id))

    async def tasks(
        self,
        *,
        users: Collection[str] | None = None,
        service_uuid: str | None = None,
        op: str | None = None,
        active: bool | None = None,
        limit: int = 1000,
    ) -> Sequence[Task]:
        """See `Store.tasks`."""
        return await self._read(
            lambda connection: tasks.find(connection, users, service_uuid, op, active, limit)
        )

    async def journal_offset(self, task_id: str) -> int:
        """See `Store.journal_offset`."""
        return await self._read(lambda connection: tasks.journal_offset(connection, task_id))

    async def tokens(self) -> Sequence[StoredToken]:
        """See `Store.tokens`."""
        return await self._read(access.tokens)

    async def classes(self) -> Sequence[Classroom]:
        """See `Store.classes`."""
        return await self._read(access.classes)

    async def audit(self, query: AuditQuery) -> Sequence[AuditEntry]:
        """See `Store.audit`."""
        return await self._read(lambda connection: access.find_audit(connection, query))

    def waiting(self, key: str, *, prefix: bool) -> AbstractContextManager[Waiter]:
        """See `Store.waiting`."""
        return self._waiters.waiting(key, prefix=prefix)

    # --- writing ---------------------------------------------------------------------------------

    async def put(
        self, key: str, value: bytes, *, flags: int = 0, cas: int | None = None, keep_s: int | None = None
    ) -> bool:
        """See `Store.put`."""
        return await self._write(lambda transaction: transaction.put(key, value, flags, cas, keep_s))

    async def append(self, key: str, values: Sequence[bytes], *, keep_s: int) -> Sequence[str]:
        """See `Store.append`."""
        messages = [(key, value) for value in values]
        return await self._write(lambda transaction: transaction.append(messages, keep_s))

    async def create_task(
        self, task: Task, messages: Sequence[tuple[str, bytes]], *, idempotency_key: str | None, keep_s: int
    ) -> Task:
        """See `Store.create_task`."""
        return await self._write(
            lambda transaction: tasks.create(transaction, task, messages, idempotency_key, keep_s)
        )

    async def record_task(
        self,
        task: Task,
        messages: Sequence[tuple[str, bytes]],
        *,
        journal_offset: int | None = None,
        keep_s: int,
    ) -> None:
        """See `Store.record_task`."""
        await self._write(lambda transaction: tasks.record(transaction, task, messages, journal_offset, keep_s))

    async def forget_tasks(self, ended_before: datetime.datetime) -> Sequence[str]:
        """See `Store.forget_tasks`."""
        return await self._write(lambda transaction: tasks.forget(transaction, ended_before))

    async def account_number(self, user: str) -> int:
        """See `Store.account_number`."""
        known = self._account_numbers.get(user)
        if known is None:
            known = await self._write(lambda transaction: tasks.account_number(transaction, user))
            self._account_numbers[user] = known
        return known

    async def delete(self, key: str, *, cas: int | None = None) -> bool:
        """See `Store.delete`."""
        return await self._write(lambda transaction: transaction.delete(key, cas))

    async def delete_prefix(self, prefix: str) -> None:
        """See `Store.delete_prefix`."""
        await self._write(lambda transaction: transaction.delete_prefix(prefix))

    async def accept(self, body: bytes) -> int:
        """See `Store.accept`."""
        return await self._write(lambda transaction: transaction.accept(body))

    async def publish(self, request_id: int, key: str, value: bytes, *, keep_s: int) -> None:
        """See `Store.publish`."""
        await self._write(lambda transaction: transaction.publish(request_id, key, value, keep_s))

    async def add_tokens(self, tokens: Sequence[StoredToken]) -> None:
        """See `Store.add_tokens`."""
        await self._write(lambda transaction: access.add_tokens(transaction.connection, tokens))

    async def revoke_token(self, token_id: str, at: datetime.datetime) -> None:
        """See `Store.revoke_token`."""
        await self._write(lambda transaction: access.revoke_token(transaction.connection, token_id, at))

    async def put_class(self, classroom: Classroom) -> None:
        """See `Store.put_class`."""
        await self._write(lambda transaction: access.put_class(transaction.connection, classroom))

    async def delete_class(self, name: str) -> None:
        """See `Store.delete_class`."""
        await self._write(lambda transaction: access.delete_class(transaction.connection, name))

    async def add_audit(self, entry: AuditEntry) -> None:
        """See `Store.add_audit`."""
        await self._write(lambda transaction: access.add_audit(transaction.connection, entry))

    async def forget_audit(self, before: datetime.datetime) -> int:
        """See `Store.forget_audit`."""
        return await self._write(lambda transaction: access.forget_audit(transaction.connection, before))

    async def sweep(self) -> int:
        """See `Store.sweep`."""
        return await self._write(lambda transaction: transaction.sweep())

    # --- threads ---------------------------------------------------------------------------------

    async def _read(self, work: Callable[[Connection], T]) -> T:
        def job() -> T:
            with self._reading.begin() as connection:
                return work(connection)

        try:
            async with asyncio.timeout(DEADLINE_S):
                return await self._loop.run_in_executor(self._readers, job)
        except TimeoutError:
            raise StorageUnavailable from None
        except SQLAlchemyError as error:
            raise _translated(error) from error

    async def _write(self, work: Callable[[Transaction], T]) -> T:
        done: asyncio.Future[T] = self._loop.create_future()
        self._writes.put(_Write(work, done))
        try:
            async with asyncio.timeout(DEADLINE_S):
                return await done
        except TimeoutError:
            raise StorageUnavailable from None

    def _write_groups(self) -> None:
        while (first := self._writes.get()) is not None:
            group: list[_Write] = [first]
            closing = False
            with contextlib.suppress(queue.Empty):
                while len(group) < GROUP_SIZE:
                    following = self._writes.get_nowait()
                    if following is None:
                        closing = True
                        break
                    group.append(following)
            self._commit(group)
            if closing:
                return

    def _commit(self, group: Sequence[_Write]) -> None:
        group = [write for write in group if not write.done.cancelled()]  # whose caller was told no
        try:
            with self._writing.begin() as connection:
                transaction = Transaction(connection)
                results = [write.work(transaction) for write in group]
                transaction.finish()
        except Exception as error:  # noqa: BLE001 - handed to whoever awaits the write
            problem = _translated(error)
            if len(group) > 1 and not isinstance(problem, StorageUnavailable):
                for write in group:  # one of them is at fault, or too large; the others must not suffer
                    self._commit([write])
                return
            self._tell(_fail, group, problem)
        else:
            self._tell(self._committed, group, results, transaction.changed)

    def _tell(self, report: Callable[..., None], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
            self._loop.call_soon_threadsafe(report, *arguments)

    def _committed(self, group: Sequence[_Write], results: Sequence[Any], changed: Sequence[str]) -> None:
        for write, result in zip(group, results, strict=True):
            if not write.done.done():
                write.done.set_result(result)
        self._waiters.wake(changed)


def _fail(group: Sequence[_Write], problem: Exception) -> None:
    for write in group:
        if not write.done.done():
            write.done.set_exception(problem)


def _claim(data_dir: Path) -> IO[str]:
    """Make the directory this server's own for as long as the returned file is open."""
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (data_dir / "lock").open("w")
        _keep_from_others(data_dir)
    except OSError as error:
        why = f"{data_dir}: {error.strerror}"
        raise SettingsError(Text(f"data_dir: cannot use {why}", f"data_dir：无法使用 {why}")) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise SettingsError(
            Text(
                f"data_dir: {data_dir} is in use by another k12ai server; stop it, or choose another directory "
                "with --data-dir",
                f"data_dir：{data_dir} 正被另一个 k12ai 服务器使用；请先停止它，或用 --data-dir 指定其他目录",
            )
        ) from None
    return lock


def _keep_from_others(data_dir: Path) -> None:
    """Make the files of the store their owner's alone, whoever made them: tasks pass through the directory."""
    (data_dir / FILE).touch(mode=0o600)  # SQLite gives its other files the mode of this one
    for path in data_dir.glob(f"{FILE}*"):
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)


def _engine(path: Path, *, begin: str) -> Engine:
    engine = sqlalchemy.create_engine(
        sqlalchemy.URL.create("sqlite", database=str(path)),  # a path is not an address: it may hold '?'
        poolclass=QueuePool,
        pool_size=READERS + 1,
        # The driver must not open transactions of its own: the event below does, in the right mode.
        connect_args={"check_same_thread": False, "isolation_level": None, "timeout": BUSY_TIMEOUT_S},
    )

    @event.listens_for(engine, "connect")
    def _set_pragmas(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _migrate(engine: Engine) -> None:
    with engine.begin() as connection:
        if _revision(connection) == migrations.HEAD:
            return
        # Imported only where it is needed: Alembic costs a tenth of the server's memory.
        import alembic.command
        import alembic.config

        config = alembic.config.Config()
        config.set_main_option("script_location", os.path.dirname(migrations.__file__).replace("%", "%%"))
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, "head")


def _revision(connection: Connection) -> str | None:
    if not sqlalchemy.inspect(connection).has_table("alembic_version"):
        return None
    revision = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    return None if revision is None else str(revision)


def _translated(error: Exception) -> Exception:
    """Return the tree's error for what the database says; a fault of ours stays what it is."""
    if not isinstance(error, DBAPIError):
        return error
    said = str(error.orig)
    if "full" in said:
        return StorageFull()
    if "locked" in said or "disk I/O error" in said or "unable to open" in said:
        return StorageUnavailable()
    return error

"""The tables, for SQLite and PostgreSQL alike."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
)

metadata = MetaData()


class Unsigned64(TypeDecorator[int]):
    """An unsigned 64-bit number in a signed column, as two's complement."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Dialect) -> Any:
        """Wrap the upper half into negative numbers."""
        return value - (1 << 64) if value is not None and value >= 1 << 63 else value

    def process_result_value(self, value: Any | None, dialect: Dialect) -> int | None:
        """Unwrap what `process_bind_param` wrapped."""
        return value + (1 << 64) if value is not None and value < 0 else value


entry = Table(
    "entry",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False),
    Column("flags", Unsigned64, nullable=False),
    Column("create_index", BigInteger, nullable=False),
    Column("modify_index", BigInteger, nullable=False),
    Column("lock_index", BigInteger, nullable=False),
    Column("expires_at", BigInteger),  # seconds since the epoch
    Index("entry_expires_at", "expires_at"),
)

# What was deleted, so that the index of a prefix never goes back.
tombstone = Table(
    "tombstone",
    metadata,
    Column("key", Text, primary_key=True),
    Column("modify_index", BigInteger, nullable=False),
    Column("deleted_at", BigInteger, nullable=False),
)

# One row: the index of the last change, and the highest index among tombstones already cleared away.
counter = Table(
    "counter",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("last_index", BigInteger, nullable=False),
    Column("cleared_index", BigInteger, nullable=False),
)

# Asynchronous requests that were acknowledged and have no result yet.
request = Table(
    "request",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("body", LargeBinary, nullable=False),
    sqlite_autoincrement=True,
)

# Tasks, newest last. The record is the body; the other columns are what is looked for.
task = Table(
    "task",
    metadata,
    Column("position", Integer, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("user", Text, nullable=False),
    Column("service_uuid", Text, nullable=False),
    Column("op", Text, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("idempotency_key", Text),
    Column("body", LargeBinary, nullable=False),
    Column("journal_offset", BigInteger, nullable=False),
    Column("ended_at", BigInteger),  # seconds since the epoch
    Index("task_place", "user", "service_uuid", "op"),
    Index("task_active", "active"),
    Index("task_idempotency", "user", "idempotency_key", unique=True),
    sqlite_autoincrement=True,
)

# A number for each user, from which the process runtime makes an account of its own.
account = Table(
    "account",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("user", Text, nullable=False, unique=True),
    sqlite_autoincrement=True,
)

# Tokens, without their secrets.
token = Table(
    "token",
    metadata,
    Column("position", Integer, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("digest", LargeBinary, nullable=False),
    Column("body", LargeBinary, nullable=False),
    sqlite_autoincrement=True,
)

# Classes; who is in them is the body.
classroom = Table(
    "classroom",
    metadata,
    Column("name", Text, primary_key=True),
    Column("body", LargeBinary, nullable=False),
)

# Who did what; the entry is the body, the other columns are what is looked for.
audit = Table(
    "audit",
    metadata,
    Column("sequence", Integer, primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False),  # milliseconds since the epoch
    Column("user", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Index("audit_at", "at"),
    Index("audit_user", "user"),
    sqlite_autoincrement=True,
)

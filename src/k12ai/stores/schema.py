"""The tables, for SQLite and PostgreSQL alike."""

from typing import Any

from sqlalchemy import (
    BigInteger,
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

"""What one write does to the tables: pure statements inside somebody else's transaction."""

import time
from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, Select, and_, delete, func, insert, literal, select, update

from k12ai.stores.base import Entry
from k12ai.stores.schema import counter, entry, request, tombstone

TOMBSTONES_KEPT_S = 24 * 3600
SEQUENCE_DIGITS = 16

_COLUMNS = (
    entry.c.key,
    entry.c.value,
    entry.c.flags,
    entry.c.create_index,
    entry.c.modify_index,
    entry.c.lock_index,
)


class Transaction:
    """Writes to the store; `changed` collects the keys whose readers are to be woken after the commit."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        # The row is locked where several servers write: indexes are given out in commit order.
        row = connection.execute(select(counter.c.last_index).with_for_update()).scalar_one()
        self._index = self._first_index = int(row)
        self.changed: list[str] = []

    def finish(self) -> None:
        """Write the index back; call it last."""
        if self._index != self._first_index:
            self._connection.execute(update(counter).values(last_index=self._index))

    def put(self, key: str, value: bytes, flags: int, cas: int | None, keep_s: int | None) -> bool:
        """See `Store.put`."""
        known = self._get(key)
        if cas is not None and cas != (known.modify_index if known else 0):
            return False
        expires_at = None if keep_s is None else int(time.time()) + keep_s
        if known is not None and (known.value, known.flags) == (value, flags):
            self._connection.execute(update(entry).where(entry.c.key == key).values(expires_at=expires_at))
            return True
        index = self._changes(key)
        values = {"value": value, "flags": flags, "modify_index": index, "expires_at": expires_at}
        if known is not None:
            self._connection.execute(update(entry).where(entry.c.key == key).values(values))
        else:
            values |= {"key": key, "create_index": index, "lock_index": 0}
            self._connection.execute(insert(entry).values(values))
            self._connection.execute(delete(tombstone).where(tombstone.c.key == key))
        return True

    def append(self, key: str, values: Sequence[bytes], keep_s: int) -> list[str]:
        """See `Store.append`."""
        keys: list[str] = []
        for value in values:
            while self._get(name := f"{key}/{self._index + 1:0{SEQUENCE_DIGITS}}") is not None:
                self._index += 1  # anybody may have written there; a message must not be taken for it
            self.put(name, value, 0, None, keep_s)
            keys.append(name)
        return keys

    def delete(self, key: str, cas: int | None) -> bool:
        """See `Store.delete`."""
        known = self._get(key)
        if known is None:
            return True
        if cas is not None and cas != known.modify_index:
            return False
        self._delete_where(entry.c.key == key)
        return True

    def delete_prefix(self, prefix: str) -> bool:
        """See `Store.delete_prefix`."""
        self._delete_where(starts_with(entry.c.key, prefix))
        return True

    def sweep(self) -> int:
        """See `Store.sweep`."""
        now = int(time.time())
        swept = self._delete_where(entry.c.expires_at <= now)
        old = tombstone.c.deleted_at <= now - TOMBSTONES_KEPT_S
        cleared = self._connection.execute(select(func.max(tombstone.c.modify_index)).where(old)).scalar()
        if cleared is not None:
            self._connection.execute(delete(tombstone).where(old))
            self._connection.execute(
                update(counter).values(cleared_index=cleared).where(counter.c.cleared_index < cleared)
            )
        return swept

    def accept(self, body: bytes) -> int:
        """See `Store.accept`."""
        inserted = self._connection.execute(insert(request).values(body=body)).inserted_primary_key
        assert inserted is not None
        return int(inserted[0])

    def publish(self, request_id: int, key: str, value: bytes, keep_s: int) -> bool:
        """See `Store.publish`."""
        known = self._connection.execute(delete(request).where(request.c.id == request_id))
        return known.rowcount == 1 and self.put(key, value, 0, None, keep_s)

    def _get(self, key: str) -> Entry | None:
        row = self._connection.execute(select(*_COLUMNS).where(entry.c.key == key)).first()
        return None if row is None else Entry(*row)

    def _changes(self, *keys: str) -> int:
        self._index += 1
        self.changed.extend(keys)
        return self._index

    def _delete_where(self, condition: ColumnElement[bool]) -> int:
        keys = self._connection.execute(select(entry.c.key).where(condition)).scalars().all()
        if not keys:
            return 0
        index = self._changes(*keys)
        buried = select(entry.c.key, literal(index), literal(int(time.time()))).where(condition)
        self._connection.execute(insert(tombstone).from_select(["key", "modify_index", "deleted_at"], buried))
        self._connection.execute(delete(entry).where(condition))
        return len(keys)


def get_statement(key: str) -> Select[str, bytes, int, int, int, int]:
    """Select the entry with this key."""
    return select(*_COLUMNS).where(entry.c.key == key)


def list_statement(prefix: str) -> Select[str, bytes, int, int, int, int]:
    """Select the entries below a prefix, sorted by key."""
    return select(*_COLUMNS).where(starts_with(entry.c.key, prefix)).order_by(entry.c.key)


def keys_statement(prefix: str) -> Select[str]:
    """Select the names below a prefix, sorted."""
    return select(entry.c.key).where(starts_with(entry.c.key, prefix)).order_by(entry.c.key)


def last_index_statement() -> Select[int]:
    """Select the index of the last change in the whole store."""
    return select(counter.c.last_index)


def prefix_index_statement(prefix: str) -> Select[int | None, int | None, int, int]:
    """Select the highest index of the entries and of the tombstones below a prefix, and the counters."""
    living = select(func.max(entry.c.modify_index)).where(starts_with(entry.c.key, prefix)).scalar_subquery()
    dead = (
        select(func.max(tombstone.c.modify_index)).where(starts_with(tombstone.c.key, prefix)).scalar_subquery()
    )
    return select(living, dead, counter.c.cleared_index, counter.c.last_index)


def starts_with(column: ColumnElement[str], prefix: str) -> ColumnElement[bool]:
    """Compare with a plain string prefix, as a range that an index can answer.

    Keys compare by code point: SQLite's BINARY, and PostgreSQL's "C" collation.
    """
    upper = _successor(prefix)
    return column >= prefix if upper is None else and_(column >= prefix, column < upper)


def _successor(prefix: str) -> str | None:
    """Return the smallest string above every string with this prefix, or None where there is none."""
    trimmed = prefix.rstrip("\U0010ffff")
    if not trimmed:
        return None
    last = ord(trimmed[-1]) + 1
    return trimmed[:-1] + chr(0xE000 if last == 0xD800 else last)  # surrogates are no characters

"""What one write does to the tables: pure statements inside somebody else's transaction."""

import functools
import time
from collections.abc import Sequence

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    bindparam,
    delete,
    func,
    insert,
    literal,
    select,
    update,
)

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


# Built once: making a statement costs SQLAlchemy more than SQLite takes to carry it out. Parameters
# are not named as columns are, whose names SQLAlchemy keeps to itself in updates.
_GET = select(*_COLUMNS).where(entry.c.key == bindparam("name"))
_LAST_INDEX = select(counter.c.last_index)
_LAST_INDEX_LOCKED = _LAST_INDEX.with_for_update()
_SET_LAST_INDEX = update(counter).values(last_index=bindparam("new_index"))
_INSERT = insert(entry)
_UPDATE = (
    update(entry)
    .where(entry.c.key == bindparam("name"))
    .values(
        value=bindparam("new_value"),
        flags=bindparam("new_flags"),
        modify_index=bindparam("new_index"),
        expires_at=bindparam("new_expires_at"),
    )
)
_KEEP = update(entry).where(entry.c.key == bindparam("name")).values(expires_at=bindparam("new_expires_at"))
_UNBURY = delete(tombstone).where(tombstone.c.key == bindparam("name"))
_ACCEPT = insert(request)
_ANSWERED = delete(request).where(request.c.id == bindparam("request_id"))


class Transaction:
    """Writes to the store; `changed` collects the keys whose readers are to be woken after the commit."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        # The row is locked where several servers write: indexes are given out in commit order.
        row = connection.execute(_LAST_INDEX_LOCKED).scalar_one()
        self._index = self._first_index = int(row)
        self.changed: list[str] = []

    def finish(self) -> None:
        """Write the index back; call it last."""
        if self._index != self._first_index:
            self.connection.execute(_SET_LAST_INDEX, {"new_index": self._index})

    def put(self, key: str, value: bytes, flags: int, cas: int | None, keep_s: int | None) -> bool:
        """See `Store.put`."""
        known = self._get(key)
        if cas is not None and cas != (known.modify_index if known else 0):
            return False
        expires_at = None if keep_s is None else int(time.time()) + keep_s
        if known is None:
            self._insert(key, value, flags, expires_at)
        elif (known.value, known.flags) == (value, flags):
            self.connection.execute(_KEEP, {"name": key, "new_expires_at": expires_at})
        else:
            changed = {"new_value": value, "new_flags": flags, "new_expires_at": expires_at}
            self.connection.execute(_UPDATE, {"name": key, "new_index": self._changes(key), **changed})
        return True

    def _insert(self, key: str, value: bytes, flags: int, expires_at: int | None) -> None:
        index = self._changes(key)
        self.connection.execute(_INSERT, _row(key, value, flags, index, expires_at))
        self.connection.execute(_UNBURY, {"name": key})

    def append(self, messages: Sequence[tuple[str, bytes]], keep_s: int) -> list[str]:
        """Write each message below its key, in this order; return the keys. See `Store.append`."""
        first = self._index + 1
        names = [f"{key}/{first + place:0{SEQUENCE_DIGITS}}" for place, (key, _) in enumerate(messages)]
        if self._some_exist(messages, names):
            return [self._append_slowly(key, value, keep_s) for key, value in messages]
        expires_at = int(time.time()) + keep_s
        rows = [
            _row(name, value, 0, first + place, expires_at)
            for place, (name, (_, value)) in enumerate(zip(names, messages, strict=True))
        ]
        if rows:
            self.connection.execute(_INSERT, rows)
        self._index += len(rows)
        self.changed.extend(names)
        return names

    def _some_exist(self, messages: Sequence[tuple[str, bytes]], names: Sequence[str]) -> bool:
        """Whether somebody wrote ahead under one of these names, or wrote it and deleted it."""
        by_key: dict[str, list[str]] = {}
        for (key, _), name in zip(messages, names, strict=True):
            by_key.setdefault(key, []).append(name)
        return any(
            self.connection.execute(
                select(table.c.key).where(table.c.key.between(theirs[0], theirs[-1]))
            ).first()
            for theirs in by_key.values()
            for table in (entry, tombstone)
        )

    def _append_slowly(self, key: str, value: bytes, keep_s: int) -> str:
        while self._get(name := f"{key}/{self._index + 1:0{SEQUENCE_DIGITS}}") is not None:
            self._index += 1  # a message must not be taken for what is there
        self.put(name, value, 0, None, keep_s)
        return name

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
        cleared = self.connection.execute(select(func.max(tombstone.c.modify_index)).where(old)).scalar()
        if cleared is not None:
            self.connection.execute(delete(tombstone).where(old))
            self.connection.execute(
                update(counter).values(cleared_index=cleared).where(counter.c.cleared_index < cleared)
            )
        return swept

    def accept(self, body: bytes) -> int:
        """See `Store.accept`."""
        inserted = self.connection.execute(_ACCEPT, {"body": body}).inserted_primary_key
        assert inserted is not None
        return int(inserted[0])

    def publish(self, request_id: int, key: str, value: bytes, keep_s: int) -> bool:
        """See `Store.publish`."""
        known = self.connection.execute(_ANSWERED, {"request_id": request_id})
        return known.rowcount == 1 and self.put(key, value, 0, None, keep_s)

    def _get(self, key: str) -> Entry | None:
        return get(self.connection, key)

    def _changes(self, *keys: str) -> int:
        self._index += 1
        self.changed.extend(keys)
        return self._index

    def _delete_where(self, condition: ColumnElement[bool]) -> int:
        keys = self.connection.execute(select(entry.c.key).where(condition)).scalars().all()
        if not keys:
            return 0
        index = self._changes(*keys)
        buried = select(entry.c.key, literal(index), literal(int(time.time()))).where(condition)
        self.connection.execute(insert(tombstone).from_select(["key", "modify_index", "deleted_at"], buried))
        self.connection.execute(delete(entry).where(condition))
        return len(keys)


def _row(key: str, value: bytes, flags: int, index: int, expires_at: int | None) -> dict[str, object]:
    return {
        "key": key,
        "value": value,
        "flags": flags,
        "create_index": index,
        "modify_index": index,
        "lock_index": 0,
        "expires_at": expires_at,
    }


def get(connection: Connection, key: str) -> Entry | None:
    """Return the entry with this key, None where there is none."""
    row = connection.execute(_GET, {"name": key}).first()
    return None if row is None else Entry(*row)


def last_index(connection: Connection) -> int:
    """Return the index of the last change in the whole store."""
    return int(connection.execute(_LAST_INDEX).scalar_one())


def entries_below(
    connection: Connection, prefix: str, after: str | None = None, limit: int | None = None
) -> list[Entry]:
    """Return the entries below a prefix, sorted by key; with ``after``, the first ``limit`` behind that key."""
    end = _successor(prefix)
    statement = _entries_below(end is not None, after is not None)
    given = {"first": prefix, "end": end, "after": after, "most": limit}
    return [Entry(*row) for row in connection.execute(statement, given)]


@functools.cache
def _entries_below(has_end: bool, has_after: bool) -> Select[str, bytes, int, int, int, int]:
    statement = select(*_COLUMNS).where(_is_below(entry.c.key, has_end)).order_by(entry.c.key)
    return (
        statement.where(entry.c.key > bindparam("after")).limit(bindparam("most")) if has_after else statement
    )


def keys_statement(prefix: str) -> Select[str]:
    """Select the names below a prefix, sorted."""
    return select(entry.c.key).where(starts_with(entry.c.key, prefix)).order_by(entry.c.key)


def prefix_index(connection: Connection, prefix: str) -> int:
    """Return the index of the last change below a prefix, of the whole store where it had never anything."""
    end = _successor(prefix)
    rows = connection.execute(_prefix_index(end is not None), {"first": prefix, "end": end})
    living, dead, cleared, last = rows.one()
    return last if living is None and dead is None else max(living or 0, dead or 0, cleared)


@functools.cache
def _prefix_index(has_end: bool) -> Select[int | None, int | None, int, int]:
    living, dead = (
        select(func.max(table.c.modify_index)).where(_is_below(table.c.key, has_end)).scalar_subquery()
        for table in (entry, tombstone)
    )
    return select(living, dead, counter.c.cleared_index, counter.c.last_index)


def _is_below(column: ColumnElement[str], has_end: bool) -> ColumnElement[bool]:
    """Do as `starts_with`, with the prefix as a parameter and, where there is one, what is above all of it."""
    begins = column >= bindparam("first")
    return and_(begins, column < bindparam("end")) if has_end else begins


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

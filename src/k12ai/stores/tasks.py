"""The records of tasks: statements inside somebody else's transaction."""

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select, update

from k12ai.errors import TaskRunning
from k12ai.stores.schema import account, task
from k12ai.stores.transactions import Transaction
from k12ai.task import Task, decode_task, encode


def create(
    transaction: Transaction,
    new: Task,
    messages: Sequence[tuple[str, bytes]],
    idempotency_key: str | None,
    keep_s: int,
) -> Task:
    """See `Store.create_task`."""
    connection = transaction.connection
    if idempotency_key is not None:
        same = (task.c.user == new.user) & (task.c.idempotency_key == idempotency_key)
        known = connection.execute(select(task.c.body).where(same)).scalar()
        if known is not None:
            return decode_task(known)
    place = (task.c.user == new.user) & (task.c.service_uuid == new.service_uuid) & (task.c.op == new.op)
    running = connection.execute(select(task.c.id).where(place, task.c.active)).scalar()
    if running is not None:
        raise TaskRunning(str(running))
    connection.execute(
        insert(task).values(
            id=new.task_id,
            user=new.user,
            service_uuid=new.service_uuid,
            op=new.op,
            active=not new.ended,
            idempotency_key=idempotency_key,
            body=encode(new),
            journal_offset=0,
        )
    )
    transaction.append(messages, keep_s)
    return new


def record(
    transaction: Transaction,
    changed: Task,
    messages: Sequence[tuple[str, bytes]],
    journal_offset: int | None,
    keep_s: int,
) -> None:
    """See `Store.record_task`."""
    values: dict[str, object] = {"body": encode(changed), "active": not changed.ended}
    if journal_offset is not None:
        values["journal_offset"] = journal_offset
    if changed.ended and changed.ended_at is not None:
        values["ended_at"] = int(changed.ended_at.timestamp())
    transaction.connection.execute(update(task).where(task.c.id == changed.task_id).values(values))
    transaction.append(messages, keep_s)


def get(connection: Connection, task_id: str) -> Task | None:
    """See `Store.task`."""
    body = connection.execute(select(task.c.body).where(task.c.id == task_id)).scalar()
    return None if body is None else decode_task(body)


def find(
    connection: Connection,
    users: Collection[str] | None,
    service_uuid: str | None,
    op: str | None,
    active: bool | None,
    limit: int,
) -> list[Task]:
    """See `Store.tasks`."""
    statement = select(task.c.body).order_by(task.c.position.desc()).limit(limit)
    if users is not None:
        statement = statement.where(task.c.user.in_(sorted(users)))
    for column, wanted in ((task.c.service_uuid, service_uuid), (task.c.op, op)):
        if wanted is not None:
            statement = statement.where(column == wanted)
    if active is not None:
        statement = statement.where(task.c.active == active)
    return [decode_task(body) for body in connection.execute(statement).scalars()]


def journal_offset(connection: Connection, task_id: str) -> int:
    """See `Store.journal_offset`."""
    return int(connection.execute(select(task.c.journal_offset).where(task.c.id == task_id)).scalar() or 0)


def forget(transaction: Transaction, ended_before: datetime) -> list[str]:
    """See `Store.forget_tasks`."""
    old = task.c.active.is_(False) & (task.c.ended_at < int(ended_before.timestamp()))
    ids = list(transaction.connection.execute(select(task.c.id).where(old)).scalars())
    if ids:
        transaction.connection.execute(delete(task).where(old))
    return ids


def account_number(transaction: Transaction, user: str) -> int:
    """See `Store.account_number`."""
    connection = transaction.connection
    known = connection.execute(select(account.c.id).where(account.c.user == user)).scalar()
    if known is not None:
        return int(known)
    inserted = connection.execute(insert(account).values(user=user)).inserted_primary_key
    assert inserted is not None
    return int(inserted[0])

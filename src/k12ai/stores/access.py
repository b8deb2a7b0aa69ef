"""Tokens, classes and the audit: statements inside somebody else's transaction."""

from collections.abc import Sequence
from datetime import datetime

import msgspec
from sqlalchemy import Connection, delete, insert, select, update

from k12ai.people import AuditEntry, Classroom, TokenInfo
from k12ai.stores.base import AuditQuery, StoredToken
from k12ai.stores.schema import audit, classroom, token

_encode = msgspec.json.Encoder().encode
_token = msgspec.json.Decoder(TokenInfo).decode
_classroom = msgspec.json.Decoder(Classroom).decode
_entry = msgspec.json.Decoder(AuditEntry).decode

_ADD_AUDIT = insert(audit)


def tokens(connection: Connection) -> list[StoredToken]:
    """See `Store.tokens`."""
    rows = connection.execute(select(token.c.body, token.c.digest).order_by(token.c.position))
    return [StoredToken(_token(body), digest) for body, digest in rows]


def add_tokens(connection: Connection, new: Sequence[StoredToken]) -> None:
    """See `Store.add_tokens`."""
    rows = [{"id": each.info.id, "digest": each.digest, "body": _encode(each.info)} for each in new]
    if rows:
        connection.execute(insert(token), rows)


def revoke_token(connection: Connection, token_id: str, at: datetime) -> None:
    """See `Store.revoke_token`."""
    body = connection.execute(select(token.c.body).where(token.c.id == token_id)).scalar()
    if body is not None:
        revoked = msgspec.structs.replace(_token(body), revoked_at=at)
        connection.execute(update(token).where(token.c.id == token_id).values(body=_encode(revoked)))


def classes(connection: Connection) -> list[Classroom]:
    """See `Store.classes`."""
    bodies = connection.execute(select(classroom.c.body).order_by(classroom.c.name)).scalars()
    return [_classroom(body) for body in bodies]


def put_class(connection: Connection, new: Classroom) -> None:
    """See `Store.put_class`."""
    delete_class(connection, new.name)
    connection.execute(insert(classroom).values(name=new.name, body=_encode(new)))


def delete_class(connection: Connection, name: str) -> None:
    """See `Store.delete_class`."""
    connection.execute(delete(classroom).where(classroom.c.name == name))


def add_audit(connection: Connection, entry: AuditEntry) -> None:
    """See `Store.add_audit`."""
    row = {
        "at": int(entry.at.timestamp() * 1000),
        "user": entry.user,
        "action": entry.action,
        "body": _encode(entry),
    }
    connection.execute(_ADD_AUDIT, row)


def find_audit(connection: Connection, query: AuditQuery) -> list[AuditEntry]:
    """See `Store.audit`."""
    statement = select(audit.c.sequence, audit.c.body).order_by(audit.c.sequence.desc()).limit(query.limit)
    if query.users is not None:
        statement = statement.where(audit.c.user.in_(sorted(query.users)))
    if query.action is not None:
        statement = statement.where(audit.c.action == query.action)
    if query.since is not None:
        statement = statement.where(audit.c.at >= int(query.since.timestamp() * 1000))
    if query.before is not None:
        statement = statement.where(audit.c.sequence < query.before)
    return [
        msgspec.structs.replace(_entry(body), sequence=sequence)
        for sequence, body in connection.execute(statement)
    ]


def forget_audit(connection: Connection, before: datetime) -> int:
    """See `Store.forget_audit`."""
    return connection.execute(delete(audit).where(audit.c.at < int(before.timestamp() * 1000))).rowcount

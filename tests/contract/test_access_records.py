"""Tokens, classes and the audit, as every store keeps them."""

from datetime import UTC, datetime, timedelta

import msgspec

from k12ai.people import AuditEntry, Classroom, TokenInfo
from k12ai.stores.base import AuditQuery, Store, StoredToken
from tests.contract.conftest import OpenStore

NOON = datetime(2026, 9, 1, 12, tzinfo=UTC)


def token(number: int) -> StoredToken:
    info = TokenInfo(id=f"{number:08x}", user="li", role="student", created_at=NOON)
    return StoredToken(info, bytes([number]) * 32)


def entry(minute: int, **fields: object) -> AuditEntry:
    values: dict[str, object] = {
        "at": NOON + timedelta(minutes=minute), "user": "li", "role": "student", "token_id": "00000001",
        "address": "192.0.2.1", "action": "task.stop", "subject": "x", "status": 200, "request_id": "r",
    }  # fmt: skip
    return AuditEntry(**(values | fields))  # type: ignore[arg-type]


async def test_tokens_are_there_again_in_the_order_they_were_made(open_store: OpenStore) -> None:
    async with open_store() as store:
        await store.add_tokens([token(2), token(1)])
        await store.add_tokens([])
        await store.revoke_token(token(1).info.id, NOON)
        await store.revoke_token("ffffffff", NOON)
    async with open_store() as store:
        second, first = await store.tokens()
    assert second == token(2)
    assert first.info == msgspec.structs.replace(token(1).info, revoked_at=NOON)
    assert first.digest == token(1).digest


async def test_a_class_is_what_was_said_last(open_store: OpenStore) -> None:
    async with open_store() as store:
        for name in ("b", "a"):
            await store.put_class(Classroom(name, ["zhang"], ["li"]))
        await store.put_class(Classroom("a", [], ["wang"]))
        await store.put_class(Classroom("c", [], []))
        await store.delete_class("c")
        await store.delete_class("d")
    async with open_store() as store:
        assert await store.classes() == [Classroom("a", [], ["wang"]), Classroom("b", ["zhang"], ["li"])]


async def test_the_audit_is_read_newest_first_and_narrowed(store: Store) -> None:
    for minute, user in enumerate(("li", "wang", "li", "")):
        await store.add_audit(entry(minute, user=user, action="task.stop" if minute else "kv.put"))

    async def minutes(**query: object) -> list[int]:
        found = await store.audit(AuditQuery(**query))  # type: ignore[arg-type]
        return [int((each.at - NOON).total_seconds()) // 60 for each in found]

    assert await minutes() == [3, 2, 1, 0]
    assert await minutes(users={"li"}) == [2, 0]
    assert await minutes(users=set()) == []
    assert await minutes(action="kv.put") == [0]
    assert await minutes(since=NOON + timedelta(minutes=2)) == [3, 2]
    assert await minutes(limit=2) == [3, 2]
    (_, last) = await store.audit(AuditQuery(limit=2))
    assert await minutes(before=last.sequence) == [1, 0]


async def test_what_was_done_long_ago_is_forgotten_and_no_sequence_comes_again(store: Store) -> None:
    for minute in range(4):
        await store.add_audit(entry(minute))
    assert await store.forget_audit(NOON + timedelta(minutes=2)) == 2
    assert await store.forget_audit(NOON + timedelta(minutes=9)) == 2
    await store.add_audit(entry(5))
    assert [each.sequence for each in await store.audit(AuditQuery())] == [5]

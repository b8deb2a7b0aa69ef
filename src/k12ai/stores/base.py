"""What a store promises: keys with values, one index that only grows, and requests that outlive a crash.

The semantics are those of Consul's key-value store, because that is what the published clients read
results from. Every change is durable before its method returns.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import NamedTuple

from msgspec import Struct

from k12ai.people import AuditEntry, Classroom, TokenInfo
from k12ai.stores.waiters import Waiter
from k12ai.task import Task


class Entry(NamedTuple):
    """One key and its value.

    The indexes come from one counter for the whole store that grows with every change;
    ``modify_index`` is its value at the entry's last change.
    """

    key: str
    value: bytes
    flags: int
    create_index: int
    modify_index: int
    lock_index: int = 0


class Found(Struct, frozen=True):
    """The entries under a prefix, sorted by key, and the index that a blocking read goes on from."""

    entries: Sequence[Entry]
    index: int


class FoundKeys(Struct, frozen=True):
    """The names under a prefix, sorted, and the index that a blocking read goes on from."""

    keys: Sequence[str]
    index: int


def cut(names: Sequence[str], prefix: str, separator: str) -> list[str]:
    """Return names each cut after its first separator past the prefix, once each."""
    if not separator:
        return list(names)
    cut: dict[str, None] = {}  # keeps the order and drops what repeats
    for name in names:
        end = name.find(separator, len(prefix))
        cut[name if end < 0 else name[: end + len(separator)]] = None
    return list(cut)


class PendingRequest(NamedTuple):
    """An asynchronous request that was acknowledged and has no result yet."""

    request_id: int
    body: bytes


class StoredToken(NamedTuple):
    """A token as it is kept: without its secret, of which ``digest`` is the SHA-256."""

    info: TokenInfo
    digest: bytes


class AuditQuery(Struct, frozen=True, kw_only=True):
    """Which entries of the audit are wanted; ``before`` is the sequence to go on from, towards the past."""

    users: Collection[str] | None = None
    action: str | None = None
    since: datetime | None = None
    before: int | None = None
    limit: int = 100


class Store(ABC):
    """Keys, values and pending requests.

    Methods raise `StorageFull` when there is no room; then nothing has changed. They raise
    `StorageUnavailable` when the store does not answer in time; then a write that was under way may
    still happen, one that waited does not.
    """

    @abstractmethod
    async def get(self, key: str) -> Found:
        """Return the entry, or none, with its own index; for a missing key, the store's."""

    @abstractmethod
    async def list(self, prefix: str) -> Found:
        """Return the entries whose key starts with ``prefix``, a plain string prefix.

        The index covers what was deleted below the prefix as well, so it never goes back.
        """

    @abstractmethod
    async def behind(self, last_read: Mapping[str, str], limit: int) -> Sequence[Entry]:
        """Return what has come below several prefixes, of each behind the key that was read last.

        Of each the first ``limit`` entries, sorted by key.
        """

    @abstractmethod
    async def keys(self, prefix: str, separator: str = "") -> FoundKeys:
        """Return the names below ``prefix``, each cut after its first separator past the prefix."""

    @abstractmethod
    async def put(
        self, key: str, value: bytes, *, flags: int = 0, cas: int | None = None, keep_s: int | None = None
    ) -> bool:
        """Write a value; return False where ``cas`` lost.

        ``cas=0`` writes only a key that does not exist, ``cas=N`` only one whose ``modify_index``
        is N. Writing what is already there changes no index and wakes nobody. With ``keep_s`` the
        entry is deleted that many seconds later, else never.
        """

    @abstractmethod
    async def append(self, key: str, values: Sequence[bytes], *, keep_s: int) -> Sequence[str]:
        """Write messages below ``key``, all or none, and return their keys: ``<key>/<sequence>``.

        The sequence is the store's index at that message, zero-padded: it never repeats, no clock has
        a say in it, and the order of the keys is the order in which the messages were written.
        """

    @abstractmethod
    async def delete(self, key: str, *, cas: int | None = None) -> bool:
        """Delete a key; return False where ``cas`` lost. A missing key is deleted already."""

    @abstractmethod
    async def delete_prefix(self, prefix: str) -> None:
        """Delete every key that starts with ``prefix``, a plain string prefix."""

    @abstractmethod
    def waiting(self, key: str, *, prefix: bool) -> AbstractContextManager[Waiter]:
        """Register for changes of ``key``, or of every key that starts with it.

        Register before reading: a change after the entry is never missed.
        """

    @abstractmethod
    async def accept(self, body: bytes) -> int:
        """Record a request that is about to be acknowledged; return its id."""

    @abstractmethod
    async def publish(self, request_id: int, key: str, value: bytes, *, keep_s: int) -> None:
        """Write a request's result and forget the request, both or neither.

        A request that is forgotten already is left alone, so that this can be repeated.
        """

    @abstractmethod
    async def pending(self) -> Sequence[PendingRequest]:
        """Return the requests without a result, oldest first."""

    # --- tasks -----------------------------------------------------------------------------------

    @abstractmethod
    async def create_task(
        self, task: Task, messages: Sequence[tuple[str, bytes]], *, idempotency_key: str | None, keep_s: int
    ) -> Task:
        """Record a task with its first messages; this is the moment from which it exists.

        With an ``idempotency_key`` that this user sent before, the task of then is returned and
        nothing is written. Raises `TaskRunning` where the project has a task of this op that has not
        ended.
        """

    @abstractmethod
    async def record_task(
        self,
        task: Task,
        messages: Sequence[tuple[str, bytes]],
        *,
        journal_offset: int | None = None,
        keep_s: int,
    ) -> None:
        """Write a task's new state, what is said of it, and how far its journal was read: all or none.

        ``messages`` are pairs of a key and a value, appended as `append` does.
        """

    @abstractmethod
    async def task(self, task_id: str) -> Task | None:
        """Return a task, or None where there is none of that id."""

    @abstractmethod
    async def tasks(
        self,
        *,
        users: Collection[str] | None = None,
        service_uuid: str | None = None,
        op: str | None = None,
        active: bool | None = None,
        limit: int = 1000,
    ) -> Sequence[Task]:
        """Return the tasks that fit, newest first; ``active`` ones have not ended."""

    @abstractmethod
    async def journal_offset(self, task_id: str) -> int:
        """Return how many bytes of a task's journal have become messages."""

    @abstractmethod
    async def forget_tasks(self, ended_before: datetime) -> Sequence[str]:
        """Delete the records of tasks that ended before then; return their ids."""

    @abstractmethod
    async def account_number(self, user: str) -> int:
        """Return a user's number: small, never given to another, the same for ever."""

    @abstractmethod
    async def sweep(self) -> int:
        """Delete what is past its time; return how many keys that was."""

    # --- access ----------------------------------------------------------------------------------

    @abstractmethod
    async def tokens(self) -> Sequence[StoredToken]:
        """Return every token that was ever made, oldest first."""

    @abstractmethod
    async def add_tokens(self, tokens: Sequence[StoredToken]) -> None:
        """Record new tokens, all or none."""

    @abstractmethod
    async def revoke_token(self, token_id: str, at: datetime) -> None:
        """Record that a token is of no use from then on."""

    @abstractmethod
    async def classes(self) -> Sequence[Classroom]:
        """Return every class, sorted by name."""

    @abstractmethod
    async def put_class(self, classroom: Classroom) -> None:
        """Record who is in a class, in place of who was."""

    @abstractmethod
    async def delete_class(self, name: str) -> None:
        """Forget a class."""

    @abstractmethod
    async def add_audit(self, entry: AuditEntry) -> None:
        """Record what somebody did; its sequence is given here."""

    @abstractmethod
    async def audit(self, query: AuditQuery) -> Sequence[AuditEntry]:
        """Return what was done, newest first."""

    @abstractmethod
    async def forget_audit(self, before: datetime) -> int:
        """Delete what was recorded before then; return how many entries that was."""

"""``k12ai token … --data-dir``: tokens of a server that does not run, made where its store is."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from k12ai.access.book import AccessBook
from k12ai.access.principal import Principal
from k12ai.cli.exits import EXIT_REFUSED, EXIT_USAGE, CommandFailed
from k12ai.client.client import local_user
from k12ai.errors import K12AIError
from k12ai.people import AuditEntry, NewToken, TokenInfo, TokenRequest
from k12ai.settings import Settings
from k12ai.stores.base import Store
from k12ai.stores.sql import FILE, SqlStore
from k12ai.texts import Text

T = TypeVar("T")

# Who can write to the store can do everything already.
_OPERATOR = Principal("", "admin", None)


def create(data_dir: str, request: TokenRequest) -> NewToken:
    """Make a token. Raises `SettingsError` where a server has the directory."""

    async def work(book: AccessBook, store: Store) -> NewToken:
        made = await book.issue(request, _OPERATOR)
        await _record(store, "token.create", f"{made.id} of {made.user} as {made.role}", 201)
        return made

    return _with_book(data_dir, work)


def revoke(data_dir: str, token_id: str) -> TokenInfo:
    """End a token."""

    async def work(book: AccessBook, store: Store) -> TokenInfo:
        revoked = await book.revoke(token_id, _OPERATOR)
        await _record(store, "token.revoke", f"{revoked.id} of {revoked.user}", 200)
        return revoked

    return _with_book(_existing(data_dir), work)


def tokens(data_dir: str) -> list[TokenInfo]:
    """Return all tokens."""

    async def work(book: AccessBook, _: Store) -> list[TokenInfo]:
        return list(book.tokens(_OPERATOR))

    return _with_book(_existing(data_dir), work)


def _existing(data_dir: str) -> str:
    """Return the directory, which must have a store: a mistyped one would only look as if nothing was there."""
    if not (Path(data_dir) / FILE).exists():
        raise CommandFailed(
            EXIT_USAGE,
            Text(f"--data-dir {data_dir}: no store is there", f"--data-dir {data_dir}：此处没有数据"),
        )
    return data_dir


async def _record(store: Store, action: str, subject: str, status: int) -> None:
    await store.add_audit(
        AuditEntry(
            at=datetime.now(UTC),
            user=local_user(),
            role="operator",
            token_id="",
            address="",
            action=action,
            subject=subject,
            status=status,
            request_id="",
        )
    )


def _with_book(data_dir: str, work: Callable[[AccessBook, Store], Awaitable[T]]) -> T:
    settings = Settings.load({"data_dir": data_dir})

    async def run() -> T:
        async with SqlStore(Path(settings.data_dir)) as store:
            book = AccessBook(store, lifetime_s=settings.token_lifetime_s)
            await book.load()
            return await work(book, store)

    try:
        return asyncio.run(run())
    except K12AIError as error:
        raise CommandFailed(EXIT_REFUSED, error.detail) from None

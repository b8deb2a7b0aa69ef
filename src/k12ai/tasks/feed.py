"""What a task says, for readers who come back with a cursor or stay and wait."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from k12ai.closing import Closing
from k12ai.stores.base import Entry, Store
from k12ai.stores.transactions import SEQUENCE_DIGITS
from k12ai.task import Message, Messages, MessageType, Task

TYPES: tuple[MessageType, ...] = ("status", "metrics", "error", "result")
MAX_MESSAGES = 1000
MAX_WAIT_S = 600.0


class _Envelope(Struct):
    type: MessageType
    timestamp: int
    task_id: str = ""
    status: Any = None
    metrics: Any = None
    error: Any = None
    result: Any = None


_decoder = msgspec.json.Decoder(_Envelope)


class Feed:
    """Reads messages of tasks; nobody polls, a write wakes who waits."""

    def __init__(self, store: Store, closing: Closing) -> None:
        self._store = store
        self._closing = closing

    async def after(
        self, task: Task, cursor: int, *, types: Sequence[MessageType] = TYPES, wait_s: float = 0.0
    ) -> Messages:
        """Return a task's messages behind ``cursor``, at most `MAX_MESSAGES`, in order.

        Where there is none, waits for one up to ``wait_s`` seconds, or until the server stops.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + min(wait_s, MAX_WAIT_S)
        with self._store.waiting(f"{task.key}/", prefix=True) as waiter:
            while True:
                found = await self._read(task, cursor, types)
                left_s = deadline - loop.time()
                if found.messages or left_s <= 0 or self._closing.started:
                    return found
                ends = [asyncio.ensure_future(waiter.changed()), asyncio.ensure_future(self._closing.wait())]
                try:
                    await asyncio.wait(ends, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for each in ends:
                        each.cancel()

    async def _read(self, task: Task, cursor: int, types: Sequence[MessageType]) -> Messages:
        prefixes = [f"{task.key}/{kind}/" for kind in types]
        last_read = {prefix: f"{prefix}{cursor:0{SEQUENCE_DIGITS}}" for prefix in prefixes}
        found = await self._store.behind(last_read, MAX_MESSAGES)
        entries = sorted(found, key=lambda entry: entry.create_index)[:MAX_MESSAGES]
        read = [message for entry in entries if (message := _message(entry)) is not None]
        messages = [message for message in read if message.task_id == task.task_id]
        return Messages(messages, entries[-1].create_index if entries else cursor)


def _message(entry: Entry) -> Message | None:
    """Return the message in an entry; None for what somebody else has written there."""
    try:
        found = _decoder.decode(entry.value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return Message(
        task_id=found.task_id,
        type=found.type,
        sequence=entry.create_index,
        timestamp=found.timestamp,
        body=getattr(found, found.type),
    )

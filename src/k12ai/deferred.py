"""Asynchronous requests: accepted durably, carried out after the answer, published under a key."""

import asyncio
import datetime
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import msgspec
import structlog
from msgspec import Struct

from k12ai.access.principal import OPEN, Principal
from k12ai.background import Background
from k12ai.errors import InternalError, K12AIError, TooManyRequestsPending
from k12ai.models import ENVELOPE_VERSION, Answer, PlatformRequest, ResultEnvelope
from k12ai.stores.base import Store
from k12ai.texts import Language

# Nothing is published earlier than this after its 202, so that a client's "post, then delete the
# key, then read it" finds the new result. The promise is 0.5 s as the client sees it.
FLOOR_S = 0.55
RETRY_S = 1.0
MAX_PENDING = 1000

log = structlog.stdlib.get_logger(__name__)


class DeferredRequest(Struct, frozen=True):
    """What is kept of a request until its result is published, and on whose behalf it is carried out."""

    request: PlatformRequest
    language: Language
    principal: Principal = OPEN

    @property
    def key(self) -> str:
        """The key that the 202 names."""
        return f"platform/{self.request.user}/{self.request.service_uuid}/{self.request.op}"


class Ticket(NamedTuple):
    """An accepted request and its id in the store."""

    request_id: int
    deferred: DeferredRequest


class Deferred:
    """Carries out accepted requests and publishes what the synchronous answer would have been.

    ``perform`` returns that answer or raises an error of the tree. A request that was accepted
    when the server died is carried out when it starts again.
    """

    def __init__(
        self,
        store: Store,
        background: Background,
        perform: Callable[[PlatformRequest, Language, Principal], Awaitable[Answer]],
        *,
        keep_s: int,
        max_pending: int = MAX_PENDING,
    ) -> None:
        self._store = store
        self._background = background
        self._perform = perform
        self._keep_s = keep_s
        self._max_pending = max_pending
        self._pending = 0

    async def resume(self) -> None:
        """Take up what an earlier run of the server accepted and did not finish."""
        for request_id, body in await self._store.pending():
            try:
                deferred = msgspec.json.decode(body, type=DeferredRequest)
            except msgspec.DecodeError:
                log.error("deferred.unreadable", request=request_id)  # kept, for a version that can read it
                continue
            self._pending += 1
            self.begin(Ticket(request_id, deferred))

    async def accept(self, request: PlatformRequest, language: Language, principal: Principal = OPEN) -> Ticket:
        """Record a request durably; from here on it is carried out, whatever happens.

        Raises `TooManyRequestsPending`, and the store's errors.
        """
        if self._pending >= self._max_pending:
            raise TooManyRequestsPending(self._max_pending)
        self._pending += 1
        deferred = DeferredRequest(request, language, principal)
        try:
            request_id = await self._store.accept(msgspec.json.encode(deferred))
        except BaseException:
            self._pending -= 1
            raise
        return Ticket(request_id, deferred)

    def begin(self, ticket: Ticket) -> None:
        """Start to carry out a request; call it once its 202 has been sent."""
        self._background.start(f"deferred-{ticket.request_id}", self._carry_out(ticket))

    async def _carry_out(self, ticket: Ticket) -> None:
        not_before = time.monotonic() + FLOOR_S
        answer = await self._answer(ticket)
        await asyncio.sleep(not_before - time.monotonic())
        await self._publish(ticket, msgspec.json.encode(_envelope(ticket.deferred.request, answer)))
        self._pending -= 1

    async def _answer(self, ticket: Ticket) -> Answer:
        deferred = ticket.deferred
        language = deferred.language
        try:
            return await self._perform(deferred.request, language, deferred.principal)
        except K12AIError as error:
            return answer_of(error, language)
        except Exception:
            log.exception("deferred.failed", key=deferred.key)
            return answer_of(InternalError(), language)

    async def _publish(self, ticket: Ticket, value: bytes) -> None:
        while True:
            try:
                return await self._store.publish(
                    ticket.request_id, f"{ticket.deferred.key}/result", value, keep_s=self._keep_s
                )
            except Exception as error:  # noqa: BLE001 - acknowledged: it is tried until it is stored
                log.warning("publish.retry", key=ticket.deferred.key, reason=repr(error)[:500])
                await asyncio.sleep(RETRY_S)


def answer_of(error: K12AIError, language: Language) -> Answer:
    """Return the body that says what went wrong."""
    return Answer(error.code, error.row.text.pick(language), error.detail.pick(language))


def _envelope(request: PlatformRequest, answer: Answer) -> ResultEnvelope:
    now = datetime.datetime.now().astimezone()
    return ResultEnvelope(
        version=ENVELOPE_VERSION,
        type="result",
        tag="platform",
        user=request.user,
        service_uuid=request.service_uuid,
        op=request.op,
        timestamp=int(now.timestamp() * 1000),
        datetime=now.strftime("%Y-%m-%d %H:%M:%S"),
        result=answer,
    )

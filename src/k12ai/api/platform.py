"""``/k12ai/platform``: what the machine is doing, and stopping containers."""

import msgspec
from litestar.types import HTTPScope, Receive, Send

from k12ai.api import wire
from k12ai.api.answers import language_of, published
from k12ai.api.audit import about
from k12ai.api.roles import principal_of
from k12ai.closing import Closing
from k12ai.deferred import Deferred
from k12ai.envelope import decode_params, decode_request
from k12ai.models import AcceptedMessage, Answer, PlatformRequest, StopParams
from k12ai.platform import CONTAINER_STOP, QUERY, Platform, check_params


class PlatformRoutes:
    """The two published routes. Each reads the envelope, calls one thing and answers."""

    def __init__(
        self, platform: Platform, deferred: Deferred, closing: Closing, *, max_body_bytes: int
    ) -> None:
        self._platform = platform
        self._deferred = deferred
        self._closing = closing
        self._max_body_bytes = max_body_bytes

    def routes(self) -> dict[str, wire.HttpApp]:
        """Return the routes by path."""
        return {
            "/k12ai/platform/stats": published("POST")(self.stats),
            "/k12ai/platform/control": published("POST")(self.control),
        }

    async def stats(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        """Answer with the latest figures, or accept a request for fresh ones."""
        request = await self._request(scope, receive, QUERY)
        if request.is_async:
            await self._accept(request, scope, send)
        else:
            answer = self._platform.stats(request, language_of(scope), principal_of(scope))
            await wire.send_answer(send, 200, answer)

    async def control(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        """Stop a container now, or accept a request to do so."""
        request = await self._request(scope, receive, CONTAINER_STOP)
        about(scope, CONTAINER_STOP, f"container {decode_params(request.service_params, StopParams).id}")
        if request.is_async:
            await self._accept(request, scope, send)
        else:
            stopping = self._platform.stop(request, language_of(scope), principal_of(scope))
            answer = await self._closing.unless(stopping)
            await wire.send_answer(send, 200, msgspec.json.encode(answer))

    async def _request(self, scope: HTTPScope, receive: Receive, op: str) -> PlatformRequest:
        wire.require_json(scope)
        request = decode_request(await wire.read_body(scope, receive, self._max_body_bytes), (op,))
        principal_of(scope).require(request.user)
        return request

    async def _accept(self, request: PlatformRequest, scope: HTTPScope, send: Send) -> None:
        check_params(request)
        language = language_of(scope)
        ticket = await self._deferred.accept(request, language, principal_of(scope))
        try:
            accepted = Answer.success(AcceptedMessage(ticket.deferred.key), language)
            await wire.send_answer(send, 202, msgspec.json.encode(accepted))
        finally:
            self._deferred.begin(ticket)  # also where the caller has gone: it was accepted

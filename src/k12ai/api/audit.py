"""Writing down who did what, before they hear that it is done."""

from datetime import UTC, datetime

import structlog
from litestar.types import HTTPScope, Message, Receive, Send

from k12ai.access.principal import OPEN, Principal
from k12ai.api.answers import REQUEST_ID
from k12ai.api.identify import ADDRESS
from k12ai.api.roles import ACTION, PRINCIPAL
from k12ai.api.wire import HttpApp
from k12ai.errors import K12AIError
from k12ai.people import AuditEntry
from k12ai.stores.base import Store

SUBJECT = "k12ai.subject"
MAX_SUBJECT = 300
# In open mode nobody is anybody, and the store is every program's notebook.
_NOT_IN_OPEN_MODE = frozenset({"kv.put", "kv.delete"})

log = structlog.stdlib.get_logger(__name__)


def about(scope: HTTPScope, action: str, subject: str) -> None:
    """Say what a request turned out to do, and to what; without, its route and path have to do."""
    scope["state"][ACTION] = action
    scope["state"][SUBJECT] = subject


class Audit:
    """Records each request whose route is audited, together with its outcome."""

    def __init__(self, app: HttpApp, store: Store) -> None:
        self._app = app
        self._store = store

    async def __call__(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        """Hand the request on; record it before its answer goes out."""

        async def send_recorded(message: Message) -> None:
            if message["type"] == "http.response.start" and ACTION in scope["state"]:
                await self._record(scope, message["status"])
            await send(message)

        try:
            await self._app(scope, receive, send_recorded)
        except Exception:
            if (
                ACTION in scope["state"]
            ):  # a fault of ours, which is answered further out: how far it got is unknown
                await self._record(scope, 500)
            raise

    async def _record(self, scope: HTTPScope, status: int) -> None:
        state = scope["state"]
        action = state.pop(ACTION)
        principal: Principal | None = state.get(PRINCIPAL)
        if principal is OPEN and action in _NOT_IN_OPEN_MODE:
            return
        entry = AuditEntry(
            at=datetime.now(UTC),
            user=principal.user if principal else "",
            role="open" if principal is OPEN else principal.role if principal else "",
            token_id=principal.token_id if principal else "",
            address=state.get(ADDRESS, ""),
            action=action,
            subject=str(state.get(SUBJECT, scope["path"]))[:MAX_SUBJECT],
            status=status,
            request_id=state[REQUEST_ID],
        )
        try:
            await self._store.add_audit(entry)
        except K12AIError as error:
            # The deed is done. A full disk must not keep anybody from stopping a task: the log has it.
            log.warning("audit.not_stored", action=action, subject=entry.subject, user=entry.user,
                        status=status, reason=str(error))  # fmt: skip

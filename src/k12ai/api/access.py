"""``/api/v1/me``, ``/tokens``, ``/classes`` and ``/audit``: who may do what, and who did."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from litestar import HttpMethod, Request, Response, get, route
from litestar.handlers import HTTPRouteHandler

from k12ai.access.book import AccessBook
from k12ai.api import wire
from k12ai.api.audit import about
from k12ai.api.parameters import json_response, whole
from k12ai.api.roles import principal_of
from k12ai.envelope import decode_body
from k12ai.errors import InvalidValue
from k12ai.people import ClassRequest, TokenRequest
from k12ai.projects import check_identifier
from k12ai.stores.base import AuditQuery, Store
from k12ai.texts import Text

MAX_AUDIT = 1000
_ACTION = re.compile(r"[a-z]{1,20}\.[a-z]{1,20}")

AnyRequest = Request[Any, Any, Any]


class AccessRoutes:
    """The resources of access."""

    def __init__(self, book: AccessBook, store: Store) -> None:
        self._book = book
        self._store = store

    def handlers(self) -> Sequence[HTTPRouteHandler]:
        """Return the routes for the application."""

        @get("/api/v1/me")
        async def me(request: AnyRequest) -> Response[bytes]:
            return json_response(self._book.me(principal_of(request.scope)))

        @route("/api/v1/tokens", http_method=[HttpMethod.GET, HttpMethod.POST])
        async def tokens(request: AnyRequest) -> Response[bytes]:
            return await (self._issue if request.method == HttpMethod.POST else self._tokens)(request)

        @route("/api/v1/tokens/{token_id:str}", http_method=[HttpMethod.DELETE], status_code=200)
        async def token(request: AnyRequest) -> Response[bytes]:
            revoked = await self._book.revoke(request.path_params["token_id"], principal_of(request.scope))
            about(request.scope, "token.revoke", f"{revoked.id} of {revoked.user}")
            return json_response(revoked)

        @get("/api/v1/classes")
        async def classes(request: AnyRequest) -> Response[bytes]:
            return json_response({"classes": self._book.classes(principal_of(request.scope))})

        @route("/api/v1/classes/{name:str}", http_method=[HttpMethod.PUT, HttpMethod.DELETE], status_code=200)
        async def classroom(request: AnyRequest) -> Response[bytes]:
            return await (self._set if request.method == HttpMethod.PUT else self._delete)(request)

        @get("/api/v1/audit")
        async def audit(request: AnyRequest) -> Response[bytes]:
            return json_response({"entries": await self._store.audit(_query(request))})

        return [me, tokens, token, classes, classroom, audit]

    async def _tokens(self, request: AnyRequest) -> Response[bytes]:
        found = self._book.tokens(principal_of(request.scope), request.query_params.get("user"))
        return json_response({"tokens": found})

    async def _issue(self, request: AnyRequest) -> Response[bytes]:
        wire.require_json(request.scope)
        wanted = decode_body(await request.body(), TokenRequest)
        made = await self._book.issue(wanted, principal_of(request.scope))
        about(request.scope, "token.create", f"{made.id} of {made.user} as {made.role}")
        return json_response(made, 201, {"Cache-Control": "no-store"})

    async def _set(self, request: AnyRequest) -> Response[bytes]:
        wire.require_json(request.scope)
        wanted = decode_body(await request.body(), ClassRequest)
        made = await self._book.set_class(_class_name(request), wanted, principal_of(request.scope))
        found = made.classroom
        about(
            request.scope,
            "class.set",
            f"{found.name}: {len(found.students)} students, {len(made.tokens)} tokens",
        )
        return json_response(made, 200, {"Cache-Control": "no-store"})

    async def _delete(self, request: AnyRequest) -> Response[bytes]:
        name = _class_name(request)
        await self._book.delete_class(name)
        about(request.scope, "class.delete", name)
        return json_response({"name": name})


def _class_name(request: AnyRequest) -> str:
    name: str = request.path_params["name"]
    check_identifier("name", name)
    return name


def _query(request: AnyRequest) -> AuditQuery:
    given = request.query_params
    users = principal_of(request.scope).users
    if "user" in given:
        check_identifier("user", given["user"])
        users = frozenset({given["user"]}) & users if users is not None else frozenset({given["user"]})
    action = given.get("action")
    if action is not None and not _ACTION.fullmatch(action):
        raise InvalidValue("action", Text("such as task.stop", "形如 task.stop"))
    limit = whole(given.get("limit"), "limit", MAX_AUDIT)
    return AuditQuery(
        users=users,
        action=action,
        since=_moment(given.get("since")),
        before=whole(given.get("before"), "before") or None,
        limit=limit or 100,
    )


def _moment(given: str | None) -> datetime | None:
    if given is None:
        return None
    try:
        moment = msgspec.convert(given, datetime)
    except msgspec.ValidationError:
        raise InvalidValue(
            "since", Text("a time such as 2026-09-01T08:00:00Z", "形如 2026-09-01T08:00:00Z 的时间")
        ) from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)

"""Tokens, classes and the audit, from the other end of the wire."""

from collections.abc import Sequence

from msgspec import Struct

from k12ai.client.connection import Connection, quoted
from k12ai.people import (
    AuditEntry,
    ClassRequest,
    Classroom,
    Me,
    NewClassroom,
    NewToken,
    Role,
    TokenInfo,
    TokenRequest,
)


class _Tokens(Struct):
    tokens: list[TokenInfo]


class _Classes(Struct):
    classes: list[Classroom]


class _Entries(Struct):
    entries: list[AuditEntry]


class AccessClient:
    """What `Client.access` gives: who one is, and for teachers and admins, who the others are.

    Methods raise `RequestRefused` where the token does not allow it.
    """

    def __init__(self, wire: Connection) -> None:
        self._wire = wire

    def me(self) -> Me:
        """Return who the server takes this client for."""
        return self._wire.resource("GET", "me", Me)

    def tokens(self, user: str | None = None) -> Sequence[TokenInfo]:
        """Return the tokens one may see, oldest first, without their secrets."""
        params = {} if user is None else {"user": user}
        return self._wire.resource("GET", "tokens", _Tokens, params=params).tokens

    def create_token(
        self, user: str, role: Role = "student", *, expires_in_s: int | None = None, note: str = ""
    ) -> NewToken:
        """Make a token; what is returned is all there ever is of its secret."""
        wanted = TokenRequest(user, role, expires_in_s, note)
        return self._wire.resource("POST", "tokens", NewToken, body=wanted)

    def revoke_token(self, token_id: str) -> TokenInfo:
        """End a token at once."""
        return self._wire.resource("DELETE", f"tokens/{quoted(token_id)}", TokenInfo)

    def classes(self) -> Sequence[Classroom]:
        """Return the classes one is in; for an admin all."""
        return self._wire.resource("GET", "classes", _Classes).classes

    def set_class(
        self,
        name: str,
        students: Sequence[str],
        teachers: Sequence[str] = (),
        *,
        tokens: bool = True,
        renew: bool = False,
        expires_in_s: int | None = None,
    ) -> NewClassroom:
        """Say who is in a class; with ``tokens``, each student without a valid token gets one.

        With ``renew``, each student gets one, and those that were there are revoked.
        """
        wanted = ClassRequest(list(students), list(teachers), tokens, renew, expires_in_s)
        return self._wire.resource("PUT", f"classes/{quoted(name)}", NewClassroom, body=wanted)

    def delete_class(self, name: str) -> None:
        """Dissolve a class; its students keep their tokens and what is theirs."""
        self._wire.resource("DELETE", f"classes/{quoted(name)}", dict)

    def audit(
        self,
        *,
        user: str | None = None,
        action: str | None = None,
        since: str | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> Sequence[AuditEntry]:
        """Return who did what, newest first; ``before`` is the sequence to go on from, towards the past."""
        given = {"user": user, "action": action, "since": since, "before": before, "limit": limit}
        params = {name: str(value) for name, value in given.items() if value is not None}
        return self._wire.resource("GET", "audit", _Entries, params=params).entries

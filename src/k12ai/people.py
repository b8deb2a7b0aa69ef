"""Who uses the platform: roles, tokens, classes, and what is kept of what they did.

As in `k12ai.models`, one class is the HTTP body, the stored record and the value a client gets.
"""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from k12ai.models import Identifier

Role = Literal["student", "teacher", "admin"]
ROLES: tuple[Role, ...] = ("student", "teacher", "admin")

MAX_CLASS = 1000
MAX_TOKEN_LIFETIME_S = 10 * 365 * 24 * 3600

Note = Annotated[str, Meta(max_length=200, description="what the token is for, in anybody's words")]
Lifetime = Annotated[int, Meta(ge=1, le=MAX_TOKEN_LIFETIME_S, description="seconds until the token expires")]


class TokenInfo(Struct, frozen=True, kw_only=True):
    """A token without its secret. ``id`` is the part of the token by which it is looked up."""

    id: str
    user: str
    role: Role
    note: str = ""
    created_at: datetime
    created_by: str = ""
    expires_at: datetime | None = None
    revoked_at: datetime | None = None


class NewToken(TokenInfo, frozen=True, kw_only=True):
    """A token that was just made. ``token`` is shown this once; nobody can read it again."""

    token: str


class TokenRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked of a new token; without ``expires_in_s`` it lives as long as the server's setting says."""

    user: Identifier
    role: Role = "student"
    expires_in_s: Lifetime | None = None
    note: Note = ""


class Classroom(Struct, frozen=True):
    """A class: its teachers may act for its students."""

    name: str
    teachers: list[str]
    students: list[str]


class ClassRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Who is in a class from now on. With ``tokens``, each student without a valid token gets one.

    With ``renew``, each student gets one, in place of all that were there.
    """

    students: Annotated[list[Identifier], Meta(max_length=MAX_CLASS)]
    teachers: Annotated[list[Identifier], Meta(max_length=MAX_CLASS)] = []
    tokens: bool = True
    renew: bool = False
    expires_in_s: Lifetime | None = None


class NewClassroom(Struct, frozen=True):
    """A class as it is now, and the tokens that were made for it, each shown this once."""

    classroom: Classroom
    tokens: list[NewToken]


class Me(Struct, frozen=True, kw_only=True):
    """Who the server takes the caller for; where it is ``open``, nobody in particular, who may do all."""

    open: bool
    user: str
    role: Role
    token_id: str = ""
    expires_at: datetime | None = None
    classes: list[str] = []


class AuditEntry(Struct, frozen=True, kw_only=True):
    """Who did what to what, from where, and what came of it: ``status`` is the HTTP status of the answer."""

    sequence: int = 0
    at: datetime
    user: str
    role: str
    token_id: str
    address: str
    action: str
    subject: str
    status: int
    request_id: str

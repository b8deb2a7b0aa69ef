"""The part of the OpenAPI document that is about access: tokens, classes and the audit."""

from collections.abc import Sequence

from k12ai import errors
from k12ai.api.access import MAX_AUDIT
from k12ai.api.openapi_parts import (
    IDENTIFIER,
    JSON,
    OF_A_BODY,
    OF_THE_STORE,
    Error,
    Part,
    links,
    listed,
    path,
    query,
    resource,
    response,
    shape,
    whole,
)
from k12ai.api.parameters import MAX_CURSOR
from k12ai.people import (
    AuditEntry,
    ClassRequest,
    Classroom,
    Me,
    NewClassroom,
    NewToken,
    TokenInfo,
    TokenRequest,
)

TAG = {"name": "Access", "description": "Who may do what, and who did."}
SHAPES = (Me, TokenInfo, NewToken, TokenRequest, Classroom, ClassRequest, NewClassroom, AuditEntry)

SECURITY_SCHEMES: Part = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "description": "The token that a teacher handed out, or that `k12ai token create` printed. Where the "
        "server is open (on loopback, before the first token), none is needed.",
    }
}

_OF_A_NAME: tuple[Error, ...] = (errors.InvalidValue, errors.ResourceNotFound)
_NAME = path("name", IDENTIFIER, "The name of the class")
_TOKEN_ID = path("token_id", {"type": "string", "pattern": r"^[0-9a-f]{8}$(?!\n)"}, "The id of the token")


def paths() -> Part:
    """Return the operations by path and method."""
    return {
        "/api/v1/me": {"get": _me()},
        "/api/v1/tokens": {"get": _tokens(), "post": _issue()},
        "/api/v1/tokens/{token_id}": {"parameters": [_TOKEN_ID], "delete": _revoke()},
        "/api/v1/classes": {"get": _classes()},
        "/api/v1/classes/{name}": {"parameters": [_NAME], "put": _set_class(), "delete": _delete_class()},
        "/api/v1/audit": {"get": _audit()},
    }


def _me() -> Part:
    return _resource("me", "Who the server takes you for", response("You", JSON, shape("Me")), ())


def _tokens() -> Part:
    return _resource(
        "tokens",
        "The tokens that you may see, oldest first, without their secrets",
        response("The tokens", JSON, listed("tokens", "TokenInfo")),
        (),
        [query("user", {"type": "string"}, "Only this user's")],
    )


def _issue() -> Part:
    operation = _resource(
        "token_create",
        "Make a token; its secret is in the answer, and nowhere else",
        response("The token", JSON, shape("NewToken")),
        (*OF_A_BODY, *OF_THE_STORE),
        status="201",
    )
    operation["requestBody"] = _body("TokenRequest", {"user": "li", "role": "student"})
    return operation


def _revoke() -> Part:
    return _resource(
        "token_revoke",
        "End a token at once",
        response("The token, which is of no use any more", JSON, shape("TokenInfo")),
        (errors.NoSuchToken, errors.ResourceNotFound, *OF_THE_STORE),
    )


def _classes() -> Part:
    found = response("The classes", JSON, listed("classes", "Classroom"))
    return _resource("classes", "The classes that you are in; an admin sees all", found, ())


def _set_class() -> Part:
    made = response("The class, and the new tokens", JSON, shape("NewClassroom"))
    made["links"] = links({"path.name": "$request.path.name"}, "class_delete")
    operation = _resource(
        "class_set",
        "Say who is in a class, and make the tokens that its students lack",
        made,
        (*OF_A_BODY, *_OF_A_NAME, *OF_THE_STORE),
    )
    operation["requestBody"] = _body("ClassRequest", {"students": ["li", "wang"], "teachers": ["zhang"]})
    return operation


def _delete_class() -> Part:
    gone = {"type": "object", "properties": {"name": IDENTIFIER}, "required": ["name"]}
    return _resource(
        "class_delete",
        "Dissolve a class; its students keep their tokens and what is theirs",
        response("It is gone", JSON, gone),
        (*_OF_A_NAME, errors.NoSuchClass, *OF_THE_STORE),
    )


def _audit() -> Part:
    parameters = [
        query("user", IDENTIFIER, "Only what this user did"),
        query("action", {"type": "string", "pattern": r"^[a-z]{1,20}\.[a-z]{1,20}$(?!\n)"}, "Only this"),
        query("since", {"type": "string", "format": "date-time"}, "Only what was done from then on"),
        query("before", whole(MAX_CURSOR), "Go on from this sequence, towards the past"),
        query("limit", whole(MAX_AUDIT), "At most so many; 0 stands for 100"),
    ]
    return _resource(
        "audit",
        "Who did what to what, from where, and what came of it; newest first",
        response("The entries", JSON, listed("entries", "AuditEntry")),
        (errors.InvalidValue, errors.StorageUnavailable),
        parameters,
    )


def _body(of: str, example: Part) -> Part:
    schema = {"allOf": [shape(of)]}
    return {"required": True, "content": {JSON: {"schema": schema, "examples": {of: {"value": example}}}}}


def _resource(
    name: str,
    summary: str,
    success: Part,
    refuses: Sequence[Error],
    parameters: Sequence[Part] = (),
    *,
    status: str = "200",
) -> Part:
    return resource("Access", name, summary, {status: success}, refuses, parameters)

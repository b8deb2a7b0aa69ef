"""The role table: every route, who may use it, and on whose behalf.

A route that is not in the table is not served, whatever the router knows: forgetting a row makes a
route useless, not open. ``docs/roles.md`` is printed from it (``python -m k12ai.api.roles``), and a test
keeps it so.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

from litestar.types import HTTPScope

from k12ai.access.principal import OPEN, Principal
from k12ai.errors import MethodNotAllowed, NotAllowed, NotAuthenticated, ResourceNotFound
from k12ai.people import Role

Who = Literal["everyone"] | Role

KV = "/v1/kv/{key}"
PROJECT = "/api/v1/projects/{user}/{service_uuid}/files"
FILE = "/api/v1/projects/{user}/{service_uuid}/files/{path}"

# Set in a request's state by who finds it out.
PRINCIPAL = "k12ai.principal"
STANDS = "k12ai.stands"
ACTION = "k12ai.action"

_OWN = "own; a teacher's: the class's; an admin's: everybody's"


class Rule(NamedTuple):
    """One route: who may use it at least, what of it exists for them, and as what it is audited, if it is."""

    method: str
    path: str
    who: Who
    whose: str = ""
    action: str = ""


RULES: Sequence[Rule] = (
    Rule("GET", "/health", "everyone", "where tokens are needed, without one: only the state"),
    Rule("GET", "/metrics", "teacher"),
    Rule("GET", "/docs", "student"),
    Rule("GET", "/docs/rapidoc-min.js", "student"),
    Rule("GET", "/docs/openapi.json", "student"),
    Rule("POST", "/k12ai/platform/stats", "student", "`user` own; everybody's figures (`hide_others`)"),
    Rule("POST", "/k12ai/platform/control", "student", f"containers: {_OWN}", "container.stop"),
    Rule("POST", "/k12ai/framework/execute", "student", f"`user`: {_OWN}", "task.submit"),
    Rule("POST", "/k12ai/framework/train", "student", f"`user`: {_OWN}", "task.submit"),
    Rule("POST", "/k12ai/framework/evaluate", "student", f"`user`: {_OWN}", "task.submit"),
    Rule("POST", "/k12ai/framework/predict", "student", f"`user`: {_OWN}", "task.submit"),
    Rule("POST", "/k12ai/framework/schema", "student"),
    Rule("GET", KV, "student", f"keys below `platform/USER/` and `framework/USER/`: {_OWN}"),
    Rule("PUT", KV, "student", "as GET", "kv.put"),
    Rule("DELETE", KV, "student", "as GET", "kv.delete"),
    Rule("GET", PROJECT, "student", f"projects: {_OWN}"),
    Rule("HEAD", PROJECT, "student", "as GET"),
    Rule("GET", FILE, "student", f"projects: {_OWN}"),
    Rule("HEAD", FILE, "student", "as GET"),
    Rule("PUT", FILE, "student", "as GET", "file.put"),
    Rule("DELETE", FILE, "student", "as GET", "file.delete"),
    Rule("GET", "/api/v1/host", "student", "everybody's figures (`hide_others`)"),
    Rule("GET", "/api/v1/frameworks", "student"),
    Rule("GET", "/api/v1/tasks", "student", f"tasks: {_OWN}"),
    Rule("POST", "/api/v1/tasks", "student", f"`user`: {_OWN}", "task.submit"),
    Rule("GET", "/api/v1/tasks/{task_id}", "student", f"tasks: {_OWN}"),
    Rule("POST", "/api/v1/tasks/{task_id}/stop", "student", f"tasks: {_OWN}", "task.stop"),
    Rule("GET", "/api/v1/tasks/{task_id}/messages", "student", f"tasks: {_OWN}"),
    Rule("GET", "/api/v1/tasks/{task_id}/events", "student", f"tasks: {_OWN}"),
    Rule("GET", "/api/v1/tasks/{task_id}/logs", "student", f"tasks: {_OWN}"),
    Rule("GET", "/api/v1/me", "student"),
    Rule("GET", "/api/v1/tokens", "student", "own; a teacher's: the students' of the class; an admin's: all"),
    Rule("POST", "/api/v1/tokens", "teacher", "of students of the class; an admin's: all", "token.create"),
    Rule("DELETE", "/api/v1/tokens/{token_id}", "student", "as GET", "token.revoke"),
    Rule("GET", "/api/v1/classes", "student", "those one is in; an admin's: all"),
    Rule("PUT", "/api/v1/classes/{name}", "admin", "", "class.set"),
    Rule("DELETE", "/api/v1/classes/{name}", "admin", "", "class.delete"),
    Rule("GET", "/api/v1/audit", "teacher", "what the class did, and oneself; an admin's: all"),
)  # fmt: skip


def _by_route(rules: Sequence[Rule]) -> Mapping[tuple[str, str], Rule]:
    return {(rule.method, rule.path): rule for rule in rules}


_BY_ROUTE = _by_route(RULES)


def principal_of(scope: HTTPScope) -> Principal:
    """Return on whose behalf a request is made that was permitted."""
    found: Principal | None = scope["state"].get(PRINCIPAL, OPEN)
    if found is None:
        raise NotAuthenticated
    return found


def still_stands(scope: HTTPScope) -> bool:
    """Whether the token of a request that was permitted is valid now; for answers that go on and on."""
    check: Callable[[], bool] | None = scope["state"].get(STANDS)
    return check is None or check()


def permit(scope: HTTPScope, path: str | None) -> None:
    """Let a request of this route through, or raise why not; ``path`` is the table's, None for no route.

    Who has no token is not even told what there is.
    """
    rule = _BY_ROUTE.get((scope["method"], path or ""))
    if rule is None:
        principal_of(scope)
        raise _no_such_route(path)
    if rule.who == "everyone":
        return
    principal = principal_of(scope)
    if rule.action:  # from here on: what nobody asks for is not worth a row
        scope["state"][ACTION] = rule.action
    if not principal.has(rule.who):
        raise NotAllowed.for_role(rule.who)


def _no_such_route(path: str | None) -> ResourceNotFound | MethodNotAllowed:
    methods = tuple(rule.method for rule in RULES if rule.path == path)
    return MethodNotAllowed(methods) if methods else ResourceNotFound()


def markdown() -> str:
    """Return the page ``docs/roles.md``."""
    lines = [
        "# Who may do what",
        "",
        "Printed from `k12ai.api.roles`; do not edit by hand (`make docs`). A route that is not here is not "
        "served.",
        "",
        "In open mode (on loopback, before the first token is made) everybody on the machine may do all "
        "of it. Everywhere else a token is needed, and it says who somebody is: `student`, `teacher` or "
        "`admin`, each of whom may do what those before may. What is somebody else's is answered as what "
        "does not exist (404); a request that names a user whom the token may not act for is refused (403).",
        "",
        "| method | route | at least | whose | audited as |",
        "|---|---|---|---|---|",
    ]
    for rule in RULES:
        action = f"`{rule.action}`" if rule.action else ""
        lines.append(f"| {rule.method} | `{rule.path}` | {rule.who} | {rule.whose} | {action} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    import sys

    sys.stdout.write(markdown())

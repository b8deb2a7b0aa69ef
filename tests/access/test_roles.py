"""B9: every route, asked by everybody, answers what one table says."""

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from k12ai.api.application import Routes
from k12ai.api.openapi import document
from k12ai.api.roles import FILE, KV, RULES, Rule, markdown
from k12ai.api.roles import PROJECT as PROJECT_ROUTE
from tests.support.routes import handled, scope_of
from tests.support.school import (
    ADMIN,
    CLASSMATE,
    OTHER_STUDENT,
    OTHER_TEACHER,
    STUDENT,
    TEACHER,
    School,
)
from tests.support.server import envelope

NOBODY = (None, "garbage", "k12ai_00000000_" + "a" * 32, "expired", "revoked")
PEOPLE = (STUDENT, CLASSMATE, OTHER_STUDENT, TEACHER, OTHER_TEACHER, ADMIN)
PROJECT = f"/api/v1/projects/{STUDENT}/roles/files"
PROGRAM = {"code": "print('done')"}


class Case(msgspec.Struct):
    """A request that is about something of `STUDENT`, and the status for each of `PEOPLE` in their order."""

    statuses: tuple[int, int, int, int, int, int]
    path: str = ""
    body: object = None


def all_of(status: int) -> tuple[int, int, int, int, int, int]:
    return (status,) * 6


OWN = (200, 404, 404, 200, 404, 200)  # of an object: the student, a classmate, …, two teachers, an admin
OWN_NAMED = (202, 403, 403, 202, 403, 202)  # of a request that names the user
STATS = envelope("query", user=STUDENT)
START = envelope("runcode.start", user=STUDENT, service_name="k12py", service_uuid="X", service_params=PROGRAM)
SUBMIT = {"framework": "k12py", "op": "runcode.start", "user": STUDENT, "service_uuid": "X", "params": PROGRAM}

CASES: dict[tuple[str, str], Case] = {
    ("GET", "/health"): Case(all_of(200)),
    ("GET", "/metrics"): Case((403, 403, 403, 200, 200, 200)),
    ("GET", "/docs"): Case(all_of(200)),
    ("GET", "/docs/rapidoc-min.js"): Case(all_of(200)),
    ("GET", "/docs/openapi.json"): Case(all_of(200)),
    ("POST", "/k12ai/platform/stats"): Case((200, 403, 403, 200, 403, 200), body=STATS),
    ("POST", "/k12ai/platform/control"): Case(
        (404, 403, 403, 404, 403, 404),
        body=envelope("container.stop", user=STUDENT, service_params={"id": "unknow"}),
    ),
    ("POST", "/k12ai/framework/execute"): Case(OWN_NAMED, body=START),
    ("POST", "/k12ai/framework/train"): Case(OWN_NAMED, body=START),
    ("POST", "/k12ai/framework/evaluate"): Case(OWN_NAMED, body=START),
    ("POST", "/k12ai/framework/predict"): Case(OWN_NAMED, body=START),
    ("POST", "/k12ai/framework/schema"): Case(all_of(200), body=START),
    ("GET", "/v1/kv/{key}"): Case((200, 403, 403, 200, 403, 200), f"/v1/kv/platform/{STUDENT}/roles"),
    ("PUT", "/v1/kv/{key}"): Case((200, 403, 403, 200, 403, 200), f"/v1/kv/platform/{STUDENT}/roles", b"x"),
    ("DELETE", "/v1/kv/{key}"): Case((200, 403, 403, 200, 403, 200), f"/v1/kv/platform/{STUDENT}/roles/x"),
    ("GET", "/api/v1/projects/{user}/{service_uuid}/files"): Case(OWN, PROJECT),
    ("HEAD", "/api/v1/projects/{user}/{service_uuid}/files"): Case(OWN, PROJECT),
    ("GET", "/api/v1/projects/{user}/{service_uuid}/files/{path}"): Case(OWN, f"{PROJECT}/a"),
    ("HEAD", "/api/v1/projects/{user}/{service_uuid}/files/{path}"): Case(OWN, f"{PROJECT}/a"),
    ("PUT", "/api/v1/projects/{user}/{service_uuid}/files/{path}"): Case(OWN, f"{PROJECT}/a", b"x"),
    ("DELETE", "/api/v1/projects/{user}/{service_uuid}/files/{path}"): Case(
        (204, 404, 404, 204, 404, 204), f"{PROJECT}/gone"
    ),
    ("GET", "/api/v1/host"): Case(all_of(200)),
    ("GET", "/api/v1/frameworks"): Case(all_of(200)),
    ("GET", "/api/v1/tasks"): Case(all_of(200)),
    ("POST", "/api/v1/tasks"): Case(OWN_NAMED, body=SUBMIT),
    ("GET", "/api/v1/tasks/{task_id}"): Case(OWN),
    ("POST", "/api/v1/tasks/{task_id}/stop"): Case(OWN),
    ("GET", "/api/v1/tasks/{task_id}/messages"): Case(OWN),
    ("GET", "/api/v1/tasks/{task_id}/events"): Case(OWN),
    ("GET", "/api/v1/tasks/{task_id}/logs"): Case(OWN),
    ("GET", "/api/v1/me"): Case(all_of(200)),
    ("GET", "/api/v1/tokens"): Case(all_of(200)),
    ("POST", "/api/v1/tokens"): Case((403, 403, 403, 201, 403, 201), body={"user": STUDENT}),
    ("DELETE", "/api/v1/tokens/{token_id}"): Case(OWN),
    ("GET", "/api/v1/classes"): Case(all_of(200)),
    ("PUT", "/api/v1/classes/{name}"): Case(
        (403, 403, 403, 403, 403, 200), "/api/v1/classes/roles", {"students": [], "teachers": []}
    ),
    ("DELETE", "/api/v1/classes/{name}"): Case((403, 403, 403, 403, 403, 200), "/api/v1/classes/roles"),
    ("GET", "/api/v1/audit"): Case((403, 403, 403, 200, 200, 200)),
}


@pytest.fixture(name="place", scope="module")
def _place(school: School) -> Callable[[Rule], str]:
    """Make what a route is about, and return the route's path for it, again and again."""
    with school.client(STUDENT) as student:
        task = student.submit("k12py", "runcode.start", "roles", PROGRAM, user=STUDENT)
        task.wait(progress=False)
    numbers: Iterator[int] = iter(range(10_000))

    def path_of(rule: Rule) -> str:
        case = CASES[rule.method, rule.path]
        if rule.path == KV:
            school.put(STUDENT, f"platform/{STUDENT}/roles")
        elif rule.path in (PROJECT_ROUTE, FILE):
            school.ask(STUDENT, "PUT", f"{PROJECT}/a", b"x")
            school.ask(STUDENT, "PUT", f"{PROJECT}/gone", b"x")
        elif rule.path == "/api/v1/classes/{name}":
            school.ask(ADMIN, "PUT", "/api/v1/classes/roles", {"students": []})
        if isinstance(case.body, dict) and "service_uuid" in case.body:
            case.body["service_uuid"] = f"roles-{next(numbers)}"
        path = case.path or rule.path.replace("{task_id}", task.task_id)
        if "{token_id}" in path:
            made = school.ask(ADMIN, "POST", "/api/v1/tokens", {"user": STUDENT}).json()
            path = path.replace("{token_id}", made["id"])
        return path

    return path_of


RULE_NAMES = [f"{rule.method} {rule.path}" for rule in RULES]


def test_every_rule_has_its_case() -> None:
    assert set(CASES) == {(rule.method, rule.path) for rule in RULES}


@pytest.mark.parametrize("rule", RULES, ids=RULE_NAMES)
@pytest.mark.parametrize("who", NOBODY)
def test_without_a_valid_token_only_the_state_of_the_server_is_told(
    school: School, place: Callable[[Rule], str], rule: Rule, who: str | None
) -> None:
    """Whatever is no valid token gets 401, of the store Consul's 403, and of `/health` as much as nobody."""
    answer = school.ask(who, rule.method, place(rule), CASES[rule.method, rule.path].body)
    if rule.path == "/health" and who is None:
        assert (answer.status_code, answer.json()["sources"]) == (200, {})
    elif rule.path.startswith("/v1/kv"):
        assert answer.status_code == 403
        assert answer.text == ("Permission denied" if who is None else "ACL not found")
    else:
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith('Bearer realm="k12ai"')
        if rule.method != "HEAD":
            assert answer.json()["code"] == 100601


@pytest.mark.parametrize("rule", RULES, ids=RULE_NAMES)
@pytest.mark.parametrize("who", PEOPLE)
def test_each_route_answers_each_role_as_the_table_says(
    school: School, place: Callable[[Rule], str], rule: Rule, who: str
) -> None:
    """The student whose it is, others, the teacher of the class, another teacher, an admin."""
    case = CASES[rule.method, rule.path]
    path = place(rule)
    wanted = case.statuses[PEOPLE.index(who)]
    answer = school.ask(who, rule.method, path, case.body)
    # What was written is new once and old from then on.
    assert answer.status_code == wanted or (wanted, answer.status_code) == (200, 201), answer.text


@pytest.mark.parametrize("who", [*NOBODY, *PEOPLE])
@pytest.mark.parametrize(
    "path",
    [
        *("/", "/nope", "/api/v1", "/api/v1/nope", "/api/v1/tasks/x/nope", "/k12ai/platform/nope", "/v1/kvx"),
        *("/v1%2Fkv/platform", "/health/x", "//health", "/HEALTH", "/static/x"),
        *("/api/v1/projects", "/api/v1/projects/li", "/api/v1/projects/li/p/other"),
    ],
)
def test_a_route_that_is_not_in_the_table_is_not_served(school: School, path: str, who: str | None) -> None:
    """Nobody finds out what there is without a token, and nothing is there with one."""
    answer = school.ask(who, "GET", path)
    refused = 403 if path.startswith("/v1%2Fkv") else 401  # in the words of what it would be
    assert answer.status_code == (refused if who in NOBODY else 404), answer.text


@pytest.mark.parametrize("rule", RULES, ids=RULE_NAMES)
@pytest.mark.parametrize("method", ["PATCH", "PROPFIND", "TRACE"])
def test_a_method_that_is_not_in_the_table_is_405_with_a_token_and_401_without(
    school: School, place: Callable[[Rule], str], rule: Rule, method: str
) -> None:
    answer = school.ask(ADMIN, method, place(rule))
    assert answer.status_code == 405
    assert rule.method in answer.headers["allow"]
    if rule.path != "/health":
        refused = school.ask(None, method, place(rule))
        assert refused.status_code == (403 if rule.path.startswith("/v1/kv") else 401)


# --- the table and the router ------------------------------------------------------------------------


def test_every_route_of_the_router_has_its_row(routes: Routes) -> None:
    """A route without a row would be refused to everybody: this test is where that is noticed."""
    table = {(rule.method, rule.path) for rule in RULES}
    assert {(method, path) for path, method in handled(routes)} <= table
    assert {("POST", path) for path in routes.published} <= table
    for path in ("/v1/kv/x", "/api/v1/projects/u/p/files", "/api/v1/projects/u/p/files/a"):
        (mount,) = [each for each in routes.mounts if each.serves(scope_of(path))]
        assert mount.route(scope_of(path)) in {rule.path for rule in RULES}


def test_every_row_of_the_table_is_in_the_document_or_a_page() -> None:
    """No row is left over from a route that is gone."""
    documented = {
        (method.upper(), path) for path, operations in document()["paths"].items() for method in operations
    }
    pages = {("GET", path) for path in ("/docs", "/docs/rapidoc-min.js", "/docs/openapi.json")}
    # The document has one operation for a file and one for the listing of a project.
    rows = {(rule.method, rule.path) for rule in RULES}
    assert rows <= documented | pages | {("HEAD", path) for _, path in rows}


def test_the_page_of_roles_is_printed_from_the_table() -> None:
    page = Path(__file__).parents[2] / "docs" / "roles.md"
    assert page.read_text(encoding="utf-8") == markdown()

"""Who did what to what, from where, with what result: kept, and shown to whom it concerns."""

from collections.abc import Callable
from typing import Any

from k12ai.client import Client
from tests.support.school import (
    ADMIN,
    CLASSMATE,
    OTHER_STUDENT,
    OTHER_TEACHER,
    STUDENT,
    TEACHER,
    School,
)
from tests.support.server import Server, envelope

SLEEP = {"code": "import time\ntime.sleep(600)"}


def entries(school: School, who: str = ADMIN, **query: str) -> list[dict[str, Any]]:
    """Return the audit as somebody sees it, newest first."""
    narrowed = "&".join(f"{name}={value}" for name, value in query.items())
    found: list[dict[str, Any]] = school.ask(who, "GET", f"/api/v1/audit?{narrowed}").json()["entries"]
    return found


def test_a_task_has_who_started_and_who_stopped_it(school: School) -> None:
    with school.client(STUDENT) as student, school.client(TEACHER) as teacher:
        task_id = student.submit("k12py", "runcode.start", "audited", SLEEP).task_id
        teacher.stop_task(task_id, grace_s=0)
    stop, start = [each for each in entries(school) if task_id in each["subject"]][:2]
    assert (start["user"], start["role"], start["action"]) == (STUDENT, "student", "task.submit")
    assert start["subject"] == f"{task_id} {STUDENT}/audited runcode.start"
    assert (start["status"], start["address"]) == (202, "127.0.0.1")
    assert start["token_id"] == school.tokens[STUDENT].split("_")[1]
    assert (stop["user"], stop["action"], stop["status"]) == (TEACHER, "task.stop", 200)


def test_the_published_requests_are_named_as_what_they_do(school: School) -> None:
    start = envelope(
        "runcode.start", user=STUDENT, service_name="k12py", service_uuid="named", service_params=SLEEP
    )
    task_id = school.ask(STUDENT, "POST", "/k12ai/framework/execute", start).json()["message"]["task_id"]
    stop = start | {"op": "runcode.stop", "service_params": {"timeout": 0}}
    school.ask(STUDENT, "POST", "/k12ai/framework/execute", stop)
    container = envelope("container.stop", user=STUDENT, service_params={"id": "unknow"})
    school.ask(STUDENT, "POST", "/k12ai/platform/control", container)
    last, second, first = entries(school, user=STUDENT, limit="3")
    assert (first["action"], first["subject"].split()[0]) == ("task.submit", task_id)
    assert (second["action"], second["subject"].split()[0]) == ("task.stop", task_id)
    assert (last["action"], last["subject"], last["status"]) == ("container.stop", "container unknow", 404)


def test_what_was_refused_is_there_with_its_refusal(school: School) -> None:
    school.ask(CLASSMATE, "DELETE", f"/v1/kv/platform/{STUDENT}/x")
    school.ask(CLASSMATE, "PUT", "/api/v1/classes/mine", {"students": []})
    school.ask(CLASSMATE, "DELETE", f"/api/v1/projects/{STUDENT}/p/files/a.txt")
    found = entries(school, user=CLASSMATE, limit="3")
    assert [(each["action"], each["status"]) for each in found] == [
        ("file.delete", 404),
        ("class.set", 403),
        ("kv.delete", 403),
    ]
    assert found[2]["subject"] == f"/v1/kv/platform/{STUDENT}/x"


def test_what_nobody_asks_for_is_not_worth_a_row(school: School) -> None:
    """Who has no token fills no disk: not on any kind of route."""
    before = entries(school)[0]["sequence"]
    for _ in range(3):
        school.ask(None, "PUT", "/v1/kv/platform/li/x", b"x")
        school.ask(None, "POST", "/k12ai/platform/control", envelope("container.stop"))
        school.ask(None, "POST", "/api/v1/tasks", {})
        school.ask(None, "PUT", "/api/v1/projects/li/p/files/a", b"x")
    assert entries(school)[0]["sequence"] == before


def test_a_recursive_delete_is_not_taken_for_a_single_one(school: School) -> None:
    school.ask(STUDENT, "DELETE", f"/v1/kv/platform/{STUDENT}/r?recurse&dc=x")
    assert entries(school, user=STUDENT)[0]["subject"] == f"/v1/kv/platform/{STUDENT}/r?recurse"


def test_looking_is_not_audited(school: School) -> None:
    before = entries(school)[0]["sequence"]
    with school.client(STUDENT) as student:
        student.stats()
        student.tasks()
        student.read(f"platform/{STUDENT}/")
    school.ask(STUDENT, "POST", "/k12ai/platform/stats", envelope("query", user=STUDENT))
    assert entries(school)[0]["sequence"] == before


def test_each_sees_what_concerns_them(school: School) -> None:
    for name in (STUDENT, OTHER_STUDENT, OTHER_TEACHER):
        school.put(name, f"platform/{name}/audited")
    assert school.ask(STUDENT, "GET", "/api/v1/audit").status_code == 403
    seen = {each["user"] for each in entries(school, TEACHER, limit="1000")}
    assert STUDENT in seen
    assert not {OTHER_STUDENT, OTHER_TEACHER, ADMIN} & seen
    assert entries(school, TEACHER, user=OTHER_STUDENT) == []
    assert {OTHER_STUDENT, OTHER_TEACHER, ADMIN} <= {each["user"] for each in entries(school, limit="1000")}


def test_the_audit_is_read_page_by_page_and_narrowed(school: School) -> None:
    for number in range(3):
        school.put(STUDENT, f"platform/{STUDENT}/page{number}")
    first = entries(school, limit="2", action="kv.put", user=STUDENT)
    rest = entries(school, limit="2", action="kv.put", user=STUDENT, before=str(first[-1]["sequence"]))
    subjects = [each["subject"].rsplit("/", 1)[1] for each in (*first, *rest)][:3]
    assert subjects == ["page2", "page1", "page0"]
    assert entries(school, since="2100-01-01T00:00:00Z") == []
    for bad in ("limit=1001", "since=yesterday", "action=x", "before=-1", "user=../x"):
        assert school.ask(ADMIN, "GET", f"/api/v1/audit?{bad}").status_code == 400


def test_the_audit_outlives_a_crash(start_server: Callable[..., Server]) -> None:
    server = start_server()
    school = School(server)
    before = entries(school)
    server.kill()
    again = start_server()
    assert school.server is server
    school.server = again
    assert entries(school) == before


def test_an_open_server_keeps_who_asked_from_where(start_server: Callable[..., Server]) -> None:
    server = start_server()
    with Client(server.url) as client:
        handle = client.submit("k12py", "runcode.start", "p", {"code": "pass"}, user="li")
        handle.wait(progress=False)
        client.delete("platform/li")
    (entry,) = server.http.get("/api/v1/audit").json()["entries"]
    assert (entry["user"], entry["role"], entry["action"]) == ("", "open", "task.submit")
    assert entry["subject"].startswith(handle.task_id)

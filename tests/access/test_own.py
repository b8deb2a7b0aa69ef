"""What is whose: by the token, not by what a request says, and by whole names, not by their beginnings."""

import time
from collections.abc import Callable, Iterator

import pytest

from k12ai.client import Client, RequestRefused
from tests.support.school import (
    ADMIN,
    CLASSMATE,
    NAMESAKE,
    OTHER_STUDENT,
    OTHER_TEACHER,
    STUDENT,
    TEACHER,
    School,
)
from tests.support.server import Server, envelope, strict

SLEEP = {"code": "import time\ntime.sleep(600)"}


@pytest.fixture(name="keys")
def _keys(school: School) -> Iterator[dict[str, list[str]]]:
    """Keys of three students, two of whose names begin alike, and one of nobody's; the same after the test."""
    owned = {
        name: [f"framework/{name}/own/train.start/status/1", f"platform/{name}/own/query/result"]
        for name in (STUDENT, NAMESAKE, OTHER_STUDENT)
    }
    school.put(ADMIN, "other/key", *(key for keys in owned.values() for key in keys))
    yield owned
    for prefix in ("other/", *(f"{root}/{name}/" for root in ("platform", "framework") for name in owned)):
        school.ask(ADMIN, "DELETE", f"/v1/kv/{prefix}?recurse")


# --- B7: keys ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "p", "platform", "platform/", f"platform/{STUDENT}", "framework/l"])
def test_a_prefix_above_a_students_keys_has_the_students_own_alone(
    school: School, keys: dict[str, list[str]], prefix: str
) -> None:
    """Recursion is by a plain prefix, as Consul has it; what it shows is not."""
    own = [
        key
        for key in school.keys(ADMIN)
        if key.startswith(prefix) and key.split("/")[:2] in (["platform", STUDENT], ["framework", STUDENT])
    ]
    assert {key for key in keys[STUDENT] if key.startswith(prefix)} <= set(own)
    assert school.keys(STUDENT, prefix) == own
    listed = school.ask(STUDENT, "GET", f"/v1/kv/{prefix}?recurse").json()
    assert [each["Key"] for each in listed] == own


def test_names_are_cut_at_their_separator_as_for_everybody(school: School, keys: dict[str, list[str]]) -> None:
    assert school.ask(STUDENT, "GET", "/v1/kv/?keys&separator=/").json() == ["framework/", "platform/"]
    below = school.ask(STUDENT, "GET", "/v1/kv/platform/?keys&separator=/").json()
    assert below == [f"platform/{STUDENT}/"]
    assert f"platform/{NAMESAKE}/" in school.ask(TEACHER, "GET", "/v1/kv/platform/?keys&separator=/").json()


@pytest.mark.parametrize(
    "prefix", [f"platform/{NAMESAKE}", f"platform/{NAMESAKE}/", "other", "framework/x", "platform/li/../li2/"]
)
def test_a_prefix_beside_a_students_keys_has_nothing(
    school: School, keys: dict[str, list[str]], prefix: str
) -> None:
    """Neither to see nor to delete, and the same whether or not there is something."""
    before = school.keys(ADMIN)
    assert school.ask(STUDENT, "GET", f"/v1/kv/{prefix}?recurse").status_code in (400, 404)
    assert school.ask(STUDENT, "DELETE", f"/v1/kv/{prefix}?recurse").status_code in (400, 403)
    assert school.ask(STUDENT, "DELETE", f"/v1/kv/{prefix}").status_code in (400, 403)
    assert school.keys(ADMIN) == before


@pytest.mark.parametrize("prefix", ["", "platform", f"platform/{STUDENT}", "p"])
def test_deleting_a_prefix_deletes_own_keys_alone(
    school: School, keys: dict[str, list[str]], prefix: str
) -> None:
    """`platform/li` begins `platform/li2`: that one's keys stay, byte for byte."""
    before = set(school.keys(ADMIN))
    assert school.ask(STUDENT, "DELETE", f"/v1/kv/{prefix}?recurse").text == "true"
    gone = {key for key in before if key.startswith(prefix) and f"/{STUDENT}/" in key}
    assert set(school.keys(ADMIN)) == before - gone
    assert gone


def test_nothing_is_written_where_the_listing_of_ones_own_would_not_find_it(school: School) -> None:
    """A key that is a user's whole segment lies beside what is below it, not within."""
    for key in (f"platform/{STUDENT}", f"framework/{STUDENT}"):
        assert school.ask(STUDENT, "PUT", f"/v1/kv/{key}", b"x").status_code == 403
    assert school.ask(STUDENT, "DELETE", f"/v1/kv/platform/{STUDENT}").text == "true"


@pytest.mark.parametrize("key", ["other/key", f"platform/{NAMESAKE}/x", "platform", "x", "platform//x"])
def test_a_key_of_others_is_denied_whether_or_not_it_is_there(
    school: School, keys: dict[str, list[str]], key: str
) -> None:
    for method, body in (("GET", None), ("PUT", b"x"), ("DELETE", None)):
        answer = school.ask(STUDENT, method, f"/v1/kv/{key}", body)
        assert (answer.status_code, answer.text) == (403, "Permission denied")


def test_a_reader_who_waits_is_not_told_of_others_keys(school: School, keys: dict[str, list[str]]) -> None:
    """A wait above one's own keys goes on until something of one's own changes, or is over without it."""
    index = school.ask(STUDENT, "GET", "/v1/kv/platform/?recurse").headers["x-consul-index"]
    school.put(ADMIN, f"platform/{NAMESAKE}/more")
    answer = school.ask(STUDENT, "GET", f"/v1/kv/platform/?recurse&index={index}&wait=100ms")
    assert [each["Key"] for each in answer.json()] == [keys[STUDENT][1]]
    assert answer.headers["x-consul-index"] == index


def test_the_teacher_of_a_class_has_the_keys_of_the_class(school: School, keys: dict[str, list[str]]) -> None:
    seen = school.keys(TEACHER)
    assert set(keys[STUDENT] + keys[NAMESAKE]) <= set(seen)
    assert not set(keys[OTHER_STUDENT]) & set(seen)
    assert "other/key" not in seen


@pytest.mark.parametrize("field", ["X-Consul-Token", "Authorization"])
def test_the_stores_clients_send_the_token_as_they_do(school: School, field: str) -> None:
    token = school.tokens[STUDENT] if field == "X-Consul-Token" else f"Bearer {school.tokens[STUDENT]}"
    path = f"/v1/kv/platform/{STUDENT}/field"
    assert school.server.http.put(path, content=b"x", headers={field: token}).text == "true"
    assert school.server.http.get(f"{path}?token={school.tokens[STUDENT]}").status_code == 403
    assert school.server.http.get("/api/v1/me", headers={"X-Consul-Token": token}).status_code == 401


# --- tasks, containers, files -------------------------------------------------------------------------


def test_nobody_submits_in_anothers_name(school: School) -> None:
    """The body's user is checked against the token, by either interface; nothing is recorded."""
    body = envelope("runcode.start", user=NAMESAKE, service_name="k12py", service_params=SLEEP)
    refused = school.ask(STUDENT, "POST", "/k12ai/framework/execute", body)
    assert (refused.status_code, strict(refused)["code"]) == (403, 100602)
    assert NAMESAKE in strict(refused)["message"]
    with school.client(STUDENT) as student, pytest.raises(RequestRefused) as error:
        student.submit("k12py", "runcode.start", "p", SLEEP, user=NAMESAKE)
    assert error.value.code == 100602
    with school.client(ADMIN) as head:
        assert head.tasks(user=NAMESAKE) == []


def test_a_client_with_a_token_works_for_its_user(school: School) -> None:
    """Nobody has to say their name twice."""
    with school.client(STUDENT) as student:
        handle = student.submit("k12py", "runcode.start", "unnamed", {"code": "print('hi')"})
        assert handle.wait(progress=False).user == STUDENT
        assert [each.task_id for each in student.tasks(service_uuid="unnamed")] == [handle.task_id]
        assert student.stats("cpus").cpu_percent is not None


def test_a_list_of_tasks_has_those_one_may_act_for(school: School) -> None:
    for name in (STUDENT, OTHER_STUDENT):
        with school.client(name) as client:
            client.submit("k12py", "runcode.start", "listed", {"code": "pass"}).wait(progress=False)

    def users(name: str, **narrowed: str) -> set[str]:
        with school.client(name) as client:
            return {each.user for each in client.tasks(service_uuid="listed", **narrowed)}

    assert users(STUDENT) == users(TEACHER) == {STUDENT}
    assert users(OTHER_TEACHER) == {OTHER_STUDENT}
    assert users(ADMIN) == {STUDENT, OTHER_STUDENT}
    assert users(STUDENT, user=OTHER_STUDENT) == set()


def test_a_stop_says_who_and_a_teachers_says_so(school: School) -> None:
    """The reason and the name come from the token; a classmate cannot stop anything."""
    with school.client(STUDENT) as student, school.client(TEACHER) as teacher:
        first = student.submit("k12py", "runcode.start", "stopped-1", SLEEP)
        second = student.submit("k12py", "runcode.start", "stopped-2", SLEEP)
        with school.client(CLASSMATE) as classmate, pytest.raises(RequestRefused) as error:
            classmate.stop_task(first.task_id, grace_s=0)
        assert error.value.code == 100205
        ended = teacher.stop_task(first.task_id, grace_s=1)
        assert (ended.reason, ended.stopped_by) == ("stopped_by_teacher", TEACHER)
        ended = student.stop_task(second.task_id, grace_s=1)
        assert (ended.reason, ended.stopped_by) == ("stopped_by_user", STUDENT)
        (said,) = [
            each.body for each in first.messages("status", follow=False) if each.body["value"] == "stopped"
        ]
        assert (said["reason"], said["stopped_by"]) == ("stopped_by_teacher", TEACHER)


def test_a_container_is_stopped_by_whom_it_belongs_to_and_that_is_known(school: School) -> None:
    """B14 with tokens: another's container is as unknown as none; its task learns who stopped it."""
    with school.client(STUDENT) as student:
        handle = student.submit("k12py", "runcode.start", "container", SLEEP)
        deadline = time.monotonic() + 20
        while handle.task.state != "running" and time.monotonic() < deadline:
            time.sleep(0.05)

        def stop(name: str) -> tuple[int, str]:
            body = envelope(
                "container.stop", user=name, service_params={"id": handle.task.container_id, "timeout": 1}
            )
            answer = school.ask(name, "POST", "/k12ai/platform/control", body)
            return answer.status_code, strict(answer)["message"]

        unknown = f"container id {handle.task.container_id} is not found"
        assert stop(CLASSMATE) == stop(OTHER_TEACHER) == (404, unknown)
        assert handle.state == "running"
        assert stop(TEACHER)[0] == 200
        assert (handle.task.reason, handle.task.stopped_by) == ("stopped_by_teacher", TEACHER)


def test_an_asynchronous_stop_is_carried_out_for_who_asked(school: School) -> None:
    """What is done later is done with the same rights; the refusal is what the result says."""
    with school.client(STUDENT) as student:
        handle = student.submit("k12py", "runcode.start", "later", SLEEP)
        deadline = time.monotonic() + 20
        while handle.task.state != "running" and time.monotonic() < deadline:
            time.sleep(0.05)
        body = envelope(
            "container.stop",
            user=CLASSMATE,
            service_uuid="later",
            is_async=True,
            service_params={"id": handle.task.container_id},
        )
        assert school.ask(CLASSMATE, "POST", "/k12ai/platform/control", body).status_code == 202
        with school.client(CLASSMATE) as classmate:
            (found,) = classmate.read(f"platform/{CLASSMATE}/later/container.stop/result", wait_s=10)
        assert found.value["result"]["code"] == 100202
        assert handle.state == "running"
        handle.stop(grace_s=0)


def test_a_stream_ends_with_its_token(school: School) -> None:
    """Who follows a task for hours is let go when the token is revoked, not when the task ends."""
    made = school.ask(ADMIN, "POST", "/api/v1/tokens", {"user": STUDENT}).json()
    headers = {"Authorization": f"Bearer {made['token']}"}
    with school.client(STUDENT) as student:
        handle = student.submit("k12py", "runcode.start", "followed", SLEEP)
        path = f"/api/v1/tasks/{handle.task_id}/logs?follow"
        with school.server.http.stream("GET", path, headers=headers) as answer:
            assert answer.status_code == 200
            school.ask(ADMIN, "DELETE", f"/api/v1/tokens/{made['id']}")
            assert list(answer.iter_bytes()) == []
        assert handle.state != "stopped"
        handle.stop(grace_s=0)


def test_files_of_others_are_not_there(school: School) -> None:
    """Nor are their projects, whatever they are called, to read, to write and to delete."""
    theirs = f"/api/v1/projects/{NAMESAKE}/p/files/secret.txt"
    assert school.ask(NAMESAKE, "PUT", theirs, b"secret").status_code == 201
    for method, body in (("GET", None), ("HEAD", None), ("PUT", b"x"), ("DELETE", None)):
        assert school.ask(STUDENT, method, theirs, body).status_code == 404
    assert school.ask(STUDENT, "GET", f"/api/v1/projects/{NAMESAKE}/p/files?recurse").status_code == 404
    assert school.ask(TEACHER, "GET", theirs).content == b"secret"


# --- stats ------------------------------------------------------------------------------------------


def test_everybody_sees_what_the_machine_does_and_for_whom(school: School) -> None:
    with school.client(OTHER_STUDENT) as other, school.client(STUDENT) as student:
        handle = other.submit("k12py", "runcode.start", "seen", SLEEP)
        try:
            deadline = time.monotonic() + 20
            while OTHER_STUDENT not in _users_seen(student) and time.monotonic() < deadline:
                time.sleep(0.1)
            assert OTHER_STUDENT in _users_seen(student)
        finally:
            handle.stop(grace_s=0)


def test_where_names_are_hidden_a_student_sees_own_names_and_everybodys_figures(
    start_server: Callable[..., Server],
) -> None:
    """Also in what is measured later, and by the modern interface; staff see whom they are there for."""
    school = School(start_server("--hide-others", "--max-tasks", "4"))
    running = []
    try:
        for name in (STUDENT, OTHER_STUDENT):
            with school.client(name) as client:
                running.append(client.submit("k12py", "runcode.start", f"of-{name}", SLEEP).task_id)
        deadline = time.monotonic() + 20
        # The Engine may have others besides.
        mine, others = (STUDENT, f"of-{STUDENT}"), (OTHER_STUDENT, f"of-{OTHER_STUDENT}")
        while not {mine, others} <= set(_containers_of(school, ADMIN)) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert {mine, others} <= set(_containers_of(school, ADMIN))
        assert set(_containers_of(school, STUDENT)) == {mine, ("", "")}
        assert set(_containers_of(school, TEACHER)) == {mine, ("", "")}
        host = school.ask(STUDENT, "GET", "/api/v1/host")
        assert OTHER_STUDENT not in host.text
        assert {each["user"] for each in host.json()["users"]} == {"", STUDENT}
        later = envelope("query", user=STUDENT, is_async=True)
        school.ask(STUDENT, "POST", "/k12ai/platform/stats", later)
        with school.client(STUDENT) as student:
            (found,) = student.read(f"platform/{STUDENT}/uuid/query", wait_s=10)
        assert OTHER_STUDENT not in str(found.value)
    finally:
        with school.client(ADMIN) as head:
            for task_id in running:
                head.stop_task(task_id, grace_s=0)


def _containers_of(school: School, name: str) -> list[tuple[str, str]]:
    with school.client(name) as client:
        return sorted((each.user, each.service_uuid) for each in client.stats("containers").containers or ())


def _users_seen(client: Client) -> set[str]:
    return {each.user for each in client.stats("containers").containers or ()}


def test_who_was_refused_a_stop_is_not_told_as_who_stopped(school: School) -> None:
    """By a stop that must fail, a student could have the teacher's passed off as their own."""
    with school.client(STUDENT) as student, school.client(TEACHER) as teacher:
        handle = student.submit("k12py", "runcode.start", "refused-stop", SLEEP)
        params = {"id": handle.task_id, "timeout": 0}
        asked = envelope("container.stop", user=STUDENT, service_name="k12ml", service_params=params)
        assert school.ask(STUDENT, "POST", "/k12ai/platform/control", asked).status_code == 404
        ended = teacher.stop_task(handle.task_id, grace_s=0)
    assert (ended.reason, ended.stopped_by) == ("stopped_by_teacher", TEACHER)

"""How much of the machine is one user's: tasks that run, tasks that wait, and disk."""

import concurrent.futures
from collections.abc import Callable
from typing import Any

import pytest

from k12ai.client import Client, RequestRefused
from tests.support.server import Server

SLEEP = {"code": "import time\ntime.sleep(600)"}


def test_b18_never_more_run_than_may_and_the_rest_wait_or_are_refused(
    start_server: Callable[..., Server],
) -> None:
    """Fifty at once of one user: two run, five wait, and the others are told to come again."""
    server = start_server("--max-tasks", "4", "--max-tasks-per-user", "2", "--max-waiting-tasks-per-user", "5")

    def submit(number: int) -> str | int:
        with Client(server.url) as client:
            try:
                return client.submit("k12py", "runcode.start", f"p{number}", SLEEP, user="li").task_id
            except RequestRefused as error:
                return error.code

    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        got = list(pool.map(submit, range(50)))
    with Client(server.url) as client:
        active = client.tasks(user="li", active=True)
        states = [each.state for each in active]
        assert states.count("queued") == 5
        assert len(states) == 7
        assert {each.task_id for each in active} == {each for each in got if isinstance(each, str)}
        assert [each for each in got if isinstance(each, int)] == [100604] * 43
        assert {each.reason for each in active if each.state == "queued"} == {"quota"}
        # Somebody else is not affected.
        other = client.submit("k12py", "runcode.start", "p", SLEEP, user="wang")
        for each in (*active, other.task):
            client.stop_task(each.task_id, grace_s=0)


def test_a_refusal_says_how_many_and_when_to_come_again(start_server: Callable[..., Server]) -> None:
    server = start_server("--max-tasks", "1", "--max-waiting-tasks-per-user", "1")
    body = {"framework": "k12py", "op": "runcode.start", "user": "li", "params": SLEEP}

    def submit(project: str, **headers: str) -> Any:
        return server.post("/api/v1/tasks", body | {"service_uuid": project}, **headers)

    accepted = [submit(project) for project in ("a", "b")]
    assert [each.status_code for each in accepted] == [202, 202]
    refused = submit("c")
    assert (refused.status_code, refused.json()["code"]) == (429, 100604)
    assert int(refused.headers["retry-after"]) > 0
    assert refused.json()["detail"].startswith("1 tasks of li wait already")
    assert "排队" in submit("c", **{"Accept-Language": "zh"}).json()["detail"]
    # The same request again is the same task, however many wait.
    for each in accepted:
        server.post(f"/api/v1/tasks/{each.json()['task_id']}/stop?timeout=0", None)


@pytest.fixture(name="small")
def _small(start_server: Callable[..., Server]) -> Server:
    """A server on which a user has 100 KiB."""
    return start_server("--max-user-bytes", str(100 * 1024))


def test_the_projects_of_a_user_share_what_the_user_has(small: Server) -> None:
    """A second project is no second quota; another user's is; deleting makes room."""
    piece = b"x" * 60 * 1024

    def put(user: str, project: str) -> Any:
        return small.http.put(f"/api/v1/projects/{user}/{project}/files/a", content=piece)

    assert put("li", "one").status_code == 201
    refused = put("li", "two")
    assert (refused.status_code, refused.json()["code"]) == (429, 100604)
    assert put("li", "one").status_code == 200  # in place of what is there
    assert put("wang", "two").status_code == 201
    assert small.http.delete("/api/v1/projects/li/one/files/a").status_code == 204
    assert put("li", "two").status_code == 201


def test_a_chunked_upload_is_measured_as_it_comes(small: Server) -> None:
    pieces = (b"x" * 16 * 1024 for _ in range(10))
    answer = small.http.put("/api/v1/projects/li/one/files/a", content=pieces)
    assert answer.status_code == 429
    assert small.http.get("/api/v1/projects/li/one/files").json()["entries"] == []


def test_who_has_filled_the_disk_with_a_program_gets_no_further_task(small: Server) -> None:
    """What a program writes is not kept from it by the byte, but is counted when the next one is to start."""
    writes = {"code": "open('big', 'wb').write(b'x' * 200_000)"}
    with Client(small.url) as client:
        client.submit("k12py", "runcode.start", "one", writes, user="li").wait(progress=False)
        with pytest.raises(RequestRefused) as error:
            client.submit("k12py", "runcode.start", "two", {"code": "pass"}, user="li")
        assert error.value.code == 100604
        client.submit("k12py", "runcode.start", "two", {"code": "pass"}, user="wang").wait(progress=False)
        client.delete_file("big", "one", user="li")
        client.submit("k12py", "runcode.start", "two", {"code": "pass"}, user="li").wait(progress=False)

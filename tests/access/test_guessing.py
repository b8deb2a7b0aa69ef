"""B10: guessing tokens gets nobody in, and keeps nobody out."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from k12ai.access.tokens import parse
from k12ai.client import Client, RequestRefused
from tests.support.school import ADMIN, STUDENT, School, http_at
from tests.support.server import Server


def test_wrong_tokens_from_one_address_are_soon_refused_without_a_look(school: School) -> None:
    """Ten a minute are told that they are wrong, the rest to wait; nobody else notices."""
    with school.at("127.7.7.7") as http:
        answers = [
            http.get("/api/v1/me", headers=school.headers(f"k12ai_{number:08x}_{'a' * 32}"))
            for number in range(1000)
        ]
        assert [each.status_code for each in answers[:10]] == [401] * 10
        assert {each.status_code for each in answers[12:]} == {429}
        assert int(answers[-1].headers["retry-after"]) >= 1
        assert answers[-1].json()["code"] == 100603
        # Whoever is right still gets in, from there as well: a class is often behind one address.
        assert http.get("/api/v1/me", headers=school.headers(STUDENT)).status_code == 200
    with school.at("127.7.7.8") as http:
        assert http.get("/api/v1/me", headers=school.headers(STUDENT)).status_code == 200


def test_a_right_id_is_refused_no_sooner_and_no_later_than_a_wrong_one(school: School) -> None:
    """No clock is asserted on but that of comparison: the medians are those of one run, side by side."""
    right_id = school.tokens[STUDENT].split("_")[1]
    took: dict[str, list[float]] = {right_id: [], "00000000": []}
    for _ in range(60):
        for token_id, times in took.items():
            started = time.perf_counter()
            assert school.ask(f"k12ai_{token_id}_{'a' * 32}", "GET", "/api/v1/me").status_code == 401
            times.append(time.perf_counter() - started)
    right, wrong = (statistics.median(times) for times in took.values())
    # An answer takes about a millisecond here; the check itself some microseconds.
    assert abs(right - wrong) < 0.5 * min(right, wrong)


def test_a_revoked_token_is_of_no_use_at_once(school: School) -> None:
    made = school.ask(ADMIN, "POST", "/api/v1/tokens", {"user": STUDENT}).json()
    headers = {"Authorization": f"Bearer {made['token']}"}
    assert school.server.http.get("/api/v1/me", headers=headers).status_code == 200
    school.ask(ADMIN, "DELETE", f"/api/v1/tokens/{made['id']}")
    refused = school.server.http.get("/api/v1/me", headers=headers)
    assert (refused.status_code, refused.json()["detail"]) == (401, "the token was revoked")


def test_the_store_holds_no_token(school: School) -> None:
    """Neither the database nor its log has the secret of any token in it."""
    school.ask(STUDENT, "GET", "/api/v1/me")
    secrets = [parts.secret.encode() for each in school.tokens.values() if (parts := parse(each))]
    assert len(secrets) == len(school.tokens)
    files = [each for each in school.server.data_dir.rglob("*") if each.is_file()]
    assert any(each.name == "k12ai.sqlite3" for each in files)
    for file in files:
        content = file.read_bytes()
        assert not any(secret in content for secret in secrets), file


def test_requests_with_one_token_come_at_their_rate_and_others_do_not_wait(
    start_server: Callable[..., Server],
) -> None:
    """A notebook gone wild is slowed down with its own token, not with its neighbour's."""
    limited = start_server("--token-requests-per-s", "2")
    school = School(limited)
    statuses = [school.ask(STUDENT, "GET", "/api/v1/me").status_code for _ in range(20)]
    assert statuses.count(200) >= 8
    assert statuses[-1] == 429
    refused = school.ask(STUDENT, "GET", "/api/v1/me", **{"Accept-Language": "zh"})
    assert (refused.json()["code"], refused.headers["retry-after"]) == (100603, "1")
    assert "秒" in refused.json()["detail"]
    assert school.ask(ADMIN, "GET", "/api/v1/me").status_code == 200


def test_requests_from_one_address_come_at_their_rate(start_server: Callable[..., Server]) -> None:
    server = start_server("--address-requests-per-s", "1")
    with Client(server.url) as client:
        token = client.access.create_token(ADMIN, "admin").token
    headers = {"Authorization": f"Bearer {token}"}
    statuses = [server.http.get("/api/v1/me", headers=headers).status_code for _ in range(10)]
    assert statuses[0] == 200
    assert statuses[-1] == 429
    with http_at(server, "127.9.9.9") as http:
        assert http.get("/api/v1/me", headers=headers).status_code == 200


def test_who_has_no_token_does_not_use_up_what_a_class_behind_the_same_address_has(
    start_server: Callable[..., Server],
) -> None:
    server = start_server("--address-requests-per-s", "3")
    with Client(server.url) as client:
        token = client.access.create_token(ADMIN, "admin").token
    statuses = [server.http.get("/api/v1/me").status_code for _ in range(30)]
    assert statuses[-1] == 429
    assert server.http.get("/api/v1/me", headers={"Authorization": f"Bearer {token}"}).status_code == 200


def test_a_token_that_is_no_header_field_is_refused_in_words(tmp_path: Path) -> None:
    """A token with a line break at its end, as files have, is cut; one that cannot be sent says so."""
    with pytest.raises(RequestRefused) as error:
        Client("http://127.0.0.1:9", "令牌").access.me()
    assert error.value.code == 100601

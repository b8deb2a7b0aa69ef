"""What is wrong with a request for a token or a class is said by name, in both languages."""

import pytest

from tests.support.school import ADMIN, School

TOKENS, CLASS = ("POST", "/api/v1/tokens"), ("PUT", "/api/v1/classes/bodies")


@pytest.mark.parametrize(
    ("route", "body", "code", "words"),
    [
        (TOKENS, {}, 100101, "user:"),
        (TOKENS, [], 100103, "object"),
        (TOKENS, {"user": 1}, 100102, "user:"),
        (TOKENS, {"user": "../x"}, 100102, "user:"),
        (TOKENS, {"user": "li", "role": "root"}, 100102, "student, teacher or admin"),
        (TOKENS, {"user": "li", "expires_in_s": 0}, 100102, "expires_in_s:"),
        (TOKENS, {"user": "li", "note": "x" * 201}, 100102, "note:"),
        (TOKENS, {"user": "li", "admin": True}, 100102, "admin: there is no such field"),
        (CLASS, {}, 100101, "students:"),
        (CLASS, {"students": "li"}, 100102, "students:"),
        (CLASS, {"students": ["li", "李雷"]}, 100102, "students:"),
        (CLASS, {"students": ["x"] * 1001}, 100102, "1000"),
        (CLASS, {"students": [], "renew": "yes"}, 100102, "renew:"),
        (("PUT", "/api/v1/classes/a%20b"), {"students": []}, 100102, "name:"),
    ],
)
def test_a_request_that_cannot_be_is_refused_by_the_name_of_what_is_wrong(
    school: School, route: tuple[str, str], body: object, code: int, words: str
) -> None:
    before = school.ask(ADMIN, "GET", "/api/v1/tokens").content
    for language in ("en", "zh"):
        refused = school.ask(ADMIN, *route, body, **{"Accept-Language": language})
        assert (refused.status_code, refused.json()["code"]) == (400, code)
        assert language == "zh" or words in refused.json()["detail"]
        assert (language == "zh") == any("\u4e00" <= each <= "\u9fff" for each in refused.json()["detail"])
    assert school.ask(ADMIN, "GET", "/api/v1/tokens").content == before

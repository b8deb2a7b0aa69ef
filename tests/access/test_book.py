"""The access book: whose a token is, and who may make and end which."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from k12ai.access.book import AccessBook
from k12ai.access.principal import OPEN, Principal
from k12ai.errors import (
    InvalidToken,
    NoSuchClass,
    NoSuchToken,
    NotAllowed,
    StorageFull,
    TokenExpired,
    TokenRevoked,
)
from k12ai.people import ClassRequest, TokenRequest
from k12ai.stores.base import Store
from k12ai.stores.sql import SqlStore


class WallClock:
    """The time of day, which an operator may set."""

    def __init__(self) -> None:
        self.now = datetime(2026, 9, 1, 8, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture(name="clock")
def _clock() -> WallClock:
    return WallClock()


@pytest.fixture(name="store")
async def _store(tmp_path: Path) -> AsyncIterator[Store]:
    async with SqlStore(tmp_path / "store") as store:
        yield store


@pytest.fixture(name="book")
async def _book(store: Store, clock: WallClock) -> AccessBook:
    """A book with an admin in it."""
    book = AccessBook(store, lifetime_s=3600, now=clock)
    await book.load()
    await book.issue(TokenRequest("head", "admin"), OPEN)
    return book


HEAD = Principal("head", "admin", None)


async def teacher_of(book: AccessBook, *students: str, name: str = "zhang") -> Principal:
    """Make a class with a teacher and return who that is."""
    made = await book.issue(TokenRequest(name, "teacher"), HEAD)
    await book.set_class(f"class-of-{name}", ClassRequest(list(students), [name]), HEAD)
    return book.authenticate(made.token)


async def test_a_token_is_its_users_for_as_long_as_it_lives(book: AccessBook, clock: WallClock) -> None:
    made = await book.issue(TokenRequest("li", expires_in_s=60), HEAD)
    assert book.authenticate(made.token).user == "li"
    clock.now += timedelta(seconds=59)
    assert book.authenticate(made.token).users == {"li"}
    clock.now += timedelta(seconds=1)
    with pytest.raises(TokenExpired):
        book.authenticate(made.token)


async def test_a_token_that_says_nothing_else_lives_as_long_as_the_setting_says(book: AccessBook) -> None:
    made = await book.issue(TokenRequest("li"), HEAD)
    assert made.expires_at == made.created_at + timedelta(hours=1)


async def test_a_revoked_token_is_refused_at_once_and_after_a_restart(book: AccessBook, store: Store) -> None:
    made = await book.issue(TokenRequest("li"), HEAD)
    await book.revoke(made.id, HEAD)
    again = AccessBook(store, lifetime_s=3600)
    await again.load()
    for each in (book, again):
        with pytest.raises(TokenRevoked):
            each.authenticate(made.token)


async def test_revoking_twice_keeps_the_first_time(book: AccessBook, clock: WallClock) -> None:
    made = await book.issue(TokenRequest("li"), HEAD)
    first = await book.revoke(made.id, HEAD)
    clock.now += timedelta(minutes=1)
    assert await book.revoke(made.id, HEAD) == first


async def test_the_right_id_with_a_wrong_secret_is_refused(book: AccessBook) -> None:
    made = await book.issue(TokenRequest("li"), HEAD)
    for wrong in (made.token[:-1] + ("a" if made.token[-1] != "a" else "b"), f"k12ai_{made.id}_{'a' * 32}"):
        with pytest.raises(InvalidToken):
            book.authenticate(wrong)


async def test_what_is_made_is_there_after_a_restart(book: AccessBook, store: Store) -> None:
    teacher = await teacher_of(book, "li", "wang")
    again = AccessBook(store, lifetime_s=3600)
    await again.load()
    assert again.tokens(HEAD) == book.tokens(HEAD)
    assert again.classes(HEAD) == book.classes(HEAD)
    assert again.principal_of("zhang", "teacher").users == teacher.users == {"zhang", "li", "wang"}


async def test_the_first_token_is_an_admins(store: Store) -> None:
    book = AccessBook(store, lifetime_s=3600)
    await book.load()
    with pytest.raises(NotAllowed, match="first token"):
        await book.issue(TokenRequest("li", "student"), OPEN)
    with pytest.raises(NotAllowed, match="first token"):
        await book.set_class("3-1", ClassRequest(["li"]), OPEN)
    assert not book.has_tokens
    assert book.classes(OPEN) == []


async def test_a_teacher_makes_tokens_of_the_class_and_of_nobody_else(book: AccessBook) -> None:
    teacher = await teacher_of(book, "li", "head")
    assert (await book.issue(TokenRequest("li"), teacher)).created_by == "zhang"
    for wanted in (TokenRequest("sun"), TokenRequest("head"), TokenRequest("zhang")):
        with pytest.raises(NotAllowed):
            await book.issue(wanted, teacher)


@pytest.mark.parametrize("role", ["teacher", "admin"])
async def test_a_teacher_makes_no_token_above_a_students(book: AccessBook, role: str) -> None:
    teacher = await teacher_of(book, "li")
    for user in ("li", "zhang"):
        with pytest.raises(NotAllowed):
            await book.issue(TokenRequest(user, role), teacher)  # type: ignore[arg-type]


async def test_a_teacher_sees_and_ends_students_tokens_and_not_those_of_staff(book: AccessBook) -> None:
    # The head is in the class, too: that must not make the head's own token the teacher's to end.
    teacher = await teacher_of(book, "li", "head")
    assert {each.user for each in book.tokens(teacher)} == {"li", "zhang"}
    (heads,) = [each for each in book.tokens(HEAD) if each.role == "admin"]
    with pytest.raises(NoSuchToken):
        await book.revoke(heads.id, teacher)
    assert (await book.revoke(book.tokens(teacher, "li")[0].id, teacher)).revoked_at is not None


async def test_a_student_sees_and_ends_own_tokens_alone(book: AccessBook) -> None:
    await teacher_of(book, "li", "wang")
    student = book.principal_of("li", "student")
    assert {each.user for each in book.tokens(student)} == {"li"}
    (others,) = book.tokens(HEAD, "wang")
    with pytest.raises(NoSuchToken):
        await book.revoke(others.id, student)


async def test_a_class_gives_each_student_one_token_and_no_second_one(book: AccessBook) -> None:
    first = await book.set_class("3-1", ClassRequest(["li", "wang", "li"]), HEAD)
    assert [each.user for each in first.tokens] == ["li", "wang"]
    second = await book.set_class("3-1", ClassRequest(["li", "sun"]), HEAD)
    assert [each.user for each in second.tokens] == ["sun"]
    assert second.classroom.students == ["li", "sun"]


async def test_new_tokens_for_all_take_the_place_of_what_students_had(book: AccessBook) -> None:
    """For strips of paper that were lost, and for a new term; a colleague in the class keeps theirs."""
    first = await book.set_class("3-1", ClassRequest(["li", "wang"]), HEAD)
    colleague = await book.issue(TokenRequest("zhang", "teacher"), HEAD)
    again = await book.set_class("3-1", ClassRequest(["li", "wang", "zhang"], renew=True), HEAD)
    assert [each.user for each in again.tokens] == ["li", "wang", "zhang"]
    for each in first.tokens:
        with pytest.raises(TokenRevoked):
            book.authenticate(each.token)
    for made in (*again.tokens, colleague):
        assert book.is_valid(made.id)
        assert book.authenticate(made.token).user == made.user


async def test_two_rosters_at_once_make_one_token_a_student(book: AccessBook) -> None:
    request = ClassRequest(["li", "wang"])
    made = await asyncio.gather(*(book.set_class("3-1", request, HEAD) for _ in range(5)))
    assert sorted(token.user for each in made for token in each.tokens) == ["li", "wang"]


async def test_a_token_is_revoked_though_the_disk_is_full(
    book: AccessBook, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator is told that it would be good again after a restart; until then it is not."""
    made = await book.issue(TokenRequest("li"), HEAD)

    async def full(*_: object) -> None:
        raise StorageFull

    monkeypatch.setattr(store, "revoke_token", full)
    with pytest.raises(StorageFull):
        await book.revoke(made.id, HEAD)
    with pytest.raises(TokenRevoked):
        book.authenticate(made.token)


async def test_who_leaves_a_class_is_out_of_the_teachers_reach_at_once(book: AccessBook) -> None:
    made = await book.issue(TokenRequest("zhang", "teacher"), HEAD)
    await book.set_class("3-1", ClassRequest(["li", "wang"], ["zhang"]), HEAD)
    assert book.authenticate(made.token).acts_for("li")
    await book.set_class("3-1", ClassRequest(["wang"], ["zhang"]), HEAD)
    assert not book.authenticate(made.token).acts_for("li")
    await book.delete_class("3-1")
    assert book.authenticate(made.token).users == {"zhang"}


async def test_a_teacher_without_the_role_is_no_teacher(book: AccessBook) -> None:
    await book.set_class("3-1", ClassRequest(["li", "wang"], ["zhang"]), HEAD)
    assert book.principal_of("zhang", "student").users == {"zhang"}


async def test_students_are_not_told_who_else_is_in_the_class(book: AccessBook) -> None:
    await book.set_class("3-1", ClassRequest(["li", "wang"], ["zhang"]), HEAD)
    (seen,) = book.classes(book.principal_of("li", "student"))
    assert (seen.name, seen.teachers, seen.students) == ("3-1", ["zhang"], ["li"])
    assert book.classes(book.principal_of("sun", "student")) == []


async def test_a_class_that_is_not_there_cannot_be_dissolved(book: AccessBook) -> None:
    with pytest.raises(NoSuchClass):
        await book.delete_class("3-9")


def test_who_stops_whose_task_is_the_reason() -> None:
    teacher = Principal("zhang", "teacher", frozenset({"zhang", "li"}))
    assert teacher.stopper("li").reason == "stopped_by_teacher"
    assert teacher.stopper("zhang").reason == "stopped_by_user"
    assert Principal("li", "student", frozenset({"li"})).stopper("li") == ("li", "stopped_by_user")
    assert OPEN.stopper("li", "wang") == ("wang", "stopped_by_user")

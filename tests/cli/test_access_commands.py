"""``k12ai token``, ``class`` and ``audit``: what an operator, a teacher and a student see."""

import csv
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from k12ai.cli.exits import CommandFailed
from k12ai.cli.people import lifetime_s
from k12ai.cli.rosters import read_roster
from tests.support.school import ADMIN, STUDENT, TEACHER, School
from tests.support.server import Server


def k12ai(
    *arguments: str, url: str = "", token: str = "", lang: str = "C.UTF-8"
) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "LANG": lang, "COLUMNS": "200", "K12AI_SERVER_URL": url, "K12AI_TOKEN": token}
    return subprocess.run(
        [sys.executable, "-m", "k12ai", *arguments], env=environ, capture_output=True, text=True, timeout=60
    )


def test_a_class_is_made_of_a_roster_in_one_command(
    start_server: Callable[..., Server], tmp_path: Path
) -> None:
    """From an open server to strips of paper to hand out, as a teacher would; nothing else is needed."""
    server = start_server()
    made = k12ai("token", "create", "zhang", "--role", "admin", url=server.url)
    token = made.stdout.strip()
    assert made.returncode == 0, made.stderr
    assert "K12AI_TOKEN" in made.stderr
    roster, strips = tmp_path / "roster.csv", tmp_path / "tokens.csv"
    roster.write_text("学号,姓名\n20260001,李雷\n20260002,韩梅梅\n", encoding="gbk")
    command = ("class", "set", "3-1", str(roster), "--teacher", "zhang", "--output", str(strips))
    done = k12ai(*command, url=server.url, token=token)
    assert done.returncode == 0, done.stderr
    assert (done.stdout, done.stderr) == ("", f"{strips}: 2 tokens\n")
    assert stat.S_IMODE(strips.stat().st_mode) == 0o600
    with strips.open(encoding="utf-8-sig") as file:
        handed_out = list(csv.DictReader(file))
    assert [(each["user"], each["name"]) for each in handed_out] == [
        ("20260001", "李雷"),
        ("20260002", "韩梅梅"),
    ]
    who = k12ai("token", "whoami", url=server.url, token=handed_out[0]["token"])
    assert who.stdout.startswith("20260001 student ")
    assert who.stdout.endswith(" 3-1\n")
    again = k12ai(*command, url=server.url, token=token)
    assert again.returncode == 2
    assert str(strips) in again.stderr
    again = k12ai(*command[:-2], url=server.url, token=token, lang="zh_CN.UTF-8")
    assert (again.returncode, again.stdout) == (0, "")
    assert "已有有效令牌" in again.stderr
    listed = k12ai("class", "list", url=server.url, token=token)
    assert "3-1" in listed.stdout
    assert "zhang" in listed.stdout


def test_without_a_token_one_is_told_what_to_do(school: School) -> None:
    english, chinese = ("C.UTF-8", "Set K12AI_TOKEN"), ("zh_CN.UTF-8", "将 K12AI_TOKEN 设为")
    submit = ("submit", "k12py", "runcode", "-P", "code=1")
    for command, (lang, words) in ((("stats",), english), (("ps",), chinese), (submit, english)):
        refused = k12ai(*command, url=school.server.url, lang=lang)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert words in refused.stderr


def test_a_student_is_told_that_the_audit_is_a_teachers(school: School) -> None:
    refused = k12ai("audit", url=school.server.url, token=school.tokens[STUDENT])
    assert refused.returncode == 1
    assert "teacher" in refused.stderr
    shown = k12ai("audit", "-n", "5", url=school.server.url, token=school.tokens[TEACHER])
    assert shown.returncode == 0, shown.stderr


def test_the_audit_shows_who_did_what(school: School) -> None:
    school.ask(STUDENT, "DELETE", f"/api/v1/projects/{STUDENT}/p%1b%5b2J/files/gone.txt")
    shown = k12ai("audit", "--user", STUDENT, url=school.server.url, token=school.tokens[ADMIN])
    assert "file.delete" in shown.stdout
    assert f"{STUDENT} (student)" in shown.stdout
    assert "\x1b[2J" not in shown.stdout
    as_json = k12ai("audit", "-n", "1", "--json", url=school.server.url, token=school.tokens[ADMIN])
    (entry,) = msgspec.json.decode(as_json.stdout)
    assert {"user", "action", "subject", "status", "address"} <= set(entry)


def test_tokens_are_listed_without_their_secrets_and_revoked_by_their_id(school: School) -> None:
    made = k12ai(
        *("token", "create", STUDENT, "--expires", "12h", "--note", "lost", "--json"),
        url=school.server.url,
        token=school.tokens[TEACHER],
    )
    token = msgspec.json.decode(made.stdout)
    listed = k12ai("token", "list", "-u", STUDENT, url=school.server.url, token=school.tokens[TEACHER])
    assert token["id"] in listed.stdout
    assert "lost" in listed.stdout
    assert token["token"] not in listed.stdout
    revoked = k12ai("token", "revoke", token["id"], url=school.server.url, token=school.tokens[TEACHER])
    assert revoked.stdout == f"revoked: {token['id']} of {STUDENT}\n"
    refused = k12ai("stats", url=school.server.url, token=token["token"], lang="zh_CN.UTF-8")
    assert refused.returncode == 1
    assert "令牌已被吊销" in refused.stderr
    unknown = k12ai("token", "revoke", "00000000", url=school.server.url, token=school.tokens[ADMIN])
    assert unknown.returncode == 1
    assert "k12ai token list" in unknown.stderr


def test_who_lost_the_last_token_makes_another_beside_the_store(start_server: Callable[..., Server]) -> None:
    """While the server runs, its store is its own; stopped, whoever can write to it can make tokens."""
    server = start_server()
    options = ("--data-dir", str(server.data_dir))
    busy = k12ai("token", "create", "zhang", "--role", "admin", *options)
    assert (busy.returncode, busy.stdout) == (2, "")
    assert "in use" in busy.stderr
    server.terminate()
    refused = k12ai("token", "create", "li", *options)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "first token" in refused.stderr
    made = k12ai("token", "create", "zhang", "--role", "admin", *options)
    assert made.returncode == 0, made.stderr
    again = start_server()
    assert k12ai("token", "whoami", url=again.url, token=made.stdout.strip()).stdout.startswith("zhang admin")
    shown = k12ai("audit", url=again.url, token=made.stdout.strip()).stdout
    assert "(operator)" in shown
    again.terminate()
    (found,) = msgspec.json.decode(k12ai("token", "list", "--json", *options).stdout)
    assert k12ai("token", "revoke", found["id"], *options).returncode == 0


def test_a_directory_without_a_store_is_not_taken_for_one_without_tokens(tmp_path: Path) -> None:
    for command in (("token", "list"), ("token", "revoke", "00000000")):
        refused = k12ai(*command, "--data-dir", str(tmp_path / "typo"))
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "no store is there" in refused.stderr
    assert not (tmp_path / "typo").exists()


def test_tokens_are_not_written_through_a_link_and_leave_no_empty_file(school: School, tmp_path: Path) -> None:
    """The file is made first: a token whose only copy cannot be written must not be made."""
    roster = tmp_path / "roster.csv"
    roster.write_text("newcomer\n")
    (tmp_path / "link.csv").symlink_to(tmp_path / "elsewhere.csv")
    command = ("class", "set", "links", str(roster), "--output")
    refused = k12ai(*command, str(tmp_path / "link.csv"), url=school.server.url, token=school.tokens[ADMIN])
    assert refused.returncode == 2
    assert not (tmp_path / "elsewhere.csv").exists()
    assert school.ask(ADMIN, "GET", "/api/v1/tokens?user=newcomer").json()["tokens"] == []
    unwritten = tmp_path / "unwritten.csv"
    refused = k12ai(*command, str(unwritten), url=school.server.url, token=school.tokens[STUDENT])
    assert refused.returncode == 1
    assert not unwritten.exists()


def test_an_open_server_says_that_it_is(start_server: Callable[..., Server]) -> None:
    said = k12ai("token", "whoami", url=start_server().url)
    assert "everybody on its machine may do everything" in said.stdout


@pytest.mark.parametrize(
    ("given", "seconds"), [("12h", 43200), ("90d", 7776000), ("20w", 12096000), ("1", 86400)]
)
def test_how_long_a_token_lives_is_said_as_people_do(given: str, seconds: int) -> None:
    assert lifetime_s(given) == seconds


@pytest.mark.parametrize("given", ["", "0", "0d", "forever", "-1d", "1y", "1.5d", "99999d"])
def test_no_other_lifetime_is_taken(given: str) -> None:
    with pytest.raises(CommandFailed):
        lifetime_s(given)


@pytest.mark.parametrize(
    ("text", "students"),
    [
        ("user,name\nli,李雷\nwang,\n", {"li": "李雷", "wang": ""}),
        ("li\nwang\n", {"li": "", "wang": ""}),
        ("姓名,学号\n李雷,1\n", {"1": "李雷"}),
        ("﻿user\r\nli\r\n\r\n", {"li": ""}),
        ("Name;x,User\nLi,li\n", {"li": ""}),
        ("\n\n li , Lei \n", {"li": ""}),
    ],
)
def test_a_roster_is_read_as_spreadsheets_write_it(tmp_path: Path, text: str, students: dict[str, str]) -> None:
    roster = tmp_path / "roster.csv"
    roster.write_text(text, encoding="utf-8")
    assert read_roster(roster) == students


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no students"),
        (b"user\nli\n../x\n", "line 3"),
        ("user\n李雷\n".encode(), "column 'user'"),
        (b"user\nli\nli\n", "twice"),
        (b"user,name\n,nobody\n", "line 2"),
        (b'user\n"' + b"x" * 200_000, "no CSV"),
        (b"\xff\xfe\xff\xff", "neither UTF-8 nor GBK"),
        (b"user\n" + b"x" * 65 + b"\n", "line 2"),
    ],
)
def test_a_roster_that_cannot_be_is_refused_with_its_line(tmp_path: Path, content: bytes, words: str) -> None:
    roster = tmp_path / "roster.csv"
    roster.write_bytes(content)
    with pytest.raises(CommandFailed, match=words):
        read_roster(roster)


def test_a_roster_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match=r"none\.csv"):
        read_roster(tmp_path / "none.csv")

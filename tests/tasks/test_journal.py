"""A task's journal: read whatever is in it, trusting nothing."""

import os
from pathlib import Path

import pytest

from k12ai.tasks.journal import MAX_LINE_BYTES, Journal

METRIC = b'{"type": "metrics", "seq": 1, "time": 5, "data": {"loss": 0.5}}\n'


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    (tmp_path / "journal").touch()
    return tmp_path / "journal"


def opened(path: Path) -> Journal:
    journal = Journal.open(path)
    assert journal is not None
    return journal


def test_lines_are_read_once_from_an_offset_on(path: Path) -> None:
    journal = opened(path)
    assert journal.read(0).lines == []
    path.write_bytes(METRIC * 2)
    piece = journal.read(0)
    assert [line.data for line in piece.lines] == [{"loss": 0.5}] * 2
    assert (piece.offset, piece.bad) == (2 * len(METRIC), 0)
    with path.open("ab") as file:
        file.write(METRIC)
    assert len(journal.read(piece.offset).lines) == 1
    journal.close()


def test_a_line_that_is_still_being_written_comes_when_it_is_whole(path: Path) -> None:
    journal = opened(path)
    path.write_bytes(METRIC[:-5])
    assert journal.read(0) == ([], 0, 0)
    path.write_bytes(METRIC)
    assert len(journal.read(0).lines) == 1
    journal.close()


@pytest.mark.parametrize(
    "bad",
    [
        b"not json\n",
        b"\xff\xfe\x00\n",
        b'{"type": "metrics", "data": {"loss": NaN}}\n',
        b'{"type": "metrics", "data": 1}\n',
        b'{"type": "shutdown", "data": {}}\n',
        b'{"type": "status"}\n',
        b"[" * 100_000 + b"\n",
        b'{"type": "status", "data": {"x": "' + b"x" * MAX_LINE_BYTES + b'"}}\n',
        b"[]\n",
    ],
    ids=["words", "bytes", "nan", "no object", "no such type", "no data", "deep", "long", "array"],
)
def test_what_is_no_line_is_counted_and_the_next_one_is_read(path: Path, bad: bytes) -> None:
    path.write_bytes(bad + METRIC)
    journal = opened(path)
    lines, offset, count = journal.read(0)
    assert (len(lines), offset, count) == (1, len(bad) + len(METRIC), 1)
    journal.close()


def test_a_line_without_end_is_passed_over(path: Path) -> None:
    path.write_bytes(b"x" * (3 << 20) + b"\n" + METRIC)
    journal = opened(path)
    offset, lines = 0, []
    for _ in range(6):
        piece = journal.read(offset)
        offset = piece.offset
        lines += piece.lines
    assert len(lines) == 1
    assert offset == path.stat().st_size
    journal.close()


def test_ten_thousand_lines_come_in_pieces_and_none_is_lost(path: Path) -> None:
    path.write_bytes(METRIC * 10_000)
    journal = opened(path)
    offset = count = 0
    while (piece := journal.read(offset)).offset != offset:
        offset = piece.offset
        count += len(piece.lines)
    assert count == 10_000
    journal.close()


def test_what_the_task_does_to_the_name_changes_nothing(path: Path, tmp_path: Path) -> None:
    journal = opened(path)
    path.write_bytes(METRIC)
    path.unlink()
    path.symlink_to("/etc/passwd")
    assert len(journal.read(0).lines) == 1
    journal.close()


@pytest.mark.parametrize("trick", ["symlink", "fifo", "directory", "hardlink", "missing"])
def test_after_a_restart_only_a_regular_file_of_its_own_is_opened(
    path: Path, tmp_path: Path, trick: str
) -> None:
    path.unlink()
    secret = tmp_path / "secret"
    secret.write_bytes(METRIC)
    if trick == "symlink":
        path.symlink_to(secret)
    elif trick == "fifo":
        os.mkfifo(path)
    elif trick == "directory":
        path.mkdir()
    elif trick == "hardlink":
        os.link(secret, path)
    assert Journal.open(path) is None

"""B6, B30: the files of projects stay in their projects, whatever names and tricks come along."""

import contextlib
import os
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k12ai import projects
from k12ai.errors import (
    BadPath,
    InvalidValue,
    K12AIError,
    NoSuchFile,
    PathTaken,
    ProjectFull,
    StorageFull,
    TooLarge,
)
from k12ai.projects import FileEntry, ProjectFiles, Stored, Upload

Fingerprint = dict[str, tuple[int, int, int, bytes]]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="other accounts and disks need root")
STUDENT = (65534, 65534)


def fingerprint(tree: Path) -> Fingerprint:
    """Return everything that can be seen of a tree, names, modes, owners, times and bytes."""
    found = {}
    for path in sorted([tree, *tree.rglob("*")]):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        # Not the access time, which looking changes, but all else.
        found[str(path)] = (status.st_mode, status.st_uid, status.st_mtime_ns, content)
    return found


def put(files: ProjectFiles, path: str, content: bytes = b"x", user: str = "u", uuid: str = "p") -> Stored:
    upload = files.begin(user, uuid, path)
    try:
        upload.write(content)
        return upload.finish()
    finally:
        upload.abandon()


def got(files: ProjectFiles, path: str, user: str = "u", uuid: str = "p") -> bytes:
    file = files.open(user, uuid, path)
    try:
        return file.read(0, 1 << 20)
    finally:
        file.close()


def delete(files: ProjectFiles, path: str, user: str = "u", uuid: str = "p") -> None:
    rest = files.delete(user, uuid, path)
    while rest is not None and not files.clear(rest):
        pass


def paths(files: ProjectFiles, path: str = "", *, recurse: bool = True) -> list[str]:
    return [entry.path for entry in files.listing("u", "p", path, recurse=recurse).entries]


@pytest.fixture(name="data")
def _data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture(name="files")
def _files(data: Path) -> ProjectFiles:
    return ProjectFiles(data)


@pytest.fixture(name="project")
def _project(files: ProjectFiles) -> Path:
    return files.project_dir("u", "p")


@pytest.fixture(name="outside", autouse=True)
def _outside(tmp_path: Path) -> Iterator[Path]:
    """A tree beside the data directory, which no test may change in any way."""
    tree = tmp_path / "outside"
    (tree / "sub").mkdir(parents=True)
    (tree / "secret").write_bytes(b"the teacher's marks")
    (tree / "sub" / "deeper").write_bytes(b"more of them")
    (tmp_path / "..k").write_bytes(b"a name like a way up")
    before = fingerprint(tree)
    yield tree
    assert fingerprint(tree) == before


@pytest.fixture(autouse=True)
def _tidy(data: Path, tmp_path: Path) -> Iterator[None]:
    """After every test nothing is left on its way in or out, and no file is open."""
    yield
    opened = [os.readlink(f"/proc/self/fd/{each}") for each in os.listdir("/proc/self/fd") if _is_link(each)]
    assert [each for each in opened if each.startswith(str(tmp_path))] == []
    assert not (data / "uploads").exists() or os.listdir(data / "uploads") == []


def _is_link(descriptor: str) -> bool:
    return os.path.islink(f"/proc/self/fd/{descriptor}")


# --- names -----------------------------------------------------------------------------------------

NAMES = [
    *("..", "../../etc", "/etc", "a/b", "a\\b", "..\\..\\x", "%2e%2e%2f", "%252e%252e", "\0", "a\0b", "\ud800"),
    *("\n", "a\nb", ".", "-rf", "*", "all", "0", "a,b", "a=b", "x", "x" * 64, "x" * 65, "x" * 256, "中" * 85),
    *(
        "中" * 86,
        "é",
        "e\u0301",
        "\u202eexe.txt",
        "שלום",
        "😀",
        "a@b",
        "",
        " ",
        "~",
        "$HOME",
        "...",
        "\x7f",
        "\x85",
    ),
    *("..k", "k..", "CON", "a:b", "a;b", "'", '"', "<script>", ".k12ai", ".k12ai-x", ".hidden", "\u2028", "Ａ"),
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_an_identifier_is_refused_or_names_a_directory_of_its_own(
    files: ProjectFiles, data: Path, name: str
) -> None:
    others = {files.project_dir("u", other).resolve() for other in ("u", "p", "etc", "a", "b")}
    for user, uuid in ((name, "p"), ("u", name)):
        try:
            found = files.project_dir(user, uuid).resolve()
        except InvalidValue:
            continue
        assert found == data / "projects" / user / uuid
        assert (found not in others) or name in ("u", "p")
        assert found.is_dir()


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_path_is_refused_or_names_a_file_of_its_own(
    files: ProjectFiles, project: Path, data: Path, name: str
) -> None:
    put(files, "neighbour", b"neighbour")
    before = fingerprint(project)
    try:
        put(files, name, b"mine")
    except BadPath:
        assert fingerprint(project) == before
        return
    assert (project / name).resolve().is_relative_to(project)
    assert got(files, name) == b"mine"
    assert paths(files, recurse=False) == sorted(["neighbour", name.split("/")[0]])


@pytest.mark.parametrize(
    "path",
    [
        *("..", "a/..", "../b", "a/../b", "a//b", "/a", "a/", "a/./b", "a\\b", "a\0", "a\x1f", "x" * 256),
        *(".k12ai/x", "a/.k12ai", "/".join("x" * 17), "/".join(["x" * 255] * 5), "中" * 86),
    ],
    ids=ascii,
)
def test_a_path_that_is_no_path_is_refused_everywhere(files: ProjectFiles, path: str) -> None:
    for attempt in (files.begin, files.open, files.delete, files.listing):
        with pytest.raises(BadPath):
            attempt("u", "p", path)


@pytest.mark.parametrize("path", ["/".join("x" * 16), "中" * 85, "数据/训练 集.csv", "/".join(["y" * 254] * 4)])
def test_a_path_at_the_limits_is_taken(files: ProjectFiles, path: str) -> None:
    put(files, path, b"here")
    assert got(files, path) == b"here"
    assert path in paths(files)


def test_names_that_look_alike_are_different_files(files: ProjectFiles) -> None:
    put(files, "é", b"composed")
    put(files, "e\u0301", b"decomposed")
    assert (got(files, "é"), got(files, "e\u0301")) == (b"composed", b"decomposed")


_PIECES = st.sampled_from(
    ["..", ".", "/", "\\", "%2e", "%252f", "\0", "\n", "a", "b", "中", "é", "e\u0301", "~", "-", ""]
)
# Mapped, because alternatives of alternatives would all be as likely, and hardly a name be good.
_EVIL = (st.lists(_PIECES, max_size=4).map("".join) | st.text(max_size=8) | st.sampled_from(NAMES)).map(str)
_GOOD = st.sampled_from(["a", "b", "%2e%2e", "é", "e\u0301", "..k", "-rf", "a b", "中文"])
_PATHS = st.one_of(
    st.lists(_GOOD, min_size=1, max_size=3).map("/".join),
    st.lists(_GOOD | st.text("abcdef", min_size=1), min_size=1, max_size=3).map("/".join),
    st.lists(_GOOD | _EVIL, min_size=1, max_size=4).map("/".join),
)
_USUAL = st.sampled_from(["u", "p", "a@b", "..k", "-rf"])
_IDENTIFIERS = st.one_of(_USUAL, st.sampled_from(["u", "all", "0"]), st.text("abc._@-", min_size=1), _EVIL)


@pytest.mark.parametrize(
    "examples", [300, pytest.param(2000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])]
)
def test_no_names_at_all_lead_out_of_a_project_or_into_another_file(
    files: ProjectFiles,
    outside: Path,
    data: Path,
    examples: int,
    record_property: Callable[[str, object], None],
) -> None:
    sentinel = fingerprint(outside)
    stored: dict[tuple[str, str, str], bytes] = {}
    counts = Counter[str]()

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(_IDENTIFIERS, _IDENTIFIERS, _PATHS, st.sampled_from(["put", "put", "delete", "delete one"]))
    def check(user: str, uuid: str, path: str, what: str) -> None:
        content = f"{counts}".encode()
        if what == "delete one" and stored:  # of those that are there; by chance they are hardly ever met
            user, uuid, path = sorted(stored)[len(path) % len(stored)]
        try:
            if what == "put":
                put(files, path, content, user, uuid)
                stored[user, uuid, path] = content
            else:
                delete(files, path, user, uuid)
                for key in list(stored):
                    if key[:2] == (user, uuid) and f"{key[2]}/".startswith(f"{path}/"):
                        del stored[key]
            counts[what] += 1
        except (InvalidValue, NoSuchFile, PathTaken) as error:
            counts[type(error).__name__] += 1
        assert fingerprint(outside) == sentinel
        for (its_user, its_uuid, its_path), its_content in stored.items():
            assert got(files, its_path, its_user, its_uuid) == its_content

    check()
    assert {each.name for each in data.iterdir()} <= {"projects", "uploads"}
    on_disk = [each for each in (data / "projects").rglob("*") if each.is_file()]
    assert len(on_disk) == len(stored)
    assert counts["put"] > examples / 20, "the names were not all refused"
    record_property("examples", examples)
    for name, count in counts.items():
        record_property(name, count)


# --- uploads ---------------------------------------------------------------------------------------


def test_an_upload_says_what_was_stored(files: ProjectFiles) -> None:
    stored = put(files, "模型/weights.bin", b"abc")
    assert stored.created
    assert stored.file.path == "模型/weights.bin"
    assert stored.file.size == 3
    assert stored.file.sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert stored.file.modified_at.utcoffset() is not None


def test_a_file_that_is_replaced_is_not_new_and_gets_another_version(files: ProjectFiles) -> None:
    first, second = put(files, "a", b"1"), put(files, "a", b"2")
    assert (first.created, second.created) == (True, False)
    assert first.version != second.version
    assert got(files, "a") == b"2"


def test_nothing_can_be_seen_of_an_upload_before_it_is_finished(files: ProjectFiles, data: Path) -> None:
    upload = files.begin("u", "p", "dir/a")
    upload.write(b"x" * 100_000)
    assert not (data / "projects").exists()
    upload.finish()
    assert paths(files) == ["dir", "dir/a"]


def test_the_old_file_stays_whole_until_the_new_one_is(files: ProjectFiles) -> None:
    put(files, "a", b"old")
    upload = files.begin("u", "p", "a")
    upload.write(b"ne")
    assert got(files, "a") == b"old"
    upload.abandon()
    assert got(files, "a") == b"old"


def test_an_abandoned_upload_leaves_nothing(files: ProjectFiles, data: Path) -> None:
    upload = files.begin("u", "p", "dir/a")
    upload.write(b"x")
    upload.abandon()
    upload.abandon()
    assert not (data / "projects").exists()
    with pytest.raises(ValueError, match="over"):
        upload.write(b"y")


def test_files_and_directories_are_their_owner_s_alone(files: ProjectFiles, project: Path) -> None:
    put(files, "dir/a")
    assert stat.S_IMODE((project / "dir").stat().st_mode) == 0o700
    assert stat.S_IMODE((project / "dir" / "a").stat().st_mode) == 0o600
    assert stat.S_IMODE(project.stat().st_mode) == 0o700


def test_an_empty_file_is_a_file(files: ProjectFiles) -> None:
    put(files, "empty", b"")
    assert got(files, "empty") == b""


@needs_root
def test_what_is_put_into_a_student_s_project_belongs_to_the_student(
    files: ProjectFiles, project: Path
) -> None:
    os.chown(project, *STUDENT)
    put(files, "dir/a")
    for path in (project / "dir", project / "dir" / "a"):
        assert (path.stat().st_uid, path.stat().st_gid) == STUDENT


@needs_root
def test_a_new_project_belongs_to_the_owner_that_is_named(files: ProjectFiles, data: Path) -> None:
    upload = files.begin("u", "p", "dir/a", owner=STUDENT)
    upload.finish()
    project = data / "projects" / "u" / "p"
    for path in (project, project / "dir", project / "dir" / "a"):
        assert (path.stat().st_uid, path.stat().st_gid) == STUDENT
    assert project.parent.stat().st_uid == 0


@needs_root
def test_students_get_through_to_their_projects_but_see_no_names(files: ProjectFiles, project: Path) -> None:
    for directory in (project.parent, project.parents[1]):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o711


def test_a_file_does_not_replace_a_directory_and_the_other_way_round(files: ProjectFiles) -> None:
    put(files, "dir/a")
    with pytest.raises(PathTaken, match="is a directory"):
        files.begin("u", "p", "dir")
    with pytest.raises(PathTaken, match="no directory"):
        files.begin("u", "p", "dir/a/b")


def test_a_directory_that_comes_in_between_is_not_replaced_and_nothing_is_left(
    files: ProjectFiles, project: Path
) -> None:
    upload = files.begin("u", "p", "a")
    (project / "a").mkdir()
    with pytest.raises(PathTaken, match="is a directory"):
        upload.finish()
    upload.abandon()
    assert paths(files) == ["a"]


def test_an_upload_that_fails_at_the_end_leaves_no_directories(files: ProjectFiles, data: Path) -> None:
    upload = files.begin("u", "p", "new/dir/a")
    (data / "uploads" / upload.partial).unlink()
    with pytest.raises(NoSuchFile):
        upload.finish()
    upload.abandon()
    assert not (data / "projects" / "u" / "p").exists()


# --- limits ----------------------------------------------------------------------------------------


def test_a_file_over_the_limit_is_refused_while_it_grows(data: Path) -> None:
    files = ProjectFiles(data, max_file_bytes=10)
    put(files, "fits", b"x" * 10)
    with pytest.raises(TooLarge):
        put(files, "too-large", b"x" * 11)
    with pytest.raises(TooLarge):
        files.begin("u", "p", "declared", declared_bytes=11)
    assert paths(files) == ["fits"]


def test_a_project_holds_no_more_bytes_than_it_may(data: Path) -> None:
    files = ProjectFiles(data, max_project_bytes=10)
    put(files, "a", b"x" * 6)
    with pytest.raises(ProjectFull):
        put(files, "b", b"x" * 5)
    with pytest.raises(ProjectFull):
        files.begin("u", "p", "b", declared_bytes=5)
    put(files, "b", b"x" * 4)
    put(files, "b", b"x" * 10, uuid="other")


def test_what_a_file_replaces_makes_room_for_it(data: Path) -> None:
    files = ProjectFiles(data, max_project_bytes=10)
    put(files, "a", b"x" * 9)
    put(files, "a", b"y" * 10)
    assert got(files, "a") == b"y" * 10


def test_two_uploads_at_once_do_not_both_get_the_last_room(data: Path) -> None:
    files = ProjectFiles(data, max_project_bytes=10)
    first, second = files.begin("u", "p", "a"), files.begin("u", "p", "b")
    first.write(b"x" * 6)
    with pytest.raises(ProjectFull):
        second.write(b"x" * 6)
    second.abandon()
    first.finish()


def test_an_upload_counts_what_was_stored_since_it_began(data: Path) -> None:
    files = ProjectFiles(data, max_project_bytes=10)
    late = files.begin("u", "p", "a")
    put(files, "b", b"x" * 6)
    late.write(b"x" * 6)
    with pytest.raises(ProjectFull):
        late.finish()
    late.abandon()
    assert paths(files) == ["b"]


def test_a_project_holds_no_more_files_and_directories_than_it_may(data: Path) -> None:
    files = ProjectFiles(data, max_files=4)
    put(files, "dir/a")
    put(files, "b")
    with pytest.raises(ProjectFull):
        put(files, "other/c")
    put(files, "c")
    with pytest.raises(ProjectFull):
        put(files, "d")
    put(files, "c", b"replaced")
    delete(files, "b")
    put(files, "d")


def test_what_a_program_wrote_counts_and_a_million_files_are_not_counted_to_the_end(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = ProjectFiles(data, max_files=10)
    project = files.project_dir("u", "p")
    for number in range(200):
        (project / f"{number}").touch()
    seen = []
    whole = projects._entries

    def counted(*args: int, **kwargs: bool) -> Iterator[object]:
        for each in whole(*args, **kwargs):  # type: ignore[arg-type]
            seen.append(each)
            yield each

    monkeypatch.setattr(projects, "_entries", counted)
    with pytest.raises(ProjectFull):
        files.begin("u", "p", "a")
    assert len(seen) == 11


@needs_root
def test_a_full_disk_says_so_leaves_nothing_and_files_can_still_be_deleted(
    data: Path, request: pytest.FixtureRequest
) -> None:
    data.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(data)], check=True)
    request.addfinalizer(lambda: subprocess.run(["umount", "-l", str(data)], check=True))
    files = ProjectFiles(data)
    put(files, "dir/kept", b"x" * 500_000)
    put(files, "single", b"x" * 500_000)
    upload = files.begin("u", "p", "new/too-much")
    with pytest.raises(StorageFull):
        upload.write(b"x" * 2_000_000)
    upload.abandon()
    assert os.listdir(data / "uploads") == []
    assert paths(files) == ["dir", "dir/kept", "single"]
    with contextlib.suppress(OSError), (data / "ballast").open("wb", buffering=0) as ballast:
        while True:
            ballast.write(b"x" * 4096)
    delete(files, "dir")
    delete(files, "single")
    put(files, "new/enough", b"x" * 800_000)


# --- reading ---------------------------------------------------------------------------------------


def test_what_is_not_there_is_not_found(files: ProjectFiles) -> None:
    put(files, "a")
    for attempt in (files.open, files.delete, files.listing):
        with pytest.raises(NoSuchFile):
            attempt("u", "p", "nope")
        with pytest.raises(NoSuchFile):
            attempt("u", "p", "nope/deeper")
        with pytest.raises(NoSuchFile):
            attempt("u", "no-project", "a")


def fifo(path: Path, _outside: Path) -> None:
    os.mkfifo(path)


def device(path: Path, _outside: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("making a device needs root")


def listener(path: Path, _outside: Path) -> None:
    with socket.socket(socket.AF_UNIX) as each:
        # By a short way: the whole path may be longer than an address.
        directory = os.open(path.parent, os.O_RDONLY)
        each.bind(f"/proc/self/fd/{directory}/{path.name}")
        os.close(directory)


def link(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "secret")


def link_to_directory(path: Path, outside: Path) -> None:
    path.symlink_to(outside)


def dangling_link(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "nope")


def loop(path: Path, _outside: Path) -> None:
    path.symlink_to(path)


TRICKS = [fifo, device, listener, link, link_to_directory, dangling_link, loop]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("trick", TRICKS, ids=lambda trick: trick.__name__)
def test_only_plain_files_are_read(
    files: ProjectFiles, project: Path, outside: Path, trick: Callable[[Path, Path], None]
) -> None:
    trick(project / "trick", outside)
    with pytest.raises(PathTaken):
        files.open("u", "p", "trick")
    listing = files.listing("u", "p", recurse=True)
    assert (listing.entries, listing.omitted) == ([], 1)


@pytest.mark.timeout(20)
def test_a_fifo_is_not_even_touched(files: ProjectFiles, project: Path) -> None:
    os.mkfifo(project / "fifo")
    writer = threading.Thread(target=lambda: os.close(os.open(project / "fifo", os.O_WRONLY)))
    writer.start()  # waits in open(2) for a reader
    try:
        for _ in range(50):
            with pytest.raises(PathTaken):
                files.open("u", "p", "fifo")
            assert writer.is_alive()
    finally:
        reader = os.open(project / "fifo", os.O_RDONLY | os.O_NONBLOCK)
        writer.join()  # before the end is closed: it may only now be about to open the other one
        os.close(reader)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("trick", TRICKS, ids=lambda trick: trick.__name__)
def test_a_file_that_turns_into_something_else_as_it_is_opened_is_not_read(
    files: ProjectFiles,
    project: Path,
    outside: Path,
    trick: Callable[[Path, Path], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put(files, "a")
    check = projects._check_plain

    def check_then_trick(found: os.stat_result, path: str) -> None:
        check(found, path)
        monkeypatch.undo()
        (project / "a").unlink()
        trick(project / "a", outside)

    monkeypatch.setattr(projects, "_check_plain", check_then_trick)
    with pytest.raises(PathTaken):
        files.open("u", "p", "a")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("trick", TRICKS, ids=lambda trick: trick.__name__)
def test_nothing_is_reached_through_what_is_no_directory(
    files: ProjectFiles, project: Path, outside: Path, trick: Callable[[Path, Path], None]
) -> None:
    trick(project / "trick", outside)
    for attempt in (files.open, files.delete, files.begin, files.listing):
        with pytest.raises(PathTaken):
            attempt("u", "p", "trick/secret")
    with pytest.raises(PathTaken):
        files.listing("u", "p", "trick")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("trick", TRICKS, ids=lambda trick: trick.__name__)
def test_a_trick_is_replaced_itself_not_what_it_leads_to(
    files: ProjectFiles, project: Path, outside: Path, trick: Callable[[Path, Path], None]
) -> None:
    trick(project / "trick", outside)
    put(files, "trick", b"mine")
    assert got(files, "trick") == b"mine"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("trick", TRICKS, ids=lambda trick: trick.__name__)
def test_a_trick_can_be_deleted(
    files: ProjectFiles, project: Path, outside: Path, trick: Callable[[Path, Path], None]
) -> None:
    (project / "dir").mkdir()
    trick(project / "trick", outside)
    trick(project / "dir" / "trick", outside)
    delete(files, "trick")
    delete(files, "dir")
    assert os.listdir(project) == []


def test_a_hard_link_is_not_read(files: ProjectFiles, project: Path, outside: Path, tmp_path: Path) -> None:
    somebodys = tmp_path / "somebodys"
    somebodys.write_bytes(b"not yours")
    os.link(somebodys, project / "linked")
    with pytest.raises(PathTaken, match="hard link"):
        files.open("u", "p", "linked")
    assert files.listing("u", "p").omitted == 1
    put(files, "linked", b"mine")
    assert somebodys.read_bytes() == b"not yours"


@pytest.mark.parametrize("level", ["projects", "projects/u", "projects/u/p"])
def test_a_project_that_is_a_link_is_not_entered(
    files: ProjectFiles, project: Path, data: Path, outside: Path, level: str
) -> None:
    put(files, "a")
    (data / level).rename(data / "moved")
    (data / level).symlink_to(data / "moved" if level != "projects/u/p" else outside)
    for attempt in (files.open, files.delete, files.begin):
        with pytest.raises(PathTaken):
            attempt("u", "p", "a")
    with pytest.raises(PathTaken):
        files.project_dir("u", "p")


def test_a_file_that_is_replaced_while_it_is_read_is_read_to_its_end(files: ProjectFiles) -> None:
    put(files, "a", b"old content")
    file = files.open("u", "p", "a")
    put(files, "a", b"new")
    assert file.read(0, 100) == b"old content"
    file.close()


# --- listings --------------------------------------------------------------------------------------


def test_a_listing_has_paths_kinds_sizes_and_times_in_order(files: ProjectFiles) -> None:
    for path, content in (("b", b"12"), ("a/z", b"123"), ("a/y/x", b"1"), ("中", b"")):
        put(files, path, content)
    listing = files.listing("u", "p", recurse=True)
    assert [(entry.path, entry.kind, entry.size) for entry in listing.entries] == [
        ("a", "directory", 0),
        ("a/y", "directory", 0),
        ("a/y/x", "file", 1),
        ("a/z", "file", 3),
        ("b", "file", 2),
        ("中", "file", 0),
    ]
    assert (listing.path, listing.total_size, listing.omitted, listing.truncated) == ("", 6, 0, False)


def test_a_listing_without_recurse_is_of_one_directory(files: ProjectFiles) -> None:
    for path in ("b", "a/z", "a/y/x"):
        put(files, path)
    assert paths(files, recurse=False) == ["a", "b"]
    assert paths(files, "a", recurse=False) == ["a/y", "a/z"]
    assert paths(files, "a", recurse=True) == ["a/y", "a/y/x", "a/z"]


def test_a_new_project_has_no_files(files: ProjectFiles) -> None:
    assert files.listing("u", "p").entries == []


def test_a_long_listing_is_cut_and_says_so(
    files: ProjectFiles, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projects, "MAX_LISTED", 5)
    for number in range(5):
        put(files, f"{number}")
    assert not files.listing("u", "p").truncated
    put(files, "5")
    listing = files.listing("u", "p")
    assert (len(listing.entries), listing.truncated) == (5, True)
    assert [entry.path for entry in listing.entries] == sorted(entry.path for entry in listing.entries)


@pytest.mark.parametrize("name", [b"\xff\xfe", b"back\\slash", b"new\nline", b".k12ai-journal"])
def test_a_name_that_no_request_can_spell_is_counted_but_not_listed(
    files: ProjectFiles, project: Path, name: bytes
) -> None:
    Path(os.fsdecode(os.fsencode(project) + b"/" + name)).touch()
    listing = files.listing("u", "p")
    assert (listing.entries, listing.omitted) == ([], 1)


@pytest.mark.parametrize("seconds", [-1, 0, 1 << 33, -(1 << 40), 1 << 60])
def test_a_file_of_any_time_can_be_listed(files: ProjectFiles, project: Path, seconds: int) -> None:
    (project / "a").touch()
    try:
        os.utime(project / "a", ns=(0, seconds * 1_000_000_000))
    except (OSError, OverflowError):
        pytest.skip("neither Python nor the file system lets this time be set")
    assert isinstance(files.listing("u", "p").entries[0], FileEntry)


def test_deeper_than_paths_can_be_is_not_listed(files: ProjectFiles, project: Path) -> None:
    deep = project.joinpath(*["d"] * 20)
    deep.mkdir(parents=True)
    (deep / "a").touch()
    assert paths(files) == ["/".join(["d"] * depth) for depth in range(1, 17)]


# --- deleting --------------------------------------------------------------------------------------


def test_a_directory_is_deleted_with_all_that_is_in_it_and_no_more(files: ProjectFiles) -> None:
    for path in ("dir/a", "dir/sub/b", "dir/sub/sub/c", "dirt", "di/r"):
        put(files, path)
    delete(files, "dir")
    assert paths(files) == ["di", "di/r", "dirt"]


def test_a_directory_is_gone_at_once_and_what_is_left_of_it_can_be_cleared(
    files: ProjectFiles, project: Path, data: Path
) -> None:
    for number in range(50):
        put(files, f"dir/{number}/x")
    rest = files.delete("u", "p", "dir")
    assert rest is not None
    assert paths(files) == []
    assert not files.clear(rest, within_s=-1)
    assert files.clear(rest, within_s=60)


def test_a_directory_nested_beyond_all_paths_is_deleted(files: ProjectFiles, project: Path) -> None:
    at = os.open(project, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("deeper", dir_fd=at)
        below = os.open("deeper", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    delete(files, "deeper")
    assert os.listdir(project) == []


def test_what_a_dead_server_left_is_known_and_cleared(files: ProjectFiles, data: Path, outside: Path) -> None:
    files.begin("u", "p", "a")._close()
    put(files, "dir/sub/b")
    (data / "projects" / "u" / "p" / "dir" / "link").symlink_to(outside)
    files.delete("u", "p", "dir")
    (data / "uploads" / "stray").symlink_to(outside)
    later = ProjectFiles(data)
    running = later.begin("u", "p", "a")
    assert len(later.leftovers()) == 3
    for rest in later.leftovers():
        assert later.clear(rest)
    assert later.leftovers() == []
    running.finish()
    assert paths(later) == ["a"]


AS_A_STUDENT = f"""
import os, pathlib, sys
from k12ai.errors import PathTaken
from k12ai.projects import ProjectFiles

os.setgid({STUDENT[1]})
os.setuid({STUDENT[0]})
files = ProjectFiles(pathlib.Path(sys.argv[1]))
project = files.project_dir("u", "p")
"""


def as_a_student(program: str) -> None:
    """Run a program that is not root's, in a directory of its own; it has ``files`` and ``project``."""
    with tempfile.TemporaryDirectory() as place:
        os.chown(place, *STUDENT)
        subprocess.run([sys.executable, "-c", AS_A_STUDENT + program, place], check=True, timeout=60)


@needs_root
def test_without_root_closed_directories_are_deleted_too() -> None:
    as_a_student("""
for name in ("dir", "dir/none", "dir/none/below", "dir/read", "dir/read/full", "dir/read/full/er"):
    (project / name).mkdir()
for name in ("dir/none/below", "dir/none", "dir/read/full", "dir/read"):
    (project / name).chmod(0o500 if "read" in name else 0)
(project / "dir").chmod(0o500)
assert files.clear(files.delete("u", "p", "dir"), within_s=30)
assert os.listdir(project) == os.listdir(project.parents[2] / "uploads") == []
""")


@needs_root
def test_without_root_what_is_closed_to_the_server_is_refused_with_a_reason() -> None:
    as_a_student("""
(project / "a").touch(0)
(project / "dir").mkdir(0)
for attempt in (lambda: files.open("u", "p", "a"), lambda: files.begin("u", "p", "dir/a")):
    try:
        attempt()
    except PathTaken as refusal:
        assert "closed to the server" in str(refusal)
    else:
        raise AssertionError
assert len(files.listing("u", "p", recurse=True).entries) == 2
""")


# --- races -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def swapping(directory: Path, outside: Path) -> Iterator[Callable[[], int]]:
    """Exchange a directory for a link to the outside and back, as fast as a program can."""
    over = threading.Event()
    swaps = 0
    aside, trap = directory.with_name("aside"), directory.with_name("trap")

    def swap() -> None:
        nonlocal swaps
        while not over.is_set():
            with contextlib.suppress(OSError):
                trap.symlink_to(outside)
            for source, target in (
                (directory, aside),
                (trap, directory),
                (directory, trap),
                (aside, directory),
            ):
                with contextlib.suppress(OSError):
                    os.rename(source, target)
            with contextlib.suppress(OSError):
                trap.unlink()
            swaps += 1

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield lambda: swaps
    finally:
        over.set()
        thread.join()


def _rounds(attempt: Callable[[int], object], swaps: Callable[[], int]) -> int:
    """Try a few hundred times while the directory is being swapped; return how often it worked."""
    worked = number = 0
    while number < 300 or swaps() < 300:
        with contextlib.suppress(NoSuchFile, PathTaken):
            attempt(number)
            worked += 1
        number += 1
        assert number < 100_000
    return worked


def test_uploads_into_a_directory_that_turns_into_a_link_stay_in_the_project(
    files: ProjectFiles, project: Path, outside: Path
) -> None:
    (project / "dir").mkdir()
    with swapping(project / "dir", outside) as swaps:
        _rounds(lambda number: put(files, f"dir/{number % 5}"), swaps)


def test_reading_from_a_directory_that_turns_into_a_link_gives_only_the_project_s_files(
    files: ProjectFiles, project: Path, outside: Path
) -> None:
    put(files, "dir/secret", b"mine")

    def read(_number: int) -> None:
        assert got(files, "dir/secret") == b"mine"
        assert {entry.path for entry in files.listing("u", "p", "dir", recurse=True).entries} == {"dir/secret"}

    with swapping(project / "dir", outside) as swaps:
        assert _rounds(read, swaps)


def test_deleting_a_directory_that_turns_into_a_link_deletes_nothing_outside(
    files: ProjectFiles, project: Path, outside: Path
) -> None:
    (project / "dir").mkdir()
    with swapping(project / "dir", outside) as swaps:
        number = 0
        while number < 300 or swaps() < 300:
            with contextlib.suppress(NoSuchFile, PathTaken):
                put(files, "dir/secret")
                put(files, "dir/sub/deeper")
            with contextlib.suppress(NoSuchFile, PathTaken):
                delete(files, "dir/secret" if number % 2 else "dir")
            number += 1


def test_a_program_that_still_runs_in_a_deleted_directory_cannot_lead_the_server_astray(
    files: ProjectFiles, project: Path, outside: Path
) -> None:
    for _ in range(8):
        for number in range(20):
            put(files, f"dir/sub/{number}/x") if number < 2 else (project / f"dir/sub/{number}").mkdir()
        inside = os.open(project / "dir" / "sub", os.O_RDONLY)
        over = threading.Event()

        def swap(inside: int = inside, over: threading.Event = over) -> None:
            while not over.is_set():
                for number in range(20):
                    with contextlib.suppress(OSError):
                        os.rename(f"{number}", "aside", src_dir_fd=inside, dst_dir_fd=inside)
                    with contextlib.suppress(OSError):
                        os.symlink(outside, f"{number}", dir_fd=inside)

        thread = threading.Thread(target=swap)
        thread.start()
        try:
            rest = files.delete("u", "p", "dir")
            assert rest is not None
            files.clear(rest, within_s=0.2)
        finally:
            over.set()
            thread.join()
            os.close(inside)
        assert files.clear(rest, within_s=30)


def test_many_threads_at_once_leave_whole_files(files: ProjectFiles) -> None:
    errors: list[K12AIError] = []

    def work(number: int) -> None:
        for round_ in range(20):
            try:
                put(files, f"dir/{round_ % 3}/a", bytes([number]) * 5000)
                if number == 0:
                    delete(files, f"dir/{round_ % 3}")
            except (NoSuchFile, PathTaken) as error:
                errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for path in paths(files):
        if path.endswith("/a"):
            content = got(files, path)
            assert content == content[:1] * 5000


def test_bytes_written_after_the_end_go_nowhere(files: ProjectFiles, tmp_path: Path) -> None:
    upload: Upload = files.begin("u", "p", "a")
    upload.finish()
    with (tmp_path / "reuses-the-number").open("wb") as other, pytest.raises(ValueError, match="over"):
        upload.write(b"astray")
    assert other.closed
    assert (tmp_path / "reuses-the-number").read_bytes() == b""

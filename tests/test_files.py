"""The files of projects over HTTP, from uvicorn with the server's own protocol in front of the routes alone."""

import contextlib
import http.client
import os
import socket
import subprocess
import threading
import time
import tracemalloc
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import uvicorn

from k12ai import projects
from k12ai.api import files as module
from k12ai.api.files import FilesRoutes
from k12ai.api.observe import HttpCounts, Observe
from k12ai.api.protocol import BoundedProtocol
from k12ai.api.wire import HttpApp
from k12ai.errors import PathTaken
from k12ai.projects import ProjectFiles
from k12ai.texts import Text
from tests.support.server import strict

MIB = 1024 * 1024
MAX_FILE = 4 * MIB
MAX_PROJECT = 6 * MIB
FILES = "/api/v1/projects/u/p/files"

Record = Callable[[str, object], None]


class Front:
    """uvicorn in a thread of this process; each test puts its own application behind it."""

    def __init__(self) -> None:
        self.app: HttpApp | None = None
        config = uvicorn.Config(
            self._answer,
            http=BoundedProtocol,
            interface="asgi3",
            lifespan="off",
            log_config=None,
            access_log=False,
            ws="none",
            timeout_graceful_shutdown=2,
        )
        self._server = uvicorn.Server(config)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._listener]})

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        assert self.app is not None
        await self.app(scope, receive, send)


@pytest.fixture(name="front", scope="module")
def _front() -> Iterator[Front]:
    front = Front()
    front.start()
    yield front
    front.stop()


class Site:
    """The routes over one data directory, so close that a test can look behind them."""

    def __init__(self, front: Front, data: Path, **limits: int) -> None:
        self.data = data
        self.port = front.port
        self.files = ProjectFiles(data, **limits)
        front.app = Observe(FilesRoutes(self.files).handle, HttpCounts())
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30, trust_env=False)

    def close(self) -> None:
        self.http.close()

    def put(self, path: str, content: bytes | Iterable[bytes] = b"x", **headers: str) -> httpx.Response:
        return self.http.put(f"{FILES}/{urllib.parse.quote(path)}", content=content, headers=headers)

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.http.get(f"{FILES}/{urllib.parse.quote(path)}", headers=headers)

    def delete(self, path: str) -> httpx.Response:
        return self.http.delete(f"{FILES}/{urllib.parse.quote(path)}")

    def raw(self, method: str, target: str) -> tuple[int, Any]:
        """Send a target as it is: other clients tidy it up."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.putrequest(method, target)
            connection.putheader("Content-Length", "0")
            connection.endheaders()
            answer = connection.getresponse()
            body = answer.read()
            return answer.status, msgspec.json.decode(body) if body else None
        finally:
            connection.close()

    def connected(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def paths(self) -> list[str]:
        return [entry.path for entry in self.files.listing("u", "p", recurse=True).entries]

    def arriving(self) -> list[str]:
        return os.listdir(self.data / "uploads") if (self.data / "uploads").exists() else []

    def open_files(self) -> list[str]:
        found = []
        for descriptor in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):
                found.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        return [each for each in found if each.startswith(str(self.data))]


@pytest.fixture(name="start_site")
def _start_site(front: Front, tmp_path: Path, eventually: Callable[..., Any]) -> Iterator[Callable[..., Site]]:
    """Open sites; after the test nothing is left on its way, and no file is open."""
    opened: list[Site] = []

    def start(data: Path = tmp_path / "data", **limits: int) -> Site:
        bounds = {"max_file_bytes": MAX_FILE, "max_project_bytes": MAX_PROJECT} | limits
        opened.append(Site(front, data, **bounds))
        return opened[-1]

    yield start
    for site in opened:
        site.close()
        eventually(lambda site=site: not site.arriving() and not site.open_files())


@pytest.fixture(name="site")
def _site(start_site: Callable[..., Site]) -> Site:
    return start_site()


def refused(response: httpx.Response, status: int, code: int) -> str:
    """Check that an answer is a problem document, and return its detail."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = strict(response)
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["next_step"]
    return str(problem["detail"])


# --- in and out ------------------------------------------------------------------------------------


def test_what_is_put_is_what_is_got(site: Site) -> None:
    content = os.urandom(700_000)
    assert site.put("data/训练 集.bin", content).status_code == 201
    answer = site.get("data/训练 集.bin")
    assert (answer.status_code, answer.content) == (200, content)


def test_a_put_tells_what_was_stored(site: Site) -> None:
    stored = strict(site.put("a/b", b"abc"))
    assert stored.pop("modified_at").endswith("Z")
    assert stored == {
        "path": "a/b",
        "size": 3,
        "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    }


def test_a_put_that_replaces_says_so(site: Site) -> None:
    assert [site.put("a", each).status_code for each in (b"1", b"2")] == [201, 200]
    assert site.get("a").content == b"2"


def test_a_body_in_chunks_is_stored_as_one_of_declared_length(site: Site) -> None:
    assert site.put("a", iter([b"12", b"3" * 300_000, b"4"])).status_code == 201
    assert site.get("a").content == b"12" + b"3" * 300_000 + b"4"


def test_an_empty_body_is_an_empty_file(site: Site) -> None:
    assert strict(site.put("a", b""))["size"] == 0
    answer = site.get("a")
    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "0")


def test_a_file_is_a_download_that_no_browser_opens(site: Site) -> None:
    site.put('dir/"中文" <script>.html', b"<script>alert(1)</script>")
    headers = site.get('dir/"中文" <script>.html').headers
    assert headers["content-type"] == "application/octet-stream"
    assert headers["content-disposition"] == (
        'attachment; filename="______script_.html"; '
        "filename*=UTF-8''%22%E4%B8%AD%E6%96%87%22%20%3Cscript%3E.html"
    )
    assert headers["content-security-policy"] == "sandbox"
    assert headers.get_list("x-content-type-options") == ["nosniff"]


def test_head_is_get_without_the_bytes(site: Site) -> None:
    site.put("a", b"x" * 100_000)
    head, got = site.http.head(f"{FILES}/a"), site.get("a")
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-length", "etag", "content-disposition"):
        assert head.headers[name] == got.headers[name]
    listed = site.http.head(FILES)
    assert (listed.status_code, listed.content) == (200, b"")


def test_a_version_that_the_client_has_is_not_sent_again(site: Site) -> None:
    etag = site.put("a", b"1").headers["etag"]
    assert site.get("a").headers["etag"] == etag
    for condition in (etag, f'"other", W/{etag}', "*"):
        answer = site.get("a", **{"If-None-Match": condition})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    assert site.get("a", **{"If-None-Match": '"other"'}).status_code == 200
    site.put("a", b"2")
    assert site.get("a", **{"If-None-Match": etag}).content == b"2"


@pytest.mark.parametrize(
    ("wanted", "content", "told"),
    [
        ("bytes=0-3", b"0123", "bytes 0-3/10"),
        ("bytes=4-4", b"4", "bytes 4-4/10"),
        ("bytes=7-", b"789", "bytes 7-9/10"),
        ("bytes=7-99", b"789", "bytes 7-9/10"),
        ("bytes=-3", b"789", "bytes 7-9/10"),
        ("bytes=-99", b"0123456789", "bytes 0-9/10"),
    ],
)
def test_a_part_of_a_file_is_sent(site: Site, wanted: str, content: bytes, told: str) -> None:
    site.put("a", b"0123456789")
    answer = site.get("a", Range=wanted)
    assert (answer.status_code, answer.content, answer.headers["content-range"]) == (206, content, told)


@pytest.mark.parametrize("wanted", ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=999999999999999999-"])
def test_a_part_outside_of_a_file_is_refused(site: Site, wanted: str) -> None:
    site.put("a", b"0123456789")
    answer = site.get("a", Range=wanted)
    refused(answer, 416, 100102)
    assert answer.headers["content-range"] == "bytes */10"


@pytest.mark.parametrize(
    "wanted", ["bytes=3-1", "bytes=0-1,3-4", "bytes=-", "bytes=a-b", "lines=1-2", "9" * 5000]
)
def test_what_is_no_single_range_gets_the_whole_file(site: Site, wanted: str) -> None:
    site.put("a", b"0123456789")
    answer = site.get("a", Range=wanted)
    assert (answer.status_code, answer.content) == (200, b"0123456789")


def test_a_part_of_another_version_is_not_sent(site: Site) -> None:
    etag = site.put("a", b"0123456789").headers["etag"]
    assert site.get("a", Range="bytes=1-2", **{"If-Range": etag}).status_code == 206
    assert site.get("a", Range="bytes=1-2", **{"If-Range": '"other"'}).content == b"0123456789"


@pytest.mark.parametrize(("field", "status"), [("Content-Range", 400), ("Content-Encoding", 501)])
def test_a_body_that_is_not_the_file_itself_is_refused(site: Site, field: str, status: int) -> None:
    value = "bytes 0-0/9" if field == "Content-Range" else "gzip"
    assert site.put("a", b"x", **{field: value}).status_code == status
    assert site.paths() == []


# --- listing and deleting --------------------------------------------------------------------------


def test_a_listing_is_of_the_project_or_of_a_directory_of_it(site: Site) -> None:
    site.put("b", b"12")
    site.put("dir/sub/a", b"123")
    for target in (FILES, f"{FILES}/"):
        listing = strict(site.http.get(target))
        assert [(each["path"], each["kind"], each["size"]) for each in listing["entries"]] == [
            ("b", "file", 2),
            ("dir", "directory", 0),
        ]
        assert (listing["path"], listing["total_size"], listing["truncated"]) == ("", 2, False)
        assert all(each["modified_at"].endswith("Z") for each in listing["entries"])
    listing = strict(site.http.get(f"{FILES}/dir/"))
    assert [each["path"] for each in listing["entries"]] == ["dir/sub"]


def test_with_recurse_a_listing_has_what_is_below(site: Site) -> None:
    site.put("b")
    site.put("dir/sub/a", b"123")
    for target in (f"{FILES}?recurse", f"{FILES}/?recurse="):
        entries = strict(site.http.get(target))["entries"]
        assert [each["path"] for each in entries] == ["b", "dir", "dir/sub", "dir/sub/a"]
    entries = strict(site.http.get(f"{FILES}/dir?recurse"))["entries"]
    assert [each["path"] for each in entries] == ["dir/sub", "dir/sub/a"]


def test_a_directory_is_not_a_file_and_a_file_is_not_a_directory(site: Site) -> None:
    site.put("dir/a")
    assert "is a directory" in refused(site.get("dir"), 409, 100621)
    assert "no directory" in refused(site.http.get(f"{FILES}/dir/a/"), 409, 100621)
    refused(site.put("dir"), 409, 100621)
    refused(site.put("dir/a/b"), 409, 100621)


def test_a_deleted_file_is_gone(site: Site) -> None:
    site.put("a")
    answer = site.delete("a")
    assert (answer.status_code, answer.content) == (204, b"")
    assert "content-length" not in answer.headers
    assert "a" in refused(site.get("a"), 404, 100620)
    refused(site.delete("a"), 404, 100620)


def test_a_deleted_directory_is_gone_with_all_that_was_in_it(site: Site) -> None:
    for path in ("dir/a", "dir/sub/b", "kept"):
        site.put(path)
    assert site.delete("dir").status_code == 204
    assert site.paths() == ["kept"]


def test_a_large_directory_is_deleted_slice_by_slice(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    slices = []
    whole = site.files.clear

    def clear(rest: str) -> bool:
        slices.append(rest)
        return whole(rest, within_s=60 if len(slices) > 3 else -1)

    monkeypatch.setattr(site.files, "clear", clear)
    site.put("dir/a")
    assert site.delete("dir").status_code == 204
    assert len(slices) == 4


def test_a_directory_that_cannot_be_emptied_is_deleted_for_all_that_can_be_seen(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def clear(rest: str) -> bool:
        raise PathTaken(rest, Text("is immutable", "不可更改"))

    site.put("dir/a")
    monkeypatch.setattr(site.files, "clear", clear)
    assert site.delete("dir").status_code == 204
    assert site.paths() == []
    monkeypatch.undo()
    assert site.files.clear("delete-")


async def test_leftovers_of_an_earlier_server_are_cleared(tmp_path: Path) -> None:
    ProjectFiles(tmp_path).begin("u", "p", "a")._close()
    routes = FilesRoutes(ProjectFiles(tmp_path))
    assert os.listdir(tmp_path / "uploads") != []
    await routes.clear_leftovers()
    assert os.listdir(tmp_path / "uploads") == []


# --- paths -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        *(
            "..",
            "%2e%2e",
            "%2E%2e/x",
            "a/../b",
            "a/%2e%2e/b",
            ".",
            "a//b",
            "/a",
            "a/./b",
            "a%2Fb",
            "%2Fetc%2Fpasswd",
        ),
        *("%2e%2e%2f", "..%2f..%2fx", "a%5Cb", "..%5C..%5Cx", "%00", "a%00b", "%0a", "a%0Ab", "%7f", "%C2%85"),
        *("%ed%a0%80", "%ff", "%c0%ae%c0%ae/x", "%zz", "%", "a%2", "%u002e", ".k12ai", "%2ek12ai-x", "x" * 256),
        *("%e4%b8%ad" * 86, "/".join("x" * 17), "/".join(["y" * 255] * 5)),
    ],
)
def test_a_path_that_could_lead_astray_is_refused(site: Site, path: str) -> None:
    for method in ("PUT", "GET", "DELETE"):
        status, problem = site.raw(method, f"{FILES}/{path}")
        assert (status, problem["code"]) == (400, 100102)
    assert site.paths() == []


@pytest.mark.parametrize("path", ["a/", "dir/"])
def test_only_a_listing_has_a_slash_at_its_end(site: Site, path: str) -> None:
    for method in ("PUT", "DELETE"):
        assert site.raw(method, f"{FILES}/{path}")[0] == 400


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("%252e%252e%252f", "%2e%2e%2f"),
        ("%2525", "%25"),
        ("-rf", "-rf"),
        ("*", "*"),
        ("a,b", "a,b"),
        ("a=b", "a=b"),
        ("a+b", "a+b"),
        ("a;b", "a;b"),
        ("a%3Fb", "a?b"),
        ("a%23b", "a#b"),
        ("%61", "a"),
        ("%C3%A9", "é"),
        ("e%CC%81", "e\u0301"),
        ("%E2%80%AEexe.txt", "\u202eexe.txt"),
        ("%F0%9F%98%80", "😀"),
        ("%E4%B8%AD" * 85, "中" * 85),
    ],
)
def test_escapes_are_undone_once(site: Site, path: str, name: str) -> None:
    status, stored = site.raw("PUT", f"{FILES}/{path}")
    assert (status, stored["path"]) == (201, name)
    assert os.listdir(site.data / "projects" / "u" / "p") == [name]


IDENTIFIERS = [
    *("..", "%2e%2e", "%2e%2e%2f", "%252e%252e", "a%2Fb", "a%5Cb", "%00", "%ed%a0%80", "%0a", "a%0a", ".", "*"),
    *("a,b", "a=b", "x" * 65, "x" * 256, "%E4%B8%AD", "e%CC%81", "%F0%9F%98%80", "%", "%ff", "", "a%20b", "~"),
]


@pytest.mark.parametrize("name", IDENTIFIERS)
def test_a_user_or_project_of_another_form_is_refused(site: Site, name: str) -> None:
    for method in ("PUT", "GET", "DELETE"):
        for target in (f"/api/v1/projects/{name}/p/files/a", f"/api/v1/projects/u/{name}/files/a"):
            status, problem = site.raw(method, target)
            assert (status, problem["code"]) == (400, 100102)
    assert not (site.data / "projects").exists()


@pytest.mark.parametrize("name", ["-rf", "all", "0", "a@b", "x", "x" * 64, "...", "..k", "%61"])
def test_a_user_or_project_of_the_right_form_has_files_of_its_own(site: Site, name: str) -> None:
    plain = urllib.parse.unquote(name)
    assert site.raw("PUT", f"/api/v1/projects/{name}/p/files/a")[0] == 201
    assert site.raw("PUT", f"/api/v1/projects/u/{name}/files/a")[0] == 201
    found = {str(each.relative_to(site.data / "projects")) for each in site.data.rglob("a") if each.is_file()}
    assert found == {f"{plain}/p/a", f"u/{plain}/a"}


@pytest.mark.parametrize(
    "path", ["", "u", "u/p", "u/p/", "u/p/file", "u/p/FILES/a", "u/p/filesa", "u/p/%66iles/a"]
)
def test_nothing_else_is_served_below_projects(site: Site, path: str) -> None:
    status, problem = site.raw("GET", f"/api/v1/projects/{path}")
    assert (status, problem["code"]) == (404, 100616)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/a", "GET, HEAD, PUT, DELETE"),
        ("PATCH", "/a", "GET, HEAD, PUT, DELETE"),
        ("POST", "", "GET, HEAD"),
        ("PUT", "", "GET, HEAD"),
        ("DELETE", "/", "GET, HEAD"),
    ],
)
def test_other_methods_are_refused(site: Site, method: str, path: str, allowed: str) -> None:
    answer = site.http.request(method, f"{FILES}{path}")
    refused(answer, 405, 100617)
    assert answer.headers["allow"] == allowed


def test_the_routes_are_those_below_projects() -> None:
    def serves(raw_path: bytes) -> bool:
        return FilesRoutes.serves({"raw_path": raw_path})  # type: ignore[typeddict-item]

    assert serves(b"/api/v1/projects/u/p/files")
    assert not serves(b"/api/v1/projectsx")
    assert not serves(b"/api/v1%2Fprojects/u/p/files")


@pytest.mark.timeout(20)
def test_links_and_special_files_are_refused(site: Site, tmp_path: Path) -> None:
    project = site.files.project_dir("u", "p")
    (tmp_path / "secret").write_text("secret")
    (project / "link").symlink_to(tmp_path / "secret")
    (project / "up").symlink_to(tmp_path)
    os.mkfifo(project / "fifo")
    os.link(tmp_path / "secret", project / "hard")
    for path in ("link", "up/secret", "fifo", "hard", "up/"):
        refused(site.get(path), 409, 100621)
    assert strict(site.http.get(f"{FILES}?recurse"))["omitted"] == 4


# --- limits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
def test_a_file_over_the_limit_is_refused_however_it_is_framed(site: Site, chunked: bool) -> None:
    content = b"x" * (MAX_FILE + 1)
    # In pieces, the last of which is over the limit: then the client has nothing left to send.
    pieces = (content[start : start + MIB] for start in range(0, len(content), MIB))
    answer = site.put("a", pieces if chunked else content)
    assert f"{MAX_FILE} bytes" in refused(answer, 413, 100613)
    assert site.paths() == []


def test_a_file_at_the_limit_is_taken(site: Site) -> None:
    assert site.put("a", b"x" * MAX_FILE).status_code == 201


@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
def test_a_full_project_takes_no_more(site: Site, chunked: bool) -> None:
    site.put("a", b"x" * MAX_FILE)
    content = b"x" * (MAX_PROJECT - MAX_FILE + 1)
    answer = site.put("b", iter([content]) if chunked else content)
    assert f"{MAX_PROJECT} bytes" in refused(answer, 507, 100622)
    assert site.paths() == ["a"]
    assert site.put("b", content[1:]).status_code == 201


def test_a_project_of_too_many_files_takes_no_more(start_site: Callable[..., Site]) -> None:
    site = start_site(max_files=2)
    assert [site.put(path).status_code for path in ("a", "b", "c", "b")] == [201, 201, 507, 200]


def test_what_is_refused_by_its_declared_length_need_not_be_sent(site: Site) -> None:
    with site.connected() as peer:
        peer.sendall(
            b"PUT %b/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\nExpect: 100-continue\r\n\r\n"
            % FILES.encode()
        )
        assert peer.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_a_refusal_is_in_the_language_that_is_asked_for(site: Site) -> None:
    answer = site.get("没有", **{"Accept-Language": "zh-CN"})
    assert refused(answer, 404, 100620) == "没有：没有此文件"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_a_507_and_leaves_nothing(
    start_site: Callable[..., Site], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], check=True)
    request.addfinalizer(lambda: subprocess.run(["umount", "-l", str(disk)], check=True))
    site = start_site(disk)
    site.put("kept", b"x" * 500_000)
    answer = site.put("a", b"x" * (3 * MIB))
    refused(answer, 507, 100612)
    assert answer.headers["retry-after"]
    assert (site.paths(), site.arriving()) == (["kept"], [])
    assert site.put("a", b"x" * MIB).status_code == 201


# --- large, slow, cut off --------------------------------------------------------------------------


def test_a_large_file_streams_in_and_out_in_little_memory(
    start_site: Callable[..., Site], record_property: Record
) -> None:
    site = start_site(max_file_bytes=128 * MIB, max_project_bytes=128 * MIB)
    piece = os.urandom(64 * 1024)
    tracemalloc.start()
    try:
        assert site.put("large", (piece for _ in range(1024))).status_code == 201
        uploading = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        got = 0
        with site.http.stream("GET", f"{FILES}/large") as answer:
            for each in answer.iter_raw():
                got += len(each)
        downloading = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert got == 64 * MIB
    assert max(uploading, downloading) < 16 * MIB
    record_property("peak of 64 MiB in", f"{uploading / MIB:.1f} MiB")
    record_property("peak of 64 MiB out", f"{downloading / MIB:.1f} MiB")


@pytest.mark.parametrize("framing", [b"Content-Length: 3000000", b"Transfer-Encoding: chunked"])
def test_an_upload_that_is_cut_off_leaves_nothing(
    site: Site, framing: bytes, eventually: Callable[..., Any]
) -> None:
    site.put("a", b"old")
    with site.connected() as peer:
        peer.sendall(b"PUT %b/a HTTP/1.1\r\nHost: localhost\r\n%b\r\n\r\n" % (FILES.encode(), framing))
        body = b"x" * 1_000_000
        peer.sendall(b"%x\r\n%b\r\n" % (len(body), body) if b"chunked" in framing else body)
        eventually(site.arriving)
    eventually(lambda: not site.arriving())
    assert site.get("a").content == b"old"


def test_a_download_that_nobody_reads_any_more_is_given_up(site: Site, eventually: Callable[..., Any]) -> None:
    project = site.files.project_dir("u", "p")
    with (project / "sparse").open("wb") as file:
        file.truncate(1024 * 1024 * MIB)
    with site.connected() as peer:
        peer.sendall(b"GET %b/sparse HTTP/1.1\r\nHost: localhost\r\n\r\n" % FILES.encode())
        assert peer.recv(4096).startswith(b"HTTP/1.1 200")
        assert site.open_files() != []
    eventually(lambda: not site.open_files())


def test_a_reader_that_stalls_is_given_up(
    site: Site, monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., Any]
) -> None:
    monkeypatch.setattr(module, "STALLED_S", 0.2)
    project = site.files.project_dir("u", "p")
    with (project / "sparse").open("wb") as file:
        file.truncate(1024 * 1024 * MIB)
    with site.connected() as peer:
        peer.sendall(b"GET %b/sparse HTTP/1.1\r\nHost: localhost\r\n\r\n" % FILES.encode())
        eventually(site.open_files)
        eventually(lambda: not site.open_files())


def test_a_file_that_shrinks_meanwhile_is_cut_off_not_padded(site: Site) -> None:
    project = site.files.project_dir("u", "p")
    with (project / "shrinks").open("wb") as file:
        file.truncate(256 * MIB)
    with site.http.stream("GET", f"{FILES}/shrinks") as answer:
        pieces = answer.iter_raw()
        got = [len(next(pieces))]
        os.truncate(project / "shrinks", MIB)
        with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message body"):
            got.extend(map(len, pieces))
    assert sum(got) < 256 * MIB


def test_a_file_that_grows_meanwhile_is_sent_as_long_as_was_said(site: Site) -> None:
    project = site.files.project_dir("u", "p")
    (project / "grows").write_bytes(b"x" * MAX_FILE)
    got = 0
    with site.http.stream("GET", f"{FILES}/grows") as answer, (project / "grows").open("ab") as file:
        for piece in answer.iter_raw():
            got += len(piece)
            file.write(b"more")
            file.flush()
    assert got == MAX_FILE
    assert site.get("grows").status_code == 200, "the connection is as good as before"


def test_a_file_that_is_replaced_meanwhile_is_sent_as_it_was(site: Site) -> None:
    site.put("a", b"1" * MAX_FILE)
    with site.http.stream("GET", f"{FILES}/a") as answer:
        pieces = answer.iter_raw()
        got = [next(pieces)]
        assert site.put("a", b"2").status_code == 200
        got.extend(pieces)
    assert b"".join(got) == b"1" * MAX_FILE


def test_others_are_answered_while_the_disk_is_slow(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, waiting = threading.Event(), threading.Event()
    whole = projects._listing

    def listing(*args: Any, **kwargs: Any) -> Any:
        if not waiting.is_set():
            waiting.set()
            slow.wait(20)
        return whole(*args, **kwargs)

    site.put("a")
    monkeypatch.setattr(projects, "_listing", listing)
    thread = threading.Thread(target=site.http.get, args=(FILES,))
    thread.start()
    assert waiting.wait(10)
    asked = time.monotonic()
    assert site.get("a").content == b"x"
    assert time.monotonic() - asked < 10
    slow.set()
    thread.join()

"""``/v1/kv`` through both of Consul's clients for Python, held to Consul's own documentation."""

import asyncio
import contextlib
import importlib
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import pytest

from tests.support.server import Server

INSTALLED = Path(__file__).parents[2] / ".make"
CLIENTS = ("py-consul", "python-consul")
LIMIT = 512 * 1024
HANG_S = 15.0  # far more than any answer takes, less than the waits that must not be waited out


# --- the clients --------------------------------------------------------------------------------


def _came_from(module: ModuleType, directory: Path) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).is_relative_to(directory)


def _loaded(directory: Path) -> dict[str, ModuleType]:
    """Return the loaded modules that are called ``consul`` or came from a directory, by name."""
    return {
        name: module
        for name, module in sys.modules.items()
        if name.split(".")[0] == "consul" or _came_from(module, directory)
    }


@contextlib.contextmanager
def imported(directory: Path) -> Iterator[ModuleType]:
    """Import the ``consul`` of a directory; afterwards what is loaded is what was loaded before."""

    def forget() -> dict[str, ModuleType]:
        return {name: sys.modules.pop(name) for name in _loaded(directory)}

    before, path = forget(), list(sys.path)
    sys.path.insert(0, str(directory))
    try:
        module = importlib.import_module("consul")
        assert _came_from(module, directory), module.__file__
        yield module
    finally:
        sys.path[:] = path
        sys.path_importer_cache.pop(str(directory), None)
        forget()
        sys.modules.update(before)


@pytest.fixture(name="installed", scope="module", params=CLIENTS)
def _installed(request: pytest.FixtureRequest) -> Iterator[ModuleType | None]:
    """One client after the other, or None where it is not installed."""
    directory = INSTALLED / request.param
    if directory.is_dir():
        with imported(directory) as module:
            yield module
    else:
        yield None


@pytest.fixture(name="consul")
def _consul(
    installed: ModuleType | None, absent: Callable[[str, str], NoReturn], monkeypatch: pytest.MonkeyPatch
) -> ModuleType:
    """The client's module; the developer's own Consul is kept out of it."""
    if installed is None:
        absent("consul", "run make .make/consul")
    for name in list(os.environ):
        if name.startswith("CONSUL_"):
            monkeypatch.delenv(name)
    return installed


@pytest.fixture(name="connect")
def _connect(consul: ModuleType, server: Server) -> Iterator[Callable[..., Any]]:
    """Make clients of the server; their connections are closed after the test."""
    made: list[Any] = []

    def connect(**options: Any) -> Any:
        made.append(consul.Consul(host="127.0.0.1", port=server.port, **options))
        return made[-1]

    yield connect
    for each in made:
        each.http.session.close()


@pytest.fixture(name="kv")
def _kv(connect: Callable[..., Any]) -> Any:
    return connect().kv


@pytest.fixture(name="prefix")
def _prefix(request: pytest.FixtureRequest) -> str:
    """A prefix of the test's own in the shared store; no other begins with it."""
    return f"clients/{re.sub('[^a-z0-9_-]', '.', request.node.name)[:100]}/"


@pytest.fixture(name="waiting")
def _waiting(connect: Callable[..., Any]) -> Iterator[Callable[..., Future[Any]]]:
    """Start blocking reads, each in a thread and with a client of its own."""
    with ThreadPoolExecutor() as pool:

        def start(key: str, index: str, wait: str = "30s", **options: Any) -> Future[Any]:
            return pool.submit(connect().kv.get, key, index=index, wait=wait, **options)

        yield start


def still_waits(read: Future[Any]) -> bool:
    time.sleep(0.3)
    return not read.done()


def one(kv: Any, key: str) -> dict[str, Any]:
    """Return the entry, which must be there."""
    _, entry = kv.get(key)
    assert entry is not None, key
    return entry


def names(kv: Any, prefix: str, **options: Any) -> list[str] | None:
    """Return what is listed below a prefix, without the prefix."""
    _, listed = kv.get(prefix, keys=True, **options)
    return None if listed is None else [each.removeprefix(prefix) for each in listed]


@pytest.mark.parametrize("name", CLIENTS)
def test_importing_a_client_leaves_nothing_behind(name: str, absent: Callable[[str, str], NoReturn]) -> None:
    directory = INSTALLED / name
    if not directory.is_dir():
        absent("consul", "run make .make/consul")
    path, before = list(sys.path), _loaded(directory)
    with imported(directory) as module:
        assert sys.modules["consul"] is module
        assert module.Consul.__module__ == "consul.std"
    assert (sys.path, _loaded(directory)) == (path, before)


# --- values and keys ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        pytest.param("value", b"value", id="text"),
        pytest.param("学生 é", "学生 é".encode(), id="unicode"),
        pytest.param(b"\x00\xff\xfe\r\n\x80", b"\x00\xff\xfe\r\n\x80", id="binary"),
        pytest.param(bytes(range(256)), bytes(range(256)), id="every-byte"),
        pytest.param("null", b"null", id="looks-like-json"),
        pytest.param(" \n", b" \n", id="white-space"),
    ],
)
def test_a_value_comes_back_as_the_bytes_that_were_put(
    kv: Any, prefix: str, value: str | bytes, stored: bytes
) -> None:
    assert kv.put(f"{prefix}k", value) is True
    index, entry = kv.get(f"{prefix}k")
    assert (entry["Key"], entry["Value"]) == (f"{prefix}k", stored)
    assert index == str(entry["ModifyIndex"])


@pytest.mark.parametrize("value", ["", b"", None])
def test_an_empty_value_comes_back_as_none(kv: Any, prefix: str, value: str | bytes | None) -> None:
    assert kv.put(f"{prefix}k", value) is True
    assert one(kv, f"{prefix}k")["Value"] is None
    _, (entry,) = kv.get(f"{prefix}k", recurse=True)
    assert entry["Value"] is None


@pytest.mark.parametrize(
    "key",
    [
        "学生",
        "a b",
        "a%2Fb",
        "%",
        "a?b",
        "a#b",
        "a&recurse=1",
        "a+b",
        "a;b=c",
        "~",
        "a//b",
        "a/",
        "a\\b",
        ".a",
        "é",
    ],
)
def test_a_key_may_hold_any_letters(kv: Any, prefix: str, key: str) -> None:
    assert kv.put(prefix + key, "v") is True
    assert one(kv, prefix + key)["Key"] == prefix + key
    assert names(kv, prefix) == [key]
    assert kv.delete(prefix + key) is True
    assert kv.get(prefix + key)[1] is None


def test_an_entry_has_the_documented_fields_and_nothing_of_locks(kv: Any, prefix: str) -> None:
    kv.put(f"{prefix}k", "v")
    entry = one(kv, f"{prefix}k")
    assert set(entry) == {"LockIndex", "Key", "Flags", "Value", "CreateIndex", "ModifyIndex"}
    assert (entry["LockIndex"], entry["Flags"]) == (0, 0)
    assert entry["CreateIndex"] == entry["ModifyIndex"] >= 1


def test_a_missing_key_is_an_index_and_none(kv: Any, prefix: str) -> None:
    index, entry = kv.get(f"{prefix}nothing")
    assert (entry, int(index) >= 1) == (None, True)


@pytest.mark.parametrize("options", [{"recurse": True}, {"keys": True}, {"keys": True, "separator": "/"}])
def test_a_prefix_of_nothing_is_an_index_and_none(kv: Any, prefix: str, options: dict[str, Any]) -> None:
    index, found = kv.get(f"{prefix}nothing", **options)
    assert (found, int(index) >= 1) == (None, True)


@pytest.mark.parametrize("query", ["", "?recurse", "?keys", "?raw"])
def test_a_404_carries_the_index_without_which_the_clients_fail(
    kv: Any, server: Server, prefix: str, query: str
) -> None:
    # python-consul: KeyError; py-consul: "Missing index header". Hence the bare request beside the client's.
    answer = server.http.get(f"/v1/kv/{prefix}nothing{query}")
    assert (answer.status_code, answer.content) == (404, b"")
    assert int(answer.headers["X-Consul-Index"]) >= 1
    assert kv.get(f"{prefix}nothing")[0] == answer.headers["X-Consul-Index"]


@pytest.mark.parametrize("flags", [0, 1, 42, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1])
def test_flags_are_64_bits_without_a_sign(kv: Any, prefix: str, flags: int) -> None:
    assert kv.put(f"{prefix}k", "v", flags=flags) is True
    assert one(kv, f"{prefix}k")["Flags"] == flags
    _, (entry,) = kv.get(f"{prefix}k", recurse=True)
    assert entry["Flags"] == flags


@pytest.mark.parametrize("flags", [2**64, -1, "x"])
def test_other_flags_are_a_bad_request_and_write_nothing(
    consul: ModuleType, kv: Any, prefix: str, flags: int | str
) -> None:
    with pytest.raises(consul.base.ConsulException, match="400") as raised:
        kv.put(f"{prefix}k", "v", flags=flags)
    assert type(raised.value).__name__ == "BadRequest"
    assert kv.get(f"{prefix}k")[1] is None


def test_a_put_without_flags_resets_them(kv: Any, prefix: str) -> None:
    kv.put(f"{prefix}k", "v", flags=7)
    kv.put(f"{prefix}k", "w")
    assert one(kv, f"{prefix}k")["Flags"] == 0


def test_a_value_of_512_kib_is_kept_and_one_byte_more_is_refused(
    consul: ModuleType, kv: Any, prefix: str
) -> None:
    value = b"\xa5" * LIMIT
    assert kv.put(f"{prefix}k", value) is True
    with pytest.raises(consul.base.ConsulException, match="413") as raised:
        kv.put(f"{prefix}k", value + b"x")
    assert type(raised.value).__name__ == "ClientError"
    assert str(LIMIT) in str(raised.value), "the limit is said"
    assert one(kv, f"{prefix}k")["Value"] == value
    assert kv.put(f"{prefix}other", "v") is True, "the client goes on after a refusal"


# --- prefixes -----------------------------------------------------------------------------------


def test_recurse_is_a_prefix_of_the_string_and_sorted(kv: Any, prefix: str) -> None:
    for key in ("u/2", "u/1abc", "u/10", "u/1/b", "u/1", "v"):
        kv.put(prefix + key, key)
    index, entries = kv.get(f"{prefix}u/1", recurse=True)
    assert [each["Key"].removeprefix(prefix) for each in entries] == ["u/1", "u/1/b", "u/10", "u/1abc"]
    assert [each["Value"] for each in entries] == [b"u/1", b"u/1/b", b"u/10", b"u/1abc"]
    assert index == str(max(each["ModifyIndex"] for each in entries))


def test_recurse_sorts_keys_by_their_bytes(kv: Any, prefix: str) -> None:
    keys = ["b", "B", "a/", "a", "a0", "é", "學", "a-", "_", "a/b", "\U0001f600", "\uffe6"]
    for key in keys:
        kv.put(prefix + key, "v")
    assert names(kv, prefix) == sorted(keys, key=str.encode)
    _, entries = kv.get(prefix, recurse=True)
    assert [each["Key"].removeprefix(prefix) for each in entries] == sorted(keys, key=str.encode)


@pytest.mark.parametrize("letters", ["a%b", "a_b", "a*b", "a[b", "a\\b"])
def test_a_prefix_has_no_wildcards(kv: Any, prefix: str, letters: str) -> None:
    for key in (f"{letters}1", "aXb1", "ab1", "aXXb1", "A%B1"):
        kv.put(prefix + key, "v")
    assert names(kv, prefix + letters) == ["1"]


def test_keys_are_names_alone_and_sorted(kv: Any, prefix: str) -> None:
    for key in ("b", "a/2", "a/1", "a"):
        kv.put(prefix + key, "v")
    index, listed = kv.get(prefix, keys=True)
    assert listed == [f"{prefix}{key}" for key in ("a", "a/1", "a/2", "b")]
    assert index == kv.get(prefix, recurse=True)[0]


@pytest.mark.parametrize(
    ("below", "separator", "listed"),
    [
        ("", "/", ["a", "a/", "ab/", "b"]),
        ("a", "/", ["", "/", "b/"]),
        ("a/", "/", ["1", "x/"]),
        ("a/x/", "/", ["1", "2"]),
        ("", "/x", ["a", "a/1", "a/x", "ab/1", "b"]),
        ("", "|", ["a", "a/1", "a/x/1", "a/x/2", "ab/1", "b"]),
    ],
)
def test_keys_are_cut_after_the_first_separator_past_the_prefix_and_listed_once(
    kv: Any, prefix: str, below: str, separator: str, listed: list[str]
) -> None:
    for key in ("a", "a/1", "a/x/1", "a/x/2", "ab/1", "b"):
        kv.put(prefix + key, "v")
    assert names(kv, prefix + below, separator=separator) == listed


def test_the_root_lists_the_whole_store(kv: Any, prefix: str) -> None:
    kv.put(f"{prefix}k", "v")
    assert f"{prefix}k" in kv.get("", keys=True)[1]
    assert f"{prefix}k" in {each["Key"] for each in kv.get("", recurse=True)[1]}
    assert "clients/" in kv.get("", keys=True, separator="/")[1]


def test_a_read_without_a_key_is_a_bad_request(consul: ModuleType, kv: Any) -> None:
    with pytest.raises(consul.base.ConsulException, match="400 Missing key name"):
        kv.get("")


# --- check-and-set ------------------------------------------------------------------------------


def test_cas_0_creates_a_key_once(kv: Any, prefix: str) -> None:
    assert kv.put(f"{prefix}k", "first", cas=0) is True
    assert kv.put(f"{prefix}k", "second", cas=0) is False
    assert one(kv, f"{prefix}k")["Value"] == b"first"


def test_cas_with_the_right_index_writes_once(kv: Any, prefix: str) -> None:
    kv.put(f"{prefix}k", "0")
    index = one(kv, f"{prefix}k")["ModifyIndex"]
    assert kv.put(f"{prefix}k", "1", cas=index) is True
    assert kv.put(f"{prefix}k", "2", cas=index) is False
    entry = one(kv, f"{prefix}k")
    assert (entry["Value"], entry["ModifyIndex"] > index) == (b"1", True)


@pytest.mark.parametrize("off", [-1, 1, 1000])
def test_cas_with_a_wrong_index_writes_nothing(kv: Any, prefix: str, off: int) -> None:
    kv.put(f"{prefix}k", "0")
    kv.put(f"{prefix}k", "1")  # so that one less is not 0
    before = one(kv, f"{prefix}k")
    assert kv.put(f"{prefix}k", "2", cas=before["ModifyIndex"] + off) is False
    assert one(kv, f"{prefix}k") == before


def test_cas_on_a_missing_key_is_false_unless_0(kv: Any, prefix: str) -> None:
    assert kv.put(f"{prefix}k", "v", cas=int(kv.get(f"{prefix}k")[0])) is False
    assert kv.put(f"{prefix}k", "v", cas=1) is False
    assert kv.get(f"{prefix}k")[1] is None


def test_cas_0_creates_a_deleted_key_again_and_its_old_index_does_not(kv: Any, prefix: str) -> None:
    kv.put(f"{prefix}k", "v")
    index = one(kv, f"{prefix}k")["ModifyIndex"]
    kv.delete(f"{prefix}k")
    assert kv.put(f"{prefix}k", "w", cas=index) is False
    assert kv.put(f"{prefix}k", "w", cas=0) is True
    assert one(kv, f"{prefix}k")["CreateIndex"] > index


def test_delete_with_the_right_cas_deletes(kv: Any, prefix: str) -> None:
    kv.put(f"{prefix}k", "v")
    assert kv.delete(f"{prefix}k", cas=one(kv, f"{prefix}k")["ModifyIndex"]) is True
    assert kv.get(f"{prefix}k")[1] is None


def test_delete_with_a_wrong_cas_or_0_deletes_nothing(kv: Any, prefix: str) -> None:
    kv.put(f"{prefix}k", "v")
    before = one(kv, f"{prefix}k")
    assert kv.delete(f"{prefix}k", cas=before["ModifyIndex"] + 1) is False
    assert kv.delete(f"{prefix}k", cas=0) is False
    assert one(kv, f"{prefix}k") == before


@pytest.mark.parametrize("cas", [None, 0, 1, 2**64 - 1])
def test_deleting_what_is_missing_is_true_whatever_the_cas(kv: Any, prefix: str, cas: int | None) -> None:
    assert kv.delete(f"{prefix}nothing", cas=cas) is True


# --- deleting prefixes --------------------------------------------------------------------------


def test_delete_recurse_is_a_prefix_of_the_string(kv: Any, prefix: str) -> None:
    for key in ("u/1", "u/1/a", "u/10", "u/1abc", "u/2"):
        kv.put(prefix + key, "v")
    assert kv.delete(f"{prefix}u/1/", recurse=True) is True
    assert names(kv, prefix) == ["u/1", "u/10", "u/1abc", "u/2"]
    assert kv.delete(f"{prefix}u/1", recurse=True) is True
    assert names(kv, prefix) == ["u/2"]


def test_deleting_a_key_leaves_what_is_below_it(kv: Any, prefix: str) -> None:
    for key in ("a", "a/1", "ab"):
        kv.put(prefix + key, "v")
    assert kv.delete(f"{prefix}a") is True
    assert names(kv, prefix) == ["a/1", "ab"]


def test_delete_recurse_of_nothing_is_true(kv: Any, prefix: str) -> None:
    assert kv.delete(f"{prefix}nothing", recurse=True) is True


def test_delete_recurse_with_cas_is_a_conflict(consul: ModuleType, kv: Any, prefix: str) -> None:
    kv.put(f"{prefix}k", "v")
    with pytest.raises(consul.base.ConsulException, match="400 Conflicting flags"):
        kv.delete(prefix, recurse=True, cas=1)
    assert names(kv, prefix) == ["k"]


# --- indexes ------------------------------------------------------------------------------------


def test_an_identical_put_moves_no_index(kv: Any, prefix: str) -> None:
    kv.put(f"{prefix}k", "v", flags=3)
    before, table = one(kv, f"{prefix}k"), kv.get(f"{prefix}nothing")[0]
    assert kv.put(f"{prefix}k", "v", flags=3) is True
    assert kv.put(f"{prefix}k", "v", flags=3, cas=before["ModifyIndex"]) is True
    assert one(kv, f"{prefix}k") == before
    assert kv.get(f"{prefix}nothing")[0] == table


def test_new_flags_alone_move_the_index(kv: Any, prefix: str) -> None:
    kv.put(f"{prefix}k", "v", flags=3)
    before = one(kv, f"{prefix}k")
    kv.put(f"{prefix}k", "v", flags=4)
    assert one(kv, f"{prefix}k")["ModifyIndex"] > before["ModifyIndex"]


def test_create_index_stays_while_modify_index_grows(kv: Any, prefix: str) -> None:
    kv.put(f"{prefix}k", "0")
    created = one(kv, f"{prefix}k")["CreateIndex"]
    last = created
    for number in range(1, 5):
        kv.put(f"{prefix}k", str(number))
        entry = one(kv, f"{prefix}k")
        assert (entry["CreateIndex"], entry["ModifyIndex"] > last) == (created, True)
        last = entry["ModifyIndex"]


def test_a_key_that_was_deleted_is_created_anew(kv: Any, prefix: str) -> None:
    kv.put(f"{prefix}k", "v")
    before = one(kv, f"{prefix}k")
    kv.delete(f"{prefix}k")
    kv.put(f"{prefix}k", "v")
    after = one(kv, f"{prefix}k")
    assert after["CreateIndex"] == after["ModifyIndex"] > before["ModifyIndex"]


def test_a_write_elsewhere_does_not_move_a_keys_index(kv: Any, prefix: str) -> None:
    kv.put(f"{prefix}a/k", "v")
    single, below = kv.get(f"{prefix}a/k")[0], kv.get(f"{prefix}a/", recurse=True)[0]
    kv.put(f"{prefix}b", "v")
    assert (kv.get(f"{prefix}a/k")[0], kv.get(f"{prefix}a/", recurse=True)[0]) == (single, below)


@pytest.mark.parametrize("options", [{"recurse": True}, {"keys": True}])
def test_the_index_of_a_prefix_never_goes_back_over_a_deletion(
    kv: Any, prefix: str, options: dict[str, bool]
) -> None:
    def index() -> int:
        return int(kv.get(prefix, **options)[0])

    seen = [index()]
    for key in ("a", "b", "c"):
        kv.put(prefix + key, "v")
        seen.append(index())
    for key in ("c", "a", "b"):  # the newest first: what lives on is older
        kv.delete(prefix + key)
        seen.append(index())
    kv.put(f"{prefix}a", "v")
    seen.append(index())
    kv.delete(prefix, recurse=True)
    seen.append(index())
    assert seen == sorted(set(seen)), "each change is a step forward"


# --- blocking -----------------------------------------------------------------------------------


def test_a_blocking_read_wakes_at_the_write(kv: Any, prefix: str, waiting: Callable[..., Any]) -> None:
    kv.put(f"{prefix}k", "old")
    index, _ = kv.get(f"{prefix}k")
    read = waiting(f"{prefix}k", index)
    assert still_waits(read)
    kv.put(f"{prefix}k", "new")
    later, entry = read.result(HANG_S)
    assert (entry["Value"], int(later) > int(index)) == (b"new", True)


def test_a_blocking_read_of_a_missing_key_wakes_at_its_creation(
    kv: Any, prefix: str, waiting: Callable[..., Any]
) -> None:
    index, _ = kv.get(f"{prefix}k")
    read = waiting(f"{prefix}k", index)
    assert still_waits(read)
    kv.put(f"{prefix}k", "v")
    later, entry = read.result(HANG_S)
    assert (entry["Value"], int(later) > int(index)) == (b"v", True)


def test_a_blocking_read_wakes_at_the_deletion(kv: Any, prefix: str, waiting: Callable[..., Any]) -> None:
    kv.put(f"{prefix}k", "v")
    index, _ = kv.get(f"{prefix}k")
    read = waiting(f"{prefix}k", index)
    assert still_waits(read)
    kv.delete(f"{prefix}k")
    later, entry = read.result(HANG_S)
    assert (entry, int(later) > int(index)) == (None, True)


@pytest.mark.parametrize("options", [{"recurse": True}, {"keys": True}])
def test_a_blocking_read_of_a_prefix_wakes_at_a_write_and_at_a_deletion_below_it(
    kv: Any, prefix: str, waiting: Callable[..., Any], options: dict[str, bool]
) -> None:
    index, _ = kv.get(prefix, **options)
    for change in (lambda: kv.put(f"{prefix}a/b", "v"), lambda: kv.delete(f"{prefix}a/b")):
        read = waiting(prefix, index, **options)
        assert still_waits(read)
        change()
        later, _ = read.result(HANG_S)
        assert int(later) > int(index)
        index = later


def test_an_identical_put_wakes_nobody(kv: Any, prefix: str, waiting: Callable[..., Any]) -> None:
    kv.put(f"{prefix}k", "v")
    index, _ = kv.get(f"{prefix}k")
    read = waiting(f"{prefix}k", index)
    kv.put(f"{prefix}k", "v")
    assert still_waits(read)
    kv.put(f"{prefix}k", "w")
    assert read.result(HANG_S)[1]["Value"] == b"w"


@pytest.mark.parametrize("there", [True, False])
def test_a_wait_that_is_over_gives_the_current_state(kv: Any, prefix: str, there: bool) -> None:
    if there:
        kv.put(f"{prefix}k", "v")
    index, entry = kv.get(f"{prefix}k")
    began = time.monotonic()
    assert kv.get(f"{prefix}k", index=index, wait="300ms") == (index, entry)
    assert 0.3 <= time.monotonic() - began < HANG_S


@pytest.mark.parametrize("wait", ["300ms", "0.3s", "300000us", "0m0.3s"])
def test_a_wait_is_a_duration_as_go_writes_it(kv: Any, prefix: str, wait: str) -> None:
    index, _ = kv.get(f"{prefix}k")
    began = time.monotonic()
    kv.get(f"{prefix}k", index=index, wait=wait)
    assert 0.3 <= time.monotonic() - began < HANG_S


def test_an_index_that_is_past_answers_at_once(kv: Any, prefix: str, waiting: Callable[..., Any]) -> None:
    kv.put(f"{prefix}k", "v")
    past, _ = kv.get(f"{prefix}k")
    kv.put(f"{prefix}k", "w")
    assert waiting(f"{prefix}k", past).result(HANG_S)[1]["Value"] == b"w"
    assert waiting(f"{prefix}k", "1").result(HANG_S)[1]["Value"] == b"w"
    assert len(waiting(prefix, past, recurse=True).result(HANG_S)[1]) == 1


def test_index_0_never_blocks(server: Server, kv: Any, prefix: str) -> None:
    kv.put(f"{prefix}k", "v")
    assert kv.get(f"{prefix}k", index=0, wait="60s")[1]["Value"] == b"v"  # which the clients leave out
    assert server.http.get(f"/v1/kv/{prefix}k?index=0&wait=60s").status_code == 200


@pytest.mark.parametrize(("index", "wait", "words"), [("x", "1s", "index"), ("1", "soon", "wait time")])
def test_an_index_or_a_wait_that_cannot_be_read_is_a_bad_request(
    consul: ModuleType, kv: Any, prefix: str, index: str, wait: str, words: str
) -> None:
    # py-consul adds up the wait for its own timeout first; it finds no number in "soon".
    with pytest.raises(consul.base.ConsulException, match=f"400 Invalid {words}"):
        kv.get(f"{prefix}k", index=index, wait=wait)


# --- what the server does not have --------------------------------------------------------------


@pytest.mark.parametrize("lock", ["acquire", "release"])
def test_locks_are_refused_and_write_nothing(consul: ModuleType, kv: Any, prefix: str, lock: str) -> None:
    session = "adf4238a-882b-9ddc-4a9d-5b6758e4159e"
    with pytest.raises(consul.base.ConsulException, match=r"501 .*sessions"):
        kv.put(f"{prefix}k", "v", **{lock: session})
    assert kv.get(f"{prefix}k")[1] is None


@pytest.mark.parametrize(
    "flags", [{"cas": 0, "acquire": "s"}, {"cas": 0, "release": "s"}, {"acquire": "s", "release": "s"}]
)
def test_flags_that_exclude_each_other_are_a_conflict(
    consul: ModuleType, kv: Any, prefix: str, flags: dict[str, Any]
) -> None:
    with pytest.raises(consul.base.ConsulException, match="400 Conflicting flags"):
        kv.put(f"{prefix}k", "v", **flags)
    assert kv.get(f"{prefix}k")[1] is None


def test_a_token_nobody_asked_for_is_tolerated_and_not_logged(
    consul: ModuleType, connect: Callable[..., Any], server: Server, prefix: str
) -> None:
    """py-consul sends it as a header, python-consul 1.1.0 only as ``?token=``."""
    kv = connect(token="c0ffee-of-the-client").kv
    assert kv.put(f"{prefix}k", "v") is True
    assert one(kv, f"{prefix}k")["Value"] == b"v"
    assert kv.put(f"{prefix}k", "w", token="c0ffee-of-the-call") is True
    assert kv.get(f"{prefix}k", token="c0ffee-of-the-call")[1]["Value"] == b"w"
    assert kv.delete(f"{prefix}k", token="c0ffee-of-the-call") is True
    assert server.http.get(f"/v1/kv/{prefix}k?token=c0ffee-of-the-url").status_code == 404
    assert "c0ffee" not in server.log.read_text()


@pytest.mark.parametrize("consistency", ["default", "consistent", "stale"])
def test_every_consistency_and_datacenter_reads_the_one_store(
    connect: Callable[..., Any], prefix: str, consistency: str
) -> None:
    kv = connect(consistency=consistency, dc="dc1").kv
    assert kv.put(f"{prefix}k", "v") is True
    assert one(kv, f"{prefix}k")["Value"] == b"v"
    assert names(kv, prefix) == ["k"]


# --- py-consul on asyncio -----------------------------------------------------------------------


@pytest.fixture(name="aio")
async def _aio(consul: ModuleType, server: Server) -> AsyncIterator[Any]:
    """The asyncio client, closed after the test."""
    aio = importlib.import_module("consul.aio")
    client = aio.Consul(host="127.0.0.1", port=server.port)
    yield client
    await client.close()


# python-consul's own is made of `asyncio.coroutine`, which Python has not had since 3.11.
@pytest.mark.parametrize("installed", ["py-consul"], indirect=True)
@pytest.mark.filterwarnings("ignore:.*verify_ssl.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*ssl_context.*:DeprecationWarning")
class TestAio:
    async def test_a_value_comes_back_as_the_bytes_that_were_put(self, aio: Any, prefix: str) -> None:
        assert await aio.kv.put(f"{prefix}学", b"\x00\xff", flags=2**64 - 1) is True
        index, entry = await aio.kv.get(f"{prefix}学")
        assert (entry["Value"], entry["Flags"], index) == (b"\x00\xff", 2**64 - 1, str(entry["ModifyIndex"]))

    async def test_a_missing_key_is_an_index_and_none(self, aio: Any, prefix: str) -> None:
        index, entry = await aio.kv.get(f"{prefix}nothing")
        assert (entry, int(index) >= 1) == (None, True)

    async def test_recurse_is_a_prefix_of_the_string(self, aio: Any, prefix: str) -> None:
        for key in ("1", "10", "1/a", "2"):
            await aio.kv.put(prefix + key, "v")
        _, entries = await aio.kv.get(f"{prefix}1", recurse=True)
        assert [each["Key"].removeprefix(prefix) for each in entries] == ["1", "1/a", "10"]
        assert await aio.kv.delete(f"{prefix}1", recurse=True) is True
        assert (await aio.kv.get(prefix, keys=True))[1] == [f"{prefix}2"]

    async def test_cas_writes_once(self, aio: Any, prefix: str) -> None:
        assert await aio.kv.put(f"{prefix}k", "0", cas=0) is True
        index, _ = await aio.kv.get(f"{prefix}k")
        assert await aio.kv.put(f"{prefix}k", "1", cas=index) is True
        assert await aio.kv.put(f"{prefix}k", "2", cas=index) is False

    async def test_a_blocking_read_wakes_at_the_write(self, aio: Any, prefix: str) -> None:
        index, _ = await aio.kv.get(f"{prefix}k")
        read = asyncio.ensure_future(aio.kv.get(f"{prefix}k", index=index, wait="30s"))
        await asyncio.sleep(0.3)
        assert not read.done()
        await aio.kv.put(f"{prefix}k", "v")
        async with asyncio.timeout(HANG_S):
            later, entry = await read
        assert (entry["Value"], int(later) > int(index)) == (b"v", True)

    async def test_locks_are_refused(self, consul: ModuleType, aio: Any, prefix: str) -> None:
        with pytest.raises(consul.base.ConsulException, match="501"):
            await aio.kv.put(f"{prefix}k", "v", acquire="s")

"""``/v1/kv`` against a model of it: whatever is done in whatever order, both say the same."""

import base64
import itertools
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import httpx
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.support.server import Server, strict

# Few names, of which many begin like others: only then do prefixes, separators and tombstones meet.
KEYS = st.sampled_from(["a", "a/", "a/b", "a/bc", "a/b/", "a//b", "ab", "b", "A", "a%2Fb", "é", "a b", "学/a"])
PREFIXES = st.sampled_from(["", "a", "a/", "a/b", "a//", "ab", "b", "学", "a%", "zz"])
SEPARATORS = st.sampled_from(["/", "b", "/b", "//", "-"])
VALUES = st.sampled_from([b"", b"0", b"1", b"\x00\xff\r\n", b"null"])
FLAGS = st.sampled_from([None, 0, 1, 2**63, 2**64 - 1])
CAS = st.sampled_from(["zero", "right", "older", "newer", "last"])
NEVER = "~never"  # below the root, and written by nobody

_roots = itertools.count(1)


class Kept(NamedTuple):
    """A key of the model."""

    value: bytes
    flags: int
    created: int
    modified: int


class Table(RuleBasedStateMachine):
    """A server that nobody else writes to, and what it must hold below a root of this run's own."""

    def __init__(self, server: Server, did: Counter[str]) -> None:
        super().__init__()
        self.server = server
        self.did = did
        self.root = f"model/{next(_roots):08}/"
        self.kept: dict[str, Kept] = {}
        self.buried: dict[str, int] = {}  # the index at which a key was deleted
        self.last = 0  # the index of the last change
        self.seen: Counter[str] = Counter()  # the highest index a prefix has shown

    @initialize(keys=st.lists(KEYS, min_size=3, unique=True))
    def begin(self, keys: list[str]) -> None:
        # A deleted key first: an index above 1, so that there is an older one to block with.
        assert self.changed("PUT", "", b"x") is True
        assert self.changed("DELETE", "") is True
        self.last = self.buried[""] = self.table_index()
        for key in keys:
            self.put(key, key.encode(), None, None)

    def teardown(self) -> None:
        self.request("DELETE", "", recurse="")
        assert self.request("GET", "", recurse="").status_code == 404

    # --- the wire -------------------------------------------------------------------------------

    def request(self, method: str, key: str, body: bytes | None = None, **params: str) -> httpx.Response:
        self.did[method] += 1
        path = urllib.parse.quote(self.root + key, safe="/")
        return self.server.http.request(method, f"/v1/kv/{path}", content=body, params=params)

    def changed(self, method: str, key: str, body: bytes | None = None, **params: str) -> bool:
        answer = self.request(method, key, body, **params)
        assert (answer.status_code, answer.content in (b"true", b"false")) == (200, True), answer.text
        return bool(strict(answer))

    def table_index(self) -> int:
        answer = self.request("GET", NEVER)
        assert (answer.status_code, answer.content) == (404, b"")
        return index_of(answer)

    # --- the model ------------------------------------------------------------------------------

    def cas(self, key: str, which: str) -> int:
        modified = self.kept[key].modified if key in self.kept else 0
        return {
            "zero": 0,
            "right": modified,
            "older": max(modified - 1, 0),
            "newer": modified + 1,
            "last": self.last,
        }[which]

    def below(self, prefix: str) -> list[str]:
        return sorted(key for key in self.kept if key.startswith(prefix))

    def prefix_index(self, prefix: str) -> int:
        living = [kept.modified for key, kept in self.kept.items() if key.startswith(prefix)]
        dead = [index for key, index in self.buried.items() if key.startswith(prefix)]
        return max([*living, *dead], default=self.last)

    def index(self, key: str) -> int:
        return self.kept[key].modified if key in self.kept else self.last

    def shown(self, key: str) -> dict[str, Any]:
        kept = self.kept[key]
        return {
            "LockIndex": 0,
            "Key": self.root + key,
            "Flags": kept.flags,
            "Value": base64.b64encode(kept.value).decode() if kept.value else None,
            "CreateIndex": kept.created,
            "ModifyIndex": kept.modified,
        }

    def stepped(self) -> int:
        """Return the index of the change just made, which must be later than any before."""
        before, self.last = self.last, self.table_index()
        assert self.last > before
        return self.last

    def unchanged(self) -> None:
        assert self.table_index() == self.last

    def wrote(self, key: str, value: bytes, flags: int) -> None:
        known = self.kept.get(key)
        if known and (known.value, known.flags) == (value, flags):
            self.unchanged()
            return
        index = self.stepped()
        self.kept[key] = Kept(value, flags, known.created if known else index, index)

    def deleted(self, keys: list[str]) -> None:
        if not keys:
            self.unchanged()
            return
        index = self.stepped()
        for key in keys:
            del self.kept[key]
            self.buried[key] = index

    # --- writing --------------------------------------------------------------------------------

    @rule(key=KEYS, value=VALUES, flags=FLAGS, which=CAS | st.none())
    def put(self, key: str, value: bytes, flags: int | None, which: str | None) -> None:
        cas = which and self.cas(key, which)
        wins = cas in (None, self.kept[key].modified if key in self.kept else 0)
        assert self.changed("PUT", key, value, **given(cas=cas, flags=flags)) is wins
        if wins:
            self.wrote(key, value, flags or 0)
        else:
            self.unchanged()

    @rule(keys=st.lists(KEYS, min_size=1, max_size=4), value=VALUES, flags=FLAGS)
    def put_some(self, keys: list[str], value: bytes, flags: int | None) -> None:
        for key in keys:  # one twice is a put of what is there already
            self.put(key, value, flags, None)

    @rule(key=KEYS, which=CAS | st.none())
    def delete(self, key: str, which: str | None) -> None:
        cas = which and self.cas(key, which)
        wins = key not in self.kept or cas in (None, self.kept[key].modified)
        assert self.changed("DELETE", key, **given(cas=cas)) is wins
        self.deleted([key] if wins and key in self.kept else [])

    @precondition(lambda self: len(self.kept) > 2)  # else there is seldom anything to read
    @rule(prefix=PREFIXES)
    def delete_recurse(self, prefix: str) -> None:
        assert self.changed("DELETE", prefix, recurse="") is True
        self.deleted(self.below(prefix))

    # --- reading --------------------------------------------------------------------------------

    def check_one(self, key: str, answer: httpx.Response) -> None:
        assert index_of(answer) == self.index(key)
        if key in self.kept:
            assert (answer.status_code, strict(answer)) == (200, [self.shown(key)])
        else:
            assert (answer.status_code, answer.content) == (404, b"")

    def check_list(self, prefix: str, answer: httpx.Response) -> None:
        self.check_prefix_index(prefix, answer)
        if keys := self.below(prefix):
            assert (answer.status_code, strict(answer)) == (200, [self.shown(key) for key in keys])
        else:
            assert (answer.status_code, answer.content) == (404, b"")

    def check_prefix_index(self, prefix: str, answer: httpx.Response) -> None:
        assert index_of(answer) == self.prefix_index(prefix)
        assert index_of(answer) >= self.seen[prefix], "never back"
        self.seen[prefix] = index_of(answer)

    def check_keys(self, prefix: str, separator: str | None, answer: httpx.Response) -> None:
        self.check_prefix_index(prefix, answer)
        names = [self.root + cut(key, prefix, separator) for key in self.below(prefix)]
        if names:
            assert (answer.status_code, strict(answer)) == (200, list(dict.fromkeys(names)))
        else:
            assert (answer.status_code, answer.content) == (404, b"")

    @rule(key=KEYS)
    def read(self, key: str) -> None:
        self.check_one(key, self.request("GET", key))
        answer = self.request("GET", key, raw="")
        assert index_of(answer) == self.index(key)
        if key in self.kept:
            assert (answer.status_code, answer.content) == (200, self.kept[key].value)
            assert answer.headers["Content-Type"] == "text/plain"
        else:
            assert (answer.status_code, answer.content) == (404, b"")

    @rule(prefix=PREFIXES, separator=SEPARATORS)
    def read_prefix(self, prefix: str, separator: str) -> None:
        self.check_list(prefix, self.request("GET", prefix, recurse=""))
        self.check_keys(prefix, None, self.request("GET", prefix, keys=""))
        self.check_keys(prefix, separator, self.request("GET", prefix, keys="", separator=separator))

    @rule(key=KEYS, prefix=PREFIXES, back=st.integers(1, 3))
    def block_with_an_old_index(self, key: str, prefix: str, back: int) -> None:
        # Answered at once: the client gives up long before this wait is over.
        if (index := self.index(key) - back) > 0:
            self.check_one(key, self.request("GET", key, index=str(index), wait="5m"))
        if (index := self.prefix_index(prefix) - back) > 0:
            self.check_list(prefix, self.request("GET", prefix, recurse="", index=str(index), wait="5m"))
            self.check_keys(prefix, None, self.request("GET", prefix, keys="", index=str(index), wait="5m"))

    @rule(key=KEYS, prefix=PREFIXES, ahead=st.sampled_from([0, 1, 1000]))
    def block_until_the_wait_is_over(self, key: str, prefix: str, ahead: int) -> None:
        began = time.monotonic()
        answer = self.request("GET", key, index=str(self.index(key) + ahead), wait="5ms")
        below = self.request(
            "GET", prefix, recurse="", index=str(self.prefix_index(prefix) + ahead), wait="5ms"
        )
        assert time.monotonic() - began >= 0.01
        self.check_one(key, answer)
        self.check_list(prefix, below)

    @invariant()
    def everything_is_the_same(self) -> None:
        if self.last:
            self.check_list("", self.request("GET", "", recurse=""))


def index_of(answer: httpx.Response) -> int:
    """Return the answer's index, which is never 0 and comes with Consul's other two headers."""
    assert answer.headers["X-Consul-KnownLeader"] == "true"
    assert answer.headers["X-Consul-LastContact"] == "0"
    index = int(answer.headers["X-Consul-Index"])
    assert index >= 1
    return index


def given(**params: int | None) -> dict[str, str]:
    """Return the parameters that are not None."""
    return {name: str(value) for name, value in params.items() if value is not None}


def cut(key: str, prefix: str, separator: str | None) -> str:
    """Return the key up to and with the first separator past the prefix."""
    before, found, _ = key[len(prefix) :].partition(separator or "\0")
    return prefix + before + found


@pytest.fixture(name="own_server", scope="module")
def _own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that only the machine writes to, since it follows the index of the whole table."""
    with Server(tmp_path_factory.mktemp("model") / "data") as server:
        yield server


def run(server: Server, **options: Any) -> Counter[str]:
    """Run the machine and return what it did."""
    did: Counter[str] = Counter()

    def machine() -> Table:
        did["runs"] += 1
        return Table(server, did)

    run_state_machine_as_test(
        machine,
        settings=settings(
            deadline=None,  # how fast it is has no place here
            print_blob=True,
            database=None,
            suppress_health_check=[HealthCheck.too_slow],
            **options,
        ),
    )
    return did


@pytest.mark.timeout(600)  # a failure is made small before it is shown, which takes its time
def test_the_table_and_its_model_agree_over_30_steps(own_server: Server) -> None:
    did = run(own_server, max_examples=20, stateful_step_count=30, derandomize=True)
    assert did["runs"] >= 20


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_table_and_its_model_agree_over_200_runs_of_50_steps(
    own_server: Server, record_property: Callable[[str, object], None]
) -> None:
    did = run(own_server, max_examples=200, stateful_step_count=50)
    assert did["runs"] >= 200
    for name, times in did.items():
        record_property(name, times)

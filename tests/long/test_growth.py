"""What a server holds does not grow with what it has answered."""

from collections.abc import Callable

import pytest

from tests.support.process import open_files, resident_bytes
from tests.support.server import Server

pytestmark = pytest.mark.slow


def test_memory_and_files_do_not_grow_over_10_000_requests(
    start_server: Callable[..., Server], record_property: Callable[[str, object], None]
) -> None:
    server = start_server()
    pid = server.process.pid

    def ask(count: int) -> None:
        for number in range(count):
            server.stats()
            if number % 10 == 0:
                server.stop("unknow")
                server.http.put("/v1/kv/same", content=b"%d" % number)
                server.http.get("/v1/kv/same")

    ask(2000)
    before, files = resident_bytes(pid), open_files(pid)
    ask(10_000)
    grown = resident_bytes(pid) - before
    record_property("requests", 12_000)
    record_property("grown", f"{grown // 1024} KiB")
    assert grown < 4 << 20
    assert open_files(pid) <= files + 2

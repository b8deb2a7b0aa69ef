"""What the server answers is what its OpenAPI document says, whatever it is sent."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from k12ai.client import Client
from tests.support.server import Server

ROOT = Path(__file__).parents[2]
CONFIG = Path(__file__).parent / "schemathesis.toml"
PHASES = "examples,coverage,fuzzing,stateful"
SEEDS = int(os.environ.get("TORTURE_SEEDS", "5"))
TRACES = ("Traceback", "request.failed", "deferred.failed")


@pytest.fixture(name="fuzzed")
def _fuzzed(start_server: Callable[..., Server]) -> Server:
    """A server of the test's own, because whole prefixes get deleted, and one that needs no Engine.

    It runs one task at a time: the programs it is given do nothing, but each is a process. And it asks for
    a token from the start: the first one that the fuzzer made would otherwise lock the fuzzer out.
    """
    limits = ("--token-requests-per-s", "1000000", "--address-requests-per-s", "1000000")
    server = start_server("--docker-host", "unix:///nonexistent/docker.sock", "--max-tasks", "1", *limits)
    with Client(server.url) as client:
        token = client.access.create_token("head", "admin").token
    server.http.headers["Authorization"] = f"Bearer {token}"
    return server


def fuzz(server: Server, *, seed: int, examples: int) -> str:
    """Let schemathesis loose on a server and return what it printed; where it finds a fault, fail with that."""
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run", "--no-color"]
    command += [f"{server.url}/docs/openapi.json", "--phases", PHASES]
    command += ["--seed", str(seed), "--max-examples", str(examples)]
    token = server.http.headers["Authorization"].removeprefix("Bearer ")
    command += ["--header", f"Authorization: Bearer {token}"]
    done = subprocess.run(
        command,
        cwd=server.data_dir.parent,
        # The module of hooks is one of this tree.
        env={**os.environ, "PYTHONPATH": str(ROOT), "K12AI_TOKEN": token},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stdout
    # Without links in the document there would be no sequences, and nothing else would say so.
    assert "not applicable" not in done.stdout, done.stdout
    return done.stdout


def check_log(server: Server) -> None:
    """Fail where the server met a fault, also one that only a result told of and nobody read."""
    log = server.log.read_text()
    assert not any(trace in log for trace in TRACES), log


def test_a_short_fuzz_gets_only_documented_answers(fuzzed: Server) -> None:
    """A few requests of each kind get no server error and no answer that the document does not have."""
    fuzz(fuzzed, seed=8119, examples=6)
    check_log(fuzzed)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(1, 1 + SEEDS))
def test_a_long_fuzz_gets_only_documented_answers(
    fuzzed: Server, seed: int, record_property: Callable[[str, object], None]
) -> None:
    """Thousands of requests get no server error and no answer that the document does not have."""
    started = time.monotonic()
    printed = fuzz(fuzzed, seed=seed, examples=120)
    record_property("requests", _said(r"([\d,]+) generated", printed))
    record_property("sequences", _said(r"Scenarios:\s+([\d,]+)", printed))
    record_property("seconds", round(time.monotonic() - started))
    check_log(fuzzed)


def _said(pattern: str, printed: str) -> str:
    found = re.search(pattern, printed)
    assert found, printed
    return found[1]

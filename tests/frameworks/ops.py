"""Ops run as a runtime runs them: the checked parameters in a file, the project as the directory."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from k12ai.frameworks.base import Framework
from k12ai.tasks.registry import Registry


class Ended:
    """What a task left behind: its exit code, its output and what it reported."""

    def __init__(self, process: "subprocess.CompletedProcess[str]", journal: Path) -> None:
        self.returncode, self.stdout, self.stderr = process.returncode, process.stdout, process.stderr
        self.lines = [msgspec.json.decode(line) for line in journal.read_bytes().splitlines()]

    def all(self, kind: str) -> list[dict[str, Any]]:
        return [line["data"] for line in self.lines if line["type"] == kind]

    @property
    def result(self) -> dict[str, Any]:
        assert self.returncode == 0, self.stderr
        (result,) = self.all("result")
        return result

    @property
    def error(self) -> dict[str, Any]:
        assert self.returncode == 1, self.stderr
        (error,) = self.all("error")
        return error


def run(
    framework: Framework, op: str, params: Mapping[str, Any], project: Path, *, timeout_s: float = 100
) -> Ended:
    """Run an op in a project to its end; what goes in and comes out lies beside the project."""
    given, journal = project.parent / "params.json", project.parent / "journal"
    given.write_bytes(msgspec.json.encode(Registry([framework]).check(framework.name, op, params)))
    journal.write_bytes(b"")
    process = subprocess.run(
        [sys.executable, *framework.command(op)],
        cwd=project,
        env={**os.environ, "K12AI_PARAMS": str(given), "K12AI_JOURNAL": str(journal), "K12AI_OP": op},
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    return Ended(process, journal)

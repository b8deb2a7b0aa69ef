"""Running one op in the project's directory, by the command of a framework."""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from k12ai import report
from k12ai.frameworks.problems import DataProblem

Params = Mapping[str, Any]
Ops = Mapping[str, Callable[[Params], None]]


def run(ops: Callable[[], Ops]) -> None:
    """Run the op; a problem with the student's data is reported in words, and ends the program with 1.

    ``ops`` imports the libraries, which takes a second or more.
    """
    params: dict[str, Any] = msgspec.json.decode(Path(os.environ["K12AI_PARAMS"]).read_bytes())
    report.progress(0, None, "loading")
    try:
        ops()[os.environ["K12AI_OP"]](params)
    except DataProblem as problem:
        step = problem.next_step
        report.error(
            problem.code,
            problem.text.en,
            problem.text.zh,
            next_step=step.en if step else "",
            next_step_zh=step.zh if step else "",
        )
        sys.stderr.write(f"{problem.text.en}\n{problem.text.zh}\n")
        sys.exit(1)

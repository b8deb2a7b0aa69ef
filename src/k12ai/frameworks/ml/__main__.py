"""Runs one op of ``k12ml`` in the project's directory."""

import os
import sys
from pathlib import Path
from typing import Any

import msgspec

from k12ai import report
from k12ai.frameworks.ml.problems import DataProblem


def run() -> None:
    """Run the op; a problem with the student's data is reported in words, and ends the program with 1."""
    params: dict[str, Any] = msgspec.json.decode(Path(os.environ["K12AI_PARAMS"]).read_bytes())
    report.progress(0, None, "loading")  # importing takes a second or more
    # OpenMP's threads wait by spinning: four boostings at once on two cores take thirty times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from k12ai.frameworks.ml import ops

    try:
        ops.OPS[os.environ["K12AI_OP"]](params)
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


if __name__ == "__main__":
    report.main(run)

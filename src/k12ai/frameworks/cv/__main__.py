"""Runs one op of ``k12cv`` in the project's directory."""

import os

from k12ai import report
from k12ai.frameworks import program


def _ops() -> program.Ops:
    # Threads that wait by spinning would take the processors from other tasks.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from k12ai.frameworks.cv import ops

    return ops.OPS


if __name__ == "__main__":
    report.main(lambda: program.run(_ops))

"""Runs one op of ``k12ml`` in the project's directory."""

import os

from k12ai import report
from k12ai.frameworks import program


def _ops() -> program.Ops:
    # OpenMP's threads wait by spinning: four boostings at once on two cores take thirty times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from k12ai.frameworks.ml import ops

    return ops.OPS


if __name__ == "__main__":
    report.main(lambda: program.run(_ops))

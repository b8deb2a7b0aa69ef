"""Runs one op of ``k12nlp`` in the project's directory."""

from k12ai import report
from k12ai.frameworks import program


def _ops() -> program.Ops:
    from k12ai.frameworks.nlp import ops

    return ops.OPS


if __name__ == "__main__":
    report.main(lambda: program.run(_ops))

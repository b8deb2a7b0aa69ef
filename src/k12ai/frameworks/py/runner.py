"""Runs the program that the parameters name, in the project's directory.

It imports little: every student waits for it at every start.
"""

import io
import json  # noqa: TID251 - standard library only: it runs inside the task
import os
import sys

from k12ai import report

# A dot, so that no import can mean it; in the project, so that __file__ and multiprocessing find it there.
_CODE = ".k12ai_code.py"


def _written(code: str) -> str:
    """Write source that was sent into the project, and return its file."""
    if os.path.lexists(_CODE):
        os.unlink(_CODE)  # it may be a link by now
    with open(_CODE, "xb") as file:
        file.write(code.encode("utf-8", "replace"))
    return _CODE


def main() -> None:
    """Run the program; it ends this process as it would end its own."""
    report.main(_run)


def _run() -> None:
    with open(os.environ["K12AI_PARAMS"], "rb") as file:
        params = json.loads(file.read())
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(write_through=True)  # what it prints is read live
    project = os.getcwd()
    script = _written(params["code"]) if "code" in params else params["script"]
    folder = os.path.dirname(os.path.abspath(script))
    if not sys.flags.safe_path:
        del sys.path[0]
    sys.path[:0] = [project] if folder == project else [project, folder]
    report.run_script(script, params.get("args", ()))

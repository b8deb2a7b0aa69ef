"""Runs the program that the parameters name, in the project's directory."""

import io
import json  # noqa: TID251 - standard library only: it runs inside the task
import os
import sys
from pathlib import Path

from k12ai import report

# A dot, so that no import can mean it; in the project, so that __file__ and multiprocessing find it there.
_CODE = ".k12ai_code.py"


def _written(code: str) -> str:
    """Write source that was sent into the project, and return its file."""
    path = Path(_CODE)
    path.unlink(missing_ok=True)  # it may be a link by now
    path.write_bytes(code.encode("utf-8", "replace"))
    return _CODE


def run() -> None:
    """Run the program; it ends this process as it would end its own."""
    params = json.loads(Path(os.environ["K12AI_PARAMS"]).read_bytes())
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(write_through=True)  # what it prints is read live
    project = os.getcwd()
    script = _written(params["code"]) if "code" in params else params["script"]
    folder = os.path.dirname(os.path.abspath(script))
    if not sys.flags.safe_path:
        del sys.path[0]
    sys.path[:0] = [project] if folder == project else [project, folder]
    report.run_script(script, params.get("args", ()))


if __name__ == "__main__":
    report.main(run)

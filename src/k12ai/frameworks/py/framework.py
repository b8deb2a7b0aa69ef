"""A student's own program as a task: a file of the project, or the source itself."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from k12ai.errors import BadParameter
from k12ai.frameworks.base import RUNCODE, Framework, Schema
from k12ai.texts import Text

MAX_CODE_BYTES = 256 * 1024
DEFAULT_SCRIPT = "main.py"

# Not "-m": what it imports to find a module takes longer than the runner itself.
_RUN = "from k12ai.frameworks.py import runner; runner.main()"
_SCRIPT = re.compile(r"(?!/)(?!.*(?:^|/)\.\.(?:/|$))[^\\\x00-\x1f]+")
_PATH = Text("a path inside of the project, relative and without '..'", "项目内的相对路径，且不含 '..'")


class PyFramework(Framework):
    """Runs a Python program in the project's directory, and explains the error that ends it."""

    name = "k12py"
    title = Text("A student's own program", "学生自己的程序")
    ops = (RUNCODE,)
    image = "k12ai/py"
    extra = ""

    def schema(self, op: str) -> Schema:
        """Return the JSON Schema of what to run."""
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "Run a program",
            "x-title-zh": "运行程序",
            "description": "Runs a Python program in the project's directory.",
            "x-description-zh": "在项目目录中运行 Python 程序。",
            "type": "object",
            "properties": {
                "script": {
                    "title": "File",
                    "x-title-zh": "程序文件",
                    "description": "The program's file, as its path inside of the project.",
                    "x-description-zh": "程序文件在项目中的路径。",
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 1024,
                    "default": DEFAULT_SCRIPT,
                },
                "code": {
                    "title": "Source",
                    "x-title-zh": "源代码",
                    "description": "The program itself, at most 256 KiB; instead of a file.",
                    "x-description-zh": "程序源代码，最多 256 KiB；用来代替程序文件。",
                    "type": "string",
                    "default": "",
                },
                "args": {
                    "title": "Arguments",
                    "x-title-zh": "命令行参数",
                    "description": "What the program finds in sys.argv behind its name.",
                    "x-description-zh": "程序在 sys.argv 中得到的参数。",
                    "type": "array",
                    "items": {"type": "string", "maxLength": 4096},
                    "maxItems": 100,
                    "default": [],
                },
            },
            "additionalProperties": False,
        }

    def command(self, op: str) -> Sequence[str]:
        """Return the runner; ``-P`` keeps a student's ``json.py`` from being imported by it."""
        return ("-P", "-c", _RUN)

    def check(self, op: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return either ``script`` or ``code``, and ``args``; both of them are refused."""
        script, code, args = params["script"], params["code"], list(params["args"])
        if not code:
            if not _SCRIPT.fullmatch(script):
                raise BadParameter("service_params.script", _PATH)
            return {"script": script, "args": args}
        if script != DEFAULT_SCRIPT:  # the default says that nobody chose a file
            raise BadParameter(
                "service_params.code", Text("absent where script is given", "空（已给出 script 时）")
            )
        if len(code.encode("utf-8", "surrogatepass")) > MAX_CODE_BYTES:
            raise BadParameter(
                "service_params.code",
                Text(f"at most {MAX_CODE_BYTES} bytes", f"不超过 {MAX_CODE_BYTES} 字节的文本"),
            )
        return {"code": code, "args": args}

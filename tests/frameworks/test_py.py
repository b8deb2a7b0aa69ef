"""A student's own program as a task."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from k12ai import report
from k12ai.errors import BadParameter
from k12ai.frameworks.py.framework import PyFramework
from k12ai.tasks.registry import Registry
from tests.frameworks.ops import Ended, run

OP = "runcode.start"
Start = Callable[..., Ended]


def checked(**params: Any) -> dict[str, Any]:
    return Registry([PyFramework()]).check("k12py", OP, params)


@pytest.fixture(name="start")
def _start(project: Path) -> Start:
    return lambda **params: run(PyFramework(), OP, params, project)


def test_the_schema_is_valid_and_says_everything_in_both_languages() -> None:
    schema = PyFramework().schema(OP)
    jsonschema.Draft202012Validator.check_schema(schema)
    for part in (schema, *schema["properties"].values()):
        assert {"title", "description", "x-title-zh", "x-description-zh"} <= set(part)
    assert all("default" in part for part in schema["properties"].values())


def test_what_is_to_run_is_one_file_or_one_source() -> None:
    assert checked() == {"script": "main.py", "args": []}
    assert checked(script="src/a b.py", args=["x"]) == {"script": "src/a b.py", "args": ["x"]}
    assert checked(code="print(1)") == {"code": "print(1)", "args": []}
    with pytest.raises(BadParameter, match=r"service_params\.code: must be absent"):
        checked(script="a.py", code="print(1)")


@pytest.mark.parametrize(
    "script", ["/etc/passwd", "..", "../a.py", "a/../b.py", "a/..", "a\\b.py", "a\0b", "", "a\n"]
)
def test_a_path_that_leads_out_of_the_project_is_refused(script: str) -> None:
    with pytest.raises(BadParameter, match=r"service_params\.script"):
        checked(script=script)


@pytest.mark.parametrize(
    "params",
    [{"code": "中" * 100_000}, {"args": "x"}, {"args": [1]}, {"scirpt": "a.py"}, {"code": 1}],
    ids=["too long", "no list", "no text", "unknown", "no source"],
)
def test_parameters_that_do_not_fit_are_refused(params: dict[str, Any]) -> None:
    with pytest.raises(BadParameter):
        checked(**params)


def test_a_file_of_the_project_is_run_in_the_project(start: Start, project: Path) -> None:
    (project / "helper.py").write_text("NAME = 'helper'")
    (project / "main.py").write_text(
        "import os, sys, helper\nprint(sys.argv, os.getcwd(), sys.path[0], __file__, helper.NAME)"
    )
    ended = start(args=["a", "--b"])
    assert ended.stdout == f"['main.py', 'a', '--b'] {project} {project} {project}/main.py helper\n", (
        ended.stderr
    )


def test_a_file_in_a_folder_finds_its_neighbours_and_the_project(start: Start, project: Path) -> None:
    source = project / "src"
    source.mkdir()
    (source / "neighbour.py").touch()
    (project / "helper.py").touch()
    (source / "train.py").write_text("import neighbour, helper, sys; print(sys.path[:2])")
    ended = start(script="src/train.py")
    assert ended.stdout == f"{[str(project), str(source)]}\n", ended.stderr


def test_source_that_was_sent_is_run_and_its_errors_have_their_lines(start: Start) -> None:
    ended = start(code="from k12ai import report\nreport.status('你好')\nx = []\nx[2]\n")
    error = ended.error
    assert (error["code"], error["line"], error["source"]) == (100911, 4, "x[2]")
    assert "x[2]" in ended.stderr


def test_source_that_was_sent_does_not_write_through_a_link(start: Start, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "project" / ".k12ai_code.py").symlink_to(tmp_path / "precious")
    assert start(code="print('run')").stdout == "run\n"
    assert (tmp_path / "precious").read_text() == "kept"


@pytest.mark.parametrize("code", ["1 / 0", "import ast, difflib, re, threading, tokenize\n1 / 0"])
def test_a_file_with_the_name_of_a_module_does_not_break_the_runner(
    start: Start, project: Path, code: str
) -> None:
    for name in ("json", "re", "threading", *report._OF_AN_EXPLANATION):
        (project / f"{name}.py").write_text("raise SystemError('imported')")
    assert start(code=code).error["code"] == 100930


def test_what_a_program_does_not_need_is_not_imported_before_it(start: Start) -> None:
    """Everybody would wait for it at every start."""
    names = ("ast", "contextlib", "difflib", "k12ai.explain", "runpy", "tokenize", "typing")
    code = f"import sys\nprint(*(name for name in {names} if name in sys.modules))"
    bare = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60)
    assert start(code=code).stdout == bare.stdout


def test_what_is_printed_can_be_read_at_once(start: Start) -> None:
    ended = start(code="import os\nprint('half', end='')\nos._exit(0)")
    assert ended.stdout == "half"


def test_a_file_that_is_not_there_is_explained(start: Start, project: Path) -> None:
    (project / "mian.py").touch()
    ended = start()
    assert ended.returncode == 2
    (error,) = ended.all("error")
    assert error["code"] == 100919
    assert "mian.py" in error["next_step_en"]

"""What goes wrong in a student's program is explained: the code, the words, the line, the next step."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from k12ai import report
from k12ai.catalogue import CATALOGUE
from k12ai.explain import explain, explain_end

Errors = Callable[[str], list[dict[str, Any]]]


class Planted(NamedTuple):
    """A program that fails in the line that ends with ``# here``, and what must be said of it."""

    code: int
    program: str
    words: tuple[str, ...] = ()
    needs: str = ""


PLANTED = {
    "a misspelled module": Planted(100910, "import maht  # here", ("maht", "math")),
    "a package with another name": Planted(100910, "import bs4  # here", ("bs4", "beautifulsoup4")),
    "a name that a module lacks": Planted(
        100910, "from math import squareroot  # here", ("squareroot", "math")
    ),
    "a file that hides a library": Planted(
        100910,
        "open('statistics.py', 'w').write('import statistics; statistics.mean([1])')\nimport statistics",
        ("statistics.py",),
    ),
    "a position outside": Planted(
        100911, "marks = [1, 2, 3]\nn = 3\nmarks[n]  # here", ("marks", "3 items", "0 to 2")
    ),
    "a position outside of an array": Planted(
        100911, "import numpy as np\nx = np.zeros(3)\nx[5]  # here", ("5", "3 items"), "numpy"
    ),
    "a misspelled name": Planted(
        100912, "learning_rate = 1\nprint(learning_rat)  # here", ("mean learning_rate?",)
    ),
    "a forgotten import": Planted(100912, "x = np.zeros(3)  # here", ("import numpy as np",)),
    "a local name too early": Planted(
        100912, "n = 1\ndef f():\n    n += 1  # here\nf()", ("n is used", "argument")
    ),
    "a missing key": Planted(100913, "d = {'name': 1}\nd['nmae']  # here", ("'nmae'", "'name'")),
    "a missing column": Planted(
        100913,
        "import pandas as pd\ndf = pd.DataFrame({'height': [1], 'weight': [2]})\ndf['hieght']  # here",
        ("'hieght'", "'weight'", "mean 'height'?"),
        "pandas",
    ),
    "a misspelled method": Planted(100914, "[].apend(1)  # here", ("list", "apend", "mean append?")),
    "a method of nothing": Planted(100914, "x = [2, 1].sort()\nx.append(3)  # here", ("append", "None")),
    "a bracket left open": Planted(100915, "print('a'  # here\n", ("closing bracket",)),
    "a Chinese comma": Planted(100915, "print(1， 2)  # here", ("，", "U+FF0C", "English keyboard")),
    "a missing colon": Planted(100915, "for i in range(3)  # here\n    print(i)", ("colon",)),
    "a block that is not indented": Planted(100916, "if True:\nprint(1)  # here", ("expected", "4 spaces")),
    "tabs and spaces": Planted(100916, "if True:\n        a = 1\n\tb = 2  # here", ("no tabs",)),
    "text and a number": Planted(100917, "age = 3\n'age: ' + age  # here", ("str", "int")),
    "a missing argument": Planted(100917, "def area(a, b): return a * b\narea(1)  # here", ("area()", "'b'")),
    "a text that is no number": Planted(100918, "int('twelve')  # here", ("'twelve'",)),
    "a model that was not trained": Planted(
        100918,
        "from sklearn.neighbors import KNeighborsClassifier as K\nK().predict([[1]])  # here",
        ("KNeighborsClassifier", "fit"),
        "sklearn",
    ),
    "a missing file": Planted(
        100919, "open('data.csv', 'w')\nopen('date.csv')  # here", ("date.csv", "'data.csv'")
    ),
    "a path of the own computer": Planted(
        100919, r"open(r'C:\Users\me\a.csv')  # here", ("own computer", "C:")
    ),
    "a place without permission": Planted(
        100920, "raise PermissionError(13, 'Permission denied', '/etc/x')  # here", ("/etc/x",)
    ),
    "shapes that do not broadcast": Planted(
        100921, "import numpy as np\nnp.zeros(3) + np.zeros(4)  # here", ("(3,)", "(4,)"), "numpy"
    ),
    "shapes that do not multiply": Planted(
        100921, "import numpy as np\nnp.zeros((2, 3)) @ np.zeros((4, 5))  # here", ("3", "4"), "numpy"
    ),
    "a shape that is not filled": Planted(
        100921, "import numpy as np\nnp.zeros(10).reshape(3, 4)  # here", ("10", "(3,4)"), "numpy"
    ),
    "layers that do not fit": Planted(
        100921,
        "raise RuntimeError('mat1 and mat2 shapes cannot be multiplied (32x784 and 512x10)')  # here",
        ("32x784", "512x10", "in_features"),
    ),
    "more labels than examples": Planted(
        100921,
        "from sklearn.linear_model import LinearRegression as L\nL().fit([[1], [2]], [1])  # here",
        ("[2, 1]",),
        "sklearn",
    ),
    "fewer columns than in training": Planted(
        100921,
        "from sklearn.linear_model import LinearRegression as L\n"
        "m = L().fit([[1, 2], [2, 3]], [1, 2])\nm.predict([[1]])  # here",
        ("LinearRegression", "2 columns", "given 1"),
        "sklearn",
    ),
    "gaps in the data": Planted(
        100907,
        "from sklearn.linear_model import LinearRegression as L\nx = float('nan')\n"
        "L().fit([[x], [2]], [1, 2])  # here",
        ("gaps", "dropna"),
        "sklearn",
    ),
    "a loss that ran away": Planted(
        100907, "raise ValueError('loss is nan')  # here", ("nan", "learning rate")
    ),
    "numbers out of range": Planted(
        100907,
        "import numpy as np\nnp.seterr(all='raise')\nnp.float64(1e300) * 1e300  # here",
        ("overflow",),
        "numpy",
    ),
    "a table in GBK": Planted(
        100923,
        "open('a.csv', 'wb').write('姓名,成绩'.encode('gbk'))\nopen('a.csv', encoding='utf-8').read()  # here",
        ("utf-8", "encoding='gbk'"),
    ),
    "a download": Planted(
        100924,
        "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:9/x')  # here",
        ("network", "upload"),
    ),
    "a recursion without end": Planted(100925, "def f(n):\n    return f(n - 1)  # here\nf(1)", ("function f",)),
    "an assertion": Planted(100927, "n = 0\nassert n > 0  # here", ()),
    "a full disk": Planted(100928, "raise OSError(28, 'No space left on device')  # here", ("No space",)),
    "a question to the keyboard": Planted(100929, "input('name? ')  # here", ("keyboard", "arguments")),
    "a division by zero": Planted(100930, "count = 0\n1 / count  # here", ("count",)),
    "no GPU": Planted(100931, "raise RuntimeError('No CUDA GPUs are available')  # here", ("GPU", "cpu")),
    "too little memory": Planted(100901, "x = bytearray(1 << 60)  # here", ("memory",)),
    "memory that fills up slowly": Planted(
        100901,
        "import resource\nresource.setrlimit(resource.RLIMIT_DATA, (300 << 20,) * 2)\nx = []\n"
        "while True:\n    x.append('y' * 1000 + str(len(x)))  # here",
        ("memory",),
    ),
    "an array that is too large": Planted(
        100901, "import numpy as np\nnp.ones((1 << 30, 1 << 20))  # here", ("8.00 PiB", "1073741824"), "numpy"
    ),
    "too little GPU memory": Planted(
        100906,
        "class OutOfMemoryError(RuntimeError): pass\n"
        "raise OutOfMemoryError('CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has …')  # here",
        ("2.50 GiB", "batch size"),
    ),
    "too little GPU memory, in an older torch": Planted(
        100906, "raise RuntimeError('CUDA error: out of memory')  # here", ("GPU",)
    ),
    "something else": Planted(
        999999, "raise RuntimeError('the cat is on the keyboard')  # here", ("the cat is on",)
    ),
    "an error of its own": Planted(
        999999, "class Unlucky(Exception): pass\nraise Unlucky(13)  # here", ("Unlucky", "13")
    ),
    "several at once": Planted(
        100930, "raise ExceptionGroup('tasks', [ZeroDivisionError('division by zero')])\n", ("zero",)
    ),
}


@pytest.fixture(name="errors_of")
def _errors_of(tmp_path: Path) -> Errors:
    """Run a program in a project of its own, and return the errors that it reported."""

    def run(program: str) -> list[dict[str, Any]]:
        project, journal = tmp_path / "project", tmp_path / "journal"
        project.mkdir()
        journal.touch()
        (project / "main.py").write_text(program, encoding="utf-8")
        ended = subprocess.run(
            [sys.executable, "-m", "k12ai.report", "main.py"],
            cwd=project,
            env=os.environ | {"K12AI_JOURNAL": str(journal)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ended.returncode == 1, ended.stderr
        assert "Error" in ended.stderr or "Unlucky" in ended.stderr or "ExceptionGroup" in ended.stderr
        assert "k12ai" not in ended.stderr.replace(str(tmp_path), ""), "the traceback is the program's own"
        lines = [msgspec.json.decode(line) for line in journal.read_bytes().splitlines()]
        return [line["data"] for line in lines if line["type"] == "error"]

    return run


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_failure_is_explained_with_its_values_and_its_line(name: str, errors_of: Errors) -> None:
    code, program, words, needs = PLANTED[name]
    if needs:
        pytest.importorskip(needs)
    (error,) = errors_of(program)
    assert error["code"] == code
    said = error["en"] + " " + error["next_step_en"]
    for word in words:
        assert word in said
    for part in ("zh", "next_step_zh"):
        assert re.search(r"[\u4e00-\u9fff]", error[part])
    if "# here" in program:
        lines = program.split("\n")
        line = next(number for number, text in enumerate(lines, 1) if "# here" in text)
        assert (error["file"], error["line"]) == ("main.py", line)
        assert error["source"] == lines[line - 1].strip()


def test_the_line_is_the_students_own_also_where_a_library_raises(errors_of: Errors) -> None:
    (error,) = errors_of("import json\n\ndef load():\n    return json.loads('{')\n\nload()\n")
    assert (error["line"], error["source"]) == (4, "return json.loads('{')")


@pytest.mark.parametrize("call", [lambda: report.metric(1), lambda: explain(None)])
def test_the_line_is_the_students_own_also_where_this_package_raises(call: Callable[[], None]) -> None:
    with pytest.raises((TypeError, AttributeError)) as raised:
        call()
    assert raised.traceback[-1].path != Path(__file__)
    position = explain(raised.value).position
    assert position is not None
    assert position.file.endswith("test_explain.py")


def test_a_syntax_error_in_another_file_of_the_project_is_found_there(errors_of: Errors) -> None:
    (error,) = errors_of("open('helper.py', 'w').write('x = 1\\ny = = 2\\n')\nimport helper\n")
    assert (error["code"], error["file"], error["line"]) == (100915, "helper.py", 2)


def test_every_code_that_is_given_is_in_the_catalogue() -> None:
    assert {planted.code for planted in PLANTED.values()} <= set(CATALOGUE)


@pytest.mark.parametrize(
    ("reason", "exit_code", "signal", "oom", "code", "word"),
    [
        ("exited", None, 9, True, 100901, "memory"),
        ("oom", None, 9, False, 100901, "memory"),
        ("signal", None, 9, False, 100926, "SIGKILL"),
        ("exited", 137, None, False, 100926, "SIGKILL"),
        ("signal", None, 11, False, 100926, "SIGSEGV"),
        ("signal", None, 40, False, 100926, "signal 40"),
        ("timeout", None, 15, False, 100922, "time"),
        ("stopped_by_user", None, 15, False, 100004, "by hand"),
        ("start_failed", None, None, False, 100202, "started"),
        ("lost", None, None, False, 999999, "trace"),
        ("exited", 3, None, False, 999999, "exit code 3"),
        ("exited", 1, None, True, 999999, "exit code 1"),
        ("exited", 0, None, False, 999999, ""),
    ],
)
def test_an_end_without_an_exception_is_explained(
    reason: str, exit_code: int | None, signal: int | None, oom: bool, code: int, word: str
) -> None:
    found = explain_end(reason, exit_code, signal, oom=oom)
    assert found.code == code
    assert word in found.text.en
    for text in (found.text, found.next_step):
        assert text.en
        assert re.search(r"[\u4e00-\u9fff]", text.zh)


def test_what_comes_from_another_process_is_told_by_its_last_line() -> None:
    words = (
        "Caught it in worker 0.\nTraceback (most recent call last):\n  File 'x'\nOSError: the disk is on fire\n"
    )
    found = explain(RuntimeError(words))
    assert (found.code, found.message) == (999999, "OSError: the disk is on fire")


def test_an_exception_that_cannot_say_its_name_is_explained_nevertheless() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    found = explain(Mute())
    assert (found.code, found.exception, found.message) == (999999, "Mute", "")


def test_braces_in_a_message_are_no_places_to_fill() -> None:
    found = explain(ValueError("loss is nan {a} {0} {"))
    assert found.code == 100907


def test_an_explanation_leaves_out_what_is_not_known() -> None:
    assert set(explain_end("timeout", None, None, oom=False).as_dict()) == {
        "code",
        "en",
        "zh",
        "next_step_en",
        "next_step_zh",
    }

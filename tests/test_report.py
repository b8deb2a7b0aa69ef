"""What a task reports arrives whole and in order, whatever the task does meanwhile."""

import math
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from k12ai import report

Run = Callable[..., "subprocess.CompletedProcess[str]"]
# For an interpreter without site-packages, which may import modules of their own.
ON_PATH = {"PYTHONPATH": str(Path(report.__file__).parents[1])}
LIBRARIES = ("msgspec", "httpx", "rich", "typer", "numpy", "torch", "litestar", "psutil", "structlog")


@pytest.fixture(name="journal")
def _journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "journal"
    path.touch()
    monkeypatch.setenv("K12AI_JOURNAL", str(path))
    return path


@pytest.fixture(name="run")
def _run(tmp_path: Path) -> Run:
    """Run a program in a directory of its own, with the runner or with ``runner=()`` as it is."""

    def run(
        program: str, *arguments: str, runner: tuple[str, ...] = ("-m", "k12ai.report"), **options: Any
    ) -> "subprocess.CompletedProcess[str]":
        (tmp_path / "main.py").write_text(program, encoding="utf-8")
        return subprocess.run(
            [sys.executable, *runner, "main.py", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            **options,
        )

    return run


def lines(path: Path) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]


def data(path: Path) -> list[dict[str, Any]]:
    return [line["data"] for line in lines(path)]


# --- what is said ----------------------------------------------------------------------------------


def test_each_report_is_a_line_with_its_type_number_process_and_time(journal: Path) -> None:
    for _ in range(2):
        report.metric(loss=0.5)
    first, second = lines(journal)
    assert set(first) == {"type", "seq", "pid", "time", "data"}
    assert (first["type"], first["pid"], first["data"]) == ("metrics", os.getpid(), {"loss": 0.5})
    assert second["seq"] == first["seq"] + 1
    assert first["time"] > 1_700_000_000_000


def test_the_kinds_of_reports_have_their_own_bodies(journal: Path) -> None:
    report.metric({"val/loss": 0.5}, step=3, accuracy=0.75)
    report.progress(3, 10, "training")
    report.progress(3)
    report.status("looking at the data")
    report.result(accuracy=0.75, labels=["cat", "dog"])
    report.error(100907, "it ran away", "跑飞了", next_step="Slow down.")
    assert [line["type"] for line in lines(journal)] == [
        *("metrics", "progress", "progress", "status", "result", "error")
    ]
    assert data(journal) == [
        {"step": 3, "val/loss": 0.5, "accuracy": 0.75},
        {"done": 3, "total": 10, "phase": "training"},
        {"done": 3, "total": None, "phase": ""},
        {"value": "running", "text": "looking at the data"},
        {"accuracy": 0.75, "labels": ["cat", "dog"]},
        {
            "code": 100907,
            "en": "it ran away",
            "zh": "跑飞了",
            "next_step_en": "Slow down.",
            "next_step_zh": "Slow down.",
            "message": "it ran away",
        },
    ]


def test_an_error_without_chinese_words_has_those_of_its_code(journal: Path) -> None:
    report.error(100906, "the GPU is full")
    (body,) = data(journal)
    assert body["zh"].startswith("显存不足")
    assert "批大小" in body["next_step_zh"]


class Tensor:
    """What the platform asks of a tensor: nothing but its methods."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def tolist(self) -> Any:
        return self.value


class OneNumber:
    def item(self) -> float:
        return 0.25


class Circle(list[Any]):
    """A list that holds itself."""


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (Tensor([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (Tensor(0.5), 0.5),
        (Tensor([math.nan, 1.0]), [None, 1.0]),
        (OneNumber(), 0.25),
        (math.nan, None),
        (-math.inf, None),
        ([1, {"a": math.inf}], [1, {"a": None}]),
        ({1: "a", (2, 3): "b"}, {"1": "a", "(2, 3)": "b"}),
        ({"x"}, ["x"]),
        (Path("model.pkl"), "model.pkl"),
        (10**5000, None),
        (True, True),
        ("\ud800 中", "? 中"),
        (b"raw", "b'raw'"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_is_written_as_the_nearest_thing_that_json_has(journal: Path, value: Any, written: Any) -> None:
    report.metric(x=value)
    assert data(journal) == [{"x": written}]


def test_numbers_of_numpy_are_numbers(journal: Path) -> None:
    numpy = pytest.importorskip("numpy")
    report.metric(
        a=numpy.float32(0.5), b=numpy.int64(3), c=numpy.arange(3), d=numpy.float64("nan"), step=numpy.int8(1)
    )
    assert data(journal) == [{"step": 1, "a": 0.5, "b": 3, "c": [0, 1, 2], "d": None}]


def test_a_list_that_holds_itself_is_cut_off(journal: Path) -> None:
    circle = Circle()
    circle += [1, circle]
    report.metric(x=circle)
    assert data(journal) == [{"x": [1, "…"]}]


@pytest.mark.parametrize("name", ["loss", "train_loss", "val/Loss"])
def test_the_first_loss_that_is_no_number_is_reported_as_an_error(
    journal: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(report._journal, "has_lost_loss", False)
    report.metric({name: Tensor(math.nan)}, step=7)
    report.metric({name: math.inf}, step=8)
    assert [line["type"] for line in lines(journal)] == ["metrics", "error", "metrics"]
    error = data(journal)[1]
    assert error["code"] == 100907
    assert name in error["en"]
    assert "第 7 步" in error["zh"]


def test_another_figure_that_is_no_number_is_no_error(journal: Path) -> None:
    report.metric(accuracy=math.nan, lost=math.nan, text_loss="n/a")
    assert [line["type"] for line in lines(journal)] == ["metrics"]


# --- how it is written -----------------------------------------------------------------------------


def test_a_line_that_is_too_long_is_refused_and_the_next_one_is_not(journal: Path) -> None:
    longest = report.MAX_LINE_BYTES - 150
    report.result(text="x" * longest)
    with pytest.raises(ValueError, match="262144 bytes"):
        report.result(text="中" * (report.MAX_LINE_BYTES // 3))
    report.metric(x=1)
    first, last = lines(journal)
    assert len(first["data"]["text"]) == longest
    assert last["seq"] == first["seq"] + 1


def test_a_huge_array_is_refused_before_it_becomes_a_list(journal: Path) -> None:
    class Huge(Tensor):
        nbytes = 1 << 40

        def tolist(self) -> Any:
            raise MemoryError

    with pytest.raises(ValueError, match="256 KiB"):
        report.metric(weights=Huge(0))


def test_lines_of_threads_do_not_mix_and_are_numbered_in_order(journal: Path) -> None:
    def speak(number: int) -> None:
        for step in range(200):
            report.metric(thread=number, step=step, text="x" * (step % 50) * 100)

    threads = [threading.Thread(target=speak, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = lines(journal)
    assert len(found) == 1600
    numbers = [line["seq"] for line in found]
    assert numbers == list(range(numbers[0], numbers[0] + 1600))


def test_each_forked_process_counts_for_itself_and_no_line_mixes(run: Run, journal: Path) -> None:
    ended = run(
        "import os, threading\n"
        "from k12ai import report\n"
        "report.metric(x=0)\n"
        "held = threading.Thread(target=report._journal._lock.acquire)\n"  # never released in this process
        "held.start(); held.join()\n"
        "for child in range(4):\n"
        "    if not os.fork():\n"
        "        for step in range(500): report.metric(step=step, text='x' * 5000)\n"
        "        os._exit(0)\n"
        "for child in range(4): os.wait()\n"
    )
    assert ended.returncode == 0, ended.stderr
    found = lines(journal)
    assert len(found) == 2001
    for pid in {line["pid"] for line in found[1:]}:
        numbers = [line["seq"] for line in found if line["pid"] == pid]
        assert numbers == list(range(1, len(numbers) + 1))


def test_a_signal_handler_may_report_while_the_program_reports(run: Run, journal: Path) -> None:
    ended = run(
        "import signal\n"
        "from k12ai import report\n"
        "signal.signal(signal.SIGALRM, lambda *_: report.status('tick'))\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)\n"
        "for step in range(5000): report.metric(step=step)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0)\n"
    )
    assert ended.returncode == 0, ended.stderr
    assert sorted(line["seq"] for line in lines(journal)) == list(range(1, len(lines(journal)) + 1))


def test_a_program_that_closes_all_descriptors_goes_on_reporting_and_spoils_no_file(
    run: Run, journal: Path, tmp_path: Path
) -> None:
    ended = run(
        "import os\n"
        "from k12ai import report\n"
        "report.metric(x=1)\n"
        "os.closerange(3, 100)\n"
        "model = [os.open('model', os.O_CREAT | os.O_WRONLY) for _ in range(8)]\n"
        "report.metric(x=2)\n"
    )
    assert ended.returncode == 0, ended.stderr
    assert data(journal) == [{"x": 1}, {"x": 2}]
    assert (tmp_path / "model").read_bytes() == b""


def test_the_journal_is_not_inherited_by_other_programs(run: Run, journal: Path) -> None:
    ended = run(
        "import os, subprocess\n"
        "from k12ai import report\n"
        "report.metric(x=1)\n"
        "print(os.get_inheritable(report._journal._descriptor))\n"
    )
    assert ended.stdout == "False\n"


def test_a_full_disk_is_told_once_and_the_training_goes_on(run: Run, journal: Path) -> None:
    program = (
        "import os\n"
        "from k12ai import report\n"
        "os.environ['K12AI_JOURNAL'] = '/dev/full'\n"
        "for step in range(3): report.metric(step=step)\n"
        "print('trained')\n"
    )
    ended = run(program)
    assert (ended.returncode, ended.stdout) == (0, "trained\n")
    assert ended.stderr.count("No space left") == 1


def test_what_a_full_disk_cut_off_does_not_spoil_the_next_line(run: Run, journal: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))

    ended = run(
        "import resource\n"
        "from k12ai import report\n"
        "for step in range(2): report.metric(step=step, text='x' * 600)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)\n"
        "report.metric(step=2)\n",
        preexec_fn=limit,
    )
    assert ended.returncode == 0, ended.stderr
    assert "File too large" in ended.stderr
    first, torn, last = journal.read_bytes().splitlines()
    assert msgspec.json.decode(first)["data"]["step"] == 0
    assert msgspec.json.decode(last)["data"]["step"] == 2
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(torn)


def test_a_journal_that_is_gone_does_not_end_the_training(run: Run, journal: Path) -> None:
    journal.unlink()
    ended = run("from k12ai import report\nreport.metric(x=1)\nreport.result(x=1)\nprint('trained')\n")
    assert (ended.returncode, ended.stdout) == (0, "trained\n")
    assert ended.stderr.count("cannot report") == 1
    assert not journal.exists()


def test_reporting_needs_the_standard_library_only(run: Run, journal: Path) -> None:
    block = "; ".join(f"sys.modules[{name!r}] = None" for name in LIBRARIES)
    ended = run(
        f"import sys; {block}\nfrom k12ai import report\nreport.metric(loss=1)\nreport.error(1, 'x')\n1 / 0\n"
    )
    assert ended.returncode == 1
    assert [line["type"] for line in lines(journal)] == ["metrics", "error", "error"]
    assert data(journal)[-1]["code"] == 100930


# --- at home ---------------------------------------------------------------------------------------


def test_without_a_journal_each_report_is_a_readable_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    report.metric(step=3, loss=0.123456789, seen=[1, 2])
    report.progress(3, 10, "training")
    report.progress(4)
    report.status("two\nlines")
    report.result(weights=Tensor(list(range(1000))))
    report.error(100906, "the GPU is full")
    monkeypatch.setenv("LANG", "zh_CN.UTF-8")
    report.error(100906, "the GPU is full")
    out = capsys.readouterr().out.splitlines()
    assert out[:4] == [
        "[k12ai] metrics: step=3  loss=0.123457  seen=[1, 2]",
        "[k12ai] progress: 3/10 training",
        "[k12ai] progress: 4",
        "[k12ai] status: two lines",
    ]
    assert out[4].endswith("…")
    assert out[5].startswith("[k12ai] error: 100906 the GPU is full Halve")
    assert "显存不足" in out[6]
    assert len(out) == 7


@pytest.mark.parametrize("console", ["closed", "absent", "ascii", "pipe"])
def test_without_a_journal_nothing_fails(run: Run, console: str) -> None:
    spoil = {
        "closed": "sys.stdout.close()",
        "absent": "sys.stdout = None",
        "ascii": "sys.stdout.reconfigure(encoding='ascii')",
        "pipe": "r, w = os.pipe(); os.close(r); os.dup2(w, 1)",
    }[console]
    ended = run(
        f"import os, sys\nfrom k12ai import report\n{spoil}\nreport.status('训练')\n"
        "report.metric(loss=float('nan'), x=object())\nreport.result(x='y' * (1 << 20))\n"
        "print('done', file=sys.stderr, flush=True)\nos._exit(0)\n",
        runner=(),
    )
    assert (ended.returncode, ended.stderr) == (0, "done\n")


# --- the runner ------------------------------------------------------------------------------------

FACTS = (
    "import inspect, pickle, sys\n"
    "class Thing: pass\n"
    "main = sys.modules['__main__']\n"
    "print(sys.argv, sys.path[0], __name__, __file__, __spec__, __package__, main.Thing is Thing)\n"
    "print(type(pickle.loads(pickle.dumps(Thing()))) is Thing, inspect.getsource(Thing), sorted(vars()))\n"
)


def test_a_program_finds_itself_as_when_it_is_run_directly(run: Run) -> None:
    assert run(FACTS, "a", "--b").stdout == run(FACTS, "a", "--b", runner=()).stdout != ""


def test_an_exception_is_reported_and_printed_and_ends_with_one(run: Run, journal: Path) -> None:
    program = "def f():\n    return [][0]\n\nf()\n"
    ended, direct = run(program), run(program, runner=())
    assert (ended.returncode, ended.stderr) == (direct.returncode, direct.stderr)
    assert direct.returncode == 1
    (error,) = data(journal)
    assert error["code"] == 100911
    assert (error["exception"], error["message"]) == ("IndexError", "list index out of range")
    assert (error["file"], error["line"], error["source"]) == ("main.py", 2, "return [][0]")


@pytest.mark.parametrize(
    "program",
    [
        "import sys; sys.exit()",
        "import sys; sys.exit(7)",
        "import sys; sys.exit('words')",
        "raise KeyboardInterrupt",
        "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
        "import atexit; atexit.register(print, 'bye')",
    ],
)
def test_an_end_that_is_no_error_is_the_same_with_the_runner(run: Run, journal: Path, program: str) -> None:
    ended, direct = run(program), run(program, runner=())
    assert (ended.returncode, ended.stdout, ended.stderr) == (direct.returncode, direct.stdout, direct.stderr)
    assert lines(journal) == []


def test_an_interrupt_ends_the_program_by_its_signal(run: Run) -> None:
    assert run("raise KeyboardInterrupt").returncode == -signal.SIGINT


def test_every_module_that_an_explanation_imports_is_one_that_the_program_cannot_replace() -> None:
    program = (
        "import sys\n"
        "from k12ai import report\n"
        "before = set(sys.modules)\n"
        "from k12ai import explain\n"
        "new = {name for name in set(sys.modules) - before if '.' not in name and name[0] != '_'}\n"
        "print(*new - set(sys.builtin_module_names) - report._OF_AN_EXPLANATION)\n"
    )
    told = subprocess.run([sys.executable, "-S", "-c", program], env=ON_PATH, capture_output=True, text=True)
    assert (told.stdout, told.stderr) == ("\n", "")


def test_an_error_is_placed_in_the_project_also_where_the_program_has_left_it(run: Run, journal: Path) -> None:
    run("import os\nos.chdir('/')\n1 / 0\n")
    assert [(body["file"], body["line"]) for body in data(journal)] == [("main.py", 3)]


def test_a_hook_of_the_programs_own_prints_the_traceback(run: Run, journal: Path) -> None:
    ended = run("import sys\nsys.excepthook = lambda kind, *_: print('oops', kind.__name__)\n1 / 0\n")
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "oops ZeroDivisionError\n", "")
    assert len(lines(journal)) == 1


def test_an_exception_that_ends_a_thread_is_reported(run: Run, journal: Path) -> None:
    ended = run("import threading\ndef f():\n    {}['x']\nthreading.Thread(target=f).start()\n")
    assert ended.returncode == 0
    assert "KeyError" in ended.stderr
    assert [(body["code"], body["line"]) for body in data(journal)] == [(100913, 3)]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_an_exception_that_ends_a_child_process_is_reported_once(run: Run, journal: Path, method: str) -> None:
    ended = run(
        "import multiprocessing\n"
        "from k12ai import report\n"
        "def f(depth):\n"
        "    if depth:\n"
        "        child = multiprocessing.Process(target=f, args=(depth - 1,))\n"
        "        child.start(); child.join()\n"
        "    else:\n"
        "        {}['x']\n"
        "if __name__ == '__main__':\n"
        f"    multiprocessing.set_start_method({method!r})\n"
        "    f(2)\n"
    )
    assert ended.returncode == 0, ended.stderr
    assert "KeyError" in ended.stderr
    (line,) = lines(journal)
    assert (line["data"]["code"], line["data"]["line"]) == (100913, 8)


def test_main_reports_for_a_program_that_is_run_directly(run: Run, journal: Path) -> None:
    ended = run(
        "from k12ai import report\nprint(report.main(lambda: 5))\nreport.main(lambda: 1 / 0)\nprint('no')\n",
        runner=(),
    )
    assert (ended.returncode, ended.stdout) == (1, "5\n")
    assert [(body["code"], body["line"]) for body in data(journal)] == [(100930, 3)]


def test_main_inside_of_the_runner_reports_once(run: Run, journal: Path) -> None:
    assert run("from k12ai import report\nreport.main(lambda: 1 / 0)\n").returncode == 1
    assert len(lines(journal)) == 1


def test_an_exception_that_was_caught_can_be_reported(journal: Path) -> None:
    try:
        math.sqrt(-1)
    except ValueError as error:
        report.exception(error)
    (body,) = data(journal)
    assert (body["code"], body["exception"], body["source"]) == (100918, "ValueError", "math.sqrt(-1)")


def test_the_runner_without_a_program_says_how_it_is_used() -> None:
    ended = subprocess.run([sys.executable, "-m", "k12ai.report"], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, "usage:" in ended.stderr) == (2, True)


def test_a_program_that_is_not_there_is_reported(run: Run, journal: Path) -> None:
    ended = run("", runner=("-m", "k12ai.report", "nothing.py"))
    assert ended.returncode == 2
    assert "nothing.py" in ended.stderr
    assert [body["code"] for body in data(journal)] == [100919]

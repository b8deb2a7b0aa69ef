"""What a task imports to say how it is doing, and the runner that says what went wrong in it.

::

    from k12ai import report

    for epoch in range(10):
        report.progress(epoch, 10, "training")
        report.metric(step=epoch, loss=loss, accuracy=accuracy)
    report.result(accuracy=accuracy)

Every call appends one line of JSON to the file that ``K12AI_JOURNAL`` names, and is complete when it
returns. Where there is none, as at home, it prints a line instead. Only the standard library is
needed; numbers of NumPy and PyTorch are recognised by their methods.

``python -m k12ai.report SCRIPT [ARGUMENTS]`` runs a program as ``python SCRIPT`` does, and reports the
exception that ends it as an error, explained, with the line of the program that it comes from.
"""

from __future__ import annotations

import builtins
import io
import itertools
import json  # noqa: TID251 - standard library only: it runs inside the task
import math
import os
import sys
import threading
import time
import types
from collections.abc import Mapping
from importlib.machinery import PathFinder, SourceFileLoader

TYPE_CHECKING = False  # `typing` alone would take a tenth of the time in which a program starts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from typing import Any, NoReturn, TypeVar

    _Result = TypeVar("_Result")

__all__ = ["error", "exception", "main", "metric", "progress", "result", "run_script", "status"]

MAX_LINE_BYTES = 256 * 1024

_HEAD_BYTES = 128  # room for a line's type, number, process and time
_JOURNAL = "K12AI_JOURNAL"
_RUNNER = "K12AI_REPORT_RUNNER"  # tells processes that are started afresh that exceptions are reported
_NAN_LOSS = 100907
_MAX_DEPTH = 64
_MAX_PRINTED = 200
# Room to explain a MemoryError in, and to import what does; pages that nobody touches cost no memory.
_RESERVE_BYTES = 16 << 20
# What an explanation imports besides this module's own imports; see `_StandardLibrary`.
_OF_AN_EXPLANATION = frozenset(
    ("ast", "contextlib", "difflib", "heapq", "linecache", "token", "tokenize", "typing", "unicodedata")
)


def metric(values: Mapping[str, Any] | None = None, /, *, step: float | None = None, **more: Any) -> None:
    """Report figures, such as ``metric(step=3, loss=0.5)``; a dict serves for names like ``"val/loss"``.

    What JSON has no number for (NaN, infinity) becomes null. The first loss that is no finite number,
    whatever name it has that ends in "loss", is reported as an error with code 100907 as well. Raises
    `ValueError` where the line would be longer than `MAX_LINE_BYTES`.
    """
    figures = {**({} if step is None else {"step": step}), **(values or {}), **more}
    _say("metrics", figures)
    for name, value in figures.items():
        if str(name).lower().endswith("loss") and not _is_finite(value):
            _report_loss(str(name), step)


def progress(done: float, total: float | None = None, phase: str = "") -> None:
    """Report how much is done, and of how much where that is known; nobody makes up the rest."""
    _say("progress", {"done": done, "total": total, "phase": phase})


def status(text: str) -> None:
    """Report what the program is doing now, in words for people."""
    _say("status", {"value": "running", "text": str(text)})


def result(values: Mapping[str, Any] | None = None, /, **more: Any) -> None:
    """Report what came out in the end. Raises `ValueError` where it is longer than `MAX_LINE_BYTES`."""
    _say("result", {**(values or {}), **more})


def error(code: int, message: str, zh: str = "", *, next_step: str = "", next_step_zh: str = "") -> None:
    """Report what is wrong, under a code of ``docs/errors.md``; what is not given is the code's own text."""
    from k12ai import explain

    found = explain.told(code, str(message), zh, next_step, next_step_zh)
    _say("error", found.as_dict() | {"message": str(message)})


def exception(error: BaseException) -> None:
    """Report an exception as the error that explains it; never fails."""
    try:
        from k12ai import explain

        _say("error", explain.explain(error, _STARTED_IN).as_dict())
    except Exception:  # noqa: BLE001 - what fails here must not hide what is to be explained
        words = f"{type(error).__name__}: the program ended with it"
        zh = f"程序因 {type(error).__name__} 而中断"
        _say("error", {"code": 999999, "en": words, "zh": zh, "exception": type(error).__name__})


# --- the journal -----------------------------------------------------------------------------------


class _Journal:
    """The journal, open for appending, and how many lines this process has written."""

    def __init__(self) -> None:
        self._path = ""
        self._descriptor = -1
        self._file: tuple[int, int] = (0, 0)
        self._is_torn = False
        self._has_warned = False
        self.begin()

    def begin(self) -> None:
        """Begin to count, as a process does that was forked off: its other threads are no more."""
        self._lock = threading.RLock()  # reentrant: a signal's handler may report, too
        self._numbers = itertools.count(1)  # one step, which no signal's handler comes into the middle of
        self.has_lost_loss = False

    def write(self, path: str, kind: str, body: bytes) -> None:
        if len(body) > MAX_LINE_BYTES - _HEAD_BYTES:
            raise _too_long(len(body))
        with self._lock:
            line = b'{"type":"%b","seq":%d,"pid":%d,"time":%d,"data":%b}\n' % (
                kind.encode(),
                next(self._numbers),
                os.getpid(),
                time.time_ns() // 1_000_000,
                body,
            )
            try:
                self._append(path, line)
            except OSError as error:
                self._warn(error)

    def _append(self, path: str, line: bytes) -> None:
        self._open(path)
        # What a full disk cut off must not spoil the next line.
        rest = memoryview(b"\n" + line if self._is_torn else line)
        whole = len(rest)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        finally:
            self._is_torn = 0 < len(rest) < whole or (self._is_torn and len(rest) == whole)

    def _open(self, path: str) -> None:
        """Have the journal open; the program may have closed it, and use its number for another file."""
        if path == self._path:
            try:
                found = os.fstat(self._descriptor)
            except OSError:
                pass
            else:
                if (found.st_dev, found.st_ino) == self._file:
                    return
        flags = os.O_WRONLY | os.O_APPEND | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        self._descriptor = os.open(path, flags)
        found = os.fstat(self._descriptor)
        self._path, self._file = path, (found.st_dev, found.st_ino)

    def _warn(self, error: OSError) -> None:
        if self._has_warned:
            return
        self._has_warned = True
        _print(
            sys.stderr, f"k12ai.report: cannot report ({error}); the program goes on / 无法上报，程序继续运行"
        )


_journal = _Journal()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_journal.begin)


def _started_in() -> str:
    try:
        return os.getcwd()
    except OSError:  # it is gone
        return os.curdir


_STARTED_IN = _started_in()  # before the program changes its directory


def _say(kind: str, data: dict[str, Any]) -> None:
    path = os.environ.get(_JOURNAL)
    if path:
        _journal.write(path, kind, _encoded(data))
    else:
        _print(sys.stdout, _readable(kind, data))


def _report_loss(name: str, step: float | None) -> None:
    if _journal.has_lost_loss:
        return
    _journal.has_lost_loss = True
    where = ("", "") if step is None else (f" at step {step}", f"（第 {step} 步）")
    error(
        _NAN_LOSS,
        f"{name} is no number any more{where[0]}: it has become NaN or infinite.",
        f"{name} 已经不是有效数字{where[1]}：变成了 NaN 或无穷大。",
    )


def _too_long(size: int) -> ValueError:
    return ValueError(
        f"one report may have {MAX_LINE_BYTES} bytes (256 KiB), and this one has {size} or more: "
        "report figures, and save arrays to a file / 单次上报不能超过 256 KiB，请把数组保存到文件"
    )


# --- values ----------------------------------------------------------------------------------------


def _encoded(data: dict[str, Any]) -> bytes:
    try:
        text = _encode(data)
    except (TypeError, ValueError, RecursionError):  # NaN, keys that are no text, lists that hold themselves
        text = _encode(_cleaned(data))
    return text.encode("utf-8", "replace")  # half a surrogate pair is no UTF-8


def _cleaned(value: Any, inside: tuple[int, ...] = ()) -> Any:
    """Return the nearest thing that strict JSON has."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int) and value.bit_length() <= 64:
        return int(value)
    if isinstance(value, (int, float)):
        return float(value) if _is_finite(value) else None
    if id(value) in inside or len(inside) == _MAX_DEPTH:
        return "…"
    inside = (*inside, id(value))
    if isinstance(value, Mapping):
        return {_text(name): _cleaned(each, inside) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_cleaned(each, inside) for each in value]
    return _cleaned(_plain(value), inside)


def _plain(value: Any) -> Any:
    """Return what an array, a tensor, a scalar of theirs, a set or anything else is in terms of JSON."""
    size = getattr(value, "nbytes", 0)
    if isinstance(size, int) and size > 16 * MAX_LINE_BYTES:  # before a list of all of it is made
        raise _too_long(MAX_LINE_BYTES)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (set, frozenset)):
        return list(value)
    for name in ("tolist", "item"):
        try:
            plain = getattr(value, name)()
        except Exception:  # noqa: BLE001, S112 - anybody's method; then the value is its text
            continue
        if type(plain) is not type(value):
            return plain
    return _text(value)


_encode = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":"), default=_plain).encode


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value if isinstance(value, (int, float)) else _plain(value))
    except OverflowError:
        return False
    except (TypeError, ValueError):  # no number at all
        return True


def _text(value: Any) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - anybody's method
        return object.__repr__(value)


# --- without a journal -----------------------------------------------------------------------------


def _readable(kind: str, data: dict[str, Any]) -> str:
    match kind:
        case "progress":
            total = "" if data["total"] is None else f"/{_shown(data['total'])}"
            words = f"{_shown(data['done'])}{total} {data['phase']}"
        case "status":
            words = data["text"]
        case "error":
            language = "zh" if _speaks_chinese() else "en"
            place = f"{data['file']}:{data['line']}: " if "line" in data else ""
            words = f"{data['code']} {place}{data[language]} {data.get(f'next_step_{language}', '')}"
        case _:
            words = "  ".join(f"{name}={_shown(value)}" for name, value in data.items())
    return f"[k12ai] {kind}: " + " ".join(str(words).splitlines()).rstrip()


def _shown(value: Any) -> str:
    try:
        plain = value if isinstance(value, (int, float, str)) else _cleaned(value)
        shown = f"{plain:.6g}" if isinstance(plain, float) else _text(plain)
    except ValueError:
        shown = _text(type(value))
    return shown if len(shown) <= _MAX_PRINTED else shown[:_MAX_PRINTED] + "…"


def _speaks_chinese() -> bool:
    names = (os.environ.get(name) for name in ("LC_ALL", "LC_MESSAGES", "LANG"))
    return next((name for name in names if name), "").lower().startswith("zh")


def _print(stream: Any, line: str) -> None:
    """Print a line wherever that is possible: a console may be closed, or know no Chinese."""
    try:
        try:
            stream.write(line + "\n")
        except UnicodeEncodeError:
            stream.write(line.encode("ascii", "backslashreplace").decode() + "\n")
        stream.flush()
    except (AttributeError, OSError, ValueError):
        pass  # there is nobody to tell


# --- the runner ------------------------------------------------------------------------------------


def main(function: Callable[[], _Result]) -> _Result:
    """Call a function and return what it returns; an exception that leaves it is reported as an error.

    The traceback goes to standard error and the program ends with exit code 1, as without this.
    `SystemExit` and `KeyboardInterrupt` pass. Exceptions that end threads, and processes that
    `multiprocessing` has started, are reported as well, from the first call on.
    """
    _watch()
    reserve = bytes(_RESERVE_BYTES)
    try:
        return function()
    except SystemExit:
        raise
    except KeyboardInterrupt as interrupt:
        _hide_runner(interrupt)
        raise
    except BaseException as failure:  # noqa: BLE001 - whatever it is, it has ended the program
        del reserve
        _end(failure)


def run_script(script: str, arguments: Sequence[str] = ()) -> None:
    """Run a program as ``python SCRIPT ARGUMENTS`` does, with `main` around it; ``sys.path`` stays as it is."""
    path = os.path.abspath(script)
    sys.argv[:] = [script, *arguments]
    try:
        with io.open_code(path) as file:
            source = file.read()
    except OSError as failure:
        exception(failure)
        _print(sys.stderr, f"{sys.executable}: can't open file {path!r}: {failure}")
        raise SystemExit(2) from None
    module = types.ModuleType("__main__")
    module.__dict__.update(
        __builtins__=builtins,
        __file__=path,
        __cached__=None,
        __loader__=SourceFileLoader("__main__", path),
        __spec__=None,  # so that multiprocessing finds the program by its file
        __annotations__={},
    )
    sys.modules["__main__"] = module  # for good: threads and pickles go on after the last line
    main(lambda: exec(compile(source, path, "exec", dont_inherit=True), module.__dict__))  # noqa: S102


class _StandardLibrary:
    """Finds the modules that explain where the interpreter has them, whatever files the program has.

    They are imported when there is something to explain: every program would start later for them.
    """

    _PATH = (os.path.dirname(os.__file__), os.path.join(os.path.dirname(os.__file__), "lib-dynload"))

    @classmethod
    def find_spec(cls, name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        return PathFinder.find_spec(name, cls._PATH) if name in _OF_AN_EXPLANATION else None


def _end(failure: BaseException) -> NoReturn:
    trace = _students(failure.__traceback__)
    failure.__traceback__ = trace
    exception(failure)
    sys.excepthook(type(failure), failure, trace)
    raise SystemExit(1) from None


def _students(trace: types.TracebackType | None) -> types.TracebackType | None:
    """Return a traceback without the frames of the runner, which come first."""
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return trace


def _hide_runner(interrupt: KeyboardInterrupt) -> None:
    """Have the traceback of an interrupt begin in the program; the interpreter prints it and ends as usual."""
    trace, hook = _students(interrupt.__traceback__), sys.excepthook
    sys.excepthook = lambda kind, value, _trace: hook(kind, value.with_traceback(trace), trace)


_is_watching = _is_watching_processes = False


def _watch() -> None:
    """Have the exceptions of threads and of processes to come reported."""
    global _is_watching
    if _is_watching:
        return
    _is_watching = True
    sys.meta_path.insert(0, _StandardLibrary)
    os.environ[_RUNNER] = "1"
    hook = threading.excepthook

    def tell(arguments: threading.ExceptHookArgs) -> None:
        if arguments.exc_value is not None and not issubclass(arguments.exc_type, SystemExit):
            exception(arguments.exc_value)
        hook(arguments)

    threading.excepthook = tell
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_watch_process)


def _watch_process() -> None:
    """In a process that multiprocessing starts, have the exception that ends it reported.

    ``multiprocessing`` prints such an exception and keeps it to itself; but its finalizers run while the
    exception is on its way, and those of a new process are set by what is registered for "after fork".
    """
    global _is_watching_processes
    util = sys.modules.get("multiprocessing.util")
    if util is not None and not _is_watching_processes:
        _is_watching_processes = True  # and so it is in the children of this one

        def finalize(_: object = None) -> None:
            util.Finalize(None, _tell_ending, exitpriority=1_000_000)

        util.register_after_fork(_journal, finalize)
        finalize()  # a spawned process has no "after fork"; in a forked one it is cleared before


def _tell_ending() -> None:
    failure = sys.exc_info()[1]
    if failure is not None and not isinstance(failure, (SystemExit, KeyboardInterrupt)):
        exception(failure)


if os.environ.get(_RUNNER):
    _watch_process()  # for processes that are spawned, not forked; they import this module anew


def _command(arguments: Sequence[str]) -> None:
    if not arguments:
        _print(sys.stderr, "usage: python -m k12ai.report SCRIPT [ARGUMENTS]")
        raise SystemExit(2)
    if not sys.flags.safe_path:
        sys.path[0] = os.path.dirname(os.path.realpath(arguments[0]))
    run_script(arguments[0], arguments[1:])


if __name__ == "__main__":
    # The program imports k12ai.report; this is another copy of it.
    from k12ai import report

    report._command(sys.argv[1:])

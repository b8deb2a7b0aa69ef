"""Where in the student's own program something went wrong, and which expression and values it comes from."""

import ast
import linecache
import os
from types import FrameType, TracebackType
from typing import Any

import k12ai
from k12ai.explain.model import Position
from k12ai.explain.words import MAX_WORDS

_LIBRARIES = tuple(os.path.dirname(path) + os.sep for path in (os.__file__, k12ai.__file__))
_NO_VALUE = object()


def is_own(filename: str) -> bool:
    """Return whether a file belongs to the student, not to Python, to a library or to k12ai."""
    path = os.path.abspath(filename)
    installed = {"site-packages", "dist-packages"} & set(path.split(os.sep))
    return not (filename.startswith("<") or installed or path.startswith(_LIBRARIES))


def own_trace(trace: TracebackType | None) -> TracebackType | None:
    """Return the innermost part of a traceback that is in the student's own files."""
    found = None
    while trace is not None:
        if is_own(trace.tb_frame.f_code.co_filename):
            found = trace
        trace = trace.tb_next
    return found


def position_of(error: BaseException, trace: TracebackType | None, started_in: str) -> Position | None:
    """Return the line that an exception comes from; that of a syntax error is in no traceback."""
    if isinstance(error, SyntaxError) and error.filename and error.lineno and is_own(error.filename):
        return Position(
            _relative(error.filename, started_in),
            error.lineno,
            _source(error.filename, error.lineno, error.text),
        )
    if trace is None:
        return None
    filename = trace.tb_frame.f_code.co_filename
    return Position(_relative(filename, started_in), trace.tb_lineno, _source(filename, trace.tb_lineno))


def _relative(filename: str, started_in: str) -> str:
    try:
        path = os.path.relpath(filename, started_in)
    except (OSError, ValueError):  # the directory is gone; another drive of Windows
        return filename
    return filename if path.startswith(os.pardir) else path


def _source(filename: str, line: int, otherwise: str | None = None) -> str:
    return (linecache.getline(filename, line) or otherwise or "").strip()[:MAX_WORDS]


def failed_expression(trace: TracebackType | None) -> ast.expr | None:
    """Return the expression that failed, which Python keeps the place of (PEP 657)."""
    if trace is None:
        return None
    places = list(trace.tb_frame.f_code.co_positions())
    if not 0 <= trace.tb_lasti // 2 < len(places):
        return None
    line, end_line, begin, end = places[trace.tb_lasti // 2]
    if line is None or line != end_line or begin is None or end is None:
        return None
    source = linecache.getline(trace.tb_frame.f_code.co_filename, line).encode()[begin:end]
    try:
        return ast.parse(b"(" + source + b")", mode="eval").body
    except (SyntaxError, ValueError):
        return None


def value_of(node: ast.expr | None, frame: FrameType | None) -> Any:
    """Return the value of a name, a constant or a negative one; nothing of the program is run for it."""
    match node:
        case ast.Constant(value=value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
        case ast.Name(id=name) if frame is not None:
            return frame.f_locals.get(name, frame.f_globals.get(name, _NO_VALUE))
    return _NO_VALUE

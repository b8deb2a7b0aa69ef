"""What an explanation is, and what it is made from."""

import ast
import re
from collections.abc import Callable
from types import FrameType
from typing import Any, NamedTuple

from k12ai.catalogue import CATALOGUE
from k12ai.texts import Text

UNKNOWN = 999999


class Position(NamedTuple):
    """A line of the student's own program; ``file`` is relative to the project where it is inside of it."""

    file: str
    line: int
    source: str


class Explanation(NamedTuple):
    """What went wrong, and what to do about it; ``exception`` and ``message`` are Python's own words."""

    code: int
    text: Text
    next_step: Text
    exception: str = ""
    message: str = ""
    position: Position | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as the body of an ``error`` message; what is not known is left out."""
        body: dict[str, Any] = {"code": self.code, "en": self.text.en, "zh": self.text.zh}
        body |= {"next_step_en": self.next_step.en, "next_step_zh": self.next_step.zh}
        if self.exception:
            body |= {"exception": self.exception, "message": self.message}
        return body | (self.position._asdict() if self.position is not None else {})


def told(code: int, en: str, zh: str = "", next_step: str = "", next_step_zh: str = "") -> Explanation:
    """Return what a program says of itself; the catalogue fills in what it leaves out."""
    row = CATALOGUE.get(code, CATALOGUE[UNKNOWN])
    step = row.next_step
    if next_step or next_step_zh:
        step = Text(next_step or next_step_zh, next_step_zh or next_step)
    return Explanation(code, Text(en, zh or f"{row.text.zh}：{en}"), step)


class Finding(NamedTuple):
    """A code, what happened and, where there is something better than the catalogue's, the next step."""

    code: int
    text: Text
    next_step: Text | None = None


class Case(NamedTuple):
    """An exception, and the expression of the student's program that it comes from, as far as known."""

    error: BaseException
    words: str
    frame: FrameType | None
    node: ast.expr | None


Finder = Callable[[Case], Finding]


class Rule(NamedTuple):
    """A text that a library's exceptions have, and what to say; ``{names}`` come from the pattern's groups."""

    code: int
    pattern: str
    text: Text
    next_step: Text | None = None

    def search(self, words: str) -> "re.Match[str] | None":
        """Return where the text is found; a dot stands for the end of a line as well.

        Compiled when something is to be explained: every task would wait for it at its start.
        """
        return re.search(self.pattern, words, re.DOTALL)


def make_rule(code: int, pattern: str, en: str, zh: str, step: Text | None = None) -> Rule:
    """Return a rule from its texts."""
    return Rule(code, pattern, Text(en, zh), step)

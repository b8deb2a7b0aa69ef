"""How an error's own words, values and names are shown, and what is said where nothing better is known."""

import difflib
from collections.abc import Iterable

from k12ai.explain.model import Case
from k12ai.texts import Text

MAX_WORDS = 300
MAX_MESSAGE = 2000

_MAX_NAMES = 10

READ_TRACEBACK = Text(
    "Read the last lines of the output, and the named line of the program.",
    "查看输出的最后几行，以及指出的那一行程序。",
)


def message_of(error: BaseException) -> str:
    """Return an exception's own words, "" where it cannot say them."""
    try:
        words = str(error)
    except Exception:  # noqa: BLE001 - anybody's method
        return ""
    if "Traceback (most recent call last)" in words:  # an error that came from another process
        words = words.rstrip().rpartition("\n")[2]
    return words


def shortened(words: object, limit: int = MAX_WORDS) -> str:
    """Return words in one line, cut off after ``limit`` characters."""
    text = " ".join(str(words).split())
    return text if len(text) <= limit else text[:limit] + "…"


def shown(value: object) -> str:
    """Return a value as Python writes it, and its type where it cannot be written."""
    try:
        return shortened(repr(value), 80)
    except Exception:  # noqa: BLE001 - anybody's method
        return type(value).__name__


def listed(names: Iterable[object]) -> str:
    """Return the first ten names as Python writes them."""
    all_shown = [shown(name) for name in names]
    return ", ".join(all_shown[:_MAX_NAMES]) + (", …" if len(all_shown) > _MAX_NAMES else "")


def closest(name: object, names: Iterable[object]) -> str:
    """Return the name that was probably meant, "" where none is near."""
    known = {each.lower(): each for each in names if isinstance(each, str) and not each.startswith("__")}
    found = difflib.get_close_matches(str(name).lower(), list(known), 1, 0.7)
    return known[found[0]] if found else ""


def did_you_mean(name: str) -> Text | None:
    """Return the next step towards the name that was meant, None where that is not known."""
    return Text(f"Did you mean {name}? Correct the name.", f"是不是想写 {name}？请改正名称。") if name else None


def own_words(case: Case) -> Text:
    """Return what happened as the exception says it, for where nothing better is known."""
    kind = type(case.error).__name__
    words = f": {case.words}" if case.words else ""
    return Text(f"{kind}{words}", f"程序出错（{kind}）{words.replace(': ', '：', 1)}")

"""From an exception to its explanation: by its text, or else by its type."""

from collections.abc import Mapping

from k12ai.catalogue import CATALOGUE
from k12ai.explain import files, names, syntax, values
from k12ai.explain.libraries import by_text
from k12ai.explain.model import UNKNOWN, Case, Explanation, Finder, Finding
from k12ai.explain.positions import failed_expression, own_trace, position_of
from k12ai.explain.words import MAX_MESSAGE, READ_TRACEBACK, message_of, own_words, shortened
from k12ai.texts import Text


def explain(exception: BaseException, started_in: str = ".") -> Explanation:
    """Explain an exception. Code 999999, with the exception's own words, where it is none we know.

    Files are named as they are seen from the directory that the program was started in.
    """
    inner = getattr(exception, "exceptions", None)
    if isinstance(exception, BaseExceptionGroup) and inner:
        return explain(inner[0], started_in)
    trace = own_trace(exception.__traceback__)
    message = message_of(exception)
    case = Case(exception, shortened(message), trace.tb_frame if trace else None, failed_expression(trace))
    found = by_text(exception, message) or _by_type(case)
    return Explanation(
        found.code,
        found.text,
        found.next_step or CATALOGUE[found.code].next_step,
        type(exception).__name__,
        message[:MAX_MESSAGE],
        position_of(exception, trace, started_in),
    )


def _interrupted(_case: Case) -> Finding:
    return Finding(100004, Text("The program was interrupted.", "程序被中断。"))


def _unknown(case: Case) -> Finding:
    return Finding(UNKNOWN, own_words(case), READ_TRACEBACK)


_BY_TYPE: Mapping[type, Finder] = {
    **names.BY_TYPE,
    **syntax.BY_TYPE,
    **values.BY_TYPE,
    **files.BY_TYPE,
    KeyboardInterrupt: _interrupted,
    BaseException: _unknown,
}


def _by_type(case: Case) -> Finding:
    return next(_BY_TYPE[kind] for kind in type(case.error).__mro__ if kind in _BY_TYPE)(case)

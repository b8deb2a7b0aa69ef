"""What can be wrong with a student's data, in words for the student."""

from typing import NoReturn

from k12ai.texts import Text

BAD_PARAMETER = 100203
VALUE, NO_FILE, ENCODING = 100918, 100919, 100923


class DataProblem(Exception):
    """Something is wrong with the data or the choice of it, and the student can put it right.

    ``code`` is one of the catalogue's; ``next_step`` is None where the catalogue's own is good enough.
    """

    def __init__(
        self, en: str, zh: str, *, step: tuple[str, str] | None = None, code: int = BAD_PARAMETER
    ) -> None:
        super().__init__(en)
        self.code = code
        self.text = Text(en, zh)
        self.next_step = Text(*step) if step else None


def refuse(en: str, zh: str, *, step: tuple[str, str] | None = None, code: int = BAD_PARAMETER) -> NoReturn:
    """Raise a `DataProblem`."""
    raise DataProblem(en, zh, step=step, code=code)


class Notes(list[Text]):
    """What the student should know of, though it stopped nothing."""

    def add(self, en: str, zh: str) -> None:
        """Add one, once."""
        if (text := Text(en, zh)) not in self:
            self.append(text)

    def plain(self) -> list[dict[str, str]]:
        """Return them as JSON values."""
        return [text._asdict() for text in self]


def shortened(names: list[str], most: int = 20) -> str:
    """Return names in one line, cut where they are too many."""
    more = f", … ({len(names)})" if len(names) > most else ""
    return ", ".join(repr(name[:60]) for name in names[:most]) + more

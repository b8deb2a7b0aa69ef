"""What people read, in the two languages the platform speaks."""

from typing import Literal, NamedTuple

Language = Literal["en", "zh"]


class Text(NamedTuple):
    """One statement in English and in Chinese."""

    en: str
    zh: str

    def pick(self, language: Language) -> str:
        """Return the statement in ``language``."""
        return self.zh if language == "zh" else self.en

    def format(self, **values: object) -> "Text":
        """Fill the same values into both languages."""
        return Text(self.en.format(**values), self.zh.format(**values))


def printable(text: str, keeping: str = "") -> str:
    """Return the text without what a terminal would obey: much of what is shown are strangers' words.

    ``keeping`` are control characters that stay, such as the ends of lines.
    """
    return "".join(
        character if character in keeping or character.isprintable() else "\N{REPLACEMENT CHARACTER}"
        for character in text
    )


def preferred_language(accept_language: str | None) -> Language:
    """Choose the language of an ``Accept-Language`` header; English where it asks for neither.

    Quality values count (RFC 9110, section 12.5.4): ``en;q=0.5, zh-CN`` is Chinese.
    """
    best: Language = "en"
    best_quality = 0.0
    for part in (accept_language or "").split(","):
        tag, *parameters = (piece.strip() for piece in part.lower().split(";"))
        primary = tag.split("-")[0]
        if primary not in ("en", "zh"):
            continue
        quality = _quality(parameters)
        if quality > best_quality:
            best, best_quality = ("zh" if primary == "zh" else "en"), quality
    return best


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return min(max(float(value), 0.0), 1.0)
            except ValueError:
                return 0.0
    return 1.0

"""The language of the terminal, and text from strangers made safe to show in it."""

import os

from k12ai.texts import Language


def language() -> Language:
    """Return the language of the terminal's locale."""
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        if value := os.environ.get(name):
            return "zh" if value.lower().startswith("zh") else "en"
    return "en"


def printable(text: str) -> str:
    """Return the text without what a terminal would obey: labels are anybody's words."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)

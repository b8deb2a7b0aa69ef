"""Why a figure is not what it should be."""

from typing import NamedTuple

from k12ai.models import Part
from k12ai.texts import Text


class Note(NamedTuple):
    """A statement that comes with the parts it is about."""

    part: Part
    text: Text

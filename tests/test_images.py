"""How images are named."""

import re

import pytest

from k12ai._version import __version__
from k12ai.frameworks.cv.framework import CvFramework
from k12ai.frameworks.ml.framework import MlFramework
from k12ai.frameworks.nlp.framework import NlpFramework
from k12ai.frameworks.py.framework import PyFramework
from k12ai.image_context import dockerfile
from k12ai.images import DEFAULT_BASE, image_of


class Elsewhere(PyFramework):
    """A framework of another package."""


def test_an_image_is_tagged_with_the_version_of_k12ai() -> None:
    assert image_of(PyFramework()) == f"k12ai/py:{__version__}"
    assert image_of(MlFramework()) == f"k12ai/ml:{__version__}"
    assert image_of(CvFramework()) == f"k12ai/cv:{__version__}"
    assert image_of(NlpFramework()) == f"k12ai/nlp:{__version__}"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("school/lab:3", "school/lab:3"),
        ("school/lab@sha256:" + "0" * 64, "school/lab@sha256:" + "0" * 64),
        ("registry.example:5000/lab", f"registry.example:5000/lab:{__version__}"),
    ],
)
def test_a_name_that_has_a_tag_is_used_as_it_is(
    monkeypatch: pytest.MonkeyPatch, name: str, expected: str
) -> None:
    monkeypatch.setattr(Elsewhere, "image", name)
    assert image_of(Elsewhere()) == expected


def test_the_dockerfile_and_the_command_have_the_same_default_base() -> None:
    assert re.search(r"^ARG BASE=(.+)$", dockerfile().read_text(), re.MULTILINE)[1] == DEFAULT_BASE  # type: ignore[index]

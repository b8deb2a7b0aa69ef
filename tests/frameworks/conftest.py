"""Fixtures of the frameworks."""

from pathlib import Path

import pytest


@pytest.fixture(name="project")
def _project(tmp_path: Path) -> Path:
    """The directory of a project, with nothing in it."""
    (tmp_path / "project").mkdir()
    return tmp_path / "project"

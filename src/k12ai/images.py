"""How the container images are named that tasks run in, and what they say of themselves."""

from k12ai._version import __version__
from k12ai.frameworks.base import Framework

DEFAULT_BASE = "python:3.13-slim"
"""What images are built on where nobody names another one."""

LABEL_FRAMEWORK = "k12ai.framework"
LABEL_VERSION = "org.opencontainers.image.version"
LABEL_CONTENT = "k12ai.content"
"""The digest of what the image was built from: the version alone does not tell whether it is up to date."""


def image_of(framework: Framework) -> str:
    """Return the image of a framework's tasks: tagged with the version of k12ai, unless its name has a tag."""
    name = framework.image
    has_tag = ":" in name.rpartition("/")[2] or "@" in name
    return name if has_tag else f"{name}:{__version__}"

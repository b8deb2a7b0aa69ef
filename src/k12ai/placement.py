"""Which runtime a new task starts in: the operator's choice, or the Engine where it has the image."""

import time
from typing import Literal

from k12ai.errors import FrameworkNotInstalled, ImageMissing, Unavailable
from k12ai.frameworks.base import Framework
from k12ai.images import image_of
from k12ai.runtimes.docker_tasks import DockerTasks

PROCESS, DOCKER = "process", "docker"
# How long an image that was there is taken to be there: a class submits all at once.
TRUSTED_S = 10.0


class Placement:
    """Chooses, and refuses what could not run where it would have to."""

    def __init__(self, setting: Literal["auto", "process", "docker"], docker: DockerTasks) -> None:
        self._setting = setting
        self._docker = docker
        self._found_at: dict[str, float] = {}

    async def runtime_for(self, framework: Framework) -> str:
        """Return the name of the runtime. Raises `FrameworkNotInstalled` and `ImageMissing`.

        Where the operator leaves it open, tasks are containers if the Engine answers and has the
        framework's image, else processes; every task says which it is.
        """
        image = image_of(framework)
        if self._setting == DOCKER:
            if not await self._has(image, otherwise=True):
                raise ImageMissing(framework.name, image)
            return DOCKER
        if self._setting == "auto" and self._docker.condition.available and await self._has(image):
            return DOCKER
        if framework.missing:
            raise FrameworkNotInstalled(framework.name, framework.extra, framework.missing)
        return PROCESS

    async def _has(self, image: str, *, otherwise: bool = False) -> bool:
        """Whether the Engine has an image; ``otherwise`` where it cannot be asked."""
        if time.monotonic() - self._found_at.get(image, float("-inf")) > TRUSTED_S:
            try:
                if not await self._docker.engine.has_image(image):
                    return False
            except Unavailable:
                return otherwise
            self._found_at[image] = time.monotonic()
        return True

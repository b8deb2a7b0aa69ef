"""Images of a Docker Engine: which ones there are, and building one. It serves people at a terminal.

`k12ai.runtimes.engine` is the server's way to the Engine. This one has no deadlines once the Engine has
answered, because a download may take long, and needs nothing of the server's but aiodocker.
"""

import contextlib
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import IO, Any, Self

import aiodocker
import aiohttp
import msgspec
from msgspec import Struct

from k12ai.docker_connection import NOT_REACHED, DockerConnection, no_permission
from k12ai.errors import EngineUnavailable
from k12ai.texts import Text

KNOCK_DEADLINE_S = 5.0


class ImageFailed(Exception):
    """The Engine could not build or pull an image; the message is the Engine's."""


class BaseMissing(ImageFailed):
    """The image to build on is neither there nor to be had."""


class Image(Struct, frozen=True):
    """An image that the Engine has."""

    id: str
    size_bytes: int
    created_at: datetime
    labels: Mapping[str, str]


class ImageEngine:
    """One Docker Engine. Whatever it is asked raises `EngineUnavailable` where it does not answer."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def __aenter__(self) -> Self:
        self._connection = DockerConnection(self._address)
        self._docker = self._connection.docker
        try:
            async with self._translated():
                timeout = aiohttp.ClientTimeout(total=KNOCK_DEADLINE_S)
                async with self._docker._query("_ping", versioned_api=False, timeout=timeout):
                    pass
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_raised: object) -> None:
        await self._connection.close()

    async def find(self, name: str) -> Image | None:
        """Return an image by its name or id; None where the Engine does not have it."""
        async with self._translated():
            try:
                shown = await self._docker.images.inspect(name)
            except aiodocker.DockerError as error:
                if error.status != 404:
                    raise
                return None
        return Image(
            shown["Id"],
            shown["Size"],
            datetime.fromisoformat(shown["Created"]),
            (shown.get("Config") or {}).get("Labels") or {},
        )

    async def pull(self, name: str) -> AsyncIterator[str]:
        """Download an image, and yield what the Engine says. Raises `BaseMissing`."""
        try:
            async with self._translated():
                async for message in self._docker.images.pull(name, stream=True):
                    if line := _said(message):
                        yield line
        except ImageFailed as error:
            raise BaseMissing(str(error)) from None

    async def build(
        self, name: str, archive: IO[bytes], arguments: Mapping[str, str], labels: Mapping[str, str]
    ) -> AsyncIterator[str]:
        """Build an image from the archive of a `k12ai.image_context`, and yield what the Engine says.

        Raises `ImageFailed`.
        """
        async with self._translated():
            messages = self._docker.images.build(
                fileobj=archive,
                encoding="identity",
                tag=name,
                buildargs=arguments,
                labels=labels,
                forcerm=True,
                stream=True,
            )
            async for message in messages:
                if line := _said(message):
                    yield line

    async def forget_unnamed(self, label: str) -> None:
        """Remove the images that carry a label and that neither a name nor a container keeps."""
        filters = msgspec.json.encode({"dangling": ["true"], "label": [label]}).decode()
        async with self._translated(), self._docker._query("images/prune", "POST", params={"filters": filters}):
            pass

    @contextlib.asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        """Raise `ImageFailed` for what the Engine answers, `EngineUnavailable` where it does not."""
        try:
            yield
        except aiodocker.DockerError as error:
            if error.status >= NOT_REACHED:
                raise EngineUnavailable(_unreachable(self._address, error.message)) from None
            raise ImageFailed(error.message) from None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise EngineUnavailable(_unreachable(self._address, str(error))) from None


def _said(message: Mapping[str, Any]) -> str:
    """Return the line in a message of the Engine's; empty where it has none. Raises `ImageFailed`."""
    if "error" in message:  # aiodocker raises it by itself from version 0.27 on
        raise ImageFailed(str(message["error"]))
    if "stream" in message:
        return str(message["stream"]).rstrip()
    if "status" not in message or message.get("progressDetail"):  # a bar that moves: the first and last line do
        return ""
    part = f"{message['id']}: " if message.get("id") else ""
    return f"{part}{message['status']}"


def _unreachable(address: str, reason: str) -> Text:
    if "Permission denied" in reason:
        return no_permission(address)
    detail = f": {reason}" if reason else ""
    return Text(f"no Docker Engine answers at {address}{detail}", f"{address} 没有 Docker Engine 应答{detail}")

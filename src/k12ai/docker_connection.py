"""How an Engine's address is opened with aiodocker, and what it makes of one that does not answer."""

import aiodocker
import aiohttp

from k12ai.texts import Text

# The lowest status that aiodocker makes up, for where no Engine has answered.
NOT_REACHED = 900


class DockerConnection:
    """An Engine's address, open; connections are made when something is asked."""

    def __init__(self, address: str, *, limit: int = 100) -> None:
        """``limit`` is how many connections there can be at once to a socket; 0: any number."""
        self._connector = None
        if address.startswith("unix://"):
            self._connector = aiohttp.UnixConnector(address.removeprefix("unix://"), limit=limit)
        # With a connector of ours, the address is only what requests are named after.
        url = "unix://localhost" if self._connector else address
        self.docker = aiodocker.Docker(url=url, connector=self._connector)

    async def close(self) -> None:
        """Close the connections."""
        await self.docker.close()
        if self._connector is not None:
            await self._connector.close()


def no_permission(address: str) -> Text:
    """Return what to say where the socket may not be opened."""
    return Text(
        f"no permission to open {address} (is this account in the group 'docker'?)",
        f"没有权限打开 {address}（当前账户是否在 docker 组中？）",
    )

"""What a caller of the client can meet.

::

    ClientError
    ├── RequestRefused       the server answered, and said no
    └── ServerUnreachable    no answer came
"""

from k12ai.catalogue import CATALOGUE
from k12ai.texts import Language


class ClientError(Exception):
    """The root of the client's errors."""


class RequestRefused(ClientError):
    """The server said no; ``code`` is in the catalogue, ``message`` says what exactly was wrong."""

    def __init__(self, code: int, descr: str, message: str) -> None:
        super().__init__(f"{descr}: {message} ({code})")
        self.code = code
        self.descr = descr
        self.message = message

    def next_step(self, language: Language = "en") -> str:
        """Return what to do about it, where the catalogue knows."""
        row = CATALOGUE.get(self.code)
        return row.next_step.pick(language) if row else ""


class ServerUnreachable(ClientError):
    """The server cannot be reached, or broke the connection."""

    def __init__(self, server_url: str, reason: str) -> None:
        super().__init__(
            f"no K12AI server answers at {server_url} ({reason}). Start one with 'k12ai serve', "
            f"or set K12AI_SERVER_URL. / {server_url} 没有 K12AI 服务器应答，"
            "请用 k12ai serve 启动，或设置 K12AI_SERVER_URL。"
        )
        self.server_url = server_url

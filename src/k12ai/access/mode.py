"""Whether everybody may come in: said once at the start, so that nobody has to guess."""

import structlog

from k12ai.access.book import AccessBook
from k12ai.settings import Settings, SettingsError
from k12ai.texts import Text

log = structlog.stdlib.get_logger(__name__)


def say_access(settings: Settings, book: AccessBook) -> None:
    """Log how the server is guarded. Raises `SettingsError` where nobody could come in."""
    if book.has_tokens:
        log.info("access.tokens", message="requests need a token")
    elif settings.is_reachable:
        raise SettingsError(
            Text(
                "no token was made yet, and without one nobody could use a server that others can reach. Make "
                "yours first: k12ai token create YOUR_NAME --role admin --data-dir " + settings.data_dir,
                "尚未创建任何令牌；可从其他机器访问的服务器没有令牌就无法使用。请先创建管理员令牌："
                "k12ai token create 你的名字 --role admin --data-dir " + settings.data_dir,
            )
        )
    else:
        log.warning(
            "access.open",
            message="everybody on this machine may do everything, also stop others' tasks; "
            "'k12ai token create YOUR_NAME --role admin' ends that",
        )

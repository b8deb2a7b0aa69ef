"""How a command ends when it could not do its work."""

from k12ai.texts import Text

EXIT_REFUSED = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3


class CommandFailed(Exception):
    """A command cannot go on: its exit code, and the lines that say why and what to do."""

    def __init__(self, exit_code: int, *lines: Text) -> None:
        super().__init__(*(line.en for line in lines))
        self.exit_code = exit_code
        self.lines = lines


def server_missing(error: ModuleNotFoundError) -> CommandFailed:
    """Return the end of a command that needs the server's libraries, where only the client is installed."""
    return CommandFailed(
        EXIT_USAGE,
        Text(
            f"the server is not installed ({error.name} is missing): pip install 'k12ai[server]'",
            f"未安装服务器（缺少 {error.name}）：pip install 'k12ai[server]'",
        ),
    )

"""Structured logs on standard error; standard output belongs to what a command was asked to print."""

import logging
import sys

import structlog
from structlog.typing import EventDict, Processor

from k12ai.settings import Settings
from k12ai.texts import printable


def _without_controls(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Show values without what a terminal would obey: paths and names are strangers' words."""
    return {
        name: printable(value, "\n\t") if isinstance(value, str) else value for name, value in event.items()
    }


def configure_logs(settings: Settings) -> None:
    """Send this process's log lines, and those of its libraries, through structlog to standard error."""
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer()
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            # Without the values of variables, which may be secrets, and cost a tenth of a second.
            exception_formatter=structlog.dev.plain_traceback,
        )
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.processors.StackInfoRenderer(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    last: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if settings.log_format == "json":
        last.append(structlog.processors.format_exc_info)
    else:
        last.append(_without_controls)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[*last, renderer])
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level.upper())
    # The libraries' own chatter is of use only where somebody asks for everything.
    for name in ("uvicorn", "uvicorn.error", "alembic", "asyncio"):
        logging.getLogger(name).setLevel("DEBUG" if settings.log_level == "debug" else "WARNING")

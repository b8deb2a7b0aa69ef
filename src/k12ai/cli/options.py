"""Options that several commands share."""

from typing import Annotated

import typer

DataDir = Annotated[
    str | None,
    typer.Option("--data-dir", metavar="DIR", help="A server that does not run: its directory, in its stead."),
]
Server = Annotated[
    str | None,
    typer.Option("--server", metavar="URL", help="The server; K12AI_SERVER_URL where it is not given."),
]

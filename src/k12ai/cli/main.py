"""``k12ai``: serve, stats, stop.

Exit codes: 0 done, 1 the server said no (its words on standard error), 2 wrong usage, 3 the server
cannot be reached.
"""

import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from k12ai._version import __version__
from k12ai.cli.words import language
from k12ai.client import Client, RequestRefused, ServerUnreachable
from k12ai.settings import Settings, SettingsError, described
from k12ai.texts import Text

EXIT_REFUSED = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3

app = typer.Typer(
    name="k12ai",
    help="See what a shared machine is doing, and act on it. / 查看共享机器的状态并进行操作。",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_HELP = {name: text for name, _default, text in described()}

Server = Annotated[
    str | None,
    typer.Option("--server", metavar="URL", help="The server; K12AI_SERVER_URL where it is not given."),
]


def run() -> None:
    """Run the command line and leave with its exit code."""
    try:
        app()
    except RequestRefused as error:
        _leave(EXIT_REFUSED, f"{error.descr}: {error.message}", error.next_step(language()))
    except ServerUnreachable as error:
        _leave(EXIT_UNREACHABLE, str(error))
    except SettingsError as error:
        _leave(EXIT_USAGE, error.detail.pick(language()))


def _leave(code: int, *lines: str) -> NoReturn:
    for line in filter(None, lines):
        sys.stderr.write(line + "\n")
    sys.exit(code)


def _show_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"k12ai {__version__}\n")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """See what a shared machine is doing, and act on it."""


def _option(name: str, **more: Any) -> Any:
    return typer.Option(f"--{name.replace('_', '-')}", help=_HELP[name], show_default=False, **more)


@app.command()
def serve(
    host: Annotated[str | None, _option("host")] = None,
    port: Annotated[int | None, _option("port")] = None,
    kv_port: Annotated[int | None, _option("kv_port")] = None,
    data_dir: Annotated[str | None, _option("data_dir")] = None,
    runtime: Annotated[str | None, _option("runtime", metavar="auto|process|docker")] = None,
    docker_host: Annotated[str | None, _option("docker_host")] = None,
    sample_interval_s: Annotated[float | None, _option("sample_interval_s")] = None,
    engine_relist_s: Annotated[float | None, _option("engine_relist_s")] = None,
    result_retention_s: Annotated[int | None, _option("result_retention_s")] = None,
    allowed_hosts: Annotated[list[str] | None, _option("allowed_hosts")] = None,
    allowed_origins: Annotated[list[str] | None, _option("allowed_origins")] = None,
    max_body_bytes: Annotated[int | None, _option("max_body_bytes")] = None,
    log_level: Annotated[str | None, _option("log_level")] = None,
    log_format: Annotated[str | None, _option("log_format")] = None,
    config: Annotated[
        Path | None, typer.Option(help="The settings file; ./k12ai.toml where it is not given.")
    ] = None,
) -> None:
    """Start the server; it runs until SIGTERM or Ctrl-C."""
    options = {name: value for name, value in locals().items() if name != "config" and value not in (None, [])}
    settings = Settings.load(options, file=config)
    try:
        from k12ai import server
    except ModuleNotFoundError as error:
        _leave(
            EXIT_USAGE,
            Text(
                f"the server is not installed ({error.name} is missing): pip install 'k12ai[server]'",
                f"未安装服务器（缺少 {error.name}）：pip install 'k12ai[server]'",
            ).pick(language()),
        )
    server.serve(settings)


@app.command()
def stats(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Keep showing, once a second.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; with --watch, a line each second.")
    ] = False,
    server: Server = None,
) -> None:
    """Show what the machine is doing."""
    from k12ai.cli import stats as view

    with Client(server, language=language()) as client:
        view.show(client, watch=watch, as_json=as_json)


@app.command()
def stop(
    container_id: Annotated[str, typer.Argument(metavar="ID", help="The id, or a unique beginning of it.")],
    grace: Annotated[int, typer.Option(min=0, max=600, help="Seconds it gets to end by itself.")] = 10,
    server: Server = None,
) -> None:
    """Stop a container, and return when it is gone."""
    with Client(server, language=language()) as client:
        sys.stdout.write(client.stop(container_id, grace_s=grace) + "\n")


if __name__ == "__main__":
    run()

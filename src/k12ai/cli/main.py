"""``k12ai``: serve, stats, submit, ps, logs, stop, frameworks, images, token, class, audit.

Exit codes: 0 done, 1 the server said no (its words on standard error), 2 wrong usage, 3 the server
cannot be reached; for ``k12ai images`` the Docker Engine is the server.
"""

import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from k12ai._version import __version__
from k12ai.cli import access
from k12ai.cli.exits import EXIT_REFUSED, EXIT_UNREACHABLE, EXIT_USAGE, CommandFailed, server_missing
from k12ai.cli.options import Server
from k12ai.cli.words import language
from k12ai.client import Client, RequestRefused, ServerUnreachable
from k12ai.images import DEFAULT_BASE
from k12ai.settings import Settings, SettingsError, described
from k12ai.task import Limits
from k12ai.texts import printable

app = typer.Typer(
    name="k12ai",
    help="See what a shared machine is doing, and act on it. / 查看共享机器的状态并进行操作。",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
images = typer.Typer(help="See and build the container images that tasks run in.", no_args_is_help=True)
app.add_typer(images, name="images")
access.add_to(app)
_HELP = {name: text for name, _default, text in described()}


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
    except CommandFailed as error:
        _leave(error.exit_code, *(line.pick(language()) for line in error.lines))


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
    tls_certificate: Annotated[str | None, _option("tls_certificate")] = None,
    tls_key: Annotated[str | None, _option("tls_key")] = None,
    behind_proxy: Annotated[bool | None, _option("behind_proxy")] = None,
    trusted_proxies: Annotated[list[str] | None, _option("trusted_proxies")] = None,
    token_lifetime_s: Annotated[int | None, _option("token_lifetime_s")] = None,
    kv_token_in_query: Annotated[bool | None, _option("kv_token_in_query")] = None,
    hide_others: Annotated[bool | None, _option("hide_others")] = None,
    token_requests_per_s: Annotated[float | None, _option("token_requests_per_s")] = None,
    address_requests_per_s: Annotated[float | None, _option("address_requests_per_s")] = None,
    max_connections_per_address: Annotated[int | None, _option("max_connections_per_address")] = None,
    audit_retention_s: Annotated[int | None, _option("audit_retention_s")] = None,
    max_body_bytes: Annotated[int | None, _option("max_body_bytes")] = None,
    max_tasks: Annotated[int | None, _option("max_tasks")] = None,
    max_tasks_per_user: Annotated[int | None, _option("max_tasks_per_user")] = None,
    max_waiting_tasks_per_user: Annotated[int | None, _option("max_waiting_tasks_per_user")] = None,
    max_user_bytes: Annotated[int | None, _option("max_user_bytes")] = None,
    tasks_cpus: Annotated[float | None, _option("tasks_cpus")] = None,
    tasks_memory_bytes: Annotated[int | None, _option("tasks_memory_bytes")] = None,
    task_wall_time_s: Annotated[int | None, _option("task_wall_time_s")] = None,
    task_memory_bytes: Annotated[int | None, _option("task_memory_bytes")] = None,
    task_processes: Annotated[int | None, _option("task_processes")] = None,
    task_retention_s: Annotated[int | None, _option("task_retention_s")] = None,
    max_file_bytes: Annotated[int | None, _option("max_file_bytes")] = None,
    max_project_bytes: Annotated[int | None, _option("max_project_bytes")] = None,
    max_project_files: Annotated[int | None, _option("max_project_files")] = None,
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
        raise server_missing(error) from None
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


@app.command()
def submit(
    framework: Annotated[str, typer.Argument(help="What to run; see 'k12ai frameworks'.")],
    op: Annotated[str, typer.Argument(help="train, evaluate, predict or runcode.")],
    project: Annotated[str, typer.Option("--project", "-p", help="The project it works on.")] = "default",
    user: Annotated[str | None, typer.Option(help="Whose project; your own where it is not given.")] = None,
    param: Annotated[
        list[str] | None,
        typer.Option("--param", "-P", metavar="NAME=VALUE", help="A parameter; model.name=knn reaches inside."),
    ] = None,
    params: Annotated[Path | None, typer.Option(help="A file with the parameters as JSON.")] = None,
    cpus: Annotated[float | None, typer.Option(help="Processors that it may use.")] = None,
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Memory that it may use, such as 512M or 4G.")
    ] = None,
    gpus: Annotated[int | None, typer.Option(help="GPUs of its own; with --gpu-memory, shared ones.")] = None,
    gpu_memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Memory of a GPU that it shares with others.")
    ] = None,
    wall_time_s: Annotated[int | None, typer.Option(help="Seconds that it may run.")] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Print the id and do not wait.")] = False,
    server: Server = None,
) -> None:
    """Start a task, show how far it is, and print its result."""
    from k12ai.cli import tasks as view

    try:
        given = view.params_of(params, param or [])
        limits = Limits(wall_time_s, view.size_of(memory), None, cpus, gpus, view.size_of(gpu_memory))
    except view.BadParam as error:
        _leave(EXIT_USAGE, str(error))
    full_op = op if op.endswith(".start") else f"{op}.start"
    with Client(server, language=language()) as client:
        handle = client.submit(framework, full_op, project, given, user=user, limits=limits)
        if detach:
            sys.stdout.write(handle.task_id + "\n")
            return
        sys.exit(view.follow(handle))


@app.command()
def ps(
    everything: Annotated[bool, typer.Option("--all", "-a", help="Also those that have ended.")] = False,
    user: Annotated[str | None, typer.Option("--user", "-u", help="Only this user's.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    server: Server = None,
) -> None:
    """List the tasks that run or wait."""
    from k12ai.cli import tasks as view

    with Client(server, language=language()) as client:
        view.show_tasks(client, everything=everything, user=user, as_json=as_json)


@app.command()
def logs(
    task_id: Annotated[str, typer.Argument(metavar="ID", help="The task's 12 digits.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the task has ended.")] = False,
    server: Server = None,
) -> None:
    """Print what a task has printed; on a terminal, without what the terminal would obey."""
    is_terminal = sys.stdout.isatty()
    with Client(server, language=language()) as client:
        for piece in client.logs(task_id, follow=follow):
            # A carriage return stays: progress bars draw over themselves with it.
            sys.stdout.write(printable(piece, "\n\r\t") if is_terminal else piece)
            sys.stdout.flush()


@app.command()
def frameworks(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    server: Server = None,
) -> None:
    """List what tasks can run."""
    from k12ai.cli import tasks as view

    with Client(server, language=language()) as client:
        view.show_frameworks(client, as_json=as_json)


@images.command("list")
def images_list(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    docker_host: Annotated[str | None, _option("docker_host")] = None,
) -> None:
    """List the image of every framework, and whether it is there."""
    from k12ai.cli import images as view

    view.show(_docker_host(docker_host), as_json=as_json)


@images.command("build")
def images_build(
    frameworks: Annotated[
        list[str] | None, typer.Argument(metavar="FRAMEWORK", help="All of them where none is named.")
    ] = None,
    base: Annotated[
        str,
        typer.Option(metavar="IMAGE", help="What to build on: it has Python 3.11 or newer, with venv."),
    ] = DEFAULT_BASE,
    docker_host: Annotated[str | None, _option("docker_host")] = None,
) -> None:
    """Build the images that tasks run in, from the package as it is installed here."""
    from k12ai.cli import images as view

    view.build(frameworks or [], base, _docker_host(docker_host))


def _docker_host(given: str | None) -> str:
    return Settings.load({"docker_host": given}).docker_host


if __name__ == "__main__":
    run()

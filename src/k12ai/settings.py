"""One frozen `Settings`, built once and passed in.

A setting comes from the command line, else from the environment (``K12AI_<NAME>``), else from the
file ``k12ai.toml``, else from its default. ``docs/settings.md`` is printed from this class
(``python -m k12ai.settings``), and a test keeps it so.
"""

import ipaddress
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
from msgspec import Meta, Struct

from k12ai.task import MAX_WALL_TIME_S
from k12ai.texts import Text

DEFAULT_PORT = 8119
DEFAULT_DOCKER_HOST = "unix:///var/run/docker.sock"


class SettingsError(Exception):
    """A setting has a value that cannot be used; the message says which and what would do."""

    def __init__(self, detail: Text) -> None:
        super().__init__(detail.en)
        self.detail = detail


def _default_data_dir() -> str:
    base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return str(Path(base).expanduser() / "k12ai")


def _default_docker_host() -> str:
    return os.environ.get("DOCKER_HOST") or DEFAULT_DOCKER_HOST


Port = Annotated[int, Meta(ge=0, le=65535)]


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything an operator can choose."""

    host: Annotated[str, Meta(description="Address to listen on; only loopback addresses for now.")] = (
        "127.0.0.1"
    )
    port: Annotated[Port, Meta(description="Port to listen on; 0 picks a free one.")] = DEFAULT_PORT
    kv_port: Annotated[
        Port | None,
        Meta(description="A second port that serves only the key-value store, as Consul does on 8500."),
    ] = None
    data_dir: Annotated[
        str, Meta(description="Directory of the store; on a local disk, used by one server at a time.")
    ] = msgspec.field(default_factory=_default_data_dir)
    runtime: Annotated[
        Literal["auto", "process", "docker"],
        Meta(
            description="Where new tasks start. The monitor and control see every runtime that answers, always."
        ),
    ] = "auto"
    docker_host: Annotated[
        str, Meta(description="The Docker Engine's address; DOCKER_HOST is used where this is not set.")
    ] = msgspec.field(default_factory=_default_docker_host)
    sample_interval_s: Annotated[
        Annotated[float, Meta(ge=0.1, le=60)],
        Meta(description="Seconds between two measurements of the machine."),
    ] = 1.0
    engine_relist_s: Annotated[
        Annotated[float, Meta(ge=1)],
        Meta(description="Seconds between two full lists from the Engine, the safety net below its events."),
    ] = 60.0
    result_retention_s: Annotated[
        Annotated[int, Meta(ge=1, le=10 * 365 * 24 * 3600)],
        Meta(description="Seconds that published results are kept."),
    ] = 5 * 24 * 3600
    allowed_hosts: Annotated[
        tuple[str, ...],
        Meta(description="Host names, besides loopback ones, that requests may name in their Host header."),
    ] = ()
    allowed_origins: Annotated[
        tuple[str, ...],
        Meta(description="Origins of web pages, such as http://localhost:8888, that may send requests."),
    ] = ()
    max_tasks: Annotated[
        Annotated[int, Meta(ge=1)],
        Meta(description="Tasks that run at once; the others wait their turn. By default one a processor."),
    ] = msgspec.field(default_factory=lambda: os.cpu_count() or 1)
    max_tasks_per_user: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="Tasks of one user that run at once; none: as many as there are places."),
    ] = None
    tasks_cpus: Annotated[
        Annotated[float, Meta(gt=0)],
        Meta(description="Processors that tasks which ask for some share among them. By default all."),
    ] = msgspec.field(default_factory=lambda: float(os.cpu_count() or 1))
    tasks_memory_bytes: Annotated[
        Annotated[int, Meta(ge=64 << 20)] | None,
        Meta(description="Memory that tasks share among them; none: all that the machine has."),
    ] = None
    task_wall_time_s: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_WALL_TIME_S)],
        Meta(description="Seconds that a task may run where it does not ask for less or more."),
    ] = 4 * 3600
    task_memory_bytes: Annotated[
        Annotated[int, Meta(ge=64 << 20)] | None,
        Meta(description="Memory that a task may use where it does not ask for an amount; none: no limit."),
    ] = None
    task_processes: Annotated[
        Annotated[int, Meta(ge=8)],
        Meta(description="Processes and threads that a task may have at once, where that can be limited."),
    ] = 1024
    task_retention_s: Annotated[
        Annotated[int, Meta(ge=1, le=10 * 365 * 24 * 3600)],
        Meta(description="Seconds that the record and the output of a task are kept after its end."),
    ] = 30 * 24 * 3600
    max_file_bytes: Annotated[Annotated[int, Meta(ge=1024)], Meta(description="Largest file of a project.")] = (
        2 * 1024**3
    )
    max_project_bytes: Annotated[
        Annotated[int, Meta(ge=1024)], Meta(description="Most that the files of one project may take together.")
    ] = 10 * 1024**3
    max_project_files: Annotated[
        Annotated[int, Meta(ge=1, le=1_000_000)],
        Meta(description="Most files and directories that may be put into one project."),
    ] = 10_000
    max_body_bytes: Annotated[
        Annotated[int, Meta(ge=1024)],
        Meta(description="Largest request body outside of the key-value store."),
    ] = 1024 * 1024
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(description="The least important log line to print."),
    ] = "info"
    log_format: Annotated[
        Literal["console", "json"], Meta(description="Log lines for people, or for programs.")
    ] = "console"

    @classmethod
    def load(
        cls,
        options: Mapping[str, object] | None = None,
        environ: Mapping[str, str] | None = None,
        file: Path | None = None,
    ) -> "Settings":
        """Combine command line, environment and file; raise `SettingsError` at the first bad value.

        Options that are None count as not given. Without ``file``, ``K12AI_CONFIG`` names it, else
        ``./k12ai.toml`` is read where it exists.
        """
        environ = os.environ if environ is None else environ
        values: dict[str, object] = {}
        values.update(_from_file(file, environ))
        values.update(_from_environ(environ))
        values.update({name: value for name, value in (options or {}).items() if value is not None})
        settings = _convert(values)
        refuse_open_bind(settings.host)
        _check_addresses(settings)
        return settings


def refuse_open_bind(host: str) -> None:
    """Raise `SettingsError` for an address that machines other than this one can reach.

    There is no access control yet, so an open port would hand the machine to the whole network.
    """
    if host == "localhost":
        return
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise SettingsError(
            Text(
                f"host: refusing to listen on {host!r}: anyone who reaches that address could stop every "
                "container. Use 127.0.0.1, and an SSH tunnel from other machines: "
                "ssh -L 8119:127.0.0.1:8119 THIS_MACHINE",
                f"host：拒绝在 {host!r} 上监听：任何能访问该地址的人都可以停止所有容器。"
                "请使用 127.0.0.1；从其他机器访问时请用 SSH 隧道：ssh -L 8119:127.0.0.1:8119 本机地址",
            )
        )


def _check_addresses(settings: Settings) -> None:
    if not settings.docker_host.startswith(("unix:///", "tcp://", "http://", "https://")):
        raise SettingsError(
            Text(
                f"docker_host: {settings.docker_host!r} cannot be used; it must begin with unix:///, tcp://, "
                "http:// or https://",
                f"docker_host：不能使用 {settings.docker_host!r}；"
                "必须以 unix:///、tcp://、http:// 或 https:// 开头",
            )
        )
    for host in settings.allowed_hosts:
        if "/" in host or (":" in host and not host.startswith("[")):
            raise SettingsError(
                Text(
                    f"allowed_hosts: {host!r} must be a host name alone, without port or scheme",
                    f"allowed_hosts：{host!r} 只能是主机名，不带端口和协议",
                )
            )
    for origin in settings.allowed_origins:
        if not origin.startswith(("http://", "https://")):
            raise SettingsError(
                Text(
                    f"allowed_origins: {origin!r} must begin with http:// or https://",
                    f"allowed_origins：{origin!r} 必须以 http:// 或 https:// 开头",
                )
            )


def environment_name(setting: str) -> str:
    """Return the environment variable of a setting: ``port`` is ``K12AI_PORT``."""
    return f"K12AI_{setting.upper()}"


def _from_file(file: Path | None, environ: Mapping[str, str]) -> dict[str, object]:
    named = file or (Path(environ["K12AI_CONFIG"]) if environ.get("K12AI_CONFIG") else None)
    path = named or Path("k12ai.toml")
    try:
        values: dict[str, object] = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if named is None:
            return {}
        raise SettingsError(Text(f"{path}: no such file", f"{path}：文件不存在")) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(Text(f"{path}: {error}", f"{path}：{error}")) from None
    unknown = sorted(set(values) - set(Settings.__struct_fields__))
    if unknown:
        raise SettingsError(
            Text(f"{path}: unknown setting {unknown[0]!r}", f"{path}：未知的设置 {unknown[0]!r}")
        )
    return values


def _from_environ(environ: Mapping[str, str]) -> dict[str, object]:
    values: dict[str, object] = {}
    for field in msgspec.structs.fields(Settings):
        raw = environ.get(environment_name(field.name))
        if raw:
            values[field.name] = (
                [part.strip() for part in raw.split(",") if part.strip()] if _is_list(field.type) else raw
            )
    return values


def _is_list(annotation: Any) -> bool:
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return get_origin(annotation) is tuple


def _convert(values: Mapping[str, object]) -> Settings:
    try:
        return msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        # "Expected `int` <= 65535 - at `$.port`"
        reason, _, place = str(error).partition(" - at `$.")
        name = place.rstrip("`").split("[")[0]
        shown = values.get(name)
        raise SettingsError(
            Text(f"{name}: {shown!r} cannot be used: {reason}", f"{name}：不能使用 {shown!r}：{reason}")
        ) from None


def described() -> list[tuple[str, str, str]]:
    """Return name, default and help of every setting."""
    computed = {
        "data_dir": "~/.local/share/k12ai",
        "docker_host": DEFAULT_DOCKER_HOST,
        "max_tasks": "processors",
        "tasks_cpus": "processors",
    }
    rows = []
    for field in msgspec.structs.fields(Settings):
        default = computed.get(field.name, field.default)
        meta = next(m for m in field.type.__metadata__ if isinstance(m, Meta) and m.description)
        shown = "" if default in (None, ()) else str(default)
        rows.append((field.name, shown, meta.description or ""))
    return rows


def markdown() -> str:
    """Return the page ``docs/settings.md``."""
    lines = [
        "# Settings",
        "",
        "Printed from `k12ai.settings`; do not edit by hand (`make docs`).",
        "",
        "Command line first, then environment, then `k12ai.toml` (or the file that `K12AI_CONFIG` names), "
        "then the default. Lists are separated by commas in the environment.",
        "",
        "| `k12ai.toml` | environment | `k12ai serve` | default | meaning |",
        "|---|---|---|---|---|",
    ]
    for name, default, text in described():
        option = "--" + name.replace("_", "-")
        cells = (
            f"`{name}`",
            f"`{environment_name(name)}`",
            f"`{option}`",
            f"`{default}`" if default else "",
            text,
        )
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "Clients (the notebook, the CLI, `k12ai.Client`) read two variables of their own: "
        "`K12AI_SERVER_URL` (default `http://127.0.0.1:8119`) and `K12AI_TOKEN`.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    import sys

    sys.stdout.write(markdown())

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

from k12ai.people import MAX_TOKEN_LIFETIME_S
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

    host: Annotated[
        str,
        Meta(description="Address to listen on. One that others can reach needs TLS or a proxy, and tokens."),
    ] = "127.0.0.1"
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
    tls_certificate: Annotated[
        str | None, Meta(description="File with the certificate to serve HTTPS with, and those above it; PEM.")
    ] = None
    tls_key: Annotated[
        str | None,
        Meta(description="File with the certificate's private key; PEM, readable for its owner alone."),
    ] = None
    behind_proxy: Annotated[
        bool,
        Meta(
            description="A proxy in front of the server has the TLS: what it says of the client is believed, "
            "and nobody else is answered."
        ),
    ] = False
    trusted_proxies: Annotated[
        tuple[str, ...], Meta(description="The addresses that the proxy connects from.")
    ] = ("127.0.0.1", "::1")
    token_lifetime_s: Annotated[
        Annotated[int, Meta(ge=60, le=MAX_TOKEN_LIFETIME_S)],
        Meta(description="Seconds that a new token is valid where nothing else is asked for."),
    ] = 180 * 24 * 3600
    kv_token_in_query: Annotated[
        bool,
        Meta(description="Take ?token= in the key-value store, for old clients; URLs end up in logs."),
    ] = False
    hide_others: Annotated[
        bool, Meta(description="Students see the others' containers without their names.")
    ] = False
    token_requests_per_s: Annotated[
        Annotated[float, Meta(gt=0)], Meta(description="Requests a second with one token, lastingly.")
    ] = 50.0
    address_requests_per_s: Annotated[
        Annotated[float, Meta(gt=0)],
        Meta(description="Requests a second from one address, lastingly; a class may share one."),
    ] = 1000.0
    max_connections_per_address: Annotated[
        Annotated[int, Meta(ge=1)],
        Meta(description="Connections from one address of another machine that are open at once."),
    ] = 512
    audit_retention_s: Annotated[
        Annotated[int, Meta(ge=1, le=10 * 365 * 24 * 3600)],
        Meta(description="Seconds that is kept who did what."),
    ] = 365 * 24 * 3600
    max_tasks: Annotated[
        Annotated[int, Meta(ge=1)],
        Meta(description="Tasks that run at once; the others wait their turn. By default one a processor."),
    ] = msgspec.field(default_factory=lambda: os.cpu_count() or 1)
    max_tasks_per_user: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="Tasks of one user that run at once; none: as many as there are places."),
    ] = None
    max_waiting_tasks_per_user: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="Tasks of one user that wait for their turn; none: as many as come."),
    ] = None
    max_user_bytes: Annotated[
        Annotated[int, Meta(ge=1024)] | None,
        Meta(
            description="Most that the files of all projects of a user may take together; beyond it, no task "
            "is taken. None: no limit but that of each project."
        ),
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

    @property
    def is_reachable(self) -> bool:
        """Whether others than this machine's own users can get here."""
        return self.behind_proxy or not is_loopback_name(self.host)

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
        refuse_open_bind(settings)
        _check_addresses(settings)
        return settings


def refuse_open_bind(settings: Settings) -> None:
    """Raise `SettingsError` for an address that other machines can reach without a wall in between."""
    host = settings.host
    has_tls = settings.tls_certificate is not None
    if has_tls != (settings.tls_key is not None):
        raise SettingsError(
            Text(
                "tls_certificate and tls_key belong together: give both",
                "tls_certificate 和 tls_key 必须同时给出",
            )
        )
    if not settings.is_reachable:
        return
    if not has_tls and not settings.behind_proxy:
        raise SettingsError(
            Text(
                f"host: refusing to listen on {host!r}: who listens to that network could read every token. "
                "Serve HTTPS with --tls-certificate and --tls-key, or put a proxy with HTTPS in front and say "
                "--behind-proxy. For yourself alone use 127.0.0.1, and an SSH tunnel from other machines: "
                "ssh -L 8119:127.0.0.1:8119 THIS_MACHINE",
                f"host：拒绝在 {host!r} 上监听：能监听该网络的人都能读到所有令牌。"
                "请用 --tls-certificate 和 --tls-key 提供 HTTPS，"
                "或在前面放置带 HTTPS 的代理并使用 --behind-proxy。"
                "仅供自己使用时请用 127.0.0.1；从其他机器访问时请用 SSH 隧道："
                "ssh -L 8119:127.0.0.1:8119 本机地址",
            )
        )
    if host in ("0.0.0.0", "::") and not settings.allowed_hosts:  # noqa: S104 - compared with, not bound to
        raise SettingsError(
            Text(
                "allowed_hosts: say the names by which people reach this server, such as "
                "--allowed-hosts k12ai.school.example; requests for other names are refused",
                "allowed_hosts：请给出访问本服务器所用的主机名，例如 --allowed-hosts k12ai.school.example；"
                "其他主机名的请求会被拒绝",
            )
        )


def is_loopback_name(host: str) -> bool:
    """Whether an address, or the name localhost, is this machine's alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


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

    for proxy in settings.trusted_proxies:
        try:
            ipaddress.ip_address(proxy)
        except ValueError:
            raise SettingsError(
                Text(
                    f"trusted_proxies: {proxy!r} must be an IP address",
                    f"trusted_proxies：{proxy!r} 必须是 IP 地址",
                )
            ) from None


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

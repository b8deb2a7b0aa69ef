"""The process: sockets, signals, the ready line, and an end within seconds."""

import asyncio
import contextlib
import os
import resource
import signal
import socket
import ssl
import stat
import sys
from collections.abc import Iterator, Sequence

import structlog
import uvicorn

from k12ai.api.protocol import DEADLINE_S, BoundedProtocol, ConnectionLimit
from k12ai.api.wire import HttpApp
from k12ai.app import opened
from k12ai.background import Background, every
from k12ai.closing import Closing
from k12ai.logs import configure_logs
from k12ai.settings import Settings, SettingsError
from k12ai.texts import Text

GRACE_S = 2.0
BACKLOG = 2048
MAX_FILES = 65536
log = structlog.stdlib.get_logger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def serve(settings: Settings) -> None:
    """Run the server until SIGTERM or SIGINT, then return.

    Raises `SettingsError` for settings that turn out to be unusable, such as a port that is taken.
    """
    configure_logs(settings)
    os.umask(0o077)  # what is written is its owner's alone
    _raise_file_limit()
    # The sockets first: a port that is taken must not cost the opening of everything else.
    wanted = {"port": settings.port} | ({} if settings.kv_port is None else {"kv_port": settings.kv_port})
    tls = _tls_of(settings)
    with contextlib.ExitStack() as exits:
        sockets = [
            exits.enter_context(contextlib.closing(_listen(settings.host, port, setting)))
            for setting, port in wanted.items()
        ]
        runner = exits.enter_context(asyncio.Runner(loop_factory=_loop_factory()))
        runner.run(_serve(settings, sockets, tls))


async def _serve(settings: Settings, sockets: Sequence[socket.socket], tls: ssl.SSLContext | None) -> None:
    closing = Closing()
    with _on_signal(closing):
        async with opened(settings, closing) as apps:
            limit = ConnectionLimit(settings.max_connections_per_address)
            servers = [_Server(app, closing, tls, limit) for app in apps[: len(sockets)]]
            running = [
                asyncio.create_task(server.serve(sockets=[each]))
                for server, each in zip(servers, sockets, strict=True)
            ]
            await asyncio.gather(*(server.accepting.wait() for server in servers))
            _say_ready(sockets, settings)
            if len(sockets) > 1:
                log.info("kv.ready", port=sockets[1].getsockname()[1])
            await asyncio.gather(*running)


class _Server(uvicorn.Server):
    """A uvicorn server that stops when ``closing`` starts; signals are taken once, for all servers."""

    def __init__(
        self, app: HttpApp, closing: Closing, tls: ssl.SSLContext | None, limit: ConnectionLimit
    ) -> None:
        config = uvicorn.Config(
            app,
            http=BoundedProtocol,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            timeout_graceful_shutdown=int(GRACE_S),
        )
        super().__init__(config)
        self._closing = closing
        self._tls = tls
        self._limit = limit
        self.accepting = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept connections; uvicorn itself gives a TLS handshake a minute."""
        await self.lifespan.startup()
        deadline_s = DEADLINE_S if self._tls is not None else None
        loop = asyncio.get_running_loop()
        self.servers = [
            await loop.create_server(
                self._protocol, sock=each, ssl=self._tls, ssl_handshake_timeout=deadline_s, backlog=BACKLOG
            )
            for each in sockets or ()
        ]
        self.started = True
        self.accepting.set()

    def _protocol(self) -> asyncio.Protocol:
        return BoundedProtocol(self.config, self.server_state, self.lifespan.state, limit=self._limit)

    async def main_loop(self) -> None:
        """Serve until the server closes."""
        await self._keep_house()
        async with Background() as background:
            background.keep_running("connections", lambda: every(1.0, self._keep_house))
            await self._closing.wait()

    async def _keep_house(self) -> None:
        """Set the Date header, and end connections that are too slow."""
        await self.on_tick(0)
        now = asyncio.get_running_loop().time()
        for connection in list(self.server_state.connections):
            if isinstance(connection, BoundedProtocol):
                connection.expire(now)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: the composition root takes them."""
        yield


@contextlib.contextmanager
def _on_signal(closing: Closing) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for each in _SIGNALS:
        loop.add_signal_handler(each, closing.start)
    try:
        yield
    finally:
        for each in _SIGNALS:
            loop.remove_signal_handler(each)


def _listen(host: str, port: int, setting: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)  # from here on, the port is taken
    except OSError as error:
        listener.close()
        raise SettingsError(
            Text(
                f"{setting}: cannot listen on {host} port {port} ({error.strerror}); "
                f"is a k12ai server running already? Choose another one with --{setting.replace('_', '-')}",
                f"{setting}：无法在 {host} 端口 {port} 上监听（{error.strerror}）；"
                f"是否已有 k12ai 服务器在运行？可用 --{setting.replace('_', '-')} 指定其他端口",
            )
        ) from None
    listener.setblocking(False)
    return listener


def _tls_of(settings: Settings) -> ssl.SSLContext | None:
    """Return what is needed to serve HTTPS. Raises `SettingsError` for files that do not do."""
    certificate, key = settings.tls_certificate, settings.tls_key
    if certificate is None or key is None:
        return None
    try:
        mode = stat.S_IMODE(os.stat(key).st_mode)
        if mode & 0o077:
            raise SettingsError(
                Text(
                    f"tls_key: others may read {key} (mode {mode:o}); make it yours alone: chmod 600 {key}",
                    f"tls_key：其他账户可以读取 {key}（权限 {mode:o}）；请改为仅自己可读：chmod 600 {key}",
                )
            )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(certificate, key)
    except OSError as error:  # `ssl.SSLError` is one
        reason = error.strerror or str(error)
        raise SettingsError(
            Text(
                f"tls_certificate, tls_key: cannot use {certificate} with {key}: {reason}",
                f"tls_certificate、tls_key：无法使用 {certificate} 和 {key}：{reason}",
            )
        ) from None
    return context


def _say_ready(sockets: Sequence[socket.socket], settings: Settings) -> None:
    address: tuple[str, int] = sockets[0].getsockname()[:2]
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    scheme = "http" if settings.tls_certificate is None else "https"
    sys.stdout.write(f"k12ai ready on {scheme}://{host}:{address[1]}\n")
    sys.stdout.flush()


def _raise_file_limit() -> None:
    """Allow as many open files as the system lets us: each container keeps three, each caller one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _loop_factory() -> "type[asyncio.AbstractEventLoop] | None":
    try:
        import uvloop
    except ImportError:  # not on every platform; the standard loop serves as well, more slowly
        return None
    return uvloop.Loop

"""The server's only way to the Docker Engine: calls with deadlines, foreign errors translated."""

import asyncio
import collections
import contextlib
import datetime
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

import aiodocker
import aiohttp
import msgspec
import structlog
from msgspec import Struct

from k12ai.docker_connection import NOT_REACHED, DockerConnection, no_permission
from k12ai.errors import EngineTimeout, EngineUnavailable
from k12ai.models import LABEL_OP, LABEL_SERVICE_NAME, LABEL_SERVICE_UUID, LABEL_USER
from k12ai.runtimes.base import Unit
from k12ai.runtimes.cgroups import Usage
from k12ai.texts import Text

T = TypeVar("T")

log = structlog.stdlib.get_logger(__name__)

CALL_DEADLINE_S = 3.0
# While a call may take long: with the second between two looks, who waits hears of it within 5 s.
SIGN_OF_LIFE_S = 2.0
STATS_DEADLINE_S = 10.0
# A class that starts at once keeps the Engine busy: starts queue up in it.
LAUNCH_DEADLINE_S = 60.0
MAX_LABEL_LENGTH = 256
# What an Engine answers whose containerd is going, or not up yet.
_ITS_OWN_TROUBLE = re.compile("transport is closing|connection refused|context canceled|: unavailable")

# What changes whether a container runs, or what is known of it.
_EVENTS_OF_INTEREST = (
    "start",
    "restart",
    "die",
    "destroy",
    "stop",
    "pause",
    "unpause",
    "update",
    "rename",
    "oom",
)


class NoSuchContainer(Exception):
    """The Engine does not know this container (any more)."""


class LaunchRefused(Exception):
    """The Engine answers that it will not make or start a container; the message is its own."""


class Listed(Struct, frozen=True):
    """A row of the Engine's list of containers; ``created_at`` is in seconds since the epoch."""

    container_id: str
    state: str
    created_at: float
    labels: Mapping[str, str]

    @property
    def service_name(self) -> str:
        """The service that it belongs to."""
        return self.labels.get(LABEL_SERVICE_NAME, "")

    @property
    def user(self) -> str:
        """The user that it belongs to."""
        return self.labels.get(LABEL_USER, "")

    @property
    def running(self) -> bool:
        """Whether it has processes, or will have again by its restart policy."""
        return self.state in ("running", "paused", "restarting")


class ContainerState(Struct, frozen=True, rename="pascal"):
    """``State`` of the Engine's inspection: what is known of a container's life."""

    status: str
    running: bool
    restarting: bool
    oom_killed: bool = msgspec.field(name="OOMKilled")
    exit_code: int
    error: str
    started_at: str
    finished_at: str

    @property
    def began_at(self) -> datetime.datetime:
        """When its first process began."""
        return _time(self.started_at)

    @property
    def ended_at(self) -> datetime.datetime:
        """When its first process ended."""
        return _time(self.finished_at)


class Engine:
    """One Docker Engine.

    Every call has a deadline. It raises `EngineUnavailable` when the Engine cannot be reached or
    answers what no Engine answers, `EngineTimeout` when it does not answer, `NoSuchContainer` for an
    unknown container; nothing else but what a call names.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.calls: collections.Counter[str] = collections.Counter()
        self._answered_at = float("-inf")
        # Without a limit: a hundred slow stops must not keep the heartbeat waiting.
        self._connection = DockerConnection(address, limit=0)
        self._docker = self._connection.docker

    async def close(self) -> None:
        """Close the connections."""
        await self._connection.close()

    async def ping(self, *, deadline_s: float = CALL_DEADLINE_S) -> None:
        """Return if the Engine answers."""

        await self._call("ping", lambda: _knock(self._docker), deadline_s=deadline_s)

    async def is_ending(self) -> bool:
        """Whether the Engine takes no new connection.

        One that was asked to end closes its door first, then ends its containers where it has no
        live-restore, and tells of that on the connections that there are.
        """
        connection = DockerConnection(self.address)
        try:
            await self._call("ping", lambda: _knock(connection.docker), deadline_s=SIGN_OF_LIFE_S)
        except (EngineUnavailable, EngineTimeout):
            return True
        finally:
            await connection.close()
        return False

    async def labelled(self, label: str = LABEL_SERVICE_NAME, *, id_part: str | None = None) -> list[Listed]:
        """Return every container, running or not, that carries a label (``name`` or ``name=value``).

        With ``id_part``, those whose id contains it.
        """
        filters: dict[str, list[str]] = {"label": [label]}
        if id_part is not None:
            filters["id"] = [id_part]

        async def call() -> list[Listed]:
            rows = await self._docker.containers.list(all=True, filters=filters)
            return [Listed(row["Id"], row["State"], row["Created"], row["Labels"]) for row in rows]

        try:
            return await self._call("list", call)
        except NoSuchContainer as error:
            raise EngineUnavailable(_reason(self.address, str(error))) from None

    async def running_unit(self, container_id: str) -> Unit | None:
        """Return the unit, or None where it has no process now or does not exist."""

        async def call() -> Unit | None:
            shown = await self._docker.containers.container(container_id).show()
            return _unit(shown) if shown["State"]["Running"] and shown["State"]["Pid"] else None

        try:
            return await self._call("inspect", call)
        except NoSuchContainer:
            return None

    async def create(self, name: str, body: Mapping[str, Any]) -> str:
        """Make a container and return its id; one of this name that is there already is the one that is meant.

        Raises `LaunchRefused`.
        """

        async def call() -> str:
            try:
                return (await self._docker.containers.create(dict(body), name=name)).id
            except aiodocker.DockerError as error:
                if _is_about_to_end(error):
                    raise
                if error.status != 409:
                    raise LaunchRefused(error.message) from None
            shown = await self._docker.containers.container(name).show()
            if not body["Labels"].items() <= (shown["Config"]["Labels"] or {}).items():
                raise LaunchRefused(f"a container of somebody else has the name {name}")
            return str(shown["Id"])

        return await self._long_call("create", call, deadline_s=LAUNCH_DEADLINE_S)

    async def start(self, container_id: str) -> None:
        """Start a container that has not been started yet. Raises `LaunchRefused`."""

        async def call() -> None:
            try:
                await self._docker.containers.container(container_id).start()
            except aiodocker.DockerError as error:
                is_gone = error.status == 404 and "No such container" in error.message
                if is_gone or _is_about_to_end(error):
                    raise
                raise LaunchRefused(error.message) from None

        await self._long_call("start", call, deadline_s=LAUNCH_DEADLINE_S)

    async def find(self, name: str) -> str | None:
        """Return the id of the container of this name; None where there is none."""

        async def call() -> str:
            return str((await self._docker.containers.container(name).show())["Id"])

        try:
            return await self._call("inspect", call)
        except NoSuchContainer:
            return None

    async def state(self, container_id: str) -> ContainerState | None:
        """Return what is known of a container's life; None where it does not exist."""

        async def call() -> ContainerState:
            shown = await self._docker.containers.container(container_id).show()
            return msgspec.convert(shown["State"], ContainerState)

        try:
            return await self._call("inspect", call)
        except NoSuchContainer:
            return None

    async def remove(self, container_id: str) -> None:
        """Remove a container, running or not; one that is not there is removed already."""

        async def call() -> None:
            await self._docker.containers.container(container_id).delete(force=True)

        with contextlib.suppress(NoSuchContainer):
            await self._long_call("remove", call, deadline_s=LAUNCH_DEADLINE_S)

    async def has_image(self, name: str) -> bool:
        """Whether the Engine has an image."""

        async def call() -> bool:
            await self._docker.images.inspect(name)
            return True

        try:
            return await self._call("image", call)
        except NoSuchContainer:  # that is how a 404 is told
            return False

    async def is_alive(self, container_id: str) -> bool:
        """Whether the container runs, or will be started again by its restart policy."""

        async def call() -> bool:
            state = (await self._docker.containers.container(container_id).show())["State"]
            return bool(state["Running"] or state["Restarting"])

        try:
            return await self._call("inspect", call)
        except NoSuchContainer:
            return False

    async def stop(self, container_id: str, grace_s: int) -> None:
        """Have the Engine send SIGTERM and, after ``grace_s``, SIGKILL; return when that is done.

        The Engine carries on even if this call is cancelled. An Engine that hangs meanwhile is
        found out within seconds, however long the grace is.
        """
        container = self._docker.containers.container(container_id)
        await self._long_call("stop", lambda: container.stop(t=grace_s), deadline_s=grace_s + 20.0)

    async def usage(self, container_id: str) -> Usage:
        """Return a container's counters over about the last second, as the Engine measured them."""

        async def call() -> Usage:
            rows = await self._docker.containers.container(container_id).stats(stream=False)
            return _usage_of_stats(rows[0])

        return await self._call("stats", call, deadline_s=STATS_DEADLINE_S)

    @contextlib.asynccontextmanager
    async def events(self) -> AsyncIterator[Callable[[], Awaitable[str]]]:
        """Subscribe; yield a function that waits for the next id of a container that changed.

        It raises `EngineUnavailable` when the stream has ended. No event after the entry is missed.
        """
        stream = self._docker.events
        subscriber = stream.subscribe(create_task=False)  # type: ignore[no-untyped-call]
        filters = {"type": ["container"], "label": [LABEL_SERVICE_NAME], "event": list(_EVENTS_OF_INTEREST)}
        self.calls["events"] += 1
        running = asyncio.ensure_future(self._translated(stream.run(filters=filters)))

        async def next_id() -> str:
            event = await subscriber.get()
            if event is None:
                await asyncio.wait([running])
                running.result()  # raises the reason, where there was one
                raise EngineUnavailable(Text("its event stream ended", "事件流已断开"))
            return str(event["Actor"]["ID"])

        try:
            async with self._deadline("events", CALL_DEADLINE_S):
                while stream.json_stream is None and not running.done():  # noqa: ASYNC110 - no event to wait for
                    await asyncio.sleep(0.005)
            if running.done():
                running.result()
            yield next_id
        finally:
            await stream.stop()  # type: ignore[no-untyped-call]
            await _cancel(running)

    async def _stay_in_touch(self) -> None:
        """Raise when the Engine no longer answers; an answer to any call is a sign of life."""
        while True:
            await asyncio.sleep(1)
            if time.monotonic() - self._answered_at > 0.9:
                await self.ping(deadline_s=SIGN_OF_LIFE_S)

    async def _long_call(self, name: str, call: Callable[[], Awaitable[T]], *, deadline_s: float) -> T:
        """Make a call that may take long; an Engine that hangs meanwhile is found out within seconds."""
        async with _cancelled_on_exit(self._stay_in_touch()) as lost:
            calling = asyncio.ensure_future(self._call(name, call, deadline_s=deadline_s))
            ends: list[asyncio.Future[Any]] = [calling, lost]
            try:
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                if not calling.done():
                    lost.result()
                return await calling
            finally:
                await _cancel(calling)

    async def _call(
        self, name: str, call: Callable[[], Awaitable[T]], *, deadline_s: float = CALL_DEADLINE_S
    ) -> T:
        self.calls[name] += 1
        async with self._deadline(name, deadline_s):
            answer = await self._translated(call())
        self._answered_at = time.monotonic()
        return answer

    @contextlib.asynccontextmanager
    async def _deadline(self, name: str, deadline_s: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(deadline_s):
                yield
        except TimeoutError:
            raise EngineTimeout(name, deadline_s) from None

    async def _translated(self, call: Awaitable[T]) -> T:
        try:
            return await call
        except (TimeoutError, NoSuchContainer, LaunchRefused):
            raise
        except aiodocker.DockerError as error:
            if error.status == 404:
                raise NoSuchContainer(error.message) from None
            raise EngineUnavailable(_reason(self.address, error.message)) from None
        except Exception as error:  # noqa: BLE001 - whatever else comes over that socket is no Engine's answer
            reason = str(error) or type(error).__name__
            if not isinstance(error, (aiohttp.ClientError, OSError)):
                log.warning("engine.odd_answer", address=self.address, error=repr(error)[:500])
            raise EngineUnavailable(_reason(self.address, reason)) from None


async def _knock(docker: aiodocker.Docker) -> None:
    # aiodocker has no function for it; asking for the version makes the Engine run programs.
    async with docker._query("_ping", versioned_api=False):
        pass


def _is_about_to_end(error: aiodocker.DockerError) -> bool:
    """Whether an error tells of the Engine and not of what it was asked: the same may work when it is back."""
    return error.status == NOT_REACHED or (
        error.status >= 500 and _ITS_OWN_TROUBLE.search(error.message) is not None
    )


def _reason(address: str, message: str) -> Text:
    if "No such file or directory" in message:
        return Text(f"nothing listens at {address}", f"{address} 没有服务在监听")
    if "Permission denied" in message:
        return no_permission(address)
    if "Connect call failed" in message or "Connection refused" in message:
        return Text(f"the connection to {address} is refused", f"连接 {address} 被拒绝")
    short = re.sub(r"\s+", " ", message)[:200]
    return Text(f"{address}: {short}", f"{address}：{short}")


async def _cancel(task: "asyncio.Future[Any]") -> None:
    """End a task and take its outcome; being cancelled meanwhile is not swallowed."""
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()


@contextlib.asynccontextmanager
async def _cancelled_on_exit(work: Awaitable[None]) -> AsyncIterator["asyncio.Future[None]"]:
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        await _cancel(task)


def _unit(shown: dict[str, Any]) -> Unit:
    # Labels may hold megabytes, and everybody gets them with every answer.
    labels = {name: value[:MAX_LABEL_LENGTH] for name, value in (shown["Config"]["Labels"] or {}).items()}
    state = shown["State"]
    return Unit(
        container_id=shown["Id"],
        pid=state["Pid"],
        service_name=labels.get(LABEL_SERVICE_NAME, ""),
        op=labels.get(LABEL_OP, ""),
        user=labels.get(LABEL_USER, ""),
        service_uuid=labels.get(LABEL_SERVICE_UUID, ""),
        status=state["Status"],
        started_at=state["StartedAt"],
        gpus=_gpus(shown["HostConfig"]),
    )


def _gpus(host_config: dict[str, Any]) -> tuple[str, ...]:
    devices: list[str] = []
    for request in host_config.get("DeviceRequests") or ():
        if not any("gpu" in group for group in request.get("Capabilities") or ()):
            continue
        if request.get("DeviceIDs"):
            devices.extend(request["DeviceIDs"])
        else:
            count = request.get("Count", 0)
            devices.append("all" if count == -1 else f"any {count}")
    return tuple(devices)


def _usage_of_stats(row: dict[str, Any]) -> Usage:
    """Read the Engine's statistics, whose ``precpu_stats`` are one second older."""
    memory = row.get("memory_stats") or {}
    details = memory.get("stats") or {}
    cache = details.get("total_inactive_file", details.get("inactive_file", 0))
    cpu, before = row.get("cpu_stats") or {}, row.get("precpu_stats") or {}
    if "cpu_usage" not in cpu:
        raise NoSuchContainer("it ended while it was measured")
    total = cpu["cpu_usage"]["total_usage"]
    total_before = (before.get("cpu_usage") or {}).get("total_usage", 0)
    at_ns, before_ns = _nanoseconds(row["read"]), _nanoseconds(row["preread"])
    return Usage(
        at_ns=at_ns,
        cpu_ns=total,
        memory_bytes=max(0, memory.get("usage", 0) - cache),
        memory_limit_bytes=memory.get("limit"),
        since=(before_ns, total_before) if total_before else (at_ns, total),
    )


def _nanoseconds(timestamp: str) -> int:
    """Convert the Engine's RFC 3339 time, which has up to nine decimals."""
    seconds, _, fraction = timestamp.rstrip("Z").partition(".")
    whole = datetime.datetime.fromisoformat(seconds).replace(tzinfo=datetime.UTC)
    return int(whole.timestamp()) * 1_000_000_000 + int(fraction.ljust(9, "0")[:9] or 0)


def _time(timestamp: str) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(_nanoseconds(timestamp) / 1e9, datetime.UTC)

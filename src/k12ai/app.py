"""The composition root: everything that is open while the server runs, in the order it is opened."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from k12ai.access.book import AccessBook
from k12ai.access.mode import say_access
from k12ai.api.access import AccessRoutes
from k12ai.api.application import Routes, Walls, application, kv_application
from k12ai.api.files import FilesRoutes
from k12ai.api.framework import FrameworkRoutes
from k12ai.api.identify import Doorkeeper
from k12ai.api.kv import KvRoutes
from k12ai.api.metrics import registry_of
from k12ai.api.observe import HttpCounts
from k12ai.api.pages import Pages
from k12ai.api.platform import PlatformRoutes
from k12ai.api.tasks import TaskRoutes
from k12ai.api.wire import HttpApp
from k12ai.background import Background, every
from k12ai.capacity import Capacity, GpuHolders
from k12ai.closing import Closing
from k12ai.control import Control
from k12ai.deferred import Deferred
from k12ai.framework import FrameworkService
from k12ai.monitor.monitor import Monitor
from k12ai.placement import Placement
from k12ai.platform import Platform
from k12ai.projects import ProjectFiles
from k12ai.runtimes.base import Runtime
from k12ai.runtimes.docker_tasks import DockerTasks
from k12ai.runtimes.process import ProcessRuntime
from k12ai.runtimes.walls import say_walls
from k12ai.settings import Settings
from k12ai.stores.base import Store
from k12ai.stores.sql import SqlStore
from k12ai.tasks.feed import Feed
from k12ai.tasks.manager import TaskManager
from k12ai.tasks.queue import Queue
from k12ai.tasks.registry import Registry

SWEEP_S = 600.0
TIDY_S = 60.0


class Apps(NamedTuple):
    """What is served: everything, and the key-value store alone."""

    main: HttpApp
    kv: HttpApp


@contextlib.asynccontextmanager
async def opened(settings: Settings, closing: Closing) -> AsyncIterator[Apps]:
    """Open everything and yield the applications; on the way out, close it in the opposite order.

    A part that is configured and cannot start stops the server; an Engine that is away does not,
    because it can come back.
    """
    data_dir = Path(settings.data_dir)
    files = ProjectFiles(
        data_dir,
        max_file_bytes=settings.max_file_bytes,
        max_project_bytes=settings.max_project_bytes,
        max_files=settings.max_project_files,
        max_user_bytes=settings.max_user_bytes,
    )
    async with (
        SqlStore(data_dir) as store,
        DockerTasks(settings.docker_host, data_dir, relist_s=settings.engine_relist_s) as docker,
        ProcessRuntime(data_dir) as process,
        Monitor(_watched(docker, process), interval_s=settings.sample_interval_s) as monitor,
        Background() as background,
    ):
        book = AccessBook(store, lifetime_s=settings.token_lifetime_s)
        await book.load()
        doorkeeper = Doorkeeper(book, settings)
        say_access(settings, book)
        registry = Registry.installed()
        queue = Queue(Capacity(monitor, settings))
        runtimes = {each.name: each for each in (process, docker)}
        tasks = TaskManager(
            store,
            runtimes,
            registry,
            queue,
            files.project_dir,
            background,
            settings,
            GpuHolders(monitor),
        )
        await tasks.resume()
        control = Control(_watched(docker, process), tasks)
        platform = Platform(monitor, control, hide_others=settings.hide_others)
        deferred = Deferred(store, background, platform.perform, keep_s=settings.result_retention_s)
        await deferred.resume()
        file_routes = FilesRoutes(files)
        background.start("clear-uploads", file_routes.clear_leftovers())
        background.keep_running("sweep", lambda: every(SWEEP_S, store.sweep))
        background.keep_running("sweep-tasks", lambda: every(SWEEP_S, tasks.sweep))
        background.keep_running("sweep-audit", lambda: every(SWEEP_S, _sweeper(store, settings)))
        background.keep_running("tidy-tasks", lambda: every(TIDY_S, tasks.tidy))
        background.keep_running("queue", tasks.watch_queue)
        say_walls(process.walls)

        counts = HttpCounts()
        kv = KvRoutes(store, closing)
        figures = registry_of(monitor, counts, docker.engine.calls, queue)
        pages = Pages(monitor, closing, figures)
        limit = settings.max_body_bytes
        service = FrameworkService(tasks, registry, Placement(settings.runtime, docker), files)
        resources = TaskRoutes(service, Feed(store, closing), platform, closing)
        access = AccessRoutes(book, store)
        routes = Routes(
            published={
                **PlatformRoutes(platform, deferred, closing, max_body_bytes=limit).routes(),
                **FrameworkRoutes(service, closing, max_body_bytes=limit).routes(),
            },
            mounts=[kv, file_routes],
            handlers=[*pages.handlers(), *resources.handlers(), *access.handlers()],
        )
        walls = Walls(settings, counts, doorkeeper, store)
        yield Apps(application(walls, routes), kv_application(walls, kv))


def _sweeper(store: Store, settings: Settings) -> Callable[[], Awaitable[None]]:
    async def sweep() -> None:
        await store.forget_audit(datetime.now(UTC) - timedelta(seconds=settings.audit_retention_s))

    return sweep


def _watched(*runtimes: Runtime) -> Sequence[Runtime]:
    """Return every runtime that can be watched and controlled, whichever new tasks start in."""
    return runtimes

"""``/metrics``: the same figures for Prometheus, in base units."""

from collections import Counter
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from k12ai._version import __version__
from k12ai.api.observe import BUCKETS_S, HttpCounts
from k12ai.monitor.monitor import Monitor
from k12ai.monitor.totals import users_of
from k12ai.tasks.queue import Queue

CONTENT_TYPE = "text/plain; version=0.0.4"  # the framework adds the charset


class PlatformCollector(Collector):
    """Reads the latest snapshot and the counts when Prometheus asks; nothing is kept up to date for it."""

    def __init__(self, monitor: Monitor, http: HttpCounts, engine_calls: Counter[str], queue: Queue) -> None:
        self._monitor = monitor
        self._http = http
        self._engine_calls = engine_calls
        self._queue = queue

    def collect(self) -> Iterator[Metric]:
        """Yield every family."""
        yield _table(
            "k12ai_build_info", "Always 1; the label is the version.", ["version"], [((__version__,), 1)]
        )
        yield from self._host()
        yield from self._gpus()
        yield from self._containers()
        yield from self._users()
        yield from self._tasks()
        yield from self._server()

    def _host(self) -> Iterator[Metric]:
        cpus = self._monitor.latest.cpus
        yield _gauge(
            "k12ai_host_cpu_usage_ratio", "Busy share of all processors, 0 to 1.", cpus.cpu_percent / 100
        )
        yield _gauge("k12ai_host_memory_total_bytes", "Memory of the host.", cpus.cpu_memory_total)
        yield _gauge("k12ai_host_memory_usage_bytes", "Memory in use on the host.", cpus.cpu_memory_usage)
        disks = self._monitor.latest.disks
        yield _table(
            "k12ai_disk_total_bytes",
            "Size of a file system.",
            ["path"],
            (((d.path,), d.disk_total) for d in disks),
        )
        yield _table(
            "k12ai_disk_usage_bytes",
            "Used on a file system.",
            ["path"],
            (((d.path,), d.disk_usage) for d in disks),
        )

    def _gpus(self) -> Iterator[Metric]:
        gpus = self._monitor.latest.gpus
        labels = ["index", "uuid", "name"]
        rows = [((str(gpu.index), gpu.uuid, gpu.name), gpu) for gpu in gpus]
        yield _table(
            "k12ai_gpu_usage_ratio",
            "Busy share of a GPU, 0 to 1.",
            labels,
            ((key, gpu.gpu_percent / 100) for key, gpu in rows if gpu.gpu_percent is not None),
        )
        yield _table(
            "k12ai_gpu_memory_total_bytes",
            "Memory of a GPU.",
            labels,
            ((key, gpu.gpu_memory_total) for key, gpu in rows),
        )
        yield _table(
            "k12ai_gpu_memory_usage_bytes",
            "Used memory of a GPU.",
            labels,
            ((key, gpu.gpu_memory_usage) for key, gpu in rows),
        )
        yield _table(
            "k12ai_gpu_memory_unattributed_bytes",
            "Used memory of a GPU that no container holds.",
            labels,
            ((key, gpu.ledger.unattributed) for key, gpu in rows),
        )

    def _containers(self) -> Iterator[Metric]:
        containers = self._monitor.latest.containers.values()
        labels = ["id", "service", "op", "user", "service_uuid"]
        rows = [((c.id, c.service_name, c.op, c.user, c.service_uuid), c) for c in containers]
        yield _table(
            "k12ai_container_cpu_usage_ratio",
            "Processors a container keeps busy; 1 is one core.",
            labels,
            ((key, each.cpu_percent / 100) for key, each in rows),
        )
        yield _table(
            "k12ai_container_memory_usage_bytes",
            "Memory of a container without droppable page cache.",
            labels,
            ((key, each.cpu_memory_usage) for key, each in rows),
        )
        yield _table(
            "k12ai_container_gpu_memory_usage_bytes",
            "Memory of all GPUs that a container holds.",
            labels,
            ((key, each.gpu_memory_usage) for key, each in rows),
        )

    def _users(self) -> Iterator[Metric]:
        users = users_of(self._monitor.latest.containers.values())
        rows = [((each.user,), each) for each in users]
        yield _table(
            "k12ai_user_containers", "Containers of a user.", ["user"], ((key, u.containers) for key, u in rows)
        )
        yield _table(
            "k12ai_user_gpu_memory_usage_bytes",
            "Memory of all GPUs that a user's containers hold.",
            ["user"],
            ((key, u.gpu_memory_usage) for key, u in rows),
        )

    def _tasks(self) -> Iterator[Metric]:
        yield _gauge("k12ai_tasks_waiting", "Tasks that wait for their turn.", len(self._queue))
        yield _gauge("k12ai_tasks_running", "Tasks that have had their turn.", self._queue.running)
        spent = CounterMetricFamily("k12ai_scheduler_seconds", "Time spent to decide whose turn it is.")
        spent.add_metric([], self._queue.decided_s)
        yield spent

    def _server(self) -> Iterator[Metric]:
        yield _gauge("k12ai_sample_age_seconds", "Age of the latest figures.", self._monitor.age_s)
        calls = CounterMetricFamily("k12ai_engine_calls", "Calls to the Docker Engine.", labels=["call"])
        for call, count in sorted(self._engine_calls.items()):
            calls.add_metric([call], count)
        yield calls
        requests = CounterMetricFamily(
            "k12ai_http_requests", "Answers by route.", labels=["route", "method", "status"]
        )
        for (route, method, status), count in sorted(self._http.answers.items()):
            requests.add_metric([route, method, str(status)], count)
        yield requests
        times = HistogramMetricFamily(
            "k12ai_http_request_duration_seconds", "Time to answer.", labels=["route"]
        )
        for route, counts in sorted(self._http.buckets.items()):
            times.add_metric([route], list(_cumulative(counts)), self._http.seconds[route])
        yield times


def registry_of(
    monitor: Monitor, http: HttpCounts, engine_calls: Counter[str], queue: Queue
) -> CollectorRegistry:
    """Return the registry of one server; nothing is registered globally."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(PlatformCollector(monitor, http, engine_calls, queue))
    return registry


def exposition(registry: CollectorRegistry) -> bytes:
    """Return the text that Prometheus reads."""
    return generate_latest(registry)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)


def _table(
    name: str, text: str, labels: list[str], rows: Iterable[tuple[tuple[str, ...], float]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in rows:
        family.add_metric(key, value)
    return family


def _cumulative(counts: list[int]) -> Iterator[tuple[str, int]]:
    total = 0
    for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), counts, strict=True):
        total += count
        yield bound, total

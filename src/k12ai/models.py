"""The vocabulary: one class for each thing the platform talks about.

The same class is the HTTP body, the stored record and the value a client gets. Field names and
their meaning are the published contract's; units are in the names, or said here where a published
name does not carry one: memory and disk sizes are bytes, percentages run from 0 to 100 except a
container's ``cpu_percent``, where 100 is one whole core.
"""

import enum
import functools
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from k12ai.catalogue import CATALOGUE
from k12ai.task import Limits
from k12ai.texts import Language

ENVELOPE_VERSION = "0.1.0"
PLATFORM = "k12platform"
FRAMEWORKS = ("k12cv", "k12ml", "k12nlp", "k12py")
SERVICES = (PLATFORM, *FRAMEWORKS)

LABEL_SERVICE_NAME = "k12ai.service.name"
LABEL_OP = "k12ai.service.op"
LABEL_USER = "k12ai.service.user"
LABEL_SERVICE_UUID = "k12ai.service.uuid"
LABEL_TASK_ID = "k12ai.task.id"
LABEL_INSTANCE = "k12ai.instance"

MAX_GRACE_S = 600
DEFAULT_GRACE_S = 10

# `(?!\n)`: in Python, `$` also matches before a line feed at the end.
Identifier = Annotated[
    str,
    Meta(
        pattern=r"^(?!\.{1,2}$)[A-Za-z0-9._@-]{1,64}$(?!\n)",
        description="1 to 64 of the characters A-Z a-z 0-9 . _ @ -, but not '.' or '..'",
    ),
]


class Part(enum.IntFlag):
    """The parts of a stats answer that a caller can ask for."""

    CPUS = 1
    GPUS = 2
    DISKS = 4
    CONTAINERS = 8
    NODES = 16
    USERS = 32
    PUBLISHED = CPUS | GPUS | DISKS | CONTAINERS


# --- what clients send ---------------------------------------------------------------------------


class StatsParams(Struct, frozen=True):
    """Which parts to answer with; see `chosen`."""

    cpus: bool | UnsetType = UNSET
    gpus: bool | UnsetType = UNSET
    disks: bool | UnsetType = UNSET
    containers: bool | UnsetType = UNSET
    nodes: bool | UnsetType = UNSET
    users: bool | UnsetType = UNSET

    def chosen(self) -> Part:
        """Return exactly the parts set to true; where none is, the published ones less those set to false."""
        return _chosen(self.cpus, self.gpus, self.disks, self.containers, self.nodes, self.users)


@functools.cache  # of 729 possible calls; working with flags takes longer than the rest of an answer's parsing
def _chosen(*flags: bool | UnsetType) -> Part:
    parts = (Part.CPUS, Part.GPUS, Part.DISKS, Part.CONTAINERS, Part.NODES, Part.USERS)
    wanted, left = Part(0), Part.PUBLISHED
    for part, flag in zip(parts, flags, strict=True):
        if flag is True:
            wanted |= part
        elif flag is False:
            left &= ~part
    return wanted or left


class StopParams(Struct, frozen=True):
    """Which container to stop, and how long it may take to end by itself."""

    id: Annotated[
        str, Meta(max_length=256, description="the full id, or a unique prefix of at least 6 hex digits")
    ]
    timeout: Annotated[int, Meta(ge=0, le=MAX_GRACE_S, description="seconds between SIGTERM and SIGKILL")] = (
        DEFAULT_GRACE_S
    )


class PlatformRequest(Struct, frozen=True):
    """The envelope of every request under ``/k12ai/platform``."""

    op: Annotated[str, Meta(description="what to do: 'query' or 'container.stop'")]
    user: Identifier
    service_name: Annotated[
        str, Meta(description="'k12platform', or a framework to look at only its containers")
    ]
    service_uuid: Identifier
    is_async: bool = msgspec.field(name="async", default=False)
    service_params: dict[str, Any] | str | None = None


class FrameworkRequest(Struct, frozen=True):
    """The envelope of every request under ``/k12ai/framework``."""

    op: Annotated[str, Meta(description="'train.start', 'train.stop', and so for evaluate, predict, runcode")]
    user: Identifier
    service_name: Annotated[str, Meta(description="the framework: 'k12ml', 'k12py', …")]
    service_uuid: Identifier
    service_params: dict[str, Any] | str | None = None
    limits: Limits | None = None


# --- what the platform measures ------------------------------------------------------------------


class Cpus(Struct, frozen=True):
    """The host's processors and memory."""

    cpu_percent: float
    cpu_percent_list: list[float]
    cpu_memory_total: int
    cpu_memory_usage: int
    cpu_memory_percent: float


class GpuProcess(Struct, frozen=True):
    """A process that is on a GPU. A figure that the driver does not tell is null.

    ``container`` is the container's 12 digits and ``user`` its user; for a process of no container,
    ``container`` is empty and ``user`` the account it runs under. ``name`` is empty where the process
    cannot be seen on this machine: it has ended, or it is in another PID namespace. ``gpu_percent``
    is the share of the GPU's time.
    """

    pid: int
    name: str
    user: str
    container: str
    gpu_memory_usage: int | None
    gpu_percent: float | None
    mig_uuid: str | None


class GpuHolder(Struct, frozen=True):
    """What one container holds of a GPU's memory."""

    id: str
    user: str
    service_uuid: str
    gpu_memory_usage: int


class GpuLedger(Struct, frozen=True):
    """Who holds a GPU's memory: what the containers hold and ``unattributed`` add up to what is used."""

    containers: list[GpuHolder]
    unattributed: int


class MigDevice(Struct, frozen=True):
    """A part of a GPU that MIG has set aside."""

    name: str
    uuid: str
    gpu_memory_total: int
    gpu_memory_usage: int
    gpu_memory_percent: float


class Gpu(Struct, frozen=True):
    """One GPU. A figure that the device does not give is null; ``temperature`` is in °C.

    ``gpu_memory_usage`` is without what the driver keeps for itself, as nvidia-smi shows it.
    ``migs`` is empty where the GPU is not divided; its figures are those of the whole GPU.
    """

    name: str
    gpu_percent: float | None
    gpu_memory_total: int
    gpu_memory_usage: int
    gpu_memory_percent: float
    index: int
    uuid: str
    temperature: float | None
    power_watts: float | None
    processes: list[GpuProcess]
    ledger: GpuLedger
    migs: list[MigDevice]


class Disk(Struct, frozen=True):
    """One real file system."""

    path: str
    disk_total: int
    disk_usage: int
    disk_percent: float


class Container(Struct, frozen=True):
    """One running unit that carries the label ``k12ai.service.name``, in whichever runtime.

    ``gpus`` are the devices it was given. ``gpu_memory_usage`` is what it holds on all GPUs, and
    ``gpu_percent`` its share of their time, where 100 is one whole GPU.
    """

    id: str
    cpu_percent: float
    cpu_memory_total: int
    cpu_memory_usage: int
    cpu_memory_percent: float
    op: str
    user: str
    service_uuid: str
    service_name: str
    status: str
    started_at: str
    gpus: list[str]
    gpu_memory_usage: int
    gpu_percent: float


class SourceHealth(Struct, frozen=True):
    """Whether something the platform measures or uses answers, and if not, why."""

    available: bool
    reason: str | None = None


class UserUsage(Struct, frozen=True):
    """What the containers of one user use together; ``user`` is empty for those without that label."""

    user: str
    containers: int
    cpu_percent: float
    cpu_memory_usage: int
    gpu_memory_usage: int
    gpu_percent: float


class Node(Struct, frozen=True):
    """One machine of the platform. ``runtimes`` says by name whether each answers, and if not, why."""

    name: str
    version: str
    uptime_seconds: float
    cpu_count: int
    cpu_percent: float
    cpu_memory_total: int
    cpu_memory_usage: int
    cpu_memory_percent: float
    gpu_count: int
    gpu_memory_total: int
    gpu_memory_usage: int
    containers: int
    runtimes: dict[str, SourceHealth]


class StatsMessage(Struct, omit_defaults=True):
    """The ``message`` of a stats answer: the chosen parts, flat, as published."""

    cpu_percent: float | UnsetType = UNSET
    cpu_percent_list: list[float] | UnsetType = UNSET
    cpu_memory_total: int | UnsetType = UNSET
    cpu_memory_usage: int | UnsetType = UNSET
    cpu_memory_percent: float | UnsetType = UNSET
    gpus: list[Gpu] | UnsetType = UNSET
    disks: list[Disk] | UnsetType = UNSET
    containers: list[Container] | UnsetType = UNSET
    containers_stale: bool | UnsetType = UNSET
    nodes: list[Node] | UnsetType = UNSET
    users: list[UserUsage] | UnsetType = UNSET
    sampled_at: datetime | UnsetType = UNSET
    notes: list[str] | UnsetType = UNSET


# --- what clients get ----------------------------------------------------------------------------


class Answer(Struct, frozen=True):
    """The body of every answer under ``/k12ai``."""

    code: int
    descr: str
    message: Any

    @classmethod
    def success(cls, message: Any, language: Language = "en") -> "Answer":
        """Wrap ``message`` as a success."""
        return cls(100000, CATALOGUE[100000].text.pick(language), message)


class AcceptedMessage(Struct, frozen=True):
    """The ``message`` of a 202: where the result will be published."""

    key: str


class ResultEnvelope(Struct, frozen=True):
    """What is published under ``<key>/result``.

    ``timestamp`` is in milliseconds since the epoch, ``datetime`` the server's local time.
    """

    version: str
    type: Literal["result"]
    tag: str
    user: str
    service_uuid: str
    op: str
    timestamp: int
    datetime: str
    result: Answer


class Health(Struct, frozen=True):
    """The body of ``/health``."""

    status: Literal["ok", "degraded", "stopping"]
    version: str
    uptime_seconds: float
    sample_age_seconds: float | None
    sources: dict[str, SourceHealth]


class Problem(Struct, frozen=True, omit_defaults=True):
    """An RFC 9457 problem; ``code`` is the catalogue's, ``cause`` and ``next_step`` its words."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: int
    cause: str
    next_step: str

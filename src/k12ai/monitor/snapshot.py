"""Two readings make a snapshot, and a snapshot makes the published message."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec

from k12ai.models import Container, Cpus, Disk, Gpu, Part, StatsMessage
from k12ai.monitor import ledger
from k12ai.monitor.gpu import GpuReading
from k12ai.monitor.host import HostReading, cpus_between
from k12ai.monitor.note import Note
from k12ai.monitor.processes import Process
from k12ai.monitor.totals import node_of, users_of
from k12ai.runtimes.base import Condition, Unit
from k12ai.runtimes.cgroups import Usage
from k12ai.texts import Language, Text

# A container younger than this has no meaningful share of a processor yet.
_SHORTEST_WINDOW_NS = 20_000_000


class Reading(NamedTuple):
    """Everything that was read at one moment. ``notes`` name the sources that did not answer."""

    at: datetime
    at_s: float  # monotonic
    host: HostReading
    disks: list[Disk]
    gpus: GpuReading
    processes: Mapping[int, Process]  # those on a GPU
    units: Mapping[str, Unit]
    usage: Mapping[str, Usage]
    conditions: Mapping[str, Condition]
    notes: tuple[Note, ...]


class View(NamedTuple):
    """For whom a message is: those of one service, with the names of some users; None: all."""

    service_name: str | None = None
    named: frozenset[str] | None = None

    def shown(self, container: Container) -> Container:
        """Return a container as it is seen: somebody else's has no names."""
        if self.names(container.user):
            return container
        return msgspec.structs.replace(container, user="", service_uuid="")

    def names(self, user: str) -> bool:
        """Whether this user is named."""
        return self.named is None or user in self.named

    def gpu(self, gpu: Gpu) -> Gpu:
        """Return a GPU as it is seen: its figures are everybody's, the names on it are not."""
        if self.named is None:
            return gpu
        holders = [
            each if self.names(each.user) else msgspec.structs.replace(each, user="", service_uuid="")
            for each in gpu.ledger.containers
        ]
        processes = [
            each if self.names(each.user) else msgspec.structs.replace(each, user="", name="")
            for each in gpu.processes
        ]
        ledger = msgspec.structs.replace(gpu.ledger, containers=holders)
        return msgspec.structs.replace(gpu, ledger=ledger, processes=processes)


EVERYTHING = View()


class Snapshot:
    """A complete picture of host, GPUs and containers; immutable, and encoded at most once a form."""

    def __init__(self, reading: Reading, cpus: Cpus, gpus: list[Gpu], containers: dict[str, Container]) -> None:
        self.reading = reading
        self.cpus = cpus
        self.gpus = gpus
        self.disks: list[Disk] = reading.disks
        self.containers = containers
        self._encoded: dict[tuple[Part, Language, View], bytes] = {}

    def message(self, parts: Part, language: Language, view: View = EVERYTHING) -> StatsMessage:
        """Return the chosen parts as they are seen in a view."""
        message = StatsMessage()
        notes: list[Text] = []
        if parts & Part.CPUS:
            for field in Cpus.__struct_fields__:
                setattr(message, field, getattr(self.cpus, field))
        if parts & Part.GPUS:
            message.gpus = [view.gpu(gpu) for gpu in self.gpus]
            notes += self.reading.gpus.notes
        if parts & Part.DISKS:
            message.disks = self.disks
        shown = [
            view.shown(each)
            for each in self.containers.values()
            if view.service_name in (None, each.service_name)
        ]
        if parts & Part.CONTAINERS:
            message.containers = shown
        if parts & Part.USERS:
            message.users = users_of(shown)
        if parts & (Part.CONTAINERS | Part.USERS):
            notes += self._containers_notes(message)
        if parts & Part.NODES:
            message.nodes = [node_of(self.cpus, self.gpus, len(shown), self.reading.conditions, language)]
        notes += [note.text for note in self.reading.notes if note.part & parts]
        message.sampled_at = self.reading.at
        if notes:
            message.notes = [note.pick(language) for note in notes]
        return message

    def encoded(self, parts: Part, language: Language, view: View = EVERYTHING) -> bytes:
        """Return `message` as JSON; asking again costs a look-up."""
        key = (parts, language, view)
        encoded = self._encoded.get(key)
        if encoded is None:
            encoded = msgspec.json.encode(self.message(parts, language, view))
            self._encoded[key] = encoded
        return encoded

    def _containers_notes(self, message: StatsMessage) -> list[Text]:
        notes = []
        for name, condition in self.reading.conditions.items():
            if condition.available or condition.reason is None:
                continue
            reason = condition.reason
            if condition.listed:
                message.containers_stale = True
                notes.append(
                    Text(
                        f"containers: the last known list of {name}, which is unavailable: {reason.en}",
                        f"containers：{name} 不可用，这是最后一次得知的列表：{reason.zh}",
                    )
                )
            else:
                notes.append(
                    Text(
                        f"containers: unknown, {name} is unavailable: {reason.en}",
                        f"containers：未知，{name} 不可用：{reason.zh}",
                    )
                )
        return notes


def derive(before: Reading, after: Reading, previous: Snapshot | None = None) -> Snapshot:
    """Make the snapshot of the window between two readings.

    ``previous`` gives the last known figures of containers whose counters cannot be read; every unit
    is shown, one that was never read with zeros and a note.
    """
    accounts = [ledger.account(gpu, after.processes, after.units) for gpu in after.gpus.gpus]
    notes = [note for account in accounts for note in account.notes]
    containers = {}
    without: list[str] = []
    for container_id, unit in after.units.items():
        usage = after.usage.get(container_id)
        if usage is not None:
            found = _container(unit, before.usage.get(container_id), usage, after.host.memory_total)
        elif previous is not None and container_id in previous.containers:
            found = previous.containers[container_id]
        else:
            found = _container(unit, None, Usage(0, 0, 0, None), after.host.memory_total)
            without.append(unit.short_id)
        containers[container_id] = _with_gpus(found, container_id, accounts) if accounts else found
    if without:
        notes.append(_no_figures(without))
    after = after._replace(notes=(*after.notes, *notes))
    return Snapshot(after, cpus_between(before.host, after.host), [each.gpu for each in accounts], containers)


def _with_gpus(container: Container, container_id: str, accounts: Sequence[ledger.Account]) -> Container:
    memory = sum(each.memory.get(container_id, 0) for each in accounts)
    percent = round(sum(each.shares.get(container_id, 0.0) for each in accounts), 1)
    if (memory, percent) == (container.gpu_memory_usage, container.gpu_percent):
        return container
    return msgspec.structs.replace(container, gpu_memory_usage=memory, gpu_percent=percent)


def _no_figures(short_ids: list[str]) -> Note:
    names = ", ".join(short_ids)
    return Note(
        Part.CONTAINERS, Text(f"containers: no figures yet for {names}", f"containers：尚无数值：{names}")
    )


def _container(unit: Unit, before: Usage | None, after: Usage, host_memory: int) -> Container:
    total = after.memory_limit_bytes or host_memory
    if after.since is None:  # measured on this machine, whose memory a limit may exceed
        total = min(total, host_memory)
    return Container(
        id=unit.short_id,
        cpu_percent=_cpu_percent(before, after),
        cpu_memory_total=total,
        cpu_memory_usage=after.memory_bytes,
        cpu_memory_percent=round(100 * after.memory_bytes / total, 2),
        op=unit.op,
        user=unit.user,
        service_uuid=unit.service_uuid,
        service_name=unit.service_name,
        status=unit.status,
        started_at=unit.started_at,
        gpus=list(unit.gpus),
        gpu_memory_usage=0,
        gpu_percent=0.0,
    )


def _cpu_percent(before: Usage | None, after: Usage) -> float:
    since = after.since or ((before.at_ns, before.cpu_ns) if before else None)
    if since is None:
        return 0.0
    elapsed_ns, used_ns = after.at_ns - since[0], after.cpu_ns - since[1]
    if elapsed_ns < _SHORTEST_WINDOW_NS:
        return 0.0
    return round(100 * max(0, used_ns) / elapsed_ns, 2)

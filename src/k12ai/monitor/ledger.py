"""The honest ledger: who holds a GPU's memory, to the byte.

For every GPU, what the containers hold and what is unattributed add up to what the device reports as
used. Nothing is counted twice, nothing is made up, and a process that holds memory and belongs to no
container is named.
"""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from k12ai.models import Gpu, GpuHolder, GpuLedger, GpuProcess, MigDevice, Part
from k12ai.monitor.gpu import GpuSample
from k12ai.monitor.note import Note
from k12ai.monitor.processes import Process
from k12ai.runtimes.base import Unit
from k12ai.texts import Text

# Everything that shows figures of the ledger.
_SHOWN_IN = Part.GPUS | Part.CONTAINERS | Part.USERS


class Account(NamedTuple):
    """A GPU with its ledger, and what the ledger says about units: by full id, in bytes and percent."""

    gpu: Gpu
    memory: Mapping[str, int]
    shares: Mapping[str, float]
    notes: tuple[Note, ...]


def account(sample: GpuSample, known: Mapping[int, Process], units: Mapping[str, Unit]) -> Account:
    """Attribute a GPU's memory and time to the units whose processes are on it."""
    notes = [Note(_SHOWN_IN if sample.processes is None else Part.GPUS, text) for text in sample.notes]
    processes = sample.processes or ()
    claimed: Counter[str] = Counter()
    shares: dict[str, float] = {}
    shared: set[int] = set()  # the driver's shares are a process's, however many rows it has
    rows = []
    for process in sorted(processes, key=lambda each: each.pid):
        here = known.get(process.pid)
        unit = units.get(here.unit_id) if here is not None and here.unit_id is not None else None
        share = None if sample.shares is None else sample.shares.get(process.pid, 0.0)
        if unit is not None:
            claimed[unit.container_id] += process.memory_bytes or 0
            if share is not None and process.pid not in shared:
                shared.add(process.pid)
                shares[unit.container_id] = shares.get(unit.container_id, 0.0) + share
        if process.memory_bytes is None:
            notes.append(Note(_SHOWN_IN, _memory_not_told(sample.index, process.pid)))
        rows.append(
            GpuProcess(
                pid=process.pid,
                name="" if here is None else here.name,
                user=unit.user if unit is not None else "" if here is None else here.account,
                container="" if unit is None else unit.short_id,
                gpu_memory_usage=process.memory_bytes,
                gpu_percent=None if share is None else round(share, 1),
                mig_uuid=process.mig_uuid,
            )
        )
    memory = _within(claimed, sample.memory_usage)
    if memory != claimed:
        notes.append(Note(_SHOWN_IN, _more_than_used(sample.index)))
    return Account(_gpu(sample, rows, memory, units), memory, shares, tuple(notes))


def _within(claimed: Mapping[str, int], used: int) -> dict[str, int]:
    """Cut the claims down in proportion where they are more than there is."""
    total = sum(claimed.values())
    if total <= used:
        return dict(claimed)
    return {unit_id: claim * used // total for unit_id, claim in claimed.items()}


def _gpu(
    sample: GpuSample, processes: list[GpuProcess], memory: Mapping[str, int], units: Mapping[str, Unit]
) -> Gpu:
    holders = [
        GpuHolder(units[each].short_id, units[each].user, units[each].service_uuid, held)
        for each, held in sorted(memory.items(), key=lambda item: -item[1])
    ]
    return Gpu(
        name=sample.name,
        gpu_percent=sample.percent,
        gpu_memory_total=sample.memory_total,
        gpu_memory_usage=sample.memory_usage,
        gpu_memory_percent=_percent(sample.memory_usage, sample.memory_total),
        index=sample.index,
        uuid=sample.uuid,
        temperature=sample.temperature,
        power_watts=sample.power_watts,
        processes=processes,
        ledger=GpuLedger(containers=holders, unattributed=sample.memory_usage - sum(memory.values())),
        migs=[
            MigDevice(
                name=each.name,
                uuid=each.uuid,
                gpu_memory_total=each.memory_total,
                gpu_memory_usage=each.memory_usage,
                gpu_memory_percent=_percent(each.memory_usage, each.memory_total),
            )
            for each in sample.migs
        ],
    )


def _percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 2) if whole else 0.0


def _memory_not_told(index: int, pid: int) -> Text:
    return Text(
        f"gpu {index}: the driver does not tell how much memory process {pid} holds; it is unattributed",
        f"gpu {index}：驱动未提供进程 {pid} 占用的显存，该部分计入“未归属”",
    )


def _more_than_used(index: int) -> Text:
    return Text(
        f"gpu {index}: the processes claim more memory than the device says is used; "
        "their containers' figures are cut down in proportion",
        f"gpu {index}：各进程声称的显存多于设备报告的已用显存，相应容器的数值已按比例缩减",
    )

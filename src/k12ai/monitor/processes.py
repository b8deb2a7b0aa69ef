"""What this machine knows of a process: its name, its account, and the unit it belongs to."""

import pwd
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from k12ai.runtimes.base import Runtime


class Process(NamedTuple):
    """A process as ``/proc`` shows it; ``unit_id`` is the full id of its unit, None where it has none."""

    name: str
    account: str
    unit_id: str | None


def look_up(pids: Iterable[int], runtimes: Iterable[Runtime]) -> dict[int, Process]:
    """Return those of the processes that exist here. Reads a few small files for each: run it in a `Worker`."""
    runtimes = tuple(runtimes)
    found = {}
    for pid in pids:
        directory = Path(f"/proc/{pid}")
        try:
            name = (directory / "comm").read_text(errors="replace").rstrip("\n")
            account = _account(directory.stat().st_uid)
        except OSError:
            continue  # it has ended, or its number means something elsewhere only
        unit_id = next((owner for each in runtimes if (owner := each.unit_of(pid)) is not None), None)
        found[pid] = Process(name, account, unit_id)
    return found


def _account(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # of a container's own table
        return str(uid)

"""From two readings to the published message."""

import datetime

import msgspec
import pytest

from k12ai.models import Disk, Part, SourceHealth, StatsMessage, StatsParams
from k12ai.monitor import ledger
from k12ai.monitor.gpu import GpuReading, ProcessSample
from k12ai.monitor.host import HostReading
from k12ai.monitor.note import Note
from k12ai.monitor.processes import Process
from k12ai.monitor.snapshot import Reading, View, derive
from k12ai.runtimes.base import Condition, Unit
from k12ai.runtimes.cgroups import Usage
from k12ai.texts import Text
from tests.support.fakes import AWAY, gpu_sample, unit

HOST_MEMORY = 8 << 30
SECOND = 1_000_000_000
PRESENT = Condition(available=True, listed=True)


def reading(
    usage: dict[Unit, Usage | None],
    *,
    condition: Condition = PRESENT,
    notes: tuple[Note, ...] = (),
    gpu_notes: tuple[Text, ...] = (),
) -> Reading:
    return Reading(
        at=datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC),
        at_s=0.0,
        host=HostReading((1.0,), (2.0,), HOST_MEMORY, 1 << 30, 12.5),
        disks=[Disk("/", 100, 50, 50.0)],
        gpus=GpuReading((), gpu_notes),
        processes={},
        units={each.container_id: each for each in usage},
        usage={each.container_id: used for each, used in usage.items() if used is not None},
        conditions={"docker": condition},
        notes=notes,
    )


def used(at_s: float, cpu_s: float, *, memory: int = 1 << 20, limit: int | None = None) -> Usage:
    return Usage(int(at_s * SECOND), int(cpu_s * SECOND), memory, limit)


def test_100_percent_is_one_core() -> None:
    before, after = reading({unit(): used(10, 3)}), reading({unit(): used(12, 6)})
    (container,) = derive(before, after).containers.values()
    assert container.cpu_percent == 150.0


def test_a_container_seen_for_the_first_time_has_no_share_yet() -> None:
    (container,) = derive(reading({}), reading({unit(): used(10, 500)})).containers.values()
    assert container.cpu_percent == 0.0


def test_a_reading_that_brings_its_own_window_uses_it() -> None:
    own = Usage(2 * SECOND, 2 * SECOND, 0, None, since=(SECOND, int(1.5 * SECOND)))
    (container,) = derive(reading({unit(): own}), reading({unit(): own})).containers.values()
    assert container.cpu_percent == 50.0


@pytest.mark.parametrize(
    ("limit", "total"),
    [
        pytest.param(None, HOST_MEMORY, id="no limit: the host's memory"),
        pytest.param(1 << 30, 1 << 30, id="its limit"),
        pytest.param(1 << 40, HOST_MEMORY, id="a limit above the host's memory is none"),
    ],
)
def test_a_containers_memory_total(limit: int | None, total: int) -> None:
    after = reading({unit(): used(1, 1, memory=1 << 29, limit=limit)})
    (container,) = derive(reading({}), after).containers.values()
    assert container.cpu_memory_total == total
    assert container.cpu_memory_percent == round(100 * (1 << 29) / total, 2)


def test_ids_are_12_hex_digits_and_labels_are_shown_as_they_are() -> None:
    odd = unit(user="../../x", op="", service_uuid="", service_name="")
    (container,) = derive(reading({}), reading({odd: used(1, 1)})).containers.values()
    assert container.id == odd.container_id[:12]
    assert (container.user, container.op, container.service_uuid) == ("../../x", "", "")


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        ({}, Part.PUBLISHED),
        ({"cpus": True}, Part.CPUS),
        ({"cpus": True, "disks": False}, Part.CPUS),
        ({"disks": False}, Part.CPUS | Part.GPUS | Part.CONTAINERS),
        ({"cpus": False, "gpus": False, "disks": False, "containers": False}, Part(0)),
        ({"gpus": True, "containers": True}, Part.GPUS | Part.CONTAINERS),
        ({"users": True}, Part.USERS),
        ({"nodes": True, "cpus": True}, Part.NODES | Part.CPUS),
        ({"nodes": False, "users": False}, Part.PUBLISHED),
    ],
)
def test_exactly_the_true_parts_or_all_less_the_false_ones(flags: dict[str, bool], parts: Part) -> None:
    assert StatsParams(**flags).chosen() == parts


def test_only_the_chosen_parts_are_in_the_message() -> None:
    snapshot = derive(reading({}), reading({}))
    message = msgspec.json.decode(snapshot.encoded(Part.DISKS, "en"))
    assert set(message) == {"disks", "sampled_at"}
    assert message["sampled_at"] == "2026-01-02T03:04:05Z"


def test_a_service_name_filters_the_containers_and_nothing_else() -> None:
    both = {unit(1): used(1, 1), unit(2, service_name="k12nlp"): used(1, 1)}
    message = derive(reading({}), reading(both)).message(Part.PUBLISHED, "en", View("k12nlp"))
    assert isinstance(message.containers, list)
    assert [each.user for each in message.containers] == ["student2"]
    assert message.cpu_percent == 0.0


def test_a_gpu_keeps_its_figures_and_loses_the_names_that_somebody_does_not_see() -> None:
    alice, bob = unit(1, user="alice", service_uuid="digits"), unit(2, user="bob", service_uuid="reviews")
    sample = gpu_sample(
        memory_usage=900,
        processes=(ProcessSample(11, 300), ProcessSample(12, 200), ProcessSample(13, 100)),
    )
    owners = {11: alice, 12: bob, 13: None}
    processes = {
        pid: Process("python", "root", owner.container_id if owner else None) for pid, owner in owners.items()
    }
    units = {each.container_id: each for each in (alice, bob)}
    shown = ledger.account(sample, processes, units).gpu
    seen = View(named=frozenset({"alice"})).gpu(shown)
    assert [(each.user, each.service_uuid) for each in seen.ledger.containers] == [
        ("alice", "digits"),
        ("", ""),
    ]
    assert [(each.pid, each.user, each.name) for each in seen.processes] == [
        (11, "alice", "python"),
        (12, "", ""),
        (13, "", ""),
    ]
    assert [each.gpu_memory_usage for each in seen.ledger.containers] == [300, 200]
    assert seen.gpu_memory_usage == shown.gpu_memory_usage
    assert View().gpu(shown) is shown


def test_the_same_form_is_encoded_once() -> None:
    snapshot = derive(reading({}), reading({}))
    assert snapshot.encoded(Part.PUBLISHED, "en") is snapshot.encoded(Part.PUBLISHED, "en")
    assert snapshot.encoded(Part.PUBLISHED, "en") is not snapshot.encoded(Part.PUBLISHED, "zh")


def message_of(condition: Condition, parts: Part = Part.PUBLISHED) -> StatsMessage:
    running = derive(reading({unit(): used(1, 1)}), reading({unit(): used(2, 1.5)}))
    lost = reading({unit(): None}, condition=condition)
    return derive(lost, lost, running).message(parts, "en")


def test_while_a_runtime_is_away_its_last_known_containers_stay_with_a_note() -> None:
    message = message_of(Condition(available=False, listed=True, reason=AWAY))
    assert isinstance(message.containers, list)
    assert [each.cpu_percent for each in message.containers] == [50.0]
    assert message.containers_stale is True
    assert message.notes == ["containers: the last known list of docker, which is unavailable: it went away"]


def test_a_container_whose_counters_cannot_be_read_keeps_its_last_figures() -> None:
    """When it has ended, its runtime says so; until then it is shown."""
    message = message_of(Condition(available=True, listed=True))
    assert isinstance(message.containers, list)
    assert [each.cpu_percent for each in message.containers] == [50.0]


def test_a_container_that_was_never_read_is_shown_with_a_note() -> None:
    blank = reading({unit(): None})
    message = derive(blank, blank).message(Part.PUBLISHED, "en")
    assert isinstance(message.containers, list)
    assert [each.cpu_memory_usage for each in message.containers] == [0]
    assert message.notes == [f"containers: no figures yet for {unit().short_id}"]


def test_a_runtime_that_was_never_read_is_unknown_and_not_empty() -> None:
    lost = reading({}, condition=Condition(available=False, listed=False, reason=AWAY))
    message = derive(lost, lost).message(Part.PUBLISHED, "zh")
    assert message.containers == []
    assert message.containers_stale is msgspec.UNSET
    assert message.notes == ["containers：未知，docker 不可用：它不见了"]


def test_notes_come_only_with_the_part_they_are_about() -> None:
    late = reading({}, notes=(Note(Part.DISKS, AWAY),), gpu_notes=(Text("no gpu", "没有"),))
    snapshot = derive(late, late)
    assert snapshot.message(Part.CPUS, "en").notes is msgspec.UNSET
    assert snapshot.message(Part.DISKS, "en").notes == ["it went away"]
    assert snapshot.message(Part.GPUS, "zh").notes == ["没有"]


def test_users_are_the_containers_added_up_and_only_those_that_are_shown() -> None:
    three = {
        unit(1, user="alice"): used(1, 1, memory=10),
        unit(2, user="alice", service_name="k12nlp"): used(1, 1, memory=5),
        unit(3, user=""): used(1, 1, memory=1),
    }
    snapshot = derive(reading({}), reading(three))
    everybody = snapshot.message(Part.USERS, "en").users
    assert isinstance(everybody, list)
    assert [(each.user, each.containers, each.cpu_memory_usage) for each in everybody] == [
        ("", 1, 1),
        ("alice", 2, 15),
    ]
    narrowed = snapshot.message(Part.USERS, "en", View("k12nlp")).users
    assert isinstance(narrowed, list)
    assert [(each.user, each.containers) for each in narrowed] == [("alice", 1)]


def test_a_node_says_in_both_languages_why_a_runtime_is_away() -> None:
    away = reading({}, condition=Condition(available=False, listed=True, reason=AWAY))
    for language in ("en", "zh"):
        nodes = derive(away, away).message(Part.NODES, language).nodes
        assert isinstance(nodes, list)
        assert nodes[0].runtimes["docker"] == SourceHealth(available=False, reason=AWAY.pick(language))

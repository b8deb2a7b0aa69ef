"""The host's figures."""

from collections import namedtuple
from pathlib import Path

import psutil
import pytest

from k12ai.monitor.host import Disks, HostReading, cpus_between, read_host


def reading(busy: tuple[float, ...], total: tuple[float, ...]) -> HostReading:
    return HostReading(busy, total, 1000, 600, 55.5)


def test_busy_is_the_share_of_the_time_between_two_readings() -> None:
    cpus = cpus_between(reading((10.0, 10.0), (100.0, 100.0)), reading((10.5, 10.0), (101.0, 101.0)))
    assert cpus.cpu_percent_list == [50.0, 0.0]
    assert cpus.cpu_percent == 25.0


def test_memory_usage_and_percent_are_psutils_own() -> None:
    """The published sample shows 8.8 % where usage divided by total would give 7.4 %."""
    cpus = cpus_between(reading((0.0,), (0.0,)), reading((0.0,), (1.0,)))
    assert (cpus.cpu_memory_total, cpus.cpu_memory_usage, cpus.cpu_memory_percent) == (1000, 600, 55.5)


def test_counters_that_go_back_or_stand_still_count_as_idle() -> None:
    cpus = cpus_between(reading((10.0, 5.0), (100.0, 50.0)), reading((9.9, 5.0), (101.0, 50.0)))
    assert cpus.cpu_percent_list == [0.0, 0.0]


def test_waiting_for_disks_and_guests_counted_twice_are_not_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    times = namedtuple("times", "user system idle iowait guest guest_nice")
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: [times(30.0, 10.0, 50.0, 10.0, 20.0, 5.0)])
    read = read_host()
    assert read.total_s == (100.0,)
    assert read.busy_s == (40.0,)


def test_this_machine_has_figures() -> None:
    read = read_host()
    assert len(read.busy_s) == psutil.cpu_count()
    assert 0 < read.memory_usage < read.memory_total


Partition = namedtuple("Partition", "device mountpoint fstype")
Usage = namedtuple("Usage", "total used percent")


@pytest.fixture(name="partitions")
def _partitions(monkeypatch: pytest.MonkeyPatch) -> list[Partition]:
    table: list[Partition] = []
    virtual = ("overlay", "tmpfs", "nfs4")

    def partitions(**asked: bool) -> list[Partition]:
        return [each for each in table if asked["all"] or each.fstype not in virtual]

    monkeypatch.setattr(psutil, "disk_partitions", partitions)
    monkeypatch.setattr(psutil, "disk_usage", lambda path: Usage(100, 50, 50.0))
    return table


@pytest.mark.parametrize(
    ("mounted", "shown"),
    [
        pytest.param(
            [("/dev/a", "/", "ext4"), ("/dev/a", "/var/lib/docker", "ext4")], ["/"], id="bind mounts once"
        ),
        pytest.param(
            [("/dev/a", "/srv/deep", "ext4"), ("/dev/a", "/srv", "ext4")], ["/srv"], id="the shortest path"
        ),
        pytest.param([("/dev/a", "/", "btrfs"), ("/dev/a", "/home", "btrfs")], ["/"], id="subvolumes once"),
        pytest.param([("/dev/a", "/", "ext4"), ("tmpfs", "/run", "tmpfs")], ["/"], id="virtual ones not"),
        pytest.param([("/dev/a", "/", "ext4"), ("/dev/loop0", "/snap/x", "squashfs")], ["/"], id="images not"),
        pytest.param(
            [("/dev/a", "/", "ext4"), ("nas:/home", "/home", "nfs4")], ["/", "/home"], id="remote homes"
        ),
        pytest.param([("overlay", "/", "overlay")], ["/"], id="the root of a container"),
    ],
)
def test_each_real_file_system_is_shown_once(
    partitions: list[Partition], mounted: list[tuple[str, str, str]], shown: list[str]
) -> None:
    partitions += [Partition(*each) for each in mounted]
    assert [disk.path for disk in Disks().read()] == shown


def test_a_file_that_is_mounted_is_no_disk(partitions: list[Partition], tmp_path: Path) -> None:
    """A container has its /etc/hosts bound from the host's disk."""
    hosts = tmp_path / "hosts"
    hosts.touch()
    partitions += [Partition("overlay", "/", "overlay"), Partition("/dev/a", str(hosts), "ext4")]
    assert [disk.path for disk in Disks().read()] == ["/"]


def test_a_file_system_that_was_unmounted_is_left_out(
    partitions: list[Partition], monkeypatch: pytest.MonkeyPatch
) -> None:
    partitions.append(Partition("/dev/a", "/", "ext4"))

    def gone(path: str) -> Usage:
        raise OSError(path)

    monkeypatch.setattr(psutil, "disk_usage", gone)
    assert Disks().read() == []

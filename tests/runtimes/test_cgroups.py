"""Cgroup files of version 1 and 2, as trees below a directory of the test's.

The trees have the shape that was seen on Docker 20.10 with cgroup v1 (cgroupfs driver) and that the
kernel documents for v2 with the systemd driver. Version 2 is not run against a live kernel here.
"""

import os
from pathlib import Path

import pytest

from k12ai.runtimes.cgroups import Cgroups, CgroupUnreachable

ID = "8b6ffc639" + "0" * 55


def tree(root: Path, files: dict[str, str]) -> Cgroups:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return Cgroups(root)


def version_1(root: Path, *, mount_root: str = "/", limit: int = 9223372036854771712) -> Cgroups:
    inside = f"/docker/{ID}".removeprefix(mount_root.rstrip("/"))
    return tree(
        root,
        {
            "proc/self/mountinfo": (
                "24 18 0:21 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
                f"31 24 0:28 {mount_root} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
                f"32 24 0:29 {mount_root} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
                "33 24 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
            ),
            "proc/42/cgroup": f"5:memory:/docker/{ID}\n4:cpu,cpuacct:/docker/{ID}\n0::/\n",
            f"sys/fs/cgroup/memory{inside}/memory.usage_in_bytes": "5000000\n",
            f"sys/fs/cgroup/memory{inside}/memory.limit_in_bytes": f"{limit}\n",
            f"sys/fs/cgroup/memory{inside}/memory.stat": "inactive_file 7\ntotal_inactive_file 1000000\n",
            f"sys/fs/cgroup/cpu,cpuacct{inside}/cpuacct.usage": "123456789\n",
        },
    )


def version_2(root: Path, *, limit: str = "max") -> Cgroups:
    inside = f"system.slice/docker-{ID}.scope"
    return tree(
        root,
        {
            "proc/self/mountinfo": "33 24 0:30 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n",
            "proc/42/cgroup": f"0::/{inside}\n",
            f"sys/fs/cgroup/{inside}/memory.current": "5000000\n",
            f"sys/fs/cgroup/{inside}/memory.max": f"{limit}\n",
            f"sys/fs/cgroup/{inside}/memory.stat": "anon 3\ninactive_anon 5\ninactive_file 1000000\nslab 1\n",
            f"sys/fs/cgroup/{inside}/cpu.stat": "usage_usec 123456\nuser_usec 1\nsystem_usec 2\n",
        },
    )


def test_version_1_leaves_out_the_cache_that_can_be_dropped(tmp_path: Path) -> None:
    usage = version_1(tmp_path).reader(42, ID).read()
    assert (usage.cpu_ns, usage.memory_bytes, usage.memory_limit_bytes) == (123456789, 4000000, None)


def test_version_2_leaves_out_the_cache_that_can_be_dropped(tmp_path: Path) -> None:
    usage = version_2(tmp_path).reader(42, ID).read()
    assert (usage.cpu_ns, usage.memory_bytes, usage.memory_limit_bytes) == (123456000, 4000000, None)


def test_limits_are_read_in_both_versions(tmp_path: Path) -> None:
    assert version_1(tmp_path / "1", limit=1 << 25).reader(42, ID).read().memory_limit_bytes == 1 << 25
    assert version_2(tmp_path / "2", limit="33554432").reader(42, ID).read().memory_limit_bytes == 1 << 25


def test_a_hierarchy_mounted_below_its_root_is_found(tmp_path: Path) -> None:
    """As inside of a container that sees only a part of the hierarchy."""
    assert version_1(tmp_path, mount_root="/docker").reader(42, ID).read().cpu_ns == 123456789


def test_more_cache_than_usage_is_no_negative_memory(tmp_path: Path) -> None:
    cgroups = version_2(tmp_path)
    stat = tmp_path / f"sys/fs/cgroup/system.slice/docker-{ID}.scope/memory.stat"
    stat.write_text("inactive_file 9000000\n")
    assert cgroups.reader(42, ID).read().memory_bytes == 0


def test_a_pid_of_another_container_is_not_taken_for_this_one(tmp_path: Path) -> None:
    """A remote Engine's pids mean something else here, and pids are used again."""
    with pytest.raises(CgroupUnreachable):
        version_1(tmp_path).reader(42, "f" * 64)


def test_a_process_that_is_gone_is_unreachable(tmp_path: Path) -> None:
    with pytest.raises(CgroupUnreachable):
        version_1(tmp_path).reader(43, ID)


def test_a_container_without_one_of_the_files_is_unreachable(tmp_path: Path) -> None:
    """As with cgroup v2 where the memory controller is off."""
    cgroups = version_2(tmp_path)
    (tmp_path / f"sys/fs/cgroup/system.slice/docker-{ID}.scope/memory.current").unlink()
    with pytest.raises(CgroupUnreachable):
        cgroups.reader(42, ID)


def test_a_first_process_in_a_group_below_the_containers_counts_for_the_container(tmp_path: Path) -> None:
    """As with systemd, or Docker, as the first process."""
    cgroups = version_2(tmp_path)
    (tmp_path / "proc/42/cgroup").write_text(f"0::/system.slice/docker-{ID}.scope/init\n")
    assert cgroups.reader(42, ID).read().cpu_ns == 123456000


def test_a_changed_limit_is_noticed_within_ten_readings(tmp_path: Path) -> None:
    reader = version_2(tmp_path).reader(42, ID)
    assert reader.read().memory_limit_bytes is None
    (tmp_path / f"sys/fs/cgroup/system.slice/docker-{ID}.scope/memory.max").write_text("1000\n")
    assert [reader.read().memory_limit_bytes for _ in range(10)][-1] == 1000


def test_a_closed_reader_holds_no_files(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    reader = version_1(tmp_path).reader(42, ID)
    reader.read()
    reader.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_real_process_outside_of_any_container_is_unreachable() -> None:
    with pytest.raises(CgroupUnreachable):
        Cgroups().reader(os.getpid(), ID)


# --- whose process is it ----------------------------------------------------------------------

INNER = "c" * 64


@pytest.mark.parametrize(
    ("groups", "ids"),
    [
        pytest.param(f"0::/system.slice/docker-{ID}.scope\n", [ID], id="version 2, systemd"),
        pytest.param(f"5:memory:/docker/{ID}\n4:cpu,cpuacct:/docker/{ID}\n", [ID], id="version 1, once"),
        pytest.param(f"5:memory:/docker/{ID}/docker/{INNER}\n", [INNER, ID], id="the innermost first"),
        pytest.param(f"5:memory:/kubepods/pod1/{ID}/worker\n", [ID], id="a group of its own below"),
        pytest.param("0::/user.slice/user-0.slice/session-1.scope\n", [], id="a process of the host"),
        pytest.param(f"0::/docker-{ID}0.scope\n", [], id="65 digits are no id"),
    ],
)
def test_the_containers_of_a_process_are_found_in_its_cgroup(
    tmp_path: Path, groups: str, ids: list[str]
) -> None:
    assert tree(tmp_path, {"proc/42/cgroup": groups}).container_ids(42) == ids


def test_a_process_that_has_ended_is_in_no_container(tmp_path: Path) -> None:
    assert Cgroups(tmp_path).container_ids(42) == []

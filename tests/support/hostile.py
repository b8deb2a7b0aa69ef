"""A program that tries what no task may do, and prints as JSON what it could do: nothing, one hopes.

It runs inside of a container, not in a test: its first argument is a JSON object that says where the
things are which it would like to have.
"""

import ctypes
import json  # noqa: TID251 - the image of a task need not have more
import os
import resource
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from typing import Any

libc = ctypes.CDLL(None, use_errno=True)

PTRACE_ATTACH, PTRACE_DETACH = 16, 17
MS_REMOUNT, MNT_DETACH = 32, 2
CLONE_NEWUSER, CLONE_NEWNS = 0x10000000, 0x00020000
SYS_ADD_KEY, SYS_PERF_EVENT_OPEN, SYS_BPF, SYS_REBOOT = 248, 298, 321, 169  # of x86_64

WHERE = json.loads(sys.argv[1])
JOURNAL, PARAMS = os.environ["K12AI_JOURNAL"], os.environ["K12AI_PARAMS"]
HERE = os.path.dirname(JOURNAL)

probes: list[Callable[[], bool]] = []


def probe(function: Callable[[], bool]) -> Callable[[], bool]:
    probes.append(function)
    return function


def can_open(path: str, flags: int = os.O_RDONLY) -> bool:
    try:
        os.close(os.open(path, flags | os.O_NONBLOCK))
    except OSError:
        return False
    return True


def can_connect(family: int, address: Any) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as knock:
        knock.settimeout(1)
        try:
            knock.connect(address)
        except OSError:
            return False
        return True


def can_make_socket(family: int, kind: int) -> bool:
    try:
        socket.socket(family, kind).close()
    except OSError:
        return False
    return True


def can_list(path: str) -> bool:
    try:
        os.listdir(path)
    except OSError:
        return False
    return True


# --- the machine ------------------------------------------------------------------------------


@probe
def the_engines_socket() -> bool:
    return any(can_connect(socket.AF_UNIX, path) for path in ("/var/run/docker.sock", "/run/docker.sock"))


@probe
def processes_of_the_machine() -> bool:
    return {int(name) for name in os.listdir("/proc") if name.isdigit()} != {1, os.getpid()}


@probe
def secrets_in_an_environment() -> bool:
    for name in os.listdir("/proc"):
        if name.isdigit() and can_open(f"/proc/{name}/environ"):
            with open(f"/proc/{name}/environ", "rb") as file:
                if b"K12AI_SECRET=" in file.read():
                    return True
    return False


@probe
def mount_something() -> bool:
    os.makedirs("/tmp/m", exist_ok=True)
    return bool(libc.mount(b"none", b"/tmp/m", b"tmpfs", 0, None) == 0)


@probe
def make_the_root_writable() -> bool:
    return bool(libc.mount(None, b"/", None, MS_REMOUNT, None) == 0)


@probe
def unmount_the_parameters() -> bool:
    return bool(libc.umount2(PARAMS.encode(), MNT_DETACH) == 0)


@probe
def namespaces_of_its_own() -> bool:
    return bool(libc.unshare(CLONE_NEWUSER) == 0 or libc.unshare(CLONE_NEWNS) == 0)


@probe
def change_the_root() -> bool:
    return bool(libc.chroot(b"/tmp") == 0)


@probe
def devices() -> bool:
    def made(path: str) -> bool:
        try:
            os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 1))
        except OSError:
            return False
        return True

    found = [
        name for name in os.listdir("/dev") if name.startswith(("sd", "vd", "nvme", "kmsg", "mem", "loop"))
    ]
    return made("/tmp/mem") or made("mem") or any(can_open(f"/dev/{name}") for name in found)


@probe
def settings_of_the_kernel() -> bool:
    paths = ("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/sys/vm/overcommit_memory")
    return any(can_open(path, os.O_WRONLY) for path in paths)


@probe
def control_groups() -> bool:
    for root, _, files in os.walk("/sys/fs/cgroup"):
        if any(can_open(os.path.join(root, name), os.O_WRONLY) for name in files):
            return True
    return False


@probe
def the_name_and_the_clock_of_the_machine() -> bool:
    return bool(
        libc.sethostname(b"mine", 4) == 0 or libc.settimeofday(ctypes.create_string_buffer(16), None) == 0
    )


@probe
def rare_calls_of_the_kernel() -> bool:
    attributes = ctypes.create_string_buffer(128)
    return any(
        libc.syscall(*call) >= 0
        for call in (
            (SYS_ADD_KEY, b"user", b"k", b"v", 1, -3),
            (SYS_PERF_EVENT_OPEN, attributes, 0, -1, -1, 0),
            (SYS_BPF, 0, attributes, 128),
            (SYS_REBOOT, 0xFEE1DEAD, 672274793, 0, None),  # of all that it can do, the harmless thing
        )
    )


# --- more rights ------------------------------------------------------------------------------


@probe
def another_account() -> bool:
    for change in (os.setuid, os.setgid, os.seteuid):
        try:
            change(0)
        except OSError:
            continue
        return True
    return False


@probe
def programs_that_become_root() -> bool:
    # The first says who it is; it needs no password where it is root already.
    for command in (["su", "-c", "id -u"], ["mount", "-t", "tmpfs", "none", "/tmp/m"]):
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=False)
        if done.returncode == 0:
            return True
    return False


@probe
def capabilities_or_new_privileges() -> bool:
    with open("/proc/self/status") as file:
        status = dict(line.split(":\t", 1) for line in file.read().splitlines())
    bounds = [int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")]
    return any(bounds) or status["NoNewPrivs"] != "1" or status["Seccomp"] != "2"


@probe
def higher_limits() -> bool:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard + 1, hard + 1))
    except (OSError, ValueError):
        return False
    return True


@probe
def precedence_over_others() -> bool:
    try:
        os.nice(-5)
    except OSError:
        pass
    else:
        return True
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("-1000")
    except OSError:
        return False
    return True


# --- the network ------------------------------------------------------------------------------


@probe
def the_server_of_the_platform() -> bool:
    addresses = ["127.0.0.1", "172.17.0.1", *WHERE["addresses"]]
    return any(can_connect(socket.AF_INET, (each, WHERE["port"])) for each in addresses)


@probe
def the_clouds_own_address() -> bool:
    return can_connect(socket.AF_INET, ("169.254.169.254", 80))


@probe
def names_of_the_network() -> bool:
    try:
        socket.getaddrinfo("example.com", 80)
    except OSError:
        return False
    return True


@probe
def raw_sockets() -> bool:
    return can_make_socket(socket.AF_INET, socket.SOCK_RAW) or can_make_socket(
        socket.AF_PACKET, socket.SOCK_RAW
    )


@probe
def a_socket_without_a_file() -> bool:
    return can_connect(socket.AF_UNIX, "\0" + WHERE["abstract"])


# --- files ------------------------------------------------------------------------------------


@probe
def the_system_of_the_container() -> bool:
    writes = os.O_WRONLY | os.O_CREAT
    paths = (
        "/x",
        "/etc/passwd",
        "/usr/bin/x",
        "/k12ai/shim.py",
        "/k12ai/container_init.py",
        "/k12ai/x",
        HERE + "/x",
    )
    return any(can_open(path, writes) for path in paths)


@probe
def its_own_parameters() -> bool:
    changes: tuple[Callable[[], None], ...] = (
        lambda: os.chmod(PARAMS, 0o777),
        lambda: os.unlink(PARAMS),
        lambda: os.rename(PARAMS, PARAMS + "x"),
        lambda: os.truncate(PARAMS, 0),
    )
    for change in changes:
        try:
            change()
        except OSError:
            continue
        return True
    return False


@probe
def another_file_in_the_journals_place() -> bool:
    changes: tuple[Callable[[], None], ...] = (
        lambda: os.unlink(JOURNAL),
        lambda: os.rename(JOURNAL, HERE + "/log/journal"),
        lambda: os.rename("mine", JOURNAL),
        lambda: os.symlink(WHERE["victim"] + "/journal", JOURNAL),
    )
    for change in changes:
        try:
            open("mine", "w").close()
            change()
        except OSError:
            continue
        return True
    return False


@probe
def the_data_of_the_platform() -> bool:
    names = [os.path.join(WHERE["data_dir"], name) for name in WHERE["files"]]
    # Of the directories above its own, it finds what was made for its mounts and nothing else.
    seen = set(os.listdir(WHERE["data_dir"])) | set(os.listdir(WHERE["data_dir"] + "/tasks"))
    return any(map(can_open, names)) or not seen <= {"tasks", "projects", os.path.basename(HERE)}


@probe
def other_students() -> bool:
    victim, project = WHERE["victim"], WHERE["victim_project"]
    files = (f"{victim}/journal", f"{victim}/params.json", f"{project}/homework")
    return any(map(can_list, (victim, f"{victim}/log", project))) or any(map(can_open, files))


@probe
def a_link_out_of_the_container() -> bool:
    """In the project it can plant any link; what it leads to is inside."""
    os.symlink(f"{WHERE['victim_project']}/homework", "link")
    return can_open("link")


# --- the first process of the container ---------------------------------------------------------


@probe
def the_memory_of_the_first_process() -> bool:
    return can_open("/proc/1/mem", os.O_RDWR)


@probe
def trace_the_first_process() -> bool:
    if libc.ptrace(PTRACE_ATTACH, 1, None, None) != 0:
        return False
    os.waitpid(1, 0x40000000)
    libc.ptrace(PTRACE_DETACH, 1, None, None)
    return True


done = [each.__name__ for each in probes if each()]
print(json.dumps({"tried": len(probes), "succeeded": done}), flush=True)
